"""Streams shown at one pace: what arrives first must not tell who it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from annotation.types import Chunk

Pieces = asyncio.Queue[Chunk | BaseException | None]


async def paced(*streams: AsyncIterator[Chunk]) -> AsyncIterator[tuple[int, Chunk]]:
    """Give out the streams piece by piece in turn, each with its place, so that of those that still run none is ever
    more than a piece ahead.

    A piece of one side waits until every other side has its own. When a side ends, its end is held back until all
    have, so the ends come together. If a side fails, the others are still given out to their end, and then the first
    failure is raised.
    """
    queues: list[Pieces] = [asyncio.Queue() for _ in streams]
    tasks = [asyncio.create_task(_fill(*both)) for both in zip(streams, queues, strict=True)]
    try:
        async with aclosing(_take_turns(queues)) as pieces:
            async for piece in pieces:
                yield piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _fill(source: AsyncIterator[Chunk], queue: Pieces) -> None:
    try:
        async for chunk in source:
            queue.put_nowait(chunk)
        queue.put_nowait(None)
    except Exception as error:  # handed to the reader, who raises it
        queue.put_nowait(error)


async def _take_turns(queues: Sequence[Pieces]) -> AsyncGenerator[tuple[int, Chunk], None]:
    running, ends, failure = list(range(len(queues))), list[tuple[int, Chunk]](), None
    while running:
        taken = [(place, await queues[place].get()) for place in running]  # all of them, before any is shown
        for place, piece in taken:
            if isinstance(piece, BaseException):
                failure = failure or piece
                running.remove(place)
            elif piece is None:
                running.remove(place)
            elif piece.finish:
                ends.append((place, piece))
            else:
                yield place, piece
    for end in ends:
        yield end
    if failure:
        raise failure
