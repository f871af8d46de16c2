"""A store as it looks after a year: 200,000 conversations, half of them judged by two of twenty reviewers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from annotation.acts import QUESTIONS
from annotation.people import Person
from annotation.queue import QueueSettings
from annotation.store import Store
from annotation.store.dealing import new_task
from annotation.store.part import new_id
from annotation.store.tables import acts, conversations, judgements, leases, tasks, turns
from annotation.types import utc_now
from studio.demo_project import lines, seed

CONVERSATIONS, JUDGED, REVIEWERS = 200_000, 100_000, 20
CHUNK = 2_000
SETTINGS = QueueSettings(overlap=2)


def fill(store: Store) -> None:
    """Fill an empty store: the demo, then rows straight into the tables, since going through the importer would take
    most of an hour. What is measured after goes through the services.
    """
    seed(store)
    store.tasks.change_settings(SETTINGS, "bench")
    for number in range(REVIEWERS):
        store.people.add(f"reviewer-{number}", "reviewer")
    texts = [[(m["role"], m["text"]) for m in line["messages"][:2]] for line in lines("conversations.jsonl")]
    rng = random.Random(7)
    with store.engine.connect() as db:
        position = db.scalar(sa.select(sa.func.max(turns.c.seq))) or 0
    for start in range(0, CONVERSATIONS, CHUNK):
        rows = list(_conversations(start, texts, position, rng))
        position += 2 * len(rows)
        _insert(store, rows)


def _conversations(
    start: int, texts: list[list[tuple[str, str]]], position: int, rng: random.Random
) -> Iterator[dict[str, Any]]:
    now = utc_now()
    for number in range(start, min(start + CHUNK, CONVERSATIONS)):
        (_, asked), (_, said) = rng.choice(texts)
        conversation_id, asked_id, reply_id = new_id(), new_id(), new_id()
        position += 2
        judged = rng.sample(range(REVIEWERS), 2) if number < JUDGED else []
        yield {
            "conversation": {
                "id": conversation_id, "source": "bench", "external_id": str(number), "title": asked[:60],
                "language": "en", "head_id": reply_id, "created_at": now,
            },
            "turns": [
                {"id": asked_id, "conversation_id": conversation_id, "parent_id": None, "role": "user",
                 "text": f"{asked} ({number})", "provenance": None, "made_at": now, "seq": position - 1},
                {"id": reply_id, "conversation_id": conversation_id, "parent_id": asked_id, "role": "assistant",
                 "text": said, "provenance": {"model": "bench"}, "made_at": now, "seq": position},
            ],
            "task": new_task(SETTINGS, reply_id, position, "en")
            | ({"done": 2, "state": "done", "outcome": "failed", "agreement": 1.0} if judged else {}),
            "acts": [_act(reply_id, f"reviewer-{who}", now) for who in judged],
        }  # fmt: skip


def _act(reply_id: str, person: str, now: Any) -> dict[str, Any]:
    return {
        "id": new_id(), "reply_id": reply_id, "person": person, "kind": "review", "route": "queue", "body": {},
        "seconds": 20.0, "made_at": now,
    }  # fmt: skip


def _insert(store: Store, rows: list[dict[str, Any]]) -> None:
    done = [act for row in rows for act in row["acts"]]
    given = [
        {"id": new_id(), "act_id": act["id"], "reply_id": act["reply_id"], "question": question, "value": "fail",
         "clause_ids": [], "spans": [], "charter_version": 1, "reviewer": act["person"], "route": "queue",
         "seconds": 20.0, "note": "", "made_at": act["made_at"]}
        for act in done
        for question in QUESTIONS
    ]  # fmt: skip
    keys = ("id", "reply_id", "person", "route", "made_at")
    holds = [{key: act[key] for key in keys} | {"state": "done", "expires_at": act["made_at"]} for act in done]
    with store.engine.begin() as db:
        db.execute(conversations.insert(), [row["conversation"] for row in rows])
        db.execute(turns.insert(), [turn for row in rows for turn in row["turns"]])
        for state in ("open", "done"):
            if some := [row["task"] for row in rows if row["task"]["state"] == state]:
                db.execute(tasks.insert(), some)
        for table, values in ((acts, done), (judgements, given), (leases, holds)):
            if values:
                db.execute(table.insert(), values)


def reviewers() -> list[Person]:
    """The twenty."""
    return [Person(name=f"reviewer-{number}") for number in range(REVIEWERS)]
