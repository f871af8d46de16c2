"""A model that is there when it is asked, also on an engine where others take out what is ours."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar

from annotation.types import ChatModel, Chunk, Message, Sampling
from serving.client import Refused

PATIENCE_SECONDS = 60.0
"""For how long it is asked anew. Two studios that share too few places may push each other out many times over."""
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 1.0
"""Longest pause before the second asking; twice that before each one after it. Each lasts a random part of its own, so
that two who push each other out do not go on in step.
"""
Asked = TypeVar("Asked", bound=ChatModel)


class Present(Generic[Asked]):
    """Asks whoever `find(model, again)` names, and anew if they do not hold the model after all: somebody may have
    taken it out in the moment between. `find` raises UserError where the model can't be asked, or where asking it again
    is of no use; it may take a while, unless `at_once` says that it does not the first time.
    """

    def __init__(self, find: Callable[[str, bool], Asked], at_once: bool = False) -> None:
        self._find = find
        self._at_once = at_once

    async def tries(self, model: str) -> AsyncIterator[tuple[Asked, Callable[[Refused], bool]]]:
        """Whoever is to be asked, for as long as asking anew may help; and whether it may, after that refusal."""
        until, pause, again = time.monotonic() + PATIENCE_SECONDS, PAUSE_SECONDS, False

        def helps(refusal: Refused) -> bool:
            return gone(refusal) and time.monotonic() < until

        while True:
            if self._at_once and not again:  # a thread is one more to wait for, where a hundred ask
                asked = self._find(model, again)
            else:
                asked = await asyncio.to_thread(self._find, model, again)
            yield asked, helps
            await asyncio.sleep(random.uniform(0, pause))
            again, pause = True, min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        said = False
        async for asked, helps in self.tries(model):
            try:
                async for chunk in asked.stream(messages, model=model, sampling=sampling):
                    said = True
                    yield chunk
                return
            except Refused as refusal:
                if said or not helps(refusal):  # nothing of a reply is ever said twice
                    raise


def gone(error: Refused) -> bool:
    """Whether a refusal says that the engine does not hold the model."""
    return error.status == 404
