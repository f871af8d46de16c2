"""Make the engine's tables in Argilla's database, once, and make them anew whenever they are not as they should be.

Triggers keep them, in the same transaction as the change they follow. So nothing that writes to the database gets past
them: not Argilla, its worker, a bulk job, a hand edit, nor a time when this engine was not running.
"""

from __future__ import annotations

import asyncio

from argilla_server.database import async_engine
from sqlalchemy import inspect

from . import postgres_schema, sqlite_schema

_lock = asyncio.Lock()
_ready = False


async def ensure() -> None:
    """Look once in the life of the process; costs a look at the catalogue where all is well, a rebuild where not."""
    global _ready  # Argilla makes a new engine for each request, so the process has to remember
    if _ready:
        return
    async with _lock:
        if not _ready:
            _ready = await repair()


async def repair(*, anew: bool = False) -> bool:
    """Build what is missing or altered, all of it from Argilla's tables; `anew` builds in any case.

    False where Argilla's own tables are not there yet.
    """
    schema = postgres_schema if async_engine.dialect.name == "postgresql" else sqlite_schema
    async with async_engine.connect() as db:
        if not await db.run_sync(lambda sync: inspect(sync).has_table("vectors")):
            return False
        if not anew and await schema.is_whole(db):
            return True
    async with async_engine.connect() as db:
        await db.execution_options(isolation_level="AUTOCOMMIT")
        for statement in schema.BEGIN:
            await db.exec_driver_sql(statement)
        try:
            # The server and its worker start together: whoever came second finds it done.
            if anew or not await schema.is_whole(db):
                for statement in (*schema.DROPS, *schema.BUILD, *schema.FILL):
                    await db.exec_driver_sql(statement)
            await db.exec_driver_sql("COMMIT")
        except BaseException:
            await db.exec_driver_sql("ROLLBACK")
            raise
    return True
