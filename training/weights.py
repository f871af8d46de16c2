"""Which weights lie in a folder: one hash for all of a model's files, or for an adapter's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from annotation.files import sha256_of, write_whole

ADAPTER_FILE = "adapter_model.safetensors"


def digest(folder: Path) -> str:
    """Hash of the weights in a folder: of an adapter's file, or of all of a model's files with their names."""
    if (folder / ADAPTER_FILE).is_file():
        return sha256_of(folder / ADAPTER_FILE)
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return sha256_of(files[0])
    return hashlib.sha256("".join(f"{sha256_of(file)}  {file.name}\n" for file in files).encode()).hexdigest()


def known_digest(folder: Path, notes: Path) -> str:
    """`digest` of a model, read anew only if a file's name, size or time is another than when it was noted in `notes`:
    large models take minutes.
    """
    files = [(file.name, file.stat()) for file in sorted(folder.glob("*.safetensors"))]
    stamp = [[name, found.st_size, found.st_mtime_ns] for name, found in files]
    note = notes / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.json"
    try:
        kept = json.loads(note.read_bytes())
        if kept["stamp"] == stamp:
            return str(kept["sha256"])
    except (FileNotFoundError, ValueError, KeyError):
        pass
    found = digest(folder)
    notes.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps({"stamp": stamp, "sha256": found}))
    return found
