"""A store as it looks after a year: 200,000 conversations, half of them judged by two of twenty reviewers, some of whom
are better than others. The same each time, but for the day."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

import sqlalchemy as sa

from annotation.acts import QUESTIONS, Act, project
from annotation.people import Person
from annotation.queue import QueueSettings
from annotation.store import Store
from annotation.store.dealing import new_task
from annotation.store.tables import acts, conversations, corrections, golds, judgements, leases, tasks, turns
from annotation.types import BiasKind, Correction, Judgement, Question, Route, Severity, Value, utc_now
from benchmarks.bulk import insert, without_text_index
from studio.demo_project import lines, seed

CONVERSATIONS, JUDGED, REVIEWERS = 200_000, 100_000, 20
EACH_CHECK, EACH_REPEAT, CHECKED_BY = 1_000, 50, 10
"""Of so many judged replies one is a hidden check, which so many people met; of so many, one came back to somebody."""
CHUNK = 5_000
SETTINGS = QueueSettings(overlap=2)
VALUES: tuple[Value, ...] = get_args(Value)
COMMON: dict[Question, tuple[int, ...]] = {"voice": (63, 31, 3, 3), "policy": (74, 17, 3, 6), "bias": (90, 4, 1, 5)}
"""How common each of `VALUES` is, in percent."""
ORDER = (conversations, turns, tasks, golds, acts, judgements, corrections, leases)
Rows = dict[str, list[dict[str, Any]]]
"""By the name of their table."""


def fill(store: Store) -> None:
    """Fill an empty store: the demo, then rows straight into the tables, since going through the importer would take
    most of an hour. What is measured after goes through the services.
    """
    seed(store)
    store.tasks.change_settings(SETTINGS, "bench")
    for number in range(REVIEWERS):
        store.people.add(f"reviewer-{number}", "reviewer")
    with store.engine.connect() as db:
        position = db.scalar(sa.select(sa.func.max(turns.c.seq))) or 0
    charter = store.charters.current()
    rules = {question: tuple(rule.id for rule in getattr(charter, question)) for question in QUESTIONS}
    year = Year(rules, position)
    with without_text_index(store.engine):
        for start in range(0, CONVERSATIONS, CHUNK):
            rows = year.rows(range(start, min(start + CHUNK, CONVERSATIONS)))
            with store.engine.begin() as db:
                for table in ORDER:
                    insert(db, table, rows[table.name])


@dataclass(frozen=True)
class _Meant:
    """What should be said about a reply."""

    reply_id: str
    text: str
    made_at: datetime
    values: dict[Question, Value]
    rules: dict[Question, str]
    """The one at fault, where one is."""


class Year:
    """Makes the rows, conversation by conversation."""

    def __init__(self, rules: dict[Question, tuple[str, ...]], position: int) -> None:
        self._dice = random.Random(7)
        self._rules = rules
        self._position = position
        self._now = utc_now()
        self._texts = [[m["text"] for m in line["messages"][:2]] for line in lines("conversations.jsonl")]
        self._right = [0.75, 0.82, *(0.9 + 0.09 * self._dice.random() for _ in range(REVIEWERS - 2))]
        self._pace = [self._dice.uniform(12, 45) for _ in range(REVIEWERS)]

    def rows(self, numbers: range) -> Rows:
        """All rows of these conversations."""
        rows: Rows = defaultdict(list)
        for number in numbers:
            self._conversation(number, rows)
        return rows

    def _conversation(self, number: int, rows: Rows) -> None:
        asked, said = self._dice.choice(self._texts)
        conversation_id, asked_id, reply_id = self._id(), self._id(), self._id()
        made_at = self._now - timedelta(days=365) * (1 - number / CONVERSATIONS)
        self._position += 2
        rows["conversations"].append({
            "id": conversation_id, "source": "bench", "external_id": str(number), "title": asked[:60],
            "language": "en", "head_id": reply_id, "created_at": made_at,
        })  # fmt: skip
        turn = {"conversation_id": conversation_id, "made_at": made_at}
        rows["turns"] += [
            turn | {"id": asked_id, "parent_id": None, "role": "user", "text": f"{asked} ({number})",
                    "provenance": None, "seq": self._position - 1},
            turn | {"id": reply_id, "parent_id": asked_id, "role": "assistant", "text": said,
                    "provenance": {"model": "bench"}, "seq": self._position},
        ]  # fmt: skip
        meant = self._meant(reply_id, said, made_at)
        gold = number < JUDGED and number % EACH_CHECK == 0
        history = list(self._history(number, meant, gold)) if number < JUDGED else []
        for act in history:
            _keep(act, rows)
        if gold:
            row = {"reply_id": reply_id, "answers": meant.values, "author": "bench", "made_at": made_at}
            rows["golds"].append(row)
        stands = project(history, SETTINGS.overlap, 0, gold)
        rows["tasks"].append(new_task(SETTINGS, reply_id, self._position, "en") | vars(stands))

    def _meant(self, reply_id: str, text: str, made_at: datetime) -> _Meant:
        values = {name: self._dice.choices(VALUES, COMMON[name])[0] for name in QUESTIONS}
        rules = {name: self._dice.choice(self._rules[name]) for name in QUESTIONS}
        return _Meant(reply_id, text, made_at, values, rules)

    def _history(self, number: int, meant: _Meant, gold: bool) -> Iterator[Act]:
        people = self._dice.sample(range(REVIEWERS), CHECKED_BY if gold else SETTINGS.overlap)
        for who in people:
            yield self._review(who, meant, "gold" if gold else "queue")
        if number % EACH_REPEAT == 1:
            yield self._review(people[0], meant, "repeat")

    def _review(self, who: int, meant: _Meant, route: Route) -> Act:
        act_id, person, pace = self._id(), f"reviewer-{who}", self._pace[who]
        seconds = 1.5 if self._dice.random() < 0.05 else pace * self._dice.lognormvariate(0, 0.5)
        about: dict[str, Any] = {
            "reply_id": meant.reply_id,
            "seconds": seconds,
            "made_at": meant.made_at,
            "route": route,
        }
        given = tuple(self._judgement(question, who, meant, about) for question in QUESTIONS)
        wrong = any(one.value == "fail" for one in given)
        right = self._correction(person, meant) if wrong and route == "queue" and self._dice.random() < 0.15 else None
        return Act.model_construct(
            **about, id=act_id, person=person, kind="review", judgements=given, correction=right
        )  # checked by nobody: a million of them would take minutes

    def _judgement(self, question: Question, who: int, meant: _Meant, about: dict[str, Any]) -> Judgement:
        dice, sure = self._dice, self._right[who]
        value, rule = meant.values[question], meant.rules[question]
        if dice.random() > sure:
            value = dice.choices(VALUES, COMMON[question])[0]
        cited = [rule if dice.random() < sure else dice.choice(self._rules[question])] if value == "fail" else []
        if cited and dice.random() < 0.15:
            cited = list(dict.fromkeys([*cited, dice.choice(self._rules[question])]))
        return Judgement.model_construct(
            **about,
            id=self._id(),
            question=question,
            value=value,
            clause_ids=tuple(cited),
            severity=dice.choice(get_args(Severity)) if cited and question == "policy" else None,
            kind=dice.choice(get_args(BiasKind)) if cited and question == "bias" else None,
            charter_version=1,
            reviewer=f"reviewer-{who}",
            note="See the second sentence." if cited and dice.random() < 0.05 else "",
        )

    def _correction(self, author: str, meant: _Meant) -> Correction:
        kept = meant.text.split()[: -self._dice.randint(1, 8)]
        after = " ".join([*kept, self._dice.choice(self._texts)[1]])
        return Correction.model_construct(
            id=self._id(), reply_id=meant.reply_id, before=meant.text, after=after, reasons=(), author=author,
            origin="review", made_at=meant.made_at,
        )  # fmt: skip

    def _id(self) -> str:
        return f"{self._dice.getrandbits(128):032x}"


def _keep(act: Act, rows: Rows) -> None:
    """The act as rows, and the hold that it ended."""
    about = {"id": act.id, "reply_id": act.reply_id, "person": act.person, "route": act.route, "made_at": act.made_at}
    rows["acts"].append(about | {"kind": act.kind, "body": {}, "seconds": act.seconds})
    rows["leases"].append(about | {"state": "done", "expires_at": act.made_at})
    rows["judgements"] += [
        vars(one) | {"act_id": act.id, "clause_ids": list(one.clause_ids), "spans": []} for one in act.judgements
    ]
    if act.correction:
        rows["corrections"].append(vars(act.correction) | {"act_id": act.id, "reasons": []})


def reviewers() -> Sequence[Person]:
    """The twenty."""
    return [Person(name=f"reviewer-{number}") for number in range(REVIEWERS)]
