"""What was stopped by somebody and should stay so over a restart. The newest word about a piece of work counts."""

from __future__ import annotations

import sqlalchemy as sa

from annotation.store.part import Part, new_id
from annotation.store.tables import work_halts
from annotation.types import utc_now


class Halts(Part):
    """Which work is stopped; `work` is the id of what it is done for."""

    def say(self, work: str, halted: bool, author: str) -> None:
        """Stop it, or let it go on."""
        row = {"id": new_id(), "work": work, "halted": halted, "author": author, "made_at": utc_now()}
        with self._writer.begin() as db:
            db.execute(work_halts.insert().values(row))

    def halted(self, work: str) -> bool:
        """Whether the last word about it was to stop."""
        query = sa.select(work_halts.c.halted).where(work_halts.c.work == work).order_by(work_halts.c.seq.desc())
        with self._engine.connect() as db:
            return bool(db.scalar(query.limit(1)))
