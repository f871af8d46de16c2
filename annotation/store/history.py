"""Reading and writing acts inside a transaction, and the queue's row that follows from them."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from annotation.acts import Act, ActBody, project
from annotation.store.tables import acts, corrections, judgements, leases, tasks
from annotation.types import Correction, Judgement

HIDDEN = ("seq", "act_id")


def acts_of(db: sa.Connection, reply_ids: Sequence[str]) -> dict[str, list[Act]]:
    """All acts about each of these replies, oldest first; at most some hundreds of ids at once."""
    rows = db.execute(sa.select(acts).where(acts.c.reply_id.in_(reply_ids)).order_by(acts.c.seq)).mappings().all()
    if not rows:
        return {}
    said: dict[str, list[Judgement]] = {}
    query = sa.select(judgements).where(judgements.c.reply_id.in_(reply_ids)).order_by(judgements.c.seq)
    for row in db.execute(query).mappings():
        kept = Judgement(**{key: value for key, value in row.items() if key not in HIDDEN})
        said.setdefault(row["act_id"], []).append(kept)
    put_right: dict[str, Correction] = {}
    query = sa.select(corrections).where(corrections.c.reply_id.in_(reply_ids)).order_by(corrections.c.seq)
    for row in db.execute(query).mappings():
        put_right[row["act_id"]] = Correction(**{key: value for key, value in row.items() if key not in HIDDEN})
    found: dict[str, list[Act]] = {}
    for row in rows:
        found.setdefault(row["reply_id"], []).append(
            Act(
                id=row["id"],
                reply_id=row["reply_id"],
                person=row["person"],
                kind=row["kind"],
                route=row["route"],
                seconds=row["seconds"],
                made_at=row["made_at"],
                body=ActBody.model_validate(row["body"]),
                judgements=tuple(said.get(row["id"], ())),
                correction=put_right.get(row["id"]),
            )
        )
    return found


def add_act(db: sa.Connection, act: Act) -> None:
    """Write an act with its judgements and its correction; the caller brings the queue up to date after."""
    row = {name: getattr(act, name) for name in ("id", "reply_id", "person", "kind", "route", "seconds", "made_at")}
    db.execute(acts.insert().values(row | {"body": act.body.model_dump(mode="json", exclude_defaults=True)}))
    if act.judgements:
        db.execute(judgements.insert(), [one.model_dump() | {"act_id": act.id} for one in act.judgements])
    if act.correction:
        db.execute(corrections.insert().values(act.correction.model_dump() | {"act_id": act.id}))


def places_taken(db: sa.Connection, reply_id: str) -> int:
    """How many places of a reply are held just now."""
    held = sa.select(sa.func.count()).select_from(leases).where(*_holding(leases.c.reply_id == reply_id))
    return db.scalar(held) or 0


def _holding(which: sa.ColumnElement[bool]) -> tuple[sa.ColumnElement[bool], ...]:
    return which, leases.c.state == "held", leases.c.route.in_(("queue", "search"))


def write_row(db: sa.Connection, reply_id: str, overlap: int, gold: bool, said: Sequence[Act]) -> None:
    """Write the queue's row of one reply whose acts are at hand."""
    now = project(said, overlap, places_taken(db, reply_id), gold)
    db.execute(tasks.update().where(tasks.c.reply_id == reply_id).values(vars(now)))


def refresh(db: sa.Connection, reply_ids: Sequence[str]) -> None:
    """Work out the queue's rows of these replies anew, from their acts and the holds on them."""
    histories = acts_of(db, reply_ids)
    held_query = (
        sa.select(leases.c.reply_id, sa.func.count())
        .where(*_holding(leases.c.reply_id.in_(reply_ids)))
        .group_by(leases.c.reply_id)
    )
    held = {row[0]: row[1] for row in db.execute(held_query)}
    rows = db.execute(
        sa.select(tasks.c.reply_id, tasks.c.overlap, tasks.c.state).where(tasks.c.reply_id.in_(reply_ids))
    )
    for row in rows.all():
        now = project(histories.get(row.reply_id, ()), row.overlap, held.get(row.reply_id, 0), gold=row.state == "gold")
        db.execute(tasks.update().where(tasks.c.reply_id == row.reply_id).values(vars(now)))
