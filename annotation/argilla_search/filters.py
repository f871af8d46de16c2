"""Argilla's filters and sort orders as SQL conditions on the engine's row of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from argilla_server.search_engine.base import (
    AndFilter,
    Filter,
    FilterScope,
    MetadataFilterScope,
    Order,
    RangeFilter,
    RecordFilterScope,
    ResponseFilterScope,
    SuggestionFilterScope,
    TermsFilter,
)
from sqlalchemy import and_, exists, false, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement, UnaryExpression

from .tables import RECORDS, RESPONSES, SCOPES, VALUES

PENDING = "pending"
Name = tuple[str, str]
"""A scope's kind and name."""


async def scopes_of(db: AsyncSession, dataset: UUID, chosen: Filter | None, sort: Sequence[Order]) -> dict[Name, int]:
    """The numbers of the scopes that a question is about; one that no record ever had a value for has none."""
    names = {name for one in _scopes(chosen) + [order.scope for order in sort] if (name := _name(one))}
    if not names:
        return {}
    rows = await db.execute(
        select(SCOPES).where(SCOPES.c.dataset_id == dataset, SCOPES.c.name.in_({name for _, name in names}))
    )
    return {(row.kind, row.name): row.number for row in rows if (row.kind, row.name) in names}


async def columns_of(db: AsyncSession, scopes: Mapping[Name, int], sort: Sequence[Order]) -> dict[Name, str]:
    """For each scope to sort by: whether its values are numbers or texts. Each is one look at the index."""
    found = {}
    for name in {name for order in sort if (name := _name(order.scope)) and name in scopes}:
        highest = select(func.max(VALUES.c.number)).where(VALUES.c.scope == scopes[name])
        found[name] = "text" if await db.scalar(highest) is None else "number"
    return found


def _scopes(chosen: Filter | None) -> list[FilterScope]:
    if isinstance(chosen, AndFilter):
        return [scope for one in chosen.filters for scope in _scopes(one)]
    return [] if chosen is None else [chosen.scope]


def _name(scope: FilterScope) -> Name | None:
    """None for what is a column of the record or the status of a response."""
    if isinstance(scope, MetadataFilterScope):
        return ("metadata", scope.metadata_property)
    if isinstance(scope, ResponseFilterScope) and scope.question is not None:
        return ("response", scope.question)
    if isinstance(scope, SuggestionFilterScope):
        kind = scope.property if scope.property in ("score", "agent", "type") else "suggestion"
        return (kind, scope.question)
    return None


@dataclass(frozen=True)
class Walk:
    """Values in their order, each with its record: a page of it costs no more when there are more records."""

    value: Any
    joined: ColumnElement[bool]
    conditions: tuple[ColumnElement[bool], ...]
    order: UnaryExpression[Any]
    last: UnaryExpression[Any]
    """The order of equals."""
    has_value: ColumnElement[bool]

    @classmethod
    def along(cls, scope: int, column: str, user: UUID | None, *, descending: bool) -> Walk:
        """By `number` or `text`. Of a record's several values only the first in the order counts."""
        here, other = VALUES.alias("here"), VALUES.alias("other")

        def valued(values: Any, its_scope: ColumnElement[int]) -> list[ColumnElement[bool]]:
            whose = [] if user is None else [values.c.user_id == user]
            return [its_scope == scope, values.c[column].is_not(None), *whose]

        mine, theirs = here.c[column], other.c[column]
        of_other = valued(other, _unindexed(other.c.scope))
        sooner = theirs > mine if descending else theirs < mine
        return cls(
            value=here,
            joined=here.c.record == RECORDS.c.number,
            conditions=(
                *valued(here, here.c.scope),
                ~exists().where(*of_other, other.c.record == here.c.record, sooner),
            ),
            order=mine.desc() if descending else mine.asc(),
            last=here.c.record.desc() if descending else here.c.record.asc(),
            has_value=exists().where(*of_other, other.c.record == RECORDS.c.number),
        )


class Filters:
    """For one question; every method's result belongs into a SELECT on RECORDS."""

    def __init__(self, scopes: Mapping[Name, int], columns: Mapping[Name, str], *, by_hash: bool) -> None:
        """`columns` of what is sorted by; `by_hash` where the index is on the texts' MD5."""
        self._scopes, self._columns, self._by_hash = scopes, columns, by_hash

    def condition(self, chosen: Filter) -> ColumnElement[bool]:
        """What a record has to fulfil."""
        if isinstance(chosen, AndFilter):
            return and_(true(), *(self.condition(one) for one in chosen.filters))
        scope = chosen.scope
        if isinstance(scope, RecordFilterScope):
            return _record(chosen, scope)
        if isinstance(scope, ResponseFilterScope) and scope.question is None:
            return _response_status(chosen, scope)
        values = select(VALUES.c.record).where(*self._values(scope), self._matches(chosen))
        return RECORDS.c.number.in_(values)

    def orders(self, orders: Sequence[Order]) -> list[UnaryExpression[Any]]:
        """ORDER BY, what a record lacks last in either direction; several responses count with their mean."""
        return [
            (self._key(order).desc() if order.order == "desc" else self._key(order).asc()).nulls_last()
            for order in orders
        ]

    def _key(self, order: Order) -> ColumnElement[Any]:
        scope = order.scope
        if isinstance(scope, RecordFilterScope):
            return _column(scope)
        extreme = func.max if order.order == "desc" else func.min
        if isinstance(scope, ResponseFilterScope) and scope.question is None:
            # A user has one response: with an extreme of it SQLite would go through all of the user's.
            status = RESPONSES.c.status if scope.user else extreme(RESPONSES.c.status)
            found = select(status).where(*_of_record(scope))
            return found.correlate(RECORDS).scalar_subquery()
        where = (*self._values(scope, _unindexed(VALUES.c.scope)), VALUES.c.record == RECORDS.c.number)
        column = self._columns.get(_name(scope) or ("", ""), "text")
        mean = column == "number" and isinstance(scope, ResponseFilterScope)
        value = (func.avg if mean else extreme)(VALUES.c[column])
        return select(value).where(*where).correlate(RECORDS).scalar_subquery()

    def walk(self, order: Order) -> Walk | None:
        """A way along an index, None where there is none: a column of the record, or a mean of people's answers."""
        scope = order.scope
        name = _name(scope)
        everybody = isinstance(scope, ResponseFilterScope) and scope.user is None
        if name is None or name not in self._columns or everybody:
            return None
        user = scope.user.id if isinstance(scope, ResponseFilterScope) and scope.user else None
        return Walk.along(self._scopes[name], self._columns[name], user, descending=order.order == "desc")

    def _values(self, scope: FilterScope, its_scope: ColumnElement[int] = VALUES.c.scope) -> list[ColumnElement[bool]]:
        name = _name(scope)
        number = None if name is None else self._scopes.get(name)
        if number is None:
            return [false()]
        conditions: list[ColumnElement[bool]] = [its_scope == number]
        if isinstance(scope, ResponseFilterScope) and scope.user is not None:
            conditions.append(VALUES.c.user_id == scope.user.id)
        return conditions

    def _matches(self, chosen: TermsFilter | RangeFilter) -> ColumnElement[bool]:
        if isinstance(chosen, TermsFilter):
            text: ColumnElement[bool] = VALUES.c.text.in_(chosen.values)
            if self._by_hash:
                text = func.md5(VALUES.c.text).in_([func.md5(value) for value in chosen.values])
            numbers = _numbers(chosen.values)
            return or_(text, VALUES.c.number.in_(numbers)) if numbers else text
        if any(isinstance(end, str) for end in (chosen.ge, chosen.le)):
            return _between(VALUES.c.text, chosen.ge, chosen.le)
        return _between(VALUES.c.number, chosen.ge, chosen.le)


def _unindexed(scope: ColumnElement[int]) -> ColumnElement[int]:
    """Leads SQLite to a record's few values by the record, where it would else go through those of all records."""
    return scope + 0


def _of_record(scope: ResponseFilterScope) -> list[ColumnElement[bool]]:
    """The responses to this record that the scope is about."""
    conditions: list[ColumnElement[bool]] = [RESPONSES.c.record == RECORDS.c.number]
    if scope.user is not None:
        conditions.append(RESPONSES.c.user_id == scope.user.id)
    return conditions


def _response_status(chosen: TermsFilter | RangeFilter, scope: ResponseFilterScope) -> ColumnElement[bool]:
    """'pending' is no status of a response but the lack of one."""
    if not isinstance(chosen, TermsFilter) or scope.property != "status":
        raise ValueError(f"cannot filter responses by {scope.property} with {type(chosen).__name__}")
    kept = [value for value in chosen.values if value != PENDING]
    parts = []
    if PENDING in chosen.values:
        parts.append(~exists().where(*_of_record(scope)))
    if kept:
        parts.append(exists().where(*_of_record(scope), RESPONSES.c.status.in_(kept)))
    return or_(*parts) if parts else true()


def _column(scope: RecordFilterScope) -> ColumnElement[Any]:
    return RECORDS.c.record_id if scope.property == "id" else RECORDS.c[scope.property]


def _record(chosen: TermsFilter | RangeFilter, scope: RecordFilterScope) -> ColumnElement[bool]:
    column = _column(scope)
    if scope.property == "id" and isinstance(chosen, TermsFilter):
        return column.in_([value for value in map(_uuid, chosen.values) if value])
    if scope.property not in ("inserted_at", "updated_at"):
        if isinstance(chosen, TermsFilter):
            return column.in_(chosen.values)
        return _between(column, chosen.ge, chosen.le)
    if isinstance(chosen, TermsFilter):
        return or_(false(), *(column.between(_moment(value), _moment(value, end=True)) for value in chosen.values))
    return _between(
        column,
        None if chosen.ge is None else _moment(chosen.ge),
        None if chosen.le is None else _moment(chosen.le, end=True),
    )


def _between(column: Any, low: Any, high: Any) -> ColumnElement[bool]:
    parts = [] if low is None else [column >= low]
    if high is not None:
        parts.append(column <= high)
    return and_(true(), *parts)


def _numbers(values: Sequence[str]) -> list[float]:
    found = []
    for value in values:
        try:
            found.append(float(value))
        except ValueError:
            continue
    return found


def _uuid(value: str) -> UUID | None:
    try:
        return UUID(value)
    except ValueError:
        return None


def _moment(value: str | float, *, end: bool = False) -> datetime:
    """As the columns hold it, in UTC. A number is milliseconds; a bare date that ends a range, its last moment."""
    try:
        if not isinstance(value, str):
            return datetime.fromtimestamp(value / 1000, UTC).replace(tzinfo=None)
        if len(value) == len("2025-01-31"):
            day = datetime.combine(date.fromisoformat(value), time())
            return day + timedelta(days=1, microseconds=-1) if end else day
        moment = datetime.fromisoformat(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"not a moment in time: {value!r}") from error
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
