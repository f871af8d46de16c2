"""The scripted model: the engine's interface, and faults on demand."""

from __future__ import annotations

import asyncio
import json

import pytest

from annotation.errors import UserError
from annotation.types import ChatModel, Chunk, Message, Sampling
from serving.scripted import ScriptedModel

ASK = [Message(role="user", text="Where is my parcel?")]


async def collect(model: ChatModel, sampling: Sampling, into: list[Chunk]) -> None:
    async for chunk in model.stream(ASK, model="base", sampling=sampling):
        into.append(chunk)


def answer(model: ChatModel, sampling: Sampling) -> list[Chunk]:
    chunks: list[Chunk] = []
    asyncio.run(collect(model, sampling, chunks))
    return chunks


def test_the_same_conversation_gets_the_same_reply_with_its_counts() -> None:
    first, second = (answer(ScriptedModel(word_seconds=0), Sampling()) for _ in range(2))
    assert first == second
    assert "Where is my parcel?" in "".join(chunk.text for chunk in first)
    assert (first[-1].finish, first[-1].completion_tokens) == ("stop", len(first) - 1)


def test_it_stops_at_the_token_limit() -> None:
    chunks = answer(ScriptedModel(word_seconds=0), Sampling(max_tokens=3))
    assert len(chunks) == 4
    assert chunks[-1].finish == "length"


def test_it_fails_after_as_many_words_as_asked() -> None:
    chunks: list[Chunk] = []
    with pytest.raises(UserError, match="broke off"):
        asyncio.run(collect(ScriptedModel(word_seconds=0, fail_after=2), Sampling(), chunks))
    assert len(chunks) == 2


def test_it_hangs_after_as_many_words_as_asked() -> None:
    chunks: list[Chunk] = []
    silent = collect(ScriptedModel(word_seconds=0, hang_after=2), Sampling(), chunks)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(silent, timeout=0.2))
    assert len(chunks) == 2


def test_it_fills_in_a_form_the_same_way_each_time() -> None:
    choice = {"type": "string", "enum": ["first", "second"]}
    form = {"type": "object", "properties": {"why": {"type": "string"}, "which": choice}, "required": ["why", "which"]}
    sampling = Sampling(json_schema=json.dumps(form))
    said = ["".join(chunk.text for chunk in answer(ScriptedModel(word_seconds=0), sampling)) for _ in range(2)]
    assert said[0] == said[1]
    filled = json.loads(said[0])
    assert list(filled) == ["why", "which"]
    assert "scripted" in filled["why"]
    assert filled["which"] in choice["enum"]
