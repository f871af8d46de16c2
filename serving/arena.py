"""Streams shown at one pace: what arrives first must not tell who it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from itertools import zip_longest

from annotation.types import Chunk

Pieces = asyncio.Queue[Chunk | BaseException | None]
Step = dict[int, Chunk]
"""The next piece of each stream that still runs, by its place; each has some text, or is an end."""


async def paced(*streams: AsyncIterator[Chunk]) -> AsyncIterator[Step]:
    """Give out the streams in steps, each with one piece of every stream that still runs, to be shown at once: so of
    those none is ever ahead, and none grows first.

    A piece of one side waits until every other side has its own. When a side ends, its end is held back until all
    have, so the ends come together. If a side fails, the others are still given out to their end, and then the
    first failure is raised.
    """
    queues: list[Pieces] = [asyncio.Queue() for _ in streams]
    tasks = [asyncio.create_task(_fill(*both)) for both in zip(streams, queues, strict=True)]
    try:
        async with aclosing(_in_steps(queues)) as steps:
            async for step in steps:
                yield step
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _fill(source: AsyncIterator[Chunk], queue: Pieces) -> None:
    try:
        async for chunk in source:
            if chunk.text or chunk.finish:  # half an emoji has no letter yet: its side would seem to stand still
                queue.put_nowait(chunk)
        queue.put_nowait(None)
    except Exception as error:  # handed to the reader, who raises it
        queue.put_nowait(error)


async def _in_steps(queues: Sequence[Pieces]) -> AsyncGenerator[Step, None]:
    running, ends, failure = list(range(len(queues))), [list[Chunk]() for _ in queues], None
    while running:
        step = Step()
        for place, piece in [(place, await queues[place].get()) for place in running]:
            if isinstance(piece, BaseException):
                failure = failure or piece
                running.remove(place)
            elif piece is None:
                running.remove(place)
            elif piece.finish:
                ends[place].append(piece)  # the last words, and then the counts
            else:
                step[place] = piece
        if step:
            yield step
    for last in zip_longest(*ends):
        yield {place: piece for place, piece in enumerate(last) if piece}
    if failure:
        raise failure
