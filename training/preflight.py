"""What would go wrong, found before the first step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from annotation.errors import UserError
from annotation.versions import verify
from training.types import SftConfig

MIB = 2**20
CHECKPOINTS_KEPT = 2


def check(config: SftConfig, free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free) -> None:
    """Raise UserError for the first thing that would stop this run."""
    version = verify(config.dataset_dir)
    if version.sha256 != config.dataset_sha256:
        raise UserError(
            f"The run was set up for other rows than {version.id} holds now.", do="Start a new run on this version."
        )
    if version.rows.get("sft", 0) == 0:
        raise UserError(
            f"Dataset version {version.id} has no rows to learn from.",
            "At least one approved or corrected reply.",
            "Review a few replies, then make a new version.",
        )
    base = Path(config.base_model)
    if base.is_absolute():
        check_base(base)
    _check_disk(config, base, free_bytes)


def check_base(folder: Path) -> None:
    """Raise UserError if `folder` does not hold a model that can be trained."""
    wanted = "A folder with config.json, the weights (*.safetensors), a tokenizer and its chat template."
    if not folder.is_dir():
        raise UserError(f"There is no model at {folder}.", wanted, "Check the base model's name in the settings.")
    for pattern, what in (
        ("config.json", "config.json"),
        ("*.safetensors", "weights in safetensors form"),
        ("tokenizer*", "tokenizer"),
    ):
        if not any(folder.glob(pattern)):
            raise UserError(f"The model at {folder} has no {what}.", wanted, "Put it there, or choose another model.")
    if not (folder / "chat_template.jinja").is_file() and not _template_inside(folder):
        raise UserError(
            f"The tokenizer of {folder} has no chat template.",
            wanted,
            "Use an instruction-tuned model, or put its chat_template.jinja there.",
        )


def _template_inside(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))


def disk_needed(config: SftConfig, base: Path) -> int:
    """Bytes a run writes at most: checkpoints (weights, two optimiser moments) and the adapter, in float32."""
    weights = sum(path.stat().st_size for path in base.glob("*.safetensors")) if base.is_dir() else 0
    # All linear layers of a transformer: roughly rank × 1.6 % of the base's 16-bit size per 16 of rank, rounded up.
    adapter = max(8 * MIB, int(weights * 0.04 * config.lora.rank / 16) * 2)
    return adapter * 3 * CHECKPOINTS_KEPT + adapter * 2


def _check_disk(config: SftConfig, base: Path, free_bytes: Callable[[Path], int]) -> None:
    needed, there = disk_needed(config, base), config.adapters_dir
    while not there.exists():
        there = there.parent
    free = free_bytes(there)
    if free < needed:
        raise UserError(
            f"{there} has {free // MIB:,} MB free.",
            f"About {needed // MIB:,} MB for checkpoints and the adapter.",
            "Free some space, or point TONESMITH_HOME at a larger disk, and start again.",
        )
