"""How the answers about a reply came about, for rows, lists and pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from annotation.acts import Settled, Standing
from annotation.types import Question

WEAKEST: tuple[Settled, ...] = ("unresolved", "adjudicated", "single", "unanimous")


def how_settled(standing: Standing) -> dict[Question, Settled]:
    """How the answer to each question that anybody answered came about."""
    return {question: found.how for question, found in standing.resolved().items()}


def in_one_word(how: Mapping[Question, Settled]) -> Settled | None:
    """That of the whole reply: `unresolved` if any question is, else `adjudicated` if any was, else `single` if any
    has one answer, else `unanimous`. None where nobody answered.
    """
    return min(how.values(), key=WEAKEST.index, default=None)
