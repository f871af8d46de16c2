"""Whether the best answers to words come first where only some of very many are compared."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from annotation.argilla_search import sqlite_schema
from annotation.argilla_search.tables import SLOTS, WORDS
from annotation.argilla_search.text import place_of
from annotation.argilla_search.words import find

pytestmark = pytest.mark.slow
DATASET = UUID(int=7)
RECORDS, COMPARED, PAGE = 3_000, 300, 10
"""A tenth is compared, as 5,000 of 50,000 are."""
VOCABULARY = 500


def rows() -> list[tuple[int, str, str]]:
    """Of the engine's full-text table, with words as frequent as in real language: 'w0' is in most texts."""
    chance = random.Random(3)
    texts = [
        " ".join(f"w{int(VOCABULARY ** chance.random()) - 1}" for _ in range(chance.randrange(10, 60)))
        for _ in range(RECORDS)
    ]
    return [(number * SLOTS, place_of(DATASET.hex, None), text) for number, text in enumerate(texts, start=1)]


@pytest.fixture(scope="module")
def index() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as db:
        db.exec_driver_sql(sqlite_schema.TABLES["argilla_search_words"])
        db.exec_driver_sql("INSERT INTO argilla_search_words (rowid, place, body) VALUES (?, ?, ?)", rows())
        yield db
    engine.dispose()


@pytest.fixture(scope="module")
def on_postgresql(postgres_url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(sa.make_url(postgres_url).set(drivername="postgresql+psycopg"))
    with engine.connect() as db:
        WORDS.create(db)
        words = sa.func.to_tsvector("simple", sa.bindparam("text"))
        given = [{"rowid": one, "place": place, "text": text} for one, place, text in rows()]
        db.execute(WORDS.insert().values(words=words), given)
        yield db
        db.rollback()
    engine.dispose()


def ranked(db: sa.Connection, query: str, most: int, *more: Any) -> tuple[dict[int, float], list[int]]:
    """Record → score of all that were compared, and the best page of them."""
    found = find(query, DATASET, None, db.dialect.name)
    assert found is not None
    scores = {row.record: row.score for row in db.execute(sa.select(found.hits(*more, most=most)))}
    return scores, sorted(scores, key=lambda one: (-scores[one], one))[:PAGE]


@pytest.mark.parametrize(
    ("query", "alike", "gain"),
    [
        ("w300", 10, 1.0),  # fewer answers than are compared
        ('"w2 w9"', 10, 1.0),
        ("w0 w200", 10, 1.0),
        ("w0 | w300", 10, 1.0),  # what is rare is not lost among what is common
        ("w0 (w20 | w300)", 10, 1.0),
        ("w30 | w40 | w300 | w400", 10, 1.0),
        ("w20 | w30", 9, 0.99),
        ('"w0 w3"', 7, 0.95),
        ("w20", 5, 0.95),
        ("w0", 0, 0.95),  # nearly all say it: which of them comes first tells little
        ("w0 w1", 0, 0.95),
    ],
)
def test_the_first_page_is_as_good_as_if_all_were_compared(
    index: sa.Connection, query: str, alike: int, gain: float
) -> None:
    """`alike` of ten are the same, and their scores add up to `gain` of the best there are."""
    everything, best = ranked(index, query, RECORDS)
    compared, page = ranked(index, query, COMPARED)
    assert all(compared[one] == pytest.approx(everything[one]) for one in page)
    assert len({*page} & {*best}) >= alike
    assert sum(compared[one] for one in page) >= gain * sum(everything[one] for one in best) * (1 - 1e-9)


@pytest.mark.parametrize("query", ["w300", "w0", "w0 | w300", "w300 | w301", "w20 -w1", "-w0"])
def test_fewer_than_asked_for_are_all_there_are(index: sa.Connection, query: str) -> None:
    """So that the page need not count them once more; also within a filter."""
    for more in ((), (WORDS.c.rowid / SLOTS % 3 == 0,)):
        everything, _ = ranked(index, query, RECORDS, *more)
        compared, page = ranked(index, query, COMPARED, *more)
        assert compared.keys() <= everything.keys()
        assert (len(compared) < COMPARED) == (len(everything) < COMPARED)
        assert len(page) == min(PAGE, len(everything))


@pytest.mark.parametrize("query", ["w300", "w0 w200", "w0 | w300", "w0 (w20 | w300)", "w20 -w1"])
def test_postgresql_finds_the_best_page_too(on_postgresql: sa.Connection, query: str) -> None:
    for more in ((), (WORDS.c.rowid / SLOTS % 3 == 0,)):
        everything, best = ranked(on_postgresql, query, RECORDS, *more)
        compared, page = ranked(on_postgresql, query, COMPARED, *more)
        assert (len(compared) < COMPARED) == (len(everything) < COMPARED)
        assert sum(compared[one] for one in page) >= 0.95 * sum(everything[one] for one in best)
