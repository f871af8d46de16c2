"""What a config keeps, and what it refuses; a GPU that is hidden; what the child imports before it reports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from training.hardware import detect
from training.presets import Preset, load_presets
from training.types import LoraSettings, SftConfig

PARTICULARS = {
    "run_name": "r",
    "dataset_dir": Path("/d"),
    "dataset_id": "ds-1",
    "dataset_sha256": "0" * 64,
    "base_model": "/base",
    "base_name": "base",
    "adapters_dir": Path("/a"),
}


@pytest.mark.parametrize("preset", load_presets(), ids=lambda preset: str(preset.name))
def test_a_config_survives_its_file(preset: Preset) -> None:
    config = preset.config(**PARTICULARS)
    assert SftConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("change", [{"rank": 0}, {"rank": 513}, {"dropout": 1.0}, {"use_dora": True}, {"bias": "all"}])
def test_an_adapter_that_the_engine_could_not_serve_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LoraSettings.model_validate(change)


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_hidden_on_purpose_is_not_used(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert detect().gpus == ()


def test_the_child_reports_before_it_imports_torch() -> None:
    script = "import sys, training.__main__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
