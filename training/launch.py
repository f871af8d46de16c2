"""Start, stop and go on with a run. The child gets the run's folder and nothing else; no torch here."""

from __future__ import annotations

import os
import subprocess
import sys
from threading import Thread

from annotation.errors import UserError
from annotation.types import utc_now
from training.preflight import check
from training.processes import stop_tree
from training.rundir import RunDir
from training.types import OVER, RunState

PATIENCE = 15.0
"""Seconds a cancelled run gets to end by itself."""


def start(run: RunDir) -> int:
    """Start the trainer in a session of its own, so that it outlives the page; returns its process number.

    Raises UserError if the run is going already.
    """
    with run.exclusive():
        if run.alive():
            raise UserError(f"The run {run.path.name} is going already.", do="Watch it, or cancel it first.")
        return _start(run)


def _start(run: RunDir) -> int:
    with run.log.open("ab") as log:
        child = subprocess.Popen(
            # -P: a folder named `training` where the user happens to stand is not us.
            [sys.executable, "-P", "-m", "training", str(run.path.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
    run.keep_process(child.pid)
    Thread(target=child.wait, daemon=True).start()  # reap it, so that an ended trainer leaves no zombie
    return child.pid


def _environment() -> dict[str, str]:
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",  # the base model is on disk by now: nothing is fetched, nobody is told
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRACKIO_DISABLED": "1",
        "WANDB_DISABLED": "true",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # Threads that wait for each other sleep rather than spin: beside a busy engine spinning costs both dearly.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        # One process drives one GPU; trl refuses to start where it sees several.
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
    }
    environment.pop("LD_PRELOAD", None)  # the engine's allocators are not the trainer's
    return environment


def cancel(run: RunDir) -> RunState:
    """End a run and all it started; returns its state. A run that is over stays as it is."""
    with run.exclusive():
        state = run.read_state()
        if state.status in OVER:
            return state
        if kept := run.kept_process():
            stop_tree(kept.pid, kept.created, PATIENCE)
        state = run.read_state()
        if state.status not in ("succeeded", "cancelled"):
            message = f"Cancelled at step {state.step}."
            run.finish(state.model_copy(update={"status": "cancelled", "message": message}))
        return run.read_state()


def resume(run: RunDir) -> int:
    """Go on from the last checkpoint; returns the new process number.

    Raises UserError if the run is under way or done, or has no checkpoint, or can't run for a reason found before.
    """
    with run.exclusive():
        state = run.read_state()
        if state.status not in ("failed", "cancelled"):
            raise UserError(
                f"The run {run.path.name} is {state.status}.", "A failed or cancelled one.", "There is nothing to do."
            )
        if run.last_checkpoint() is None:
            raise UserError(f"The run {run.path.name} has no checkpoint to go on from.", do="Start a new run.")
        check(run.read_config(), run.path)
        message = f"Going on from step {run.last_checkpoint_step()}."
        change = {"status": "queued", "message": message, "started_at": utc_now(), "ended_at": None}
        run.write_state(state.model_copy(update=change))
        return _start(run)
