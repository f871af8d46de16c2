"""Argilla's filters and sort orders as SQL conditions on a record."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from argilla_server.models import Question, Record, Response, Suggestion
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
from sqlalchemy.sql.elements import ColumnElement, UnaryExpression

from .json_sql import Elements, JsonSql

PENDING = "pending"


class Filters:
    """For one database; every method's result belongs into a SELECT on records."""

    def __init__(self, json: JsonSql) -> None:
        self._json = json

    def condition(self, chosen: Filter) -> ColumnElement[bool]:
        """What a record has to fulfil."""
        if isinstance(chosen, AndFilter):
            return and_(true(), *(self.condition(one) for one in chosen.filters))
        scope = chosen.scope
        if isinstance(scope, RecordFilterScope):
            return _record(chosen, scope)
        if isinstance(scope, ResponseFilterScope) and scope.question is None:
            return _response_status(chosen, scope)
        if isinstance(scope, SuggestionFilterScope) and scope.property in ("agent", "type"):
            column = getattr(Suggestion, scope.property)
            return exists().where(*_of_scope(scope), _column_matches(chosen, column))
        elements = self._elements(scope)
        inner = exists(select(1).select_from(elements.rows).where(_element_matches(chosen, elements)))
        return inner if isinstance(scope, MetadataFilterScope) else exists().where(*_of_scope(scope), inner)

    def orders(self, orders: Sequence[Order]) -> list[UnaryExpression[Any]]:
        """ORDER BY, what a record lacks last in either direction; several responses count with their mean."""
        return [
            (key.desc() if order.order == "desc" else key.asc()).nulls_last()
            for order in orders
            for key in self._keys(order)
        ]

    def _keys(self, order: Order) -> list[ColumnElement[Any]]:
        scope = order.scope
        if isinstance(scope, RecordFilterScope):
            return [getattr(Record, scope.property)]
        extreme = func.max if order.order == "desc" else func.min
        column = _plain_column(scope)
        if column is not None:
            return [select(extreme(column)).where(*_of_scope(scope)).correlate(Record).scalar_subquery()]
        elements = self._elements(scope)
        sources: list[Any] = [elements.rows]
        where: list[ColumnElement[bool]] = [true()]
        if not isinstance(scope, MetadataFilterScope):
            sources = [Response if isinstance(scope, ResponseFilterScope) else Suggestion, elements.rows]
            where = _of_scope(scope)
        number = func.avg if isinstance(scope, ResponseFilterScope) else extreme
        return [
            select(aggregate).select_from(*sources).where(*where).correlate(Record).scalar_subquery()
            for aggregate in (number(elements.number), extreme(elements.text))
        ]

    def _elements(self, scope: FilterScope) -> Elements:
        if isinstance(scope, MetadataFilterScope):
            return self._json.elements(Record.metadata_, scope.metadata_property)
        if isinstance(scope, ResponseFilterScope):
            return self._json.elements(Response.values, scope.question or "", "value")
        return self._json.elements(Suggestion.score if scope.property == "score" else Suggestion.value)


def _plain_column(scope: FilterScope) -> Any:
    if isinstance(scope, ResponseFilterScope) and scope.question is None:
        return Response.status
    if isinstance(scope, SuggestionFilterScope) and scope.property in ("agent", "type"):
        return getattr(Suggestion, scope.property)
    return None


def _of_scope(scope: FilterScope) -> list[ColumnElement[bool]]:
    """The responses or suggestions of this record that the scope is about."""
    if isinstance(scope, SuggestionFilterScope):
        return [
            Suggestion.record_id == Record.id,
            Suggestion.question_id == Question.id,
            Question.dataset_id == Record.dataset_id,
            Question.name == scope.question,
        ]
    conditions = [Response.record_id == Record.id]
    if scope.user is not None:
        conditions.append(Response.user_id == scope.user.id)
    return conditions


def _response_status(chosen: TermsFilter | RangeFilter, scope: ResponseFilterScope) -> ColumnElement[bool]:
    """'pending' is no status of a response but the lack of one."""
    if not isinstance(chosen, TermsFilter) or scope.property != "status":
        raise ValueError(f"cannot filter responses by {scope.property} with {type(chosen).__name__}")
    kept = [value for value in chosen.values if value != PENDING]
    parts = []
    if PENDING in chosen.values:
        parts.append(~exists().where(*_of_scope(scope)))
    if kept:
        parts.append(exists().where(*_of_scope(scope), _one_of(Response.status, kept)))
    return or_(*parts) if parts else true()


def _record(chosen: TermsFilter | RangeFilter, scope: RecordFilterScope) -> ColumnElement[bool]:
    if scope.property not in ("inserted_at", "updated_at"):
        return _column_matches(chosen, getattr(Record, scope.property))
    moment = getattr(Record, scope.property)
    if isinstance(chosen, TermsFilter):
        return or_(false(), *(moment.between(_moment(value), _moment(value, end=True)) for value in chosen.values))
    return _between(
        moment,
        None if chosen.ge is None else _moment(chosen.ge),
        None if chosen.le is None else _moment(chosen.le, end=True),
    )


def _column_matches(chosen: TermsFilter | RangeFilter, column: Any) -> ColumnElement[bool]:
    if isinstance(chosen, TermsFilter):
        return _one_of(column, chosen.values)
    return _between(column, chosen.ge, chosen.le)


def _one_of(column: Any, values: Sequence[str]) -> ColumnElement[bool]:
    """Values that the column's type does not know match nothing, as in an index."""
    enum = getattr(column.type, "enums", None)
    if enum is not None:
        return column.in_([value for value in values if value in enum])  # type: ignore[no-any-return]
    if column.type.python_type is UUID:
        return column.in_([value for value in map(_uuid, values) if value])  # type: ignore[no-any-return]
    return column.in_(list(values))  # type: ignore[no-any-return]


def _element_matches(chosen: TermsFilter | RangeFilter, elements: Elements) -> ColumnElement[bool]:
    if isinstance(chosen, TermsFilter):
        return or_(elements.text.in_(chosen.values), elements.number.in_(list(_numbers(chosen.values))))
    if any(isinstance(end, str) for end in (chosen.ge, chosen.le)):
        return _between(elements.text, chosen.ge, chosen.le)
    return _between(elements.number, chosen.ge, chosen.le)


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
