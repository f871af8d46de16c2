"""Rows straight into the tables, as fast as the database takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa


def insert(db: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows that all have the same columns. On PostgreSQL by COPY, and nobody checks the foreign keys."""
    if not rows:
        return
    if db.dialect.name != "postgresql":
        db.execute(table.insert(), rows)
        return
    from psycopg.types.json import Json  # only where there is a PostgreSQL

    columns = list(rows[0])
    db.execute(sa.text("SET LOCAL session_replication_role = replica"))
    cursor: Any = db.connection.cursor()
    names = ", ".join(f'"{name}"' for name in columns)
    with cursor.copy(f'COPY "{table.name}" ({names}) FROM STDIN') as copy:
        for row in rows:
            copy.write_row([Json(one) if isinstance(one, (dict, list)) else one for one in map(row.get, columns)])
    if "seq" in columns:  # whoever is numbered next comes after these
        db.execute(sa.text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'seq'), max(seq)) FROM {table.name}"))


@contextmanager
def without_text_index(engine: sa.Engine) -> Iterator[None]:
    """PostgreSQL's index of the words is made anew at the end: that is many times as fast as keeping it meanwhile."""
    if engine.dialect.name != "postgresql":
        yield
        return
    asked = sa.text(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'turns' AND indexdef LIKE '%USING gin%'"
    )
    with engine.begin() as db:
        found = db.execute(asked).all()
        for name, _ in found:
            db.execute(sa.text(f"DROP INDEX {name}"))
    yield
    with engine.begin() as db:
        db.execute(sa.text("SET LOCAL maintenance_work_mem = '256MB'"))
        for _, definition in found:
            db.exec_driver_sql(definition)
