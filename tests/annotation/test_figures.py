"""What the figures are worked out from: the answers that stand, however people got to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.acts import QUESTIONS, ActBody
from annotation.store import Store, open_store
from annotation.types import Value
from tests.fixtures.desk import ANA, BEN, CAM, TWO, a_reply, an_act, an_empty_store, deal, judge, replies, verdict


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from an_empty_store(request, tmp_path)


def answers(store: Store) -> set[tuple[str, str, str]]:
    return {(one.reply_id, one.reviewer, one.value) for one in store.figures.answers("voice")}


def test_the_newest_answer_of_each_reviewer_counts(store: Store) -> None:
    (only,) = replies(store, 1, TWO)
    judge(store, ANA, TWO, "pass")
    judge(store, BEN, TWO, "fail")
    store.reviews.save(an_act(only, ANA, store.tasks.claim_one(ANA, only), "unsure"))
    assert answers(store) == {(only, "ana", "unsure"), (only, "ben", "fail")}
    assert {(one.characters, one.seconds) for one in store.figures.answers("voice")} == {(len("Reply 0."), None)}


def test_what_was_taken_back_or_asked_anew_does_not_count(store: Store) -> None:
    one, two = replies(store, 2)
    judge(store, ANA)
    judge(store, ANA)
    store.reviews.undo("ana")
    assert answers(store) == {(one, "ana", "pass")}
    store.reviews.requeue([one], ["policy"], "cleo", "a rule changed")
    assert answers(store) == {(one, "ana", "pass")}, "another question was asked anew"
    store.reviews.requeue([one], ["voice"], "cleo", "a rule changed")
    assert answers(store) == set()
    judge(store, BEN, value="fail")
    assert answers(store) in ({(one, "ben", "fail")}, {(two, "ben", "fail")})


def test_a_repeat_is_set_against_the_first_answer_and_counts_for_nothing_else(store: Store) -> None:
    (only,) = replies(store, 1)
    judge(store, ANA, value="pass")
    store.reviews.save(an_act(only, ANA, value="fail", route="repeat"))
    assert list(store.figures.repeats("voice")) == [("ana", only, "pass", "fail")]
    assert answers(store) == {(only, "ana", "pass")}
    store.reviews.undo("ana")
    assert list(store.figures.repeats("voice")) == []


def test_checks_are_set_against_what_is_right_now(store: Store) -> None:
    (only,) = replies(store, 1)
    store.tasks.set_gold(only, {"voice": "fail"}, "cleo")
    store.reviews.save(an_act(only, ANA, store.tasks.claim_one(ANA, only), "pass"))
    assert list(store.figures.checks("voice")) == [("ana", only, "pass", "fail")]
    assert list(store.figures.checks("policy")) == []
    store.tasks.set_gold(only, {"voice": "pass"}, "cleo")
    assert list(store.figures.checks("voice")) == [("ana", only, "pass", "pass")]
    assert answers(store) == set()


def test_time_and_edits_are_of_what_stands(store: Store) -> None:
    first, second = replies(store, 2)
    hold = deal(store, ANA)
    store.reviews.save(an_act(first, ANA, hold, seconds=9.5, correction="Better."))
    hold = deal(store, ANA)
    store.reviews.save(an_act(second, ANA, hold, seconds=3.0, correction="Worse."))
    store.reviews.undo("ana")
    assert list(store.figures.paces()) == [("ana", first, 9.5, len("Reply 0."))]
    assert list(store.figures.edits()) == [("ana", "Reply 0.", "Better.")]


def test_answers_are_counted_by_the_rules_they_cite_and_found_again(store: Store) -> None:
    ids = replies(store, 3)
    for reply, rules in zip(ids, (("a", "b"), ("a", "b"), ()), strict=True):
        hold = deal(store, ANA)
        fault = verdict("fail", "policy", clause_ids=rules)
        store.reviews.save(an_act(reply, ANA, hold, verdicts=(fault,)))
    assert sorted(store.figures.cited(2)) == [("policy", "fail", (), 1, 1), ("policy", "fail", ("a", "b"), 1, 2)]
    assert store.figures.cited(1) == []
    assert {reply_id for reply_id, _ in store.figures.given_by("policy", "fail", ("a", "b"), 1)} == set(ids[:2])
    assert store.figures.given_by("policy", "fail", ("a",), 1) == []
    assert store.figures.given_by("policy", "fail", ("a", "b"), 2) == []
    found = [(ids[place], "ana", f"Reply {place}.") for place in (0, 1)]
    assert store.figures.answers_with("policy", "fail", ("a", "b"), 1, 9) == found
    assert store.figures.answers_with("policy", "fail", ("a", "b"), 1, 1) == found[:1]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["save", "save", "save", "undo", "requeue", "skip"]),
        st.sampled_from([ANA, BEN, CAM]),
        st.integers(0, 2),
        st.sampled_from(["pass", "fail", "unsure", "not_applicable"]),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_the_answers_are_those_of_the_replayed_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object, int, Value]]
) -> None:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('figures') / 'store.db'}")
    ids = [a_reply(store) for _ in range(3)]
    for step, who, place, value in steps:
        name = who.name  # type: ignore[attr-defined]
        if step == "save":
            said = tuple(verdict(value, question) for question in QUESTIONS[: place + 1])
            store.reviews.save(an_act(ids[place], who, verdicts=said))  # type: ignore[arg-type]
        elif step == "undo":
            store.reviews.undo(name)
        elif step == "requeue":
            store.reviews.requeue([ids[place]], [QUESTIONS[place]], "cleo", "why")
        else:
            store.reviews.add("skip", ids[place], name, ActBody(text="why"))
    for question in QUESTIONS:
        counted = {(one.reply_id, one.reviewer): one.value for one in store.figures.answers(question)}
        replayed = {
            (reply_id, person): given[question].value
            for reply_id in ids
            for person, given in store.reviews.standing(reply_id).answers.items()
            if question in given
        }
        assert counted == replayed
    store.close()
