"""Decisions beside the main one: several criteria at once, 'not worse', and paired labels."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from scipy import stats
from scipy.optimize import brentq
from statsmodels.stats.contingency_tables import mcnemar as paired_table
from statsmodels.stats.multitest import multipletests

from annotation.types import Frozen, Outcome
from serving.statistics.ballots import Ballot, Votes
from serving.statistics.clustered import clustered


class NonInferiority(Frozen):
    """Whether one side is not worse than another by more than a margin."""

    holds: bool
    difference: float | None
    """Share of items that got better minus share that got worse; None without items."""
    low: float | None
    """One-sided lower limit of the difference, confidence 1−alpha; None without items."""
    p: float | None
    """Of 'worse by the margin or more'; None without items, and where votes that go together decide otherwise."""
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
    if not p_values:
        return {}
    falls = multipletests(list(p_values.values()), alpha=alpha, method="holm")[0]
    return {name: bool(fall) for name, fall in zip(p_values, falls, strict=True)}


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


def non_inferior(worse: int, better: int, ties: int, margin: float, alpha: float = 0.05) -> NonInferiority:
    """Is the new side not worse by more than `margin` (a share of items, for example 0.05)? For one look at the data.

    `worse` counts items where the new side alone failed, `better` where the old side alone did, `ties` the others.
    Items must be independent. Source: the score test of Tango 1998 for paired proportions, one-sided.
    Raises ValueError if a count is negative or the margin is not between 0 and 1.
    """
    if min(worse, better, ties) < 0 or not 0 < margin < 1:
        raise ValueError("Counts must be from 0 up and the margin between 0 and 1.")
    items = worse + better + ties
    if not items:
        return NonInferiority(holds=False, difference=None, low=None, p=None, words="Nothing was compared yet.")
    p = float(stats.norm.sf(_tango(worse, better, items, margin)))
    low = _lower(worse, better, items, float(stats.norm.ppf(1 - alpha)))
    holds = p <= alpha
    verb = "is not" if holds else "may be"
    words = f"On {items} items the new side {verb} worse by more than {100 * margin:g} points."
    return NonInferiority(holds=holds, difference=(better - worse) / items, low=low, p=p, words=words)


def not_worse(ballots: Sequence[Ballot], one: str, other: str, margin: float, alpha: float = 0.05) -> NonInferiority:
    """Is `one` not worse than `other` by more than `margin`, as people voted? For one look at the data.

    It must hold vote by vote (`non_inferior`), and also with an error that allows for votes of one person, and votes on
    one prompt, going together (`clustered`); the lower of the two limits is kept. 'Both bad' is no difference.
    Raises ValueError as `non_inferior` does.
    """
    even: dict[Outcome, Outcome] = {"both_bad": "tie"}
    rows = [ballot.model_copy(update={"outcome": even.get(ballot.outcome, ballot.outcome)}) for ballot in ballots]
    votes = Votes.of(rows, one, other)
    better, worse, ties = votes.counts
    plain = non_inferior(worse, better, ties, margin, alpha)
    # Only the lower end counts, so 2 · alpha would do for many people; with few, and rare faults, that is too bold.
    together = clustered(votes, alpha)
    if plain.low is None or together is None:
        return plain
    if votes.voters < 2:
        return plain.model_copy(update={"holds": False, "words": "One person alone can't show that nothing got worse."})
    low = plain.low if together.low is None else min(plain.low, 2 * together.low - 1)
    if plain.holds and low <= -margin:
        words = (
            f"Counted vote by vote it is not worse by more than {100 * margin:g} points, but the votes rest on too few "
            "people or prompts."
        )
        return plain.model_copy(update={"holds": False, "low": low, "p": None, "words": words})
    return plain.model_copy(update={"low": low})


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


def _tango(worse: int, better: int, items: int, margin: float) -> float:
    """z of 'better minus worse is −margin', with the shares at their likeliest under that."""
    linear = better * (1 - 3 * margin) + worse * (1 - margin) - 2 * (items - better - worse) * margin
    inside = max(0.0, linear**2 + 8 * items * better * margin * (1 - margin))
    share = max(0.0, (linear + sqrt(inside)) / (4 * items))
    variance = items * (2 * share + margin - margin**2)
    gap = better - worse + items * margin
    if variance < 1e-12:
        return 0.0 if abs(gap) < 1e-9 else gap * 1e6
    return gap / sqrt(variance)


def _lower(worse: int, better: int, items: int, z: float) -> float:
    """The smallest difference that the score test does not reject."""

    def excess(difference: float) -> float:
        if difference > 0:  # the same test with the sides swapped
            return -_tango(better, worse, items, difference) - z
        return _tango(worse, better, items, -difference) - z

    edge = 1 - 1e-9
    if excess(-edge) <= 0:
        return -1.0
    return float(brentq(excess, -edge, edge)) if excess(edge) < 0 else 1.0
