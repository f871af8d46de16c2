"""Trainer events into the run's files."""

from __future__ import annotations

import json
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from annotation.files import sync, write_whole
from annotation.types import utc_now
from training.rundir import RunDir
from training.types import Metric, RunState, Stage

STATE_EVERY = 0.5
"""Seconds between two writes of the state while only the step changes: it is synced to disk, which takes its time."""


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Appends a metric a step, keeps the state current, and marks each checkpoint once all of it is on disk."""

    def __init__(self, run: RunDir, state: RunState) -> None:
        self._run = run
        self.state = state
        """The state as the files tell it, or will within half a second."""
        self._began = time.monotonic()
        self._written = 0.0
        self._first_step = 0
        self._tokens_before = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._began = time.monotonic()
        self._first_step = state.global_step
        before = [metric.tokens_seen for metric in self._run.read_metrics() if metric.step <= state.global_step]
        self._tokens_before = before[-1] if before else 0
        self.stage("training", "Learning.", step=state.global_step, of_steps=state.max_steps)

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
            tokens_per_second=logs["num_tokens"] / spent,  # trl counts from this start of the run
            tokens_seen=self._tokens_before + round(logs["num_tokens"]),
            eta_seconds=spent / done * (state.max_steps - state.global_step),
            at=utc_now(),
        )
        self._run.add_metric(metric)
        shown = ("step", "of_steps", "loss", "tokens_per_second", "eta_seconds")
        self.state = self.state.model_copy(update={name: getattr(metric, name) for name in shown})
        if time.monotonic() - self._written >= STATE_EVERY:
            self._write()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = self._run.checkpoints / f"checkpoint-{state.global_step}"
        for path in folder.rglob("*"):
            if path.is_file():
                sync(path)
        write_whole(folder / "complete.json", json.dumps({"step": state.global_step}))
        sync(self._run.checkpoints)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.stage("saving the adapter", "Saving the adapter.", eta_seconds=0.0)

    def stage(self, stage: Stage, message: str, **change: Any) -> None:
        """Say what is being done now; written at once."""
        self.state = self.state.model_copy(update={"stage": stage, "message": message, **change})
        self._write()

    def _write(self) -> None:
        self._run.write_state(self.state)
        self._written = time.monotonic()
