"""What the parts of the store share: a way to read and a way to write."""

from __future__ import annotations

import sqlalchemy as sa


class Part:
    """One concern of the store, over the engine that all parts share."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        # SQLite takes its write lock at the first statement here, so that a transaction which reads and then writes
        # waits for its turn; taking it half-way fails at once with 'database is locked'.
        self._writer = engine.execution_options(writes=True)
