"""Streams shown at one pace: what arrives first must not tell who it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from itertools import zip_longest

from annotation.types import Chunk

Step = dict[int, Chunk]
"""The next piece of each stream that still runs, by its place; each has some text, or is an end."""


async def paced(*streams: AsyncIterator[Chunk]) -> AsyncIterator[Step]:
    """Give out the streams in steps, each with one piece of every stream that still runs, to be shown at once: so of
    those none is ever ahead, and none grows first.

    A piece of one side waits until every other side has its own. When a side ends, its end is held back until all
    have, so the ends come together; and the others go on no faster than the slowest of all did until then, whichever
    they are. That takes no longer than the slowest would have for as many pieces. If a side fails, the others are still
    given out to their end, and then the first failure is raised.
    """
    coming = [_Coming() for _ in streams]
    tasks = [asyncio.create_task(one.fill(stream)) for one, stream in zip(coming, streams, strict=True)]
    try:
        async with aclosing(_in_steps(coming)) as steps:
            async for step in steps:
                yield step
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Coming:
    """What has come of one stream and is not given out yet, and how fast it came."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[Chunk | BaseException | None] = asyncio.Queue()
        self._times: list[float] = []

    async def fill(self, source: AsyncIterator[Chunk]) -> None:
        """Take in all of `source`, its end (None) or its failure last."""
        try:
            async for chunk in source:
                if chunk.text or chunk.finish:  # half an emoji has no letter yet: its side would seem to stand still
                    self.pieces.put_nowait(chunk)
                if chunk.text and not chunk.finish:  # the counts come with the end, in no time
                    self._times.append(_now())
            self.pieces.put_nowait(None)
        except Exception as error:  # handed to the reader, who raises it
            self.pieces.put_nowait(error)

    @property
    def pace(self) -> float:
        """Seconds from piece to piece so far, on average; 0 before there are two."""
        return (self._times[-1] - self._times[0]) / (len(self._times) - 1) if len(self._times) > 1 else 0.0


class _Tail:
    """When what is left may come, once a side has ended: by a clock that ticks at the pace of the slowest."""

    def __init__(self, coming: Sequence[_Coming]) -> None:
        self._coming = coming
        self._pace: float | None = None
        self._due = 0.0

    def all_came(self) -> None:
        """A step with a piece of every side is given out."""
        self._due = _now()

    async def tick(self) -> None:
        """Wait until the next piece without a side that has ended may come."""
        if self._pace is None:  # kept as it was while all ran: fewer may be faster
            self._pace = max(one.pace for one in self._coming)
            self._due = self._due or _now()
        self._due += self._pace
        await asyncio.sleep(max(0.0, self._due - _now()))

    async def end(self) -> None:
        """Wait for the ends, which come like one more piece."""
        if self._pace is not None:
            await self.tick()


async def _in_steps(coming: Sequence[_Coming]) -> AsyncGenerator[Step, None]:
    running, ends, failure = list(range(len(coming))), [list[Chunk]() for _ in coming], None
    tail = _Tail(coming)
    while running:
        step = Step()
        for place, piece in [(place, await coming[place].pieces.get()) for place in running]:
            if isinstance(piece, BaseException):
                failure = failure or piece
                running.remove(place)
            elif piece is None:
                running.remove(place)
            elif piece.finish:
                ends[place].append(piece)  # the last words, and then the counts
            else:
                step[place] = piece
        if len(step) == len(coming):
            tail.all_came()
        elif step:
            await tail.tick()
        if step:
            yield step
    await tail.end()
    for last in zip_longest(*ends):
        yield {place: piece for place, piece in enumerate(last) if piece}
    if failure:
        raise failure


def _now() -> float:
    """Of the event loop's clock, in seconds."""
    return asyncio.get_running_loop().time()
