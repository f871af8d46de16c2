"""The engine: Argilla's questions to its search index, put to tables beside its own that its database keeps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from argilla_server.models import Dataset, MetadataProperty, Record, Response, Suggestion, User, VectorSettings
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
from sqlalchemy import case, exists, false, func, literal, null, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement

from . import schema
from .connections import DIALECT, Reading, read_from_memory
from .filters import Filters, Walk, columns_of, scopes_of
from .like import words_like
from .similarity import Vectors
from .tables import RECORDS, RESPONSES, SCOPES, VALUES, WORDS
from .text import fuzzy_words, place_of
from .timing import timed
from .words import Found, find

NAME = "sql"
MOST_TERMS = 2**14
"""As Argilla's own engines cut a list of terms."""
RANKED, RANKED_WITHIN = 5_000, 2_000
"""Of more answers to words than this, so many are compared to find the best. `RANKED_WITHIN` is for questions that
cost more: with filters, or with a `|`, where as many more come with each alternative.
"""
UNCOUNTED = null().label("total")
PRIME = 4_294_967_291
"""The largest below 2 ** 32, and above the number of any record; products of the two stay below 2 ** 63."""


read_from_memory()


@SearchEngine.register(engine_name=NAME)
class SqlSearchEngine(SearchEngine):  # type: ignore[misc]
    """What it asks is kept by the database itself, so an instance costs nothing and whatever was committed is found."""

    @classmethod
    async def new_instance(cls) -> SqlSearchEngine:
        await schema.ensure()
        return cls()

    async def close(self) -> None:
        """Each answer closes its own session."""

    async def ping(self) -> bool:
        async with Reading() as db:
            return bool(await db.scalar(select(literal(1))) == 1)

    async def info(self) -> dict[str, Any]:
        return {"name": NAME, "database": DIALECT}

    # Keeping an index: its triggers do.

    async def create_index(self, dataset: Dataset) -> None:
        """At the first dataset ever, the tables may not be there yet."""
        await schema.ensure()

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

    @timed
    async def get_dataset_progress(self, dataset: Dataset) -> dict[str, int]:
        """`total`, and how many records have each status."""
        if dataset.is_draft:
            return {}
        status = RECORDS.c.status
        return await self._counts(
            select(status, func.count()).where(RECORDS.c.dataset_id == dataset.id).group_by(status)
        )

    @timed
    async def get_dataset_user_progress(self, dataset: Dataset, user: User) -> dict[str, int]:
        """`total`, and how many of this user's responses have each status."""
        if dataset.is_draft:
            return {}
        status = RESPONSES.c.status
        where = (RESPONSES.c.user_id == user.id, RESPONSES.c.dataset_id == dataset.id)
        return await self._counts(select(status, func.count()).where(*where).group_by(status))

    @timed
    async def compute_metrics_for(self, metadata_property: MetadataProperty) -> MetadataMetrics:
        """The terms with their counts, or the smallest and the largest number."""
        scope = select(SCOPES.c.number).where(
            SCOPES.c.dataset_id == metadata_property.dataset_id,
            SCOPES.c.kind == "metadata",
            SCOPES.c.name == metadata_property.name,
        )
        of_scope = VALUES.c.scope == scope.scalar_subquery()
        async with Reading() as db:
            if metadata_property.is_terms:
                count = func.count().label("count")
                terms = select(VALUES.c.text, count).where(of_scope).group_by(VALUES.c.text)
                found = (await db.execute(terms.order_by(count.desc(), VALUES.c.text))).all()
                values = [TermsMetrics.TermCount(term=term, count=number) for term, number in found[:MOST_TERMS]]
                return TermsMetrics(total=sum(number for _, number in found), values=values)
            # Two questions: only so does each take one look at an end of the index.
            low = select(func.min(VALUES.c.number)).where(of_scope).scalar_subquery()
            high = select(func.max(VALUES.c.number)).where(of_scope).scalar_subquery()
            least, most = (await db.execute(select(low, high))).one()
        if metadata_property.is_integer:
            return IntegerMetadataMetrics(min=_whole(least), max=_whole(most))
        return FloatMetadataMetrics(min=least, max=most)

    # Searching.

    @timed
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
        """Sorted as asked; else the best answer to the words first; else for a user in an order that only they have."""
        async with Reading() as db:
            asked = await self._asked(db, dataset, query, filter, sort or [])
        looking: list[Any] = [self._page(asked, user_id, offset, limit)]
        if asked.counted_apart(user_id):
            looking.append(self._count(asked.count(offset + limit, None)))
        found, *counted = await asyncio.gather(*looking)
        total = counted[0] if counted else found[0].total if found else None
        if total is None:
            total = offset + len(found)
            if len(found) == limit or (offset and not found):  # there may be more, or the page is past the end
                total = await self._count(asked.count(offset + limit, found[0].reached if found else None))
        items = [SearchResponseItem(record_id=row.record_id, score=row.score) for row in found]
        return SearchResponses(items=items, total=total)

    @timed
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
        """Exact: against every vector there is, from a copy in memory."""
        if bool(value) == bool(record):
            raise ValueError("Must provide either vector value or record to compute the similarity search")
        vector = value or (record.vector_value_by_vector_settings(vector_settings) if record else None)
        if not vector:
            raise ValueError("Cannot find a vector value to apply with provided info")
        if order == "least_similar":
            vector = [-number for number in vector]
        async with Reading() as db:
            asked = await self._asked(db, dataset, query, filter, [])
            if record is not None:
                asked.conditions.append(RECORDS.c.record_id != record.id)
            vectors = await Vectors.of(db, vector_settings)
            found = await vectors.nearest(db, vector, asked.numbers(), max_results)
        items = [
            SearchResponseItem(record_id=one, score=score)
            for one, score in found
            if threshold is None or score >= threshold
        ]
        return SearchResponses(items=items, total=len(found))

    @staticmethod
    async def _asked(
        db: AsyncSession, dataset: Dataset, query: TextQuery | str | None, chosen: Filter | None, sort: list[Order]
    ) -> Asked:
        """Raises ValueError for a field that is not there or a date that is none."""
        scopes = await scopes_of(db, dataset.id, chosen, sort)
        filters = Filters(scopes, await columns_of(db, scopes, sort), by_hash=DIALECT == "postgresql")
        conditions = [] if chosen is None else [filters.condition(chosen)]
        found = None
        if query is not None:
            words = TextQuery(q=query) if isinstance(query, str) else query
            searched, field = _field(dataset, words.field)
            likes = await words_like(db, fuzzy_words(words.q), place_of(dataset.id.hex, field))
            found = find(words.q, dataset.id, field, DIALECT, likes) if searched else None
            if found is None:
                conditions.append(false())
        walk = filters.walk(sort[0]) if sort else None
        return Asked(dataset.id, conditions, found, filters.orders(sort), filters.orders(sort[1:]), walk)

    @staticmethod
    async def _page(asked: Asked, user_id: UUID | None, offset: int, limit: int) -> list[Any]:
        async with Reading() as db:
            found = list((await db.execute(asked.page(user_id, offset, limit))).all())
            if asked.walk is not None and len(found) < limit:
                found += await asked.without_value(db, offset, limit - len(found))
            return found

    @staticmethod
    async def _count(statement: Any) -> int:
        async with Reading() as db:
            return await db.scalar(statement) or 0

    @staticmethod
    async def _counts(statement: Any) -> dict[str, int]:
        async with Reading() as db:
            counts = dict((await db.execute(statement)).all())
        return {"total": sum(counts.values()), **counts}


@dataclass
class Asked:
    """One question."""

    dataset: UUID
    conditions: list[ColumnElement[bool]]
    """On RECORDS, beside the words and that it is of the dataset."""
    words: Found | None
    orders: list[Any]
    later_orders: list[Any]
    """Less those of the first thing to sort by."""
    walk: Walk | None
    """How to go along an index for the first order, if there is one."""

    def page(self, user_id: UUID | None, offset: int, limit: int) -> Any:
        """A SELECT of `record_id`, `score`, and `total` where that comes of itself."""
        if self.words is not None and not self.orders:
            return self._best(offset, limit)
        if user_id is not None and not self.orders:
            return self._shuffled(user_id, offset, limit)
        ids = select(RECORDS.c.record_id, self._score(), UNCOUNTED)
        if self.walk is None:
            orders = [*(self.orders or [RECORDS.c.inserted_at]), RECORDS.c.number]
            return ids.where(*self._all()).order_by(*orders).offset(offset).limit(limit)
        # A scope is of one dataset; to ask for that again would lead SQLite to begin with the records.
        ids = ids.join(self.walk.value, self.walk.joined).where(*self.walk.conditions, *self._all()[1:])
        # Equals in the order of the index, so that none of them have to be sorted.
        orders = [self.walk.order, *self.later_orders, self.walk.last]
        return ids.order_by(*orders).offset(offset).limit(limit)

    def counted_apart(self, user_id: UUID | None) -> bool:
        """Whether the page says nothing of how many there are, or less soon than another look at the same time."""
        if self.words is not None and not self.orders:
            return not self.conditions
        return bool(self.orders) or user_id is None

    def _shuffled(self, user_id: UUID, offset: int, limit: int) -> Any:
        """What is asked for is found once, to be ordered and counted: for both, the index of numbers is enough."""
        every = select(RECORDS.c.number).where(*self._all()).cte("every").prefix_with("MATERIALIZED")
        place = _place(every.c.number, user_id)
        page = select(every.c.number).order_by(place).offset(offset).limit(limit)
        total = select(func.count()).select_from(every).scalar_subquery().label("total")
        ids = select(RECORDS.c.record_id, self._score(), total).where(RECORDS.c.number.in_(page))
        return ids.order_by(_place(RECORDS.c.number, user_id))

    async def without_value(self, db: AsyncSession, offset: int, limit: int) -> Any:
        """The rest of a page whose walk has ended: records that lack the first order's value."""
        assert self.walk is not None
        valued = select(func.count()).select_from(RECORDS).where(*self._all(), self.walk.has_value)
        skipped = max(0, offset - (await db.scalar(valued) or 0))
        ids = select(RECORDS.c.record_id, self._score(), UNCOUNTED).where(*self._all(), ~self.walk.has_value)
        ids = ids.order_by(*self.later_orders, RECORDS.c.number)
        return (await db.execute(ids.offset(skipped).limit(limit))).all()

    def _score(self) -> ColumnElement[Any]:
        """As Elasticsearch: none where another order was asked for."""
        return (null() if self.words else literal(1.0)).label("score")

    def _best(self, offset: int, limit: int) -> Any:
        """Of very many, some are compared: what nearly all records say tells nothing about any of them."""
        assert self.words is not None
        inside = exists().where(RECORDS.c.number == self.words.record, *self.conditions).correlate(WORDS)
        most = self._compared(offset + limit)
        hits = self.words.hits(*([inside] if self.conditions else []), most=most)
        total = select(case((func.count() < most, func.count()))).select_from(hits).scalar_subquery().label("total")
        reached = select(func.min(hits.c.record)).scalar_subquery().label("reached")
        ids = select(RECORDS.c.record_id, hits.c.score, total, reached).join(hits, RECORDS.c.number == hits.c.record)
        return ids.order_by(hits.c.score.desc(), hits.c.record).offset(offset).limit(limit)

    def _compared(self, end: int) -> int:
        """How many answers to words are compared for a page that ends there."""
        narrow = bool(self.conditions) or (self.words is not None and bool(self.words.narrower))
        return max(RANKED_WITHIN if narrow else RANKED, end)

    def count(self, end: int, reached: int | None) -> Any:
        """A SELECT of how many there are. `reached` is the last record that was compared for the page that ends at
        `end`, if any was.
        """
        if self.words and not self.conditions:  # the words' own row says which dataset it is of
            return select(func.count()).select_from(WORDS).where(*self.words.conditions)
        if self.words:
            return self._count_both(self.words, self._compared(end), None if self.words.narrower else reached)
        return select(func.count()).select_from(RECORDS).where(*self._all())

    def _count_both(self, words: Found, compared: int, reached: int | None) -> Any:
        """With words and conditions. Of a word that most records say, those that lack it are fewer to look at. Whether
        most do is seen by how far back one had to go for those that were compared.
        """
        inside = exists().where(RECORDS.c.number == words.record, *self.conditions).correlate(WORDS)
        saying = select(func.count()).select_from(WORDS).where(*words.conditions, inside)
        if words.lacking is None or reached is None:
            return saying
        every = select(func.count()).select_from(RECORDS).where(RECORDS.c.dataset_id == self.dataset, *self.conditions)
        passed = every.where(RECORDS.c.number >= reached)
        common = literal(2 * compared) > passed.scalar_subquery()
        lacking = select(func.count()).select_from(WORDS).where(words.lacking, inside)
        fewer = every.scalar_subquery() - lacking.scalar_subquery()
        return select(case((common, fewer), else_=saying.scalar_subquery()))

    def numbers(self) -> Any:
        """A SELECT of the records' numbers, None if all are asked about."""
        return select(RECORDS.c.number).where(*self._all()) if self.words or self.conditions else None

    def _all(self) -> list[ColumnElement[bool]]:
        of_dataset = [RECORDS.c.dataset_id == self.dataset, *self.conditions]
        return [*of_dataset, RECORDS.c.number.in_(self.words.records())] if self.words else of_dataset


def _field(dataset: Dataset, name: str | None) -> tuple[bool, str | None]:
    """Whether there is text to search, and the field: None for all of them, as for an only one."""
    names = [field.name for field in dataset.fields if not field.is_image]
    if name is None:
        return True, None
    if name not in {field.name for field in dataset.fields}:
        raise ValueError(f"Field {name} not found in dataset {dataset.id}")
    return name in names, name if len(names) > 1 else None


def _place(number: ColumnElement[int], user_id: UUID) -> ColumnElement[int]:
    """Each user has an order of their own, and always the same one: the numbers, multiplied modulo a prime."""
    factor, first = random.Random(UUID(str(user_id)).int).sample(range(2**30, 2**31), 2)
    return (number * factor + first) % PRIME


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)
