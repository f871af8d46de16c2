"""The engine's own connections to Argilla's database.

Not Argilla's: each of its requests holds one of those until it has its answer, so enough of them at once would take
all there are, and each wait for a second one that never comes.
"""

from __future__ import annotations

import os
from typing import Any

from argilla_server.database import async_engine
from argilla_server.settings import settings
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

DIALECT: str = async_engine.dialect.name
PRAGMAS = (
    "mmap_size = 4294967296",  # the system's own cache of the file, which all connections share
    "cache_size = -16384",  # KiB of pages that are not mapped, for each connection
    "temp_store = MEMORY",
)
"""An index of 50,000 records is larger than the 2 MB that SQLite keeps in memory by itself."""
AT_ONCE = max(4, os.cpu_count() or 1)
"""Questions; more at once than there are cores are not answered sooner."""
PATIENCE = 120
"""Seconds that a question waits for its turn."""
READS = create_async_engine(
    settings.database_url,
    isolation_level="AUTOCOMMIT",  # each question is one look; a BEGIN and a ROLLBACK would be two ways more
    **settings.database_engine_args | {"pool_size": AT_ONCE, "max_overflow": 0, "pool_timeout": PATIENCE},
)
Reading = async_sessionmaker(READS, autoflush=False)


def read_from_memory() -> None:
    """Set this up for every connection from now on, ours and Argilla's; nothing for PostgreSQL, which has its own."""
    if DIALECT == "sqlite":
        for each in (READS, async_engine):
            event.listen(each.sync_engine, "connect", _set)


def _set(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
