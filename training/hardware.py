"""What this machine is, and what follows from it. Choices are pure functions over `Hardware`; `detect` is apart."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import psutil

from annotation.types import Frozen

Dtype = Literal["float32", "bfloat16", "float16"]
GIB = 2**30


class Gpu(Frozen):
    """One CUDA device."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    """Compute capability, for example (8, 0) for an A100; bfloat16 needs (8, 0)."""


class Hardware(Frozen):
    """What the machine has."""

    gpus: tuple[Gpu, ...] = ()
    cpu_cores: int = 1
    """Cores this process may use."""
    cpu_bf16: bool = False
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX or Arm BF16)."""
    memory_bytes: int = 8 * GIB


def dtype_for(hardware: Hardware) -> Dtype:
    """The number format to train and serve in. Without hardware bfloat16 a CPU is many times faster in float32."""
    if hardware.gpus:
        return "bfloat16" if all(gpu.capability >= (8, 0) for gpu in hardware.gpus) else "float16"
    return "bfloat16" if hardware.cpu_bf16 else "float32"


def batch_for(hardware: Hardware, rows_per_step: int, parameters: int) -> tuple[int, int]:
    """(batch size, gradient accumulation) whose product is `rows_per_step`, as near as the memory allows.

    `parameters` is the size of the base model. A row is taken to need about a third of the model's own memory on top
    of it; small models on a CPU run the whole step as one batch.
    """
    memory = min((gpu.memory_bytes for gpu in hardware.gpus), default=hardware.memory_bytes)
    weights = parameters * (4 if dtype_for(hardware) == "float32" else 2)
    room = max(0, int(memory * 0.8) - weights)
    fits = max(1, int(room // max(weights / 3, GIB / 2)))
    batch = max(size for size in range(1, rows_per_step + 1) if rows_per_step % size == 0 and size <= fits)
    return batch, rows_per_step // batch


def detect() -> Hardware:
    """Look at this machine, without importing torch."""
    return Hardware(gpus=_gpus(), cpu_cores=_cores(), cpu_bf16=_cpu_bf16(), memory_bytes=psutil.virtual_memory().total)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_bf16() -> bool:
    if platform.system() == "Darwin":
        return False
    info = Path("/proc/cpuinfo")
    flags = info.read_text(errors="replace").lower().split() if info.is_file() else []
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def _gpus() -> tuple[Gpu, ...]:
    program = shutil.which("nvidia-smi")
    if program is None or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # hidden on purpose
        return ()
    query = [program, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (subprocess.SubprocessError, OSError):  # a driver that does not answer is as good as none
        return ()
    return tuple(_gpu(line) for line in found.splitlines() if line.count(",") == 2)


def _gpu(line: str) -> Gpu:
    name, mebibytes, capability = (part.strip() for part in line.split(","))
    major, minor = capability.split(".")
    return Gpu(name=name, memory_bytes=int(mebibytes) * 2**20, capability=(int(major), int(minor)))
