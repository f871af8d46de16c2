"""Where the words are found: the one place where SQLite and PostgreSQL are asked differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, literal_column, select
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import CTE

from .tables import SLOTS, WORDS
from .text import Fts5, Parser, TsQuery, place_of

TABLE: ColumnElement[str] = literal_column("argilla_search_words")
"""FTS5's way to name all columns of a row."""


@dataclass(frozen=True)
class Found:
    """Conditions on WORDS, and how well one of its rows answers: more is better."""

    conditions: tuple[ColumnElement[bool], ...]
    score: ColumnElement[float]
    lacking: ColumnElement[bool] | None = None
    """A condition for the rows that do not answer, where the index finds those as fast."""

    @property
    def record(self) -> ColumnElement[int]:
        """The number of the record whose words these are."""
        return WORDS.c.rowid.op("/", return_type=WORDS.c.rowid.type)(literal_column(str(SLOTS)))

    def hits(self, *more: ColumnElement[bool], most: int) -> CTE:
        """A row for each record: its number and score. Found first: a planner may else ask again for each record."""
        rows = select(self.record.label("record"), self.score.label("score")).where(*self.conditions, *more)
        return rows.limit(most).cte("hits").prefix_with("MATERIALIZED")

    def records(self) -> Any:
        """A SELECT of the numbers of the records."""
        return select(self.record).where(*self.conditions)


def find(query: str, dataset: UUID, field: str | None, dialect: str) -> Found | None:
    """In all fields or in one; None where the query asks for nothing."""
    place = place_of(dataset.hex, field)
    if dialect == "postgresql":
        asked = Parser(query, TsQuery()).read()
        if asked is None:
            return None
        return Found((WORDS.c.place == place, WORDS.c.words.op("@@")(asked)), func.ts_rank(WORDS.c.words, asked))
    language = Fts5(place)
    match = Parser(query, language).read()
    if match is None:
        return None
    matches = TABLE.bool_op("MATCH")
    condition, lacking = matches(f"{language.everything} AND {match}"), matches(language.without(match))
    return Found((condition,), -func.bm25(TABLE, 0.0, 1.0), lacking)
