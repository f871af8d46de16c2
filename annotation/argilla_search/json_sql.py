"""What is inside a JSON column, as rows: the one place where SQLite and PostgreSQL are asked differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Float, String, Text, case, cast, column, func, literal_column, null
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause


@dataclass(frozen=True)
class Elements:
    """Rows to select from, one for each value found; `number` is NULL where the value is none."""

    rows: FromClause
    text: ColumnElement[str]
    number: ColumnElement[float]


class JsonSql(Protocol):
    """How one database is asked."""

    word_start: str
    word_end: str

    def elements(self, document: Any, *path: str) -> Elements:
        """The value at the path, or each of its items where it is a list; none where there is nothing."""

    def strings(self, document: Any, *path: str) -> Elements:
        """Every string at the path or anywhere below it."""


class SqliteJson:
    """json_each and json_tree."""

    word_start = word_end = r"\b"

    def elements(self, document: Any, *path: str) -> Elements:
        return self._rows(func.json_each(document, self._path(path)), ("text", "integer", "real", "true", "false"))

    def strings(self, document: Any, *path: str) -> Elements:
        return self._rows(func.json_tree(document, self._path(path)), ("text",))

    @staticmethod
    def _path(path: tuple[str, ...]) -> str:
        return "$" + "".join(f'."{name}"' for name in path)

    @staticmethod
    def _rows(call: Any, kinds: tuple[str, ...]) -> Elements:
        rows = call.table_valued(column("atom"), column("type", String))
        number = case((rows.c.type.in_(("integer", "real")), cast(rows.c.atom, Float)), else_=null())
        text = case((rows.c.type.in_(kinds), cast(rows.c.atom, Text)), else_=null())
        return Elements(rows, text, number)


class PostgresJson:
    """jsonb_path_query, whose lax mode takes a lone value for a list of one."""

    word_start = word_end = r"\y"

    def elements(self, document: Any, *path: str) -> Elements:
        return self._rows(document, path, "$[*]")

    def strings(self, document: Any, *path: str) -> Elements:
        return self._rows(document, path, '$.** ? (@.type() == "string")')

    @staticmethod
    def _rows(document: Any, path: tuple[str, ...], query: str) -> Elements:
        inside: ColumnElement[Any] = cast(document, JSONB)
        if path:
            inside = inside[path]
        found = func.jsonb_path_query(inside, literal_column(f"'{query}'::jsonpath"), type_=JSONB)
        rows = found.table_valued(column("value", JSONB)).render_derived()
        text = rows.c.value.op("#>>", return_type=Text())(literal_column("'{}'::text[]"))
        is_number = func.jsonb_typeof(rows.c.value) == "number"
        return Elements(rows, text, case((is_number, cast(text, Float)), else_=null()))


def json_sql(dialect: str) -> JsonSql:
    """For the database that Argilla runs on."""
    return PostgresJson() if dialect == "postgresql" else SqliteJson()
