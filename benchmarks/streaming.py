"""What the studio puts on top of vLLM while a reply comes in: the Chat page's own calls against vLLM's door."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import direct, served
from benchmarks.direct import Timed
from benchmarks.row import Row, show
from benchmarks.served import Fixed, Served
from studio.services import Services

ROUNDS = 12
"""Of two replies each way, ours first and then ours last, so that both get the same share of the machine's moods."""
TOKENS = 64
AT_LEAST = 0.95


def measure(folder: Path) -> list[Row]:
    """First token and pace, for the base and an adapter."""
    with served.studio(folder) as studio:
        return asyncio.run(_measure(studio))


async def _measure(studio: Served) -> list[Row]:
    rows = []
    for model, name in (("base", "base"), (studio.adapter.name, "adapter")):
        ours, plain = await _in_turns(studio, model)
        rows += rows_of(f"a reply of the {name}", ours, plain)
    return rows


async def _in_turns(studio: Served, model: str) -> tuple[list[Timed], list[Timed]]:
    """The same messages and seeds each way; vLLM keeps prompts it has seen, so each is asked once before."""
    ours: list[Timed] = []
    plain: list[Timed] = []
    async with direct.client(studio.url) as http:
        for number, text in enumerate(served.requests(ROUNDS)):
            sampling = Fixed(max_tokens=TOKENS, seed=number)
            await direct.reply(http, model, text, Fixed(max_tokens=1))
            for turn in "oddo" if number % 2 else "dood":
                if turn == "o":
                    ours.append(await through_chat(studio.services, model, text, sampling))
                else:
                    plain.append(await direct.reply(http, model, text, sampling))
    return ours, plain


async def through_chat(services: Services, model: str, text: str, sampling: Fixed) -> Timed:
    """A new chat, as the Chat page has it: message and reply are kept, and the first piece is ready to be shown."""
    began, first, live = time.perf_counter(), 0.0, None
    async for live in services.chat.send(None, text, model, sampling):
        if live.text and not first:
            services.chat.open(live.conversation_id)  # which the page does before it shows anything
            first = time.perf_counter() - began
    if live is None or live.problem or live.turn is None:
        raise RuntimeError(live.problem if live and live.problem else "nothing came")
    return Timed(first, time.perf_counter() - began)


def rows_of(what: str, ours: Sequence[Timed], plain: Sequence[Timed]) -> list[Row]:
    """Medians of both ways, held against each other; a ratio above 1 is faster than vLLM's own door."""

    def median(of: Callable[[Timed], float]) -> tuple[float, float]:
        return statistics.median(map(of, ours)), statistics.median(map(of, plain))

    mine, theirs = median(lambda one: one.first)
    first = Row(f"{what}: first token", show(mine), f"vLLM {show(theirs)}", theirs / mine, theirs / mine >= AT_LEAST)
    mine, theirs = (TOKENS / seconds for seconds in median(lambda one: one.whole))
    pace = Row(
        f"{what}: to its end, kept",
        f"{mine:.1f} tokens/s",
        f"vLLM {theirs:.1f} tokens/s",
        mine / theirs,
        mine / theirs >= AT_LEAST,
    )
    return [first, pace]
