"""How one reply is dealt, inside a transaction. The statements are built once: a reviewer waits for them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from pydantic import AwareDatetime

from annotation.errors import Conflict
from annotation.people import Person
from annotation.queue import RANKS, REPEAT_AFTER, QueueSettings, dealt, overlap_for, rank_of
from annotation.store.history import fixed, holding, one_of, refresh
from annotation.store.part import new_id
from annotation.store.tables import acts, cursors, deals, golds, leases, queues, tasks
from annotation.types import Frozen, Route, utc_now

AT_ONCE = 100
"""Holds freed in one go."""
DEALT = ("queue", "gold", "repeat")
"""Routes by which the queue itself brings a reply before somebody."""


class Hold(Frozen):
    """A reply kept for somebody. Its id is the id of the act that will end it."""

    id: str
    reply_id: str
    route: Route
    queue: str
    expires_at: AwareDatetime


SETTINGS = sa.select(queues.c.body).where(queues.c.name == sa.bindparam("name")).order_by(queues.c.seq.desc()).limit(1)


def settings_of(db: sa.Connection, name: str) -> QueueSettings:
    """A queue's newest settings."""
    body = db.scalar(SETTINGS, {"name": name})
    return QueueSettings.model_validate(body) if body else QueueSettings(name=name)


def new_task(settings: QueueSettings, reply_id: str, position: int, language: str | None) -> dict[str, object]:
    """The queue's row of a reply that has just come in."""
    return {
        "reply_id": reply_id,
        "position": position,
        "queue": settings.name,
        "assignee": "",
        "skill": (language or "") if settings.by_language else "",
        "rank": rank_of(0, position),
        "overlap": overlap_for(settings, reply_id),
        "done": 0,
        "state": "open",
        "stale": False,
    }


def claim(db: sa.Connection, person: Person, settings: QueueSettings, exclude: Collection[str]) -> Hold | None:
    """`Tasks.claim`, within a transaction that writes."""
    if db.dialect.name == "postgresql":  # one tab after the other: two at once would be dealt the same reply
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(person.name))))
    if (held := held_by(db, person.name, settings, exclude)) is not None:
        return held
    dice = settings.gold_share or settings.repeat_share
    kind = dealt(settings, person.name, turn_of(db, person.name)) if dice else "queue"
    if kind == "gold" and (reply_id := gold_for(db, person, settings.name)):
        return hold(db, reply_id, person.name, "gold", settings)
    if kind == "repeat" and (reply_id := repeat_for(db, person.name, settings.name)):
        return hold(db, reply_id, person.name, "repeat", settings)
    found = from_lanes(db, person, settings)
    if found is None:
        return None
    reply_id, places = found
    made = hold(db, reply_id, person.name, "queue", settings)
    if places <= 1 or db.dialect.name == "postgresql":  # there, others may have taken places since these were counted
        db.execute(FULL, {"reply": reply_id})
    return made


# Holds

HELD = (
    sa.select(leases.c.id, leases.c.reply_id, leases.c.route, leases.c.person, leases.c.expires_at, tasks.c.queue)
    .join(tasks, tasks.c.reply_id == leases.c.reply_id)
    .where(
        sa.or_(
            sa.and_(leases.c.person == sa.bindparam("person"), leases.c.state == fixed("held")),
            sa.and_(
                leases.c.state == fixed("held"),
                leases.c.expires_at < sa.bindparam("now", type_=leases.c.expires_at.type),
            ),
        )
    )
    .order_by(leases.c.seq)
    .limit(AT_ONCE)
    # Both rows, or neither: whoever saves has locked the reply's and asks for the hold's after it.
    .with_for_update(of=[tasks, leases], skip_locked=True)
)
RENEW = (
    leases.update()
    .where(leases.c.id == sa.bindparam("hold"))
    .values(expires_at=sa.bindparam("until", type_=leases.c.expires_at.type))
)
NEW = leases.insert().inline()
TAKEN = (
    sa.select(sa.func.count())
    .select_from(leases)
    .where(*holding(leases.c.reply_id == tasks.c.reply_id))
    .correlate(tasks)
    .scalar_subquery()
)
FULL = (
    tasks.update()
    .where(
        tasks.c.reply_id == sa.bindparam("reply"),
        tasks.c.state == fixed("open"),
        tasks.c.done + TAKEN >= tasks.c.overlap,
    )
    .values(state="full")
)
"""After a new hold: no more of them once every place is taken."""


OVERBOOKED = sa.select(tasks.c.reply_id).where(tasks.c.state != fixed("gold"), tasks.c.done + TAKEN > tasks.c.overlap)
"""Replies that more people have judged or hold than should: there is never one, at any moment."""


def held_by(db: sa.Connection, person: str, settings: QueueSettings, exclude: Collection[str]) -> Hold | None:
    """What this person holds already and does not have open, oldest first. Frees what ran out on the way."""
    now = utc_now()
    rows = db.execute(HELD, {"person": person, "now": now}).all()
    _free(db, [row for row in rows if row.expires_at < now])
    for row in rows:
        ours = row.person == person and row.expires_at >= now and row.queue == settings.name and row.route in DEALT
        if ours and row.reply_id not in exclude:
            return renewed(db, row, settings, now)
    return None


def free_expired(db: sa.Connection) -> int:
    """Free some holds that ran out; returns how many."""
    rows = db.execute(HELD, {"person": "", "now": utc_now()}).all()
    _free(db, rows)
    return len(rows)


def _free(db: sa.Connection, rows: Collection[Any]) -> None:
    if rows:
        db.execute(leases.update().where(leases.c.id.in_([row.id for row in rows])).values(state="expired"))
        refresh(db, sorted({row.reply_id for row in rows}))


def renewed(db: sa.Connection, row: Any, settings: QueueSettings, now: datetime | None = None) -> Hold:
    """The hold of a row, kept for a whole term from now."""
    until = (now or utc_now()) + timedelta(minutes=settings.lease_minutes)
    db.execute(RENEW, {"hold": row.id, "until": until})
    return Hold(id=row.id, reply_id=row.reply_id, route=row.route, queue=settings.name, expires_at=until)


def hold(
    db: sa.Connection, reply_id: str, person: str, route: Route, settings: QueueSettings, hold_id: str | None = None
) -> Hold:
    """A new hold, by this id if one is given."""
    now = utc_now()
    made = Hold(
        id=hold_id or new_id(),
        reply_id=reply_id,
        route=route,
        queue=settings.name,
        expires_at=now + timedelta(minutes=settings.lease_minutes),
    )
    row = {"id": made.id, "reply_id": reply_id, "person": person, "route": route, "expires_at": made.expires_at}
    db.execute(NEW, row | {"state": "held", "made_at": now})
    return made


# Hidden checks and repeats


def turn_of(db: sa.Connection, person: str) -> int:
    """How many times this person was dealt something so far; counts this one."""
    number = db.scalar(sa.select(deals.c.number).where(deals.c.person == person))
    if number is None:
        db.execute(deals.insert(), {"person": person, "number": 1})
    else:
        db.execute(deals.update().where(deals.c.person == person).values(number=number + 1))
    return number or 0


_MET = leases.alias("met")
_OF_IT = one_of(_MET.c.state, ("held", "done", "passed", "released", "expired"))
"""Any state; named, so that SQLite finds a reply's few holds by their index, and not all that somebody ever had."""
GOLD = (
    sa.select(golds.c.reply_id)
    .join(tasks, tasks.c.reply_id == golds.c.reply_id)
    .where(
        tasks.c.queue == sa.bindparam("queue"),
        tasks.c.state == fixed("gold"),
        tasks.c.assignee.in_(sa.bindparam("kept_for", expanding=True)),
        tasks.c.skill.in_(sa.bindparam("skills", expanding=True)),
        ~sa.exists().where(_MET.c.reply_id == golds.c.reply_id, _OF_IT, _MET.c.person == sa.bindparam("person")),
    )
    .order_by(golds.c.made_at, golds.c.reply_id)
    .limit(1)
)


def gold_for(db: sa.Connection, person: Person, queue: str) -> str | None:
    """The oldest hidden check of the queue that this person may be dealt and has not met."""
    who = {"queue": queue, "person": person.name, "kept_for": ["", person.name], "skills": ["", *person.skills]}
    return db.scalar(GOLD, who)


# Reply by reply: a person's whole history, put into sets for each of these, would make them wait for seconds.
REPEAT = (
    sa.select(leases.c.reply_id)
    .join(tasks, tasks.c.reply_id == leases.c.reply_id)
    .where(
        tasks.c.queue == sa.bindparam("queue"),
        tasks.c.state.not_in(("skipped", "gold")),
        leases.c.person == sa.bindparam("person"),
        leases.c.route == fixed("queue"),
        leases.c.state == fixed("done"),
        ~sa.exists().where(
            _MET.c.reply_id == leases.c.reply_id,
            _OF_IT,
            _MET.c.person == leases.c.person,
            _MET.c.route == fixed("repeat"),
        ),
        sa.exists().where(acts.c.id == leases.c.id, acts.c.kind == fixed("review")),  # a hold's id is its act's
    )
    .order_by(leases.c.seq)
    .limit(1)
)
REVIEWS = sa.select(acts.c.id).where(acts.c.person == sa.bindparam("person"), acts.c.kind == fixed("review"))


def repeat_for(db: sa.Connection, person: str, queue: str) -> str | None:
    """The oldest of this person's replies in the queue that is no longer fresh in mind and has not come a second time.
    What was set aside, asked anew or made a hidden check since does not come.
    """
    if len(db.scalars(REVIEWS.limit(REPEAT_AFTER), {"person": person}).all()) < REPEAT_AFTER:
        return None
    return db.scalar(REPEAT, {"person": person, "queue": queue})


# Lanes

OPEN = (
    sa.select(tasks.c.rank, tasks.c.reply_id, (tasks.c.overlap - tasks.c.done - TAKEN).label("places"))
    .where(
        tasks.c.queue == sa.bindparam("queue"),
        tasks.c.state == fixed("open"),
        ~sa.exists().where(
            leases.c.reply_id == tasks.c.reply_id,
            leases.c.person == sa.bindparam("person"),
            one_of(leases.c.state, ("held", "done", "passed")),
        ),
    )
    .order_by(tasks.c.rank)
    .limit(1)
    .with_for_update(of=tasks, skip_locked=True)
)
"""The first open reply of a queue that a person has not met, and how many places it has left."""
OWN = OPEN.where(tasks.c.assignee == sa.bindparam("person"), tasks.c.skill.in_(sa.bindparam("skills", expanding=True)))
_KEPT = tasks.alias("kept")
IS_KEPT = sa.exists().where(
    _KEPT.c.queue == sa.bindparam("queue"),
    _KEPT.c.state == fixed("open"),
    _KEPT.c.assignee == sa.bindparam("person"),
)
"""Whether OWN may find something."""
FROM_START = OPEN.where(tasks.c.assignee == fixed(""), tasks.c.skill == sa.bindparam("skill")).add_columns(
    IS_KEPT.label("some_kept")
)
CAME_TO = (
    sa.select(cursors.c.rank)
    .where(
        cursors.c.person == sa.bindparam("person"),
        cursors.c.queue == sa.bindparam("queue"),
        cursors.c.skill == sa.bindparam("skill"),
    )
    .scalar_subquery()
)
GOING_ON = FROM_START.add_columns(CAME_TO.label("came_to")).where(tasks.c.rank > sa.func.coalesce(CAME_TO, -10 * RANKS))
ADVANCE = (
    cursors.update()
    .where(
        cursors.c.person == sa.bindparam("who"),
        cursors.c.queue == sa.bindparam("from_queue"),
        cursors.c.skill == sa.bindparam("with_skill"),
    )
    .values(rank=sa.bindparam("to_rank"))
)
STEP = 64
"""Places after which it is kept anew how far somebody has come: passing so few again takes less than writing does."""


def from_lanes(db: sa.Connection, person: Person, settings: QueueSettings) -> tuple[str, int] | None:
    """The first open reply and the places it has left: what is kept for the person before what is for everybody, then
    by rank over the skills.
    """
    skills = ["", *person.skills]
    asked = {"queue": settings.name, "person": person.name}
    found, some_kept = [], False
    for skill in skills:
        lane = asked | {"skill": skill}
        row = db.execute(GOING_ON, lane).first()
        came_to = row.came_to if row is not None else None
        if row is None:
            row = db.execute(FROM_START, lane).first()
        if row is not None:
            found.append((row.rank, row.reply_id, row.places, skill, came_to))
            some_kept = row.some_kept
    if (some_kept or not found) and (row := db.execute(OWN, asked | {"skills": skills}).first()) is not None:
        return row.reply_id, row.places
    if not found:
        return None
    rank, reply_id, places, skill, came_to = min(found, key=lambda one: one[:2])
    if came_to is None or rank - came_to > STEP:
        _advance(db, person.name, settings.name, skill, rank - 1)
    return reply_id, places


def _advance(db: sa.Connection, person: str, queue: str, skill: str, rank: int) -> None:
    lane = {"who": person, "from_queue": queue, "with_skill": skill, "to_rank": rank}
    if not db.execute(ADVANCE, lane).rowcount:
        db.execute(cursors.insert(), {"person": person, "queue": queue, "skill": skill, "rank": rank})


def route_of_claim(task: Any, person: Person, done: Any) -> Route:
    """How a reply found by search may be judged. Raises Conflict if it may not."""
    if task.state == "gold":
        return "gold"
    if done is not None:
        route: Route = "search" if done.route not in ("gold", "repeat", "late") else done.route
        return route  # their own answer, looked at again
    if task.assignee not in ("", person.name):
        raise Conflict(f"This reply is kept for {task.assignee}.", do="Take another one, or ask a curator.")
    if task.skill and task.skill not in person.skills:
        raise Conflict(
            f"This reply asks for the skill '{task.skill}'.",
            do="Take another one, or ask a curator to add it to yours.",
        )
    if task.state == "skipped":
        raise Conflict("This reply was set aside.", "One that waits.", "Bring it back first, or take another one.")
    if task.state != "open":
        raise Conflict(
            f"This reply has the {task.overlap} {'reviewer' if task.overlap == 1 else 'reviewers'} it asks for.",
            "One that still waits.",
            "You can read it here. A curator can settle it, or ask for more reviewers on the Find page.",
        )
    return "search"
