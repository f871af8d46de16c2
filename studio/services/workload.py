"""How hard each engine works, asked of it at most once a second however many look; and the end of its log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

from pydantic import Field

from annotation.errors import UserError
from annotation.types import Frozen
from serving import metrics
from serving.client import Client
from serving.engine import EngineStatus
from serving.leaving import UNDER_WAY

FIGURES_SECONDS = 1.0
"""An engine is asked for its figures at most this often."""
LOG_LINES, LOG_BYTES = 40, 20_000


class EngineLoad(Frozen):
    """One engine now."""

    status: EngineStatus
    now: metrics.Figures | None = None
    """None while it is not ready, or does not say."""
    rates: metrics.Rates | None = None
    """None until it was asked twice."""
    under_way: Mapping[str, int] = Field(default_factory=dict)
    """Requests that each adapter has there, those that wait included; nothing from an engine that is not ours."""
    mended: str = ""
    """What was last put right about what it holds, in words."""


class Workload:
    """Keeps what the engines said last, to make rates of it."""

    def __init__(self) -> None:
        self._last: dict[str, EngineLoad] = {}
        self._asking = Lock()

    def of(
        self,
        statuses: Sequence[EngineStatus],
        mended: Mapping[int, str],
        api_key: str | None = None,
        afresh: bool = False,
    ) -> list[EngineLoad]:
        """The engines with these states, in their order; `mended` goes by their number, from 1. `afresh`: asked now, in
        any case.
        """
        with self._asking:
            return [
                self._asked(status, api_key, afresh).model_copy(
                    update={"status": status, "mended": mended.get(number, "")}
                )
                for number, status in enumerate(statuses, 1)
            ]

    def _asked(self, status: EngineStatus, api_key: str | None, afresh: bool) -> EngineLoad:
        if status.state != "ready":
            self._last.pop(status.url, None)
            return EngineLoad(status=status)
        before = self._last.get(status.url)
        if not afresh and before and before.now and time.monotonic() - before.now.at < FIGURES_SECONDS:
            return before
        engine = Client(status.url, api_key)
        try:
            now = metrics.figures(str(engine.get("/metrics")), time.monotonic())
        except UserError:
            now = None
        rates = metrics.rates(before.now if before else None, now) if now else None
        self._last[status.url] = EngineLoad(status=status, now=now, rates=rates, under_way=_under_way(engine))
        return self._last[status.url]


def _under_way(engine: Client) -> dict[str, int]:
    try:
        found = engine.get(UNDER_WAY)
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}


def last_lines(logs: Sequence[Path]) -> list[str]:
    """The end of each log, oldest line first; of several, each under its folder's name."""
    lines = []
    for log in logs:
        if log.is_file():
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - LOG_BYTES))
                end = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
            heading = [f"── {log.stem if log.stem == 'router' else log.parent.name} ──"] if len(logs) > 1 else []
            lines += [*heading, *end]
    return lines
