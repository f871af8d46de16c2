"""Configs of small runs, and a model that takes its steps in an instant."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.models import config_for, short_rows, write_version
from training.types import SftConfig


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., SftConfig]:
    """Makes the config of a run over `rows` (None: six short ones) of the model in folder `base`."""

    def make(rows: list[dict[str, Any]] | None = None, base: Path = Path("/no-model"), **changes: object) -> SftConfig:
        version = write_version(tmp_path / "datasets", short_rows() if rows is None else rows)
        return config_for(tmp_path, version, base, **changes)

    return make


MAKE = """
import sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
config = LlamaConfig(vocab_size=49152, num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=2, **sizes)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
"""


@pytest.fixture(scope="session")
def tiny_model(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights and the base model's tokenizer: a real run on it is over in seconds."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, capture_output=True)
    for path in (*base_model.glob("tokenizer*"), *base_model.glob("chat_template*")):
        shutil.copy2(path, folder / path.name)
    return folder
