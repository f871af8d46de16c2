"""From an adapter's folder to its first token in an engine that runs."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import aclosing
from pathlib import Path

from annotation.types import Message, Sampling
from benchmarks import served
from benchmarks.row import Row, within
from benchmarks.served import Served

TIMES = 9
LIMIT = 1.0


def measure(folder: Path) -> list[Row]:
    """The Models page's own load (checked and loaded; it is measured later), then the first token; out and in
    again.
    """
    with served.studio(folder) as studio:
        both = [_once(studio) for _ in range(TIMES)]
    loads, firsts = zip(*both, strict=True)
    return [
        within("adapter load, checked before", statistics.median(loads), LIMIT),
        within("adapter load to first token, median", statistics.median(firsts), LIMIT),
        within(f"the slowest of {TIMES}", max(firsts), LIMIT),
    ]


def _once(studio: Served) -> tuple[float, float]:
    """Seconds until it is loaded, and until its first token."""
    serving, name = studio.services.serving, studio.adapter.name
    serving.unload(name, studio.services.who)
    began = time.perf_counter()
    serving.load(name, studio.services.who)
    loaded = time.perf_counter() - began
    asyncio.run(_first_token(studio, name))
    return loaded, time.perf_counter() - began


async def _first_token(studio: Served, name: str) -> None:
    asked = [Message(role="user", text="Where is my parcel?")]
    reply = studio.services.serving.model().stream(asked, model=name, sampling=Sampling())
    async with aclosing(reply) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if chunk.text:
                return
