"""The sync against the real Argilla server: nothing lost, nothing doubled, whatever is killed in between."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import httpx
import psutil
import pytest

from annotation import argilla_client, argilla_push, argilla_show
from annotation.agreement import Rating, Table, raw_agreement
from annotation.argilla_client import Argilla
from annotation.argilla_datasets import MARK
from annotation.argilla_form import (
    METADATA,
    MOST_GUIDELINES,
    MOST_RULES,
    OPEN,
    REST,
    dataset_name,
    record_of,
    values_of,
)
from annotation.argilla_known import no_judge
from annotation.argilla_report import Progress
from annotation.argilla_server import PARTS, WORKSPACE, ArgillaServer, Part
from annotation.argilla_sync import ArgillaSync
from annotation.errors import UserError
from annotation.people import Person
from annotation.queue import QueueSettings
from annotation.store import Store, open_store
from annotation.store.argilla import Mirror
from annotation.store.batches import Change
from annotation.store.helpers import Suggestion
from annotation.store.reviews import Verdict
from annotation.store.search import Filter
from annotation.types import Clause, Message, Provenance, Span, Trait, Value
from studio.services.argilla_view import compared_in_words, in_words
from studio.services.settle import SettleService
from tests.fixtures.argilla import ALL_GOOD, MODEL, ClientOf, There, charter, fill, judge, ok, team, write_over
from tests.fixtures.desk import emptied
from tests.fixtures.studio import wait_until

pytestmark = pytest.mark.slow
Json = dict[str, Any]
NUMBERS = count(1)


ON_BOTH = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
"""For what the sync is about: our store on each kind of database."""


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where our store is kept."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    postgres: str = request.getfixturevalue("postgres_url")
    emptied(postgres).close()
    return postgres


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A store with a charter and four replies, each for one person."""
    opened = open_store(url)
    opened.charters.add(charter(), "ana")
    team(opened)
    fill(opened, 4)
    yield opened
    opened.close()


@pytest.fixture
def desk(argilla: ArgillaServer) -> Iterator[Argilla]:
    client = Argilla(argilla.url, argilla.keys.api_key, WORKSPACE)
    yield client
    client.close()


@pytest.fixture
def syncing(store: Store, desk: Argilla) -> ArgillaSync:
    return ArgillaSync(store, desk)


@pytest.fixture
def there(store: Store, owner: httpx.Client, client_of: ClientOf) -> There:
    return There(store, owner, client_of)


def replies(store: Store) -> list[str]:
    return [store.conversations.of_external("log", str(number)).turns[-1].id for number in range(4)]


def kinds(store: Store, reply_id: str) -> list[str]:
    return [act.kind for act in store.reviews.history(reply_id)]


# There


def test_a_charter_becomes_a_dataset(store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client) -> None:
    store.tasks.change_settings(QueueSettings(overlap=2), "ana")
    assert syncing.sync().pushed == 4
    dataset = there.dataset()
    assert dataset["name"].endswith("-v1")
    assert "Promise no refund." in dataset["guidelines"]
    assert dataset["distribution"] == {"strategy": "overlap", "min_submitted": 2}
    questions = {one["name"]: one for one in ok(owner.get(f"/datasets/{dataset['id']}/questions"))["items"]}
    assert list(questions) == [
        "voice",
        "voice_rules",
        "policy",
        "policy_rules",
        "severity",
        "bias",
        "bias_rules",
        "kind",
        "where",
        "correction",
        "why",
    ]
    rules = {"voice_rules": ["warm"], "policy_rules": ["no-refund", "no-date"], "bias_rules": ["age"]}
    for name, ids in rules.items():
        settings = questions[name]["settings"]
        assert settings["type"] == "multi_label_selection"
        assert [option["value"] for option in settings["options"]] == [*ids, "_other"]
    assert [one["value"] for one in questions["voice"]["settings"]["options"]][:4] == list(get_args(Value))
    fields = {
        one["name"]: one["settings"]["type"] for one in ok(owner.get(f"/datasets/{dataset['id']}/fields"))["items"]
    }
    assert fields == {"chat": "chat", "reply": "text"}
    about = ok(owner.get(f"/me/datasets/{dataset['id']}/metadata-properties"))["items"]
    assert {one["name"]: one["settings"]["type"] for one in about} == METADATA
    assert (questions["where"]["settings"]["type"], questions["where"]["settings"]["field"]) == ("span", "reply")


@ON_BOTH
def test_a_reply_becomes_a_record(store: Store, syncing: ArgillaSync, there: There) -> None:
    reply_id = replies(store)[0]
    say = {"question": "policy", "value": "fail", "clause_ids": ("no-date",), "spans": (Span(start=0, end=6),)}
    store.helpers.suggest(reply_id, "check:dates", [Suggestion(**say, score=0.7, author="check:dates")])
    unsure = Suggestion(question="policy", value="fail", clause_ids=("no-refund",), score=0.2, author="model:judge")
    store.helpers.suggest(reply_id, "model:judge", [unsure])
    syncing.sync()
    record = there.records()[reply_id]
    assert record["fields"] == {
        "chat": [{"role": "user", "content": "Message 0 of log 0."}],
        "reply": "Parcel 0 is on its way, maybe.",
    }
    assert record["metadata"] == {
        "model": "m",
        "adapter": "warm-1",
        "language": "en",
        "source": "log",
        "priority": 0,
        "checks": ["check:dates", "model:judge"],
        "policy_score": 0.7,
    }
    assert suggested(store, there, reply_id) == {
        "policy": ("fail", "check:dates", 0.7),
        "policy_rules": (["no-date"], "check:dates", None),
        "where": ([{"label": "policy", "start": 0, "end": 6}], "check:dates", None),
        "correction": ("Parcel 0 is on its way, maybe.", "warm-1", None),
    }


def suggested(store: Store, there: There, reply_id: str) -> dict[str, tuple[Any, str | None, float | None]]:
    """Question → what is suggested there, by whom, and how sure they are."""
    names = {one: name for name, one in mirror(store, there).questions.items()}
    given = there.records()[reply_id]["suggestions"]
    return {names[one["question_id"]]: (one["value"], one["agent"], one["score"]) for one in given}


def test_a_name_without_a_letter_that_argilla_takes_keeps_no_reply_from_going_there(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    made = []
    for number, (name, author) in enumerate((("模型", "model:模型"), ("模型-2", "検査"), ("m\u2003\x1f", "—"))):
        reply = Message(role="assistant", text="On its way."), Provenance(model=name)
        store.conversations.import_one(
            "abroad", str(number), "Abroad", None, [(Message(role="user", text="?"), None), reply]
        )
        made.append(store.conversations.of_external("abroad", str(number)).turns[-1].id)
        given = Suggestion(question="voice", value="fail", spans=(Span(start=0, end=2),), author=author)
        store.helpers.suggest(made[-1], author, [given])
    assert syncing.sync().failed == 0
    agents = [[suggested(store, there, one)[name][1] for name in ("correction", "voice", "where")] for one in made]
    assert agents == [[None, "model:--", "model:--"], ["---2", None, None], ["m--", None, None]]
    assert there.records()[made[0]]["metadata"]["model"] == "模型"  # which takes any letters
    assert syncing.reconcile().nothing


@ON_BOTH
def test_what_our_desk_suggests_is_suggested_there_and_what_it_hides_is_not(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    current = store.charters.current()
    assert current is not None
    clauses = [one.model_copy(update={"pattern": word}) for one, word in zip(current.policy, ("0", "way"), strict=True)]
    store.charters.add(current.model_copy(update={"policy": tuple(clauses)}), "ana")
    first, second, *_ = replies(store)
    old = Suggestion(question="voice", value="fail", clause_ids=("given-up",), author="model:judge")
    store.helpers.suggest(second, "model:judge", [old])
    assert syncing.sync().failed == 0
    found = suggested(store, there, first)
    assert found["policy"] == ("fail", "check:patterns", None)
    assert found["policy_rules"] == (["no-refund", "no-date"], "check:patterns", None)
    assert [(one["start"], one["end"]) for one in found["where"][0]] == [(7, 8), (19, 22)]
    assert "voice_rules" not in suggested(store, there, second)  # the charter has no such rule any more
    assert there.records()[second]["metadata"]["checks"] == ["check:patterns", "model:judge"]
    store.tasks.change_settings(QueueSettings(suggestions=False), "ana")
    assert syncing.progress()[-1].waiting == 4
    assert syncing.sync().pushed == 4
    assert {name for reply_id in replies(store) for name in suggested(store, there, reply_id)} == {"correction"}
    assert not [one for one in there.records().values() if "checks" in one["metadata"]]
    assert syncing.reconcile().nothing
    store.tasks.change_settings(QueueSettings(), "ana")
    syncing.sync()
    assert suggested(store, there, first) == found


@ON_BOTH
def test_each_queue_has_a_dataset_of_its_own(store: Store, syncing: ArgillaSync, there: There) -> None:
    place = 2
    answered, moves = replies(store)[1], replies(store)[place]
    syncing.sync()
    there.answer("ana", answered, **ALL_GOOD)
    store.batches.make(Filter(text=f'"parcel {place}"'), Change(queue="legal"), "ana")
    store.tasks.change_settings(QueueSettings(name="legal", overlap=2), "ana")
    summary = syncing.sync()
    assert (summary.pushed, summary.removed, summary.pulled) == (1, 1, 1)
    main, legal = store.argilla.mirrors(there._workspace())
    assert (main.queue, legal.queue) == ("main", "legal")
    assert (legal.name, there.dataset()["distribution"]["min_submitted"]) == (main.name.replace("-v1", "-legal-v1"), 2)
    assert set(there.records()) == {moves}
    assert {one.name: one.there for one in syncing.progress()} == {main.name: 3, legal.name: 1}
    there.answer("ben", moves, **ALL_GOOD)
    assert syncing.sync().pulled == 1
    assert kinds(store, moves) == ["review"]
    assert syncing.reconcile().nothing


@ON_BOTH
def test_a_second_sync_changes_nothing_and_a_new_suggestion_goes_there(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    syncing.sync()
    again = syncing.sync()
    assert (again.pushed, again.pulled, again.shown, again.removed) == (0, 0, 0, 0)
    assert syncing.reconcile().nothing
    reply_id = replies(store)[1]
    given = Suggestion(question="voice", value="fail", author="model:judge")
    store.helpers.suggest(reply_id, "model:judge", [given])
    assert syncing.sync().pushed == 1
    assert len(there.records()[reply_id]["suggestions"]) == 2
    store.helpers.suggest(reply_id, "model:judge", [])
    assert syncing.sync().pushed == 1
    assert len(there.records()[reply_id]["suggestions"]) == 1


def test_drafts_are_ranked(store: Store, syncing: ArgillaSync, there: There) -> None:
    first, second = replies(store)[:2]
    store.helpers.add_candidate(first, "It comes today.", MODEL, "ana")
    syncing.sync()
    assert there.records()[first]["fields"]["draft_1"] == "It comes today."
    assert "draft_1" not in there.records()[second]["fields"]
    ranked = [{"value": "draft_1", "rank": 1}, {"value": "reply", "rank": 2}, {"value": "draft_2", "rank": 3}]
    there.answer("ana", first, **ALL_GOOD, ranking=ranked)
    syncing.sync()
    (act,) = store.reviews.history(first)
    assert act.body.ranking == ("It comes today.", "Parcel 0 is on its way, maybe.")


@ON_BOTH
def test_drafts_that_come_later_are_ranked_in_a_dataset_beside_the_first(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    answered, begun, drafted, _ = replies(store)
    syncing.sync()
    first = there.dataset()["name"]
    there.answer("ana", answered, **ALL_GOOD)
    there.answer("ben", begun, "draft", voice="fail")
    store.helpers.add_candidate(drafted, "It comes today.", MODEL, "ana")
    judge(store, drafted, "ben", ranking=("It comes today.", "Parcel 2 is on its way, maybe."))
    assert syncing.sync().pushed == 2
    assert there.dataset()["name"] == f"{first}-2"
    assert set(there.records()) == {begun, replies(store)[3]}
    (old, new) = store.argilla.mirrors(there._workspace())
    assert (old.name, "ranking" in old.questions, "ranking" in new.questions) == (first, False, True)
    store.reviews.undo("ben")
    assert syncing.sync().pushed == 1
    ranked = [{"value": "reply", "rank": 1}, {"value": "draft_1", "rank": 2}, {"value": "draft_2", "rank": 3}]
    there.answer("ana", drafted, **ALL_GOOD, ranking=ranked)
    assert syncing.sync().pulled == 1
    assert store.reviews.history(drafted)[-1].body.ranking == ("Parcel 2 is on its way, maybe.", "It comes today.")
    assert syncing.sync().pushed == 0
    assert syncing.reconcile().nothing


def test_a_ranking_of_our_desk_is_shown_there_if_it_has_every_draft(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    whole, part, *_ = replies(store)
    for reply_id in (whole, part):
        store.helpers.add_candidate(reply_id, "It comes today.", MODEL, "ana")
        store.helpers.add_candidate(reply_id, "It comes on Monday.", MODEL, "ana")
    syncing.sync()
    judge(store, whole, "ana", ranking=("It comes on Monday.", "Parcel 0 is on its way, maybe.", "It comes today."))
    judge(store, part, "ana", ranking=("It comes on Monday.", "Parcel 1 is on its way, maybe."))
    assert syncing.sync().shown == 2
    ((shown,), (without,)) = (there.records()[reply_id]["responses"] for reply_id in (whole, part))
    assert {one["value"]: one["rank"] for one in shown["values"]["ranking"]["value"]} == {
        "draft_2": 1,
        "reply": 2,
        "draft_1": 3,
    }
    assert "ranking" not in without["values"]
    assert syncing.sync().pulled == 0
    assert syncing.reconcile().nothing


# Back


@ON_BOTH
def test_a_response_becomes_a_judgement_by_the_right_person_with_argillas_time(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    reply_id = replies(store)[0]
    syncing.sync()
    response = there.answer(
        "ana",
        reply_id,
        voice="fail",
        voice_rules=["warm", "_other"],
        policy="open",
        bias="pass",
        where=[{"label": "voice", "start": 7, "end": 8}],
        correction="Parcel 0 comes on Monday!",
        why="too vague",
    )
    assert syncing.sync().pulled == 1
    (act,) = store.reviews.history(reply_id)
    assert (act.person, act.route, act.kind) == ("ana", "import", "review")
    assert act.made_at.isoformat().startswith(response["updated_at"][:23])
    voice, bias = act.judgements
    assert (voice.question, voice.value, voice.clause_ids, voice.spans) == (
        "voice",
        "fail",
        ("warm",),
        (Span(start=7, end=8),),
    )
    assert (bias.question, bias.value) == ("bias", "pass")
    assert act.correction is not None
    assert (act.correction.before, act.correction.after, act.correction.reasons) == (
        "Parcel 0 is on its way, maybe.",
        "Parcel 0 comes on Monday!",
        ("too vague",),
    )
    assert store.tasks.state_of(reply_id)["outcome"] == "corrected"
    assert store.tasks.state_of(reply_id)["state"] == "done"


def test_how_bad_and_what_kind_cross_both_ways(store: Store, syncing: ArgillaSync, there: There) -> None:
    over_there, here, good, _ = replies(store)
    syncing.sync()
    both = {"policy": "fail", "policy_rules": ["no-date"], "severity": "critical", "bias": "fail", "kind": "assumption"}
    there.answer("ana", over_there, voice="open", **both)
    there.answer("ana", good, **ALL_GOOD, severity="minor")  # of nothing: it is let go
    verdicts = (
        Verdict(question="policy", value="fail", clause_ids=("no-date",), severity="minor"),
        Verdict(question="bias", value="fail", kind="exclusion"),
    )
    judge(store, here, "ben", verdicts=verdicts)
    syncing.sync()
    policy, bias = store.reviews.history(over_there)[0].judgements
    assert (policy.clause_ids, policy.severity, policy.kind) == (("no-date",), "critical", None)
    assert (bias.value, bias.severity, bias.kind) == ("fail", None, "assumption")
    assert [one.severity for one in store.reviews.history(good)[0].judgements] == [None, None, None]
    (shown,) = there.records()[here]["responses"]
    assert (shown["values"]["severity"], shown["values"]["kind"]) == ({"value": "minor"}, {"value": "exclusion"})
    assert syncing.reconcile().nothing


def test_marked_words_after_an_emoji_stay_the_same_words(store: Store, syncing: ArgillaSync, there: There) -> None:
    text = "Hi 👋🏽, it comes 🎉 today or on Monday"
    asked = [(Message(role="user", text="When?"), None), (Message(role="assistant", text=text), MODEL)]
    made = []
    for number in ("there", "here"):
        store.conversations.import_one("emoji", number, "Emoji", "en", asked)
        made.append(store.conversations.of_external("emoji", number).turns[-1].id)
    over_there, here = made
    syncing.sync()
    # As Argilla's page counts, in the units of JavaScript's strings.
    start = len(text[: text.index("Monday")].encode("utf-16-le")) // 2
    where = [{"label": "policy", "start": start, "end": start + 6}]
    there.answer("ana", over_there, **ALL_GOOD | {"policy": "fail"}, where=where)
    span = Span(start=text.index("Monday"), end=len(text))
    judge(store, here, "ben", verdicts=(Verdict(question="policy", value="fail", spans=(span,)),))
    summary = syncing.sync()
    assert (summary.pulled, summary.shown, summary.failed) == (1, 1, 0)
    (kept,) = store.reviews.history(over_there)[0].judgements[1].spans
    assert text[kept.start : kept.end] == "Monday"
    assert there.records()[here]["responses"][0]["values"]["where"]["value"] == where
    assert syncing.reconcile().nothing


@ON_BOTH
def test_an_edit_there_is_a_newer_judgement_here(store: Store, syncing: ArgillaSync, there: There) -> None:
    reply_id = replies(store)[0]
    syncing.sync()
    there.answer("ana", reply_id, **ALL_GOOD)
    syncing.sync()
    there.answer("ana", reply_id, **ALL_GOOD | {"voice": "fail"}, why="cold")
    assert syncing.sync().pulled == 1
    first, second = store.reviews.history(reply_id)
    assert [act.judgements[0].value for act in (first, second)] == ["pass", "fail"]
    assert second.judgements[0].note == "cold"
    assert store.tasks.state_of(reply_id)["outcome"] == "failed"
    assert first.made_at < second.made_at


def test_a_correction_taken_back_there_no_longer_counts_here(store: Store, syncing: ArgillaSync, there: There) -> None:
    reply_id = replies(store)[0]
    syncing.sync()
    there.answer("ana", reply_id, **ALL_GOOD, correction="Today!")
    syncing.sync()
    there.answer("ana", reply_id, **ALL_GOOD, correction="Parcel 0 is on its way, maybe.")
    syncing.sync()
    assert kinds(store, reply_id) == ["review", "undo", "review"]
    assert store.tasks.state_of(reply_id)["outcome"] == "approved"


def test_an_answer_taken_back_there_no_longer_counts_here(store: Store, syncing: ArgillaSync, there: There) -> None:
    reply_id = replies(store)[0]
    syncing.sync()
    for voice in ("pass", "fail"):
        there.answer("ana", reply_id, **ALL_GOOD | {"voice": voice})
        syncing.sync()
    there.answer("ana", reply_id, **ALL_GOOD | {"voice": OPEN})
    syncing.sync()
    standing = store.reviews.standing(reply_id)
    assert set(standing.answers["ana"]) == {"policy", "bias"}
    assert standing.done_by == {"ana"}
    assert syncing.sync().pulled == 0
    assert syncing.reconcile().nothing


def test_what_was_said_there_before_does_not_overrule_what_was_said_here_since(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    reply_id = replies(store)[0]
    syncing.sync()
    there.answer("ana", reply_id, **ALL_GOOD)
    judge(store, reply_id, "ana")  # voice fails
    syncing.sync()
    assert [act.route for act in store.reviews.history(reply_id)] == ["queue", "late"]
    assert store.reviews.standing(reply_id).answers["ana"]["voice"].value == "fail"
    (shown,) = there.records()[reply_id]["responses"]
    assert shown["values"]["voice"] == {"value": "fail"}
    assert syncing.reconcile().nothing


def test_discarded_is_left_to_a_colleague_and_a_draft_is_nothing_yet(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    first, second, third = replies(store)[:3]
    syncing.sync()
    there.answer("ana", first, "discarded")
    there.answer("ana", second, "draft", voice="fail")
    there.answer("ana", third, **ALL_GOOD)
    summary = syncing.sync()
    assert (summary.passed, summary.pulled, summary.begun) == (1, 1, 1)
    assert kinds(store, first) == ["pass"]
    assert kinds(store, second) == []
    assert syncing.progress()[0].begun == 1
    (begun,) = store.argilla.responses(mirror(store, there), [second]).values()
    assert (begun.person, begun.status, begun.said) == ("ana", "draft", {"voice": {"value": "fail"}})
    hold = store.tasks.claim(Person(name="ana"), QueueSettings(), exclude=())
    assert hold is not None
    assert hold.reply_id != first
    there.answer("ana", third, "discarded")
    syncing.sync()
    assert kinds(store, third) == ["review", "undo", "pass"]
    assert store.tasks.state_of(third)["state"] == "open"


@ON_BOTH
def test_an_answer_that_becomes_a_draft_again_counts_no_longer_and_is_not_sent_over_it(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    reply_id = replies(store)[0]
    syncing.sync()
    there.answer("ana", reply_id, **ALL_GOOD)
    syncing.sync()
    there.answer("ana", reply_id, "draft", **ALL_GOOD | {"voice": "fail"})
    assert syncing.sync().begun == 1
    assert kinds(store, reply_id) == ["review", "undo"]
    assert store.tasks.state_of(reply_id)["state"] == "open"
    assert syncing.reconcile().nothing
    ((there_now,),) = (there.records()[reply_id]["responses"],)
    assert (there_now["status"], there_now["values"]["voice"]) == ("draft", {"value": "fail"})
    there.answer("ana", reply_id, **ALL_GOOD | {"voice": "fail"})
    assert syncing.sync().pulled == 1
    assert store.tasks.state_of(reply_id)["outcome"] == "failed"


def test_an_answer_that_says_nothing_is_a_failure_with_its_reason_and_can_be_tried_again(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    reply_id = replies(store)[0]
    syncing.sync()
    there.answer("ana", reply_id, voice="open", policy="open", bias="open")
    assert syncing.sync().failed == 1
    assert syncing.failures() == [(reply_id, "Nothing is marked and the reply is unchanged.")]
    assert syncing.progress()[0].failed == 1
    assert syncing.sync().failed == 0
    assert syncing.retry() == 1
    assert syncing.sync().failed == 1
    there.answer("ana", reply_id, **ALL_GOOD)
    assert syncing.sync().pulled == 1
    assert syncing.failures() == []


# Both ways


@ON_BOTH
def test_what_is_done_on_one_side_is_done_on_the_other(store: Store, syncing: ArgillaSync, there: There) -> None:
    here, over_there, skipped, _ = replies(store)
    syncing.sync()
    judge(store, here, "ana", correction="Today!", verdicts=(Verdict(question="voice", value="fail"),))
    store.reviews.skip("s", skipped, "ana", "spam")
    there.answer("ben", over_there, **ALL_GOOD)
    summary = syncing.sync()
    assert (summary.shown, summary.removed, summary.pulled) == (1, 1, 1)
    assert store.tasks.state_of(over_there)["state"] == "done"
    assert there.pending("ben") == {replies(store)[3]}
    assert skipped not in there.records()
    (shown,) = there.records()[here]["responses"]
    assert shown["values"]["correction"] == {"value": "Today!"}
    assert shown["values"]["policy"] == {"value": "open"}
    assert kinds(store, here) == ["review"]  # our own answer does not come back as a second one
    store.reviews.bring_back_skipped("ana")
    assert syncing.sync().pushed == 1
    assert skipped in there.records()
    assert syncing.reconcile().nothing


@ON_BOTH
def test_an_answer_of_our_desk_taken_back_or_asked_anew_is_asked_there_too(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    reply_id, other = replies(store)[:2]
    syncing.sync()
    judge(store, reply_id, "ana")
    there.answer("ben", other, **ALL_GOOD)
    syncing.sync()
    assert reply_id not in there.pending("ben")
    store.reviews.undo("ana")
    store.reviews.requeue([other], ["voice"], "ana", "changed our mind")
    assert syncing.sync().shown == 2
    assert reply_id in there.pending("ben")
    assert [one["status"] for one in there.records()[other]["responses"]] == ["draft"]
    there.answer("ben", other, **ALL_GOOD)
    assert syncing.sync().pulled == 1
    assert kinds(store, other) == ["review", "requeue", "review"]
    assert store.tasks.state_of(other)["state"] == "done"


def test_a_draft_there_is_never_thrown_away(store: Store, syncing: ArgillaSync, there: There) -> None:
    reply_id = replies(store)[0]
    syncing.sync()
    there.answer("ben", reply_id, "draft", voice="fail", correction="half a sen")
    store.reviews.skip("s", reply_id, "ana", "spam")
    assert syncing.sync().removed == 0
    there.answer("ben", reply_id, **ALL_GOOD, correction="A whole sentence.")
    assert syncing.sync().pulled == 1
    assert store.tasks.state_of(reply_id)["outcome"] == "corrected"


@ON_BOTH
def test_two_in_argilla_and_one_here_count_alike(store: Store, syncing: ArgillaSync, there: There) -> None:
    store.tasks.change_settings(QueueSettings(overlap=3), "ana")
    syncing.sync()
    for number, reply_id in enumerate(replies(store)):
        there.answer("ana", reply_id, **ALL_GOOD)
        there.answer("ben", reply_id, **ALL_GOOD | {"voice": "fail" if number == 0 else "pass"})
        judge(store, reply_id, "eva", verdicts=(Verdict(question="voice", value="pass"),))
    syncing.sync()
    disputed = replies(store)[0]
    said = {"ana": "pass", "ben": "fail", "eva": "pass"}
    answers = list(store.figures.answers("voice"))
    assert {one.reviewer: one.value for one in answers if one.reply_id == disputed} == said
    assert store.tasks.counts() == {"waiting": 0, "reviewed": 4, "skipped": 0, "disputed": 1}
    # Agreement: three pairs on each of four replies, and two of the twelve differ.
    table = Table.of([Rating(one.reply_id, one.reviewer, one.value) for one in answers])
    assert raw_agreement(table).value == pytest.approx(10 / 12)
    # Adjudication: a curator sees all three, decides, and Argilla's answers stay as they are.
    settling = SettleService(store, Person(name="cat", role="curator"))
    assert [reply for reply, _ in settling.waiting()] == [disputed]
    given = settling.open(disputed).standing.answers
    assert {person: answer["voice"].value for person, answer in given.items()} == said
    settling.settle(disputed, (Verdict(question="voice", value="fail", clause_ids=("warm",)),))
    assert settling.waiting() == []
    syncing.sync()
    voice = store.reviews.standing(disputed).resolved()["voice"]
    assert (voice.value, voice.how) == ("fail", "adjudicated")
    assert sorted(one["values"]["voice"]["value"] for one in there.records()[disputed]["responses"]) == ["fail", "pass"]
    assert syncing.reconcile().nothing


def test_people_without_an_account_there_are_named(store: Store, syncing: ArgillaSync) -> None:
    syncing.sync()
    judge(store, replies(store)[0], "zoe")
    summary = syncing.sync()
    assert (summary.without_account, summary.shown, summary.removed) == ({"zoe"}, 0, 1)
    assert in_words(summary) == "1 taken out, answers not shown there for want of an account: zoe"


@ON_BOTH
def test_a_new_charter_is_a_new_dataset_and_answers_to_the_old_one_still_come_in(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client
) -> None:
    answered, late, *_ = replies(store)
    syncing.sync()
    old = there.dataset()["name"]
    there.answer("ana", answered, **ALL_GOOD)
    there.answer("ben", late, "draft", voice="fail")
    draft = there.records()[late]
    current = store.charters.current()
    assert current is not None
    store.charters.add(current.model_copy(update={"voice": (Trait(id="short", text="Be short."),)}), "ana")
    assert syncing.sync().pushed == 3
    assert there.dataset()["name"].endswith("-v2")
    assert set(there.records()) == set(replies(store)) - {answered}
    names = {one["name"] for one in ok(owner.get("/me/datasets"))["items"]}
    assert old in names
    mirror = store.argilla.mirrors(there._workspace())[0]
    left = ok(owner.get(f"/datasets/{mirror.id}/records"))["items"]
    assert {one["external_id"] for one in left} == {answered, late}  # what nobody answered has moved on
    client = there._client_of("ben")
    body = {"status": "submitted", "values": {name: {"value": value} for name, value in ALL_GOOD.items()}}
    ok(client.put(f"/responses/{draft['responses'][0]['id']}", json=body))
    assert syncing.sync().pulled == 1
    assert store.reviews.history(late)[0].judgements[0].charter_version == 1


def test_a_changed_overlap_goes_there(store: Store, syncing: ArgillaSync, there: There) -> None:
    syncing.sync()
    store.tasks.change_settings(QueueSettings(overlap=2), "ana")
    syncing.sync()
    assert there.dataset()["distribution"]["min_submitted"] == 2


def test_our_answer_that_argilla_refuses_is_a_failure_and_can_be_tried_again(
    store: Store, syncing: ArgillaSync, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.tasks.change_settings(QueueSettings(overlap=2), "ana")
    syncing.sync()
    reply_id = replies(store)[0]
    judge(store, reply_id, "ana")
    judge(store, reply_id, "ben", verdicts=(Verdict(question="voice", value="unsure"),))
    with monkeypatch.context() as context:
        context.setattr(argilla_show, "values_of", _nonsense_for_unsure)
        summary = syncing.sync()
        assert (summary.shown, summary.failed) == (1, 1)  # Ana's goes over all the same
        ((failed, reason),) = syncing.failures()
        assert (failed, reason.startswith("ben's answer is not shown. Argilla refused it")) == (reply_id, True)
        assert syncing.progress()[0].failed == 1
        assert syncing.sync().failed == 0
    assert syncing.sync().shown == 0  # not before somebody asks for it
    assert syncing.retry() == 1
    assert syncing.sync().shown == 1
    assert syncing.failures() == []
    assert sorted(one["values"]["voice"]["value"] for one in there.records()[reply_id]["responses"]) == [
        "fail",
        "unsure",
    ]
    assert syncing.reconcile().nothing


def _nonsense_for_unsure(*given: Any) -> Json:
    values = values_of(*given)
    return values | {"voice": {"value": "nonsense"}} if values["voice"]["value"] == "unsure" else values


def test_who_gets_an_account_there_later_has_their_earlier_answers_shown(
    store: Store, syncing: ArgillaSync, there: There, argilla: ArgillaServer
) -> None:
    store.tasks.change_settings(QueueSettings(overlap=2), "ana")
    syncing.sync()
    stays, taken_out, *_ = replies(store)
    for reply_id in (stays, taken_out):
        judge(store, reply_id, "zed")
    judge(store, taken_out, "eve")
    summary = syncing.sync()
    assert (summary.without_account, summary.shown, summary.removed) == ({"zed", "eve"}, 0, 1)
    assert syncing.failures() == []
    argilla.add_people([Person(name="zed")])
    assert syncing.sync().shown == 2
    assert [len(there.records()[one]["responses"]) for one in (stays, taken_out)] == [1, 1]
    again = syncing.sync()
    assert (again.shown, again.pulled, again.pushed, again.removed) == (0, 0, 0, 0)
    assert syncing.reconcile().nothing


@ON_BOTH
def test_who_may_not_judge_here_is_kept_and_counts_once_they_may(
    store: Store, syncing: ArgillaSync, there: There, argilla: ArgillaServer
) -> None:
    argilla.add_people([Person(name="uma")])
    first, second, third, _ = replies(store)
    syncing.sync()
    there.answer("uma", first, **ALL_GOOD)
    there.answer("uma", third, "discarded")
    there.answer("ben", second, **ALL_GOOD)
    summary = syncing.sync()
    assert (summary.pulled, summary.passed, summary.not_counted, summary.failed) == (1, 0, {"uma"}, 2)
    assert "not counted, of people who may not judge here: uma" in in_words(summary)
    assert {*syncing.failures()} == {(one, no_judge("uma")) for one in (first, third)}
    assert kinds(store, first) == []
    assert syncing.sync().failed == 0
    assert syncing.reconcile().nothing
    kept = store.argilla.responses(mirror(store, there), [first]).values()
    assert [one.said for one in kept] == [{name: {"value": value} for name, value in ALL_GOOD.items()}]
    store.people.add("uma", "viewer")
    assert syncing.sync().pulled == 0
    store.people.change("uma", role="reviewer")
    summary = syncing.sync()
    assert (summary.pulled, summary.passed, syncing.failures()) == (1, 1, [])
    assert kinds(store, first) == ["review"]
    # Whose account is closed: what they said before counts, what they say now does not, and is left as it is there.
    store.people.change("ben", active=False)
    there.answer("ben", second, **ALL_GOOD | {"voice": "fail"})
    assert syncing.sync().not_counted == {"ben"}
    store.tasks.change_settings(QueueSettings(overlap=2), "ana")
    syncing.reconcile()
    assert kinds(store, second) == ["review"]
    assert [one["values"]["voice"]["value"] for one in there.records()[second]["responses"]] == ["fail"]
    store.people.change("ben", active=True)
    assert syncing.sync().pulled == 1
    assert [act.judgements[0].value for act in store.reviews.history(second)] == ["pass", "fail"]


def test_the_figure_of_what_came_from_there_leaves_out_what_we_showed_there(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    here, answered, discarded, _ = replies(store)
    syncing.sync()
    judge(store, here, "ana")
    there.answer("ben", answered, **ALL_GOOD)
    there.answer("ben", discarded, "discarded")
    assert syncing.sync().shown == 1
    assert syncing.progress()[0].pulled == 2
    assert syncing.reconcile().nothing
    assert syncing.progress()[0].pulled == 2


@ON_BOTH
def test_answers_that_a_program_writes_in_bulk_are_found_and_an_idle_sync_reads_no_records(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk, here, theirs, _ = replies(store)
    syncing.sync()
    dataset = there.dataset()
    ana = next(one["id"] for one in ok(owner.get("/users"))["items"] if one["username"] == "ana")
    answer = {"user_id": ana, "status": "submitted", "values": {name: {"value": one} for name, one in ALL_GOOD.items()}}
    foreign = {"fields": {"reply": "mine"}, "external_id": "mine", "responses": [answer]}
    items = [{"external_id": bulk, "responses": [answer]}, foreign]
    ok(owner.put(f"/datasets/{dataset['id']}/records/bulk", json={"items": items}))
    assert there.dataset()["last_activity_at"] == dataset["last_activity_at"]  # which is why this is not enough
    assert syncing.sync().pulled == 1
    judge(store, here, "ben")
    assert syncing.sync().shown == 1
    with monkeypatch.context() as context:
        context.setattr(Argilla, "answered", _must_not)
        assert syncing.sync().pulled == 0
    there.answer("ana", theirs, **ALL_GOOD)
    assert syncing.sync().pulled == 1


@ON_BOTH
@pytest.mark.parametrize("by", ["reconcile", "pull"])
def test_an_answer_that_a_program_writes_over_another_is_found_by_a_comparison_and_by_who_leaves(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client, by: str
) -> None:
    """And not by a look: nothing that could be asked for in little time moves."""
    reply_id = replies(store)[0]
    syncing.sync()
    response = there.answer("ana", reply_id, **ALL_GOOD)
    syncing.sync()
    before, dataset = there.records()[reply_id], there.dataset()
    write_over(owner, dataset["id"], reply_id, response["user_id"], voice="fail")
    after = there.records()[reply_id]
    assert after["responses"][0]["updated_at"] > before["responses"][0]["updated_at"]
    assert (after["updated_at"], there.dataset()["last_activity_at"]) == (
        before["updated_at"],
        dataset["last_activity_at"],
    )
    assert syncing.sync().pulled == 0
    assert getattr(syncing, by)().pulled == 1
    assert store.reviews.history(reply_id)[-1].judgements[0].value == "fail"


def test_who_leaves_reads_a_dataset_too_that_was_taken_for_lost_and_is_there(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client
) -> None:
    """As one is whose backup was played back."""
    reply_id = replies(store)[0]
    syncing.sync()
    (dataset,) = store.argilla.mirrors(there._workspace())
    there.answer("ana", reply_id, **ALL_GOOD)
    store.argilla.change_mirror(dataset.id, state="lost")
    assert syncing.pull().pulled == 1
    assert [one.state for one in store.argilla.mirrors(there._workspace())] == ["live"]
    ok(owner.delete(f"/datasets/{dataset.id}"))
    assert syncing.pull().pulled == 0  # nothing can be said of one that is gone
    assert [one.state for one in store.argilla.mirrors(there._workspace(), lost=True)] == ["lost"]


def test_who_leaves_reads_again_while_pages_shift(
    store: Store, syncing: ArgillaSync, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing.sync()
    for reply_id in replies(store):
        there.answer("ana", reply_id, **ALL_GOOD)
    answered, shifts = Argilla.answered, iter([True, True, False])

    def shifted(*given: Any) -> Iterator[Any]:
        last = not next(shifts, True)
        for page, total in answered(*given):
            yield (page if last else page[1:]), total

    monkeypatch.setattr(Argilla, "answered", shifted)
    assert syncing.pull().pulled == 4
    assert [len(kinds(store, one)) for one in replies(store)] == [1] * 4
    with pytest.raises(UserError, match="can't be read as a whole"):  # they never stop
        syncing.pull()


def _must_not(*given: Any) -> Any:
    raise AssertionError("it need not read any records")


def test_an_answer_begun_while_records_are_taken_out_stays(
    store: Store, syncing: ArgillaSync, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_push, "REMOVED_AT_ONCE", 2)
    syncing.sync()
    for number, reply_id in enumerate(replies(store)):
        store.reviews.skip(f"s{number}", reply_id, "ana", "spam")
    last = store.argilla.closed(mirror(store, there))[-1].reply_id
    remove, calls = Argilla.remove, count()

    def begun_meanwhile(*given: Any) -> None:
        if next(calls) == 0:
            there.answer("ben", last, "draft", voice="fail")
        remove(*given)

    monkeypatch.setattr(Argilla, "remove", begun_meanwhile)
    assert syncing.sync().removed == 3
    assert [one["status"] for one in there.records()[last]["responses"]] == ["draft"]


# Trouble


def test_no_dataset_is_lost_while_argilla_is_away_or_says_no(
    store: Store, desk: Argilla, syncing: ArgillaSync, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_client, "PAUSE_SECONDS", 0.01)
    reply_id = replies(store)[0]
    syncing.sync()
    dataset = there.dataset()["id"]
    there.answer("ana", reply_id, **ALL_GOOD)
    request = desk._http.request
    proxys = httpx.Response(404, text="no such backend")
    for answer in (None, httpx.Response(500, text="oops"), httpx.Response(403, json={"detail": "no"}), proxys):

        def away(method: str, path: str, answer: httpx.Response | None = answer, **about: Any) -> httpx.Response:
            if path != f"/datasets/{dataset}":
                return request(method, path, **about)
            if answer is None:
                raise httpx.ConnectError("nobody there")
            return answer

        with monkeypatch.context() as context:
            context.setattr(desk._http, "request", away)
            for step in (syncing.pull, syncing.sync, syncing.reconcile):
                with pytest.raises(UserError):
                    step()
        assert [one.id for one in store.argilla.mirrors(there._workspace())] == [dataset]
    assert syncing.pull().pulled == 1


def test_a_dataset_that_was_taken_for_lost_and_is_there_is_live_again(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    first, second, *_ = replies(store)
    syncing.sync()
    (dataset,) = store.argilla.mirrors(there._workspace())
    there.answer("ana", first, **ALL_GOOD)
    store.argilla.change_mirror(dataset.id, state="lost")
    assert syncing.sync().pulled == 1
    assert [one.name for one in syncing.progress()] == [dataset.name]
    there.answer("ana", second, "draft", voice="fail")
    record = there.records()[second]
    current = store.charters.current()
    assert current is not None
    store.charters.add(current.model_copy(update={"voice": (Trait(id="short", text="Be short."),)}), "ana")
    syncing.sync()
    store.argilla.change_mirror(dataset.id, state="lost")  # no queue asks for this one any more
    values = {name: {"value": value} for name, value in ALL_GOOD.items()}
    body = {"status": "submitted", "values": values}
    ok(there._client_of("ana").put(f"/responses/{record['responses'][0]['id']}", json=body))
    assert syncing.sync().pulled == 0
    assert syncing.reconcile().pulled == 1
    assert len(syncing.progress()) == 2
    assert syncing.reconcile().nothing


def test_trouble_with_one_queue_does_not_hold_up_the_others_and_is_said_at_the_end(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client
) -> None:
    place = 2
    store.batches.make(Filter(text=f'"parcel {place}"'), Change(queue="a-legal"), "ana")  # asked for before the next
    store.batches.make(Filter(text='"parcel 3"'), Change(queue="b-legal"), "ana")
    syncing.sync()
    datasets = {one.queue: one.id for one in store.argilla.mirrors(there._workspace())}
    main, over_there = replies(store)[0], replies(store)[3]
    there.answer("ana", over_there, **ALL_GOOD)
    ok(owner.delete(f"/datasets/{datasets['a-legal']}"))
    (new,) = fill(store, 1, "later")
    judge(store, main, "ben")
    with pytest.raises(UserError, match="was deleted in Argilla"):
        syncing.sync()
    assert kinds(store, over_there) == ["review"]
    records = ok(owner.get(f"/datasets/{datasets['main']}/records", params={"include": "responses"}))["items"]
    assert {one["external_id"]: len(one["responses"]) for one in records}.items() >= {(new, 0), (main, 1)}
    assert [one.id for one in store.argilla.mirrors(there._workspace())] == [*datasets.values()]  # it is said again
    with pytest.raises(UserError, match="was deleted in Argilla"):
        syncing.sync()
    assert len(syncing.reconcile().datasets) == 1
    assert syncing.reconcile().nothing


# Edited by hand


@ON_BOTH
def test_a_record_that_is_done_here_and_altered_by_hand_is_put_right(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client
) -> None:
    done = replies(store)[0]
    syncing.sync()
    judge(store, done, "ana")
    syncing.sync()
    before = there.records()[done]
    ok(owner.patch(f"/records/{before['id']}", json={"fields": {"reply": "By hand."}, "suggestions": []}))
    repairs = syncing.reconcile()
    assert (repairs.altered, repairs.pushed, repairs.missing) == (1, 1, 0)
    assert there.records()[done]["fields"] == before["fields"]
    assert len(there.records()[done]["suggestions"]) == len(before["suggestions"])
    assert syncing.reconcile().nothing


def test_pages_that_shift_while_people_work_make_nothing_missing(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, deleted, *_ = replies(store)
    syncing.sync()
    there.answer("ana", answered, **ALL_GOOD)
    syncing.sync()
    records = Argilla.records

    def shifted(*given: Any) -> Iterator[Any]:
        for page, total in records(*given):
            yield [one for one in page if one["external_id"] != answered] + page[-1:], total

    monkeypatch.setattr(Argilla, "records", shifted)
    assert syncing.reconcile().nothing
    ok(owner.delete(f"/datasets/{there.dataset()['id']}/records", params={"ids": there.records()[deleted]["id"]}))
    repairs = syncing.reconcile()
    assert (repairs.missing, repairs.gone, repairs.foreign, repairs.pushed) == (1, 0, 0, 1)


@ON_BOTH
def test_a_reconcile_puts_right_what_was_done_by_hand(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client
) -> None:
    deleted, altered, *_ = replies(store)
    syncing.sync()
    dataset = there.dataset()["id"]
    before = {reply: (one["fields"], one["metadata"]) for reply, one in there.records().items()}
    ok(owner.delete(f"/datasets/{dataset}/records", params={"ids": there.records()[deleted]["id"]}))
    ok(owner.patch(f"/records/{there.records()[altered]['id']}", json={"fields": {"reply": "By hand."}}))
    by_hand = [{"fields": {"reply": "mine"}}, {"fields": {"reply": "mine too"}, "external_id": "mine"}]
    ok(owner.put(f"/datasets/{dataset}/records/bulk", json={"items": by_hand}))
    prop = ok(owner.get(f"/me/datasets/{dataset}/metadata-properties"))["items"][0]
    ok(owner.delete(f"/metadata-properties/{prop['id']}"))
    ok(owner.patch(f"/datasets/{dataset}", json={"distribution": {"strategy": "overlap", "min_submitted": 5}}))
    guidelines = there.dataset()["guidelines"]
    ok(owner.patch(f"/datasets/{dataset}", json={"guidelines": "Say yes to everything."}))
    question = next(one for one in ok(owner.get(f"/datasets/{dataset}/questions"))["items"] if one["name"] == "voice")
    settings = question["settings"]
    turned = [one | {"text": {"Yes": "No", "No": "Yes"}.get(one["text"], one["text"])} for one in settings["options"]]
    words = {"type": settings["type"], "options": turned}
    ok(owner.patch(f"/questions/{question['id']}", json={"title": "Is it rude?", "settings": words}))
    for record in ok(owner.get(f"/datasets/{dataset}/records"))["items"]:
        if record["external_id"] in (None, "mine"):
            body = {"status": "submitted", "values": {name: {"value": value} for name, value in ALL_GOOD.items()}}
            ok(there._client_of("ana").post(f"/records/{record['id']}/responses", json=body))
    repairs = syncing.reconcile()
    assert (repairs.missing, repairs.altered, repairs.foreign, repairs.pushed) == (1, 1, 2, 2)
    assert repairs.reworded == 2
    assert there.dataset()["guidelines"] == guidelines
    again = next(one for one in ok(owner.get(f"/datasets/{dataset}/questions"))["items"] if one["name"] == "voice")
    assert (again["title"], again["settings"]["options"]) == (question["title"], settings["options"])
    after = {reply: (one["fields"], one["metadata"]) for reply, one in there.records().items() if reply in before}
    assert after == before
    assert there.dataset()["distribution"]["min_submitted"] == 1
    assert len(ok(owner.get(f"/me/datasets/{dataset}/metadata-properties"))["items"]) == len(METADATA)
    in_the_end_alike(syncing)  # with the overlap put right, Argilla's worker works out the states


@ON_BOTH
def test_a_deleted_dataset_is_said_and_made_anew(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client
) -> None:
    done = replies(store)[0]
    syncing.sync()
    there.answer("ana", done, **ALL_GOOD)
    syncing.sync()
    name = there.dataset()["name"]
    ok(owner.delete(f"/datasets/{there.dataset()['id']}"))
    with pytest.raises(UserError, match="was deleted in Argilla"):
        syncing.sync()
    repairs = syncing.reconcile()
    assert (repairs.datasets, repairs.pushed) == ([name], 3)
    assert kinds(store, done) == ["review"]
    assert set(there.records()) == set(replies(store)[1:])
    assert syncing.sync().pushed == 0


def test_a_deleted_user_takes_nothing_along(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client, argilla: ArgillaServer
) -> None:
    argilla.add_people([Person(name="gus")])
    store.people.add("gus", "reviewer")
    reply_id = replies(store)[0]
    syncing.sync()
    there.answer("gus", reply_id, **ALL_GOOD)
    syncing.sync()
    gus = next(one["id"] for one in ok(owner.get("/users"))["items"] if one["username"] == "gus")
    ok(owner.delete(f"/users/{gus}"))
    assert syncing.sync().failed == 0
    repairs = syncing.reconcile()
    assert (repairs.gone, repairs.without_account) == (1, {"gus"})
    assert "1 answers no longer there, kept here" in in_words(repairs)
    assert [act.person for act in store.reviews.history(reply_id)] == ["gus"]
    assert store.tasks.state_of(reply_id)["state"] == "done"


def test_a_dataset_of_this_name_that_is_not_ours_is_left_alone(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client
) -> None:
    current = store.charters.current()
    assert current is not None
    name = dataset_name(current, "main")
    theirs = ok(owner.post("/datasets", json={"name": name, "workspace_id": there._workspace()}))
    syncing.sync()
    assert there.dataset()["name"] == f"{name}-2"
    assert ok(owner.get(f"/datasets/{theirs['id']}"))["status"] == "draft"


def test_a_dataset_renamed_by_hand_is_still_known(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client
) -> None:
    reply_id = replies(store)[0]
    syncing.sync()
    dataset = there.dataset()["id"]
    there.answer("ana", reply_id, **ALL_GOOD)
    ok(owner.patch(f"/datasets/{dataset}", json={"name": f"by-hand-{uuid4().hex[:8]}"}))
    assert syncing.sync().pulled == 1
    assert kinds(store, reply_id) == ["review"]
    assert [one.id for one in store.argilla.mirrors(there._workspace())] == [dataset]


def test_a_dataset_that_asks_something_else_is_said_and_nothing_is_sent(
    store: Store, syncing: ArgillaSync, there: There, owner: httpx.Client
) -> None:
    current = store.charters.current()
    assert current is not None
    ours = {"store": store.argilla.identity(), "queue": "main", "charter_version": 1}
    name = dataset_name(current, "main")
    workspace = there._workspace()
    about = {"name": name, "workspace_id": workspace, "metadata": {MARK: ours}}
    dataset = ok(owner.post("/datasets", json=about))["id"]
    parts = (("fields", "reply"), ("questions", "voice"))
    for kind, part in parts:
        asked = {"name": part, "title": part, "required": True, "settings": {"type": "text"}}
        ok(owner.post(f"/datasets/{dataset}/{kind}", json=asked))
    ok(owner.put(f"/datasets/{dataset}/publish"))
    with pytest.raises(UserError, match="edited by hand: the question 'voice' is another one") as said:
        syncing.sync()
    assert "Rename it" in said.value.do
    assert ok(owner.get(f"/datasets/{dataset}/records"))["total"] == 0
    ok(owner.patch(f"/datasets/{dataset}", json={"name": f"by-hand-{uuid4().hex[:8]}"}))
    assert syncing.sync().pushed == 4


# Errors in words


def test_a_conversation_over_argillas_limits_is_said_and_waits_here(store: Store, syncing: ArgillaSync) -> None:
    (long,) = fill(store, 1, "long", turns=503)
    store.conversations.import_one(
        "wide",
        "0",
        "w",
        None,
        [(Message(role="user", text="x" * 20_001), None), (Message(role="assistant", text="y" * 30_000), MODEL)],
    )
    (wide,) = [store.conversations.of_external("wide", "0").turns[-1].id]
    summary = syncing.sync()
    reasons = dict(syncing.failures())
    assert "at most 500" in reasons[long]
    assert "20,001 characters" in reasons[wide]
    assert summary.failed == len(reasons)
    assert syncing.sync().failed == 0  # said once
    judge(store, long, "ana")
    assert store.tasks.state_of(long)["state"] == "done"


def with_clauses(store: Store, number: int, text: str = "Promise nothing {}.", examples: tuple[str, ...] = ()) -> None:
    """A version of the charter with so many clauses of policy."""
    current = store.charters.current()
    assert current is not None
    clauses = [Clause(id=f"c-{one}", text=text.format(one), violations=examples) for one in range(number)]
    store.charters.add(current.model_copy(update={"policy": tuple(clauses)}), "ana")


def test_a_charter_that_is_too_long_for_guidelines_ends_with_a_line_that_says_so(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    short, bare, cut = (1, 0), (1, MOST_GUIDELINES), (300, 0)
    for number, examples in (short, bare, cut):
        with_clauses(store, number, "Promise nothing {}, whoever asks.", ("x" * examples,) * bool(examples))
        assert syncing.sync().failed == 0
        text, shown = there.dataset()["guidelines"], syncing.progress()[-1].shortened
        assert len(text) <= MOST_GUIDELINES
        assert (text.endswith(REST), shown) == ((number, examples) != short,) * 2
        assert "Promise nothing 0, whoever asks." in text
    assert len(text) > MOST_GUIDELINES - 100
    last = text.removesuffix(REST).splitlines()[-1]
    assert re.fullmatch(r"- Promise nothing \d+, whoever asks\.", last)  # no rule is cut in two
    assert syncing.reconcile().nothing


def test_a_charter_with_more_rules_than_argilla_takes_is_said_and_the_most_it_takes_goes_over(
    store: Store, syncing: ArgillaSync, there: There
) -> None:
    with_clauses(store, MOST_RULES + 1)
    with pytest.raises(UserError, match=f"has {MOST_RULES + 1} rules of one kind") as said:
        syncing.sync()
    assert f"At most {MOST_RULES}" in said.value.wanted
    assert store.argilla.mirrors(there._workspace()) == []
    with_clauses(store, MOST_RULES)
    assert syncing.sync().pushed == 4
    there.answer("ana", replies(store)[0], **ALL_GOOD | {"policy": "fail"}, policy_rules=[f"c-{MOST_RULES - 1}"])
    assert syncing.sync().pulled == 1
    assert store.reviews.history(replies(store)[0])[0].judgements[1].clause_ids == (f"c-{MOST_RULES - 1}",)


def test_what_argilla_refuses_does_not_hold_up_the_rest(
    store: Store, syncing: ArgillaSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_push, "record_of", _with_a_bad_one(replies(store)[1]))
    summary = syncing.sync()
    assert (summary.pushed, summary.failed) == (3, 1)
    assert [reply for reply, _ in syncing.failures()] == [replies(store)[1]]
    monkeypatch.undo()
    assert syncing.retry() == 1
    assert syncing.sync().pushed == 1


def _with_a_bad_one(bad: str) -> Callable[..., Json]:
    def made(*given: Any) -> Json:
        record = record_of(*given)
        return record | {"fields": {"nonsense": "x"}} if record["external_id"] == bad else record

    return made


def test_errors_are_said_in_words(
    store: Store, argilla: ArgillaServer, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_client, "PAUSE_SECONDS", 0.01)

    def fails(url: str, key: str, says: str) -> None:
        with pytest.raises(UserError, match=says) as said, closing(Argilla(url, key, WORKSPACE)) as client:
            ArgillaSync(store, client).sync()
        assert said.value.do  # what to do next

    fails("http://127.0.0.1:9", argilla.keys.api_key, "does not answer")
    fails(argilla.url, "wrong", "does not know this key")
    ana = next(one["api_key"] for one in ok(owner.get("/users"))["items"] if one["username"] == "ana")
    fails(argilla.url, ana, "an annotator")
    with monkeypatch.context() as context:
        context.setattr(argilla_client, "OLDEST", (99, 0))
        fails(argilla.url, argilla.keys.api_key, "is version 2.8")
    other = ThreadingHTTPServer(("127.0.0.1", 0), _SomethingElse)
    threading.Thread(target=other.serve_forever).start()
    fails(f"http://127.0.0.1:{other.server_port}", "key", "is not Argilla")
    fails(f"http://127.0.0.1:{other.server_port}/nothing", "key", "is not Argilla")
    fails("http://[::1", "key", "is no address")
    fails(argilla.url, "schlüssel", "no key of Argilla's has")
    other.shutdown()
    other.server_close()
    assert kinds(store, replies(store)[0]) == []


class _SomethingElse(BaseHTTPRequestHandler):
    """A web server that is no Argilla."""

    def do_GET(self) -> None:
        self.send_response(404 if self.path.startswith("/nothing") else 200)
        self.end_headers()
        self.wfile.write(b"<h1>It works!</h1>")

    def log_message(self, format: str, *args: Any) -> None: ...


def test_without_a_charter_there_is_nothing_to_ask(tmp_path: Path, desk: Argilla) -> None:
    empty = open_store(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(UserError, match="no charter"):
        ArgillaSync(empty, desk).sync()
    empty.close()


def test_a_sync_reports_and_can_be_stopped(store: Store, syncing: ArgillaSync) -> None:
    heard: list[Progress] = []
    assert syncing.sync(cancelled=lambda: True).cancelled
    assert not syncing.sync(heard.append).cancelled
    assert ("sending replies", 4) in {(one.what, one.total) for one in heard}


# Many


def test_many_pages_there_and_back(
    store: Store, syncing: ArgillaSync, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 10,000 are, with smaller pages; `python -m benchmarks argilla-sync` does 10,000."""
    monkeypatch.setattr(argilla_push, "AT_ONCE", 15)
    monkeypatch.setattr(argilla_client, "PAGE", 20)
    store.tasks.change_settings(QueueSettings(overlap=2), "ana")
    reply_ids = replies(store) + fill(store, 56, "more")
    assert syncing.sync().pushed == 60
    answer_all(there, reply_ids[:40])
    assert syncing.sync().pulled == 60
    # Beyond what Elasticsearch pages through, records are listed instead of searched.
    monkeypatch.setattr(argilla_client, "WINDOW", 40)
    answer_all(there, reply_ids[40:])
    assert syncing.sync().pulled == 30
    assert_alike(store, there, reply_ids)
    assert syncing.reconcile().nothing
    assert sum(1 for _ in store.figures.answers("voice")) == 90


# Kills


@ON_BOTH
@pytest.mark.parametrize("step", ["add_mirror", "keep_records", "keep_responses", "change_mirror"])
def test_cut_off_before_our_side_knows_what_was_done(
    store: Store, syncing: ArgillaSync, there: There, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As a kill -9 between Argilla's answer and our note of it, at every place where there is one."""

    def until_it_works() -> None:
        for after in count():
            calls = count()
            kept = getattr(store.argilla, step)

            def cut(*given: Any, _kept: Any = kept, _calls: Any = calls, _after: int = after, **named: Any) -> None:
                if next(_calls) == _after:
                    raise KeyboardInterrupt
                _kept(*given, **named)

            with monkeypatch.context() as context:
                context.setattr(store.argilla, step, cut)
                try:
                    syncing.sync()
                except KeyboardInterrupt:
                    continue
                return

    until_it_works()
    answered, edited, discarded, here = replies(store)
    there.answer("ana", edited, **ALL_GOOD, correction="One.")
    syncing.sync()
    there.answer("ana", answered, **ALL_GOOD, correction="Two.")
    there.answer("ana", edited, **ALL_GOOD)
    there.answer("ana", discarded, "discarded")
    judge(store, here, "ben")
    until_it_works()
    assert [kinds(store, one) for one in (answered, edited, discarded, here)] == [
        ["review"],
        ["review", "undo", "review"],
        ["pass"],
        ["review"],
    ]
    assert len(there.records()) == 4
    assert syncing.reconcile().nothing


CHILD = """
import sys
import time
from annotation import argilla_client, argilla_push
from annotation.argilla_client import Argilla
from annotation.argilla_sync import ArgillaSync
from annotation.store import open_store
argilla_push.AT_ONCE = argilla_client.PAGE = 10
url, server, key, workspace, what = sys.argv[1:]
def tell(one):
    print(one.what, one.done, flush=True)
    while one.what == what and one.done == 30:
        time.sleep(1)
ArgillaSync(open_store(url), Argilla(server, key, workspace)).sync(tell)
"""


def kill_in(what: str, url: str, argilla: ArgillaServer, after: float) -> None:
    """Kill -9 a sync of its own process some moments after its first ten of `what`. However long that takes here, it
    does no more than thirty.
    """
    command = [sys.executable, "-c", CHILD, url, argilla.url, argilla.keys.api_key, WORKSPACE, what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(what) and not line.startswith(f"{what} 0"):
                break
        time.sleep(after)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def answer_all(there: There, reply_ids: list[str], people: tuple[str, ...] = ("ana", "ben")) -> None:
    """Ana answers all of them, Ben every second, over the bulk call of the page."""
    records = there.records()
    for person in people:
        mine = reply_ids if person == "ana" else reply_ids[::2]
        items = [
            {
                "record_id": records[reply_id]["id"],
                "status": "submitted",
                "values": {name: {"value": value} for name, value in ALL_GOOD.items()}
                | {"correction": {"value": f"{person} on {place}"}},
            }
            for place, reply_id in enumerate(mine)
        ]
        for start in range(0, len(items), 100):
            answer = ok(there._client_of(person).post("/me/responses/bulk", json={"items": items[start : start + 100]}))
            assert all(one["item"] for one in answer["items"])


def assert_alike(store: Store, there: There, reply_ids: list[str]) -> None:
    """Every record once, and every response once as an act, with what it said."""
    records = there.records()
    assert set(records) == set(reply_ids)
    for reply_id, record in records.items():
        said = sorted(one["values"]["correction"]["value"] for one in record["responses"])
        kept = [act.correction.after for act in store.reviews.history(reply_id) if act.correction]
        assert sorted(kept) == said


def test_our_process_killed_in_the_middle_of_push_and_of_pull(
    store: Store, url: str, syncing: ArgillaSync, there: There, argilla: ArgillaServer
) -> None:
    store.tasks.change_settings(QueueSettings(overlap=2), "ana")
    reply_ids = replies(store) + fill(store, 96, "more")
    for moment in (0.0, 0.03, 0.07):
        kill_in("sending replies", url, argilla, moment)
    assert 0 < len(there.records()) < 100
    syncing.sync()
    assert len(there.records()) == 100
    answer_all(there, reply_ids)
    for moment in (0.0, 0.05):
        kill_in("fetching answers", url, argilla, moment)
        assert 0 < len(store.argilla.responses(mirror(store, there), reply_ids)) < 150
    syncing.sync()
    assert_alike(store, there, reply_ids)
    assert syncing.reconcile().nothing
    assert_alike(store, there, reply_ids)
    answered = store.figures.answers("voice")
    assert sum(1 for _ in answered) == 150


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_server_killed_in_the_middle(
    store: Store,
    syncing: ArgillaSync,
    there: There,
    argilla: ArgillaServer,
    monkeypatch: pytest.MonkeyPatch,
    part: Part,
) -> None:
    monkeypatch.setattr(argilla_push, "AT_ONCE", 5)
    monkeypatch.setattr(argilla_client, "PAGE", 5)
    reply_ids = replies(store) + fill(store, 36, "more")
    cut_off(syncing, argilla, part, "sending replies")
    assert 0 < len(there.records()) <= 40
    syncing.sync()
    answer_all(there, reply_ids)
    cut_off(syncing, argilla, part, "fetching answers")
    if part == "server":
        assert 0 < len(store.argilla.responses(mirror(store, there), reply_ids)) < 60
    syncing.sync()
    assert_alike(store, there, reply_ids)
    assert syncing.reconcile().nothing
    assert_alike(store, there, reply_ids)


MANY = 120
"""Answers, each of which leaves a call in the queue, for which the worker starts a process of its own."""
QUEUED = """
import sys
import redis
store = redis.Redis(port=int(sys.argv[1]), password=sys.stdin.read())
print(*(store.llen(f"rq:queue:{name}") for name in ("high", "default")))
"""


def queued(argilla: ArgillaServer) -> tuple[int, int]:
    """Jobs that wait in Argilla's store: calls to webhooks, and states of records to be worked out."""
    running = json.loads((argilla.home / "store.json").read_text())
    command = [str(argilla.install()), "-c", QUEUED, str(running["port"])]
    said = subprocess.run(command, input=argilla.keys.store_password, capture_output=True, text=True, check=True)
    high, default = said.stdout.split()
    return int(high), int(default)


@pytest.fixture
def heard(owner: httpx.Client) -> Iterator[list[str]]:
    """The responses that Argilla has called about."""
    found: list[str] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"]["id"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    ear = ThreadingHTTPServer(("127.0.0.1", 0), Ear)
    threading.Thread(target=ear.serve_forever).start()
    about = {"url": f"http://127.0.0.1:{ear.server_port}/", "events": ["response.created"], "description": "a test"}
    hook = ok(owner.post("/webhooks", json=about))
    yield found
    ok(owner.delete(f"/webhooks/{hook['id']}"))
    ear.shutdown()
    ear.server_close()


def killed(argilla: ArgillaServer, part: Part) -> None:
    """With all that it started: the worker's own children would go on working without it."""
    process = psutil.Process(argilla.status().parts[part])
    family = [process, *process.children(recursive=True)]
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, timeout=60)


@pytest.mark.timeout(1200)
def test_what_waits_for_the_worker_outlives_it_and_redis_and_what_was_in_hand_is_put_right(
    store: Store, syncing: ArgillaSync, there: There, argilla: ArgillaServer, heard: list[str]
) -> None:
    reply_ids = replies(store) + fill(store, MANY - 4, "more")
    syncing.sync()
    wait_until(lambda: queued(argilla) == (0, 0), 120, "what earlier tests left")
    killed(argilla, "worker")
    answer_all(there, reply_ids, people=("ana",))
    store.tasks.change_settings(QueueSettings(overlap=2), "ana")
    syncing.sync()  # the new overlap is worked out by the worker, record by record
    assert queued(argilla) == (MANY, 1)
    killed(argilla, "store")
    argilla.ensure()
    wait_until(lambda: len(heard) >= 20, 180, "some of the calls")
    killed(argilla, "worker")  # with a job in hand, and the rest still waiting
    assert 0 < queued(argilla)[0] < MANY
    argilla.ensure()
    wait_until(lambda: queued(argilla) == (0, 0), 300, "the rest")
    # A job that was in hand may be gone with the worker: one call, or the states from some record on.
    assert MANY - 1 <= len(set(heard)) <= MANY
    assert_alike(store, there, reply_ids)
    syncing.reconcile()
    states = "the states of all records"
    wait_until(lambda: {one["status"] for one in there.records().values()} == {"pending"}, 300, states)
    assert syncing.reconcile().nothing


def test_a_state_that_no_worker_worked_out_is_found_by_a_comparison(
    store: Store, syncing: ArgillaSync, there: There, argilla: ArgillaServer
) -> None:
    """As after a worker that was killed with the job in hand."""
    answered = replies(store)[0]
    syncing.sync()
    there.answer("ana", answered, **ALL_GOOD)
    syncing.sync()
    with closing(sqlite3.connect(argilla.home / "home" / "argilla.db")) as db, db:
        db.execute("UPDATE records SET status = 'pending' WHERE external_id = ?", [answered])
    repairs = syncing.reconcile()
    assert (repairs.stale, in_words(repairs)) == (1, "1 whose state Argilla is to work out anew")
    assert (repairs.nothing, repairs.nothing_moved) == (False, True)
    assert compared_in_words(repairs) == "Both desks were compared."
    in_the_end_alike(syncing)
    assert there.records()[answered]["status"] == "completed"
    assert compared_in_words(syncing.reconcile()) == "Both desks were compared, and they were alike."


def in_the_end_alike(syncing: ArgillaSync) -> None:
    """A comparison finds nothing but states that Argilla's worker is at, and in the end none of those."""

    def look() -> bool:
        repairs = syncing.reconcile()
        assert repairs.nothing_moved
        return repairs.nothing

    wait_until(look, 120, "the states of all records")


def cut_off(syncing: ArgillaSync, argilla: ArgillaServer, part: Part, step: str) -> None:
    """Kill -9 a part of the server once a sync is at its third page of `step`, and bring the part back."""
    dead: list[Part] = []

    def kill(progress: Progress) -> None:
        if progress.what == step and progress.done >= 10 and not dead:
            killed(argilla, part)
            dead.append(part)

    try:
        syncing.sync(kill)
    except UserError:
        if part == "worker":  # it has no part in a sync
            raise
    assert dead
    assert part in argilla.ensure()


def mirror(store: Store, there: There) -> Mirror:
    return store.argilla.mirrors(there._workspace())[-1]
