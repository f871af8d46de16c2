"""Decisions beside the main one: several criteria at once, 'not worse', and paired labels."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp, xlogy
from statsmodels.stats.contingency_tables import mcnemar as paired_table

from annotation.types import Frozen, Outcome
from serving.statistics.ballots import Ballot, Floats, Votes
from serving.statistics.clustered import clustered, standard_error
from serving.statistics.sequential import least_clusters

SHARES: tuple[Floats, ...] = (np.array([0.5, 0.5, 0.5]), np.array([0.5, 0.5, 5.0]))
"""Dirichlet priors over the shares of better, worse and the same: any, and mostly the same as is usual on policy."""
TIGHTEST = 200
"""Independent votes after which the boundary of the confidence sequence is closest."""


class NotWorse(Frozen):
    """Whether one side is not worse than another by more than a margin. Good however often somebody looks."""

    holds: bool
    difference: float | None
    """Share of votes for the one minus share for the other; None without votes."""
    low: float | None
    """Lower limit of the difference, confidence 1−alpha at all times together; None without votes."""
    words: str


class Paired(Frozen):
    """Whether labels differ between two sides that answered the same items."""

    first_only: int
    """Items where the first side alone passed."""
    second_only: int
    p: float | None
    """Exact and two-sided; None where the sides never differ."""
    words: str = ""


def holm(p_values: dict[str, float], alpha: float = 0.05) -> dict[str, bool]:
    """Which hypotheses fall, with at most alpha chance of any false one among them. Source: Holm 1979.

    Raises ValueError if a p-value is not between 0 and 1.
    """
    if not all(0 <= p <= 1 for p in p_values.values()):
        raise ValueError("Every p-value must lie between 0 and 1.")
    falls = dict.fromkeys(p_values, False)
    for left, name in zip(range(len(p_values), 0, -1), sorted(p_values, key=p_values.__getitem__), strict=True):
        if p_values[name] > alpha / left:
            break
        falls[name] = True
    return falls


def e_bh(e_values: dict[str, float], alpha: float = 0.05) -> dict[str, bool]:
    """Which hypotheses fall, with at most a share alpha of false ones among them on average.

    Takes e-values (not their logarithms), however they depend on each other. Source: Wang & Ramdas 2022, e-BH.
    Raises ValueError if an e-value is negative or no number.
    """
    if not all(value >= 0 for value in e_values.values()):  # also refuses nan
        raise ValueError("Every e-value must be a number from 0 up.")
    ranked = sorted(e_values.values(), reverse=True)
    bars = [len(ranked) / (alpha * rank) for rank in range(1, len(ranked) + 1)]
    passed = [bar for value, bar in zip(ranked, bars, strict=True) if value >= bar]
    return {name: bool(passed) and value >= passed[-1] for name, value in e_values.items()}


def not_worse(ballots: Sequence[Ballot], one: str, other: str, margin: float, alpha: float = 0.05) -> NotWorse:
    """Is `one` not worse than `other` by more than `margin` (in shares of votes), as people voted?

    May be read after every vote: the lower limit holds at all times together. It is the lower of two. The first takes
    votes as independent (`least_difference`). The second allows for votes of one person, and votes on one prompt, going
    together: the error of `clustered`, as wide as a confidence sequence needs (asymptotic, one-sided: Waudby-Smith,
    Arbour, Sinha, Kennedy & Ramdas 2024). Fewer people or prompts than `least_clusters` show nothing. 'Both bad' is no
    difference. Raises ValueError if the margin is not between 0 and 1.
    """
    if not 0 < margin < 1:
        raise ValueError("The margin must be between 0 and 1.")
    even: dict[Outcome, Outcome] = {"both_bad": "tie"}
    rows = [ballot.model_copy(update={"outcome": even.get(ballot.outcome, ballot.outcome)}) for ballot in ballots]
    votes, least = Votes.of(rows, one, other), least_clusters(alpha)
    if votes.rate is None:
        return NotWorse(holds=False, difference=None, low=None, words="Nobody has voted on it yet.")
    plain = least_difference(*votes.counts, alpha)
    together = clustered(votes, _level(votes, alpha))
    low = plain if together is None or together.low is None else min(plain, 2 * together.low - 1)
    few = min(votes.voters, votes.prompts) < least
    holds = low > -margin and not few
    said = f"{votes.score.size} votes"
    if holds:
        words = f"{said} show that it is not worse by more than {100 * margin:g} points."
    elif few:
        words = f"To show it takes at least {least} people and {least} questions."
    elif plain > -margin:
        words = f"Counted vote by vote, {said} would show it, but they rest on too few people or questions."
    else:
        words = f"After {said} it may still be worse by more than {100 * margin:g} points."
    return NotWorse(holds=holds, difference=2 * votes.rate - 1, low=low, words=words)


def least_difference(better: int, worse: int, ties: int, alpha: float = 0.05) -> float:
    """The lowest share of `better` minus share of `worse` that independent votes leave possible, at all times together.

    It is where the e-value of the votes against 'the difference is this, or less' reaches 1/alpha: their likelihood
    mixed over shares, by the highest that such a difference allows (universal inference: Wasserman, Ramdas &
    Balakrishnan 2020). Without votes −1.
    """
    counts = np.array([better, worse, ties], np.float64)
    mixed = logsumexp([_mixture(counts, prior) for prior in SHARES]) - log(len(SHARES))
    bar = float(mixed) - log(1 / alpha)

    def excess(difference: float) -> float:
        return _highest(better, worse, ties, difference) - bar

    seen = (better - worse) / max(counts.sum(), 1)  # where the likelihood is highest, so nothing is excluded
    edge = -1 + 1e-9
    return -1.0 if excess(edge) >= 0 else float(brentq(excess, edge, seen))


def mcnemar(both: int, first_only: int, second_only: int, neither: int) -> Paired:
    """Exact test of whether two sides pass equally often on the same items, of which `both` … `neither` passed.

    Only items on which they differ count. Source: McNemar 1947, exact binomial form.
    Raises ValueError if a count is negative.
    """
    if min(both, first_only, second_only, neither) < 0:
        raise ValueError("Counts must be from 0 up.")
    if not first_only + second_only:
        words = "No test: the sides never differ."
        return Paired(first_only=0, second_only=0, p=None, words=words)
    result = paired_table([[both, first_only], [second_only, neither]], exact=True)
    return Paired(first_only=first_only, second_only=second_only, p=min(1.0, float(result.pvalue)))


def _mixture(counts: Floats, prior: Floats) -> float:
    """Log likelihood of the votes in their order, mixed over shares from a Dirichlet distribution."""
    after = prior + counts
    return float(gammaln(after).sum() - gammaln(after.sum()) - gammaln(prior).sum() + gammaln(prior.sum()))


def _highest(better: int, worse: int, ties: int, difference: float) -> float:
    """The highest log likelihood of the votes where better minus worse is `difference`, at the shares of Tango 1998."""
    if difference > 0:  # the same with the sides swapped
        return _highest(worse, better, ties, -difference)
    items, gap = max(better + worse + ties, 1), -difference
    linear = better * (1 - 3 * gap) + worse * (1 - gap) - 2 * ties * gap
    inside = max(0.0, linear**2 + 8 * items * better * gap * (1 - gap))
    share = min(max(0.0, (linear + sqrt(inside)) / (4 * items)), (1 - gap) / 2)
    return float(xlogy(better, share) + xlogy(worse, share + gap) + xlogy(ties, max(0.0, 1 - 2 * share - gap)))


def _level(votes: Votes, alpha: float) -> float:
    """The two-sided level at which an interval for one look has a lower end that holds at all times together.

    Votes that go together are worth fewer of their own; that number drives the boundary.
    """
    error, spread = standard_error(votes), float(votes.score.var())
    if not error or not spread:
        return alpha
    worth = 1 + spread / error**2 / TIGHTEST * (log(1 / (2 * alpha)) * 2 + 1)
    steps = sqrt(2 * worth / (worth - 1) * log(1 + sqrt(worth) / (2 * alpha)))
    return 2 * float(stats.norm.sf(steps))
