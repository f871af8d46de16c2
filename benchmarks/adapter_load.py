"""From an adapter's folder to its first token in an engine that runs.

The adapter is one as a run publishes it (`benchmarks.voices.trained`): of the presets' rank, with the trainer's account
of three exchanges. So a load holds all that it does right after training: the files read and hashed against the
registry, their base, shapes and settings checked, the engine asked how it words the three requests, and vLLM's own
load, which hashes the weights again. The first token holds the check of the answer's weights besides.

How likely the engine finds the three exchanges is asked a little later, beside the replies. The last row is a load that
waits for that, too, as one into an engine of somebody else's does.
"""

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
from serving.adapters import AdapterServer
from serving.client import Client
from serving.fitting import Base
from serving.memory import Memory
from serving.probe import UNCHANGED_HALF

TIMES = 9
LIMIT, LIMIT_HELD = 1.0, 5.0
"""Seconds; the second also holds four readings of the three exchanges, which a CPU takes about a second for."""


def measure(folder: Path) -> list[Row]:
    """The Models page's own load, then the first token; out and in again. Then the load that waits for all checks."""
    with served.studio(folder) as studio:
        both = [_once(studio) for _ in range(TIMES)]
        held = [_held_against_training(studio) for _ in range(TIMES)]
    loads, firsts = zip(*both, strict=True)
    return [
        within("adapter load, checked before", statistics.median(loads), LIMIT),
        within("adapter load to first token, median", statistics.median(firsts), LIMIT),
        within(f"the slowest of {TIMES}", max(firsts), LIMIT),
        within("adapter load, held against its training at once", statistics.median(held), LIMIT_HELD),
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


def _held_against_training(studio: Served) -> float:
    """Seconds until it is loaded and its three exchanges score as its trainer said."""
    settings, serving = studio.services.settings, studio.services.serving
    base = Base(name=settings.base_name, folder=studio.base, max_rank=settings.max_rank)
    memory = Memory(settings.engine_home / "serving.json")
    server = AdapterServer(Client(studio.url), settings.adapters, memory, base, settings.max_adapters)
    serving.unload(studio.adapter.name, studio.services.who)
    began = time.perf_counter()
    if server.measure(studio.adapter.name, UNCHANGED_HALF) is None:  # how far off it may be takes no time
        raise RuntimeError("The engine does not say how likely a text is.")
    return time.perf_counter() - began


async def _first_token(studio: Served, name: str) -> None:
    asked = [Message(role="user", text="Where is my parcel?")]
    reply = studio.services.serving.model().stream(asked, model=name, sampling=Sampling())
    async with aclosing(reply) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if chunk.text:
                return
