"""How strong each of many sides is, from votes on pairs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from annotation.types import Frozen
from serving.statistics.ballots import Ballot, Floats, Whole, codes

DRAWS = 300
SEED = 11
ROUNDS, LONGEST_STEP, EXACT = 100, 1.0, 1e-9
"""Of the fit: most rounds, the longest step of one (logits), and the step that ends it."""
FARTHEST = 15.0
"""From the average, in logits: a strength that goes on beyond it has no end."""
MANY_UNDEFINED = 0.05
LED = np.array([1.0, -1.0, 0.0])
"""Of the first side, by who won: the first, the second, nobody."""


class Strength(Frozen):
    """One side's place on the leaderboard."""

    name: str
    strength: float | None
    """In logits, 0 is the average of the sides it can be compared with; a lead of 1 wins 73% of the decisive votes.
    None where no number fits, and `words` says why."""
    low: float | None = None
    """Lower end of the interval; None where there is none."""
    high: float | None = None
    votes: int
    """Votes on it, ties included, 'both bad' not."""
    group: int
    """Sides of different groups can't be compared: no chain of votes joins them. The largest group is 0."""
    words: str = ""


@dataclass(frozen=True, eq=False)
class _Games:
    """Votes counted by pair of sides and outcome: what a draw weighs anew."""

    names: list[str]
    cell: Whole
    """(votes,): row of `cells`."""
    cells: Whole
    """(cells, 3): first side, second side, place in `LED`."""
    voter: Whole
    prompt: Whole


def strengths(ballots: Sequence[Ballot], alpha: float = 0.05) -> list[Strength]:
    """All sides, strongest first within their group, the largest group first.

    Bradley–Terry with ties as Newman 2023 has them: a tie says that two sides are close, not that each won half, which
    would shrink true gaps. The interval draws voters and prompts anew, both at once (pigeonhole bootstrap: Owen 2007);
    it is for one look at the data. Votes of a side against itself, and 'both bad', are left out.
    """
    rows = [ballot for ballot in ballots if ballot.outcome != "both_bad" and ballot.left != ballot.right]
    if not rows:
        return []
    games = _games(rows)
    whole = np.bincount(games.cell).astype(np.float64)
    values = _fit(games, whole)
    ends = _ends(games, values, alpha)
    groups = _by_size(_groups(games, whole, directed=False))
    votes = np.zeros(len(games.names), np.int64)
    for column in (0, 1):
        np.add.at(votes, games.cells[:, column], whole.astype(np.int64))
    table = [
        Strength(
            name=name,
            strength=_number(values[at]),
            low=_number(ends[0][at]),
            high=_number(ends[1][at]),
            votes=int(votes[at]),
            group=int(groups[at]),
            words=_words(values[at], ends[0][at], int(groups.max()) + 1),
        )
        for at, name in enumerate(games.names)
    ]
    return sorted(table, key=lambda row: (row.group, row.strength is None, -(row.strength or 0.0), row.name))


def _games(rows: Sequence[Ballot]) -> _Games:
    names = sorted({name for ballot in rows for name in (ballot.left, ballot.right)})
    index = {name: at for at, name in enumerate(names)}
    triples = np.array([_triple(ballot, index) for ballot in rows], np.int64)
    cells, cell = np.unique(triples, axis=0, return_inverse=True)
    by_voter, by_prompt = (codes([getattr(ballot, field) for ballot in rows]) for field in ("voter", "prompt"))
    return _Games(names, cell.reshape(-1), cells, by_voter, by_prompt)


def _triple(ballot: Ballot, index: dict[str, int]) -> tuple[int, int, int]:
    """The pair in the order of the names, and who won: 0 the first, 1 the second, 2 a tie."""
    left, right = index[ballot.left], index[ballot.right]
    first, second = min(left, right), max(left, right)
    if ballot.outcome == "tie":
        return first, second, 2
    return first, second, int((left if ballot.outcome == "left" else right) == second)


def _groups(games: _Games, weights: Floats, directed: bool) -> Whole:
    """A number for each side; equal where sides are joined by votes, or, if directed, by wins both ways round."""
    size = len(games.names)
    first, second, winner = games.cells[weights > 0].T
    ties = winner == 2
    won = np.concatenate([np.where(winner == 1, second, first), second[ties]])
    lost = np.concatenate([np.where(winner == 1, first, second), first[ties]])
    graph = csr_array((np.ones(won.size), (won, lost)), shape=(size, size))
    labels = connected_components(graph, directed=directed, connection="strong")[1]
    return np.asarray(labels, np.int64)


def _by_size(groups: Whole) -> Whole:
    """The same groups, numbered from the largest."""
    order = np.argsort(-np.bincount(groups), kind="stable")
    return np.argsort(order)[groups]


def _fit(games: _Games, weights: Floats) -> Floats:
    """(sides,) strengths, centred in each group; nan where a group does not hang together by wins both ways."""
    result = np.full(len(games.names), np.nan)
    joined = _groups(games, weights, directed=False)
    firm = _groups(games, weights, directed=True)
    for group in np.unique(joined):
        members = np.flatnonzero(joined == group)
        if members.size > 1 and np.ptp(firm[members]) == 0:
            inside = np.isin(games.cells[:, 0], members) & (weights > 0)
            result[members] = _newman(games.cells[inside], weights[inside], members)
    return result


def _newman(cells: Whole, weights: Floats, members: Whole) -> Floats:
    """(members,) strengths at the highest likelihood, centred; nan where it has no highest point.

    The first beats the second in proportion to exp(θ/2), loses to exp(−θ/2), with θ the difference of their strengths,
    and they tie in proportion to a number that is the same for all: Newman's model (and Davidson's, 1970). The
    likelihood is concave, so Newton's method finds its top. Newman's own iteration (as in evalica) does not where ties
    are few or none: it swings from side to side, and after 10,000 rounds the strengths may still be wrong.
    """
    first, second = (np.searchsorted(members, cells[:, column]) for column in (0, 1))
    led, tied = LED[cells[:, 2]], cells[:, 2] == 2
    size = members.size
    at = np.zeros(size + 1)  # the strengths, and the logarithm of what ties are in proportion to
    if tied.all():
        return at[:size]
    for _ in range(ROUNDS):
        pull, bend = _slope(at, first, second, led, tied, weights)
        step = np.linalg.solve(bend, pull)
        longest = float(np.abs(step).max())
        at += step / max(1.0, longest / LONGEST_STEP)
        if np.abs(at[:size]).max() > FARTHEST:
            break
        if longest < EXACT:
            return np.asarray(at[:size] - at[:size].mean(), np.float64)
    return np.full(size, np.nan)


def _slope(
    at: Floats, first: Whole, second: Whole, led: Floats, tied: NDArray[np.bool_], weights: Floats
) -> tuple[Floats, Floats]:
    """Gradient of the log-likelihood at `at`; its curvature, sign turned, made firm where all move together."""
    size = at.size - 1
    half = (at[first] - at[second]) / 2
    free = bool(tied.any())  # without a tie, ties have no part in the model
    terms = np.stack([half, -half, np.full_like(half, at[size] if free else -np.inf)])
    chance = np.exp(terms - terms.max(axis=0))
    chance /= chance.sum(axis=0)
    lead, tie = chance[0] - chance[1], chance[2]

    def gathered(values: Floats) -> Floats:
        return np.asarray(np.bincount(first, values, size) - np.bincount(second, values, size))

    pull = np.append(gathered(weights * (led - lead) / 2), (weights * (tied - tie)).sum() if free else 0.0)
    bend = np.zeros((size + 1, size + 1))
    between = np.bincount(first * size + second, weights * (1 - tie - lead**2) / 4, size * size).reshape(size, size)
    between = between + between.T
    bend[:size, :size] = np.diag(between.sum(axis=1)) - between + 1 / size
    bend[:size, size] = bend[size, :size] = gathered(-weights * lead * tie / 2)
    bend[size, size] = (weights * tie * (1 - tie)).sum() if free else 1.0
    return pull, bend


def _ends(games: _Games, values: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Both ends of the interval; nan where too few draws have a figure or only one voter and prompt was there."""
    none = np.full(values.size, np.nan)
    voters, prompts = int(games.voter.max()) + 1, int(games.prompt.max()) + 1
    if max(voters, prompts) < 2 or np.isnan(values).all():
        return none, none
    rng = np.random.default_rng(SEED)
    drawn = np.array([_fit(games, _drawn(games, rng, voters, prompts)) for _ in range(DRAWS)])
    enough = np.isnan(drawn).mean(axis=0) <= MANY_UNDEFINED
    low, high = none.copy(), none.copy()
    kept = np.flatnonzero(enough & ~np.isnan(values))
    if kept.size:
        low[kept], high[kept] = np.nanquantile(drawn[:, kept], [alpha / 2, 1 - alpha / 2], axis=0)
    return low, high


def _drawn(games: _Games, rng: np.random.Generator, voters: int, prompts: int) -> Floats:
    """Weights of the cells with voters and prompts drawn anew; a way with one cluster stays as it is."""
    by_voter = rng.multinomial(voters, np.full(voters, 1 / voters)) if voters > 1 else np.ones(1)
    by_prompt = rng.multinomial(prompts, np.full(prompts, 1 / prompts)) if prompts > 1 else np.ones(1)
    weight = (by_voter[games.voter] * by_prompt[games.prompt]).astype(np.float64)
    return np.bincount(games.cell, weights=weight, minlength=len(games.cells)).astype(np.float64)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _words(value: float, low: float, groups: int) -> str:
    said = []
    if groups > 1:
        said.append(f"The sides fall into {groups} groups that no vote joins: compare only within a group.")
    if np.isnan(value):
        said.append("No strength: some sides never lost to the others, or never won, so no number fits.")
    elif np.isnan(low):
        said.append("No interval: too few voters and prompts.")
    return " ".join(said)
