"""Which process is ours: a pid alone may be somebody else's by now."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil


def began(pid: int) -> float:
    """When a process began, in seconds since the machine did: no time of day, which shifts when the clock is set or a
    virtual machine sleeps. Raises psutil.NoSuchProcess.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if sys.platform == "linux":
            raise psutil.NoSuchProcess(pid) from None
        return psutil.Process(pid).create_time()
    return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def age(since: float) -> float:
    """Seconds since a moment that `began` gave."""
    return (time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.time()) - since
