"""Trainer events into the run's files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from annotation.types import utc_now
from training.files import sync_folder, write_whole
from training.rundir import RunDir
from training.types import Metric, RunState


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Appends a metric a step, keeps the state current, and marks each checkpoint once all of it is on disk."""

    def __init__(self, run: RunDir, state: RunState) -> None:
        self._run = run
        self._state = state
        self._began = time.monotonic()
        self._first_step = 0
        self.first_loss: float | None = None
        self.last_loss: float | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._began = time.monotonic()
        self._first_step = state.global_step
        self._say(status="running", step=state.global_step, of_steps=state.max_steps, message="Learning.")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if not logs or "loss" not in logs:
            return
        spent = max(1e-6, time.monotonic() - self._began)
        done = state.global_step - self._first_step
        metric = Metric(
            step=state.global_step,
            of_steps=state.max_steps,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            tokens_per_second=logs["num_tokens"] / spent,
            eta_seconds=spent / done * (state.max_steps - state.global_step),
            at=utc_now(),
        )
        self.first_loss = self.first_loss if self.first_loss is not None else metric.loss
        self.last_loss = metric.loss
        self._run.add_metric(metric)
        self._say(
            step=metric.step,
            of_steps=metric.of_steps,
            loss=metric.loss,
            tokens_per_second=metric.tokens_per_second,
            eta_seconds=metric.eta_seconds,
        )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = self._run.checkpoints / f"checkpoint-{state.global_step}"
        for path in folder.rglob("*"):
            if path.is_file():
                _sync(path)
        write_whole(folder / "complete.json", json.dumps({"step": state.global_step}))
        sync_folder(self._run.checkpoints)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._say(message="Saving the adapter.", eta_seconds=0.0)

    def _say(self, **change: Any) -> None:
        self._state = self._state.model_copy(update=change)
        self._run.write_state(self._state)

    @property
    def state(self) -> RunState:
        """The state as last written."""
        return self._state


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
