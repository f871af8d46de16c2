"""The engine: Argilla's questions to its search index, put to its database instead."""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from argilla_server.database import AsyncSessionLocal, async_engine
from argilla_server.models import Dataset, MetadataProperty, Record, Response, Suggestion, User, Vector, VectorSettings
from argilla_server.search_engine.base import (
    Filter,
    FloatMetadataMetrics,
    IntegerMetadataMetrics,
    MetadataMetrics,
    Order,
    SearchEngine,
    SearchResponseItem,
    SearchResponses,
    TermsMetrics,
    TextQuery,
)
from sqlalchemy import Select, String, cast, exists, false, func, literal, or_, select, true
from sqlalchemy.sql.elements import ColumnElement, UnaryExpression

from .filters import Filters
from .json_sql import json_sql
from .similarity import Nearest
from .text import TextQuery as ParsedQuery

NAME = "sql"
VECTOR_BATCH = 1000
MOST_TERMS = 2**14
"""As Argilla's own engines cut a list of terms."""
SHUFFLE_CHARACTERS = 8


@SearchEngine.register(engine_name=NAME)
class SqlSearchEngine(SearchEngine):  # type: ignore[misc]
    """Nothing of its own to keep, so an instance costs nothing and whatever was committed is found at once."""

    def __init__(self) -> None:
        self._json = json_sql(async_engine.dialect.name)
        self._filters = Filters(self._json)

    @classmethod
    async def new_instance(cls) -> SqlSearchEngine:
        return cls()

    async def close(self) -> None:
        """Each answer closes its own session."""

    async def ping(self) -> bool:
        async with AsyncSessionLocal() as db:
            return bool(await db.scalar(select(literal(1))) == 1)

    async def info(self) -> dict[str, Any]:
        return {"name": NAME, "database": async_engine.dialect.name}

    # Keeping an index: there is none.

    async def create_index(self, dataset: Dataset) -> None: ...

    async def delete_index(self, dataset: Dataset) -> None: ...

    async def configure_metadata_property(self, dataset: Dataset, metadata_property: MetadataProperty) -> None: ...

    async def configure_index_vectors(self, vector_settings: VectorSettings) -> None: ...

    async def index_records(self, dataset: Dataset, records: Iterable[Record]) -> None: ...

    async def partial_record_update(self, record: Record, **update: Any) -> None: ...

    async def delete_records(self, dataset: Dataset, records: Iterable[Record]) -> None: ...

    async def update_record_response(self, response: Response) -> None: ...

    async def delete_record_response(self, response: Response) -> None: ...

    async def update_record_suggestion(self, suggestion: Suggestion) -> None: ...

    async def delete_record_suggestion(self, suggestion: Suggestion) -> None: ...

    # Counting.

    async def get_dataset_progress(self, dataset: Dataset) -> dict[str, int]:
        """`total`, and how many records have each status."""
        if dataset.is_draft:
            return {}
        return await self._counts(
            select(Record.status, func.count()).where(Record.dataset_id == dataset.id).group_by(Record.status)
        )

    async def get_dataset_user_progress(self, dataset: Dataset, user: User) -> dict[str, int]:
        """`total`, and how many of this user's responses have each status."""
        if dataset.is_draft:
            return {}
        return await self._counts(
            select(Response.status, func.count())
            .join(Record, Record.id == Response.record_id)
            .where(Record.dataset_id == dataset.id, Response.user_id == user.id)
            .group_by(Response.status)
        )

    async def compute_metrics_for(self, metadata_property: MetadataProperty) -> MetadataMetrics:
        """The terms with their counts, or the smallest and the largest number."""
        elements = self._json.elements(Record.metadata_, metadata_property.name)
        where = Record.dataset_id == metadata_property.dataset_id
        async with AsyncSessionLocal() as db:
            if metadata_property.is_terms:
                count = func.count().label("count")
                terms = (
                    select(elements.text, count)
                    .select_from(Record)
                    .join(elements.rows, true())
                    .where(where, elements.text.is_not(None))
                    .group_by(elements.text)
                    .order_by(count.desc(), elements.text)
                )
                found = (await db.execute(terms)).all()
                values = [TermsMetrics.TermCount(term=term, count=number) for term, number in found[:MOST_TERMS]]
                return TermsMetrics(total=sum(number for _, number in found), values=values)
            ends = select(func.min(elements.number), func.max(elements.number)).select_from(Record)
            low, high = (await db.execute(ends.join(elements.rows, true()).where(where))).one()
        if metadata_property.is_integer:
            return IntegerMetadataMetrics(min=_whole(low), max=_whole(high))
        return FloatMetadataMetrics(min=low, max=high)

    # Searching.

    async def search(
        self,
        dataset: Dataset,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        sort: list[Order] | None = None,
        offset: int = 0,
        limit: int = 100,
        user_id: UUID | None = None,
    ) -> SearchResponses:
        """Sorted as asked; else by how often the words are found; else for a user in an order that only they have."""
        conditions, relevance = self._conditions(dataset, query, filter)
        orders: list[UnaryExpression[Any]] = self._filters.orders(sort or [])
        score = relevance.label("score")
        if not orders and query is not None:
            orders = [score.desc()]
        last = [_shuffled(user_id).asc()] if user_id else [Record.inserted_at.asc()]
        page = select(Record.id, score).where(*conditions)
        page = page.order_by(*orders, *last, Record.id).offset(offset).limit(limit)
        async with AsyncSessionLocal() as db:
            rows = (await db.execute(page)).all()
            total = offset + len(rows)
            if len(rows) == limit or (offset and not rows):  # there may be more, or the page is past the end
                total = await db.scalar(select(func.count()).select_from(Record).where(*conditions)) or 0
        return SearchResponses(items=[_item(one, score) for one, score in rows], total=total)

    async def similarity_search(
        self,
        dataset: Dataset,
        vector_settings: VectorSettings,
        value: list[float] | None = None,
        record: Record | None = None,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        max_results: int = 100,
        order: str = "most_similar",
        threshold: float | None = None,
    ) -> SearchResponses:
        """Reads every vector that the filters leave, so its time grows with them: exact, but no index behind it."""
        if bool(value) == bool(record):
            raise ValueError("Must provide either vector value or record to compute the similarity search")
        vector = value or (record.vector_value_by_vector_settings(vector_settings) if record else None)
        if not vector:
            raise ValueError("Cannot find a vector value to apply with provided info")
        if order == "least_similar":
            vector = [-number for number in vector]
        conditions, _ = self._conditions(dataset, query, filter)
        if record is not None:
            conditions.append(Record.id != record.id)
        nearest = Nearest(vector, max_results)
        vectors = (
            select(Record.id, Vector.value)
            .join(Vector, Vector.record_id == Record.id)
            .where(Vector.vector_settings_id == vector_settings.id, *conditions)
            .order_by(Record.inserted_at, Record.id)
            .execution_options(yield_per=VECTOR_BATCH)
        )
        async with AsyncSessionLocal() as db:
            async for batch in (await db.stream(vectors)).partitions():
                nearest.add([row[0] for row in batch], [row[1] for row in batch])
        hits = [hit for hit in nearest.hits if threshold is None or hit[1] >= threshold]
        return SearchResponses(items=[_item(one, score) for one, score in hits], total=len(nearest.hits))

    def _conditions(
        self, dataset: Dataset, query: TextQuery | str | None, chosen: Filter | None
    ) -> tuple[list[ColumnElement[bool]], ColumnElement[float]]:
        """What a record must fulfil, and how well it answers the words."""
        conditions: list[ColumnElement[bool]] = [Record.dataset_id == dataset.id]
        if chosen is not None:
            conditions.append(self._filters.condition(chosen))
        relevance: ColumnElement[float] = literal(1.0)
        if query is not None:
            asked = TextQuery(q=query) if isinstance(query, str) else query
            names = self._text_fields(dataset, asked.field)
            parsed = ParsedQuery(asked.q, self._json, lambda pattern: self._has(names, pattern))
            conditions.append(parsed.condition)
            found = [count for pattern in parsed.wanted for count in self._counts_of(names, pattern)]
            relevance = functools.reduce(operator.add, found) if found else relevance
        return conditions, relevance

    @staticmethod
    def _text_fields(dataset: Dataset, name: str | None) -> list[str]:
        names = [field.name for field in dataset.fields if not field.is_image]
        if name is None:
            return names
        if name not in {field.name for field in dataset.fields}:
            raise ValueError(f"Field {name} not found in dataset {dataset.id}")
        return [name] if name in names else []

    def _has(self, fields: Sequence[str], pattern: str) -> ColumnElement[bool]:
        """Whether some text of the record matches; a chat has one text for each message."""
        return or_(false(), *(exists(found) for found in self._matching(literal(1), fields, pattern)))

    def _counts_of(self, fields: Sequence[str], pattern: str) -> list[ColumnElement[Any]]:
        """How many texts match, one count for each field."""
        return [found.scalar_subquery() for found in self._matching(func.count(), fields, pattern)]

    def _matching(self, what: ColumnElement[Any], fields: Sequence[str], pattern: str) -> Iterator[Select[Any]]:
        for name in fields:
            strings = self._json.strings(Record.fields, name)
            yield select(what).select_from(strings.rows).where(strings.text.regexp_match(pattern))

    @staticmethod
    async def _counts(statement: Any) -> dict[str, int]:
        async with AsyncSessionLocal() as db:
            counts = {status.value: count for status, count in (await db.execute(statement)).all()}
        return {"total": sum(counts.values()), **counts}


def _shuffled(user_id: UUID) -> ColumnElement[str]:
    """Record ids are random already; each user sorts them by digits at other places, always the same for one user."""
    places = random.Random(UUID(str(user_id)).int).sample(range(1, 33), SHUFFLE_CHARACTERS)
    digits = func.replace(cast(Record.id, String), "-", "")
    parts = [func.substr(digits, place, 1, type_=String()) for place in places]
    return functools.reduce(operator.add, parts)


def _item(record_id: UUID, score: float) -> SearchResponseItem:
    return SearchResponseItem(record_id=record_id, score=float(score))


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)
