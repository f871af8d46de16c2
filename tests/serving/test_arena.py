"""Two streams at one pace: whole, in order, and never telling who is who by speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.errors import UserError
from annotation.types import Chunk
from serving.arena import paced

LEFT, RIGHT = 0, 1
Pieces = list[tuple[int, Chunk]]
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


def said(pieces: Pieces, side: int) -> list[str]:
    return [chunk.text for of, chunk in pieces if of == side and chunk.text]


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_both_texts_come_whole_and_in_order(left: list[str], right: list[str], one: list[int], two: list[int]) -> None:
    pieces, problem = collected(spoken(left, one), spoken(right, two))
    assert (said(pieces, LEFT), said(pieces, RIGHT), problem) == (left, right, "")


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_neither_is_more_than_a_piece_ahead_while_both_run(
    left: list[str], right: list[str], one: list[int], two: list[int]
) -> None:
    pieces, _ = collected(spoken(left, one), spoken(right, two))
    shown = {LEFT: 0, RIGHT: 0}
    for side, chunk in pieces:
        if chunk.finish:
            break
        shown[side] += 1
        if min(shown.values()) < min(len(left), len(right)):
            assert abs(shown[LEFT] - shown[RIGHT]) <= 1


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_both_ends_come_together_after_all_text(
    left: list[str], right: list[str], one: list[int], two: list[int]
) -> None:
    pieces, _ = collected(spoken(left, one), spoken(right, two))
    assert all(chunk.finish == "stop" for _, chunk in pieces[-2:])
    assert not any(chunk.finish for _, chunk in pieces[:-2])
    assert {side for side, _ in pieces[-2:]} == {LEFT, RIGHT}


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
    assert (said(pieces, LEFT), said(pieces, RIGHT)) == (left, right)
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


@pytest.mark.parametrize("empty", [LEFT, RIGHT])
def test_a_side_that_says_nothing_does_not_hold_up_the_other(empty: int) -> None:
    words = {LEFT: ["a", "b"], RIGHT: ["c", "d"], empty: []}
    pieces, _ = collected(spoken(words[LEFT], [0] * 3), spoken(words[RIGHT], [0] * 3))
    assert [chunk.text for _, chunk in pieces if chunk.text] == words[LEFT] + words[RIGHT]


@settings(deadline=None)
@given(st.lists(texts, min_size=2, max_size=4), st.lists(waits, min_size=4, max_size=4))
def test_four_keep_pace_as_two_do(words: list[list[str]], turns: list[list[int]]) -> None:
    async def collect() -> Pieces:
        streams = [spoken(one, wait) for one, wait in zip(words, turns, strict=False)]
        return [piece async for piece in paced(*streams)]

    pieces = asyncio.run(collect())
    assert [said(pieces, place) for place in range(len(words))] == words
    assert all(chunk.finish for _, chunk in pieces[-len(words) :])
    shown = [0] * len(words)
    for place, chunk in pieces[: -len(words)]:
        shown[place] += bool(chunk.text)
        running = [count for count, one in zip(shown, words, strict=True) if count < len(one)]
        assert not running or max(shown) - min(running) <= 1
