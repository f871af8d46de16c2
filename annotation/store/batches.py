"""The same change to many replies at once, looked at before and taken back after."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import AwareDatetime, Field

from annotation.errors import Conflict, NotFound, UserError
from annotation.queue import RANKS
from annotation.store.history import lead_back, refresh
from annotation.store.part import Part, new_id
from annotation.store.search import Filter, Search
from annotation.store.tables import acts, batch_items, batches, leases, tasks
from annotation.types import Frozen, utc_now

WAITING = ("open", "full", "skipped")
CHANGED = ("queue", "assignee", "skill", "rank", "overlap", "state")


class Change(Frozen):
    """What to do with every reply of a filter. What is None stays as it is."""

    assignee: str | None = None
    """Keep them for one person; empty gives them back to everybody."""
    skill: str | None = None
    """Only for people with this skill; empty for everybody."""
    queue: Annotated[str, Field(pattern=r"^[\w .-]{1,64}$")] | None = None
    priority: Annotated[int, Field(ge=-9, le=9)] | None = None
    """0 is ordinary, above comes earlier."""
    overlap: Annotated[int, Field(ge=1, le=9)] | None = None
    set_aside: Literal[True] | None = None
    """Take them out of the queue."""

    def sentence(self) -> str:
        """What it does, for people."""
        said = {
            "assignee": f"keep them for {self.assignee}" if self.assignee else "give them back to everybody",
            "skill": f"ask for the skill '{self.skill}'" if self.skill else "ask for no skill",
            "queue": f"move them to the queue '{self.queue}'",
            "priority": f"give them priority {self.priority}",
            "overlap": f"let {self.overlap} people judge each",
            "set_aside": "set them aside",
        }
        return ", ".join(text for name, text in said.items() if getattr(self, name) is not None)


class Batch(Frozen):
    """A change that was made."""

    id: str
    filter: Filter
    change: Change
    author: str
    size: int
    made_at: AwareDatetime
    undone_at: AwareDatetime | None = None


class Batches(Part):
    """Preview, make and take back."""

    def preview(self, wanted: Filter, change: Change) -> int:
        """How many replies a change would touch: those of the filter that nobody is done with and that are no hidden
        check. More reviewers each also touch judged ones, where the filter asks for these: they are dealt again, to
        others.
        """
        with self._engine.connect() as db:
            return db.scalar(sa.select(sa.func.count()).select_from(self._touched(wanted, change).subquery())) or 0

    def make(self, wanted: Filter, change: Change, author: str) -> Batch:
        """Make the change in one transaction, keeping what was before. Raises UserError if there is nothing to do."""
        values = _values(change)
        if not values:
            raise UserError("No change is chosen.", do="Choose what to do with them.")
        batch = Batch(id=new_id(), filter=wanted, change=change, author=author, size=0, made_at=utc_now())
        body = {
            "filter": wanted.model_dump(exclude_defaults=True),
            "change": change.model_dump(exclude_none=True),
        }
        columns = [sa.literal(batch.id), tasks.c.reply_id, *(tasks.c[name] for name in CHANGED)]
        with self._writer.begin() as db:
            row = {"id": batch.id, "body": body, "author": author, "size": 0, "made_at": batch.made_at}
            db.execute(batches.insert().values(row))
            source = sa.select(*columns).where(tasks.c.reply_id.in_(self._touched(wanted, change)))
            db.execute(batch_items.insert().from_select(["batch_id", "reply_id", *CHANGED], source))
            ours = sa.select(batch_items.c.reply_id).where(batch_items.c.batch_id == batch.id)
            size = db.execute(tasks.update().where(tasks.c.reply_id.in_(ours)).values(values)).rowcount
            if not size:
                raise UserError("No waiting reply is like that.", do="Change the filter.")
            db.execute(batches.update().where(batches.c.id == batch.id).values(size=size))
            if change.set_aside:
                _add_acts(db, batch.id, "skip", author)
            _lead_back(db, ours)
            if change.overlap is not None:
                _refresh_begun(db, ours)
        return batch.model_copy(update={"size": size})

    def undo(self, batch_id: str, person: str) -> int:
        """Put back what was before, where nobody has changed or judged it since; returns how many replies that were.

        Raises NotFound, Conflict if it was taken back already.
        """
        with self._writer.begin() as db:
            row = db.execute(sa.select(batches).where(batches.c.id == batch_id)).mappings().first()
            if row is None:
                raise NotFound("That change is not here.")
            if row["undone_at"]:
                raise Conflict("That change was taken back already.")
            db.execute(batches.update().where(batches.c.id == batch_id).values(undone_by=person, undone_at=utc_now()))
            change = Change.model_validate(row["body"]["change"])
            ours = sa.select(batch_items.c.reply_id).where(batch_items.c.batch_id == batch_id)
            still = _as_left(change, batch_id, row["made_at"])
            if change.set_aside:
                _add_acts(db, batch_id, "restore", person, still)
            before: dict[str, Any] = {
                name: sa.select(batch_items.c[name])
                .where(batch_items.c.batch_id == batch_id, batch_items.c.reply_id == tasks.c.reply_id)
                .scalar_subquery()
                for name in _values(change)
            }
            if change.set_aside:  # who holds it now, and so whether it is full, is worked out below
                before["state"] = sa.case((before["state"] == "skipped", "skipped"), else_="open")
            back = db.execute(tasks.update().where(tasks.c.reply_id.in_(ours), still).values(before)).rowcount
            if change.set_aside or change.overlap is not None:
                _refresh_begun(db, ours)
            _lead_back(db, ours)
        return back

    def recent(self, limit: int = 10) -> list[Batch]:
        """The last changes, newest first."""
        with self._engine.connect() as db:
            rows = db.execute(sa.select(batches).order_by(batches.c.seq.desc()).limit(limit)).mappings()
            return [
                Batch(
                    **{key: row[key] for key in ("id", "author", "size", "made_at", "undone_at")},
                    filter=row["body"]["filter"],
                    change=row["body"]["change"],
                )
                for row in rows
            ]

    def _touched(self, wanted: Filter, change: Change) -> sa.Select[Any]:
        found = Search(self._engine, self._writer).matching(wanted)
        waiting = tasks.c.state.in_(WAITING)
        if change.overlap is None or change.set_aside or wanted.state not in ("reviewed", "done", "disputed"):
            return found.where(waiting)
        judged = sa.and_(tasks.c.state.in_(("done", "disputed")), tasks.c.overlap < change.overlap)
        return found.where(sa.or_(waiting, judged))


def _values(change: Change) -> dict[str, Any]:
    values: dict[str, Any] = change.model_dump(include={"assignee", "skill", "queue", "overlap"}, exclude_none=True)
    if change.priority is not None:
        values["rank"] = tasks.c.position - change.priority * RANKS
    if change.set_aside:
        values["state"] = "skipped"
    return values


def _as_left(change: Change, batch_id: str, made_at: datetime) -> sa.ColumnElement[bool]:
    """Replies that are still as this change left them, and that nobody has finished since."""
    kinds = ("skip", "restore") if change.set_aside else ("review",)
    since = sa.exists().where(
        acts.c.reply_id == tasks.c.reply_id,
        acts.c.kind.in_(kinds),
        acts.c.made_at > made_at,
        ~acts.c.id.startswith(batch_id),
    )
    same = [tasks.c[name] == value for name, value in _values(change).items()]
    waiting = tasks.c.state.in_(WAITING)
    untouched = sa.and_(waiting, ~since) if change.set_aside else sa.or_(waiting, ~since)
    return sa.and_(tasks.c.state != "gold", untouched, *same)


def _add_acts(
    db: sa.Connection, batch_id: str, kind: str, person: str, where: sa.ColumnElement[bool] | None = None
) -> None:
    """One act a reply of the batch: where a reply stands must follow from its history alone."""
    body = sa.literal({"text": "with many others"}, acts.c.body.type)
    columns = {
        "id": sa.literal(f"{batch_id}-{kind}-") + sa.cast(tasks.c.position, sa.String),
        "reply_id": tasks.c.reply_id,
        "person": sa.literal(person),
        "kind": sa.literal(kind),
        "route": sa.literal("queue"),
        "body": body,
        "made_at": sa.literal(utc_now(), acts.c.made_at.type),
    }
    source = sa.select(*columns.values()).join(batch_items, batch_items.c.reply_id == tasks.c.reply_id)
    source = source.where(batch_items.c.batch_id == batch_id, batch_items.c.state != "skipped")
    source = source if where is None else source.where(where)
    db.execute(acts.insert().from_select(list(columns), source))


def _lead_back(db: sa.Connection, ours: sa.Select[Any]) -> None:
    lowest = db.scalar(sa.select(sa.func.min(tasks.c.rank)).where(tasks.c.reply_id.in_(ours)))
    if lowest is not None:
        lead_back(db, lowest)


def _refresh_begun(db: sa.Connection, ours: sa.Select[Any]) -> None:
    """Where somebody holds or has judged a reply, its state may follow from the new overlap."""
    begun = sa.select(leases.c.reply_id).where(leases.c.state.in_(("held", "done")), leases.c.reply_id.in_(ours))
    touched = list(dict.fromkeys(db.scalars(begun)))
    for start in range(0, len(touched), 500):
        refresh(db, touched[start : start + 500])
