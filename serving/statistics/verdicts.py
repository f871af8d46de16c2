"""Which of two sides is better, and how far to believe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Literal

import numpy as np

from annotation.types import Frozen
from serving.statistics.ballots import Ballot, Estimate, Votes, Whole, sums
from serving.statistics.clustered import clustered, contextual
from serving.statistics.sequential import (
    FARTHEST,
    Counts,
    always_valid_interval,
    least_clusters,
    log_e,
    log_e_clusters,
    votes_left,
)

Advice = Literal["keep_going", "can_stop"]
LARGEST = 700.0
"""Logarithm of the largest e-value shown: beyond it a float overflows."""


class SliceFigure(Frozen):
    """The votes of one slice. Interval and verdict are at alpha divided by the number of slices (Bonferroni), so that
    looking at many of them, at any time, finds no difference by chance more often than looking at one.
    """

    respect: str
    """What is sliced by, for example `language`."""
    value: str
    wins: int
    losses: int
    ties: int
    win_rate: float
    """Ties count half."""
    voters: int
    prompts: int
    interval: tuple[float, float]
    """All of them hold together."""
    stands: str | None
    """Name of the side that won here; None for none."""
    few: bool
    """Whether there are too few people or questions for any verdict."""

    @property
    def votes(self) -> int:
        """Without 'both bad'."""
        return self.wins + self.losses + self.ties


class Verdict(Frozen):
    """What the votes on two sides say, seen from the first."""

    wins: int
    losses: int
    ties: int
    both_bad: int
    """Votes that both replies are bad. They enter no rate."""
    voters: int
    prompts: int
    win_rate: float | None
    """(wins + ties/2) / (wins + losses + ties); None without votes."""
    interval: tuple[float, float] | None
    """Of the win rate among voters and questions at large: it spans that by voter and that by question, and holds at
    all times together, however often somebody looks."""
    e_value: float
    """Evidence against 'no difference': 1 says nothing, 1/alpha is enough. The smallest of that of the votes, that of
    the voters, each with a taste of their own, and that of the questions, each with a leaning of its own. 1/e_value is
    a p-value that stays good however often somebody looks."""
    votes_e_value: float
    """What it would be if all votes were independent of each other."""
    decided: str | None
    """Name of the side that won; None while undecided."""
    advice: Advice
    votes_left: int | None
    """About how many more, if more people like these vote on more such questions; None if unknowable or above 10,000.
    """
    clustered: Estimate | None
    """Win rate with an error clustered by voter and by prompt, for one look at the data."""
    position: Estimate | None
    """Chance that the left side wins between equals; far from one half, the place matters."""
    length_controlled: Estimate | None
    """Win rate if both replies were equally long."""
    slices: tuple[SliceFigure, ...]
    """In each respect in which the votes differ."""
    drop_k: int | None
    """Fewest votes without which the other side would lead; None if nobody leads or no vote is for the other side."""
    words: list[str]
    """What to know before believing the figures, in plain words."""


@dataclass(frozen=True)
class _Standing:
    """What peeking may rest on."""

    interval: tuple[float, float] | None = None
    by_votes: float = 1.0
    """E-value as if all votes were independent."""
    by_voter: float = 1.0
    by_prompt: float = 1.0
    decided: str | None = None
    left: int | None = None

    @property
    def e_value(self) -> float:
        return min(self.by_votes, self.by_voter, self.by_prompt)


def verdict(ballots: Sequence[Ballot], one: str, other: str, *, alpha: float = 0.05) -> Verdict:
    """Compare two sides by all ballots on them, in any order; ballots on other pairs are left out.

    Call it after every vote if you like: where the sides are equal, the chance that it ever names a winner is at most
    `alpha`. See `serving.statistics.sequential` for why, and for the sources.
    Raises ValueError if the sides are the same or alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError("alpha must be between 0 and 1.")
    votes = Votes.of(ballots, one, other)
    wins, losses, ties = votes.counts
    standing = _standing(votes, one, other, alpha)
    position, equal_length, missing = contextual(votes, alpha)
    return Verdict(
        wins=wins,
        losses=losses,
        ties=ties,
        both_bad=votes.both_bad,
        voters=votes.voters,
        prompts=votes.prompts,
        win_rate=votes.rate,
        interval=standing.interval,
        e_value=standing.e_value,
        votes_e_value=standing.by_votes,
        decided=standing.decided,
        advice="can_stop" if standing.decided else "keep_going",
        votes_left=standing.left,
        clustered=clustered(votes, alpha),
        position=position,
        length_controlled=equal_length,
        slices=_slices(votes, one, other, alpha),
        drop_k=_drop_k(wins, losses),
        words=_words(votes, standing, position, alpha) + (missing if votes.score.size else []),
    )


def _standing(votes: Votes, one: str, other: str, alpha: float) -> _Standing:
    if not votes.score.size:
        return _Standing()
    wins, losses, ties = votes.counts
    voters, prompts = _counts(votes, votes.voter), _counts(votes, votes.prompt)
    by_votes = float(log_e(wins, losses))
    by_voter, by_prompt = log_e_clusters(*voters), log_e_clusters(*prompts)
    enough = min(by_votes, by_voter, by_prompt) >= log(1 / alpha)
    winner = _winner(voters, prompts, alpha) if enough else 0
    return _Standing(
        interval=_interval(votes, alpha),
        by_votes=_bounded(by_votes),
        by_voter=_bounded(by_voter),
        by_prompt=_bounded(by_prompt),
        decided={1: one, -1: other, 0: None}[winner],
        left=0 if winner else votes_left(voters, prompts, ties, alpha) or None,
    )


def _counts(votes: Votes, cluster: Whole) -> Counts:
    """Wins and losses of each cluster; one of nothing but ties says nothing on who wins."""
    won, lost = sums(cluster, votes.score == 1), sums(cluster, votes.score == 0)
    some = won + lost > 0
    return won[some], lost[some]


def _interval(votes: Votes, alpha: float) -> tuple[float, float]:
    """From the lower end of those by voter and by question to the higher one: what any of them allows may be so."""
    each = np.ones_like(votes.score)
    found = [
        always_valid_interval(sums(cluster, votes.score), sums(cluster, each), alpha)
        for cluster in (votes.voter, votes.prompt)
    ]
    return min(low for low, _ in found), max(high for _, high in found)


def _winner(voters: Counts, prompts: Counts, alpha: float) -> int:
    """1 or −1 if enough people took sides on enough questions, and votes, people and questions point the same way; 0
    if not.
    """
    if min(voters[0].size, prompts[0].size) < least_clusters(alpha):
        return 0
    leads = [np.sign((voters[0] - voters[1]).sum())]
    leads += [np.sign(((won - lost) / (won + lost)).sum()) for won, lost in (voters, prompts)]
    return int(leads[0]) if len(set(leads)) == 1 else 0


def _bounded(log_value: float) -> float:
    return exp(min(log_value, LARGEST))


def _drop_k(wins: int, losses: int) -> int | None:
    """Dropping the leader's votes one by one is the quickest way to turn a count (Broderick et al. 2020)."""
    return abs(wins - losses) + 1 if wins != losses and min(wins, losses) else None


def _slices(votes: Votes, one: str, other: str, alpha: float) -> tuple[SliceFigure, ...]:
    respects = sorted({respect for each in votes.slices for respect in each})
    values = {respect: sorted({each.get(respect, "") for each in votes.slices}) for respect in respects}
    of = {
        (respect, value): votes.only(np.array([each.get(respect, "") == value for each in votes.slices]))
        for respect, some in values.items()
        if len(some) > 1
        for value in some
    }
    return tuple(_slice(*at, some, one, other, alpha / len(of)) for at, some in of.items())


def _slice(respect: str, value: str, votes: Votes, one: str, other: str, alpha: float) -> SliceFigure:
    wins, losses, ties = votes.counts
    standing = _standing(votes, one, other, alpha)
    return SliceFigure(
        respect=respect,
        value=value,
        wins=wins,
        losses=losses,
        ties=ties,
        win_rate=float(votes.score.mean()),
        voters=votes.voters,
        prompts=votes.prompts,
        interval=standing.interval or (0.0, 1.0),
        stands=standing.decided,
        few=min(votes.voters, votes.prompts) < least_clusters(alpha),
    )


def _words(votes: Votes, standing: _Standing, position: Estimate | None, alpha: float) -> list[str]:
    """Cautions, the gravest first."""
    wins, losses, ties = votes.counts
    if not votes.score.size:
        bad = f" {votes.both_bad} said that both are bad." if votes.both_bad else ""
        return [f"No vote yet says which side is better.{bad}"]
    said = _words_on_clusters(votes, standing, alpha)
    if not wins + losses:
        said.append("Every vote is a tie: there is nothing to decide on.")
    elif ties:
        said.append("Ties count half in the win rate, and not at all in the evidence.")
    if votes.both_bad:
        said.append(f"{_count(votes.both_bad, 'vote')} for 'both bad' stand apart and count for no side.")
    if position is not None and position.p is not None and position.p < alpha:
        place = "left" if position.value > 0.5 else "right"
        said.append(f"The side shown {place} wins more often than it should: people may vote by place.")
    return said


def _words_on_clusters(votes: Votes, standing: _Standing, alpha: float) -> list[str]:
    """What people and questions, rather than votes, allow to say."""
    least = least_clusters(alpha)
    said = []
    if votes.voters == 1:
        said.append(f"Only one person voted: this is one taste. A decision needs at least {least} people.")
    elif votes.voters < least:
        said.append(f"Only {votes.voters} people voted: a decision needs at least {least}.")
    if votes.prompts < least:
        asked = _count(votes.prompts, "question")
        said.append(f"All votes are on {asked}: others may turn out differently. A decision needs at least {least}.")
    if said or standing.decided:
        return said
    if standing.by_votes >= 1 / alpha:
        too_few = "people: ask others too" if standing.by_voter <= standing.by_prompt else "questions: ask more"
        return [f"Counted vote by vote this would be decided, but it rests on too few {too_few}."]
    if standing.left is None:
        return [f"At this rate more than {FARTHEST:,} more votes would be needed: the sides are about equal."]
    return []


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
