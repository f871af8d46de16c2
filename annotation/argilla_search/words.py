"""Where the words are found: the one place where SQLite and PostgreSQL are asked differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import and_, func, literal_column, select, union
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import CTE

from .tables import SLOTS, WORDS
from .text import Fts5, Likes, Parser, TsQuery, place_of

TABLE: ColumnElement[str] = literal_column("argilla_search_words")
"""FTS5's way to name all columns of a row."""
MOST_ALTERNATIVES = 8
NOTHING_LIKE: Likes = MappingProxyType({})
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """Conditions on WORDS, and how well one of its rows answers: more is better."""

    conditions: tuple[ColumnElement[bool], ...]
    score: ColumnElement[float]
    lacking: ColumnElement[bool] | None = None
    """A condition for the rows that do not answer, where the index finds those as fast."""
    newest: tuple[ColumnElement[int], ...] = ()
    """The order of the newest first, where the index goes either way: those are what people still have to answer."""
    narrower: tuple[ColumnElement[bool], ...] = ()
    """Conditions for rows that answer more of what a `|` leaves open, or the rarer part of it: with all alternatives,
    then with each of them.
    """

    @property
    def record(self) -> ColumnElement[int]:
        """The number of the record whose words these are."""
        return WORDS.c.rowid.op("/", return_type=WORDS.c.rowid.type)(literal_column(str(SLOTS)))

    def hits(self, *more: ColumnElement[bool], most: int) -> CTE:
        """A row for each record: its number and score. Found first: a planner may else ask again for each record.

        All records if they are fewer than `most`. Else `most` of them, which for `a|b` would mean those with the
        commoner word only; so some of each narrower condition are there too.
        """
        rows = select(self.record.label("record"), self.score.label("score")).where(*self.conditions)
        if self.narrower:
            rows = rows.where((WORDS.c.rowid + 0).in_(select(self._candidates(more, most).c.rowid)))
        else:
            rows = rows.where(*more).order_by(*self.newest).limit(most)
        return rows.cte("hits").prefix_with("MATERIALIZED")

    def _candidates(self, more: Sequence[ColumnElement[bool]], most: int) -> CTE:
        every, *each = self.narrower
        wanted = [(self.conditions, most), ((every,), most), *(((one,), most // len(each)) for one in each)]
        some = [select(WORDS.c.rowid).where(*where, *more).order_by(*self.newest).limit(n) for where, n in wanted]
        parts = [one.subquery() for one in some]
        return union(*(select(part.c.rowid) for part in parts)).cte("candidates").prefix_with("MATERIALIZED")

    def records(self) -> Any:
        """A SELECT of the numbers of the records."""
        return select(self.record).where(*self.conditions)


def find(query: str, dataset: UUID, field: str | None, dialect: str, likes: Likes = NOTHING_LIKE) -> Found | None:
    """In all fields or in one; None where the query asks for nothing. `likes` for the words that have a `~`."""
    place = place_of(dataset.hex, field)
    return _in_postgresql(query, place, likes) if dialect == "postgresql" else _in_sqlite(query, place, likes)


def _in_postgresql(query: str, place: str, likes: Likes) -> Found | None:
    parser = Parser(query, TsQuery(), likes)
    asked = parser.read()
    if asked is None:
        return None
    here, matches = WORDS.c.place == place, WORDS.c.words.op("@@", is_comparison=True)
    narrower = tuple(and_(here, matches(asked), *(matches(one) for one in some)) for some in _narrower(parser))
    return Found((here, matches(asked)), func.ts_rank(WORDS.c.words, asked), narrower=narrower)


def _in_sqlite(query: str, place: str, likes: Likes) -> Found | None:
    language = Fts5(place)
    parser = Parser(query, language, likes)
    match = parser.read()
    if match is None:
        return None
    matches, inside = TABLE.bool_op("MATCH"), f"{language.everything} AND {match}"
    return Found(
        (matches(inside),),
        -func.bm25(TABLE, 0.0, 1.0),
        matches(language.without(match)),
        (WORDS.c.rowid.desc(),),
        tuple(matches(" AND ".join((inside, *some))) for some in _narrower(parser)),
    )


def _narrower(parser: Parser[T]) -> list[list[T]]:
    """What to ask for beside the query: all its alternatives, and each; nothing where there are none or very many."""
    alternatives = parser.alternatives
    if not 0 < len(alternatives) <= MOST_ALTERNATIVES:
        return []
    return [alternatives, *([one] for one in alternatives)]
