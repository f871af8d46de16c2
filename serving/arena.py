"""Two streams shown at one pace: what arrives first must not tell who it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Literal

from annotation.types import Chunk

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")


async def paced(left: AsyncIterator[Chunk], right: AsyncIterator[Chunk]) -> AsyncIterator[tuple[Side, Chunk]]:
    """Give out both streams piece by piece in turn, so that while both run neither is ever more than a piece ahead.

    A piece of one side waits until the other side has its own. When one side ends, its end is held back until the
    other ends too, so the ends come together. If a side fails, the other is still given out to its end, and then the
    first failure is raised.
    """
    sources = {"left": left, "right": right}
    queues: dict[Side, asyncio.Queue[Chunk | BaseException | None]] = {side: asyncio.Queue() for side in SIDES}
    tasks = [asyncio.create_task(_fill(sources[side], queues[side])) for side in SIDES]
    try:
        async with aclosing(_take_turns(queues)) as pieces:
            async for piece in pieces:
                yield piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _fill(source: AsyncIterator[Chunk], queue: asyncio.Queue[Chunk | BaseException | None]) -> None:
    try:
        async for chunk in source:
            queue.put_nowait(chunk)
        queue.put_nowait(None)
    except Exception as error:  # handed to the reader, who raises it
        queue.put_nowait(error)


async def _take_turns(
    queues: dict[Side, asyncio.Queue[Chunk | BaseException | None]],
) -> AsyncGenerator[tuple[Side, Chunk], None]:
    open_sides, ends, failure = list(SIDES), list[tuple[Side, Chunk]](), None
    while open_sides:
        taken = [(side, await queues[side].get()) for side in open_sides]  # both, before either is shown
        for side, piece in taken:
            if isinstance(piece, BaseException):
                failure = failure or piece
                open_sides.remove(side)
            elif piece is None:
                open_sides.remove(side)
            elif piece.finish:
                ends.append((side, piece))
            else:
                yield side, piece
    for end in ends:
        yield end
    if failure:
        raise failure
