"""What a run is told, what it says about itself, and what it leaves behind. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from annotation.types import Frozen

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
OVER: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})
"""States that do not change any more."""
Stage = Literal["checking", "tokenising", "loading the model", "training", "saving the adapter"]
"""What a running run is busy with, in this order."""


class LoraSettings(Frozen):
    """The adapter's shape. Nothing vLLM can't serve: no DoRA, no bias, no extra modules."""

    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """Inner width r of each pair of matrices."""
    alpha: Annotated[int, Field(ge=1)] = 32
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"


class Recipe(Frozen):
    """How to train: what a preset says and a person may change."""

    lora: LoraSettings = LoraSettings()
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the rows."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimiser steps; None goes by `epochs`."""
    rows_per_step: Annotated[int, Field(ge=1)] = 4
    """Rows that one optimiser step learns from, on any hardware: batch size times gradient accumulation."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    """Peak, reached after the warm-up, then falling along a cosine."""
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    max_length: Annotated[int, Field(ge=16)] = 1024
    """Longest row, in tokens; a longer one is cut at its end and counted."""
    seed: int = 7
    checkpoint_every: Annotated[int, Field(ge=1)] = 10
    """Steps between checkpoints."""


class SftConfig(Recipe):
    """Everything a supervised run needs, resolved: a run repeats from this file alone."""

    method: Literal["sft"] = "sft"
    run_name: str
    preset: str = ""
    dataset_dir: Path
    dataset_id: str
    dataset_sha256: str
    base_model: str
    """Folder or Hugging Face id."""
    base_name: str
    """Display name, and what an adapter must agree on to be loaded."""
    base_revision: str | None = None
    charter_version: int | None = None
    adapters_dir: Path
    """Where the finished adapter is published."""


TrainConfig = SftConfig
"""The union of configs by `method`; one member so far, so a plain alias."""


class Metric(Frozen):
    """One optimiser step, a line of `metrics.jsonl`."""

    step: int
    of_steps: int
    loss: float
    """Mean negative log-likelihood a learned token, in nats."""
    learning_rate: float
    tokens_per_second: float
    """Tokens through the model (prompts too, padding left out), over the time spent in steps since the last start."""
    tokens_seen: int = 0
    """Tokens through the model since the run began, over all its starts."""
    eta_seconds: float
    at: AwareDatetime


class RunResult(Frozen):
    """The proof of a finished run."""

    rows_in: int
    rows_trained: int
    rows_truncated: int
    """Trained, but cut at `max_length`."""
    rows_dropped: dict[str, int]
    """Rows left out, by reason."""
    tokens_with_loss: int
    """Tokens in the rows that the loss counts, one pass."""
    steps: int
    seconds: float
    first_loss: float | None = None
    last_loss: float | None = None
    adapter: str
    """Name of the published adapter."""


class RunState(Frozen):
    """Where a run stands."""

    status: Status
    stage: Stage | None = None
    """None before the trainer is up and after the end."""
    step: int = 0
    of_steps: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    message: str = ""
    """What is happening, or why it ended."""
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    adapter: str | None = None
    result: RunResult | None = None


class Scored(Frozen):
    """A short exchange as the trainer saw it when the adapter was finished."""

    asked: str
    """The request."""
    ids: tuple[int, ...]
    """Token ids of the prompt and the reply."""
    prompt: int
    """How many of them are the prompt, with the opening of the reply."""
    base: tuple[float, ...]
    """Log-probability (nats) of each token after the first under the base model alone."""
    tuned: tuple[float, ...]
    """The same with the adapter."""


class Adapter(Frozen):
    """A published adapter and where it comes from; `lineage.json` in its folder."""

    name: str
    """Immutable: the run's name and the first 8 digits of the weights' hash."""
    path: Path
    base_name: str
    base_model: str
    base_revision: str | None
    rank: int
    run_id: str
    dataset_id: str
    dataset_sha256: str
    charter_version: int | None
    weights_sha256: str
    created_at: AwareDatetime
    config: SftConfig
    versions: dict[str, str]
    """Releases of the libraries that made it."""
    scored: tuple[Scored, ...] = ()
    """What it is held against when it is served; empty for one that was made before this was kept."""
    base_sha256: str | None = None
    """Hash of the base's weights it was trained on; None for one that was made before this was kept."""
