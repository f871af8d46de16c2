"""A model that is there when it is asked, also on an engine where others take out what is ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from annotation.types import ChatModel, Chunk, Message, Sampling
from serving.client import Refused


class Present:
    """Asks whoever `find(model, again)` names, and once more if they do not hold the model after all: somebody may have
    taken it out in the moment between. `find` may take a while, and raises UserError where the model can't be asked.
    """

    def __init__(self, find: Callable[[str, bool], ChatModel]) -> None:
        self._find = find

    async def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        said = False
        for again in (False, True):
            asked = await asyncio.to_thread(self._find, model, again)
            try:
                async for chunk in asked.stream(messages, model=model, sampling=sampling):
                    said = True
                    yield chunk
                return
            except Refused as error:
                if said or again or not gone(error):  # nothing of a reply is ever said twice
                    raise


def gone(error: Refused) -> bool:
    """Whether a refusal says that the engine does not hold the model."""
    return error.status == 404
