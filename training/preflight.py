"""What would go wrong, found before the first step."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from annotation.errors import UserError
from annotation.versions import verify
from training.types import SftConfig

MIB = 2**20
CHECKPOINTS_KEPT = 2
LIBRARIES = ("torch", "transformers", "trl", "peft")


def free_bytes_at(path: Path) -> int:
    """Bytes that may still be written where `path` is, or will be."""
    return shutil.disk_usage(_existing(path)).free


def check(config: SftConfig, run: Path | None = None, free_bytes: Callable[[Path], int] = free_bytes_at) -> None:
    """Raise UserError for the first thing that would stop this run.

    `run` is the run's folder; None means that it will be beside the adapters.
    """
    _check_installed()
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
    _check_disk(config, run or config.adapters_dir, free_bytes)


def _check_installed() -> None:
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"Training needs {', '.join(missing)}, not installed here.",
            "The extra `train`.",
            "Run: pip install 'tonesmith[train]'",
        )


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


def adapter_bytes(config: SftConfig) -> int:
    """Size of the adapter's weights in float32: two thin matrices beside each linear layer of the base.

    A base whose config has other fields is taken to have 8% of its own size at rank 16, more than any has.
    """
    base, rank = Path(config.base_model), config.lora.rank
    try:
        shape = json.loads((base / "config.json").read_bytes())
        hidden, inner, heads = (shape[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
        layers, keys = shape["num_hidden_layers"], shape.get("num_key_value_heads") or heads
    except (OSError, KeyError):
        weights = sum(path.stat().st_size for path in base.glob("*.safetensors"))
        return max(8 * MIB, int(weights * 0.08 * rank / 16))
    head = shape.get("head_dim") or hidden // heads
    widths = 2 * (hidden + heads * head) + 2 * (hidden + keys * head) + 3 * (hidden + inner)
    return int(4 * rank * layers * widths)


def disk_needed(config: SftConfig) -> tuple[int, int]:
    """Bytes needed at most (in the run's folder, in the adapters' folder).

    A checkpoint holds the weights, two moments of the optimiser and the tokenizer; while one is written the older ones
    are still there. The finished adapter is made in the run's folder and copied.
    """
    adapter = adapter_bytes(config)
    checkpoint = 3 * adapter + 8 * MIB
    return (CHECKPOINTS_KEPT + 1) * checkpoint + adapter + 4 * MIB, adapter + MIB


def _check_disk(config: SftConfig, run: Path, free_bytes: Callable[[Path], int]) -> None:
    for_run, for_adapter = disk_needed(config)
    places = [(run, for_run, "checkpoints"), (config.adapters_dir, for_adapter, "the adapter")]
    if _existing(run).stat().st_dev == _existing(config.adapters_dir).stat().st_dev:
        places = [(run, for_run + for_adapter, "checkpoints and the adapter")]
    for place, needed, what in places:
        if (free := free_bytes(place)) < needed:
            raise UserError(
                f"The disk of {place} has {free // MIB:,} MB free.",
                f"About {-(-needed // MIB):,} MB for {what}.",
                "Free some space, or point TONESMITH_HOME at a larger disk, and start again.",
            )


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
