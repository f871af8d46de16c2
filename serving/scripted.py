"""A scripted model with the engine's interface: for a look at the page with no engine, and for fault injection."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any
from zlib import crc32

from annotation.errors import UserError
from annotation.types import Chunk, Message, Sampling

REPLIES = (
    "This is a scripted reply: no engine is running. You asked: “{asked}”",
    "Scripted reply, second of three. Judge and correct it like any other. You asked: “{asked}”",
    "The last of the scripted replies; then they begin again. You asked: “{asked}”",
)


class ScriptedModel:
    """Answers by script, word by word. The same conversation and seed get the same reply.

    Where a form is asked for (`Sampling.json_schema`) the reply has it, filled in without reading what was said.

    `word_seconds` is the pause between words. `fail_after` breaks off after that many words with a UserError, and
    `hang_after` falls silent after that many.
    """

    def __init__(
        self,
        replies: Sequence[str] = REPLIES,
        word_seconds: float = 0.02,
        fail_after: int | None = None,
        hang_after: int | None = None,
    ) -> None:
        self._replies = tuple(replies)
        self._word_seconds = word_seconds
        self._fail_after = fail_after
        self._hang_after = hang_after

    async def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        """Stream the reply; see `annotation.types.ChatModel`."""
        asked = [message.text for message in messages if message.role == "user"]
        place = len(asked) - 1 + (sampling.seed or 0)
        reply = self._replies[place % len(self._replies)].format(asked=asked[-1] if asked else "")
        if sampling.json_schema is not None:
            reply = json.dumps(_filled(json.loads(sampling.json_schema), crc32(repr(asked).encode()) + place))
        words = re.findall(r"\S+\s*", reply)
        for said, word in enumerate(words[: sampling.max_tokens]):
            if said == self._fail_after:
                raise UserError("The engine broke off in the middle of the reply.", do="Retry.")
            if said == self._hang_after:
                await asyncio.Event().wait()
            await asyncio.sleep(self._word_seconds)
            yield Chunk(text=word)
        cut = len(words) > sampling.max_tokens
        spoken = min(len(words), sampling.max_tokens)
        prompt = sum(len(message.text.split()) for message in messages)
        yield Chunk(finish="length" if cut else "stop", prompt_tokens=prompt, completion_tokens=spoken)


def _filled(schema: dict[str, Any], place: int) -> Any:
    """A value of a schema made of objects, choices and strings; `place` says which of the choices."""
    if schema["type"] == "object":
        return {name: _filled(one, place + number) for number, (name, one) in enumerate(schema["properties"].items())}
    if "enum" in schema:
        return schema["enum"][place % len(schema["enum"])]
    return "This is scripted: no model has read the replies."
