"""What somebody asks for on the Argilla page and that takes long. It goes on in a thread of the studio, whoever closes
the page, and every page shows how it ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Event, Lock, Thread

from annotation.errors import Conflict, UserError
from annotation.types import Frozen, utc_now

log = logging.getLogger("tonesmith.argilla")


class Outcome(Frozen):
    """How an errand ended."""

    text: str
    counts: tuple[str, ...] = ()
    """What it found or did, one by one."""
    well: bool = True
    at: datetime


Told = tuple[str, Sequence[str]]
"""A sentence, and counts."""


class Errands:
    """One at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._thread: Thread | None = None
        self.stopped = Event()
        """Set where somebody asked the errand under way to stop; the errand looks by itself."""
        self.doing = ""
        """What is under way, in words; '' for nothing."""
        self.may_stop = False
        self.outcome: Outcome | None = None
        """Of the last one."""

    def begin(self, doing: str, work: Callable[[], Told], *, may_stop: bool = True) -> None:
        """Do `work` in a thread. Raises Conflict if another one is under way."""
        with self._lock:
            if self.doing:
                raise Conflict(f"{self.doing} is under way already.", do="Wait for it, or cancel it.")
            self.doing, self.may_stop, self.outcome = doing, may_stop, None
            self.stopped.clear()
            self._thread = Thread(target=self._do, args=(work,), name="argilla-errand", daemon=True)
            self._thread.start()

    def forget(self) -> None:
        """Say no longer how the last one ended: something else was asked for since."""
        self.outcome = None

    def stop(self) -> bool:
        """Ask the one under way to stop; False if there is none that can."""
        if not (self.doing and self.may_stop):
            return False
        self.stopped.set()
        return True

    def close(self, seconds: float) -> None:
        """Ask it to stop, and wait so long for it."""
        self.stopped.set()
        if self._thread:
            self._thread.join(timeout=seconds)

    def _do(self, work: Callable[[], Told]) -> None:
        text, counts, well = "", (), False  # type: tuple[str, Sequence[str], bool]
        try:
            text, counts = work()
            well = True
        except UserError as error:
            text = " ".join(part for part in (error.found, error.wanted, error.do) if part)
        except Exception:
            log.exception("%s failed", self.doing)
            text = f"{self.doing} failed by a fault of ours; the studio's log has the details. What was done is kept."
        self.outcome = Outcome(text=text, counts=tuple(counts), well=well, at=utc_now())
        self.doing = ""
