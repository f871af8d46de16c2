"""Each thing that would go wrong is said before the first step, with what to do."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotation.errors import UserError
from training.preflight import MIB, adapter_bytes, check, check_base, disk_needed
from training.types import LoraSettings, SftConfig

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
}


def plenty(path: Path) -> int:
    return 10**12


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMOLLM2))
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (folder / name).write_text("x")
    return folder


@pytest.fixture
def config(configured: Callable[..., SftConfig], base: Path) -> SftConfig:
    return configured(base=base)


def test_a_sound_run_passes(config: SftConfig, tmp_path: Path) -> None:
    check(config, tmp_path / "runs" / "r", plenty)


def test_a_version_without_rows(configured: Callable[..., SftConfig], base: Path) -> None:
    with pytest.raises(UserError, match=r"has no rows to learn from.*Review a few replies"):
        check(configured([], base), free_bytes=plenty)


def test_a_version_that_is_gone(config: SftConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a complete dataset version"):
        check(config.model_copy(update={"dataset_dir": tmp_path / "nowhere"}), free_bytes=plenty)


def test_a_version_that_was_changed(config: SftConfig) -> None:
    with (config.dataset_dir / "sft.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match="changed after it was made"):
        check(config, free_bytes=plenty)


def test_another_version_than_the_run_was_set_up_for(config: SftConfig) -> None:
    with pytest.raises(UserError, match="set up for other rows"):
        check(config.model_copy(update={"dataset_sha256": "f" * 64}), free_bytes=plenty)


def test_a_model_that_is_not_there(config: SftConfig, tmp_path: Path) -> None:
    missing = config.model_copy(update={"base_model": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match=r"There is no model at .*nowhere"):
        check(missing, free_bytes=plenty)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights"),
        ("tokenizer.json", "no tokenizer"),
        ("chat_template.jinja", "no chat template"),
    ],
)
def test_a_model_with_a_part_missing(base: Path, missing: str, named: str) -> None:
    (base / missing).unlink()
    with pytest.raises(UserError, match=named):
        check_base(base)


def test_a_chat_template_inside_the_tokenizer_config_counts(base: Path) -> None:
    (base / "chat_template.jinja").unlink()
    (base / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    check_base(base)


def test_no_room_on_the_disk_names_how_much_is_needed_and_where(config: SftConfig, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r"
    needed = -(-sum(disk_needed(config)) // MIB)
    with pytest.raises(UserError, match=rf"The disk of {run} has 5 MB free\. About {needed} MB") as caught:
        check(config, run, lambda path: 5 * MIB)
    assert "TONESMITH_HOME" in caught.value.do


def test_exactly_enough_room_is_enough(config: SftConfig, tmp_path: Path) -> None:
    needed = sum(disk_needed(config))
    check(config, tmp_path, lambda path: needed)
    with pytest.raises(UserError):
        check(config, tmp_path, lambda path: needed - 1)


@pytest.mark.parametrize("rank", [1, 16, 32])
def test_the_adapters_size_is_known_beforehand(config: SftConfig, rank: int) -> None:
    # SmolLM2-135M at rank 16 has 4,884,480 adapter weights on its linear layers, as peft counts them.
    assert adapter_bytes(config.model_copy(update={"lora": LoraSettings(rank=rank)})) == 4_884_480 * 4 * rank // 16


def test_a_model_of_another_make_is_taken_to_need_more(config: SftConfig, base: Path) -> None:
    (base / "config.json").write_text('{"n_embd": 768}')
    os.truncate(base / "model.safetensors", 300 * MIB)
    assert adapter_bytes(config) == int(300 * MIB * 0.08)


def test_no_trainer_installed(config: SftConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "trl" else find(name, *rest))
    with pytest.raises(UserError, match=r"Training needs trl.*pip install 'tonesmith\[train\]'"):
        check(config, free_bytes=plenty)
