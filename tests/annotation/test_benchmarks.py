"""The benchmarks fail where a row is short; a crowd's faults can be seen, and the store after a year is like one."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from annotation.acts import QUESTIONS
from annotation.store import Store
from annotation.store.tables import tasks
from benchmarks import __main__ as bench
from benchmarks import full_store
from benchmarks.crowd import come_later, faults, met
from benchmarks.crowd_at_work import SETTINGS, Diary, a_form, send, send_again
from benchmarks.replayed import not_as_replayed
from benchmarks.row import Row
from studio.services.quality import QualityService
from tests.fixtures.desk import ANA, BEN, CAM, CURATOR, an_act, an_empty_store, deal, expire, replies

DICE = random.Random(1)
PLAIN = SETTINGS.model_copy(update={"gold_share": 0.0, "repeat_share": 0.0})
RULES = {"voice": ("plain", "short"), "policy": ("no-promises",), "bias": ("names",)}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from an_empty_store(request, tmp_path)


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "ana.diary")


@pytest.mark.parametrize(("good", "ends"), [((True, True), 0), ((True, False), 1), ((False, False), 1)])
def test_a_short_row_makes_the_benchmarks_fail_after_all_are_printed(
    monkeypatch: pytest.MonkeyPatch, good: tuple[bool, bool], ends: int
) -> None:
    rows = [Row(f"row {place}", "1", "limit 1", 1.0, one) for place, one in enumerate(good)]
    monkeypatch.setattr(bench, "MEASURES", {"first": lambda folder: rows[:1], "second": lambda folder: rows[1:]})
    out = Console(file=io.StringIO(), width=120)
    assert bench.main([], out) == ends
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("row 0") >= 2 <= said.count("row 1")
    named = said.partition("Short: ")[2]
    assert ["row 0" in named, "row 1" in named] == [not one for one in good]


def test_a_crowd_without_faults_has_none_and_met_what_it_is_about(store: Store, diary: Diary, tmp_path: Path) -> None:
    replies(store, 30, PLAIN)
    walked_away = deal(store, ANA, PLAIN)
    expire(store)
    for who in (BEN, CAM):
        send(store, a_form(deal(store, who, PLAIN), who.name, DICE), diary)
    send(store, a_form(walked_away, "ana", DICE), diary)
    killed = a_form(deal(store, ANA, PLAIN), "ana", DICE)
    diary.note("begun", killed.model_dump_json())
    send_again(store, tmp_path, "*", diary)
    found = met(store, tmp_path)
    assert (found["holds that ran out"], found["of them judged by others instead"]) == (1, 1)
    assert (found["told so when they came back"], found["sent again after the kill"]) == (1, 1)
    send_again(store, tmp_path, "*", diary)  # the last one, which was kept: its answer may have been lost
    assert met(store, tmp_path)["sent again after the kill"] == 2
    assert [act.id for act in store.reviews.history(killed.reply_id)] == [killed.act_id]
    deal(store, BEN, PLAIN)
    expire(store)
    assert come_later(store, diary) == set()
    assert set(faults(store, tmp_path).values()) == {0}


def test_every_fault_of_a_crowd_is_seen(store: Store, diary: Diary, tmp_path: Path) -> None:
    once, crowded, kept, wrong = replies(store, 4, PLAIN)
    for _ in range(2):
        store.reviews.save(an_act(once, ANA))
    for who in (ANA, BEN, CAM):
        store.reviews.save(an_act(crowded, who))
    store.tasks.claim_one(ANA, kept)
    expire(store)
    with store.engine.begin() as db:
        db.execute(tasks.update().where(tasks.c.reply_id == wrong).values(done=1))
    for what in ("saved", "skipped", "twice", "error"):
        diary.note(what, "nothing that is known")  # type: ignore[arg-type]
    assert faults(store, tmp_path) == {
        "lost": 2,
        "half saved": 5,
        "doubled": 2,
        "judged beyond their overlap": 1,
        "run out and still held": 1,
        "not as replayed": 1,
        "errors": 1,
    }
    with store.engine.begin() as db:
        db.execute(tasks.update().where(tasks.c.reply_id == kept).values(assignee="nobody"))
    assert come_later(store, diary) == {kept}


def test_a_year_is_the_same_each_time() -> None:
    def a_year() -> list[tuple[object, ...]]:
        rows = full_store.Year(RULES, 10).rows(range(60))  # type: ignore[arg-type]
        return [(one["id"], one["reviewer"], one["value"], one["clause_ids"]) for one in rows["judgements"]]

    assert a_year() == a_year()
    assert {value for _, _, value, _ in a_year()} >= {"pass", "fail"}


@pytest.mark.slow
def test_the_store_after_a_year_is_as_people_leave_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CONVERSATIONS": 1_000, "JUDGED": 700, "EACH_CHECK": 20, "CHUNK": 400}.items():
        monkeypatch.setattr(full_store, name, value)
    full_store.fill(store)
    assert not_as_replayed(store) == []
    assert set(store.tasks.outcomes()) >= {"approved", "corrected", "failed", "disputed"}
    quality = QualityService(store, CURATOR)
    found = {question: quality.agreement(question) for question in QUESTIONS}
    for one in found.values():
        assert one.alpha.low is not None
        assert one.alpha.high is not None
        assert 0.3 < one.alpha.low < one.alpha.high < 0.99
        assert len(set(one.competence.values())) > 10
        assert any(clause.cited_by_all for clause in one.clauses)
    cards = [card for card in quality.reviewers(found) if card.name.startswith("reviewer-")]
    assert len(cards) == full_store.REVIEWERS
    assert all(card.right.units for card in cards)
    assert any(card.consistent.units and card.rushed and card.edit for card in cards)
    hold = store.tasks.claim(ANA, PLAIN)
    assert hold is not None
    store.conversations.add_turn(store.conversations.start("chat"), None, "user", "One more?")
