"""Evidence that may be looked at after every vote.

An e-value starts at 1 and, where there is no difference, seldom grows: the chance that it *ever* reaches 1/α is at
most α, however often somebody looks (Ville 1939). So it may be read after every vote, and stopping on it is honest.

`log_e` takes votes as independent. They are not: a person who likes one side goes on liking it, and a question on
which one side did well is so for everybody who judges it (Clark 1973 on why questions count as people do).
`log_e_clusters` therefore gives every cluster, be it a voter or a question, a leaning of its own, drawn from a beta
distribution around the common rate, and divides by the best that any spread of leanings can do without a difference.
That ratio is an e-process for the whole family of spreads (universal inference: Wasserman, Ramdas & Balakrishnan 2020),
and stays one when looked at in the middle of a cluster's votes. The smallest of the three e-values, by vote, by voter
and by question, is good wherever one of them is. Where voters and questions both lean, none of the three has a proof;
that the smallest is good enough there is shown by simulation (tests/serving/test_honesty.py). A betting confidence
sequence (Waudby-Smith & Ramdas 2024) with one factor a voter and round is not used: a taste lasts from round to round,
so later rounds would not be fair bets about people at large.
"""

from __future__ import annotations

from math import ceil, inf, log, log2

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaln, logsumexp, xlogy

from serving.statistics.ballots import Floats

Counts = tuple[Floats, Floats]
"""Wins and losses of each cluster."""
PRIOR = 10.0
"""The mixture over win rates is Beta(10, 10): most at home between 30% and 70%."""
RATES: Floats = np.arange(1, 200) / 200
"""Win rates at which the clusters' likelihood is worked out; one half is among them."""
EVEN = int(np.flatnonzero(RATES == 0.5)[0])
SPREADS: Floats = np.append(np.geomspace(0.05, 20_000, 27), inf)
"""Votes' worth of agreement between clusters: near 0 everybody has one taste for ever, infinite means no own taste.
A sd of 0.8 logit between voters is about 7."""
MIXTURE: Floats = np.append(np.full(SPREADS.size - 1, 0.5 / (SPREADS.size - 1)), 0.5)
"""How much each spread counts in the mixture: half on no own taste, the rest even."""
_SHAPES = ((PRIOR - 1) * np.log(RATES * (1 - RATES)), -0.5 * np.log(RATES * (1 - RATES)))
RATE_WEIGHTS: Floats = np.logaddexp(*(shape - logsumexp(shape) for shape in _SHAPES)) - log(2)
"""Logarithm of how much each rate counts: half Beta(10, 10), half Jeffreys' Beta(½, ½) for clear wins."""
FARTHEST = 10_000
"""No forecast goes beyond this many votes."""


def log_e(wins: ArrayLike, losses: ArrayLike, prior: float = PRIOR) -> Floats:
    """Natural logarithm of the beta-binomial mixture e-value against 'each side wins half', for independent votes.

    Ties are left out. Takes numbers or arrays of them.
    Source: Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021.
    """
    won, lost = np.asarray(wins, np.float64), np.asarray(losses, np.float64)
    mixed = betaln(prior + won, prior + lost) - betaln(prior, prior)
    return np.asarray(mixed + (won + lost) * log(2))


def log_e_clusters(wins: ArrayLike, losses: ArrayLike) -> float:
    """Natural logarithm of the e-value against 'clusters at large are even', given each one's wins and losses.

    A cluster is a voter, or a question. However many votes fall the same way, c clusters stay below c·ln 2, so a few
    enthusiasts, or a few lucky questions, can't decide alone.
    Source: see the module; a cluster's votes are beta-binomial (Skellam 1948).
    """
    likelihood = _likelihood(wins, losses)
    return _mixed(likelihood) - float(likelihood[EVEN].max())


def always_valid_interval(scores: ArrayLike, counts: ArrayLike, alpha: float = 0.05) -> tuple[float, float]:
    """Where the win rate of clusters at large lies, with confidence 1−alpha at all times together.

    `scores` is what the votes of each voter (or on each question) add up to, a win 1 and a tie ½; `counts` how many
    there are. The interval holds every rate against which the e-value of `log_e_clusters` is below 1/alpha. A tie
    enters as half a win and half a loss, which is safe for independent votes, since q^x (1−q)^(1−x) is convex in x
    (Hoeffding 1963).
    """
    won, total = np.asarray(scores, np.float64), np.asarray(counts, np.float64)
    likelihood = _likelihood(won, total - won)
    over = _mixed(likelihood) - likelihood.max(axis=1) - log(1 / alpha)
    inside = np.flatnonzero(over < 0)
    if not inside.size:  # between two grid points: only with very many votes
        best = float(RATES[over.argmin()])
        return best, best
    return _end(over, inside[0], -1), _end(over, inside[-1], 1)


def least_clusters(alpha: float = 0.05) -> int:
    """Fewest voters, and fewest questions, that may decide: 5 at alpha 0.05.

    A fair bet on one cluster at most doubles the stake (Waudby-Smith & Ramdas 2024), so fewer than log2(1/alpha) of
    them can't bring it to 1/alpha without assuming how leanings are spread.
    """
    return ceil(log2(1 / alpha))


def votes_left(by_voter: Counts, by_prompt: Counts, ties: int, alpha: float = 0.05) -> int | None:
    """About how many more votes decide, ties included, if more people like these vote on more questions like these.

    0 if they suffice already; None if even 10,000 votes would not do, or there are too few voters or questions.
    """
    if min(by_voter[0].size, by_prompt[0].size) < least_clusters(alpha):
        return None
    won, lost = float(by_voter[0].sum()), float(by_voter[1].sum())
    likelihoods = [_likelihood(*by) for by in (by_voter, by_prompt)]
    now = won + lost + ties

    def enough(total: float) -> bool:
        times = total / now
        clusters = [_mixed(times * each) - times * float(each[EVEN].max()) for each in likelihoods]
        return min(*clusters, float(log_e(times * won, times * lost))) >= log(1 / alpha)

    low, high = now, now + FARTHEST
    if enough(now):
        return 0
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return ceil(high - now)


def _likelihood(wins: ArrayLike, losses: ArrayLike) -> Floats:
    """(rates, spreads) log likelihoods of all clusters' votes, in their order."""
    pairs = np.column_stack([np.asarray(wins, np.float64), np.asarray(losses, np.float64)])
    (won, lost), times = _distinct(pairs)
    result = np.empty((RATES.size, SPREADS.size))
    for at, spread in enumerate(SPREADS[:-1]):
        a, b = RATES[:, None] * spread, (1 - RATES[:, None]) * spread
        result[:, at] = (betaln(a + won, b + lost) - betaln(a, b)) @ times
    result[:, -1] = xlogy(times @ won, RATES) + xlogy(times @ lost, 1 - RATES)
    return result


def _distinct(pairs: Floats) -> tuple[Floats, Floats]:
    """The distinct rows as columns, and how often each comes: clusters with equal counts are worked out once."""
    rows, times = np.unique(pairs, axis=0, return_counts=True)
    return rows.T, times.astype(np.float64)


def _mixed(likelihood: Floats) -> float:
    return float(logsumexp(likelihood + RATE_WEIGHTS[:, None], b=MIXTURE[None, :]))


def _end(over: Floats, at: int, step: int) -> float:
    """Where the line from grid point `at` outwards crosses 0; the end of the scale if it does not."""
    beyond = at + step
    if not 0 <= beyond < RATES.size:
        return 0.0 if step < 0 else 1.0
    part = -over[at] / (over[beyond] - over[at])
    return float(RATES[at] + part * (RATES[beyond] - RATES[at]))
