"""How SQLite reads for this engine: an index of 50,000 records is larger than the 2 MB it keeps in memory by itself."""

from __future__ import annotations

from typing import Any

from argilla_server.database import async_engine
from sqlalchemy import event

PRAGMAS = (
    "mmap_size = 4294967296",  # the system's own cache of the file, which all connections share
    "cache_size = -16384",  # KiB of pages that are not mapped, for each connection
    "temp_store = MEMORY",
)


def read_from_memory() -> None:
    """Set this up for every connection that Argilla opens from now on; nothing for PostgreSQL, which has its own."""
    if async_engine.dialect.name == "sqlite":
        event.listen(async_engine.sync_engine, "connect", _set)


def _set(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
