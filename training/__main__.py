"""`python -m training RUN_DIR`: the child process of a run. Everything it needs is in the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from annotation.errors import UserError
from training.preflight import MIB, disk_needed, free_bytes_at
from training.rundir import RunDir
from training.types import RunState

FULL_DISK = ("No space left on device", "os error 28", "PytorchStreamWriter failed", "unexpected pos")
"""How Python, Rust (safetensors) and C++ (torch) say it."""


class Cancelled(BaseException):
    """Somebody asked the run to end. Not an Exception, so that no library swallows it."""


def main(path: Path) -> int:
    """Do the run, or go on with it; its end, good or bad, is in its state file. Returns the exit code."""
    run = RunDir(path)
    if not run.config.is_file():
        print(f"{path} is not the folder of a run: it has no config.json.", file=sys.stderr)
        return 2
    kept = run.kept_process()
    if run.read_state().status == "succeeded" or (run.alive() and kept and kept.pid != os.getpid()):
        print(f"The run {path.name} is done, or going already.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _cancelled)
    try:
        run.keep_process(os.getpid())
        run.tidy()
        from training.sft import run_sft  # torch takes seconds to import: only now is it known to be worth it

        run_sft(run)
    except Cancelled:
        state = run.read_state()
        _end(run, state.model_copy(update={"status": "cancelled", "message": f"Cancelled at step {state.step}."}))
        return 130
    except Exception as error:  # the child's last line: whatever it was, the page shows it
        _end(run, run.read_state().model_copy(update={"status": "failed", "message": explain(error, run)}))
        with contextlib.suppress(OSError):  # the log may be on the full disk
            traceback.print_exception(error)
        return 1
    return 0


def _cancelled(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # asked once is enough; the last words take a moment
    raise Cancelled


def _end(run: RunDir, state: RunState) -> None:
    """Write the last state, also on a full disk: half-written things are given back first, then the reserve."""
    run.drop_unfinished_checkpoints()
    run.finish(state)


def explain(error: BaseException, run: RunDir) -> str:
    """The error as a sentence that says what to do."""
    if isinstance(error, UserError):
        return str(error)
    if any(_no_space(cause) for cause in _causes(error)):
        return _full_disk(run)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "The machine ran out of memory. Choose a preset with shorter rows, or close what else is running."
    return f"The trainer failed: {type(error).__name__}: {str(error)[:300]}. The whole story is in {run.log}."


def _full_disk(run: RunDir) -> str:
    config = run.read_config()
    places = dict(zip((run.path, config.adapters_dir), disk_needed(config), strict=True))
    place = min(places, key=free_bytes_at)
    needed = -(-places[place] // MIB)
    return (
        f"The disk of {place} is full: a checkpoint or the adapter could not be written. "
        f"A run like this needs about {needed:,} MB there. Free some space, then go on from the last checkpoint or "
        "start again."
    )


def _no_space(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or any(sign in str(error) for sign in FULL_DISK)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
