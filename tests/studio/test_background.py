"""Work in a thread: done when woken, in words when it fails, by one process at a time, and gone when closed."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path
from queue import Queue

import pytest

from annotation.errors import UserError
from studio.services import background
from studio.services.background import Background

PATIENCE = 10


def test_it_works_when_woken_and_ends_when_closed() -> None:
    done: Queue[str] = Queue()
    thread = Background("a test", lambda: done.put("worked"), done.put)
    for _ in range(2):
        thread.wake()
        assert done.get(timeout=PATIENCE) == "worked"
    thread.close()
    assert not [one for one in threading.enumerate() if one.name == "a test"]
    thread.wake()  # and once more after it was closed
    assert done.get(timeout=PATIENCE) == "worked"
    thread.close()


def test_what_people_can_fix_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RETRY_SECONDS", 0.01)
    said: Queue[str] = Queue()
    faults: list[Exception] = [UserError("The engine is off.", do="Start it."), ValueError("a secret detail")]

    def work() -> None:
        if faults:
            raise faults.pop(0)
        said.put("worked")

    thread = Background("a test", work, said.put, again=True)
    thread.wake()
    assert said.get(timeout=PATIENCE).startswith("The engine is off.")
    assert said.get(timeout=PATIENCE) == "It stopped by a fault of ours; the studio's log has the details."
    thread.wake()  # a fault of ours is not tried again by itself
    assert said.get(timeout=PATIENCE) == "worked"
    thread.close()


def test_one_process_at_a_time_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LOOK_SECONDS", 0.01)
    done: Queue[str] = Queue()
    thread = Background("a test", lambda: done.put("worked"), done.put, again=True, lock=tmp_path / "a.lock")
    with (tmp_path / "a.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert thread._once() == 0.01  # it looks again later
        assert done.empty()
        thread.wake()
    assert done.get(timeout=PATIENCE) == "worked"
    thread.close()
