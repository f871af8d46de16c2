"""A stand-in for the base on a server without our plugin: an adapter that changes nothing.

vLLM's CPU kernels answer the base in an adapter's voice where both are in one batch (`serving.vllm_plugin`). That
happens to requests without an adapter only; so the base is asked through one of zeros. It adds exactly nothing, so the
words are those that the base says alone, and whose other requests are under way beside it, also of other studios, does
not matter. Whether a server runs on a CPU can't be asked, so any that does not say which weights answer is treated so.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from annotation.errors import UserError
from annotation.files import write_whole
from serving.client import LOAD, Client, Refused
from training import registry

PREFIX = "tonesmith-base-"
LAYERS = ("q_proj", "o_proj", "down_proj", "query_key_value", "c_attn", "dense")
"""Layers that LoRA is known to fit; the first that the model has is taken."""


def is_stand_in(name: str) -> bool:
    """Whether an adapter is one of these; they belong to nobody, so nobody takes them out."""
    return name.startswith(PREFIX)


def make(root: Path, shapes: dict[str, list[int]]) -> Path:
    """The stand-in for a model with these tensors, in a folder of its own under `root`; the same one each time.

    Raises UserError for a model with no layer that it could be made for.
    """
    layer = next((name for kind in LAYERS for name in sorted(shapes) if name.endswith(f"{kind}.weight")), None)
    if layer is None:
        raise UserError(
            "This model has no layer that an adapter is known to fit.",
            f"A layer called {', '.join(LAYERS[:-1])} or {LAYERS[-1]}.",
            "Start the engine from here, without TONESMITH_ENGINE_URL.",
        )
    weights = _zeros(layer.removesuffix(".weight"), *shapes[layer])
    folder = root / f"{PREFIX}{hashlib.sha256(weights).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "peft_type": "LORA",
        "r": 1,
        "lora_alpha": 1,
        "bias": "none",
        "target_modules": [layer.removesuffix(".weight").rpartition(".")[2]],
    }
    write_whole(folder / "adapter_config.json", json.dumps(settings))
    part = folder / f".{os.getpid()}.part"
    part.write_bytes(weights)
    part.replace(folder / registry.WEIGHTS)
    return folder


def put_in(engine: Client, folder: Path) -> str:
    """Have `engine` hold the stand-in; returns the name to ask for in the base's place, '' where the base can be asked
    itself since no adapter is there. Raises UserError.
    """
    name = folder.name
    if name in engine.adapters():
        return name
    try:
        engine.post(LOAD, {"lora_name": name, "lora_path": str(folder.resolve())})
    except Refused as error:
        there = engine.adapters()
        if name in there:  # another studio was quicker
            return name
        if not there:
            return ""
        raise UserError(
            "This engine may answer the base in an adapter's voice, and does not take the stand-in that prevents it: "
            f"{error.found}",
            "A vLLM that runs with Tonesmith's plugin, or that can read the project's folder.",
            "Install Tonesmith where that vLLM runs, or leave TONESMITH_ENGINE_URL out to have an engine started here.",
        ) from error
    return name


def _zeros(layer: str, out: int, into: int) -> bytes:
    """A safetensors file with one pair of matrices of zeros (float32), of rank 1."""
    from safetensors.numpy import save

    under = f"base_model.model.{layer}"
    sizes = {f"{under}.lora_A.weight": (1, into), f"{under}.lora_B.weight": (out, 1)}
    weights: bytes = save({name: np.zeros(size, np.float32) for name, size in sizes.items()})
    return weights
