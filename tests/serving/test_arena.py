"""Two streams at one pace: whole, in order, and never telling who is who by speed."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.errors import UserError
from annotation.types import Chunk
from serving.arena import Step, paced

LEFT, RIGHT = 0, 1
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


def collected(*streams: AsyncIterator[Chunk]) -> tuple[list[Step], str]:
    async def collect() -> tuple[list[Step], str]:
        steps: list[Step] = []
        try:
            async for step in paced(*streams):
                steps.append(step)
        except UserError as error:
            return steps, error.found
        return steps, ""

    return asyncio.run(collect())


def said(steps: list[Step], place: int) -> list[str]:
    return [step[place].text for step in steps if place in step and step[place].text]


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_both_texts_come_whole_and_in_order(left: list[str], right: list[str], one: list[int], two: list[int]) -> None:
    steps, problem = collected(spoken(left, one), spoken(right, two))
    assert (said(steps, LEFT), said(steps, RIGHT), problem) == (left, right, "")


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_both_grow_in_the_same_step_while_both_run(
    left: list[str], right: list[str], one: list[int], two: list[int]
) -> None:
    steps, _ = collected(spoken(left, one), spoken(right, two))
    both = min(len(left), len(right))
    assert [set(step) for step in steps[:both]] == [{LEFT, RIGHT}] * both


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_both_ends_come_together_after_all_text(
    left: list[str], right: list[str], one: list[int], two: list[int]
) -> None:
    steps, _ = collected(spoken(left, one), spoken(right, two))
    assert {place: chunk.finish for place, chunk in steps[-1].items()} == {LEFT: "stop", RIGHT: "stop"}
    assert not any(chunk.finish for step in steps[:-1] for chunk in step.values())


@settings(deadline=None)
@given(texts, texts, waits, waits)
def test_speed_does_not_change_what_is_shown_when(
    left: list[str], right: list[str], one: list[int], two: list[int]
) -> None:
    """The order of events is the same whichever side is the slow one, so it can't give the sides away."""

    def steps(first: list[int], second: list[int]) -> list[Step]:
        return collected(spoken(left, first), spoken(right, second))[0]

    assert steps(one, two) == steps(two, one)


@settings(deadline=None)
@given(texts, texts, waits, waits, st.booleans())
def test_a_side_that_fails_loses_nothing_of_the_other(
    left: list[str], right: list[str], one: list[int], two: list[int], left_fails: bool
) -> None:
    steps, problem = collected(spoken(left, one, fail=left_fails), spoken(right, two, fail=not left_fails))
    assert (said(steps, LEFT), said(steps, RIGHT)) == (left, right)
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
        steps = paced(endless("l"), endless("r"))
        async for _ in steps:
            break
        await steps.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert sorted(closed) == ["l", "r"]


class Clockwork(asyncio.SelectorEventLoop):
    """An event loop on whose clock all that is waited for comes at once."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(Skipping(self))

    def time(self) -> float:
        return self.now


class Skipping(selectors.SelectSelector):
    """Moves the clock on where others wait."""

    def __init__(self, loop: Clockwork) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.now += timeout or 0.0
        return super().select(0)


def moments(*sides: tuple[int, float]) -> list[tuple[float, int]]:
    """When (in seconds) how many of the sides are shown to grow, or to end; each has a number of words, and seconds
    for each of them and for its end.
    """

    async def spoken_in(words: int, seconds: float) -> AsyncIterator[Chunk]:
        for _ in range(words):
            await asyncio.sleep(seconds)
            yield Chunk(text="word ")
        await asyncio.sleep(seconds)
        yield Chunk(finish="stop")
        yield Chunk(finish="stop", completion_tokens=words)

    async def watch() -> list[tuple[float, int]]:
        loop = asyncio.get_running_loop()
        return [(round(loop.time(), 6), len(step)) async for step in paced(*(spoken_in(*one) for one in sides))]

    with asyncio.Runner(loop_factory=Clockwork) as runner:
        return runner.run(watch())


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(2, 30), st.floats(0.001, 0.2), st.floats(0.2, 2))
def test_once_the_shorter_one_has_ended_the_longer_one_does_not_tell_by_its_speed_whether_it_is_the_fast_one(
    short: int, more: int, fast: float, slow: float
) -> None:
    long = short + more
    quick_goes_on, slow_goes_on = moments((short, slow), (long, fast)), moments((short, fast), (long, slow))
    for one, other in zip(quick_goes_on, slow_goes_on, strict=True):
        assert one == (pytest.approx(other[0], rel=1e-3), other[1])
    assert quick_goes_on[-1][0] <= slow * (long + 1) * 1.001  # no later than the slow one would have been


def test_of_four_that_end_one_after_the_other_the_last_goes_on_at_the_pace_of_the_slowest() -> None:
    times = [when for when, _ in moments((4, 0.1), (6, 0.5), (8, 0.2), (12, 0.01))]
    assert times[:12] == pytest.approx([0.5 * number for number in range(1, 13)])


@pytest.mark.parametrize("empty", [LEFT, RIGHT])
def test_a_side_that_says_nothing_does_not_hold_up_the_other(empty: int) -> None:
    words = {LEFT: ["a", "b"], RIGHT: ["c", "d"], empty: []}
    steps, _ = collected(spoken(words[LEFT], [0] * 3), spoken(words[RIGHT], [0] * 3))
    assert (said(steps, LEFT), said(steps, RIGHT)) == (words[LEFT], words[RIGHT])


def test_an_end_may_have_the_last_words_and_be_followed_by_the_counts() -> None:
    async def whole(text: str) -> AsyncIterator[Chunk]:
        yield Chunk(text=text, finish="stop")
        yield Chunk(finish="stop", completion_tokens=2)

    steps, _ = collected(whole("a"), spoken(["b"], [0] * 2))
    assert (said(steps, LEFT), said(steps, RIGHT)) == (["a"], ["b"])
    assert [step[LEFT].completion_tokens for step in steps if LEFT in step] == [None, 2]


def test_a_piece_that_has_no_letter_yet_does_not_let_the_other_grow_alone() -> None:
    steps, _ = collected(spoken(["a", "", "😀", "b"], [0] * 5), spoken(["c", "d", "e"], [0] * 4))
    assert [{place: chunk.text for place, chunk in step.items()} for step in steps[:-1]] == [
        {LEFT: "a", RIGHT: "c"},
        {LEFT: "😀", RIGHT: "d"},
        {LEFT: "b", RIGHT: "e"},
    ]


@settings(deadline=None)
@given(st.lists(texts, min_size=2, max_size=4), st.lists(waits, min_size=4, max_size=4))
def test_four_keep_pace_as_two_do(words: list[list[str]], turns: list[list[int]]) -> None:
    steps, _ = collected(*(spoken(one, wait) for one, wait in zip(words, turns, strict=False)))
    assert [said(steps, place) for place in range(len(words))] == words
    assert [set(step) for step in steps[:-1]] == [
        {place for place, one in enumerate(words) if number < len(one)} for number in range(len(steps) - 1)
    ]
    assert set(steps[-1]) == set(range(len(words)))
