"""`python -m training RUN_DIR`: the child process of a run. Everything it needs is in the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from annotation.errors import UserError
from annotation.types import utc_now
from training.rundir import RunDir
from training.types import RunState


class Cancelled(BaseException):
    """Somebody asked the run to end. Not an Exception, so that no library swallows it."""


def main(path: Path) -> int:
    """Do the run; its end, good or bad, is in its state file. Returns the exit code."""
    run = RunDir(path)
    run.keep_process(os.getpid())
    signal.signal(signal.SIGTERM, _cancelled)
    try:
        from training.sft import run_sft  # torch takes seconds to import: only now is it known to be worth it

        run_sft(run)
    except Cancelled:
        state = run.read_state()
        _end(run, state.model_copy(update={"status": "cancelled", "message": f"Cancelled at step {state.step}."}))
        return 130
    except Exception as error:  # the child's last line: whatever it was, the page shows it
        traceback.print_exc()
        _end(run, run.read_state().model_copy(update={"status": "failed", "message": explain(error, run)}))
        return 1
    return 0


def _cancelled(number: int, frame: FrameType | None) -> None:
    raise Cancelled


def _end(run: RunDir, state: RunState) -> None:
    """Write the last state even on a full disk, by giving back what an unfinished adapter took."""
    try:
        run.finish(state)
    except OSError:
        shutil.rmtree(run.making, ignore_errors=True)
        _drop_unfinished_checkpoints(run)
        with contextlib.suppress(OSError):
            run.state.write_text(state.model_copy(update={"ended_at": utc_now()}).model_dump_json(indent=2))


def _drop_unfinished_checkpoints(run: RunDir) -> None:
    for folder in run.checkpoints.glob("checkpoint-*"):
        if not (folder / "complete.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)


def explain(error: BaseException, run: RunDir) -> str:
    """The error as a sentence that says what to do."""
    if isinstance(error, UserError):
        return str(error)
    if any(_no_space(cause) for cause in _causes(error)):
        return (
            f"The disk of {run.path} is full: a checkpoint or the adapter could not be written. "
            "Free some space and go on from the last checkpoint, or start again."
        )
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "The machine ran out of memory. Choose a preset with shorter rows, or close what else is running."
    return f"The trainer failed: {type(error).__name__}: {str(error)[:300]}. The whole story is in {run.log}."


def _no_space(error: BaseException) -> bool:
    text = str(error)
    full = ("No space left on device", "os error 28", "PytorchStreamWriter failed", "unexpected pos")
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or any(
        sign in text for sign in full
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
