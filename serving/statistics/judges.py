"""A model as a judge beside people: how far it agrees, whether it keeps to its word, and what it may add.

The judge's votes never enter a human figure; the combined estimate stands apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from annotation.types import Frozen
from serving.statistics.ballots import Ballot, Estimate, Floats, Votes

DRAWS = 1000
SEED = 5
SIDES = ("left", "right")
LEAST = 10
"""Fewest prompts for an interval."""
BLIND_SWAPS, BLIND_SHARE = 0.2, 0.9
"""A judge that keeps to its winner no more often than the one, and goes by the place at least as often as the other,
does not read."""


class JudgeAgreement(Frozen):
    """A judge held against people, on two sides. Everything counts prompts, each of which weighs the same."""

    shared: int
    """Prompts that both people and the judge answered."""
    same: int
    """Of those, the ones on which people and the judge favour the same: one, other or neither."""
    kappa: Estimate | None
    """Cohen's kappa of who the people's and the judge's votes favour on each shared prompt: one, other or neither;
    `p` is None."""
    swap_consistency: float | None
    """Of the prompts the judge saw both ways round, the share with the same winner; None if it saw none."""
    first_share: float | None
    """Of the judge's decided ballots, the share for the reply that stood left, which is the one it read first."""
    judge: Estimate | None
    """Win rate by the judge alone, on all prompts it answered. Not a human figure."""
    human: Estimate | None
    """Win rate by people alone, on the prompts they answered."""
    predicted: Estimate | None
    """Win rate by people on all prompts, with the judge's votes used where nobody voted and corrected by where
    somebody did. Not a human figure: show it apart."""
    by_place: str
    """What to say of a judge that goes by the place; '' of one that does not, or chose too seldom to tell."""
    words: list[str]


def judge_agreement(
    human: Sequence[Ballot], judge: Sequence[Ballot], one: str, other: str, *, alpha: float = 0.05
) -> JudgeAgreement:
    """Hold the judge's ballots against people's, on the sides `one` and `other`.

    Kappa: Cohen 1960, with a bootstrap over prompts. Combined estimate: prediction-powered inference (Angelopoulos et
    al. 2023) with the tuning of PPI++ (2023). Intervals are for one look. Raises ValueError if the sides are the same.
    """
    people, machine = _by_prompt(human, one, other), _by_prompt(judge, one, other)
    shared = sorted(people.keys() & machine.keys())
    said = np.array([people[prompt] for prompt in shared])
    guessed = np.array([machine[prompt] for prompt in shared])
    rest = np.array([score for prompt, score in machine.items() if prompt not in people])
    kappa, words = _kappa(said, guessed, alpha)
    swaps, chose = _swaps(judge, one, other), _chose_first(judge, one, other)
    first = sum(chose) / len(chose) if chose else None
    predicted = _predicted(said, guessed, rest, alpha)
    if swaps is None:
        words.append("Swap consistency is unknown: the judge saw no pair both ways round.")
    if predicted is None:
        words.append(f"No combined estimate: it needs {LEAST} prompts with both, and {LEAST} with the judge alone.")
    return JudgeAgreement(
        shared=len(shared),
        same=int((np.sign(said - 0.5) == np.sign(guessed - 0.5)).sum()),
        kappa=kappa,
        swap_consistency=swaps,
        first_share=first,
        judge=_mean(np.array(list(machine.values())), alpha),
        by_place="" if swaps is None or first is None or len(chose) < LEAST else _by_place(swaps, first),
        human=_mean(np.array(list(people.values())), alpha),
        predicted=predicted,
        words=words,
    )


def _by_prompt(ballots: Sequence[Ballot], one: str, other: str) -> dict[str, float]:
    """Mean score of one on each prompt."""
    scores: dict[str, list[float]] = {}
    for prompt, score in _scored(ballots, one, other):
        scores.setdefault(prompt, []).append(score)
    return {prompt: float(np.mean(values)) for prompt, values in sorted(scores.items())}


def _scored(ballots: Sequence[Ballot], one: str, other: str) -> list[tuple[str, float]]:
    votes = Votes.of(ballots, one, other)
    rows = [row for row in ballots if {row.left, row.right} == {one, other} and row.outcome != "both_bad"]
    return [(row.prompt, float(score)) for row, score in zip(rows, votes.score, strict=True)]


def _kappa(said: Floats, guessed: Floats, alpha: float) -> tuple[Estimate | None, list[str]]:
    if not said.size:
        return None, ["Kappa is undefined: no prompt was answered by both."]
    first, second = np.sign(said - 0.5) + 1, np.sign(guessed - 0.5) + 1
    cells = (first * 3 + second).astype(np.int64)
    counts = np.bincount(cells, minlength=9)
    value = float(_kappas(counts[None].astype(np.float64))[0])
    if np.isnan(value):
        return None, ["Kappa is undefined: people and judge only ever gave one and the same answer."]
    if said.size < LEAST:
        return Estimate(value=value, words=f"No interval: only {said.size} prompts."), []
    drawn = np.random.default_rng(SEED).multinomial(said.size, counts / said.size, size=DRAWS)
    low, high = np.nanquantile(_kappas(drawn.astype(np.float64)), [alpha / 2, 1 - alpha / 2])
    return Estimate(value=value, low=float(low), high=float(high)), []


def _kappas(counts: Floats) -> Floats:
    """(draws,) kappas of (draws, 9) tables of counts; nan where only one answer was given."""
    tables = counts.reshape(-1, 3, 3)
    total = tables.sum(axis=(1, 2))
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    above = np.trace(tables, axis1=1, axis2=2) * total - chance
    room = total * total - chance
    return np.asarray(np.divide(above, room, out=np.full(total.size, np.nan), where=room > 0), np.float64)


def _swaps(judge: Sequence[Ballot], one: str, other: str) -> float | None:
    """Share of prompts on which the judge's winner does not depend on who stands left."""
    winners: dict[str, dict[str, set[float]]] = {}
    rows = [row for row in judge if {row.left, row.right} == {one, other}]
    for row in rows:
        outcome = {"left": row.left, "right": row.right}.get(row.outcome, row.outcome)
        code = float({one: 1, other: -1, "tie": 0}.get(outcome, 2))
        winners.setdefault(row.prompt, {}).setdefault(row.left, set()).add(code)
    both = [seen for seen in winners.values() if len(seen) == 2]
    return sum(len(seen[one] | seen[other]) == 1 for seen in both) / len(both) if both else None


def _chose_first(judge: Sequence[Ballot], one: str, other: str) -> list[bool]:
    """Whether it chose the reply that stood left, for each ballot that chose."""
    return [row.outcome == "left" for row in judge if {row.left, row.right} == {one, other} and row.outcome in SIDES]


def _by_place(swaps: float, first: float) -> str:
    place = "first" if first >= 0.5 else "second"
    if swaps <= BLIND_SWAPS and max(first, 1 - first) >= BLIND_SHARE:
        share = f"{max(first, 1 - first):.0%}"
        return f"It chose the reply it read {place} in {share} of its choices, whichever that was: it did not judge."
    if swaps < 0.5:
        return "Its winner changed with the place more often than not: it says little about the replies."
    return ""


def _mean(scores: Floats, alpha: float) -> Estimate | None:
    if not scores.size:
        return None
    if scores.size < LEAST:
        return Estimate(value=float(scores.mean()), words=f"No interval: only {scores.size} prompts.")
    return _normal(float(scores.mean()), float(scores.var(ddof=1) / scores.size), alpha)


def _predicted(said: Floats, guessed: Floats, rest: Floats, alpha: float) -> Estimate | None:
    """The judge's mean where it was alone, moved by how far people differ from it where both voted."""
    if min(said.size, rest.size) < LEAST:
        return None
    spread = float(np.concatenate([guessed, rest]).var(ddof=1))
    together = float(np.cov(said, guessed)[0, 1])
    trust = together / (spread * (1 + said.size / rest.size)) if spread > 0 else 0.0
    trust = min(1.0, max(0.0, trust))
    value = trust * float(rest.mean()) + float((said - trust * guessed).mean())
    variance = (said - trust * guessed).var(ddof=1) / said.size + trust**2 * spread / rest.size
    estimate = _normal(value, float(variance), alpha)
    return estimate.model_copy(update={"words": f"Uses a judge's votes on {rest.size} prompts; not a human figure."})


def _normal(value: float, variance: float, alpha: float) -> Estimate:
    if variance < 1e-12:
        return Estimate(value=min(1.0, max(0.0, value)), words="No interval: every prompt says the same.")
    error = variance**0.5
    half = float(stats.norm.ppf(1 - alpha / 2)) * error
    p = 2 * float(stats.norm.sf(abs(value - 0.5) / error))
    clipped = [min(1.0, max(0.0, end)) for end in (value, value - half, value + half)]
    return Estimate(value=clipped[0], low=clipped[1], high=clipped[2], p=p)
