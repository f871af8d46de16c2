"""Reading and writing acts inside a transaction, and the queue's row that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from annotation.acts import COUNTED, Act, ActBody, project
from annotation.store.tables import acts, corrections, cursors, judgements, leases, tasks
from annotation.types import Correction, Judgement

COLUMNS = ("id", "reply_id", "person", "kind", "route", "seconds", "made_at")
"""Of an act and of its row, beside `body`."""


def _labels(prefix: str, table: sa.Table) -> dict[str, str]:
    """What a column of `table` is called in a row of ACTS → its name."""
    return {f"{prefix}_{column.name}": column.name for column in table.c if column.name not in ("seq", "act_id")}


SAID, PUT_RIGHT = _labels("said", judgements), _labels("put_right", corrections)
# Built once: every save and every deal reads it. One statement for three tables, as each is a way to the database and
# back; an act has three judgements at most, and one correction.
ACTS = (
    sa.select(
        acts,
        *(judgements.c[name].label(label) for label, name in SAID.items()),
        *(corrections.c[name].label(label) for label, name in PUT_RIGHT.items()),
    )
    .outerjoin_from(acts, judgements, judgements.c.act_id == acts.c.id)
    .outerjoin(corrections, corrections.c.act_id == acts.c.id)
    .where(acts.c.reply_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(acts.c.seq, judgements.c.seq)
)


def acts_of(db: sa.Connection, reply_ids: Sequence[str]) -> dict[str, list[Act]]:
    """All acts about each of these replies, oldest first; at most some hundreds of ids at once."""
    found: dict[str, list[Act]] = {}
    for _, rows in groupby(db.execute(ACTS, {"ids": list(reply_ids)}).mappings(), key=lambda row: row["seq"]):
        act = _act_of(list(rows))
        found.setdefault(act.reply_id, []).append(act)
    return found


def _act_of(rows: Sequence[sa.RowMapping]) -> Act:
    """One act, out of its rows of ACTS."""
    row = rows[0]
    return Act(
        **{name: row[name] for name in COLUMNS},
        body=ActBody.model_validate(row["body"]),
        judgements=tuple(Judgement(**_part(one, SAID)) for one in rows if one["said_id"] is not None),
        correction=Correction(**_part(row, PUT_RIGHT)) if row["put_right_id"] is not None else None,
    )


def _part(row: sa.RowMapping, labels: Mapping[str, str]) -> dict[str, Any]:
    return {name: row[label] for label, name in labels.items()}


def add_act(db: sa.Connection, act: Act) -> None:
    """Write an act with its judgements and its correction; the caller brings the queue up to date after."""
    row = {name: getattr(act, name) for name in COLUMNS}
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
