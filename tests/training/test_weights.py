"""Hashes of weights: kept between starts, and read anew as soon as a file is another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training import weights
from training.weights import digest, known_digest


def test_a_models_hash_is_read_once_and_again_when_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, notes, read = tmp_path / "model", tmp_path / "notes", []
    model.mkdir()
    for name in ("a", "b"):
        (model / f"{name}.safetensors").write_bytes(name.encode())

    def counted(folder: Path) -> str:
        read.append(folder)
        return digest(folder)

    monkeypatch.setattr(weights, "digest", counted)
    first = known_digest(model, notes)
    assert (known_digest(model, notes), len(read)) == (first, 1)
    (model / "b.safetensors").write_bytes(b"c")
    changed = known_digest(model, notes)
    assert changed == digest(model) != first
    times = (model / "a.safetensors").stat()
    (model / "a.safetensors").write_bytes(b"z")
    os.utime(model / "a.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert known_digest(model, notes) == digest(model) != changed
    (model / "b.safetensors").unlink()
    assert known_digest(model, notes) == digest(model)
    next(notes.iterdir()).write_text("{")
    assert known_digest(model, notes) == digest(model)
    assert len(read) == 5
