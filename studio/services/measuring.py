"""Which adapters are still to be held against their training, and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

Engines = tuple[str, ...]
"""Addresses; what comes back elsewhere is measured anew, and all of it on an engine that does."""


class Measuring:
    """What was measured where. One that could not be is tried again later, and is not taken for measured meanwhile."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._done: set[tuple[str, Engines]] = set()
        self._not_before: dict[str, float] = {}

    def next(self, names: Collection[str], engines: Engines) -> str | None:
        """Of `names`, which `engines` hold now, one that is to be measured."""
        there = {(name, engines) for name in names}
        self._done &= there
        ripe = (name for name, _ in sorted(there - self._done) if self._not_before.get(name, 0.0) < self._now())
        return next(ripe, None)

    def later(self, name: str, engines: Engines, seconds: float) -> None:
        """Measure it, but not before `seconds` have passed."""
        self._done.discard((name, engines))
        self._not_before[name] = self._now() + seconds

    def done(self, name: str, engines: Engines) -> None:
        """It was measured, whatever came of it."""
        self._done.add((name, engines))

    def clear(self) -> None:
        """Measure all of it anew."""
        self._done.clear()
