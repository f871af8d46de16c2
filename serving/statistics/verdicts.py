"""Which of two sides is better, and how far to believe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Literal

import numpy as np

from annotation.types import Frozen
from serving.statistics.ballots import Ballot, Estimate, Floats, Votes, sums
from serving.statistics.clustered import clustered, contextual
from serving.statistics.sequential import (
    FARTHEST,
    always_valid_interval,
    least_voters,
    log_e,
    log_e_voters,
    votes_left,
)

Advice = Literal["keep_going", "can_stop"]
LARGEST = 700.0
"""Logarithm of the largest e-value shown: beyond it a float overflows."""
FEW_PROMPTS = 5


class SliceFigure(Frozen):
    """The plain count in one slice. It has no interval: looking at many slices finds differences by chance."""

    wins: int
    losses: int
    ties: int
    win_rate: float | None
    """Ties count half; None without votes."""
    votes: int
    """Without 'both bad'."""


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
    """Of the win rate among voters at large; holds at all times together, however often somebody looks."""
    e_value: float
    """Evidence against 'no difference': 1 says nothing, 1/alpha is enough. The smaller of that of the votes and that of
    the voters, each with a taste of their own. 1/e_value is a p-value that stays good however often somebody looks."""
    votes_e_value: float
    """What it would be if all votes were independent of each other."""
    decided: str | None
    """Name of the side that won; None while undecided."""
    advice: Advice
    votes_left: int | None
    """About how many more, if more people like these vote as these did; None if unknowable or above 10,000."""
    clustered: Estimate | None
    """Win rate with an error clustered by voter and by prompt, for one look at the data."""
    position: Estimate | None
    """Chance that the left side wins between equals; far from one half, the place matters."""
    length_controlled: Estimate | None
    """Win rate if both replies were equally long."""
    slices: dict[str, SliceFigure]
    drop_k: int | None
    """Fewest votes without which the other side would lead; None if nobody leads or no vote is for the other side."""
    words: list[str]
    """What to know before believing the figures, in plain words."""


@dataclass(frozen=True)
class _Standing:
    """What peeking may rest on."""

    interval: tuple[float, float] | None
    e_value: float
    votes_e_value: float
    decided: str | None
    left: int | None


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
        votes_e_value=standing.votes_e_value,
        decided=standing.decided,
        advice="can_stop" if standing.decided else "keep_going",
        votes_left=standing.left,
        clustered=clustered(votes, alpha),
        position=position,
        length_controlled=equal_length,
        slices=_slices(votes),
        drop_k=_drop_k(wins, losses),
        words=_words(votes, standing, position, alpha) + (missing if votes.score.size else []),
    )


def _standing(votes: Votes, one: str, other: str, alpha: float) -> _Standing:
    won, lost, total = _by_voter(votes)
    wins, losses, ties = votes.counts
    if not votes.score.size:
        return _Standing(None, 1.0, 1.0, None, None)
    by_votes = float(log_e(wins, losses))
    both = min(by_votes, log_e_voters(won, lost))
    some = won + lost > 0  # a voter of nothing but ties says nothing on who wins
    winner = _winner(won[some], lost[some], alpha) if both >= log(1 / alpha) else 0
    return _Standing(
        interval=always_valid_interval(sums(votes.voter, votes.score), total, alpha),
        e_value=_bounded(both),
        votes_e_value=_bounded(by_votes),
        decided={1: one, -1: other, 0: None}[winner],
        left=0 if winner else votes_left(won[some], lost[some], ties, alpha) or None,
    )


def _by_voter(votes: Votes) -> tuple[Floats, Floats, Floats]:
    """Wins, losses and votes of each voter."""
    won, lost = sums(votes.voter, votes.score == 1), sums(votes.voter, votes.score == 0)
    return won, lost, sums(votes.voter, np.ones_like(votes.score))


def _winner(won: Floats, lost: Floats, alpha: float) -> int:
    """1 or −1 if enough people took sides, and people and votes point the same way; 0 if not."""
    if won.size < least_voters(alpha):
        return 0
    by_vote, by_voter = np.sign((won - lost).sum()), np.sign(((won - lost) / (won + lost)).sum())
    return int(by_vote) if by_vote == by_voter else 0


def _bounded(log_value: float) -> float:
    return exp(min(log_value, LARGEST))


def _drop_k(wins: int, losses: int) -> int | None:
    """Dropping the leader's votes one by one is the quickest way to turn a count (Broderick et al. 2020)."""
    return abs(wins - losses) + 1 if wins != losses and min(wins, losses) else None


def _slices(votes: Votes) -> dict[str, SliceFigure]:
    result = {}
    for name in sorted(set(votes.slices)):
        score = votes.score[[at == name for at in votes.slices]]
        wins, losses = int((score == 1).sum()), int((score == 0).sum())
        result[name] = SliceFigure(
            wins=wins,
            losses=losses,
            ties=score.size - wins - losses,
            win_rate=float(score.mean()),
            votes=score.size,
        )
    return result


def _words(votes: Votes, standing: _Standing, position: Estimate | None, alpha: float) -> list[str]:
    """Cautions, the gravest first."""
    wins, losses, ties = votes.counts
    if not votes.score.size:
        bad = f" {votes.both_bad} said that both are bad." if votes.both_bad else ""
        return [f"No vote yet says which side is better.{bad}"]
    said = _words_on_people(votes, standing, alpha)
    if votes.prompts < FEW_PROMPTS:
        said.append(f"All votes are on {_count(votes.prompts, 'prompt')}: other prompts may turn out differently.")
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


def _words_on_people(votes: Votes, standing: _Standing, alpha: float) -> list[str]:
    least = least_voters(alpha)
    if votes.voters == 1:
        return [f"Only one person voted: this is one taste. A decision needs at least {least} people."]
    if votes.voters < least:
        return [f"Only {votes.voters} people voted: a decision needs at least {least}."]
    if standing.decided:
        return []
    if standing.votes_e_value >= 1 / alpha:
        return ["Counted vote by vote this would be decided, but it rests on too few people: ask others too."]
    if standing.left is None:
        return [f"At this rate more than {FARTHEST:,} more votes would be needed: the sides are about equal."]
    return []


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
