"""One run's folder: every path, and the state as the files tell it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from pydantic import ValidationError

from annotation.errors import UserError
from annotation.files import sync, write_whole
from annotation.processes import began
from annotation.types import Frozen, utc_now
from training.types import OVER, Metric, RunState, SftConfig

RESERVE_BYTES = 64 * 1024
START_SECONDS = 30.0
"""How long a run may stay 'queued' without a process before it counts as never started."""


class Process(Frozen):
    """The trainer's process; the start time tells it from a later one with the same number."""

    pid: int
    created: float
    """Seconds since the machine started: the clock may be set meanwhile."""


class RunDir:
    """`config.json` is written once; `state.json` is replaced whole; `metrics.jsonl` only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.state = path / "state.json"
        self.process = path / "process.json"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "log.txt"
        self.lock = path / "lock"
        self.reserve = path / "reserve"
        """Room on the disk for the last words of a run that filled it."""
        self.result = path / "result.json"
        """The account of a run whose adapter is about to be published, or is."""
        self.checkpoints = path / "checkpoints"
        self.making = path / "making"
        """The adapter before it is published."""

    @classmethod
    def create(cls, path: Path, config: SftConfig) -> RunDir:
        """Make the folder of a new run. Raises UserError if there is one already, or no room for it."""
        run = cls(path)
        try:
            path.mkdir(parents=True)
            write_whole(run.config, config.model_dump_json(indent=2))
            run.write_state(RunState(status="queued", message="Waiting to start."))
        except FileExistsError as error:
            raise UserError(f"There is already a run '{path.name}'.", do="Wait a second and start again.") from error
        except OSError as error:
            raise UserError(
                f"The run's folder {path} can't be made: {error.strerror}.", do="Free some space and try again."
            ) from error
        sync(path.parent)
        return run

    def read_config(self) -> SftConfig:
        """What the run was told."""
        return SftConfig.model_validate_json(self.config.read_bytes())

    def write_state(self, state: RunState) -> None:
        """Replace the state."""
        write_whole(self.state, state.model_dump_json(indent=2))

    def read_state(self) -> RunState:
        """The state as it is: a run whose process is gone without an end has failed, whatever its file says."""
        try:
            state = RunState.model_validate_json(self.state.read_bytes())
        except (FileNotFoundError, ValidationError):
            state = RunState(status="queued")
        if state.status in OVER or self.alive() or self._starting(state):
            return state
        with contextlib.suppress(FileNotFoundError, ValidationError):  # it may have ended between the two looks
            state = RunState.model_validate_json(self.state.read_bytes())
        return state if state.status in OVER else self._died(state)

    def _starting(self, state: RunState) -> bool:
        """Whether the run was queued a moment ago and its process is not known yet."""
        if state.status != "queued" or not self.state.is_file():
            return False
        queued = self.state.stat().st_mtime
        known = self.process.is_file() and self.process.stat().st_mtime >= queued
        return not known and time.time() - queued < START_SECONDS

    def _died(self, state: RunState) -> RunState:
        step = self.last_checkpoint_step()
        onward = f"It can go on from step {step}." if step else "Start a new run."
        message = (
            f"The trainer was stopped from outside at step {state.step} (killed, or the machine went down). {onward}"
        )
        return state.model_copy(update={"status": "failed", "stage": None, "message": message, "eta_seconds": None})

    def kept_process(self) -> Process | None:
        """The trainer as it was last started; None if it never was."""
        try:
            return Process.model_validate_json(self.process.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def alive(self) -> bool:
        """Whether the trainer's process is there."""
        kept = self.kept_process()
        if kept is None:
            return False
        try:
            process = psutil.Process(kept.pid)
            return abs(began(kept.pid) - kept.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def keep_process(self, pid: int) -> None:
        """Remember which process is the trainer."""
        try:
            created = began(pid)
        except psutil.NoSuchProcess:  # over before we looked; its state file tells how
            return
        write_whole(self.process, Process(pid=pid, created=created).model_dump_json())

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep out another start, cancel or resume of this run: of two clicks the second sees what the first did."""
        with self.lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def tidy(self) -> None:
        """Clear away what a killed trainer left half-done, and keep some room on the disk for the last words."""
        shutil.rmtree(self.making, ignore_errors=True)
        self.drop_unfinished_checkpoints()
        if self.metrics.is_file():
            content = self.metrics.read_bytes()
            os.truncate(self.metrics, content.rfind(b"\n") + 1)  # a torn line would swallow the next one
        self.reserve.write_bytes(os.urandom(RESERVE_BYTES))  # random, so that no file system stores it in less

    def drop_unfinished_checkpoints(self) -> None:
        """Remove checkpoints that were never completed; nothing can go on from them."""
        for folder in self.checkpoints.glob("checkpoint-*"):
            if not (folder / "complete.json").is_file():
                shutil.rmtree(folder, ignore_errors=True)

    def add_metric(self, metric: Metric) -> None:
        """Append one step; a single write, so a line is whole or is the last one."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(metric.model_dump_json() + "\n")

    def read_metrics(self) -> list[Metric]:
        """One metric a step, oldest first. After a resume the newer line counts; a torn line is passed over."""
        if not self.metrics.is_file():
            return []
        found: dict[int, Metric] = {}
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                metric = Metric.model_validate_json(line)
            except ValidationError:
                continue
            if metric.step in found:  # the run went back to a checkpoint: what came after it no longer counts
                found = {step: kept for step, kept in found.items() if step < metric.step}
            found[metric.step] = metric
        return [found[step] for step in sorted(found)]

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint; `complete.json` is written into it once all else is on disk."""
        complete = [
            folder
            for folder in self.checkpoints.glob("checkpoint-*")
            if (folder / "complete.json").is_file() and folder.name.removeprefix("checkpoint-").isdigit()
        ]
        return max(complete, key=lambda folder: int(folder.name.removeprefix("checkpoint-")), default=None)

    def last_checkpoint_step(self) -> int:
        """Step of the newest complete checkpoint, 0 if there is none."""
        folder = self.last_checkpoint()
        return int(json.loads((folder / "complete.json").read_text())["step"]) if folder else 0

    def log_tail(self, lines: int = 15) -> str:
        """The end of the child's output."""
        if not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def finish(self, state: RunState) -> None:
        """Write the last state, with the time, into the room kept for it."""
        self.reserve.unlink(missing_ok=True)
        self.write_state(state.model_copy(update={"stage": None, "ended_at": utc_now(), "eta_seconds": None}))
