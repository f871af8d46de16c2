"""What the studio puts on top of vLLM while a reply comes in: the Chat page's own calls against vLLM's door."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import direct, served
from benchmarks.direct import Timed
from benchmarks.row import Row, show
from benchmarks.served import Fixed, Served
from studio.services import Services

ROUNDS = 6
"""Of two replies each way, ours first and then ours last, so that both get the same share of the machine's moods."""
TOKENS = 64
FIRST_ROUNDS, FIRST_TOKENS = 30, 4
"""For the first token: it differs more from reply to reply than from one way to the other."""
AT_LEAST = 0.95


def measure(folder: Path) -> list[Row]:
    """First token, and pace over the whole reply, for the base and an adapter."""
    with served.studio(folder) as studio:
        return asyncio.run(_measure(studio))


async def _measure(studio: Served) -> list[Row]:
    rows = []
    for model, name in (("base", "base"), (studio.adapter.name, "adapter")):
        what = f"a reply of the {name}"
        rows.append(first_row(what, *await _in_turns(studio, model, FIRST_ROUNDS, FIRST_TOKENS)))
        rows.append(pace_row(what, *await _in_turns(studio, model, ROUNDS, TOKENS)))
    return rows


async def _in_turns(studio: Served, model: str, rounds: int, tokens: int) -> tuple[list[Timed], list[Timed]]:
    """The same messages and seeds each way; vLLM keeps prompts it has seen, so each is asked once before."""
    ours: list[Timed] = []
    plain: list[Timed] = []
    async with direct.client(studio.url) as http:
        for number, text in enumerate(served.requests(rounds)):
            sampling = Fixed(max_tokens=tokens, seed=number)
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
            first = time.perf_counter() - began
    if live is None or live.problem or live.turn is None:
        raise RuntimeError(live.problem if live and live.problem else "nothing came")
    return Timed(first, time.perf_counter() - began)


def first_row(what: str, ours: Sequence[Timed], plain: Sequence[Timed]) -> Row:
    """Medians of both ways, held against each other; a ratio above 1 is faster than vLLM's own door."""
    mine, theirs = (statistics.median(one.first for one in each) for each in (ours, plain))
    return Row(f"{what}: first token", show(mine), f"vLLM {show(theirs)}", theirs / mine, theirs / mine >= AT_LEAST)


def pace_row(what: str, ours: Sequence[Timed], plain: Sequence[Timed]) -> Row:
    """As `first_row`, of tokens a second from the asking to the end, where ours is kept."""
    mine, theirs = (TOKENS / statistics.median(one.whole for one in each) for each in (ours, plain))
    return Row(
        f"{what}: to its end, kept",
        f"{mine:.1f} tokens/s",
        f"vLLM {theirs:.1f} tokens/s",
        mine / theirs,
        mine / theirs >= AT_LEAST,
    )
