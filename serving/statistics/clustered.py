"""Estimates for one look at the data; their errors know that votes of one person, or on one prompt, go together."""

from __future__ import annotations

import warnings
from math import sqrt
from typing import Any

import numpy as np
import statsmodels.api as sm
from scipy import stats
from scipy.special import expit
from statsmodels.stats.sandwich_covariance import cov_cluster, cov_cluster_2groups

from serving.statistics.ballots import Estimate, Floats, Votes, Whole, sums

FEW = 10
"""With fewer voters than this the bootstrap replaces the usual cluster-robust error, which is then too small."""
DRAWS = 1999
SEED = 20_080
"""The bootstrap always draws the same signs, so that the same votes give the same figures."""
FINE = 0.001
"""How exactly the ends of the bootstrap's interval are found."""
STEEPEST = 8.0
"""In logits: where a vote is predicted more firmly, the votes are separated, and no finite coefficients fit."""
PER_COEFFICIENT = 5
"""Fewest votes for each coefficient."""
BOTH_WAYS = 0.05
"""Share of votes on replies of which a side's is no longer than the other's; with less, equal length was never seen."""
LEVEL_WORDS = "Rests on {}: with fewer than ten, treat its interval as a rough guide."


def clustered(votes: Votes, alpha: float = 0.05) -> Estimate | None:
    """Win rate of one with an interval that allows for clusters of voters and of prompts; None without votes.

    With ten voters or more the variance is the two-way one, or that of one way where that is larger (Cameron, Gelbach
    & Miller 2011), with Student's t on the smaller number of clusters less one. With fewer, the wild cluster bootstrap
    over voters (Cameron, Gelbach & Miller 2008, null imposed; Webb's six weights), or the prompts' interval where that
    is wider. The p-value is for one look only; an e-value is what peeking may rest on.
    """
    rate = votes.rate
    if rate is None:
        return None
    if votes.voters < 2:
        return Estimate(value=rate, words="No interval: with one voter nobody can tell taste from difference.")
    if votes.score.min() == votes.score.max():
        return Estimate(value=rate, words="No interval: every vote says the same.")
    if votes.voters >= FEW:
        return _student(rate, standard_error(votes), min(votes.voters, _many(votes)) - 1, alpha)
    wild = _wild(votes, alpha)
    if votes.prompts < 2:
        return wild
    error = sqrt(_variance(votes.score, votes.prompt))
    plain = _student(rate, error, votes.prompts - 1, alpha)
    return max(wild, plain, key=_width)


def contextual(votes: Votes, alpha: float = 0.05) -> tuple[Estimate | None, Estimate | None, list[str]]:
    """Chance that left wins between equals; win rate of one at equal length; and why either is missing.

    Logistic regression of 'left won' on which side is left and on the difference in length, errors clustered by voter
    and by prompt as in `clustered` (the contextual Bradley–Terry model; length control as in Dubois et al. 2024). Ties
    count half.
    """
    reason = _unfit(votes)
    if reason:
        return None, None, [reason]
    varied = bool(np.ptp(votes.length) > 0)
    columns = [np.ones_like(votes.side), votes.side, votes.side * votes.length]
    fit = _fit(votes, np.column_stack(columns if varied else columns[:2]))
    if fit is None:
        return None, None, ["Place and length can't be told apart from the sides: the votes are too few or too clear."]
    degrees = min(votes.voters, _many(votes)) - 1
    position = _logit_estimate(fit, 0, degrees, alpha)
    if not varied:
        return position, None, ["No figure at equal length: both sides were equally long, or no length was recorded."]
    if min((votes.length >= 0).mean(), (votes.length <= 0).mean()) < BOTH_WAYS:
        return position, None, ["No figure at equal length: one side's replies are nearly always the longer ones."]
    return position, _logit_estimate(fit, 1, degrees, alpha), []


def _many(votes: Votes) -> int:
    """Prompts, as clusters; with one prompt there is no second way to cluster."""
    return votes.prompts if votes.prompts > 1 else votes.voters


def _variance(score: Floats, cluster: Whole) -> float:
    """Of the mean, by sums of residuals in each cluster, with the correction for few clusters."""
    totals = sums(cluster, score - score.mean())
    if totals.size < 2:
        return 0.0
    return float((totals**2).sum() / score.size**2 * totals.size / (totals.size - 1))


def standard_error(votes: Votes) -> float:
    """Of the win rate, by voters and prompts both, or by one way where that is larger."""
    both = votes.voter * (int(votes.prompt.max()) + 1) + votes.prompt
    by_voter, by_prompt, cells = (_variance(votes.score, by) for by in (votes.voter, votes.prompt, both))
    return sqrt(max(by_voter + by_prompt - cells, by_voter, by_prompt))


def _student(rate: float, error: float, degrees: int, alpha: float) -> Estimate:
    if error < 1e-12:
        return Estimate(value=rate, words="No interval: all voters or all prompts have the same share.")
    half = float(stats.t.ppf(1 - alpha / 2, degrees)) * error
    p = 2 * float(stats.t.sf(abs(rate - 0.5) / error, degrees))
    return Estimate(value=rate, low=max(0.0, rate - half), high=min(1.0, rate + half), p=p)


def _wild(votes: Votes, alpha: float) -> Estimate:
    """Bootstrap by sign flips of whole voters around each possible rate; the interval is what they don't reject."""
    won, total = _ordered(votes)
    weights = _webb(total.size)
    rate = float(won.sum() / total.sum())

    def end(edge: float) -> float:
        """The farthest rate towards `edge` that is not rejected, by halving."""
        kept, fallen = rate, edge
        if _wild_p(won, total, edge, weights) > alpha:
            return edge
        while abs(fallen - kept) > FINE:
            middle = (kept + fallen) / 2
            kept, fallen = (middle, fallen) if _wild_p(won, total, middle, weights) > alpha else (kept, middle)
        return kept

    words = LEVEL_WORDS.format(f"{total.size} voters")
    return Estimate(value=rate, low=end(0.0), high=end(1.0), p=_wild_p(won, total, 0.5, weights), words=words)


def _ordered(votes: Votes) -> tuple[Floats, Floats]:
    """Won and given votes of each voter, in an order that neither names nor sides decide: the draws depend on it."""
    won, total = sums(votes.voter, votes.score), sums(votes.voter, np.ones_like(votes.score))
    lead = won - total / 2
    order = np.lexsort((lead * np.sign(lead.sum()), np.abs(lead), total))
    return won[order], total[order]


def _webb(clusters: int) -> Floats:
    """(draws, clusters) weights: with few clusters plain signs have too few patterns (Webb 2023)."""
    values = np.sqrt(np.array([0.5, 1.0, 1.5]))
    return np.random.default_rng(SEED).choice(np.append(-values, values), size=(DRAWS, clusters))


def _wild_p(won: Floats, total: Floats, rate: float, weights: Floats) -> float:
    """Two-sided p-value of 'the win rate is `rate`', by the t of each draw with the null imposed."""
    residual = won - rate * total
    drawn = np.vstack([residual, weights * residual])
    shift = drawn.sum(axis=1) / total.sum()
    error = np.sqrt(((drawn - shift[:, None] * total) ** 2).sum(axis=1))
    size = np.abs(shift) / np.maximum(error, 1e-12)
    return float((1 + (size[1:] >= size[0] - 1e-9).sum()) / (1 + DRAWS))


def _width(estimate: Estimate) -> float:
    return 0.0 if estimate.low is None or estimate.high is None else estimate.high - estimate.low


def _unfit(votes: Votes) -> str:
    if votes.voters < 2:
        return "Whether the place matters can't be told from fewer than two voters."
    if np.ptp(votes.side) == 0:
        return "Whether the place matters can't be told: one side always stood on the same place."
    if np.ptp(votes.score) == 0:
        return "Whether the place matters can't be told: every vote says the same."
    return ""


def _fit(votes: Votes, design: Floats) -> tuple[Floats, Floats] | None:
    """Coefficients and standard errors in logits; None where no finite ones fit."""
    left = np.where(votes.side > 0, votes.score, 1 - votes.score)
    if np.linalg.matrix_rank(design) < design.shape[1] or left.size < PER_COEFFICIENT * design.shape[1]:
        return None
    model = sm.GLM(left, design, family=sm.families.Binomial())
    with warnings.catch_warnings():  # statsmodels warns of separation; the coefficients below say it too
        warnings.simplefilter("ignore")
        try:
            result = model.fit()
            values, errors = np.asarray(result.params), _errors(result, votes)
        except (np.linalg.LinAlgError, sm.tools.sm_exceptions.PerfectSeparationError):
            return None
    sound = np.isfinite(values).all() and np.isfinite(errors).all() and np.abs(design @ values).max() < STEEPEST
    return (values, errors) if sound and (errors[:2] > 1e-6).all() else None


def _errors(result: Any, votes: Votes) -> Floats:
    """Of each coefficient: by both ways, or by one way where that is larger."""
    if votes.prompts < 2:
        ways = [cov_cluster(result, votes.voter)]
    else:
        ways = cov_cluster_2groups(result, votes.voter, votes.prompt)
    return np.asarray(np.sqrt(np.max([np.diag(way) for way in ways], axis=0)))


def _logit_estimate(fit: tuple[Floats, Floats], at: int, degrees: int, alpha: float) -> Estimate:
    value, error = float(fit[0][at]), float(fit[1][at])
    half = float(stats.t.ppf(1 - alpha / 2, degrees)) * error
    return Estimate(
        value=float(expit(value)),
        low=float(expit(value - half)),
        high=float(expit(value + half)),
        p=2 * float(stats.t.sf(abs(value) / error, degrees)),
        words=LEVEL_WORDS.format(f"{degrees + 1} voters or prompts") if degrees + 1 < FEW else "",
    )
