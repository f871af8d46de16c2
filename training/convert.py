"""`python -m training.convert GGUF FOLDER`: a quantised GGUF file into an ordinary checkpoint, in its own process."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from annotation.files import sync


def convert(gguf: Path, target: Path) -> None:
    """Write model and tokenizer of `gguf` to `target`, dequantised to bfloat16 (2 bytes a parameter)."""
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)
    for path in target.iterdir():
        sync(path)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
