"""Adapters that each answer in their own way, made in a moment: random, published as a run publishes its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from serving.fitting import base_shapes
from training import registry
from training.base_model import EMBEDDED
from training.types import Adapter, Scored, SftConfig

RANK, STRENGTH = 8, 0.4
TRAINED_RANK, TRAINED_STRENGTH = 16, 0.05
"""The presets' rank, and about as much of a change as a run of theirs makes."""
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make(root: Path, base: Path, count: int, seed: int = 1) -> list[Adapter]:
    """`count` adapters of the model in folder `base`, published under `root`."""
    names = [f"voice{number}" for number in range(count)]
    drawn = [_draw(root, base, name, seed + number, RANK, STRENGTH) for number, name in enumerate(names)]
    return [_publish(root, base, *pair, RANK) for pair in zip(names, drawn, strict=True)]


def trained(root: Path, base: Path) -> Adapter:
    """One that is checked at a load as a run's own is: the trainer's account of three exchanges is with it, made by the
    trainer's own code. Takes about as long as an import of torch.
    """
    made = _draw(root, base, "trained", 1, TRAINED_RANK, TRAINED_STRENGTH)
    command = [sys.executable, "-m", "benchmarks.account", str(base), str(made)]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    scored = tuple(Scored.model_validate(one) for one in json.loads(said))
    return _publish(root, base, "trained", made, TRAINED_RANK, scored)


def _draw(root: Path, base: Path, name: str, seed: int, rank: int, strength: float) -> Path:
    """A folder with random weights; `strength` 0.4 is wide enough a change that no two say the same."""
    draw = np.random.default_rng(seed)
    tensors = {}
    for layer, (out, into) in ((key, shape) for key, shape in base_shapes(base).items() if len(shape) == 2):
        if layer.removesuffix(".weight").split(".")[-1] not in LAYERS:
            continue
        under = f"base_model.model.{layer.removesuffix('.weight')}"
        tensors[f"{under}.lora_A.weight"] = draw.uniform(-1, 1, (rank, into)).astype(np.float32) / into**0.5
        tensors[f"{under}.lora_B.weight"] = draw.normal(0, strength, (out, rank)).astype(np.float32)
    made = root / f".raw-{name}"
    made.mkdir(parents=True)
    save_file(tensors, made / registry.WEIGHTS)
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none", "target_modules": list(LAYERS)}
    (made / "adapter_config.json").write_text(json.dumps(settings))
    return made


def _publish(root: Path, base: Path, name: str, made: Path, rank: int, scored: tuple[Scored, ...] = ()) -> Adapter:
    config = SftConfig(
        run_name=name,
        dataset_dir=root,
        dataset_id="random",
        dataset_sha256="0",
        base_model=str(base),
        base_name=EMBEDDED,
        adapters_dir=root,
        lora={"rank": rank, "alpha": rank},
    )
    return registry.publish(made, config, name, {}, scored)
