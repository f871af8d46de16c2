"""How good each reviewer is, and what the truth probably is: Dawid & Skene, repeats, gold checks, pace, edits.

`competence` compares with a truth that nobody knows; gold checks and repeated items compare with what is known, so
where they disagree with it, believe them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from rapidfuzz.distance import Levenshtein

from annotation.agreement import FEW_ITEMS, NO_PAIR, ONE_LABEL, Codes, Figure, Floats, Table, share_of_items

ROUNDS = 200
TOLERANCE = 1e-4
"""EM stops when no probability moves by more than this in one round."""
TINY = 1e-300
"""Stands for 0 under a logarithm."""
RUSHED_WEIGHT = 0.5
"""Weight of a rating that was given faster than the reply can be read."""
RUSHED_CAP = 30.0
"""In seconds: nobody is called rushed after this long, however long the reply."""


@dataclass(frozen=True, eq=False)
class Consensus:
    """What the labels probably should have been, and how each person errs."""

    labels: tuple[str, ...]
    raters: tuple[str, ...]
    units: tuple[str, ...]
    priors: Floats
    """(labels,): how common each true label is."""
    confusion: Floats
    """(raters, true label, given label): every row adds up to 1. A row that nothing is known of is even."""
    posterior: Floats
    """(units, labels): how probable each true label is. A unit that nobody labelled has the priors."""
    competence: dict[str, float | None]
    """Expected accuracy: how often a person is right, over items with these priors. None for a person who shares no
    item with anybody, and for everybody if the labels tell nothing."""
    rounds: int
    """EM rounds until it settled; 0 if the labels tell nothing."""
    words: str = ""
    """Why there is no competence, or a caution; empty where there is nothing to add."""


@dataclass(frozen=True, eq=False)
class _Votes:
    """The ratings EM works on, sorted by unit."""

    unit: Codes
    cell: Codes
    """(ratings,): rater × labels + label."""
    weight: Floats
    raters: int
    labels: int

    @classmethod
    def of(cls, table: Table, least: int) -> _Votes:
        """Ratings that weigh something, of units with at least `least` raters among those."""
        heavy = table.weight > 0
        kept = heavy & (np.bincount(table.unit[heavy], minlength=len(table.units))[table.unit] >= least)
        cell = table.rater[kept] * np.int32(len(table.labels)) + table.value[kept]
        return cls(table.unit[kept], cell, table.weight[kept], len(table.raters), len(table.labels))


def dawid_skene(table: Table, smoothing: float = 0.5, rounds: int = ROUNDS) -> Consensus:
    """Fit the model of Dawid & Skene (1979): each person confuses labels in a way of their own.

    Parameters
    ----------
    table: at least three raters should share items; with two nobody can tell who is right.
    smoothing: how many ratings to add to every row of a confusion matrix, spread evenly, so that a person with few
        ratings is not called perfect. 0 is the method as published.
    rounds: most EM rounds.

    The model is fitted on units with two or more raters; a unit with one says nothing of anybody's quality. It starts
    from the vote shares. A weight of 0.5 counts a rating as half a rating. With few items it is surer than it should
    be. Where one label is common, whoever always gives that label has a high competence: look at the confusion too.
    """
    shared = _Votes.of(table, 2)
    if not shared.unit.size:
        return _unknown(table, NO_PAIR)
    if len(np.unique(shared.cell % shared.labels)) < 2:
        return _unknown(table, ONE_LABEL)
    priors, confusion, done = _fit(shared, smoothing, rounds)
    everybody = _Votes.of(table, 1)
    posterior = np.tile(priors, (len(table.units), 1))
    posterior[np.unique(everybody.unit)] = _posterior(everybody, priors, confusion)
    right = np.einsum("k,rkk->r", priors, confusion)
    known = np.bincount(shared.cell // shared.labels, minlength=shared.raters) > 0
    competence = {name: float(right[at]) if known[at] else None for at, name in enumerate(table.raters)}
    words = _words(int(known.sum()), np.unique(shared.unit).size, done, rounds)
    return Consensus(table.labels, table.raters, table.units, priors, confusion, posterior, competence, done, words)


def self_consistency(items: Iterable[Collection[tuple[str, str]]]) -> Figure:
    """Share of one person's answers that were the same when the item came a second time, with its interval.

    `items` holds one collection for every repeated item: of each question, the first answer and the second. The
    interval comes from the items, since the answers about one belong together; `Figure.units` counts items.
    """
    return share_of_items(map(_hits, items), 1, "Undefined: no item was answered twice.")


def gold_accuracy(items: Iterable[Collection[tuple[str, str]]]) -> Figure:
    """Share of one person's answers to hidden checks that were as they should be, with its interval.

    `items` holds one collection for every check: of each question, the answer and the gold answer. The interval and
    `Figure.units` are as in `self_consistency`.
    """
    return share_of_items(map(_hits, items), 1, "Undefined: no gold item was answered.")


def _hits(pairs: Collection[tuple[str, str]]) -> tuple[int, int]:
    return sum(one == other for one, other in pairs), len(pairs)


def rushed(seconds: float | None, words: int, floor: float = 2.0, words_per_second: float = 8.0) -> bool:
    """Was the item closed faster than its reply of `words` words can be read?

    8 words a second is twice the mean speed of silent reading in English, 238 words a minute (Brysbaert 2019, How
    many words do we read per minute?). At least `floor` seconds are asked for, at most `RUSHED_CAP`. An unknown time
    is never rushed.
    """
    return seconds is not None and seconds < min(max(floor, words / words_per_second), RUSHED_CAP)


def items_per_hour(seconds: Sequence[float]) -> float | None:
    """Pace from the median of the seconds an item was open, so that a coffee break does not count; None if unknown."""
    middle = median(seconds) if seconds else 0.0
    return 3600 / middle if middle > 0 else None


def edit_distance(before: str, after: str) -> float:
    """Word-level Levenshtein distance (1966) over the longer text's words: 0 is the same words, 1 all others.

    Words are what blanks part, so in a language without blanks any change of a sentence counts as 1.
    """
    return float(Levenshtein.normalized_distance(before.split(), after.split()))


def _fit(votes: _Votes, smoothing: float, rounds: int) -> tuple[Floats, Floats, int]:
    """Priors, confusion matrices and the number of EM rounds."""
    truth = _vote_shares(votes)
    priors, confusion = _maximise(votes, truth, smoothing)
    for done in range(1, rounds + 1):
        before = priors, confusion
        priors, confusion = _maximise(votes, _posterior(votes, priors, confusion), smoothing)
        moved = max(float(np.abs(new - old).max()) for new, old in zip((priors, confusion), before, strict=True))
        if moved < TOLERANCE:
            return priors, confusion, done
    return priors, confusion, rounds + 1


def _vote_shares(votes: _Votes) -> Floats:
    """(units with a vote, labels): the weighted share of each label."""
    given = np.eye(votes.labels)[votes.cell % votes.labels] * votes.weight[:, None]
    sums = np.add.reduceat(given, _starts(votes.unit), axis=0)
    return np.asarray(sums / sums.sum(axis=1, keepdims=True), np.float64)


def _posterior(votes: _Votes, priors: Floats, confusion: Floats) -> Floats:
    """E-step: (units with a vote, labels)."""
    by_cell = np.log(np.maximum(confusion, TINY)).transpose(0, 2, 1).reshape(-1, votes.labels)
    evidence = by_cell[votes.cell]
    evidence *= votes.weight[:, None]
    logs = np.add.reduceat(evidence, _starts(votes.unit), axis=0) + np.log(np.maximum(priors, TINY))
    odds = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float64)


def _maximise(votes: _Votes, truth: Floats, smoothing: float) -> tuple[Floats, Floats]:
    """M-step: priors (labels,) and confusion matrices (raters, true label, given label)."""
    sizes = np.diff(np.append(_starts(votes.unit), votes.unit.size))
    counts = np.empty((votes.labels, votes.raters * votes.labels))
    for label in range(votes.labels):
        weights = np.repeat(truth[:, label], sizes) * votes.weight
        counts[label] = np.bincount(votes.cell, weights, minlength=counts.shape[1])
    rows = counts.reshape(votes.labels, votes.raters, votes.labels).transpose(1, 0, 2) + smoothing / votes.labels
    totals = rows.sum(axis=2, keepdims=True)
    even = np.full_like(rows, 1 / votes.labels)
    return truth.mean(axis=0), np.divide(rows, totals, out=even, where=totals > 0)


def _starts(unit: Codes) -> Codes:
    """Where each unit's ratings begin."""
    return np.flatnonzero(np.diff(unit, prepend=-1)).astype(np.int32)


def _unknown(table: Table, words: str) -> Consensus:
    """The answer where the labels tell nothing of anybody: even confusion, and vote shares as the posterior."""
    size = len(table.labels)
    even = np.full(size, 1 / max(size, 1))
    confusion = np.tile(even, (len(table.raters), size, 1))
    posterior = np.tile(even, (len(table.units), 1))
    votes = _Votes.of(table, 1)
    if votes.unit.size:
        posterior[np.unique(votes.unit)] = _vote_shares(votes)
    priors = posterior.mean(axis=0) if len(posterior) else even
    nobody: dict[str, float | None] = dict.fromkeys(table.raters)
    return Consensus(table.labels, table.raters, table.units, priors, confusion, posterior, nobody, 0, words)


def _words(raters: int, units: int, done: int, rounds: int) -> str:
    said = []
    if raters < 3:
        said.append("Only two reviewers share items: where they differ, the labels cannot tell who is right.")
    if units < FEW_ITEMS:
        said.append(f"Only {units} shared items: take it as a first impression.")
    if done > rounds:
        said.append(f"Not settled after {rounds} rounds: read it with care.")
    return " ".join(said)
