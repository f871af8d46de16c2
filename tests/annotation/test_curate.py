"""What becomes a row, what does not, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.curate import HOLD_OUT_FROM, Rows, joined
from annotation.errors import NotFound, UserError
from annotation.queue import QueueSettings
from annotation.store import Store, open_store
from annotation.store.comparisons import Answer, VoteForm
from annotation.store.reviews import ReviewAct, Verdict
from annotation.types import Message, Preference, Provenance, Question, Turn, Value
from annotation.versions import MANIFEST, freeze, read_rows, reasons, recover, rows_in, verify
from studio.pages.datasets import _rows_html

BASE = Provenance(model="m")
QUESTIONS: tuple[Question, ...] = ("voice", "policy", "bias")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path / 'store.db'}")


def reply(store: Store, asked: str = "Hello?", said: str = "Yo.") -> Turn:
    conversation = store.conversations.start("chat")
    question = store.conversations.add_turn(conversation, None, "user", asked)
    return store.conversations.add_turn(conversation, question.id, "assistant", said)


def judge(store: Store, turn: Turn, correction: str | None = None, **values: Value) -> None:
    verdicts = tuple(Verdict(question=question, value=values[question]) for question in QUESTIONS if question in values)
    act = ReviewAct(reply_id=turn.id, reviewer="ana", charter_version=1, verdicts=verdicts, correction=correction)
    store.reviews.save(act)


def rows_of(store: Store) -> Rows:
    return joined(rows_in(store))


def test_a_correction_gives_a_row_and_a_pair(store: Store) -> None:
    turn = reply(store)
    judge(store, turn, "Hi there!", voice="fail")
    rows = rows_of(store)
    assert [message.text for message in rows.sft[0].messages] == ["Hello?", "Hi there!"]
    assert (rows.preference[0].chosen, rows.preference[0].rejected) == ("Hi there!", "Yo.")
    assert [row.good for row in rows.unpaired] == [False]
    assert rows.left_out == ()


def test_the_newest_correction_counts(store: Store) -> None:
    turn = reply(store)
    judge(store, turn, "One")
    judge(store, turn, "Two")
    assert rows_of(store).sft[0].messages[-1].text == "Two"


def test_approval_needs_all_three_questions(store: Store) -> None:
    judge(store, reply(store, "a"), voice="pass", policy="pass", bias="pass")
    judge(store, reply(store, "b"), voice="pass", policy="pass")
    judge(store, reply(store, "c"), voice="fail", policy="pass", bias="pass")
    judge(store, reply(store, "d"), voice="unsure", policy="pass", bias="pass")
    store.reviews.skip("s", reply(store, "e").id, "ana", "no time")
    rows = rows_of(store)
    assert [row.messages[0].text for row in rows.sft] == ["a"]
    assert [row.reason for row in rows.left_out] == [
        "Not yet judged on bias.",
        "Marked down on brand voice, and not corrected.",
        "The reviewer was unsure about brand voice.",
        "Skipped: no time.",
    ]
    assert [row.good for row in rows.unpaired] == [True, False]


def test_unreviewed_replies_are_in_nothing(store: Store) -> None:
    reply(store)
    assert sum(rows_of(store).counts().values()) == 0


def test_the_same_row_twice_goes_in_once(store: Store) -> None:
    for _ in range(2):
        judge(store, reply(store), "Hi there!")
    rows = rows_of(store)
    assert (len(rows.sft), len(rows.preference), len(rows.left_out)) == (1, 1, 2)


def vote(
    store: Store,
    outcome: str,
    left: str = "L",
    right: str = "R",
    asked: str = "q",
    more: Sequence[str] = (),
    by: str = "ana",
    **said: Any,
) -> None:
    answers = [Answer(text=text, provenance=BASE) for text in (left, right, *more)]
    comparison = store.comparisons.add([Message(role="user", text=asked)], answers, by)
    store.comparisons.vote(comparison, VoteForm(outcome=outcome, **said), by)  # type: ignore[arg-type]


def test_votes_become_pairs_but_ties_and_both_bad_never_do(store: Store) -> None:
    vote(store, "left", asked="1")
    vote(store, "right", asked="2")
    vote(store, "tie", asked="3")
    vote(store, "both_bad", asked="4")
    vote(store, "left", "same", "same ", asked="5")
    rows = rows_of(store)
    assert [(pair.chosen, pair.rejected) for pair in rows.preference] == [("L", "R"), ("R", "L")]
    assert len(rows.left_out) == 3


def test_the_best_of_several_is_better_than_each_other_one(store: Store) -> None:
    vote(store, "third", more=("T", "T2"), strength=3)
    pairs = rows_of(store).preference
    assert [(pair.chosen, pair.rejected, pair.strength) for pair in pairs] == [
        ("T", "L", 3),
        ("T", "R", 3),
        ("T", "T2", 3),
    ]
    assert len({pair.id for pair in pairs}) == 3


def test_votes_that_contradict_each_other_make_no_pair(store: Store) -> None:
    vote(store, "left")
    vote(store, "right", by="ben")
    vote(store, "left", right="another", by="eve")
    rows = rows_of(store)
    assert [(pair.chosen, pair.rejected) for pair in rows.preference] == [("L", "another")]
    assert {one.reason for one in rows.left_out} == {"Votes about these two replies contradict each other."}


def test_what_breaks_the_rules_more_is_not_learned_however_well_it_is_liked(store: Store) -> None:
    vote(store, "left", asked="1", criteria={"policy": "right"})
    vote(store, "left", asked="2", criteria={"policy": "tie", "voice": "right"})
    rows = rows_of(store)
    assert [pair.prompt[-1].text for pair in rows.preference] == ["2"]
    assert [one.reason for one in rows.left_out] == [
        "The reply that was preferred keeps to the rules less well than another."
    ]


def test_after_different_words_there_is_no_pair_and_after_the_same_there_is(store: Store) -> None:
    asked = [Message(role="user", text="q")]
    for earlier in (("one", "other"), ("same", "same")):
        answers = [
            Answer(text=text, provenance=BASE, earlier=(before,))
            for text, before in zip(("L", "R"), earlier, strict=True)
        ]
        kept = store.comparisons.add(asked, answers, "ana", ("and then?",))
        store.comparisons.vote(kept, VoteForm(outcome="left"), "ana")
    rows = rows_of(store)
    (pair,) = rows.preference
    assert [message.text for message in pair.prompt] == ["q", "same", "and then?"]
    assert [one.reason for one in rows.left_out] == ["The replies go on from different words, so they make no pair."]


def test_holding_out_is_stable_and_keeps_a_request_on_one_side(store: Store) -> None:
    for number in range(60):
        judge(store, reply(store, f"question {number}"), f"answer {number}")
    first = rows_of(store)
    assert 1 <= len(first.held_out) <= 15
    held = {row.messages[0].text for row in first.held_out}
    assert held.isdisjoint(row.messages[0].text for row in first.sft)
    assert held.isdisjoint(pair.prompt[0].text for pair in first.preference)
    judge(store, reply(store, "one more"), "its answer")
    assert held <= {row.messages[0].text for row in rows_of(store).held_out}


def test_a_vote_always_becomes_a_pair_even_on_a_held_out_request(store: Store) -> None:
    for number in range(60):
        judge(store, reply(store, f"question {number}"), f"answer {number}")
    asked = rows_of(store).held_out[0].messages[0].text
    vote(store, "left", asked=asked)
    rows = rows_of(store)
    assert any(pair.source == "vote" for pair in rows.preference)
    assert asked not in {row.messages[0].text for row in rows.held_out}


def test_nothing_is_held_out_of_a_small_set(store: Store) -> None:
    for number in range(HOLD_OUT_FROM - 1):
        judge(store, reply(store, f"question {number}"), "x")
    assert rows_of(store).held_out == ()


@given(st.text(), st.text())
def test_swapping_a_pair_twice_changes_nothing(chosen: str, rejected: str) -> None:
    pair = Preference(id="p", prompt=(), chosen=chosen, rejected=rejected, source="vote", voter="ana")
    assert pair.swap().swap() == pair
    assert (pair.swap().chosen, pair.swap().rejected) == (rejected, chosen)


def test_a_version_is_frozen_checked_and_never_made_twice(store: Store, tmp_path: Path) -> None:
    judge(store, reply(store), "Hi there!")
    version = freeze(store, tmp_path / "datasets", [rows_of(store)], 1, "ana", "first")
    folder = tmp_path / "datasets" / version.id
    assert verify(folder) == store.datasets.get(version.id) == store.datasets.get("1") == version
    assert read_rows(folder, "sft")[0]["messages"][-1] == {"role": "assistant", "content": "Hi there!"}
    with pytest.raises(UserError, match="already holds exactly these rows"):
        freeze(store, tmp_path / "datasets", [rows_of(store)], 1, "ana")
    judge(store, reply(store, "More?"), "Sure!")
    assert freeze(store, tmp_path / "datasets", [rows_of(store)], 1, "ana").parent_id == version.id


def test_an_empty_version_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to put into a dataset"):
        freeze(store, tmp_path, [Rows()], 1, "ana")


def test_a_changed_version_is_noticed(store: Store, tmp_path: Path) -> None:
    judge(store, reply(store), "Hi there!")
    version = freeze(store, tmp_path, [rows_of(store)], 1, "ana")
    rows = tmp_path / version.id / "sft.jsonl"
    rows.write_text(rows.read_text().replace("Hi there!", "Ho there!"))
    with pytest.raises(UserError, match="changed after it was made"):
        verify(tmp_path / version.id)
    with pytest.raises(NotFound):
        verify(tmp_path / "ds-9-nowhere0")


def test_a_row_says_how_its_answers_came_about_and_an_older_version_is_read_as_it_was(
    store: Store, tmp_path: Path
) -> None:
    agreed, settled = reply(store, "agreed"), reply(store, "settled")
    store.tasks.change_settings(QueueSettings(overlap=2), "cat")
    for turn, other in ((agreed, "pass"), (settled, "fail")):
        judge(store, turn, voice="pass", policy="pass", bias="pass")
        verdicts = tuple(Verdict(question=question, value="pass") for question in QUESTIONS[1:])
        verdicts = (Verdict(question="voice", value=other), *verdicts)  # type: ignore[arg-type]
        store.reviews.save(ReviewAct(reply_id=turn.id, reviewer="ben", charter_version=1, verdicts=verdicts))
    assert "nobody has settled it" in rows_of(store).left_out[0].reason
    decided = (Verdict(question="voice", value="pass"),)
    store.reviews.save(
        ReviewAct(reply_id=settled.id, reviewer="cat", charter_version=1, verdicts=decided, route="adjudication")
    )
    version = freeze(store, tmp_path, [rows_of(store)], 1, "cat")
    rows = read_rows(tmp_path / version.id, "sft")
    unanimous = dict.fromkeys(QUESTIONS, "unanimous")
    assert [row["settled"] for row in rows] == [unanimous, unanimous | {"voice": "adjudicated"}]
    shown = _rows_html("sft", rows)
    assert (shown.count("unanimous"), shown.count("adjudicated")) == (1, 1)
    older = [{key: value for key, value in row.items() if key != "settled"} for row in rows]
    assert _rows_html("sft", older).count("approved as it was") == 2


def test_a_version_whose_card_a_crash_lost_is_taken_up_again(store: Store, tmp_path: Path) -> None:
    judge(store, reply(store), "Hi there!")
    version = freeze(store, tmp_path / "datasets", [rows_of(store)], 1, "ana")
    other = open_store(f"sqlite:///{tmp_path / 'other.db'}")  # as after a kill between the rename and the row
    assert recover(other, tmp_path / "datasets") == [version]
    assert other.datasets.all() == [version]
    assert recover(other, tmp_path / "datasets") == []


def test_a_half_written_version_is_not_taken_up(store: Store, tmp_path: Path) -> None:
    judge(store, reply(store), "Hi there!")
    version = freeze(store, tmp_path / "datasets", [rows_of(store)], 1, "ana")
    aside = tmp_path / "datasets" / ".making-x"
    (tmp_path / "datasets" / version.id).rename(aside)
    assert (aside / MANIFEST).is_file()
    assert recover(open_store(f"sqlite:///{tmp_path / 'other.db'}"), tmp_path / "datasets") == []


def test_reasons_are_counted() -> None:
    assert reasons([{"reason": "b"}, {"reason": "a"}, {"reason": "a"}]) == {"a": 2, "b": 1}
