"""Reviewer quality: the published example, recovery of known confusion, and the plain rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.agreement import NO_PAIR, ONE_LABEL, Floats, Rating, Table, Whole
from annotation.competence import (
    RUSHED_WEIGHT,
    Consensus,
    dawid_skene,
    edit_distance,
    gold_accuracy,
    items_per_hour,
    rushed,
    self_consistency,
)

PATIENTS = """
111-1-1-1-1 333-4-3-3-4 112-2-1-2-2 222-3-1-2-1 222-3-2-2-2 222-3-3-2-2 122-2-1-1-1 333-3-4-3-3 222-2-2-2-3
232-2-2-2-3 444-4-4-4-4 222-3-3-4-3 111-1-1-1-1 222-3-2-1-2 121-1-1-1-1 111-2-1-1-1 111-1-1-1-1 111-1-1-1-1
222-2-2-2-1 222-1-3-2-2 222-2-2-2-2 222-2-2-2-1 222-3-2-2-2 221-2-2-2-2 111-1-1-1-1 111-1-1-1-1 232-2-2-2-2
111-1-1-1-1 111-1-1-1-1 112-1-1-2-1 111-1-1-1-1 333-3-2-3-3 111-1-1-1-1 222-2-2-2-2 222-3-2-3-2 433-4-3-4-3
221-2-2-3-2 232-3-2-3-3 333-3-4-3-2 111-1-1-1-1 111-1-1-1-1 121-2-1-1-1 232-2-2-2-2 121-1-1-1-1 222-2-2-2-2
"""
"""Dawid & Skene 1979, table 1: a word a patient, a part an observer; the first observer answered three times."""
PRIORS = np.array([0.5, 0.3, 0.15, 0.05])


def patients() -> Table:
    """Built past `Table.of`, which would keep one answer a person and item."""
    rows = [
        (unit, rater, int(value) - 1)
        for unit, patient in enumerate(PATIENTS.split())
        for rater, values in enumerate(patient.split("-"))
        for value in values
    ]
    unit, rater, value = np.array(rows, np.int32).T
    names = tuple(str(number) for number in range(45))
    return Table(unit, rater, value, np.ones(unit.size), names, tuple("12345"), tuple("1234"))


def confusions(*accuracies: float) -> Floats:
    """(raters, 4, 4): right with the accuracy, otherwise mostly the label next to the true one."""
    wrong = np.array([[0, 0.8, 0.1, 0.1], [0.5, 0, 0.4, 0.1], [0.1, 0.5, 0, 0.4], [0.1, 0.1, 0.8, 0]])
    return np.array([np.eye(4) * accuracy + wrong * (1 - accuracy) for accuracy in accuracies])


def simulate(confusion: Floats, units: int, seed: int, kept: float = 0.6) -> tuple[Table, Whole]:
    """A table of ratings, each there with probability `kept`, and the true label of each unit."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, units, p=PRIORS)
    chances = confusion[:, truth].cumsum(axis=2)
    value = (rng.random((*chances.shape[:2], 1)) > chances).sum(axis=2)
    rater, unit = np.nonzero(rng.random(value.shape) < kept)
    names = [f"u{number}" for number in range(units)]
    raters = [f"r{number}" for number in range(len(confusion))]
    return Table.from_codes(unit, rater, value[rater, unit], units=names, raters=raters, labels=list("abcd")), truth


def competences(consensus: Consensus) -> list[float]:
    return [value for value in consensus.competence.values() if value is not None]


def test_the_published_example() -> None:
    """Dawid & Skene 1979, tables 2 and 3."""
    fitted = dawid_skene(patients(), smoothing=0)
    assert fitted.priors == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)
    assert fitted.confusion[0] == pytest.approx(
        np.array([[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]), abs=0.006
    )
    assert fitted.posterior[1].argmax() == 3  # patient 2 is a 4, though most answers were 3
    assert fitted.words == "Only 45 shared items: take it as a first impression."


def test_known_confusion_is_recovered() -> None:
    confusion = confusions(0.95, 0.85, 0.75, 0.65, 0.9)
    table, truth = simulate(confusion, 6000, seed=1)
    fitted = dawid_skene(table)
    assert fitted.priors == pytest.approx(PRIORS, abs=0.02)
    common = fitted.confusion[:, :3]
    assert common == pytest.approx(confusion[:, :3], abs=0.06)
    assert fitted.confusion[:, 3] == pytest.approx(confusion[:, 3], abs=0.15)  # the rare label: 5% of the items
    assert fitted.words == ""
    assert competences(fitted) == pytest.approx([0.95, 0.85, 0.75, 0.65, 0.9], abs=0.02)
    votes = np.zeros(fitted.posterior.shape)
    np.add.at(votes, (table.unit, table.value), 1)
    assert np.mean(fitted.posterior.argmax(axis=1) == truth) > np.mean(votes.argmax(axis=1) == truth) + 0.01


def test_the_posterior_is_calibrated() -> None:
    """Of the items whose label it holds 60–90% probable, about that share is right."""
    table, truth = simulate(confusions(0.9, 0.8, 0.7, 0.6, 0.8), 6000, seed=4)
    posterior = dawid_skene(table).posterior
    sure, right = posterior.max(axis=1), posterior.argmax(axis=1) == truth
    middling = (sure > 0.6) & (sure < 0.9)
    assert right[middling].mean() == pytest.approx(sure[middling].mean(), abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_whoever_answers_at_random_ranks_last(seed: int) -> None:
    confusion = confusions(0.9, 0.8, 0, 0.75, 0.85)
    confusion[2] = 0.25
    fitted = dawid_skene(simulate(confusion, 300, seed)[0])
    assert min(fitted.competence, key=lambda name: fitted.competence[name] or 0) == "r2"


def test_one_step_follows_the_paper() -> None:
    """Against loops written from equations 2.3 to 2.5, with weights and smoothing."""
    table, _ = simulate(confusions(0.9, 0.7, 0.6), 40, seed=2, kept=0.9)
    weight = np.random.default_rng(2).uniform(0.2, 1, table.unit.size)
    table = Table(table.unit, table.rater, table.value, weight, table.units, table.raters, table.labels)
    fitted, slow = dawid_skene(table, rounds=1), slow_round(table, 0.5)
    assert fitted.priors == pytest.approx(slow[0])
    assert fitted.confusion == pytest.approx(slow[1])
    assert fitted.words.endswith("Not settled after 1 rounds: read it with care.")


def slow_round(table: Table, smoothing: float) -> tuple[Floats, Floats]:
    """Vote shares, then one M, E and M step."""
    rows = list(zip(table.unit, table.rater, table.value, table.weight, strict=True))
    shared = [unit for unit in range(len(table.units)) if np.sum(table.unit == unit) > 1]
    truth = {unit: np.zeros(4) for unit in shared}
    for unit, _, value, weight in rows:
        if unit in truth:
            truth[unit][value] += weight
    truth = {unit: votes / votes.sum() for unit, votes in truth.items()}
    for step in range(2):
        priors = np.mean(list(truth.values()), axis=0)
        confusion = np.full((len(table.raters), 4, 4), smoothing / 4)
        for unit, rater, value, weight in rows:
            if unit in truth:
                confusion[rater, :, value] += weight * truth[unit]
        confusion /= confusion.sum(axis=2, keepdims=True)
        if step == 0:
            truth = {unit: priors.copy() for unit in shared}
            for unit, rater, value, weight in rows:
                if unit in truth:
                    truth[unit] *= confusion[rater, :, value] ** weight
            truth = {unit: odds / odds.sum() for unit, odds in truth.items()}
    return priors, confusion


@given(st.permutations(range(4)), st.permutations(range(4)))
@settings(max_examples=20, deadline=None)
def test_names_and_order_change_nothing(raters: list[int], labels: list[int]) -> None:
    table, _ = simulate(confusions(0.9, 0.8, 0.7, 0.6), 60, seed=3)
    renamed = Table.from_codes(
        table.unit[::-1],
        np.array(raters)[table.rater][::-1],
        np.array(labels)[table.value][::-1],
        units=table.units,
        raters=table.raters,
        labels=table.labels,
    )
    before, after = dawid_skene(table), dawid_skene(renamed)
    assert after.priors[labels] == pytest.approx(before.priors)
    assert after.confusion[raters][:, labels][:, :, labels] == pytest.approx(before.confusion)
    assert after.posterior[:, labels] == pytest.approx(before.posterior)
    assert [after.competence[f"r{rater}"] for rater in raters] == pytest.approx(competences(before))


def test_half_the_weight_is_half_a_rating() -> None:
    """Every answer twice, at weight 1/2, tells as much as every answer once."""
    table = patients()
    once = np.append(np.diff(table.unit * 5 + table.rater) > 0, True)
    columns = (table.unit[once], table.rater[once], table.value[once])
    names = (table.units, table.raters, table.labels)
    single = dawid_skene(Table(*columns, np.ones(once.sum()), *names))
    unit, rater, value = (np.repeat(column, 2) for column in columns)
    double = dawid_skene(Table(unit, rater, value, np.full(unit.size, 1 / 2), *names))
    assert double.posterior == pytest.approx(single.posterior)
    assert double.competence == pytest.approx(single.competence)


def test_a_rating_without_weight_is_no_rating() -> None:
    assert dawid_skene(Table.of([Rating("u", "ana", "a"), Rating("u", "ben", "b", 0)])).words == NO_PAIR


def test_rushed_ratings_move_the_consensus_less() -> None:
    table, _ = simulate(confusions(0.8, 0.8, 0.8), 400, seed=6, kept=1)
    hasty = np.where(table.rater == 2, RUSHED_WEIGHT, 1.0)
    weighed = Table(table.unit, table.rater, table.value, hasty, table.units, table.raters, table.labels)
    given = table.value[table.rater == 2]
    plain, light = (dawid_skene(one).posterior[np.arange(400), given].mean() for one in (table, weighed))
    assert light < plain - 0.01


def test_what_the_labels_cannot_tell_is_said_in_words() -> None:
    alone = dawid_skene(Table.of([Rating("u", "ana", "a"), Rating("v", "ben", "b")]))
    assert (alone.words, alone.competence) == (NO_PAIR, {"ana": None, "ben": None})
    assert alone.posterior.tolist() == [[1, 0], [0, 1]]
    unanimous = dawid_skene(Table.of([Rating("u", "ana", "a"), Rating("u", "ben", "a")], ["a", "b"]))
    assert (unanimous.words, unanimous.competence) == (ONE_LABEL, {"ana": None, "ben": None})
    assert dawid_skene(Table.of([])).words == NO_PAIR
    rows = [Rating(unit, who, unit) for unit in "abab" for who in ("ana", "ben")]
    two = dawid_skene(Table.of([*rows, Rating("z", "eva", "a")], ["a", "b"]))
    assert two.words == (
        "Only two reviewers share items: where they differ, the labels cannot tell who is right. "
        "Only 2 shared items: take it as a first impression."
    )
    assert two.competence["eva"] is None


def test_repeats_and_gold() -> None:
    figure = self_consistency([[("a", "a")]] * 8 + [[("a", "b")]] * 2)
    assert (figure.value, figure.units, figure.raters) == (0.8, 10, 1)
    assert (figure.low, figure.high) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert gold_accuracy([[("pass", "pass")], [("fail", "pass")]]).value == 0.5
    assert self_consistency([]).words == "Undefined: no item was answered twice."
    assert gold_accuracy([]).words == "Undefined: no gold item was answered."


@pytest.mark.parametrize(
    ("seconds", "words", "hurried"),
    [
        (None, 400, False),
        (1.9, 1, True),
        (2, 1, False),
        (9.9, 80, True),
        (10, 80, False),
        (29, 900, True),
        (30, 900, False),
    ],
)
def test_rushed(seconds: float | None, words: int, hurried: bool) -> None:
    assert rushed(seconds, words) is hurried


def test_pace_is_the_median() -> None:
    assert items_per_hour([30, 40, 9000]) == 90
    assert items_per_hour([]) is None
    assert items_per_hour([0, 0]) is None


def test_edit_distance_counts_words() -> None:
    assert edit_distance("the cat sat", "the dog sat down") == 0.5
    assert edit_distance("same  words", "same words") == 0
    assert edit_distance("", "") == 0
    assert edit_distance("", "new") == 1


@given(st.text(), st.text())
def test_edit_distance_is_symmetric_and_bounded(one: str, other: str) -> None:
    assert 0 <= edit_distance(one, other) == edit_distance(other, one) <= 1
