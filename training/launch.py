"""Start, stop and go on with a run. The child gets the run's folder and nothing else; no torch here."""

from __future__ import annotations

import os
import subprocess
import sys

from annotation.errors import UserError
from annotation.types import utc_now
from training.preflight import check
from training.processes import stop_tree
from training.rundir import Process, RunDir
from training.types import OVER, RunState

PATIENCE = 15.0
"""Seconds a cancelled run gets to end by itself."""


def start(run: RunDir) -> int:
    """Start the trainer in a session of its own, so that it outlives the page; returns its process number."""
    environment = os.environ | {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRACKIO_DISABLED": "1",
        "WANDB_DISABLED": "true",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("LD_PRELOAD", None)  # the engine's allocators are not the trainer's
    with run.log.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "training", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    run.keep_process(child.pid)
    return child.pid


def cancel(run: RunDir) -> RunState:
    """End a run and all it started; returns its state. A run that is over stays as it is."""
    state = run.read_state()
    if state.status in OVER:
        return state
    if run.process.is_file():
        kept = Process.model_validate_json(run.process.read_bytes())
        stop_tree(kept.pid, kept.created, PATIENCE)
    state = run.read_state()
    if state.status == "succeeded":
        return state
    run.finish(state.model_copy(update={"status": "cancelled", "message": f"Cancelled at step {state.step}."}))
    return run.read_state()


def resume(run: RunDir) -> int:
    """Go on from the last checkpoint; returns the new process number.

    Raises UserError if the run is under way or done, or has no checkpoint, or can't run for a reason found before.
    """
    state = run.read_state()
    if state.status not in ("failed", "cancelled"):
        raise UserError(f"The run {run.path.name} is {state.status}.", "A failed or cancelled one.")
    if run.last_checkpoint() is None:
        raise UserError(f"The run {run.path.name} has no checkpoint to go on from.", do="Start a new run.")
    check(run.read_config())
    message = f"Going on from step {run.last_checkpoint_step()}."
    run.write_state(
        state.model_copy(update={"status": "queued", "message": message, "started_at": utc_now(), "ended_at": None})
    )
    return start(run)
