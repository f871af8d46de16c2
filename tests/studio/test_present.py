"""A model that somebody else may take out at any moment is asked again; what could not be measured is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from annotation.errors import UserError
from annotation.types import Chunk, Message, Sampling
from serving.client import NoEngine, Refused
from studio.services import present
from studio.services.measuring import Measuring
from studio.services.present import Present

GONE = Refused(404, "The engine does not hold 'a-0'.")


class Engine:
    """Says each of `words` in turn; an error among them is raised."""

    def __init__(self, *words: str | Exception) -> None:
        self._words = words

    async def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        for word in self._words:
            if isinstance(word, Exception):
                raise word
            yield Chunk(text=word)


def ask(*engines: Engine) -> tuple[str, list[bool]]:
    """What is heard of the first of `engines`, and of the next if it is asked anew, and how often that was; the last of
    them is asked for ever.
    """
    found: list[bool] = []

    def find(model: str, again: bool) -> Engine:
        found.append(again)
        return engines[min(len(found), len(engines)) - 1]

    async def heard() -> str:
        stream = Present(find).stream([], model="a-0", sampling=Sampling())
        return "".join([chunk.text async for chunk in stream])

    return asyncio.run(heard()), found


def test_what_went_in_the_moment_between_is_asked_anew() -> None:
    assert ask(Engine(GONE), Engine("Hello")) == ("Hello", [False, True])
    assert ask(*3 * [Engine(GONE)], Engine("Hello")) == ("Hello", [False, True, True, True])
    assert ask(Engine("Hello")) == ("Hello", [False])


@pytest.mark.parametrize(
    "engines",
    [
        (Engine("Hel", GONE), Engine("never")),
        (Engine(Refused(400, "The engine refused the request.")), Engine("never")),
        (Engine(NoEngine("No engine answers.")), Engine("never")),
    ],
    ids=["in the middle of a reply", "refused otherwise", "nobody there"],
)
def test_nothing_else_is_asked_again(engines: Any) -> None:
    with pytest.raises(UserError):
        ask(*engines)


def test_it_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(present, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(Refused, match="does not hold"):
        ask(Engine(GONE))


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_what_could_not_be_measured_is_tried_again_later_and_what_was_is_not() -> None:
    clock = Clock()
    measuring = Measuring(clock)
    here = ("http://one",)
    assert measuring.next(["b-0", "a-0"], here) == "a-0"
    assert measuring.next(["b-0", "a-0"], here) == "a-0", "nothing was said of it yet"
    measuring.later("a-0", here, 30)
    assert measuring.next(["b-0", "a-0"], here) == "b-0"
    measuring.done("b-0", here)
    assert measuring.next(["b-0", "a-0"], here) is None
    clock.seconds += 31
    assert measuring.next(["b-0", "a-0"], here) == "a-0"
    measuring.done("a-0", here)
    assert measuring.next(["b-0", "a-0"], here) is None


def test_what_comes_back_and_a_new_engine_are_measured_anew() -> None:
    measuring = Measuring(Clock())
    for name in ("a-0", "b-0"):
        measuring.done(name, ("one",))
    assert measuring.next(["a-0"], ("one",)) is None
    assert measuring.next(["a-0", "b-0"], ("one",)) == "b-0", "it was gone for a while"
    assert measuring.next(["a-0"], ("one", "two")) == "a-0"
