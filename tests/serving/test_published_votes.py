"""A leaderboard that others have published, made again from their votes: `llmfao/README.md` says whose they are."""

from __future__ import annotations

import csv
import hashlib
import lzma
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import kendalltau

from serving.statistics import Ballot, Strength, leaderboard, strengths
from serving.statistics.ballots import Floats

FOLDER = Path(__file__).parent / "llmfao"
PUBLISHED = [
    (row["model"], float(row["score"]), int(row["pairs"]))
    for row in csv.DictReader((FOLDER / "leaderboard.csv").read_text(encoding="utf-8").splitlines())
]
NAMES = [name for name, _, _ in PUBLISHED]


@pytest.fixture(scope="module")
def votes() -> list[Ballot]:
    text = lzma.decompress((FOLDER / "crowd-comparisons.csv.xz").read_bytes()).decode()
    assert hashlib.sha256(text.encode()).hexdigest().startswith("106564a4")
    return [
        Ballot(voter=row["worker"], prompt=row["prompt"], left=row["left"], right=row["right"], outcome=row["winner"])
        for row in csv.DictReader(text.splitlines())
    ]


@pytest.fixture(scope="module")
def ours(votes: list[Ballot]) -> list[Strength]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaderboard, "DRAWS", 2)  # no interval was published, and 300 take five seconds
        return strengths(votes)


def test_the_published_order_comes_out_again(votes: list[Ballot], ours: list[Strength]) -> None:
    """All 59 places, though the published fit counts a tie half and ours takes Newman's."""
    assert (len(votes), len({one.voter for one in votes}), len({one.prompt for one in votes})) == (8931, 124, 13)
    assert [row.name for row in ours] == NAMES
    assert [row.votes for row in ours] == [pairs for _, _, pairs in PUBLISHED]
    found, score = [row.strength for row in ours], np.log([score for _, score, _ in PUBLISHED])
    assert kendalltau(found, score).statistic == pytest.approx(1)
    # Ties as half wins shrink every gap by nearly the same factor; here, with 4 votes in 10 tied, by 1.75.
    slope, _ = np.polyfit(score, found, 1)
    assert slope == pytest.approx(1.75, abs=0.01)
    assert np.corrcoef(score, found)[0, 1] > 0.9999


def test_the_strengths_are_those_of_the_likelihood(votes: list[Ballot], ours: list[Strength]) -> None:
    """Newman's model maximised by a method of its own (L-BFGS on wins, losses and ties), without evalica."""
    fitted = by_likelihood(*counted(votes))
    assert [row.strength for row in ours] == pytest.approx(fitted, abs=1e-4)


def test_ties_as_half_wins_give_the_published_scores(votes: list[Ballot]) -> None:
    """The published figures themselves, so that no other reading of the file could give the same order by chance."""
    wins, ties = counted(votes)
    logs = by_likelihood(wins + ties / 2, np.zeros_like(ties))
    score = np.log([score for _, score, _ in PUBLISHED])
    assert logs == pytest.approx(score - score.mean(), abs=1e-3)


def test_votes_turned_round_turn_the_order_round(votes: list[Ballot], ours: list[Strength]) -> None:
    """Were wins read as losses, the order would be the published one from its end."""
    flip = {"left": "right", "right": "left"}
    turned = [one.model_copy(update={"outcome": flip.get(one.outcome, one.outcome)}) for one in votes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaderboard, "DRAWS", 2)
        assert [row.name for row in strengths(turned)] == NAMES[::-1]


def counted(votes: list[Ballot]) -> tuple[Floats, Floats]:
    """(sides, sides) wins of the row over the column, and ties, each in both directions."""
    at = {name: place for place, name in enumerate(NAMES)}
    wins, ties = np.zeros((len(at), len(at))), np.zeros((len(at), len(at)))
    for one in votes:
        left, right = at[one.left], at[one.right]
        if one.outcome == "tie":
            ties[left, right] += 1
            ties[right, left] += 1
        else:
            wins[(left, right) if one.outcome == "left" else (right, left)] += 1
    return wins, ties


def by_likelihood(wins: Floats, ties: Floats) -> Floats:
    """Strengths, centred, at the highest likelihood: i beats j in proportion to πi, and ties to 2ν√(πi πj)."""
    first, second = np.triu_indices(len(wins), 1)
    seen = (wins + wins.T + ties)[first, second] > 0
    first, second = first[seen], second[seen]
    won, lost, tied = wins[first, second], wins[second, first], ties[first, second]

    def loss(at: Floats) -> tuple[float, Floats]:
        half = (at[first] - at[second]) / 2
        terms = np.stack([half, -half, np.full_like(half, at[-1] if tied.any() else -np.inf)])
        top = terms.max(axis=0)
        total = top + np.log(np.exp(terms - top).sum(axis=0))
        share = np.exp(terms - total)
        games = won + lost + tied
        slope = np.zeros_like(at)
        by_half = (won - lost - games * (share[0] - share[1])) / 2
        np.add.at(slope, first, by_half)
        np.add.at(slope, second, -by_half)
        slope[-1] = (tied - games * share[2]).sum()
        value = (won * terms[0] + lost * terms[1] - games * total).sum() + (tied.sum() * at[-1] if tied.any() else 0)
        return -float(value), -slope

    found = minimize(
        loss,
        np.zeros(len(wins) + 1),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000},
    )
    logs = np.asarray(found.x[:-1], np.float64)
    return logs - logs.mean()
