"""What a blind pair costs against one reply: Compare asks base and adapter together, and both are answered at once."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from annotation.types import Message, Sampling
from benchmarks import served
from benchmarks.row import Row, show
from benchmarks.served import Lasting, Served
from studio.services.compare import CompareService, RoundForm, SideOf

ROUNDS = 10
TOKENS = 64
AT_MOST = 1.3


def measure(folder: Path) -> list[Row]:
    """Seconds of a pair (asked, paced and kept) over seconds of one reply of the same length, alone."""
    with served.studio(folder) as studio:
        pair, base, adapter = asyncio.run(_in_turns(studio))
    return [_row("the base's reply alone", pair, base), _row("the adapter's reply alone", pair, adapter)]


def _row(what: str, pair: float, single: float) -> Row:
    name = f"a pair of {TOKENS} tokens a side, against {what}"
    return Row(name, show(pair), f"limit {AT_MOST} × {show(single)}", pair / single, pair / single <= AT_MOST)


async def _in_turns(studio: Served) -> tuple[float, float, float]:
    """Median seconds of a pair, of the base alone and of the adapter alone, each message answered in all three ways."""
    services, adapter = studio.services, studio.adapter.name
    compare = CompareService(
        services.store, lambda: Lasting(services.serving.model()), services.serving.identify, services.who
    )
    seconds: dict[str, list[float]] = {"pair": [], "base": [], adapter: []}
    for number, text in enumerate(served.requests(ROUNDS)):
        for model in ("base", adapter):
            await _single(studio, model, text, Sampling(max_tokens=1))
        order = list(seconds)[number % 3 :] + list(seconds)[: number % 3]
        for turn in (*order, *reversed(order)):
            began = time.perf_counter()
            if turn == "pair":
                form = RoundForm(sides=(SideOf(model="base"), SideOf(model=adapter)), longest=TOKENS, seed=number)
                await _pair(compare, text, form)
            else:
                await _single(studio, turn, text, Sampling(max_tokens=TOKENS, seed=number))
            seconds[turn].append(time.perf_counter() - began)
    return tuple(statistics.median(seconds[name]) for name in ("pair", "base", adapter))  # type: ignore[return-value]


async def _pair(compare: CompareService, text: str, form: RoundForm) -> None:
    end = [live async for live in compare.ask(text, form)][-1]
    if end.problem or end.comparison_id is None:
        raise RuntimeError(end.problem or "nothing was kept")


async def _single(studio: Served, model: str, text: str, sampling: Sampling) -> None:
    """The reply itself, with nothing kept: what the pair is held against is as cheap as it can be."""
    asked = [Message(role="user", text=text)]
    async for _ in Lasting(studio.services.serving.model()).stream(asked, model=model, sampling=sampling):
        pass
