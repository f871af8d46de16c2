"""What this studio has asked the engine for and is still being answered, so that none of it is cut by sleep."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from annotation.types import ChatModel, Chunk, Message, Sampling
from serving.client import NoEngine


class UnderWay:
    """Counts requests of this process, from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests = 0
        self._shut = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A request until its answer has ended. Raises NoEngine where the engine is just being put to sleep."""
        with self._lock:
            if self._shut:
                raise NoEngine(
                    "The engine is just going to sleep.", do="What you wrote is kept. Ask again in a moment to wake it."
                )
            self._requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._requests -= 1

    @contextmanager
    def shut(self) -> Iterator[int]:
        """Let no request begin meanwhile; gives how many there are."""
        with self._lock:
            self._shut += 1
            there = self._requests
        try:
            yield there
        finally:
            with self._lock:
                self._shut -= 1


class Counted:
    """A model whose replies count as under way until they have ended."""

    def __init__(self, model: ChatModel, under_way: UnderWay) -> None:
        self._model = model
        self._under_way = under_way

    async def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        """As `annotation.types.ChatModel`. Raises NoEngine as `UnderWay.one`."""
        with self._under_way.one():
            async for chunk in self._model.stream(messages, model=model, sampling=sampling):
                yield chunk
