"""How far reviewers agree: alpha, AC1 and raw agreement, for everybody, by pair and by clause.

All figures follow two rules. What is undefined is said in words and is never a number. And intervals come from
resampling items, not labels, because the labels of one item belong together.

The agreement figures count every label once; a rating's weight matters in `annotation.competence` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from math import sqrt
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Codes = NDArray[np.int32]
Whole = NDArray[np.int64]
Floats = NDArray[np.float64]
Metric = Literal["nominal", "ordinal", "interval", "ratio"]
"""How far apart two labels are: merely different; by rank, in the order of `Table.labels`; or by their number."""

DRAWS = 1000
LEVEL = 0.95
FEW_ITEMS = 50
"""With fewer items a bootstrap interval can be too narrow, and the words say so."""
MANY_UNDEFINED = 0.05
BLOCK = 1_000_000
"""Most numbers held at once while resampling: 8 MB an array."""
NO_PAIR = "Undefined: no item has two reviewers."
ONE_LABEL = "Undefined: only one label was used."


class Rating(NamedTuple):
    """One label by one person on one item. What nobody labelled is absent."""

    unit: str
    rater: str
    value: str
    weight: float = 1.0


class Citation(NamedTuple):
    """One person named one clause on one item."""

    unit: str
    rater: str
    clause: str


@dataclass(frozen=True)
class Figure:
    """A statistic with its interval, and what to know about it."""

    value: float | None
    """None where it is undefined; `words` says why."""
    low: float | None
    """Lower end of the 95% interval; None where there is none."""
    high: float | None
    units: int
    """Items it rests on."""
    raters: int
    """People it rests on."""
    words: str = ""
    """Why it is undefined, or a caution; empty where there is nothing to add."""


class Patterns(NamedTuple):
    """The distinct ways in which items were labelled."""

    counts: Floats
    """(patterns, labels): how many people gave each label."""
    times: Whole
    """(patterns,): items that look like this."""

    def pairable(self) -> Patterns:
        """Only items with two or more labels."""
        kept = self.counts.sum(axis=1) >= 2
        return Patterns(self.counts[kept], self.times[kept])


@dataclass(frozen=True, eq=False)
class Table:
    """Ratings as numbers, sorted by unit and then by rater. Build it with `of` or `from_codes`.

    About 20 bytes a rating, so 600,000 ratings take 12 MB.
    """

    unit: Codes
    """(ratings,): index into `units`."""
    rater: Codes
    """(ratings,): index into `raters`."""
    value: Codes
    """(ratings,): index into `labels`."""
    weight: Floats
    """(ratings,)."""
    units: tuple[str, ...]
    raters: tuple[str, ...]
    labels: tuple[str, ...]
    """All labels that could be given: AC1 depends on their number, the ordinal alpha on their order."""

    @classmethod
    def of(cls, ratings: Sequence[Rating], labels: Sequence[str] | None = None) -> Table:
        """Code `ratings`; `labels` are those that could be given, by default those that were, sorted.

        Where one person labelled one item twice, the last rating counts. Raises ValueError as `from_codes` does, and
        if a rating has a label that is not in `labels`.
        """
        units = sorted({rating.unit for rating in ratings})
        raters = sorted({rating.rater for rating in ratings})
        used = {rating.value for rating in ratings}
        known = sorted(used) if labels is None else labels
        if strange := used.difference(known):
            raise ValueError(f"Ratings have labels that were not listed: {', '.join(sorted(strange))}.")
        return cls.from_codes(
            _codes((rating.unit for rating in ratings), units, len(ratings)),
            _codes((rating.rater for rating in ratings), raters, len(ratings)),
            _codes((rating.value for rating in ratings), known, len(ratings)),
            weight=np.fromiter((rating.weight for rating in ratings), np.float64, len(ratings)),
            units=units,
            raters=raters,
            labels=known,
        )

    @classmethod
    def from_codes(
        cls,
        unit: ArrayLike,
        rater: ArrayLike,
        value: ArrayLike,
        *,
        units: Sequence[str],
        raters: Sequence[str],
        labels: Sequence[str],
        weight: ArrayLike | None = None,
    ) -> Table:
        """Take three parallel sequences of indices into the names, as a database hands them over.

        Where one person labelled one item twice, the last rating counts. Raises ValueError if the sequences differ in
        length, an index names nothing, a name comes twice or a weight is not a number from 0 up.
        """
        where, who = _indices(unit, units, "unit"), _indices(rater, raters, "rater")
        what = _indices(value, labels, "label")
        weights = np.ones(where.size) if weight is None else np.asarray(weight, np.float64)
        if not where.shape == who.shape == what.shape == weights.shape == (where.size,):
            raise ValueError("Units, raters, values and weights must be equally long.")
        if not np.all(np.isfinite(weights) & (weights >= 0)):
            raise ValueError("Every weight must be a number from 0 up.")
        key = where.astype(np.int64) * len(raters) + who
        order = np.argsort(key, kind="stable")
        kept = order[np.append(np.diff(key[order]) > 0, True)[: key.size]]
        names = (tuple(units), tuple(raters), tuple(labels))
        return cls(where[kept], who[kept], what[kept], weights[kept], *names)

    @cached_property
    def patterns(self) -> Patterns:
        """The distinct rows of the units × labels table of counts; units without a label are left out."""
        shape = (len(self.units), len(self.labels))
        flat = self.unit.astype(np.int64) * shape[1] + self.value
        counts = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
        counts = counts[counts.any(axis=1)]
        key = np.zeros(len(counts), np.int64)
        for column in counts.T:  # one label after another: never overflows, and is faster than unique(axis=0)
            key = np.unique(key * (column.max(initial=0) + 1) + column, return_inverse=True)[1]
        _, first, times = np.unique(key, return_index=True, return_counts=True)
        return Patterns(counts[first].astype(np.float64), times)

    def scope(self, least: int = 1) -> tuple[int, int]:
        """How many units have at least `least` ratings, and how many raters those have."""
        chosen = np.bincount(self.unit, minlength=len(self.units)) >= least
        return int(chosen.sum()), np.unique(self.rater[chosen[self.unit]]).size


def krippendorff_alpha(table: Table, metric: Metric = "nominal", rng: np.random.Generator | None = None) -> Figure:
    """Krippendorff's alpha: 1 is full agreement, 0 is what chance gives. Missing ratings are allowed.

    Units with fewer than two ratings are left out. `rng` adds the bootstrap interval. Raises ValueError if `metric`
    is interval or ratio and a label is no number.
    Source: Krippendorff 2011, Computing Krippendorff's alpha-reliability; Hayes & Krippendorff 2007.
    """
    patterns = table.patterns.pairable()
    size = len(table.labels)
    scores = _scores(table.labels, metric)
    together = patterns.counts[:, :, None] * patterns.counts[:, None, :] - patterns.counts[:, :, None] * np.eye(size)
    together = together.reshape(len(patterns.times), size * size) / (patterns.counts.sum(axis=1) - 1)[:, None]

    def statistic(times: Floats) -> Floats:
        return _alpha((times @ together).reshape(-1, size, size), metric, scores)

    return _figure(patterns.times, statistic, table.scope(2), rng)


def gwet_ac1(table: Table, rng: np.random.Generator | None = None) -> Figure:
    """Gwet's AC1: like alpha, but it does not collapse when one label is rare. Missing ratings are allowed.

    Chance is estimated from all units with a rating, agreement from those with two or more. Chance depends on how
    many labels could be given, so the resampling holds that number fixed.
    Source: Gwet 2008, Computing inter-rater reliability and its variance in the presence of high agreement.
    """
    counts, times = table.patterns
    scope = table.scope(2)
    if scope[0] and np.count_nonzero(counts.any(axis=0)) < 2:
        return Figure(None, None, None, *scope, ONE_LABEL)
    people = counts.sum(axis=1)
    pairs = people * (people - 1)
    agreeing = (counts * (counts - 1)).sum(axis=1) / np.maximum(pairs, 1)
    shares = counts / people[:, None]

    def statistic(drawn: Floats) -> Floats:
        shares_drawn = drawn @ shares / drawn.sum(axis=1)[:, None]
        chance: Floats = (shares_drawn * (1 - shares_drawn)).sum(axis=1) / max(len(table.labels) - 1, 1)
        return (_ratio(drawn @ agreeing, drawn @ (pairs > 0)) - chance) / (1 - chance)

    return _figure(times, statistic, scope, rng)


def raw_agreement(table: Table, rng: np.random.Generator | None = None) -> Figure:
    """Of all pairs of labels on one unit, the share that agree. Chance is not taken out."""
    counts, times = table.patterns.pairable()
    people = counts.sum(axis=1)
    agreeing = (counts * (counts - 1)).sum(axis=1)
    pairs = people * (people - 1)
    return _figure(times, lambda drawn: _ratio(drawn @ agreeing, drawn @ pairs), table.scope(2), rng)


def share(hits: int, total: int, raters: int, missing: str) -> Figure:
    """`hits` of `total` as a share with its Wilson interval; `missing` is said where `total` is 0.

    Source: Wilson 1927; Newcombe 1998, method 3. It stays honest at 0% and 100% and with few items.
    """
    if not total:
        return Figure(None, None, None, 0, raters, missing)
    part = hits / total
    return Figure(part, *_wilson(part, total), total, raters)


def share_of_items(items: Iterable[tuple[int, int]], raters: int, missing: str) -> Figure:
    """The share of hits where one item was answered several times: `items` holds (hits, answers) of each.

    The answers about one item go wrong together, so they tell less than as many about different items. The interval is
    Wilson's for the number of independent answers that would vary as much as these items do: between the number of
    items, which it also is where every answer hits or none does, and the number of answers.
    Source: Kish 1965, design effect; Korn & Graubard 1998, effective sample size with Student's quantile.
    """
    answered = np.array([item for item in items if item[1]], np.float64).reshape(-1, 2)
    number, (hits, total) = len(answered), answered.sum(axis=0)
    if not number:
        return Figure(None, None, None, 0, raters, missing)
    part = float(hits / total)
    return Figure(part, *_wilson(part, _effective(answered, part)), number, raters)


def _effective(answered: Floats, part: float) -> float:
    """How many independent answers tell as much as these (items, 2) hits and answers."""
    number, total = len(answered), float(answered[:, 1].sum())
    off = answered[:, 0] - part * answered[:, 1]
    variance = float(off @ off) / (total * total) * number / max(number - 1, 1)
    if not variance:
        return float(number)
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    student = z * (1 + (z * z + 1) / (4 * max(number - 1, 1)))  # the first term of Cornish & Fisher
    return min(max(part * (1 - part) / variance * (z / student) ** 2, number), total)


def _wilson(part: float, total: float) -> tuple[float, float]:
    """Wilson's interval of a share of `total` independent answers."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (part + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(part * (1 - part) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Cell:
    """One cell of a confusion matrix."""

    count: int
    examples: tuple[str, ...] = ()
    """Some of its units, the first in the order of `Table.units`."""


@dataclass(frozen=True)
class Pair:
    """How two people agree."""

    first: str
    second: str
    units: int
    """Items that both labelled."""
    raw: Figure
    """With its Wilson interval."""
    kappa: Figure
    """Cohen's kappa."""
    cells: tuple[tuple[Cell, ...], ...]
    """Row: the first person's label; column: the second's; both in the order of `Table.labels`."""


def per_pair(table: Table, examples: int = 3, rng: np.random.Generator | None = None) -> tuple[Pair, ...]:
    """Every pair of people with an item in common, in the order of `Table.raters`.

    `rng` adds bootstrap intervals to the kappas. Takes time in the number of label pairs on one item.
    """
    size = len(table.labels)
    found: dict[tuple[int, int], dict[int, tuple[int, list[int]]]] = {}
    for code, number, units in _coded_pairs(table, examples):
        who, cell = divmod(code, size * size)
        cells = found.setdefault(divmod(who, len(table.raters)), {})
        before, seen = cells.get(cell, (0, []))
        cells[cell] = (before + number, sorted(seen + units)[:examples])
    return tuple(_pair(table, who, found[who], rng) for who in sorted(found))


def cohen_kappa(confusion: ArrayLike, rng: np.random.Generator | None = None) -> Figure:
    """Cohen's kappa of a (labels, labels) table of counts; `rng` adds the bootstrap interval.

    Source: Cohen 1960, A coefficient of agreement for nominal scales.
    """
    counts = np.asarray(confusion, np.int64)
    size = len(counts)
    used = np.flatnonzero(counts)
    cells = np.eye(size * size)[used]

    def statistic(times: Floats) -> Floats:
        drawn = (times @ cells).reshape(-1, size, size)
        total = drawn.sum(axis=(1, 2))
        chance = (drawn.sum(axis=1) * drawn.sum(axis=2)).sum(axis=1)
        return _ratio(np.trace(drawn, axis1=1, axis2=2) * total - chance, total * total - chance)

    return _figure(counts.reshape(-1)[used], statistic, (int(counts.sum()), 2), rng)


@dataclass(frozen=True)
class ClauseAgreement:
    """How people agree on whether one clause is broken."""

    clause: str
    units: int
    """Items that two or more people answered."""
    cited: int
    """Of those, items where somebody cited the clause."""
    cited_by_all: int
    """Of those, items where everybody who answered cited it."""
    alpha: Figure
    ac1: Figure
    raw: Figure


def per_clause(
    answers: Table, cited: Iterable[Citation], clauses: Sequence[str] = (), rng: np.random.Generator | None = None
) -> tuple[ClauseAgreement, ...]:
    """One yes-or-no agreement a clause, sorted by clause, over the units that two or more people answered.

    Whoever answered a unit and did not cite the clause said no. `answers` says who answered; its labels do not
    matter. `clauses` names those to list even though nobody cited them. Raises ValueError if somebody cited on a unit
    that they did not answer.
    """
    paired = np.bincount(answers.unit, minlength=len(answers.units))[answers.unit] >= 2
    kept = _kept(answers, paired)
    rows = _cited_rows(answers, cited)
    result = []
    for clause in sorted(rows.keys() | set(clauses)):
        said = np.zeros(len(paired), np.int32)
        said[rows.get(clause, [])] = 1
        result.append(_clause(clause, replace(kept, value=said[paired], labels=("not cited", "cited")), rng))
    return tuple(result)


def _codes(names: Iterable[str], known: Sequence[str], size: int) -> Codes:
    index = {name: at for at, name in enumerate(known)}
    return np.fromiter((index[name] for name in names), np.int32, size)


def _indices(codes: ArrayLike, names: Sequence[str], kind: str) -> Codes:
    column = np.asarray(codes, np.int32)
    if column.size and not 0 <= column.min() <= column.max() < len(names):
        raise ValueError(f"A {kind} code names nothing: there are {len(names)} names.")
    if len(set(names)) < len(names):
        raise ValueError(f"A {kind} name comes twice.")
    return column


def _scores(labels: Sequence[str], metric: Metric) -> Floats:
    if metric in ("nominal", "ordinal"):
        return np.arange(len(labels), dtype=np.float64)
    try:
        return np.array([float(label) for label in labels])
    except ValueError as error:
        raise ValueError(f"The {metric} alpha needs labels that are numbers.") from error


def _alpha(together: Floats, metric: Metric, scores: Floats) -> Floats:
    """(draws,) alphas of (draws, labels, labels) coincidence matrices; nan where no disagreement could occur."""
    margins = together.sum(axis=2)
    if metric == "ordinal":
        scores = np.cumsum(margins, axis=1) - margins / 2
    apart = (scores[..., :, None] - scores[..., None, :]) ** 2
    if metric == "nominal":
        apart = (apart > 0).astype(np.float64)
    if metric == "ratio":
        sums = scores[:, None] + scores[None, :]
        apart = np.divide(apart, sums * sums, out=np.zeros_like(apart), where=sums != 0)
    observed = (together * apart).sum(axis=(1, 2))
    expected = (margins[:, :, None] * margins[:, None, :] * apart).sum(axis=(1, 2))
    return 1 - _ratio(observed * (margins.sum(axis=1) - 1), expected)


def _ratio(above: Floats, below: Floats) -> Floats:
    """Elementwise quotient, nan where `below` is 0."""
    nothing: Floats = np.full(np.shape(below), np.nan)
    return np.divide(above, below, out=nothing, where=below != 0)


def _figure(
    times: Whole,
    statistic: Callable[[Floats], Floats],
    scope: tuple[int, int],
    rng: np.random.Generator | None,
) -> Figure:
    """The statistic of the items themselves, and its percentile interval if there is an `rng`.

    `statistic` takes (draws, patterns) counts of items and gives (draws,) figures, nan where undefined.
    """
    if not scope[0]:
        return Figure(None, None, None, *scope, NO_PAIR)
    value = float(statistic(times[None].astype(np.float64))[0])
    if np.isnan(value):
        return Figure(None, None, None, *scope, ONE_LABEL)
    if rng is None:
        return Figure(value, None, None, *scope)
    drawn = np.concatenate(list(_draws(times, statistic, rng)))
    defined = drawn[~np.isnan(drawn)]
    if not defined.size or np.ptp(defined) < 1e-12:
        return Figure(value, None, None, *scope, "No interval: drawing the items anew never changes the figure.")
    tail = _tail(scope[0])
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Figure(value, float(low), float(high), *scope, _cautions(scope[0], 1 - defined.size / DRAWS))


def _tail(units: int) -> float:
    """Share of draws to cut off at each end: 2.5% with many items, less with few.

    A plain percentile interval is too narrow with few items; this makes up for most of it.
    Source: Hesterberg 2015, What teachers should know about the bootstrap, 'expanded percentile interval'. Student's
    quantile by the first term of Cornish & Fisher.
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    student = z * (1 + (z * z + 1) / (4 * units))
    return NormalDist().cdf(-student * sqrt(units / max(units - 1, 1)))


def _draws(times: Whole, statistic: Callable[[Floats], Floats], rng: np.random.Generator) -> Iterator[Floats]:
    """Figures of `DRAWS` resamples of the items, in blocks.

    Drawing n items with replacement and counting how often each pattern came up is one multinomial draw over the
    patterns, so this equals resampling items (Efron & Tibshirani 1993) at a cost that does not grow with n.
    """
    chances = times / times.sum()
    step = max(1, BLOCK // len(times))
    for done in range(0, DRAWS, step):
        counts = rng.multinomial(times.sum(), chances, size=min(step, DRAWS - done))
        yield statistic(counts.astype(np.float64))


def _cautions(units: int, undefined: float) -> str:
    said = []
    if units < FEW_ITEMS:
        said.append(f"Only {units} items: the interval may be too narrow.")
    if undefined > MANY_UNDEFINED:
        said.append(f"In {undefined:.0%} of the draws the figure was undefined; the interval leaves them out.")
    return " ".join(said)


def _coded_pairs(table: Table, examples: int) -> Iterator[tuple[int, int, list[int]]]:
    """Code of (rater, rater, label, label), how often it came, and its first units; a code may come again.

    The table is sorted, so the ratings of one unit are neighbours: pair each with the next, the next but one, …
    """
    size = len(table.labels)
    for step in count(1):
        left = np.flatnonzero(table.unit[step:] == table.unit[:-step])
        if not left.size:
            return
        right = left + step
        who = table.rater[left].astype(np.int64) * len(table.raters) + table.rater[right]
        code = (who * size + table.value[left]) * size + table.value[right]
        order = np.argsort(code, kind="stable")
        codes, starts, numbers = np.unique(code[order], return_index=True, return_counts=True)
        for one, start, number in zip(codes.tolist(), starts.tolist(), numbers.tolist(), strict=True):
            yield one, number, table.unit[left[order[start : start + min(number, examples)]]].tolist()


def _pair(
    table: Table, who: tuple[int, int], found: dict[int, tuple[int, list[int]]], rng: np.random.Generator | None
) -> Pair:
    size = len(table.labels)
    flat = [
        Cell(number, tuple(table.units[unit] for unit in units))
        for number, units in (found.get(cell, (0, [])) for cell in range(size * size))
    ]
    cells = tuple(tuple(flat[row * size : (row + 1) * size]) for row in range(size))
    total = sum(cell.count for cell in flat)
    raw = share(sum(cells[at][at].count for at in range(size)), total, 2, NO_PAIR)
    kappa = cohen_kappa([[cell.count for cell in row] for row in cells], rng)
    return Pair(table.raters[who[0]], table.raters[who[1]], total, raw, kappa, cells)


def _kept(table: Table, rows: NDArray[np.bool_]) -> Table:
    """The table with only the ratings that `rows` marks."""
    columns = {name: getattr(table, name)[rows] for name in ("unit", "rater", "value", "weight")}
    return replace(table, **columns)


def _cited_rows(answers: Table, cited: Iterable[Citation]) -> dict[str, list[int]]:
    """For each clause, the ratings of `answers` that cited it."""
    units = {name: at for at, name in enumerate(answers.units)}
    raters = {name: at for at, name in enumerate(answers.raters)}
    keys: dict[str, list[int]] = {}
    for unit, rater, clause in cited:
        if unit not in units or rater not in raters:
            raise ValueError(f"{rater} cited {clause} on {unit} without an answer there.")
        keys.setdefault(clause, []).append(units[unit] * len(raters) + raters[rater])
    own = answers.unit.astype(np.int64) * len(raters) + answers.rater
    rows = {}
    for clause, wanted in keys.items():
        at = np.searchsorted(own, wanted)
        if np.any(np.searchsorted(own, wanted, side="right") == at):
            raise ValueError(f"Somebody cited {clause} on an item without an answer there.")
        rows[clause] = at.tolist()
    return rows


def _clause(clause: str, table: Table, rng: np.random.Generator | None) -> ClauseAgreement:
    counts, times = table.patterns
    return ClauseAgreement(
        clause,
        int(times.sum()),
        int(times[counts[:, 1] > 0].sum()),
        int(times[counts[:, 0] == 0].sum()),
        krippendorff_alpha(table, rng=rng),
        gwet_ac1(table, rng),
        raw_agreement(table, rng),
    )
