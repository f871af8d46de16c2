"""How PostgreSQL is spoken to: a connection that rested is asked whether it is still there."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

RESTED = "rested"
"""In a connection's `info`: since when nobody has used it, by the monotonic clock."""
REST_SECONDS = 2.0
"""A server that was started anew within it costs one person one error; asking each time costs everybody a way there
and back in everything they do (SQLAlchemy's `pool_pre_ping`)."""


def ask_after_a_rest(engine: sa.Engine) -> None:
    """Ask a connection of the pool whether it still answers if it rested for a while; a dead one is replaced."""

    def used(_: Any, record: Any) -> None:
        record.info[RESTED] = time.monotonic()

    def wanted(connection: Any, record: Any, _: Any) -> None:
        if time.monotonic() - record.info.get(RESTED, time.monotonic()) < REST_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise sa.exc.DisconnectionError from error

    sa.event.listen(engine, "checkin", used)
    sa.event.listen(engine, "checkout", wanted)
