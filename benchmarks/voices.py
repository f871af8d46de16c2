"""Adapters that each answer in their own way, made in a moment: random, published as a run publishes its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from serving.fitting import base_shapes
from training import registry
from training.base_model import EMBEDDED
from training.types import Adapter, SftConfig

RANK = 8
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make(root: Path, base: Path, count: int, seed: int = 1) -> list[Adapter]:
    """`count` adapters of the model in folder `base`, published under `root`."""
    return [_one(root, base, f"voice{number}", seed + number) for number in range(count)]


def _one(root: Path, base: Path, name: str, seed: int) -> Adapter:
    """Wide enough a change that no two say the same."""
    draw = np.random.default_rng(seed)
    tensors = {}
    for layer, (out, into) in ((key, shape) for key, shape in base_shapes(base).items() if len(shape) == 2):
        if layer.removesuffix(".weight").split(".")[-1] not in LAYERS:
            continue
        under = f"base_model.model.{layer.removesuffix('.weight')}"
        tensors[f"{under}.lora_A.weight"] = draw.uniform(-1, 1, (RANK, into)).astype(np.float32) / into**0.5
        tensors[f"{under}.lora_B.weight"] = draw.normal(0, 0.4, (out, RANK)).astype(np.float32)
    made = root / f".raw-{name}"
    made.mkdir(parents=True)
    save_file(tensors, made / registry.WEIGHTS)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "bias": "none", "target_modules": list(LAYERS)}
    (made / "adapter_config.json").write_text(json.dumps(settings))
    config = SftConfig(
        run_name=name,
        dataset_dir=root,
        dataset_id="random",
        dataset_sha256="0",
        base_model=str(base),
        base_name=EMBEDDED,
        adapters_dir=root,
        lora={"rank": RANK, "alpha": RANK},
    )
    return registry.publish(made, config, name, {})
