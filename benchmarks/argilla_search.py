"""Argilla with our search engine and no Elasticsearch at 50,000 records: every kind of page it asks for, over REST."""

from __future__ import annotations

import functools
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import sqlalchemy as sa

from annotation.argilla_search.words import find
from annotation.people import Person
from benchmarks.argilla_server import running_argilla
from benchmarks.row import Row, show

Json = dict[str, Any]
RECORDS, PAGE, ASKED, DIMENSIONS = 50_000, 10, 40, 384
LIMIT = 0.100
ANSWERED = {"ana": 20_000, "ben": 15_000}
"""How many records each has answered, from the first on."""
SEED = 11
WORDS = [f"{first}{last}" for first in ("par", "del", "ret", "inv", "ord", "cus") for last in range(700)]
"""The n-th of them is in about every n-th text, as in real language."""
RANKED: dict[str, Callable[[int], str]] = {
    "a word that every third record has": lambda number: WORDS[25 + number],
    "a word that nearly all have": lambda number: WORDS[number % 3],
    "one word or another": lambda number: f"{WORDS[number % 3]} | {WORDS[1000 + number]}",
    "a phrase": lambda number: f'"{WORDS[0]} {WORDS[number % 20]}"',
}
LEAST_GAIN = 0.95
PARTS: tuple[tuple[str, Json], ...] = (
    ("fields", {"name": "chat", "required": True, "settings": {"type": "chat"}}),
    ("fields", {"name": "reply", "required": True, "settings": {"type": "text"}}),
    (
        "questions",
        {
            "name": "voice",
            "required": True,
            "settings": {
                "type": "label_selection",
                "options": [{"value": one, "text": one} for one in ("pass", "fail", "unsure")],
            },
        },
    ),
    (
        "questions",
        {"name": "stars", "settings": {"type": "rating", "options": [{"value": one} for one in range(1, 6)]}},
    ),
    ("metadata-properties", {"name": "source", "settings": {"type": "terms"}}),
    ("metadata-properties", {"name": "length", "settings": {"type": "integer"}}),
    ("metadata-properties", {"name": "cost", "settings": {"type": "float"}}),
    ("vectors-settings", {"name": "place", "dimensions": DIMENSIONS}),
)


def measure(folder: Path) -> list[Row]:
    """95th percentile of 40 requests of each kind, each as Argilla's page and SDK put it."""
    home = folder / "argilla-search"
    with running_argilla(home) as server:
        server.add_people([Person(name=name) for name in ANSWERED])
        with server.client() as owner:
            dataset = _dataset(owner)
            _fill(home, owner, dataset)
            rows: list[Row] = []
            ana = _as(owner, server.url, "ana")
            for what, ask in _questions(ana, owner, dataset).items():
                ask(0)  # what is read once is not what a page costs
                taken = [_timed(functools.partial(ask, number)) for number in range(1, ASKED + 1)]
                rows.append(_row(what, *(_p95(seconds) for seconds in zip(*taken, strict=True))))
            rows += _orders(home, ana, dataset)
            ana.close()
    return rows


def _row(what: str, page: float, part: float) -> Row:
    """The engine's part is held to the limit; the page is that and what Argilla does by itself."""
    whole = f"{show(part)} of {show(page)}"
    return Row(f"Argilla search, {what}, p95", whole, f"limit {show(LIMIT)}", part / LIMIT, part <= LIMIT)


def _orders(home: Path, ana: httpx.Client, dataset: str) -> list[Row]:
    """How good the first page's answers to words are, where only some of the answers are compared: what their scores
    add up to, against those of the best page there is. The mean of five.
    """
    engine = sa.create_engine(f"sqlite:///{home / 'argilla' / 'home' / 'argilla.db'}")
    rows = []
    with engine.connect() as db:
        for what, words in RANKED.items():
            shares = [_share(db, ana, dataset, words(number)) for number in range(1, 6)]
            share = statistics.mean(shares)
            against = f"all answers compared: at least {LEAST_GAIN}"
            rows.append(Row(f"Argilla search, order, {what}", f"{share:.3f}", against, share, share >= LEAST_GAIN))
    engine.dispose()
    return rows


def _share(db: sa.Connection, ana: httpx.Client, dataset: str, words: str) -> float:
    path = f"/me/datasets/{dataset}/records/search"
    items = _answer(ana.post(path, params={"limit": PAGE}, json=_text_query(words)))["items"]
    found = find(words, UUID(dataset), None, "sqlite")
    assert found is not None
    scores = sorted(db.scalars(sa.select(found.hits(most=RECORDS).c.score)), reverse=True)
    return float(sum(item["query_score"] for item in items) / sum(scores[:PAGE]))


def _dataset(owner: httpx.Client) -> str:
    workspace = _answer(owner.get("/me/workspaces"))["items"][0]["id"]
    distribution = {"strategy": "overlap", "min_submitted": 2}
    asked = {"name": "large", "workspace_id": workspace, "distribution": distribution}
    dataset = str(_answer(owner.post("/datasets", json=asked))["id"])
    for kind, part in PARTS:
        _answer(owner.post(f"/datasets/{dataset}/{kind}", json={"title": part["name"], **part}))
    _answer(owner.put(f"/datasets/{dataset}/publish"))
    return dataset


def _fill(home: Path, owner: httpx.Client, dataset: str) -> None:
    """Straight into Argilla's tables, as its bulk endpoint takes half an hour; the engine sees the same rows."""
    questions = {one["name"]: UUID(one["id"]) for one in _answer(owner.get(f"/datasets/{dataset}/questions"))["items"]}
    users = {one["username"]: UUID(one["id"]) for one in _answer(owner.get("/users"))["items"]}
    settings = _answer(owner.get(f"/datasets/{dataset}/vectors-settings"))["items"][0]["id"]
    engine = sa.create_engine(f"sqlite:///{home / 'argilla' / 'home' / 'argilla.db'}")
    tables = sa.MetaData()
    tables.reflect(engine, only=["records", "responses", "suggestions", "vectors"])
    chance = random.Random(SEED)
    with engine.begin() as db:
        for start in range(0, RECORDS, 1000):
            rows = _rows(range(start, start + 1000), chance, UUID(dataset), questions, users, UUID(settings))
            for table, values in rows.items():
                if values:
                    db.execute(sa.text(_insert(tables.tables[table])), values)
    engine.dispose()
    total = _answer(owner.get(f"/datasets/{dataset}/progress"))["total"]
    if total != RECORDS:
        raise RuntimeError(f"Argilla counts {total} records, not {RECORDS}")


def _insert(table: sa.Table) -> str:
    names = [column.name for column in table.columns]
    listed = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO {table.name} ({listed}) VALUES ({', '.join(f':{name}' for name in names)})"


def _rows(
    numbers: range,
    chance: random.Random,
    dataset: UUID,
    questions: dict[str, UUID],
    users: dict[str, UUID],
    settings: UUID,
) -> dict[str, list[Json]]:
    """A thousand records with all that belongs to them, as Argilla's tables have them in SQLite."""
    vectors = np.random.default_rng(numbers.start).normal(size=(len(numbers), DIMENSIONS)).round(4).tolist()
    found: dict[str, list[Json]] = {"records": [], "suggestions": [], "responses": [], "vectors": []}
    for number, vector in zip(numbers, vectors, strict=True):
        when = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
        stamps = {name: when.strftime("%Y-%m-%d %H:%M:%S.%f") for name in ("inserted_at", "updated_at")}
        answered = [name for name, count in ANSWERED.items() if number < count]
        record = {"id": _id(chance), "dataset_id": dataset.hex, "external_id": str(number)} | stamps
        record |= {"status": "completed" if len(answered) == len(ANSWERED) else "pending"}
        chat = [{"role": role, "content": _text(chance, 20)} for role in ("user", "assistant", "user")]
        about = {"source": f"source-{number % 12}", "length": chance.randrange(1000), "cost": chance.random()}
        record |= {"fields": json.dumps({"chat": chat, "reply": _text(chance, 30)}), "metadata": json.dumps(about)}
        found["records"].append(record)
        belongs = {"record_id": record["id"]} | stamps
        for question, value in {"voice": ("pass", "fail")[number % 2], "stars": 1 + number % 5}.items():
            suggestion = {"id": _id(chance), "question_id": questions[question].hex, "type": "model"} | belongs
            suggestion |= {"value": json.dumps(value), "score": json.dumps(chance.random())}
            found["suggestions"].append(suggestion | {"agent": f"agent-{number % 3}"})
        values = {"voice": {"value": "pass" if number % 3 else "fail"}, "stars": {"value": 1 + number % 4}}
        for name in answered:
            response = {"id": _id(chance), "user_id": users[name].hex, "status": "submitted"} | belongs
            found["responses"].append(response | {"values": json.dumps(values)})
        vectored = {"id": _id(chance), "vector_settings_id": settings.hex, "value": json.dumps(vector)}
        found["vectors"].append(vectored | belongs)
    return found


def _text(chance: random.Random, length: int) -> str:
    """Words by Zipf's law: 'par0' in nearly every text, the last ones in few."""
    return " ".join(WORDS[min(int(len(WORDS) ** chance.random()) - 1, len(WORDS) - 1)] for _ in range(length))


def _id(chance: random.Random) -> str:
    return UUID(int=chance.getrandbits(128), version=4).hex


def _questions(ana: httpx.Client, owner: httpx.Client, dataset: str) -> dict[str, Callable[[int], httpx.Response]]:
    """Each asks one request, a little different for each number."""
    chance = random.Random(SEED)

    def search(name: str, make: Callable[[int], Json], who: httpx.Client = ana, offset: int = 0) -> Any:
        def ask(number: int) -> httpx.Response:
            path = f"{'/me' if who is ana else ''}/datasets/{dataset}/records/search"
            page = f"include=responses&include=suggestions&limit={PAGE}&offset={offset}"
            response = who.post(f"{path}?{page}", json=make(number))
            if not _answer(response)["items"]:
                raise RuntimeError(f"{name} finds nothing")
            return response

        return name, ask

    asked = dict(_searches(search, owner))
    vector = [[round(chance.gauss(0, 1), 4) for _ in range(DIMENSIONS)] for _ in range(ASKED + 1)]

    def here(number: int) -> Json:
        return {"query": {"vector": {"name": "place", "value": vector[number]}}}

    asked |= dict(
        [
            search("similar records", here),
            search("similar and pending", lambda number: here(number) | _where(PENDING, STILL)),
            search("similar, few left by filters", lambda number: here(number) | _where(_between(LENGTH, 7, 8))),
        ]
    )
    progress = f"/datasets/{dataset}/progress"
    asked["progress of the dataset"] = lambda number: owner.get(progress)
    asked["a person's progress"] = lambda number: ana.get(f"/me/datasets/{dataset}/metrics")
    for one in _answer(owner.get(f"/me/datasets/{dataset}/metadata-properties"))["items"]:
        path = f"/metadata-properties/{one['id']}/metrics"
        asked[f"values of metadata '{one['name']}'"] = lambda number, path=path: owner.get(path)
    return asked


SOURCE = {"entity": "metadata", "metadata_property": "source"}
LENGTH = {"entity": "metadata", "metadata_property": "length"}
VOICE = {"entity": "suggestion", "question": "voice", "property": "value"}
SCORE = {"entity": "suggestion", "question": "voice", "property": "score"}
AGENT = {"entity": "suggestion", "question": "voice", "property": "agent"}
MINE = {"entity": "response", "question": "stars"}
INSERTED = {"entity": "record", "property": "inserted_at"}
STATUS = {"entity": "response", "property": "status"}
PENDING = {"type": "terms", "scope": STATUS, "values": ["pending"]}
STILL = {"type": "terms", "scope": {"entity": "record", "property": "status"}, "values": ["pending"]}
SUBMITTED = {"type": "terms", "scope": STATUS, "values": ["submitted"]}


def _searches(search: Any, owner: httpx.Client) -> Iterator[Any]:
    yield search("a reviewer's next records", lambda number: _where(PENDING, STILL))
    yield search("next records, a third of all further on", lambda number: _where(PENDING, STILL), offset=RECORDS // 3)
    yield search("what one has submitted", lambda number: _where(SUBMITTED))
    yield search("everything, no filter", lambda number: {}, owner)
    yield search("a rare word", lambda number: _text_query(WORDS[1000 + number]))
    yield search("a word that every third record has", lambda number: _text_query(WORDS[25 + number]))
    yield search("a word that nearly all have", lambda number: _text_query(WORDS[number % 3]))
    yield search("two words and not a third", lambda number: _text_query(f"{WORDS[number]} {WORDS[50]} -{WORDS[99]}"))
    yield search("one word or another", _either)
    yield search("one word or another, pending", lambda number: _either(number) | _where(PENDING, STILL))
    yield search("words like one, word~", lambda number: _text_query(f"{WORDS[30 + number]}~"))
    yield search("a phrase", lambda number: _text_query(f'"{WORDS[0]} {WORDS[number % 20]}"'))
    yield search("the beginning of a word", lambda number: _text_query(f"ret{number}*"))
    yield search("a word in one field", lambda number: _text_query(WORDS[30 + number], field="reply"))
    yield search("a common word, pending", lambda number: _text_query(WORDS[number % 3]) | _where(PENDING, STILL))
    yield search("filter: metadata term", lambda number: _where(_terms(SOURCE, f"source-{number % 12}")))
    yield search("filter: metadata range", lambda number: _where(_between(LENGTH, number, 500 + number)))
    yield search("filter: suggestion", lambda number: _where(_terms(VOICE, "pass"), PENDING))
    yield search("filter: suggestion's score", lambda number: _where(_between(SCORE, 0.2, 0.5 + number / 100)))
    yield search("filter: suggestion's agent", lambda number: _where(_terms(AGENT, f"agent-{number % 3}")))
    yield search("filter: own response", lambda number: _where(_between(MINE, 1, 2)))
    yield search("filter: anybody's response", lambda number: _where(_between(MINE, 1, 2)), owner)
    yield search("filter: dates", lambda number: _where(_between(INSERTED, "2025-01-01", "2025-01-01T06:00:00Z")))
    for name, scope in {
        "newest": INSERTED,
        "metadata number": LENGTH,
        "metadata term": SOURCE,
        "suggestion": VOICE,
        "suggestion's score": SCORE,
        "response": MINE,
        "status": STATUS,
    }.items():
        sort = {"sort": [{"scope": scope, "order": "desc"}]}
        yield search(f"sorted: {name}", lambda number, sort=sort: sort)
    both = {"sort": [{"scope": SOURCE, "order": "asc"}, {"scope": LENGTH, "order": "desc"}]}
    yield search("sorted twice, pending", lambda number: both | _where(PENDING, STILL))
    yield search("sorted, with a word", lambda number: both | _text_query(WORDS[number]))


def _either(number: int) -> Json:
    """One word that nearly all have, or a rare one."""
    return _text_query(f"{WORDS[number % 3]} | {WORDS[1000 + number]}")


def _where(*filters: Json) -> Json:
    return {"filters": {"and": list(filters)}}


def _terms(scope: Json, *values: str) -> Json:
    return {"type": "terms", "scope": scope, "values": list(values)}


def _between(scope: Json, low: Any, high: Any) -> Json:
    return {"type": "range", "scope": scope, "ge": low, "le": high}


def _text_query(words: str, **where: str) -> Json:
    return {"query": {"text": {"q": words} | where}}


def _as(owner: httpx.Client, url: str, name: str) -> httpx.Client:
    key = next(one["api_key"] for one in _answer(owner.get("/users"))["items"] if one["username"] == name)
    return httpx.Client(base_url=f"{url}/api/v1", headers={"X-Argilla-Api-Key": key}, timeout=120)


def _answer(response: httpx.Response) -> Any:
    if response.is_error:
        raise RuntimeError(f"{response.request.url}: {response.status_code} {response.text[:500]}")
    return response.json()


def _timed(ask: Callable[[], httpx.Response]) -> tuple[float, float]:
    """Seconds until the answer was here, and what of it the engine took."""
    clock = time.perf_counter()
    response = ask()
    seconds = time.perf_counter() - clock
    _answer(response)
    (spent,) = re.findall(r"search;dur=([\d.]+)", response.headers["server-timing"])
    return seconds, float(spent) / 1000


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]
