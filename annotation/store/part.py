"""What the parts of the store share: ids, a way to read and a way to write."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa


def new_id() -> str:
    """A fresh random id, 32 hex digits."""
    return uuid4().hex


class Part:
    """One concern of the store, over the engine that all parts share."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        # SQLite takes its write lock at the first statement here, so that a transaction which reads and then writes
        # waits for its turn; taking it half-way fails at once with 'database is locked'.
        self._writer = engine.execution_options(writes=True)
