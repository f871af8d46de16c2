"""What follows from the hardware, and what is imported when."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.hardware import GIB, Gpu, Hardware, batch_for, detect, dtype_for

SMALL, LARGE = 135_000_000, 7_000_000_000


def gpus(*capabilities: tuple[int, int], memory: int = 24 * GIB) -> Hardware:
    made = (Gpu(name=f"GPU {place}", memory_bytes=memory, capability=of) for place, of in enumerate(capabilities))
    return Hardware(gpus=tuple(made), cpu_cores=8)


@pytest.mark.parametrize(
    ("hardware", "dtype"),
    [
        (Hardware(), "float32"),
        (Hardware(cpu_bf16=True), "bfloat16"),
        (gpus((8, 0)), "bfloat16"),
        (gpus((9, 0), (8, 9)), "bfloat16"),
        (gpus((7, 5)), "float16"),
        (gpus((9, 0), (7, 0)), "float16"),  # the oldest decides
    ],
)
def test_number_format(hardware: Hardware, dtype: str) -> None:
    assert dtype_for(hardware) == dtype


@pytest.mark.parametrize(
    ("hardware", "rows", "parameters", "expected"),
    [
        (Hardware(memory_bytes=16 * GIB), 4, SMALL, (4, 1)),
        (Hardware(memory_bytes=2 * GIB), 4, SMALL, (2, 2)),
        (gpus((8, 0), memory=80 * GIB), 8, LARGE, (8, 1)),
        (gpus((8, 0), memory=24 * GIB), 8, LARGE, (1, 8)),
        (gpus((8, 0), (8, 0), memory=24 * GIB), 8, LARGE, (1, 8)),  # by one device's memory, not by their sum
    ],
)
def test_batch(hardware: Hardware, rows: int, parameters: int, expected: tuple[int, int]) -> None:
    assert batch_for(hardware, rows, parameters) == expected


@given(st.integers(0, 512 * GIB), st.integers(1, 64), st.integers(10**6, 10**11))
def test_a_step_learns_from_as_many_rows_on_any_machine(memory: int, rows: int, parameters: int) -> None:
    batch, accumulation = batch_for(Hardware(memory_bytes=memory), rows, parameters)
    assert batch >= 1
    assert batch * accumulation == rows


def test_this_machine_is_seen() -> None:
    here = detect()
    assert here.cpu_cores == len(os.sched_getaffinity(0))
    assert here.memory_bytes > GIB / 4


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_hidden_on_purpose_is_not_used(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert detect().gpus == ()


LIGHT = (
    *(f"training.{name}" for name in ("types", "launch", "rundir", "registry", "presets", "base_model", "preflight")),
    "training.__main__",
    *(f"serving.{name}" for name in ("engine", "adapters", "client", "arena", "scripted", "vllm_plugin")),
    "studio.settings",
)
HEAVY = {"torch", "transformers", "trl", "peft", "vllm", "accelerate", "datasets", "gguf", "safetensors"}


def test_the_page_imports_nothing_heavy() -> None:
    script = f"import sys, {', '.join(LIGHT)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
