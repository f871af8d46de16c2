"""How SQLite is spoken to: transactions that begin when we say so, and wait for the disk or not."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection as Db
from sqlalchemy import PoolProxiedConnection
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

DRIVER = "sqlite+tonesmith"
BEGIN = "begin"
"""In a connection's `info`: the statements that its next transaction begins with."""
READS = ("BEGIN",)
SAVES = ("PRAGMA synchronous=FULL", "BEGIN IMMEDIATE")
"""FULL makes 'saved' mean on disk, also after a power cut."""
HOLDS = ("PRAGMA synchronous=NORMAL", "BEGIN IMMEDIATE")


class Sqlite(SQLiteDialect_pysqlite):
    """SQLAlchemy's own, less Python's habit of beginning transactions behind our back.

    SQLAlchemy's documentation has the event `begin` do this. A dialect does it without: an engine with one such
    listener looks for listeners at every statement, a tenth of what a reviewer waits for.
    """

    supports_statement_cache = True

    def on_connect(self) -> Any:
        """WAL lets readers go on while one writes."""
        theirs = super().on_connect()

        def connected(connection: Any) -> None:
            if theirs is not None:
                theirs(connection)
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
                connection.execute(f"PRAGMA {pragma}")

        return connected

    def do_begin(self, dbapi_connection: PoolProxiedConnection) -> None:
        """As `begins_with` has it."""
        for statement in dbapi_connection.info.pop(BEGIN, READS):
            dbapi_connection.execute(statement)


def begins_with(db: Db, statements: tuple[str, ...]) -> None:
    """What the connection's next transaction begins with; else with READS."""
    db.info[BEGIN] = statements


registry.register("sqlite.tonesmith", __name__, "Sqlite")
