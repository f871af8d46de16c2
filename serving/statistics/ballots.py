"""What the statistics read, and the two shapes of what they say.

Nothing else in this package needs to know how a vote was shown: `Votes` turns left and right into one and other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from annotation.types import Frozen, Outcome

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
SCORES: dict[Outcome, float] = {"left": 1.0, "tie": 0.5, "right": 0.0}
"""Of the left side; 'both bad' has none, because it says nothing about which is better."""


class Ballot(Frozen):
    """One voter's answer about one pair, on one criterion."""

    voter: str
    prompt: str
    """Id of the prompt."""
    left: str
    """Name of the side shown left."""
    right: str
    """Name of the side shown right."""
    outcome: Outcome
    strength: int = 1
    """1 slightly, 2 clearly, 3 much. Kept for reading; every vote counts once in the figures."""
    length_difference: float = 0.0
    """Characters of left minus right, divided by 1000."""
    slices: dict[str, str] = Field(default_factory=dict)
    """Where it belongs in each respect, for example `{"language": "de", "topic": "refunds"}`."""


class Estimate(Frozen):
    """One figure with its interval and its test, and what to know about it."""

    value: float
    low: float | None = None
    """Lower end of the interval; None where there is none, and `words` says why."""
    high: float | None = None
    p: float | None = None
    """Two-sided p-value against one half, for a single look at the data; None where there is none."""
    words: str = ""
    """A caution, or empty."""


@dataclass(frozen=True, eq=False)
class Votes:
    """The votes on two sides, seen from `one`, without 'both bad'. Build it with `of`."""

    score: Floats
    """1 where one won, 0 where other won, ½ for a tie."""
    side: Floats
    """+1 where one was shown left, −1 where it was shown right."""
    length: Floats
    """Characters of one minus other, divided by 1000."""
    voter: Whole
    prompt: Whole
    slices: tuple[dict[str, str], ...]
    both_bad: int
    """How many votes said so."""

    @classmethod
    def of(cls, ballots: Sequence[Ballot], one: str, other: str) -> Votes:
        """Take the ballots on these two sides and leave out the rest. Raises ValueError if the sides are the same."""
        if one == other:
            raise ValueError("A verdict needs two different sides.")
        pair = [ballot for ballot in ballots if {ballot.left, ballot.right} == {one, other}]
        rows = [ballot for ballot in pair if ballot.outcome != "both_bad"]
        side = np.array([1.0 if ballot.left == one else -1.0 for ballot in rows])
        left = np.array([SCORES[ballot.outcome] for ballot in rows])
        return cls(
            score=np.where(side > 0, left, 1 - left),
            side=side,
            length=side * np.array([ballot.length_difference for ballot in rows]),
            voter=codes([ballot.voter for ballot in rows]),
            prompt=codes([ballot.prompt for ballot in rows]),
            slices=tuple(ballot.slices for ballot in rows),
            both_bad=len(pair) - len(rows),
        )

    def only(self, where: NDArray[np.bool_]) -> Votes:
        """Some of them, without those that both are bad."""
        slices = tuple(one for one, kept in zip(self.slices, where, strict=True) if kept)
        return Votes(
            score=self.score[where],
            side=self.side[where],
            length=self.length[where],
            voter=self.voter[where],
            prompt=self.prompt[where],
            slices=slices,
            both_bad=0,
        )

    @cached_property
    def counts(self) -> tuple[int, int, int]:
        """Wins, losses and ties of one."""
        wins, losses = int((self.score == 1).sum()), int((self.score == 0).sum())
        return wins, losses, self.score.size - wins - losses

    @property
    def rate(self) -> float | None:
        """Win rate of one with ties as half; None without votes."""
        return float(self.score.mean()) if self.score.size else None

    @property
    def voters(self) -> int:
        """People whose vote counts here."""
        return np.unique(self.voter).size

    @property
    def prompts(self) -> int:
        return np.unique(self.prompt).size


def codes(names: Sequence[str]) -> Whole:
    """Every name as a number from 0 up."""
    index = {name: at for at, name in enumerate(sorted(set(names)))}
    return np.array([index[name] for name in names], np.int64)


def sums(cluster: Whole, values: Floats | NDArray[np.bool_]) -> Floats:
    """What `values` add up to in each cluster that has any."""
    return np.bincount(np.unique(cluster, return_inverse=True)[1], weights=values).astype(np.float64)
