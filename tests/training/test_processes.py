"""Stopping a process leaves nothing of it behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from annotation.processes import began
from training.processes import family, stop_tree, undisturbed

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('up', flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def parent() -> tuple[subprocess.Popen[str], int]:
    started = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert started.stdout is not None
    return started, int(started.stdout.readline())


def close(process: subprocess.Popen[str]) -> None:
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def gone(pid: int, seconds: float = 5.0) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_a_child_that_does_not_listen_is_killed() -> None:
    started, child = parent()
    stop_tree(started.pid, began(started.pid), patience=0.3)
    assert gone(child)
    close(started)


def test_children_that_outlive_a_killed_parent_are_found_by_their_session() -> None:
    started, child = parent()
    created = began(started.pid)
    started.kill()
    close(started)
    assert child in {process.pid for process in family(started.pid)}
    stop_tree(started.pid, created, patience=0.3)
    assert gone(child)


def test_another_process_under_the_same_number_is_left_alone() -> None:
    started, child = parent()
    stop_tree(started.pid, began(started.pid) - 50, patience=0.3)
    assert started.poll() is None
    stop_tree(started.pid, patience=0.3)
    assert gone(child)
    close(started)


def test_a_process_long_gone_is_no_error(tmp_path: Path) -> None:
    stop_tree(2**22 - 1, 1.0)


def test_a_step_is_finished_undisturbed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with undisturbed():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
