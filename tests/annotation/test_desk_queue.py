"""Dealing on SQLite and on PostgreSQL: who gets which reply, for how long, and what a save does to it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from annotation.acts import COUNTED, ActBody
from annotation.errors import Conflict, NotFound
from annotation.people import Person
from annotation.queue import REPEAT_AFTER, QueueSettings, dealt, overlap_for
from annotation.store import Store, open_store
from annotation.store.batches import Change
from annotation.store.dealing import OVERBOOKED, STEP, Hold
from annotation.store.dealing import hold as new_hold
from annotation.store.reviews import HoldLost, SavedElsewhere
from annotation.store.search import Filter
from annotation.store.tables import acts, judgements, leases
from annotation.types import Span
from tests.fixtures.desk import (
    ANA,
    BEN,
    CAM,
    CURATOR,
    ONE,
    TWO,
    a_reply,
    an_act,
    an_empty_store,
    at_once,
    deal,
    expire,
    judge,
    never_overbooked,
    not_as_replayed,
    replies,
    state,
    verdict,
)

"""Holds of 30 ms."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from an_empty_store(request, tmp_path)


# How many, and to whom


@pytest.mark.parametrize("overlap", [1, 3])
def test_no_more_people_than_the_overlap_get_a_reply(store: Store, overlap: int) -> None:
    queue = QueueSettings(overlap=overlap)
    (only,) = replies(store, 1, queue)
    people = [Person(name=f"p{number}") for number in range(overlap + 1)]
    assert [deal(store, person, queue).reply_id for person in people[:-1]] == [only] * overlap
    assert state(store, only) == "full"
    assert store.tasks.claim(people[-1], queue) is None


def test_nobody_is_dealt_the_same_reply_twice(store: Store) -> None:
    ids = replies(store, 4, TWO)
    assert [judge(store, ANA, TWO).reply_id for _ in ids] == ids
    assert store.tasks.claim(ANA, TWO) is None
    assert [judge(store, BEN, TWO).reply_id for _ in ids] == ids
    assert {state(store, reply_id) for reply_id in ids} == {"done"}


def test_what_is_held_comes_again_on_a_reload_and_is_held_for_longer(store: Store) -> None:
    replies(store, 2)
    first = deal(store, ANA)
    again = deal(store, ANA)
    assert (again.id, again.reply_id) == (first.id, first.reply_id)
    assert again.expires_at > first.expires_at


def test_a_second_tab_gets_another_reply(store: Store) -> None:
    first, second = replies(store, 2)
    assert deal(store, ANA).reply_id == first
    assert deal(store, ANA, exclude=[first]).reply_id == second
    assert store.tasks.claim(ANA, ONE, [first, second]) is None
    assert deal(store, ANA, exclude=[second]).reply_id == first


def test_two_tabs_at_the_same_moment_get_different_replies_and_no_error(store: Store) -> None:
    replies(store, 30)
    for number in range(5):
        person, got = Person(name=f"new-{number}"), list[Hold | None]()

        def load(who: Person = person, into: list[Hold | None] = got) -> None:
            into.append(store.tasks.claim(who, QueueSettings(gold_share=0.1)))

        assert at_once(load, load, load) == []
    with store.engine.connect() as db:
        held = Counter(db.execute(sa.select(leases.c.reply_id, leases.c.person)).all())
    assert set(held.values()) == {1}


def test_a_reply_given_back_is_open_at_once(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    store.tasks.release("ben", hold.id)
    assert state(store, only) == "full"
    store.tasks.release("ana", hold.id)
    assert state(store, only) == "open"
    assert deal(store, BEN).reply_id == only


def test_only_its_owner_can_renew_a_hold_and_only_while_it_lasts(store: Store) -> None:
    replies(store, 1)
    hold = deal(store, ANA)
    assert store.tasks.renew("ana", hold.id)
    assert not store.tasks.renew("ben", hold.id)
    expire(store)
    store.tasks.free_expired()
    assert not store.tasks.renew("ana", hold.id)


# Holds that run out


def test_a_hold_that_ran_out_goes_to_somebody_else(store: Store) -> None:
    first, second = replies(store, 2)
    assert deal(store, ANA).reply_id == first
    assert deal(store, BEN).reply_id == second
    expire(store)
    assert deal(store, CAM).reply_id == first


def test_all_holds_that_ran_out_are_freed_however_many(store: Store) -> None:
    ids = replies(store, 120)
    for number in ids:
        deal(store, Person(name=f"p-{number}"))
    expire(store)
    assert store.tasks.free_expired() == 120
    assert {hit.state for hit in store.search.find(Filter(), limit=200)} == {"open"}


def test_saving_after_the_hold_ran_out_is_kept_while_the_place_is_free(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    expire(store)
    store.tasks.free_expired()
    assert store.reviews.save(an_act(only, ANA, hold))
    assert state(store, only) == "done"
    assert store.tasks.claim(BEN, ONE) is None


def test_saving_after_the_place_was_taken_keeps_nothing_and_says_so(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    expire(store)
    assert deal(store, BEN).reply_id == only
    with pytest.raises(HoldLost, match="ran out"):
        store.reviews.save(an_act(only, ANA, hold))
    assert store.reviews.history(only) == []
    assert state(store, only) == "full"


def test_an_extra_opinion_keeps_the_text_and_takes_no_place(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    expire(store)
    judge(store, BEN)
    assert store.reviews.save(an_act(only, ANA, hold, "fail", route="late", correction="On its way."))
    kept = store.reviews.history(only)[-1]
    assert kept.route == "late"
    assert kept.correction is not None
    assert kept.correction.after == "On its way."
    assert store.tasks.state_of(only)["done"] == 1
    assert store.reviews.standing(only).resolved()["voice"].value == "pass"


def test_an_extra_opinion_stays_one_when_it_is_opened_again(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    expire(store)
    judge(store, BEN)
    store.reviews.save(an_act(only, ANA, hold, route="late"))
    again = store.tasks.claim_one(ANA, only)
    store.reviews.save(an_act(only, ANA, again, "fail"))
    assert store.tasks.state_of(only)["done"] == 1


def test_an_old_tab_can_save_what_the_same_person_was_dealt_again(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    expire(store)
    assert deal(store, ANA).id != hold.id
    assert store.reviews.save(an_act(only, ANA, hold))
    assert state(store, only) == "done"
    assert store.tasks.claim(ANA, ONE) is None


def test_looking_at_ones_own_answer_for_long_does_not_lose_the_place(store: Store) -> None:
    (only,) = replies(store, 1)
    judge(store, ANA)
    again = store.tasks.claim_one(ANA, only)
    expire(store)
    store.tasks.free_expired()
    assert store.reviews.save(an_act(only, ANA, again, "fail"))
    assert store.reviews.standing(only).resolved()["voice"].value == "fail"


def test_a_form_works_for_its_own_reply_and_person_only(store: Store) -> None:
    first, second = replies(store, 2)
    hold = deal(store, ANA)
    for reply_id, who in ((first, BEN), (second, ANA)):
        with pytest.raises(Conflict, match="somebody else"):
            store.reviews.save(an_act(reply_id, who, hold))
        with pytest.raises(Conflict, match="somebody else"):
            store.reviews.skip(hold.id, reply_id, who.name, "why")
    assert store.reviews.save(an_act(first, ANA, hold))


# Two tabs


def test_the_same_form_twice_is_kept_once(store: Store) -> None:
    (only,) = replies(store, 1)
    form = an_act(only, ANA, deal(store, ANA), correction=" On its way. ")
    assert [store.reviews.save(form) for _ in range(3)] == [True, False, False]
    assert len(store.reviews.history(only)) == 1


def test_a_form_whose_correction_is_the_reply_itself_can_be_sent_twice(store: Store) -> None:
    (only,) = replies(store, 1)
    form = an_act(only, ANA, deal(store, ANA), correction="Reply 0.")
    assert [store.reviews.save(form) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "other",
    [
        {"verdicts": (verdict("fail"),)},
        {"verdicts": (verdict(note="hm"),)},
        {"verdicts": (verdict(), verdict(question="bias"))},
        {"verdicts": (verdict(clause_ids=("warm",)),)},
        {"verdicts": (verdict(severity="minor"),)},
        {"verdicts": (verdict(spans=(Span(start=0, end=2),)),)},
        {"correction": "On its way."},
        {"ranking": ("x", "y")},
    ],
)
def test_another_tab_with_other_answers_is_told_and_overwrites_nothing(store: Store, other: dict[str, object]) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    store.reviews.save(an_act(only, ANA, hold))
    with pytest.raises(SavedElsewhere, match="with other answers"):
        store.reviews.save(an_act(only, ANA, hold, **other))  # type: ignore[arg-type]
    assert len(store.reviews.history(only)) == 1


def test_a_form_that_was_skipped_or_taken_back_elsewhere_is_not_called_saved(store: Store) -> None:
    skipped, undone = replies(store, 2)
    hold = deal(store, ANA)
    store.reviews.skip(hold.id, skipped, "ana", "why")
    with pytest.raises(SavedElsewhere, match="skipped"):
        store.reviews.save(an_act(skipped, ANA, hold))
    hold = judge(store, ANA)
    store.reviews.undo("ana")
    with pytest.raises(SavedElsewhere, match="taken back"):
        store.reviews.save(an_act(undone, ANA, hold))


def test_a_correction_can_be_made_again_after_it_was_taken_back(store: Store) -> None:
    (only,) = replies(store, 1)
    for _ in range(2):
        store.reviews.save(an_act(only, ANA, store.tasks.claim_one(ANA, only), correction="On its way."))
        kept = store.reviews.history(only)[-1]
        assert kept.correction is not None
        store.reviews.undo("ana")


# Skip, pass, restore, undo


def test_a_skip_sets_a_reply_aside_for_everybody_until_it_is_brought_back(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    store.reviews.skip(hold.id, only, "ana", "not a reply")
    assert store.tasks.counts()["skipped"] == 1
    assert store.tasks.claim(BEN, ONE) is None
    assert store.reviews.bring_back_skipped("cleo") == 1
    assert deal(store, ANA).reply_id == only


def test_what_is_brought_back_does_not_come_again_to_who_has_judged_it(store: Store) -> None:
    (only,) = replies(store, 1, TWO)
    judge(store, ANA, TWO)
    store.reviews.skip(deal(store, BEN, TWO).id, only, "ben", "why")
    store.reviews.bring_back_skipped("cleo")
    assert store.tasks.claim(ANA, TWO) is None
    assert deal(store, BEN, TWO).reply_id == only


@pytest.mark.parametrize("held", [True, False])
def test_passing_on_leaves_a_reply_to_colleagues_only(store: Store, held: bool) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA) if held else None
    store.reviews.add("pass", only, "ana", ActBody(), hold.id if hold else None)
    assert store.tasks.claim(ANA, ONE) is None
    assert deal(store, BEN).reply_id == only


@pytest.mark.parametrize("kind", ["review", "skip", "pass"])
def test_an_undo_opens_the_reply_again_for_who_took_it_back(store: Store, kind: str) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    if kind == "review":
        store.reviews.save(an_act(only, ANA, hold))
    else:
        store.reviews.add(kind, only, "ana", ActBody(), hold.id)  # type: ignore[arg-type]
    undone = store.reviews.undo("ana")
    assert undone is not None
    assert undone.id == hold.id
    assert state(store, only) == "open"
    assert deal(store, ANA).reply_id == only
    assert store.reviews.undo("ana") is None


def test_undoing_a_revision_leaves_the_first_answer_and_its_place(store: Store) -> None:
    (only,) = replies(store, 1, TWO)
    judge(store, ANA, TWO, "pass")
    store.reviews.save(an_act(only, ANA, store.tasks.claim_one(ANA, only), "fail"))
    store.reviews.undo("ana")
    assert store.reviews.standing(only).answers["ana"]["voice"].value == "pass"
    assert store.tasks.claim(ANA, TWO) is None


def test_an_undo_on_the_desk_does_not_touch_what_a_batch_set_aside(store: Store) -> None:
    first, second = replies(store, 2)
    judge(store, CURATOR)
    store.batches.make(Filter(), Change(set_aside=True), "cleo")
    undone = store.reviews.undo("cleo")
    assert undone is not None
    assert undone.reply_id == first
    assert state(store, second) == "skipped"
    assert store.reviews.last_of("cleo") == first


def test_a_skip_after_the_hold_ran_out_leaves_a_colleagues_work_alone(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    expire(store)
    judge(store, BEN)
    store.reviews.skip(hold.id, only, "ana", "why")
    assert state(store, only) == "done"


# Lanes


def test_what_is_kept_for_a_person_comes_first_to_them_and_never_to_others(store: Store) -> None:
    first, second = replies(store, 2)
    hold = store.tasks.claim_one(CAM, first)  # so that the filter below finds the second only
    store.batches.make(Filter(state="open"), Change(assignee="ana"), "cleo")
    store.tasks.release("cam", hold.id)
    assert deal(store, BEN).reply_id == first
    assert store.tasks.claim(CAM, ONE) is None
    assert deal(store, ANA).reply_id == second


def test_a_skill_is_needed_also_for_what_is_kept_for_a_person(store: Store) -> None:
    (only,) = replies(store, 1)
    store.batches.make(Filter(), Change(skill="es", assignee="ana"), "cleo")
    assert store.tasks.claim(ANA, ONE) is None
    assert deal(store, ANA.model_copy(update={"skills": ("es",)})).reply_id == only


def test_languages_become_skills_where_the_queue_says_so(store: Store) -> None:
    store.tasks.change_settings(QueueSettings(by_language=True), "cleo")
    spanish, plain = a_reply(store, language="es"), a_reply(store)
    assert deal(store, ANA).reply_id == plain
    assert deal(store, Person(name="eva", skills=("es",))).reply_id == spanish


def test_somebody_with_skills_gets_all_they_can_judge_in_the_order_it_came_in(store: Store) -> None:
    store.tasks.change_settings(QueueSettings(by_language=True), "cleo")
    ids = [a_reply(store, language=language) for language in (None, "es", None, "de", "es", "es")]
    eva = Person(name="eva", skills=("es", "de"))
    assert [judge(store, eva).reply_id for _ in ids] == ids


def test_a_higher_priority_comes_first_a_lower_one_last(store: Store) -> None:
    queue = QueueSettings(by_language=True)
    store.tasks.change_settings(queue, "cleo")
    kinds = {"de": -1, "en": 0, "es": 2, "fr": 1}
    ids = {language: a_reply(store, language=language) for language in kinds}
    for language, priority in kinds.items():
        store.batches.make(Filter(language=language), Change(priority=priority, skill=""), "cleo")
    assert [judge(store, ANA, queue).reply_id for _ in ids] == [ids[name] for name in ("es", "fr", "en", "de")]


def test_what_is_put_first_comes_first_also_to_who_has_gone_past_it(store: Store) -> None:
    ids = replies(store, 4, TWO)
    judge(store, ANA, TWO), judge(store, ANA, TWO)
    store.reviews.requeue(ids[1:2], ["voice"], "cleo", "why")
    assert deal(store, ANA, TWO).reply_id == ids[1]


def test_a_new_reply_comes_before_those_of_low_priority(store: Store) -> None:
    replies(store, 3)
    store.batches.make(Filter(), Change(priority=-1), "cleo")
    judge(store, ANA)
    new = a_reply(store)
    assert deal(store, ANA).reply_id == new


def test_each_queue_deals_its_own(store: Store) -> None:
    first, second = replies(store, 2)
    hold = deal(store, ANA)
    store.batches.make(Filter(state="open"), Change(queue="returns"), "cleo")
    assert hold.reply_id == first
    assert deal(store, ANA, QueueSettings(name="returns")).reply_id == second
    assert deal(store, ANA).id == hold.id
    assert store.tasks.claim(BEN, ONE) is None


def test_a_closed_account_gives_back_what_it_held(store: Store) -> None:
    store.people.add("root", "admin")
    store.people.add("ana", "reviewer")
    (only,) = replies(store, 1)
    deal(store, ANA)
    assert store.tasks.claim(BEN, ONE) is None
    store.people.change("ana", active=False)
    assert deal(store, BEN).reply_id == only


# Settings


def test_about_the_second_share_is_judged_by_one_more(store: Store) -> None:
    queue = QueueSettings(second_share=0.3)
    store.tasks.change_settings(queue, "cleo")
    overlaps = [store.tasks.state_of(a_reply(store))["overlap"] for _ in range(40)]
    assert set(overlaps) == {1, 2}
    shared = [overlap_for(queue, f"reply-{number}") for number in range(5_000)]
    assert Counter(shared)[2] / 5_000 == pytest.approx(0.3, abs=0.02)


def test_new_settings_reach_all_that_is_not_done(store: Store) -> None:
    queue = QueueSettings(overlap=2)
    done, begun, held, skipped, fresh = replies(store, 5, queue)
    for who in (ANA, BEN):
        store.reviews.save(an_act(done, who, store.tasks.claim_one(who, done)))
    store.reviews.save(an_act(begun, ANA, store.tasks.claim_one(ANA, begun)))
    store.tasks.claim_one(ANA, held)
    store.reviews.skip("s", skipped, "ana", "why")
    store.tasks.change_settings(QueueSettings(overlap=1), "cleo")
    seen = {reply_id: state(store, reply_id) for reply_id in (done, begun, held, skipped, fresh)}
    assert list(seen.values()) == ["done", "done", "full", "skipped", "open"]
    store.tasks.change_settings(QueueSettings(overlap=3), "cleo")
    overlaps = [store.tasks.state_of(reply_id)["overlap"] for reply_id in seen]
    assert overlaps == [2, 1, 3, 3, 3]
    assert state(store, held) == "open"
    assert not_as_replayed(store) == []


def test_by_language_reaches_all_that_is_not_done_and_goes_again(store: Store) -> None:
    kinds = ["es", "es", "de", None, "fr"]
    done, skipped, german, plain, by_hand = [a_reply(store, language=language) for language in kinds]
    judge(store, ANA)
    store.reviews.skip("s", skipped, "ana", "why")
    store.batches.make(Filter(language="fr"), Change(skill="legal"), "cleo")

    def skills_under(queue: QueueSettings) -> list[str]:
        store.tasks.change_settings(queue, "cleo")
        return [store.tasks.state_of(reply_id)["skill"] for reply_id in (done, skipped, german, plain, by_hand)]

    assert skills_under(QueueSettings(overlap=2)) == ["", "", "", "", "legal"]
    assert skills_under(QueueSettings(by_language=True)) == ["", "es", "de", "", "legal"]
    store.batches.make(Filter(language="de"), Change(skill=""), "cleo")
    assert skills_under(QueueSettings(by_language=True, overlap=3)) == ["", "es", "", "", "legal"]
    assert skills_under(QueueSettings()) == ["", "", "", "", "legal"]
    assert not_as_replayed(store) == []


def test_who_has_gone_past_a_reply_of_another_language_is_led_back_to_it(store: Store) -> None:
    store.tasks.change_settings(QueueSettings(by_language=True), "cleo")
    spanish, *_, last = [a_reply(store, language=language) for language in ("es", *[None] * (STEP + 3))]
    while judge(store, ANA).reply_id != last:
        pass
    a_reply(store)
    store.tasks.change_settings(QueueSettings(), "cleo")
    assert deal(store, ANA).reply_id == spanish


def test_new_settings_leave_other_queues_alone(store: Store) -> None:
    (only,) = replies(store, 1)
    store.batches.make(Filter(), Change(queue="returns"), "cleo")
    store.tasks.change_settings(QueueSettings(overlap=5), "cleo")
    assert store.tasks.state_of(only)["overlap"] == 1
    assert [queue.name for queue in store.tasks.queues()] == ["main"]


# Hidden checks and repeats


def test_a_hidden_check_is_neither_dealt_in_the_ordinary_way_nor_counted(store: Store) -> None:
    check, other = replies(store, 2)
    store.tasks.set_gold(check, {"voice": "fail"}, "cleo")
    assert deal(store, ANA).reply_id == other
    assert store.tasks.counts() == {"waiting": 1, "reviewed": 0, "skipped": 0, "disputed": 0}
    hold = store.tasks.claim_one(BEN, check)
    assert hold.route == "gold"
    store.reviews.save(an_act(check, BEN, hold))
    row = store.tasks.state_of(check)
    assert (row["state"], row["done"], row["outcome"]) == ("gold", 0, None)
    store.tasks.unset_gold(check)
    assert state(store, check) == "open"


def test_who_has_a_reply_open_as_it_becomes_a_hidden_check_is_checked_by_it(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    store.tasks.set_gold(only, {"voice": "fail"}, "cleo")
    store.reviews.save(an_act(only, ANA, hold))
    assert [act.route for act in store.reviews.history(only)] == ["gold"]
    assert list(store.figures.checks("voice")) == [("ana", only, "pass", "fail")]


def test_a_check_that_is_no_reply_is_refused(store: Store) -> None:
    with pytest.raises(NotFound):
        store.tasks.set_gold("nowhere", {"voice": "pass"}, "cleo")


def play(store: Store, who: Person, queue: QueueSettings, turns: int) -> list[tuple[str, str]]:
    """(route, reply) of so many deals, each loaded twice and then saved."""
    met = []
    for _ in range(turns):
        hold = deal(store, who, queue)
        assert deal(store, who, queue).id == hold.id, "a reload rolls again"
        store.reviews.save(an_act(hold.reply_id, who, hold))
        met.append((hold.route, hold.reply_id))
    return met


def test_checks_and_repeats_come_at_about_their_share_in_a_fixed_order(store: Store) -> None:
    queue = QueueSettings(gold_share=0.2, repeat_share=0.2)
    ids = replies(store, 120, queue)
    for reply_id in ids[:40]:
        store.tasks.set_gold(reply_id, {"voice": "pass"}, "cleo")
    met = play(store, ANA, queue, 80)
    routes = [route for route, _ in met]
    assert 8 <= routes.count("gold") <= 24
    assert 6 <= routes.count("repeat") <= 24
    assert "repeat" not in routes[:REPEAT_AFTER]
    meant = [dealt(queue, "ana", turn) for turn in range(80)]
    assert routes[REPEAT_AFTER:] == meant[REPEAT_AFTER:]
    times = Counter(reply_id for _, reply_id in met)
    assert set(times.values()) == {1, 2}
    assert {reply_id for reply_id, number in times.items() if number == 2} == {
        reply_id for route, reply_id in met if route == "repeat"
    }
    assert {state(store, reply_id) for route, reply_id in met if route == "queue"} == {"done"}


def test_a_repeat_is_of_the_queue_at_hand_and_of_what_stands_in_it(store: Store) -> None:
    elsewhere = QueueSettings(name="elsewhere", repeat_share=0.5)
    queue = QueueSettings(repeat_share=0.5)
    ids = replies(store, REPEAT_AFTER + 5)
    for _ in range(REPEAT_AFTER):
        judge(store, ANA)
    store.tasks.change_settings(elsewhere, "cleo")
    assert [store.tasks.claim(ANA, elsewhere) for _ in range(6)] == [None] * 6
    store.tasks.change_settings(queue, "cleo")
    check = ids[0]
    store.tasks.set_gold(check, {"voice": "pass"}, "cleo")
    met = play(store, ANA, queue, 8)
    repeated = [reply_id for route, reply_id in met if route == "repeat"]
    assert repeated
    assert check not in repeated


def test_shares_hold_over_many_turns_and_people() -> None:
    queue = QueueSettings(gold_share=0.1, repeat_share=0.05)
    kinds = Counter(dealt(queue, f"p{person}", turn) for person in range(20) for turn in range(500))
    assert kinds["gold"] / 10_000 == pytest.approx(0.1, abs=0.015)
    assert kinds["repeat"] / 10_000 == pytest.approx(0.05, abs=0.015)


def test_without_checks_left_the_queue_goes_on(store: Store) -> None:
    queue = QueueSettings(gold_share=0.5, repeat_share=0.5)
    ids = replies(store, 3, queue)
    assert [judge(store, ANA, queue).reply_id for _ in ids] == ids
    assert store.tasks.claim(ANA, queue) is None


def checked(store: Store, who: Person, queue: QueueSettings, turns: int = 12) -> list[Hold]:
    """The hidden checks among so many deals."""
    return [hold for _ in range(turns) if (hold := judge(store, who, queue)).route == "gold"]


def test_a_check_in_a_language_goes_only_to_who_has_it(store: Store) -> None:
    queue = QueueSettings(by_language=True, gold_share=0.5)
    store.tasks.change_settings(queue, "cleo")
    store.tasks.set_gold(a_reply(store, language="es"), {"voice": "pass"}, "cleo")
    for _ in range(15):
        a_reply(store)
    assert checked(store, ANA, queue) == []


def test_a_reload_shows_the_same_check_whatever_queue_it_is_from(store: Store) -> None:
    check, *_ = replies(store, 25)
    store.tasks.set_gold(check, {"voice": "pass"}, "cleo")
    store.batches.make(Filter(), Change(queue="returns"), "cleo")
    play(store, ANA, QueueSettings(name="returns", gold_share=0.5), 12)


# Found and claimed


def test_a_full_reply_is_not_given_out_once_more(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    with pytest.raises(Conflict, match="1 reviewer "):
        store.tasks.claim_one(BEN, only)
    store.reviews.save(an_act(only, ANA, hold))
    with pytest.raises(Conflict, match="1 reviewer "):
        store.tasks.claim_one(BEN, only)


def test_finding_a_reply_gets_around_neither_an_assignment_nor_a_skill(store: Store) -> None:
    (only,) = replies(store, 1)
    store.batches.make(Filter(), Change(assignee="ana", skill="es"), "cleo")
    with pytest.raises(Conflict, match="kept for ana"):
        store.tasks.claim_one(BEN, only)
    with pytest.raises(Conflict, match="skill 'es'"):
        store.tasks.claim_one(ANA, only)
    assert store.tasks.claim_one(ANA.model_copy(update={"skills": ("es",)}), only).route == "search"


def test_what_was_found_takes_a_place_like_what_was_dealt(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = store.tasks.claim_one(ANA, only)
    assert store.tasks.claim(BEN, ONE) is None
    assert store.tasks.claim_one(ANA, only).id == hold.id
    store.reviews.save(an_act(only, ANA, hold))
    row = store.tasks.state_of(only)
    assert (row["state"], row["done"]) == ("done", 1)


def test_what_is_held_already_keeps_its_route_when_it_is_found(store: Store) -> None:
    (only,) = replies(store, 1)
    hold = deal(store, ANA)
    assert store.tasks.claim_one(ANA, only).id == hold.id


def test_a_reply_that_is_not_there_cannot_be_claimed(store: Store) -> None:
    with pytest.raises(NotFound):
        store.tasks.claim_one(ANA, "nowhere")


def test_looking_at_ones_own_answer_keeps_nobody_else_out(store: Store) -> None:
    (only,) = replies(store, 1, TWO)
    judge(store, ANA, TWO)
    store.tasks.claim_one(ANA, only)
    assert deal(store, BEN, TWO).reply_id == only


def disputed(store: Store) -> str:
    (only,) = replies(store, 1, TWO)
    judge(store, ANA, TWO, "pass")
    judge(store, BEN, TWO, "fail")
    assert store.tasks.disputed() == [(only, 0.5)]
    return only


def test_a_dispute_is_settled_once_and_takes_no_place(store: Store) -> None:
    only = disputed(store)
    hold = store.tasks.claim_one(CURATOR, only, adjudicate=True)
    assert hold.route == "adjudication"
    store.reviews.save(an_act(only, CURATOR, hold, "fail"))
    row = store.tasks.state_of(only)
    assert (row["state"], row["done"], row["outcome"]) == ("done", 2, "failed")
    assert store.tasks.disputed() == []


def test_who_settled_a_reply_does_not_become_one_of_its_reviewers(store: Store) -> None:
    only = disputed(store)
    store.reviews.save(an_act(only, CURATOR, store.tasks.claim_one(CURATOR, only, adjudicate=True), "fail"))
    store.reviews.save(an_act(only, CURATOR, store.tasks.claim_one(CURATOR, only), "unsure"))
    assert store.tasks.state_of(only)["done"] == 2
    assert store.reviews.standing(only).resolved()["voice"].value == "unsure"


def test_taking_a_settlement_back_opens_the_dispute_again(store: Store) -> None:
    only = disputed(store)
    store.reviews.save(an_act(only, CURATOR, store.tasks.claim_one(CURATOR, only, adjudicate=True), "fail"))
    store.reviews.undo("cleo")
    assert store.tasks.disputed() == [(only, 0.5)]


def test_a_check_that_was_taken_back_can_be_open_already(store: Store) -> None:
    (check,) = replies(store, 1)
    store.tasks.set_gold(check, {"voice": "pass"}, "cleo")
    store.reviews.save(an_act(check, ANA, store.tasks.claim_one(ANA, check)))
    store.reviews.undo("ana")
    hold = store.tasks.claim_one(ANA, check)
    assert store.tasks.claim_again(ANA, check, "gold").id == hold.id


# At the same moment


def test_saving_and_asking_again_at_once_agree_on_what_stands(store: Store) -> None:
    for reply_id in replies(store, 8):
        store.reviews.save(an_act(reply_id, CAM))
        failed = at_once(
            lambda one=reply_id: store.reviews.save(an_act(one, ANA)),  # type: ignore[misc]
            lambda one=reply_id: store.reviews.requeue([one], ["voice"], "cleo", "why"),  # type: ignore[misc]
        )
        assert failed == []
    assert not_as_replayed(store) == []


def test_saving_freeing_and_giving_back_at_once_do_not_wait_for_each_other(store: Store) -> None:
    for number, reply_id in enumerate(replies(store, 10)):
        who = Person(name=f"p{number}")
        hold = deal(store, who)
        expire(store)
        form = an_act(reply_id, who, hold)
        calls: tuple[Callable[[], object], ...] = (
            lambda form=form: store.reviews.save(form),  # type: ignore[misc]
            store.tasks.free_expired,
            lambda hold=hold, who=who: store.tasks.release(who.name, hold.id),  # type: ignore[misc]
        )
        assert at_once(*calls) == []
    assert not_as_replayed(store) == []


# A crowd


CROWD = QueueSettings(overlap=2, lease_minutes=0.01, repeat_share=0.05, gold_share=0.05)
"""Holds of 0.6 seconds."""


def hammer(
    store: Store, person: Person, going: Callable[[], bool], said: Callable[[str], object], rest: float = 0.0
) -> None:
    """One reviewer, as long as `going()`: judges, skips, passes on, walks away, comes back late, takes back; `said`
    gets the id of every act that was acknowledged.
    """
    dice = random.Random(person.name)
    while going():
        hold = store.tasks.claim(person, CROWD)
        chance = dice.random()
        if hold is None:
            time.sleep(0.1)
        elif chance < 0.04:
            continue  # a reload
        elif chance < 0.08:
            time.sleep(60 * CROWD.lease_minutes + 0.05)  # walked away; the next deal is another one, or the same
        elif chance < 0.12:
            store.tasks.release(person.name, hold.id)
        elif chance < 0.16:
            said(store.reviews.add("pass", hold.reply_id, person.name, ActBody(), hold.id))
        elif chance < 0.18:
            store.reviews.skip(hold.id, hold.reply_id, person.name, "why")
            said(hold.id)
        else:
            time.sleep(rest + (0.7 if chance > 0.98 else 0))
            form = an_act(hold.reply_id, person, hold, dice.choice(("pass", "fail")), correction=f"{hold.id}")
            try:
                store.reviews.save(form)
            except HoldLost:
                form = form.model_copy(update={"route": "late"})
                store.reviews.save(form)
            said(hold.id)
            if chance < 0.2:
                store.reviews.undo(person.name)


def nothing_is_wrong(store: Store, said: list[str]) -> None:
    """What must hold after a crowd, however it ended."""
    with store.engine.connect() as db:
        kept = Counter(db.scalars(sa.select(acts.c.id)))
        answers = Counter(db.scalars(sa.select(judgements.c.act_id)))
        reviews = set(db.scalars(sa.select(acts.c.id).where(acts.c.kind == "review")))
        twice = (
            sa.select(leases.c.reply_id).where(leases.c.state == "held").group_by(leases.c.reply_id, leases.c.person)
        )
        assert db.execute(twice.having(sa.func.count() > 1)).all() == []
    assert {act_id for act_id in said if kept[act_id] != 1} == set(), "acknowledged, and not there once"
    assert {act_id: answers[act_id] for act_id in reviews if answers[act_id] != 1} == {}, "half a save"
    for some in store.reviews.standings():
        assert {reply_id for reply_id, (_, standing) in some.items() if len(standing.done_by) > CROWD.overlap} == set()
    assert not_as_replayed(store) == []


def finish(store: Store) -> None:
    """After a crowd has left: everything they held comes back, and others can do all that is left."""
    time.sleep(60 * CROWD.lease_minutes + 0.1)
    store.tasks.free_expired()
    with store.engine.connect() as db:
        assert db.execute(sa.select(leases.c.id).where(leases.c.state == "held")).all() == []
    store.reviews.bring_back_skipped("cleo")
    plain = CROWD.model_copy(update={"gold_share": 0.0, "repeat_share": 0.0, "lease_minutes": 30})
    for name in ("late-1", "late-2"):
        while hold := store.tasks.claim(Person(name=name), plain):
            store.reviews.save(an_act(hold.reply_id, Person(name=name), hold))
    counts = store.tasks.counts()
    assert (counts["waiting"], counts["skipped"]) == (0, 0)
    with store.engine.connect() as db:
        counted = sa.select(acts.c.reply_id, acts.c.person).where(acts.c.route.in_(COUNTED), acts.c.kind == "review")
        assert len(db.execute(counted.distinct()).all()) >= 2 * counts["reviewed"]


def test_a_reply_that_is_held_once_too_often_is_noticed(store: Store) -> None:
    (only,) = replies(store, 1)
    deal(store, ANA)
    with store.engine.begin() as db:
        assert list(db.scalars(OVERBOOKED)) == []
        new_hold(db, only, "ben", "queue", ONE)
        assert list(db.scalars(OVERBOOKED)) == [only]


@pytest.mark.slow
def test_fifty_reviewers_at_once_lose_and_double_nothing(store: Store) -> None:
    ids = replies(store, 300, CROWD)
    for reply_id in ids[::40]:
        store.tasks.set_gold(reply_id, {"voice": "pass"}, "cleo")
    said: list[str] = []
    failed: list[str] = []
    begun = time.monotonic()

    def going() -> bool:
        """Some seconds, or until there is something to look at."""
        return (time.monotonic() - begun) < (8 if len(said) > 150 else 60)

    def work(number: int) -> None:
        try:
            hammer(store, Person(name=f"p{number}"), going, said.append, rest=0.05)
        except Exception as error:  # looked at below
            failed.append(f"{type(error).__name__}: {error}"[:300])

    def ask_again() -> None:
        for _ in range(7):
            time.sleep(1)
            store.reviews.requeue(random.Random(len(said)).sample(ids, 10), ["voice"], "cleo", "why")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    threads.append(threading.Thread(target=ask_again))
    with never_overbooked(store):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    assert len(said) > 150
    nothing_is_wrong(store, said)
    finish(store)
    nothing_is_wrong(store, said)


@pytest.mark.slow
def test_a_process_killed_in_the_middle_loses_nothing_it_had_acknowledged(store: Store) -> None:
    replies(store, 300, CROWD)
    url = store.engine.url.render_as_string(hide_password=False)
    said: list[str] = []
    for number in range(2):
        said += until_killed(url, number, 150)
        time.sleep(0.5)  # what the server had begun it may still end
        nothing_is_wrong(store, said)
    assert len(said) >= 300
    again = open_store(url)  # as after a crash: nothing of the old process is left but the database
    finish(again)
    nothing_is_wrong(again, said)
    again.close()


def until_killed(url: str, number: int, acts_before: int) -> list[str]:
    """What a process full of reviewers acknowledged before it was killed, in the middle of whatever it was doing."""
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    command = [sys.executable, "-c", f"from test_desk_queue import child; child({url!r}, {number})"]
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said += [line.strip()] if line.endswith("\n") else []
            if len(said) == acts_before:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return said


def child(url: str, round_: int) -> None:
    """Ten reviewers in a process of their own, until it is killed; one line for each acknowledged act."""
    store, end = open_store(url), time.monotonic() + 600

    def work(number: int) -> None:
        who = Person(name=f"p{round_}-{number}")
        hammer(store, who, lambda: time.monotonic() < end, lambda act_id: os.write(1, f"{act_id}\n".encode()))

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
