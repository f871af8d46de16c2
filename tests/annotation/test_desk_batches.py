"""The same change to many replies at once: what it touches, and what taking it back puts back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from annotation.acts import ActBody
from annotation.errors import Conflict, NotFound, UserError
from annotation.queue import QueueSettings, priority_of
from annotation.store import Store
from annotation.store.batches import Change
from annotation.store.search import Filter
from tests.fixtures.desk import (
    ANA,
    BEN,
    ONE,
    TWO,
    a_reply,
    an_act,
    an_empty_store,
    deal,
    judge,
    not_as_replayed,
    replies,
    state,
)

EVERY_KIND = (
    Change(assignee="ana"),
    Change(skill="es"),
    Change(queue="returns"),
    Change(priority=3),
    Change(priority=-9),
    Change(overlap=4),
    Change(set_aside=True),
    Change(assignee="ben", skill="de", queue="returns", priority=1, overlap=2),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from an_empty_store(request, tmp_path)


def rows(store: Store, ids: list[str]) -> list[dict[str, Any]]:
    return [store.tasks.state_of(reply_id) for reply_id in ids]


def test_the_preview_is_what_is_touched(store: Store) -> None:
    done, gold, held, skipped, fresh, other = replies(store, 6)
    store.reviews.save(an_act(done, ANA))
    store.tasks.set_gold(gold, {"voice": "pass"}, "cleo")
    store.tasks.claim_one(ANA, held)
    store.reviews.skip("s", skipped, "ana", "why")
    store.batches.make(Filter(text='"reply 5"'), Change(queue="returns"), "cleo")
    assert store.batches.preview(Filter(), Change(priority=1)) == 5 - 1
    batch = store.batches.make(Filter(queue="main"), Change(assignee="ana"), "cleo")
    assert batch.size == 3
    assert store.batches.preview(Filter(queue="main"), Change(priority=1)) == 3
    kept_for = {reply_id: store.tasks.state_of(reply_id)["assignee"] for reply_id in (done, gold, other)}
    assert set(kept_for.values()) == {""}
    assert {store.tasks.state_of(reply_id)["assignee"] for reply_id in (held, skipped, fresh)} == {"ana"}


def test_each_kind_of_change_does_what_it_says(store: Store) -> None:
    (only,) = replies(store, 1)
    for change in EVERY_KIND:
        store.batches.make(Filter(), change, "cleo")
        row = store.tasks.state_of(only)
        wanted = change.model_dump(exclude_none=True, exclude={"priority", "set_aside"})
        assert {name: row[name] for name in wanted} == wanted
        if change.priority is not None:
            assert priority_of(row["rank"]) == change.priority
        if change.set_aside:
            assert row["state"] == "skipped"
            assert store.reviews.bring_back_skipped("cleo") == 1
        assert not_as_replayed(store) == []


@pytest.mark.parametrize("change", EVERY_KIND, ids=lambda change: change.sentence())
def test_taking_it_back_restores_exactly(store: Store, change: Change) -> None:
    ids = replies(store, 5, TWO)
    store.reviews.skip("s", ids[0], "ana", "why")
    store.tasks.claim_one(ANA, ids[1])
    store.reviews.save(an_act(ids[2], ANA, store.tasks.claim_one(ANA, ids[2])))
    store.batches.make(Filter(text='"reply 3"'), Change(assignee="ben", priority=2, overlap=1), "cleo")
    before = rows(store, ids)
    batch = store.batches.make(Filter(), change, "cleo")
    assert rows(store, ids) != before
    assert store.batches.undo(batch.id, "cleo") == 5
    assert rows(store, ids) == before
    assert not_as_replayed(store) == []


def test_what_somebody_finished_since_stays_as_it_is(store: Store) -> None:
    first, second = replies(store, 2)
    batch = store.batches.make(Filter(), Change(assignee="ana", priority=1), "cleo")
    judge(store, ANA)
    assert store.batches.undo(batch.id, "cleo") == 1
    assert [row["assignee"] for row in rows(store, [first, second])] == ["ana", ""]


def test_what_somebody_judged_after_all_is_not_brought_back(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    batch = store.batches.make(Filter(), Change(set_aside=True), "cleo")
    store.reviews.save(an_act(only, ANA, hold))
    assert store.batches.undo(batch.id, "cleo") == 0
    assert state(store, only) == "done"
    assert [act.kind for act in store.reviews.history(only)] == ["skip", "review"]


def test_what_a_person_set_aside_too_stays_aside(store: Store) -> None:
    (only,) = replies(store, 1)
    batch = store.batches.make(Filter(), Change(set_aside=True), "cleo")
    store.reviews.add("skip", only, "ana", ActBody(text="spam"))
    assert store.batches.undo(batch.id, "cleo") == 0
    assert store.reviews.standing(only).skipped == "spam"
    assert state(store, only) == "skipped"


def test_a_newer_change_of_the_same_thing_stays(store: Store) -> None:
    (only,) = replies(store, 1)
    older = store.batches.make(Filter(), Change(assignee="ana", priority=1), "cleo")
    store.batches.make(Filter(), Change(assignee="ben"), "cleo")
    assert store.batches.undo(older.id, "cleo") == 0
    assert store.tasks.state_of(only)["assignee"] == "ben"


def test_a_newer_change_of_something_else_stays_too(store: Store) -> None:
    (only,) = replies(store, 1)
    older = store.batches.make(Filter(), Change(assignee="ana"), "cleo")
    store.batches.make(Filter(), Change(priority=2), "cleo")
    assert store.batches.undo(older.id, "cleo") == 1
    row = store.tasks.state_of(only)
    assert (row["assignee"], priority_of(row["rank"])) == ("", 2)


def test_a_reply_that_was_held_then_and_given_back_since_is_open_again(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    batch = store.batches.make(Filter(), Change(priority=1), "cleo")
    store.tasks.release("ana", hold.id)
    store.batches.undo(batch.id, "cleo")
    assert deal(store, BEN).reply_id == only


def test_taking_back_fewer_reviewers_opens_what_was_done_by_it(store: Store) -> None:
    (only,) = replies(store, 1, TWO)
    judge(store, ANA, TWO)
    batch = store.batches.make(Filter(), Change(overlap=1), "cleo")
    assert state(store, only) == "done"
    assert store.batches.undo(batch.id, "cleo") == 1
    assert deal(store, BEN, TWO).reply_id == only


def test_a_hidden_check_is_untouched_also_by_taking_back(store: Store) -> None:
    (only,) = replies(store, 1)
    batch = store.batches.make(Filter(), Change(assignee="ana"), "cleo")
    store.tasks.set_gold(only, {"voice": "pass"}, "cleo")
    assert store.batches.undo(batch.id, "cleo") == 0
    assert state(store, only) == "gold"
    with pytest.raises(UserError, match="No waiting reply"):
        store.batches.make(Filter(), Change(set_aside=True), "cleo")


def test_what_is_set_aside_stays_aside_whatever_else_happens_to_it(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    store.batches.make(Filter(), Change(set_aside=True, overlap=2), "cleo")
    store.tasks.release("ana", hold.id)
    store.reviews.add("comment", only, "ana", ActBody(text="hm"))
    store.reviews.add("flag", only, "ana", ActBody())
    store.tasks.change_settings(QueueSettings(overlap=3), "cleo")
    assert state(store, only) == "skipped"
    assert not_as_replayed(store) == []


def test_what_is_brought_forward_comes_next_to_who_has_gone_past_it(store: Store) -> None:
    first, second, _ = replies(store, 3, TWO)
    store.reviews.add("pass", first, "ana", ActBody())
    judge(store, ANA, TWO)
    store.batches.make(Filter(text='"reply 0"'), Change(assignee="ana"), "cleo")
    store.batches.make(Filter(text='"reply 2"'), Change(priority=1), "cleo")
    assert deal(store, BEN, TWO).reply_id not in (first, second)


def test_it_can_be_taken_back_once(store: Store) -> None:
    replies(store, 1)
    batch = store.batches.make(Filter(), Change(priority=1), "cleo")
    store.batches.undo(batch.id, "ben")
    with pytest.raises(Conflict, match="already"):
        store.batches.undo(batch.id, "cleo")
    with pytest.raises(NotFound):
        store.batches.undo("nowhere", "cleo")


def test_nothing_to_change_and_nothing_to_change_it_on_are_refused_and_leave_no_trace(store: Store) -> None:
    replies(store, 1)
    with pytest.raises(UserError, match="No change"):
        store.batches.make(Filter(), Change(), "cleo")
    with pytest.raises(UserError, match="No waiting reply"):
        store.batches.make(Filter(text="nowhere"), Change(priority=1), "cleo")
    with pytest.raises(UserError, match="no word"):
        store.batches.make(Filter(text="*"), Change(priority=1), "cleo")
    assert store.batches.recent() == []


def test_the_last_changes_are_listed_newest_first_as_they_were_made(store: Store) -> None:
    a_reply(store, language="es")
    made = [store.batches.make(Filter(language="es"), Change(priority=number), "cleo") for number in (1, 2)]
    store.batches.undo(made[1].id, "cleo")
    newest, oldest = store.batches.recent()
    assert oldest == made[0]
    assert newest.undone_at is not None
    assert (newest.change, newest.filter, newest.size) == (Change(priority=2), Filter(language="es"), 1)
    assert len(store.batches.recent(limit=1)) == 1


def test_a_change_is_one_transaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = replies(store, 2)
    deal(store, ANA)
    before = rows(store, ids)
    monkeypatch.setattr("annotation.store.batches._refresh_begun", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.batches.make(Filter(), Change(overlap=2, set_aside=True), "cleo")
    assert rows(store, ids) == before
    assert store.reviews.history(ids[0]) == []


@pytest.mark.parametrize("wrong", [{"priority": 10}, {"overlap": 0}, {"queue": "a/b"}, {"set_aside": False}, {"x": 1}])
def test_a_change_out_of_bounds_is_no_change(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Change.model_validate(wrong)


def test_a_change_says_what_it_does() -> None:
    change = Change(assignee="", skill="es", queue="returns", priority=2, overlap=3, set_aside=True)
    assert change.sentence() == (
        "give them back to everybody, ask for the skill 'es', move them to the queue 'returns', give them priority 2, "
        "let 3 people judge each, set them aside"
    )
    assert Change(assignee="ana", skill="").sentence() == "keep them for ana, ask for no skill"
    assert ONE.overlap == 1
