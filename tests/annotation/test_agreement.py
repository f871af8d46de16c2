"""Agreement: textbook values, honest intervals, and what is undefined is said in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.agreement import (
    FEW_ITEMS,
    NO_PAIR,
    ONE_LABEL,
    Citation,
    Figure,
    Metric,
    Rating,
    Table,
    cohen_kappa,
    gwet_ac1,
    krippendorff_alpha,
    per_clause,
    per_pair,
    raw_agreement,
    share,
    share_of_items,
)

TEXTBOOK = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
"""Krippendorff 2011, section C: a row a rater, a column a unit, a dot where nothing was said."""
FIGURES: tuple[Callable[[Table], Figure], ...] = (krippendorff_alpha, gwet_ac1, raw_agreement)


def grid(*rows: str) -> list[Rating]:
    """A row a rater, a column a unit; a dot is a missing rating."""
    return [
        Rating(f"u{unit:02}", f"r{rater}", value)
        for rater, row in enumerate(rows)
        for unit, value in enumerate(row.split())
        if value != "."
    ]


def simulate(units: int, rng: np.random.Generator, priors: tuple[float, ...], accuracy: float = 0.85) -> Table:
    """Three raters, right with `accuracy`, otherwise any other label; a fifth of the ratings is missing."""
    truth = np.repeat(rng.choice(len(priors), units, p=priors), 3)
    wrong = (truth + rng.integers(1, len(priors), truth.size)) % len(priors)
    value = np.where(rng.random(truth.size) < accuracy, truth, wrong)
    kept = rng.random(truth.size) < 0.8
    unit, rater = np.divmod(np.flatnonzero(kept), 3)
    names = [str(number) for number in range(units)]
    return Table.from_codes(unit, rater, value[kept], units=names, raters=["x", "y", "z"], labels=["a", "b", "c"])


def limits(priors: tuple[float, ...], accuracy: float = 0.85) -> tuple[float, float, float]:
    """What alpha, AC1 and raw agreement of `simulate` tend to with ever more units."""
    size = len(priors)
    confusion = np.full((size, size), (1 - accuracy) / (size - 1))
    np.fill_diagonal(confusion, accuracy)
    raw = float(np.array(priors) @ (confusion**2).sum(axis=1))
    margins = np.array(priors) @ confusion
    by_chance = float((margins**2).sum())
    spread = (1 - by_chance) / (size - 1)
    return 1 - (1 - raw) / (1 - by_chance), (raw - spread) / (1 - spread), raw


ratings = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(1, 3)), unique_by=lambda row: row[:2], max_size=30
).map(lambda rows: [Rating(f"u{unit}", f"r{rater}", str(value)) for unit, rater, value in rows])


@pytest.mark.parametrize(
    ("metric", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_alpha_of_the_textbook(metric: Metric, value: float) -> None:
    figure = krippendorff_alpha(Table.of(grid(*TEXTBOOK)), metric)
    assert figure.value == pytest.approx(value, abs=5e-4)
    assert (figure.units, figure.raters, figure.words) == (11, 4, "")


def test_ac1_of_the_textbook() -> None:
    """irrCAC and Gwet 2014 give .77544 for the same data."""
    assert gwet_ac1(Table.of(grid(*TEXTBOOK))).value == pytest.approx(0.77544, abs=5e-6)


def test_ac1_stays_high_where_kappa_and_alpha_collapse() -> None:
    """Gwet 2002: 118 and 5 and 2 and 0 items of 125 give kappa -.0234 and AC1 .9408."""
    first = ["+"] * 118 + ["+"] * 5 + ["-"] * 2
    second = ["+"] * 118 + ["-"] * 5 + ["+"] * 2
    table = Table.of(grid(" ".join(first), " ".join(second)))
    alpha = krippendorff_alpha(table).value
    assert alpha is not None
    assert alpha < 0
    assert gwet_ac1(table).value == pytest.approx(0.9408, abs=5e-5)
    assert raw_agreement(table).value == pytest.approx(118 / 125)
    assert per_pair(table)[0].kappa.value == pytest.approx(-0.0234, abs=5e-5)


def test_kappa_of_the_textbook() -> None:
    assert cohen_kappa([[20, 5], [10, 15]]).value == pytest.approx(0.4)
    figure = cohen_kappa([[20, 5], [10, 15]], np.random.default_rng(1))
    assert figure.low is not None
    assert figure.high is not None
    # The large-sample error is .126 (Fleiss, Cohen & Everitt 1969).
    assert figure.high - figure.low == pytest.approx(2 * 1.96 * 0.126, abs=0.05)


def test_perfect_varied_data_give_one_without_an_interval() -> None:
    table = Table.of(grid("a b c a", "a b c a", "a b . a"))
    for figure in (function(table, rng=np.random.default_rng(1)) for function in (krippendorff_alpha, gwet_ac1)):
        assert (figure.value, figure.low, figure.high) == (1.0, None, None)
        assert figure.words == "No interval: drawing the items anew never changes the figure."


def test_one_label_is_undefined_in_words() -> None:
    for labels in (None, ("fail", "pass")):
        table = Table.of(grid("pass pass", "pass pass"), labels)
        for figure in (krippendorff_alpha(table), gwet_ac1(table), per_pair(table)[0].kappa):
            assert figure == Figure(None, None, None, 2, 2, ONE_LABEL)
        assert raw_agreement(table).value == 1.0


@pytest.mark.parametrize("rows", [(), ("a b",), ("a .", ". b")])
def test_without_two_reviewers_all_is_undefined_in_words(rows: tuple[str, ...]) -> None:
    table = Table.of(grid(*rows))
    assert [function(table) for function in FIGURES] == [Figure(None, None, None, 0, 0, NO_PAIR)] * 3
    assert per_pair(table) == ()
    assert per_clause(table, [], ["c1"])[0].alpha.words == NO_PAIR


def test_units_with_one_rating_are_left_out_of_alpha() -> None:
    rows = grid("a b a b", "a b b b")
    assert krippendorff_alpha(Table.of(rows)) == krippendorff_alpha(Table.of([*rows, Rating("v", "r9", "a")]))


def test_the_last_of_two_ratings_by_one_person_counts() -> None:
    rows = grid("a b a", "a b b")
    assert krippendorff_alpha(Table.of([*rows, Rating("u02", "r1", "a")])).value == 1.0


def test_the_number_of_possible_labels_matters_to_ac1_alone() -> None:
    rows = grid("a b a b a", "a b b b a")
    two, three = Table.of(rows), Table.of(rows, ["a", "b", "c"])
    assert krippendorff_alpha(two) == krippendorff_alpha(three)
    assert gwet_ac1(two).value == pytest.approx(0.6)  # (.8 − .5) / (1 − .5)
    assert gwet_ac1(three).value == pytest.approx((0.8 - 0.25) / 0.75)


def test_codes_and_ratings_give_the_same_table() -> None:
    names = {"units": ["u", "v"], "raters": ["ana", "ben"], "labels": ["no", "yes"]}
    coded = Table.from_codes([1, 0, 0], [0, 1, 0], [1, 0, 1], weight=[1, 0.5, 1], **names)
    named = Table.of([Rating("v", "ana", "yes"), Rating("u", "ben", "no", 0.5), Rating("u", "ana", "yes")])
    for column in ("unit", "rater", "value", "weight"):
        assert getattr(coded, column).tolist() == getattr(named, column).tolist()
    assert (coded.units, coded.raters, coded.labels) == (named.units, named.raters, named.labels)


def test_a_bad_table_is_refused() -> None:
    names = {"units": ["u"], "raters": ["ana"], "labels": ["yes"]}
    with pytest.raises(ValueError, match="A label code names nothing"):
        Table.from_codes([0], [0], [1], **names)
    with pytest.raises(ValueError, match="equally long"):
        Table.from_codes([0], [0, 0], [0], **names)
    with pytest.raises(ValueError, match="weight"):
        Table.from_codes([0], [0], [0], weight=[-1], **names)
    with pytest.raises(ValueError, match="twice"):
        Table.from_codes([0], [0], [0], **{**names, "labels": ["yes", "yes"]})
    with pytest.raises(ValueError, match="not listed: maybe"):
        Table.of([Rating("u", "ana", "maybe")], ["yes", "no"])
    with pytest.raises(ValueError, match="labels that are numbers"):
        krippendorff_alpha(Table.of(grid("a b", "a b")), "interval")


def slow_alpha(rows: list[Rating]) -> float | None:
    """By the definition: disagreeing pairs within units against disagreeing pairs of all values."""
    units: dict[str, list[str]] = {}
    for row in rows:
        units.setdefault(row.unit, []).append(row.value)
    paired = [values for values in units.values() if len(values) > 1]
    pool = [value for values in paired for value in values]
    observed = sum(sum(a != b for a, b in permutations(values, 2)) / (len(values) - 1) for values in paired)
    expected = sum(a != b for a, b in permutations(pool, 2))
    return 1 - observed * (len(pool) - 1) / expected if expected else None


@given(ratings)
def test_alpha_follows_its_definition(rows: list[Rating]) -> None:
    slow = slow_alpha(rows)
    assert krippendorff_alpha(Table.of(rows)).value == (None if slow is None else pytest.approx(slow))


@given(ratings, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_and_names_of_people_change_nothing(rows: list[Rating], random: object) -> None:
    shuffled = random.sample(rows, len(rows))  # type: ignore[attr-defined]
    renamed = [row._replace(rater={"r0": "z", "r1": "m"}.get(row.rater, row.rater)) for row in rows]
    for function in (krippendorff_alpha, gwet_ac1, raw_agreement):
        figure = function(Table.of(rows), rng=np.random.default_rng(5))
        assert function(Table.of(shuffled), rng=np.random.default_rng(5)) == figure
        assert function(Table.of(renamed), rng=np.random.default_rng(5)) == figure
    assert per_pair(Table.of(shuffled)) == per_pair(Table.of(rows))


@given(ratings, st.permutations(["1", "2", "3"]))
def test_renaming_labels_changes_no_nominal_figure(rows: list[Rating], names: list[str]) -> None:
    renamed = [row._replace(value=names[int(row.value) - 1]) for row in rows]
    for function in FIGURES:
        before, after = function(Table.of(rows)), function(Table.of(renamed))
        assert after.value == (None if before.value is None else pytest.approx(before.value))
        assert replace(after, value=None) == replace(before, value=None)


@given(ratings)
def test_every_unit_twice_changes_ac1_and_raw_not_at_all_and_alpha_by_its_small_sample_term(
    rows: list[Rating],
) -> None:
    once, twice = Table.of(rows), Table.of([*rows, *(row._replace(unit=f"{row.unit}'") for row in rows)])
    for function in (gwet_ac1, raw_agreement):
        before, after = function(once).value, function(twice).value
        assert after == (None if before is None else pytest.approx(before))
    before, after = krippendorff_alpha(once).value, krippendorff_alpha(twice).value
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        size = once.patterns.pairable().counts.T @ once.patterns.pairable().times
        n = float(size.sum())
        assert 1 - after == pytest.approx((1 - before) * (2 * n - 1) / (2 * n - 2))


@pytest.mark.slow
def test_the_intervals_cover_as_often_as_they_say() -> None:
    """1,000 simulated studies of 200 items: each interval holds the truth in 95% of them, give or take 1.5 points.

    The simulation's own standard error is .7 points.
    """
    priors, studies = (0.6, 0.3, 0.1), 1000
    rng = np.random.default_rng(2024)
    hits = np.zeros(3)
    for _ in range(studies):
        table = simulate(200, rng, priors)
        for at, truth in enumerate(limits(priors)):
            figure = (krippendorff_alpha, gwet_ac1, raw_agreement)[at](table, rng=rng)
            assert figure.low is not None
            assert figure.high is not None
            hits[at] += figure.low <= truth <= figure.high
    assert hits / studies == pytest.approx(np.full(3, 0.95), abs=0.015)


def test_drawing_patterns_equals_drawing_units() -> None:
    """The interval agrees with a plain bootstrap that draws the units themselves."""
    rng = np.random.default_rng(3)
    table = simulate(80, rng, (0.6, 0.3, 0.1))
    figure = krippendorff_alpha(table, rng=rng)
    counts = np.zeros((80, 3))
    np.add.at(counts, (table.unit, table.value), 1)
    counts = counts[counts.sum(axis=1) > 1]
    plain = []
    for _ in range(1000):
        drawn = counts[rng.integers(0, len(counts), len(counts))]
        people = drawn.sum(axis=1)
        margins, total = drawn.sum(axis=0), people.sum()
        observed = ((people**2 - (drawn**2).sum(axis=1)) / (people - 1)).sum()
        plain.append(1 - (total - 1) * observed / (total**2 - (margins**2).sum()))
    assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(plain, [0.023, 0.977])), abs=0.02)


def test_the_same_seed_gives_the_same_interval() -> None:
    table = Table.of(grid(*TEXTBOOK))
    first, again = (gwet_ac1(table, np.random.default_rng(7)) for _ in range(2))
    assert first == again
    assert gwet_ac1(table).low is None


def test_few_items_and_many_undefined_draws_are_said_in_words() -> None:
    figure = krippendorff_alpha(Table.of(grid("a a a a b", "a a a a a")), rng=np.random.default_rng(1))
    assert figure.words.startswith("Only 5 items: the interval may be too narrow. In 3")
    assert figure.words.endswith("% of the draws the figure was undefined; the interval leaves them out.")
    enough = simulate(2 * FEW_ITEMS, np.random.default_rng(1), (0.6, 0.3, 0.1))
    assert krippendorff_alpha(enough, rng=np.random.default_rng(1)).words == ""


def test_wilson_intervals_of_the_literature() -> None:
    """Newcombe 1998, table I, method 3."""
    for hits, total, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)]:
        figure = share(hits, total, 1, "")
        assert (figure.low, figure.high) == pytest.approx((low, high), abs=5e-5)


def test_a_share_of_items_answered_once_or_always_alike_is_wilsons() -> None:
    for answers in (1, 3):
        items = [(answers, answers)] * 160 + [(0, answers)] * 40
        figure, alone = share_of_items(items, 1, ""), share(160, 200, 1, "")
        assert (figure.value, figure.units) == (0.8, 200)
        assert (figure.low, figure.high) == pytest.approx((alone.low, alone.high), abs=2e-3)
    whole, none = share_of_items([(3, 3)] * 20, 1, ""), share_of_items([(0, 3)] * 20, 1, "")
    assert (whole.low, none.high) == pytest.approx((1 - 0.1611, 0.1611), abs=5e-5)
    assert share_of_items([(0, 0)], 1, "Nothing.").words == "Nothing."


@pytest.mark.parametrize("alike", [0, 0.5, 1])
def test_the_interval_of_a_share_of_items_holds_the_truth_as_often_as_it_says(alike: float) -> None:
    """Three answers an item; for a share `alike` of the items all three are right or wrong together."""
    rng, right, items, held, pooled, times = np.random.default_rng(5), 0.8, 100, 0, 0, 2000
    for _ in range(times):
        together = rng.random((items, 1)) < alike
        hits = np.where(together, rng.random((items, 1)) < right, rng.random((items, 3)) < right).sum(axis=1)
        found, one_by_one = share_of_items([(int(one), 3) for one in hits], 1, ""), share(int(hits.sum()), 300, 1, "")
        held += found.low <= right <= found.high  # type: ignore[operator]
        pooled += one_by_one.low <= right <= one_by_one.high  # type: ignore[operator]
    assert held / times == pytest.approx(0.95, abs=0.015)
    assert alike == 0 or pooled / times < 0.9


def test_each_pair_has_its_confusion_with_examples() -> None:
    table = Table.of(grid("a a a b .", "a a b b a", ". a . . ."))
    pairs = per_pair(table, examples=1, rng=np.random.default_rng(1))
    assert [(pair.first, pair.second, pair.units) for pair in pairs] == [
        ("r0", "r1", 4),
        ("r0", "r2", 1),
        ("r1", "r2", 1),
    ]
    first = pairs[0]
    assert [[cell.count for cell in row] for row in first.cells] == [[2, 1], [0, 1]]
    assert [[cell.examples for cell in row] for row in first.cells] == [[("u00",), ("u02",)], [(), ("u03",)]]
    assert first.raw.value == 0.75
    assert first.kappa.value == pytest.approx(0.5)
    assert pairs[1].kappa.words == ONE_LABEL


@given(ratings)
def test_pairs_add_up_to_all_pairs_of_labels(rows: list[Rating]) -> None:
    table = Table.of(rows)
    raw = raw_agreement(table)
    pairs = per_pair(table)
    total = sum(pair.units for pair in pairs)
    assert bool(total) == (raw.value is not None)
    if raw.value is not None:
        agreeing = sum(pair.cells[at][at].count for pair in pairs for at in range(len(table.labels)))
        assert raw.value == pytest.approx(agreeing / total)


def test_each_clause_is_its_own_question() -> None:
    answers = Table.of(grid("x x x x x", "x x x x .", ". . . x ."))
    cited = [
        Citation("u00", "r0", "no-price"),
        Citation("u00", "r1", "no-price"),
        Citation("u01", "r1", "no-price"),
        Citation("u04", "r0", "no-price"),
        Citation("u02", "r0", "be-kind"),
    ]
    kind, price, unused = per_clause(answers, cited, ["unused"])
    assert (kind.clause, kind.units, kind.cited, kind.cited_by_all) == ("be-kind", 4, 1, 0)
    assert (price.clause, price.units, price.cited, price.cited_by_all) == ("no-price", 4, 2, 1)
    plain = Table.of(grid("y n n n .", "y y n n .", ". . . n ."))
    assert (price.alpha, price.ac1, price.raw) == tuple(function(plain) for function in FIGURES)
    assert (unused.alpha.words, unused.raw.value) == (ONE_LABEL, 1.0)


def test_a_citation_needs_an_answer() -> None:
    answers = Table.of(grid("x .", "x x"))
    for citation in (Citation("u01", "r0", "c"), Citation("u09", "r0", "c"), Citation("u00", "r9", "c")):
        with pytest.raises(ValueError, match="without an answer"):
            per_clause(answers, [citation])
