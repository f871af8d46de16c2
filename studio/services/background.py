"""Work in a thread of the studio: closing the page does not stop it, and what goes wrong is said in words."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread

from annotation.errors import UserError

log = logging.getLogger("tonesmith")
LOOK_SECONDS = 15.0
"""How often work that others may add to, as a command does, is looked for."""
RETRY_SECONDS = 5.0


class Background:
    """A thread that does `work` whenever it is woken: begun when first needed, ended by `close`.

    `work` does all there is to do, and returns early where `stopping` says so. `failed` hears in words what kept it
    from going on. With `again` it looks by itself after a while, sooner after a UserError. With `lock` one process at a
    time works; the others look again later.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        failed: Callable[[str], None],
        *,
        again: bool = False,
        lock: Path | None = None,
    ) -> None:
        self._name = name
        self._work = work
        self._failed = failed
        self._again = again
        self._lock = lock
        self._more = Event()
        self._stop = Event()
        self._starting = Lock()
        self._thread: Thread | None = None

    def wake(self) -> None:
        """Begin, or look again: there may be more to do."""
        with self._starting:
            self._more.set()
            if self._thread is None or not self._thread.is_alive():
                self._stop.clear()
                self._thread = Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether `work` should return."""
        return self._stop.is_set()

    def close(self) -> None:
        """Stop, and wait a little for it."""
        self._stop.set()
        self._more.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        while True:
            self._more.clear()
            if self.stopping:
                return
            self._more.wait(self._once())

    def _once(self) -> float | None:
        """How long to wait until the next time; None for until it is woken."""
        try:
            with _alone(self._lock) as mine:
                if mine:
                    self._work()
        except UserError as error:
            self._failed(str(error))
            return RETRY_SECONDS if self._again else None
        except Exception:
            log.exception("%s failed", self._name)
            self._failed("It stopped by a fault of ours; the studio's log has the details.")
            return None
        return LOOK_SECONDS if self._again else None


@contextmanager
def _alone(lock: Path | None) -> Iterator[bool]:
    """Whether no other process works; the lock goes with the process, however it ends."""
    if lock is None:
        yield True
        return
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
