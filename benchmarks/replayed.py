"""Whether the queue's rows are what follows from the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import sqlalchemy as sa

from annotation.acts import project
from annotation.store import Store
from annotation.store.history import acts_of
from annotation.store.tables import leases, tasks

AT_ONCE = 500


def not_as_replayed(store: Store, reply_ids: Collection[str] | None = None) -> list[tuple[str, object, object]]:
    """(reply, row, replay) of the replies whose row in the queue does not follow from their history and the holds."""
    found: list[tuple[str, object, object]] = []
    with store.engine.connect() as db:
        holding = leases.c.state == "held", leases.c.route.in_(("queue", "search"))
        held = Counter(db.scalars(sa.select(leases.c.reply_id).where(*holding)))
        rows: Sequence[sa.RowMapping] = db.execute(sa.select(tasks)).mappings().all()
        rows = [row for row in rows if reply_ids is None or row["reply_id"] in reply_ids]
        for start in range(0, len(rows), AT_ONCE):
            histories = acts_of(db, [row["reply_id"] for row in rows[start : start + AT_ONCE]])
            for row in rows[start : start + AT_ONCE]:
                reply_id = row["reply_id"]
                gold = row["state"] == "gold"
                now = vars(project(histories.get(reply_id, []), row["overlap"], held[reply_id], gold))
                kept = {name: row[name] for name in now}
                found += [(reply_id, kept, now)] if kept != now else []
    return found
