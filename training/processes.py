"""Stop a process and everything it started."""

from __future__ import annotations

import psutil


def stop_tree(pid: int, created: float | None = None, patience: float = 10.0) -> None:
    """Ask process `pid` and its descendants to end, and kill what is left after `patience` seconds.

    `created` (seconds since the epoch) guards against a number that was given to somebody else since.
    """
    try:
        root = psutil.Process(pid)
        if created is not None and abs(root.create_time() - created) >= 1:
            return
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        _quietly(process.terminate)
    _, left = psutil.wait_procs(family, timeout=patience)
    # What started while we waited belongs to the family too.
    for process in [*left, *(child for parent in left for child in _children(parent))]:
        _quietly(process.kill)
    psutil.wait_procs(left, timeout=5)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _quietly(action: object) -> None:
    try:
        action()  # type: ignore[operator]
    except psutil.NoSuchProcess:
        return
