"""What the parts of the store share: ids, a way to read and a way to write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from annotation.store import sqlite


def new_id() -> str:
    """A fresh random id, 32 hex digits."""
    return uuid4().hex


def fields(row: sa.RowMapping) -> dict[str, Any]:
    """A row of a numbered table as its type has it: without `seq`."""
    return {key: value for key, value in row.items() if key != "seq"}


def reading(engine: sa.Engine) -> sa.Engine:
    """The same connections, for reading. PostgreSQL shows each statement what is committed by then, in a transaction or
    out of it, and each BEGIN and ROLLBACK around one is a way there and back; SQLite needs one to see a single moment.
    """
    return engine.execution_options(isolation_level="AUTOCOMMIT") if engine.dialect.name == "postgresql" else engine


class Writer:
    """Begins transactions that write.

    SQLite takes its write lock at the first statement, so that a transaction which reads and then writes waits for its
    turn; taking it half-way fails at once with 'database is locked'. Since SQLite's waiting is by chance, the threads
    of one process queue here first: with many of them some would never get their turn.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        self._turn = Lock() if self._sqlite else nullcontext()

    @contextmanager
    def begin(self, may_be_lost: bool = False) -> Iterator[sa.Connection]:
        """A transaction: committed at the end, rolled back at an error.

        With `may_be_lost` nobody waits for the disk: killing the process loses nothing, but a power cut may undo it.
        That does for holds, which run out anyway, and for nothing that somebody said.
        """
        with self._turn, self._engine.connect() as db:
            if self._sqlite:
                sqlite.begins_with(db, sqlite.HOLDS if may_be_lost else sqlite.SAVES)
            with db.begin():
                if may_be_lost and not self._sqlite:
                    db.exec_driver_sql("SET LOCAL synchronous_commit TO OFF")
                yield db


class Part:
    """One concern of the store, over the engine and the writer that all parts share."""

    def __init__(self, engine: sa.Engine, writer: Writer) -> None:
        self._engine = reading(engine)
        self._in_transactions = engine
        self._writer = writer
