"""Our search engine inside the real Argilla server: what Argilla promises, asked over REST as its page asks."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from platformdirs import user_cache_path

from annotation.argilla_server import ArgillaServer
from annotation.people import Person
from tests.fixtures.argilla import ClientOf, ok

pytestmark = pytest.mark.slow
Json = dict[str, Any]
ALL = ["r0", "r1", "r2", "r3"]
TODAY = datetime.now(UTC).date().isoformat()
NEXT_DAY = "2999-01-01"


def options(*values: str) -> list[Json]:
    return [{"value": value, "text": value} for value in values]


def chat(*texts: str) -> list[Json]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def terms(scope: Json, *values: Any) -> Json:
    return {"type": "terms", "scope": scope, "values": list(values)}


def between(scope: Json, **ends: Any) -> Json:
    return {"type": "range", "scope": scope, **ends}


def order(scope: Json, way: str = "asc") -> Json:
    return {"scope": scope, "order": way}


def metadata(name: str) -> Json:
    return {"entity": "metadata", "metadata_property": name}


def suggestion(question: str, part: str = "value") -> Json:
    return {"entity": "suggestion", "question": question, "property": part}


def response(question: str) -> Json:
    return {"entity": "response", "question": question}


def record(part: str) -> Json:
    return {"entity": "record", "property": part}


STATUS = {"entity": "response", "property": "status"}
BY_NAME = order(record("external_id"))
WORDS: list[tuple[str, list[str]]] = [
    ("cat*", ["r0", "r1", "r2"]),
    ("cat roof", ["r0"]),
    ("roof | wrong", ["r0", "r1"]),
    ("cat -roof", ["r2"]),
    ("-cat", ["r1", "r3"]),
    ('"the cat"', ["r0", "r2"]),
    ('"cat sat"', ["r2"]),
    ('"sat cat"', []),
    ("(roof|sat) cat", ["r0", "r2"]),
    ("CAFÉ", ["r0"]),
    ("don't", ["r1"]),
    ("quoted second", ["r0"]),
    ("needle deep", ["r2"]),
    ("picture", []),
    ("?!", []),
    ("", []),
    ("assistant", ["r0", "r1", "r2"]),
    # `~` after a word: so many letters put in, left out, changed, or changed places; 2 without a number, and at most
    ("rof~1", ["r0"]),
    ("rfoo~1", []),
    ("rfoo~", ["r0"]),
    ("worryy~2 don't", ["r1"]),
    ("wrnog~1", ["r1"]),
    ("wxyng~2", ["r1"]),
    ("qxyng~9", []),
    ("CaFe~1", ["r0"]),
    ("roof~0", ["r0"]),
    ("rof~0", []),
    ("-rof~1 cat", ["r2"]),
    ("rof~1 | wrnog~1", ["r0", "r1"]),
    # `~` after a phrase: so many words between its own, in any order
    ('"where cat"', []),
    ('"where cat"~1', []),
    ('"where cat"~2', ["r0"]),
    ('"where cat"~', ["r0"]),
    ('"where is cat"~1', ["r0"]),
    ('"cat where"~2', ["r0"]),
    ('"where cat"~99', ["r0"]),
    ('-"where cat"~2 cat', ["r2"]),
    ('"cat"~3', ["r0", "r2"]),
    # a sign after a backslash is itself, and so no word
    ("cat\\*", ["r0", "r2"]),
    ("\\-cat roof", ["r0"]),
    ("roof\\|wrong", []),
    ("\\(roof cat\\)", ["r0"]),
    ('\\"quoted line\\"', ["r0"]),
    ('"the \\"cat\\" sat"', ["r2"]),
    ("rof\\~1", []),
    ("ro\\of", ["r0"]),
]
NO_ERROR: list[str] = [
    '"',
    "-",
    "|",
    "+",
    "- -",
    "a |",
    "(-)",
    "* *",
    "';--",
    ")(",
    "(((",
    "a\\b",
    "a*b",
    "%",
    "[a",
    "a{9}",
    "🙂",
    "\\",
    "~",
    "~1",
    "a~" + 5_000 * "9",
    '"a b"~' + 5_000 * "9",
    '""~2',
    '"a b c d e f g h"~50',
    '"🙂 b"~2',
    '"a" ~2',
    "don't~1",
    '"\\',
    "\\\\~",
]
FILTERS: list[tuple[Json, list[str]]] = [
    (terms(metadata("source"), "mail"), ["r0", "r2"]),
    (terms(metadata("source"), "web", "mail"), ["r0", "r1", "r2"]),
    (between(metadata("length"), ge=0, le=5), ["r0"]),
    (between(metadata("length"), le=3), ["r0", "r2"]),
    (between(metadata("cost"), ge=0.6), ["r1"]),
    (terms(metadata("length"), "10"), ["r1"]),
    (terms(suggestion("voice"), "fail"), ["r1"]),
    (terms(suggestion("tags"), "b", "c"), ["r0"]),
    (between(suggestion("stars"), ge=4), ["r0"]),
    (terms(suggestion("stars"), "4"), ["r0"]),
    (between(suggestion("voice", "score"), ge=0.5, le=1), ["r0"]),
    (between(suggestion("tags", "score"), ge=0.7), ["r0"]),
    (terms(suggestion("voice", "agent"), "claude"), ["r1"]),
    (terms(suggestion("voice", "type"), "model", "bogus"), ["r1"]),
    (terms(record("external_id"), "r3", "zz"), ["r3"]),
    (terms(record("id"), "no-uuid"), []),
    (terms(record("status"), "completed"), ["r0"]),
    (between(record("inserted_at"), ge=TODAY), ALL),
    (between(record("inserted_at"), le=NEXT_DAY), ALL),
    (between(record("inserted_at"), le="2020-01-01T00:00:00Z"), []),
    (between(record("inserted_at"), ge=1.6e12), ALL),
    (between(record("updated_at"), ge=TODAY, le=NEXT_DAY), ALL),
    (between(record("updated_at"), le="2020-01-01T00:00:00+02:00"), []),
]
RESPONSE_FILTERS: list[tuple[str, list[Json], list[str]]] = [
    ("owner", [terms(STATUS, "pending")], ["r3"]),
    ("ana", [terms(STATUS, "pending")], ["r1", "r3"]),
    ("ana", [terms(STATUS, "pending"), terms(record("status"), "pending")], ["r1", "r3"]),
    ("everybody", [terms(STATUS, "pending")], ["r3"]),
    ("owner", [terms(STATUS, "submitted")], ["r0"]),
    ("everybody", [terms(STATUS, "submitted")], ["r0", "r2"]),
    ("owner", [terms(STATUS, "pending", "submitted")], ["r0", "r3"]),
    ("owner", [terms(STATUS, "draft", "discarded")], ["r1", "r2"]),
    ("owner", [terms(response("voice"), "pass")], ["r0"]),
    ("everybody", [terms(response("voice"), "fail")], ["r0", "r1"]),
    ("owner", [terms(response("tags"), "a", "c")], ["r0"]),
    ("ana", [between(response("stars"), ge=1, le=1)], ["r0"]),
]
SORTS: list[tuple[str, list[Json], list[str]]] = [
    ("owner", [order(metadata("length"))], ["r2", "r0", "r1", "r3"]),
    ("owner", [order(metadata("length"), "desc")], ["r1", "r0", "r2", "r3"]),
    ("owner", [order(metadata("source")), order(metadata("length"))], ["r2", "r0", "r1", "r3"]),
    ("owner", [order(record("inserted_at"), "desc")], ["r3", "r2", "r1", "r0"]),
    ("owner", [order(record("external_id"), "desc")], ["r3", "r2", "r1", "r0"]),
    ("owner", [order(suggestion("voice", "score")), BY_NAME], ["r1", "r0", "r2", "r3"]),
    ("owner", [order(suggestion("voice", "agent"), "desc"), BY_NAME], ALL),
    ("owner", [order(suggestion("voice")), BY_NAME], ["r1", "r0", "r2", "r3"]),
    ("everybody", [order(response("stars")), BY_NAME], ["r2", "r0", "r1", "r3"]),  # the mean of several
    ("owner", [order(response("stars")), BY_NAME], ALL),
    ("ana", [order(STATUS), BY_NAME], ["r0", "r2", "r1", "r3"]),
]


@dataclass
class Desk:
    """One dataset of four records, and who looks at it."""

    owner: httpx.Client
    ana: httpx.Client
    id: str
    records: dict[str, str] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)

    def search(self, who: str = "owner", offset: int = 0, limit: int = 50, **asked: Any) -> Json:
        """As `who` sees it; `everybody` counts all people's responses."""
        query: Json = {}
        if "text" in asked:
            query["text"] = {"q": asked["text"]} | ({"field": asked["field"]} if "field" in asked else {})
        if "vector" in asked:
            query["vector"] = {"name": "place"} | asked["vector"]
        body: Json = {"query": query}
        if "where" in asked:
            body["filters"] = {"and": asked["where"]}
        if "sort" in asked:
            body["sort"] = asked["sort"]
        prefix = "" if who == "everybody" else "/me"
        client = self.ana if who == "ana" else self.owner
        params = {"limit": limit, "offset": offset}
        found: Json = ok(client.post(f"{prefix}/datasets/{self.id}/records/search", params=params, json=body))
        return found

    def names(self, who: str = "owner", **asked: Any) -> list[str]:
        by_id = {id_: name for name, id_ in self.records.items()}
        return [by_id[item["record"]["id"]] for item in self.search(who, **asked)["items"]]

    def answer(self, client: httpx.Client, name: str, status: str, **values: Any) -> Json:
        body: Json = {"status": status}
        if values:
            body["values"] = {question: {"value": value} for question, value in values.items()}
        kept: Json = ok(client.post(f"/records/{self.records[name]}/responses", json=body))
        return kept


def make_desk(owner: httpx.Client, ana: httpx.Client, name: str) -> Desk:
    workspace = ok(owner.get("/me/workspaces"))["items"][0]["id"]
    distribution = {"strategy": "overlap", "min_submitted": 2}
    asked = {"name": name, "workspace_id": workspace, "distribution": distribution}
    desk = Desk(owner, ana, ok(owner.post("/datasets", json=asked))["id"])
    fields: dict[str, Json] = {
        "chat": {"type": "chat"},
        "note": {"type": "text"},
        "picture": {"type": "image"},
        "other": {"type": "custom", "template": "<b>{{record.fields.other.x}}</b>", "advanced_mode": False},
    }
    for part, settings in fields.items():
        about = {"name": part, "title": part, "required": part == "chat", "settings": settings}
        ok(owner.post(f"/datasets/{desk.id}/fields", json=about))
    questions: dict[str, Json] = {
        "voice": {"type": "label_selection", "options": options("pass", "fail")},
        "tags": {"type": "multi_label_selection", "options": options("a", "b", "c")},
        "stars": {"type": "rating", "options": [{"value": number} for number in range(1, 6)]},
        "correction": {"type": "text"},
    }
    for part, settings in questions.items():
        about = {"name": part, "title": part, "required": part == "voice", "settings": settings}
        desk.questions[part] = ok(owner.post(f"/datasets/{desk.id}/questions", json=about))["id"]
    for part, kind in {"source": "terms", "length": "integer", "cost": "float"}.items():
        about = {"name": part, "title": part, "settings": {"type": kind}}
        desk.properties[part] = ok(owner.post(f"/datasets/{desk.id}/metadata-properties", json=about))["id"]
    ok(owner.post(f"/datasets/{desk.id}/vectors-settings", json={"name": "place", "title": "place", "dimensions": 2}))
    assert ok(owner.get(f"/datasets/{desk.id}/progress"))["total"] == 0  # a draft has nothing to count
    ok(owner.put(f"/datasets/{desk.id}/publish"))
    return desk


def fill(desk: Desk) -> None:
    voice, tags, stars = (desk.questions[name] for name in ("voice", "tags", "stars"))
    items: list[Json] = [
        {
            "fields": {"chat": chat("Where is the cat?", "On the café roof."), "note": 'first, "quoted" line\nsecond'},
            "metadata": {"source": ["web", "mail"], "length": 3, "cost": 0.5},
            "suggestions": [
                {"question_id": voice, "value": "pass", "score": 0.9, "agent": "gpt"},
                {"question_id": tags, "value": ["a", "b"], "score": [0.2, 0.8]},
                {"question_id": stars, "value": 4},
            ],
            "vectors": {"place": [1, 0]},
        },
        {
            "fields": {"chat": chat("My category is wrong", "Sorry"), "note": "don't worry"},
            "metadata": {"source": "web", "length": 10, "cost": 1.5},
            "suggestions": [{"question_id": voice, "value": "fail", "score": 0.1, "agent": "claude", "type": "model"}],
            "vectors": {"place": [0, 1]},
        },
        {
            "fields": {
                "chat": chat("CAT cat cat", "the cat sat"),
                "other": {"x": "needle", "y": {"z": ["deep"]}},
            },
            "metadata": {"source": "mail", "length": -2},
            "vectors": {"place": [-1, 0.1]},
        },
        {"fields": {"chat": chat("Nothing"), "picture": "http://cat/picture.png"}},
    ]
    for number, item in enumerate(items):
        item["external_id"] = f"r{number}"
    ok(desk.owner.post(f"/datasets/{desk.id}/records/bulk", json={"items": items}))
    desk.records = {
        one["external_id"]: one["id"] for one in ok(desk.owner.get(f"/datasets/{desk.id}/records"))["items"]
    }


def answered(made: Desk) -> Desk:
    """Filled, and some of it answered."""
    fill(made)
    made.answer(made.owner, "r0", "submitted", voice="pass", stars=5, tags=["a"])
    made.answer(made.ana, "r0", "submitted", voice="fail", stars=1)
    made.answer(made.owner, "r1", "draft", voice="fail")
    made.answer(made.owner, "r2", "discarded")
    made.answer(made.ana, "r2", "submitted", voice="pass", stars=2)
    return made


@pytest.fixture(scope="module")
def desk(owner: httpx.Client, client_of: ClientOf) -> Desk:
    """Four records with suggestions, metadata and vectors; the owner and Ana have answered some of them."""
    return answered(make_desk(owner, client_of("ana"), "search"))


@pytest.fixture(scope="module")
def neighbour(desk: Desk) -> Desk:
    """A dataset with the same names and other contents: nothing of it may show in `desk`."""
    other = make_desk(desk.owner, desk.ana, "search-neighbour")
    fill(other)
    for name in ALL:
        other.answer(other.owner, name, "submitted", voice="fail", stars=3)
    return other


def test_the_server_says_which_engine_answers(owner: httpx.Client) -> None:
    assert ok(owner.get("/status"))["search_engine"] == {"name": "sql", "database": "sqlite"}


def test_everything_is_found_in_an_order_of_ones_own(desk: Desk) -> None:
    assert desk.names("everybody") == ALL  # as they came in
    many = make_desk(desk.owner, desk.ana, "search-order")  # too many for two orders to be the same by chance
    items = [{"fields": {"chat": chat("Hello")}, "external_id": f"r{number:02}"} for number in range(30)]
    ok(many.owner.post(f"/datasets/{many.id}/records/bulk", json={"items": items}))
    found = {
        who: [[one["record"]["external_id"] for one in many.search(who)["items"]] for _ in range(2)]
        for who in ("owner", "ana")
    }
    assert all(first == again for first, again in found.values())
    (mine, _), (hers, _) = found.values()
    assert mine != hers
    assert sorted(mine) == sorted(hers) == [one["external_id"] for one in items]
    ok(many.owner.delete(f"/datasets/{many.id}"))


@pytest.mark.parametrize(
    ("words", "found"),
    WORDS,
)
def test_words(desk: Desk, neighbour: Desk, words: str, found: list[str]) -> None:
    assert sorted(desk.names(text=words)) == found


def test_the_record_that_says_a_word_most_often_comes_first(desk: Desk) -> None:
    assert desk.names(text="cat") == ["r2", "r0"]
    assert desk.search(text="cat", limit=1)["total"] == 2


def test_words_in_one_field(desk: Desk) -> None:
    assert desk.names(text="cat", field="note") == []
    assert sorted(desk.names(text="cat", field="chat")) == ["r0", "r2"]


@pytest.mark.parametrize(
    "words",
    NO_ERROR,
)
def test_no_words_are_an_error(desk: Desk, words: str) -> None:
    desk.names(text=words)


@pytest.mark.parametrize(
    ("chosen", "found"),
    FILTERS,
)
def test_filters_on_records_metadata_and_suggestions(
    desk: Desk, neighbour: Desk, chosen: Json, found: list[str]
) -> None:
    assert sorted(desk.names(where=[chosen])) == found


@pytest.mark.parametrize(
    ("who", "chosen", "found"),
    RESPONSE_FILTERS,
)
def test_filters_on_ones_own_or_everybodys_responses(
    desk: Desk, neighbour: Desk, who: str, chosen: list[Json], found: list[str]
) -> None:
    assert sorted(desk.names(who, where=chosen)) == found


@pytest.mark.parametrize(
    ("who", "sort", "found"),
    SORTS,
)
def test_sorting_puts_what_lacks_the_value_last(
    desk: Desk, neighbour: Desk, who: str, sort: list[Json], found: list[str]
) -> None:
    assert desk.names(who, sort=sort) == found


def test_sorting_by_id_and_by_status(desk: Desk) -> None:
    by_id = desk.names(sort=[order(record("id"), "desc")])
    assert [desk.records[name] for name in by_id] == sorted(desk.records.values(), reverse=True)
    for way, place in (("asc", 0), ("desc", -1)):  # "completed" comes before "pending"
        assert desk.names(sort=[order(record("status"), way)])[place] == "r0"


def test_pages(desk: Desk) -> None:
    page = desk.search(sort=[BY_NAME], limit=2, offset=1)
    assert [item["record"]["external_id"] for item in page["items"]] == ["r1", "r2"]
    assert page["total"] == 4
    past = desk.search(limit=2, offset=9)
    assert (past["items"], past["total"]) == ([], 4)
    last = desk.search(limit=2, offset=3)
    assert (len(last["items"]), last["total"]) == (1, 4)


@pytest.mark.parametrize(("words", "found"), [(words, found) for words, found in WORDS if found])
def test_a_page_past_the_end_counts_words_within_a_filter(
    desk: Desk, neighbour: Desk, words: str, found: list[str]
) -> None:
    within = terms(metadata("source"), "mail")  # r0 and r2
    past = desk.search(text=words, where=[within], limit=2, offset=9)
    assert (past["items"], past["total"]) == ([], len({"r0", "r2"} & set(found)))


def test_an_answer_tells_how_much_of_its_time_was_the_search(desk: Desk) -> None:
    """In milliseconds, and no more than the whole of it; nothing where nothing was searched."""
    for path in (f"/datasets/{desk.id}/progress", f"/me/datasets/{desk.id}/metrics"):
        response = desk.owner.get(path)
        (spent,) = re.findall(r"search;dur=([\d.]+)", response.headers["server-timing"])
        assert 0 < float(spent) <= response.elapsed.total_seconds() * 1000
    assert "search" not in desk.owner.get("/status").headers["server-timing"]


def test_many_ask_at_once(desk: Desk) -> None:
    """More than Argilla has connections: each of its requests holds one while it waits for our answer."""
    with ThreadPoolExecutor(60) as people:
        found = list(people.map(lambda number: desk.search(text="cat", where=[terms(STATUS, "pending")]), range(180)))
    assert {page["total"] for page in found} == {found[0]["total"]}


def test_progress(desk: Desk, neighbour: Desk) -> None:
    progress = ok(desk.owner.get(f"/datasets/{desk.id}/progress"))
    assert {name: progress[name] for name in ("total", "completed", "pending")} == {
        "total": 4,
        "completed": 1,
        "pending": 3,
    }
    mine = ok(desk.owner.get(f"/me/datasets/{desk.id}/metrics"))["responses"]
    assert mine == {"total": 4, "submitted": 1, "discarded": 1, "draft": 1, "pending": 1}
    hers = ok(desk.ana.get(f"/me/datasets/{desk.id}/metrics"))["responses"]
    assert hers == {"total": 4, "submitted": 2, "discarded": 0, "draft": 0, "pending": 2}


def test_metadata_metrics(desk: Desk, neighbour: Desk) -> None:
    def metrics(name: str) -> Json:
        found: Json = ok(desk.owner.get(f"/metadata-properties/{desk.properties[name]}/metrics"))
        return found

    counts = [{"term": "mail", "count": 2}, {"term": "web", "count": 2}]
    assert metrics("source") == {"type": "terms", "total": 4, "values": counts}
    assert metrics("length") == {"type": "integer", "min": -2, "max": 10}
    assert metrics("cost") == {"type": "float", "min": 0.5, "max": 1.5}


def test_similarity(desk: Desk, neighbour: Desk) -> None:
    here = {"value": [1, 0]}
    found = desk.search(vector=here)
    assert [item["record"]["external_id"] for item in found["items"]] == ["r0", "r1", "r2"]
    scores = [item["query_score"] for item in found["items"]]
    assert scores[:2] == pytest.approx([1.0, 0.5])
    assert scores == sorted(scores, reverse=True)
    assert desk.names(vector={"record_id": desk.records["r0"]}) == ["r1", "r2"]
    assert desk.names(vector={"record_id": desk.records["r0"], "order": "least_similar"}) == ["r2", "r1"]
    assert desk.names(vector=here, where=[terms(metadata("source"), "mail")]) == ["r0", "r2"]
    assert desk.names(vector=here, text="cat") == ["r0", "r2"]
    assert desk.names(vector=here, limit=1, offset=1) == ["r1"]


def test_a_wrong_date_is_the_askers_error(desk: Desk) -> None:
    body = {"filters": {"and": [between(record("inserted_at"), ge="rubbish")]}}
    answer = desk.owner.post(f"/me/datasets/{desk.id}/records/search", json=body)
    assert answer.is_error
    assert desk.names() != []


def test_every_change_is_found_at_once(owner: httpx.Client, client_of: ClientOf) -> None:
    desk = make_desk(owner, client_of("ana"), "search-changes")
    fill(desk)
    follows_changes(desk)


def follows_changes(desk: Desk) -> None:
    owner = desk.owner
    kept = desk.answer(owner, "r1", "draft", voice="fail")
    assert "r1" not in desk.names(where=[terms(STATUS, "pending")])
    ok(owner.delete(f"/responses/{kept['id']}"))
    assert "r1" in desk.names(where=[terms(STATUS, "pending")])
    before = datetime.now(UTC).isoformat()
    ok(owner.patch(f"/records/{desk.records['r3']}", json={"metadata": {"source": "new"}}))
    assert desk.names(where=[terms(metadata("source"), "new")]) == ["r3"]
    assert desk.names(where=[between(record("updated_at"), ge=before)]) == ["r3"]
    assert sorted(desk.names(where=[between(record("updated_at"), le=before)])) == ["r0", "r1", "r2"]
    assert desk.names(where=[between(record("inserted_at"), ge=before)]) == []
    assert desk.names(sort=[order(record("updated_at"), "desc")])[0] == "r3"
    assert desk.names(sort=[order(record("updated_at"))])[-1] == "r3"
    assert desk.names(sort=[order(record("inserted_at"))]) == ALL
    ok(owner.delete(f"/datasets/{desk.id}/records", params={"ids": desk.records["r1"]}))
    assert sorted(desk.names()) == ["r0", "r2", "r3"]


def test_a_changed_overlap_is_worked_out_by_the_worker(owner: httpx.Client, client_of: ClientOf) -> None:
    desk = make_desk(owner, client_of("ana"), "search-overlap")
    fill(desk)
    for name in ("r0", "r2"):
        desk.answer(desk.ana, name, "submitted", voice="pass")
    ok(owner.patch(f"/datasets/{desk.id}", json={"distribution": {"strategy": "overlap", "min_submitted": 1}}))
    end = time.monotonic() + 120
    while (done := ok(owner.get(f"/datasets/{desk.id}/progress"))["completed"]) != 2 and time.monotonic() < end:
        time.sleep(0.2)
    assert done == 2
    ok(owner.delete(f"/datasets/{desk.id}"))


def test_an_index_damaged_by_hand_is_made_anew_at_the_next_start(argilla: ArgillaServer, desk: Desk) -> None:
    argilla.stop()
    with closing(sqlite3.connect(argilla.home / "home" / "argilla.db")) as db, db:
        db.execute("DROP TRIGGER argilla_search_records_fields")
        db.execute("UPDATE records SET fields = replace(fields, 'Nothing', 'Something') WHERE external_id = 'r3'")
        db.execute("DELETE FROM argilla_search_values")
    argilla.start()
    with argilla.client() as owner:
        again = Desk(owner, owner, desk.id, desk.records)
        assert again.names(text="something") == ["r3"]
        assert again.names(text="nothing") == []
        assert sorted(again.names(where=[terms(metadata("source"), "mail")])) == ["r0", "r2"]
        assert again.names("everybody", sort=[order(response("stars")), BY_NAME]) == ["r2", "r0", "r1", "r3"]


@pytest.fixture(scope="module")
def on_postgresql(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The same four records in an Argilla that keeps them in PostgreSQL; a minute more to install it once."""
    url = sa.make_url(postgres_url)
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(sa.text("CREATE DATABASE argilla"))
    engine.dispose()
    database = url.set(drivername="postgresql+asyncpg", database="argilla").render_as_string(hide_password=False)
    database = database.replace("%2F", "/")  # a percent sign is more than Argilla's migrations take
    cache = user_cache_path("tonesmith", ensure_exists=True)
    server = ArgillaServer(tmp_path_factory.mktemp("argilla-postgres"), cache, database=database)
    try:
        server.start()
        server.add_people([Person(name="ana")])
        with server.client() as owner:
            key = next(one["api_key"] for one in ok(owner.get("/users"))["items"] if one["username"] == "ana")
            ana = httpx.Client(base_url=f"{server.url}/api/v1", headers={"X-Argilla-Api-Key": key}, timeout=60)
            yield answered(make_desk(owner, ana, "search"))
            ana.close()
    finally:
        server.stop()


def test_postgresql_answers_the_same(on_postgresql: Desk) -> None:
    here = on_postgresql
    assert ok(here.owner.get("/status"))["search_engine"] == {"name": "sql", "database": "postgresql"}
    assert sorted(here.names()) == ALL
    for words, found in WORDS:
        assert sorted(here.names(text=words)) == found, words
    assert here.names(text="cat") == ["r2", "r0"]
    for words in NO_ERROR:
        here.names(text=words)
    for chosen, found in FILTERS:
        assert sorted(here.names(where=[chosen])) == found, chosen
    for who, several, found in RESPONSE_FILTERS:
        assert sorted(here.names(who, where=several)) == found, (who, several)
    for who, sort, found in SORTS:
        assert here.names(who, sort=sort) == found, (who, sort)


def test_postgresql_counts_and_compares_the_same(on_postgresql: Desk) -> None:
    test_progress(on_postgresql, on_postgresql)
    test_metadata_metrics(on_postgresql, on_postgresql)
    test_similarity(on_postgresql, on_postgresql)
    test_pages(on_postgresql)
    test_words_in_one_field(on_postgresql)


def test_postgresql_follows_every_change(on_postgresql: Desk) -> None:
    desk = make_desk(on_postgresql.owner, on_postgresql.ana, "search-changes")
    fill(desk)
    follows_changes(desk)
