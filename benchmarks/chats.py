"""A hundred people chat at once: what fails, how fast it is against vLLM's own door, how the page's process grows."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import direct, served
from benchmarks.direct import Timed
from benchmarks.row import Row, show
from benchmarks.served import Fixed, Served
from benchmarks.streaming import through_chat

CHATS = 100
TOKENS = 32
AT_LEAST = 0.95
GROWTH_LIMIT = 50.0
"""Megabytes."""
ORDER = (True, False, False, True, True, False)
"""Of the rounds, true for ours: each way has its share of the machine's moods."""


@dataclass(frozen=True)
class Crowd:
    """All of them: each reply's times, how many failed, and seconds until the last was done."""

    replies: list[Timed]
    failed: int
    seconds: float

    @property
    def pace(self) -> float:
        """Tokens a second over all."""
        return TOKENS * len(self.replies) / self.seconds

    def first(self, share: float) -> float:
        """Seconds to the first token, at this share of the replies, 0 to 1."""
        return statistics.quantiles((one.first for one in self.replies), n=100)[round(100 * share) - 1]


def measure(folder: Path) -> list[Row]:
    """Half of them talk with the base, half with an adapter."""
    with served.studio(folder) as studio:
        process = psutil.Process()
        asyncio.run(_crowd(studio, ours=True, tokens=2))  # what is loaded at the first time only is not growth
        before = process.memory_info().rss
        crowds = [(ours, asyncio.run(_crowd(studio, ours))) for ours in ORDER]
        grown = (process.memory_info().rss - before) / 1e6
    return rows([one for ours, one in crowds if ours], [one for ours, one in crowds if not ours], grown)


async def _crowd(studio: Served, ours: bool, tokens: int = TOKENS) -> Crowd:
    began = time.perf_counter()
    async with direct.client(studio.url) as http:
        asked: list[Awaitable[Timed]] = []
        for number, text in enumerate(served.requests(CHATS)):
            model, sampling = ("base", studio.adapter.name)[number % 2], Fixed(max_tokens=tokens, seed=number)
            if ours:
                asked.append(through_chat(studio.services, model, text, sampling))
            else:
                asked.append(direct.reply(http, model, text, sampling))
        done = await asyncio.gather(*asked, return_exceptions=True)
    replies = [one for one in done if isinstance(one, Timed)]
    return Crowd(replies, len(done) - len(replies), time.perf_counter() - began)


def rows(ours: Sequence[Crowd], plain: Sequence[Crowd], grown: float) -> list[Row]:
    """Each way's rounds taken together."""
    what, failed = f"{CHATS} chats at once", sum(one.failed for one in ours)
    mine, theirs = (statistics.mean(one.pace for one in each) for each in (ours, plain))
    found = [
        Row(f"{what}: replies that failed", f"{failed}", "none", float(failed), failed == 0),
        Row(what, f"{mine:.0f} tokens/s", f"vLLM {theirs:.0f} tokens/s", mine / theirs, mine / theirs >= AT_LEAST),
    ]
    for share in (0.5, 0.95):
        mine, theirs = (statistics.mean(one.first(share) for one in each) for each in (ours, plain))
        name = f"{what}: first token, {share:.0%} within"
        found.append(Row(name, show(mine), f"vLLM {show(theirs)}", theirs / mine, theirs / mine >= AT_LEAST))
    within = grown <= GROWTH_LIMIT
    memory = f"{what}: growth of the page's process"
    return [*found, Row(memory, f"{grown:.0f} MB", f"limit {GROWTH_LIMIT:.0f} MB", grown / GROWTH_LIMIT, within)]
