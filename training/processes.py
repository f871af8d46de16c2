"""Stop a process and everything it started; finish a thing undisturbed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import psutil

from annotation.processes import began


def stop_tree(pid: int, created: float | None = None, patience: float = 10.0) -> None:
    """Ask process `pid` and all it started to end, and kill what is left after `patience` seconds.

    What it started: its descendants, and its session, which outlives it if it was killed.
    `created` (seconds since the epoch) guards against a number that was given to somebody else since.
    """
    if _is_another(pid, created):
        return
    members = family(pid)
    for process in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(members, timeout=patience)
    # What started while we waited belongs to the family too.
    left = {process for process in [*members, *family(pid)] if process.is_running()}
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def family(pid: int) -> list[psutil.Process]:
    """Process `pid`, its descendants, and the members of the session it leads, also when it is gone itself."""
    found = {process for process in psutil.process_iter() if _session_of(process.pid) == pid}
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        found |= {root, *root.children(recursive=True)}
    return [process for process in found if process.pid != os.getpid()]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let no SIGTERM in, for a step that is quicker to finish than to undo. Main thread only."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_another(pid: int, created: float | None) -> bool:
    try:
        return created is not None and abs(began(pid) - created) >= 1
    except psutil.NoSuchProcess:
        return False


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None
