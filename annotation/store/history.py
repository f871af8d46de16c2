"""Reading and writing acts inside a transaction, and the queue's row that follows from them."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from annotation.acts import COUNTED, Act, ActBody, project
from annotation.store.tables import acts, corrections, cursors, judgements, leases, tasks
from annotation.types import Correction, Judgement

HIDDEN = ("seq", "act_id")
# Built once: every save and every deal reads these.
ACTS, JUDGEMENTS, CORRECTIONS = (
    sa.select(table).where(table.c.reply_id.in_(sa.bindparam("ids", expanding=True))).order_by(table.c.seq)
    for table in (acts, judgements, corrections)
)


def acts_of(db: sa.Connection, reply_ids: Sequence[str]) -> dict[str, list[Act]]:
    """All acts about each of these replies, oldest first; at most some hundreds of ids at once."""
    ids = {"ids": list(reply_ids)}
    rows = db.execute(ACTS, ids).mappings().all()
    if not rows:
        return {}
    said: dict[str, list[Judgement]] = {}
    for row in db.execute(JUDGEMENTS, ids).mappings():
        kept = Judgement(**{key: value for key, value in row.items() if key not in HIDDEN})
        said.setdefault(row["act_id"], []).append(kept)
    put_right: dict[str, Correction] = {}
    for row in db.execute(CORRECTIONS, ids).mappings():
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
    db.execute(acts.insert(), row | {"body": act.body.model_dump(mode="json", exclude_defaults=True)})
    if act.judgements:
        db.execute(judgements.insert(), [one.model_dump() | {"act_id": act.id} for one in act.judgements])
    if act.correction:
        db.execute(corrections.insert(), act.correction.model_dump() | {"act_id": act.id})


def holding(which: sa.ColumnElement[bool]) -> tuple[sa.ColumnElement[bool], ...]:
    """What makes a hold take a place, for those of `which`."""
    mine = leases.alias()
    seated = sa.exists().where(  # looking at one's own answer again takes no second place
        mine.c.reply_id == leases.c.reply_id,
        mine.c.person == leases.c.person,
        mine.c.state == fixed("done"),
        one_of(mine.c.route, sorted(COUNTED)),
    )
    return which, leases.c.state == fixed("held"), one_of(leases.c.route, ("queue", "search")), ~seated


def one_of(column: sa.ColumnElement[str], values: Sequence[str]) -> sa.ColumnElement[bool]:
    """`column.in_(values)`, which would be written out anew at every call: for what a reviewer waits for."""
    return sa.or_(*(column == fixed(value) for value in values))


def fixed(word: str) -> sa.ColumnElement[str]:
    """One of our own words, as part of the statement. SQLite plans a statement anew at each call in which the value of
    a parameter decides whether a partial index will do, and `uq_leases_held` is one: that takes ten times as long as
    finding the rows."""
    return sa.literal_column(f"'{word}'", sa.String)


PLACES_TAKEN = (
    sa.select(sa.func.count()).select_from(leases).where(*holding(leases.c.reply_id == sa.bindparam("of_reply")))
)
ROW = tasks.update().where(tasks.c.reply_id == sa.bindparam("of_reply"))


def write_row(db: sa.Connection, reply_id: str, overlap: int, gold: bool, said: Sequence[Act]) -> None:
    """Write the queue's row of one reply whose acts are at hand."""
    held = db.scalar(PLACES_TAKEN, {"of_reply": reply_id}) or 0
    db.execute(ROW, vars(project(said, overlap, held, gold)) | {"of_reply": reply_id})


def lock(db: sa.Connection, reply_ids: Sequence[str]) -> None:
    """Keep everybody else on PostgreSQL from changing where these replies stand; always in one order, so that two of
    these at once can't wait for each other. A reply is locked before the holds on it.
    """
    rows = sa.select(tasks.c.reply_id).where(tasks.c.reply_id.in_(reply_ids)).order_by(tasks.c.reply_id)
    if db.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
        db.execute(rows.with_for_update()).all()


def refresh(db: sa.Connection, reply_ids: Sequence[str]) -> None:
    """Work out the queue's rows of these replies anew, from their acts and the holds on them.

    Whoever has gone past one of them that is open (again) is led back to it.
    """
    lock(db, reply_ids)  # before the acts are read: one that is just being saved must not be overlooked
    histories = acts_of(db, reply_ids)
    held_query = (
        sa.select(leases.c.reply_id, sa.func.count())
        .where(*holding(leases.c.reply_id.in_(reply_ids)))
        .group_by(leases.c.reply_id)
    )
    held = {row[0]: row[1] for row in db.execute(held_query)}
    rows = db.execute(
        sa.select(tasks.c.reply_id, tasks.c.overlap, tasks.c.state, tasks.c.rank).where(tasks.c.reply_id.in_(reply_ids))
    )
    reopened: list[int] = []
    for row in rows.all():
        now = project(histories.get(row.reply_id, ()), row.overlap, held.get(row.reply_id, 0), gold=row.state == "gold")
        db.execute(ROW, vars(now) | {"of_reply": row.reply_id})
        reopened += [row.rank] if now.state == "open" else []
    if reopened:
        lead_back(db, min(reopened))


def lead_back(db: sa.Connection, rank: int) -> None:
    """Let everybody who has gone past this rank look from there again."""
    if db.scalar(sa.select(cursors.c.rank).where(cursors.c.rank >= rank).limit(1)) is None:
        return
    if db.dialect.name == "postgresql":
        # One at a time: it takes other people's cursors, so that two at once, which go on to move their own, could wait
        # for each other. It comes after the replies are locked.
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(1, 1)))
    db.execute(cursors.update().where(cursors.c.rank >= rank).values(rank=rank - 1))
