"""Two streams at one pace: whole, in order, and never telling who is who by speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.errors import UserError
from annotation.types import Chunk
from serving.arena import Side, paced

Pieces = list[tuple[Side, Chunk]]
texts = st.lists(st.text(min_size=1, max_size=3), max_size=8)
waits = st.lists(st.integers(0, 3), min_size=9, max_size=9)


async def spoken(words: Sequence[str], turns: Sequence[int], fail: bool = False) -> AsyncIterator[Chunk]:
    """A stream of `words`, each after some turns of the event loop; its end has `finish`, or is an error."""
    for word, wait in zip(words, turns, strict=False):
        for _ in range(wait):
            await asyncio.sleep(0)
        yield Chunk(text=word)
    if fail:
        raise UserError("The engine broke off.")
    yield Chunk(finish="stop", completion_tokens=len(words))


def collected(left: AsyncIterator[Chunk], right: AsyncIterator[Chunk]) -> tuple[Pieces, str]:
    async def collect() -> tuple[Pieces, str]:
        pieces: Pieces = []
        try:
            async for piece in paced(left, right):
                pieces.append(piece)
        except UserError as error:
            return pieces, error.found
        return pieces, ""

    return asyncio.run(collect())


def said(pieces: Pieces, side: Side) -> list[str]:
    return [chunk.text for of, chunk in pieces if of == side and chunk.text]


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_both_texts_come_whole_and_in_order(left: list[str], right: list[str], one: list[int], two: list[int]) -> None:
    pieces, problem = collected(spoken(left, one), spoken(right, two))
    assert (said(pieces, "left"), said(pieces, "right"), problem) == (left, right, "")


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_neither_is_more_than_a_piece_ahead_while_both_run(
    left: list[str], right: list[str], one: list[int], two: list[int]
) -> None:
    pieces, _ = collected(spoken(left, one), spoken(right, two))
    shown = {"left": 0, "right": 0}
    for side, chunk in pieces:
        if chunk.finish:
            break
        shown[side] += 1
        if min(shown.values()) < min(len(left), len(right)):
            assert abs(shown["left"] - shown["right"]) <= 1


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_both_ends_come_together_after_all_text(
    left: list[str], right: list[str], one: list[int], two: list[int]
) -> None:
    pieces, _ = collected(spoken(left, one), spoken(right, two))
    assert all(chunk.finish == "stop" for _, chunk in pieces[-2:])
    assert not any(chunk.finish for _, chunk in pieces[:-2])
    assert {side for side, _ in pieces[-2:]} == {"left", "right"}


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_speed_does_not_change_what_is_shown_when(
    left: list[str], right: list[str], one: list[int], two: list[int]
) -> None:
    """The order of events is the same whichever side is the slow one, so it can't give the sides away."""

    def order(first: list[int], second: list[int]) -> Pieces:
        pieces, _ = collected(spoken(left, first), spoken(right, second))
        return [(side, chunk) for side, chunk in pieces if not chunk.finish]

    assert order(one, two) == order(two, one)


@settings(deadline=None)
@given(texts, texts, waits, waits, st.booleans())
def test_a_side_that_fails_loses_nothing_of_the_other(
    left: list[str], right: list[str], one: list[int], two: list[int], left_fails: bool
) -> None:
    pieces, problem = collected(spoken(left, one, fail=left_fails), spoken(right, two, fail=not left_fails))
    assert (said(pieces, "left"), said(pieces, "right")) == (left, right)
    assert problem == "The engine broke off."


def test_leaving_early_closes_both_streams() -> None:
    closed = []

    async def endless(name: str) -> AsyncIterator[Chunk]:
        try:
            while True:
                await asyncio.sleep(0)
                yield Chunk(text=name)
        finally:
            closed.append(name)

    async def leave() -> None:
        pieces = paced(endless("l"), endless("r"))
        async for _ in pieces:
            break
        await pieces.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert sorted(closed) == ["l", "r"]


@pytest.mark.parametrize("empty", ["left", "right"])
def test_a_side_that_says_nothing_does_not_hold_up_the_other(empty: str) -> None:
    words = {"left": ["a", "b"], "right": ["c", "d"], empty: []}
    pieces, _ = collected(spoken(words["left"], [0] * 3), spoken(words["right"], [0] * 3))
    assert [chunk.text for _, chunk in pieces if chunk.text] == words["left"] + words["right"]
