"""Who reviews what next: holds that run out, lanes for people and skills, hidden checks and repeats."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from pydantic import AwareDatetime

from annotation.errors import Conflict, NotFound
from annotation.people import Person
from annotation.queue import MAIN, REPEAT_AFTER, QueueSettings, dealt, overlap_for, rank_of
from annotation.store.history import places_taken, refresh
from annotation.store.part import Part, new_id
from annotation.store.tables import acts, cursors, deals, golds, leases, queues, tasks
from annotation.types import Frozen, Question, Route, Value, utc_now

EXPIRED_AT_ONCE = 100


class Hold(Frozen):
    """A reply kept for somebody. Its id is the id of the act that will end it."""

    id: str
    reply_id: str
    route: Route
    queue: str
    expires_at: AwareDatetime


class Gold(Frozen):
    """A reply whose right answers are known: dealt now and then, unannounced."""

    reply_id: str
    answers: dict[Question, Value]
    author: str
    made_at: AwareDatetime


class Tasks(Part):
    """Deal replies out, and take them back."""

    # Settings

    def settings(self, name: str = MAIN) -> QueueSettings:
        """How a queue is worked; the defaults for one that nobody has set."""
        with self._engine.connect() as db:
            return settings_of(db, name)

    def queues(self) -> list[QueueSettings]:
        """All queues, the main one first."""
        with self._engine.connect() as db:
            names = set(db.scalars(sa.select(queues.c.name).distinct())) | {MAIN}
            return [settings_of(db, name) for name in sorted(names, key=lambda name: (name != MAIN, name))]

    def change_settings(self, settings: QueueSettings, author: str) -> None:
        """Keep new settings; replies not yet done get the new overlap."""
        row = {"name": settings.name, "body": settings.model_dump(), "author": author, "made_at": utc_now()}
        waiting = sa.select(tasks.c.reply_id).where(tasks.c.queue == settings.name, tasks.c.state.in_(("open", "full")))
        with self._writer.begin() as db:
            db.execute(queues.insert().values(row))
            if settings.second_share == 0:
                change = tasks.update().where(tasks.c.reply_id.in_(waiting), tasks.c.overlap != settings.overlap)
                db.execute(change.values(overlap=settings.overlap))
            else:
                for reply_id in db.scalars(waiting).all():
                    overlap = overlap_for(settings, reply_id)
                    db.execute(tasks.update().where(tasks.c.reply_id == reply_id).values(overlap=overlap))
            # Only those somebody has begun can change their state by it.
            begun = sa.select(leases.c.reply_id).where(leases.c.state.in_(("held", "done")))
            touched = list(db.scalars(waiting.where(tasks.c.reply_id.in_(begun))))
            for start in range(0, len(touched), 500):
                refresh(db, touched[start : start + 500])

    # Holds

    def claim(self, person: Person, settings: QueueSettings, exclude: Collection[str] = ()) -> Hold | None:
        """Hold the next reply for `person` and return the hold; None when nothing is left for them.

        What they hold already comes first, unless it is in `exclude` (ids of replies on screen). Holds that ran out
        are freed on the way.
        """
        with self._writer.begin() as db:
            _free_expired(db)
            if (hold := _held(db, person.name, settings, exclude)) is not None:
                return hold
            kind = dealt(settings, person.name, _deals(db, person.name))
            if kind == "gold" and (reply_id := _gold_for(db, person.name)):
                return _hold(db, reply_id, person.name, "gold", settings)
            if kind == "repeat" and (reply_id := _repeat_for(db, person.name)):
                return _hold(db, reply_id, person.name, "repeat", settings)
            reply_id = _from_lanes(db, person, settings)
            if reply_id is None:
                return None
            hold = _hold(db, reply_id, person.name, "queue", settings)
            _close_if_full(db, reply_id)
            return hold

    def claim_one(self, person: Person, reply_id: str, adjudicate: bool = False) -> Hold:
        """Hold one reply that was found by search. The sampling design holds here too: a full reply is not given out
        once more, one kept for somebody else is not given away, and a hidden check stays one.

        With `adjudicate`, to settle a difference, whatever its state. Raises NotFound and Conflict.
        """
        with self._writer.begin() as db:
            _free_expired(db)
            task = db.execute(sa.select(tasks).where(tasks.c.reply_id == reply_id).with_for_update()).first()
            if task is None:
                raise NotFound(f"There is no reply {reply_id} to judge.", do="Open another one.")
            settings = settings_of(db, task.queue)
            mine = sa.select(leases).where(leases.c.reply_id == reply_id, leases.c.person == person.name)
            held = db.execute(mine.where(leases.c.state == "held")).first()
            if held is not None and (held.route == "adjudication") is adjudicate:
                return _renewed(db, held, settings)
            if held is not None:
                db.execute(leases.update().where(leases.c.id == held.id).values(state="released"))
            route: Route = "adjudication" if adjudicate else "search"
            if not adjudicate:
                done = db.execute(mine.where(leases.c.state == "done").order_by(leases.c.seq.desc())).first()
                route = _route_of_claim(task, person, done)
            hold = _hold(db, reply_id, person.name, route, settings)
            refresh(db, [reply_id])
            return hold

    def renew(self, person: str, hold_id: str) -> bool:
        """Keep a hold alive while somebody works on it; False if it is no longer theirs."""
        query = sa.select(leases.c.id, leases.c.reply_id, leases.c.route, tasks.c.queue).join(
            tasks, tasks.c.reply_id == leases.c.reply_id
        )
        with self._writer.begin() as db:
            row = db.execute(
                query.where(leases.c.id == hold_id, leases.c.person == person, leases.c.state == "held")
            ).first()
            if row is not None:
                _renewed(db, row, settings_of(db, row.queue))
            return row is not None

    def release(self, person: str, hold_id: str) -> None:
        """Give a reply back untouched."""
        with self._writer.begin() as db:
            theirs = leases.c.id == hold_id, leases.c.person == person, leases.c.state == "held"
            reply_id = db.scalar(sa.select(leases.c.reply_id).where(*theirs))
            if reply_id:
                db.execute(leases.update().where(*theirs).values(state="released"))
                refresh(db, [reply_id])

    def free_expired(self) -> int:
        """Free every hold that ran out; returns how many."""
        with self._writer.begin() as db:
            freed = 0
            while some := _free_expired(db):
                freed += some
        return freed

    # Looking

    def counts(self) -> dict[str, int]:
        """Replies by where they stand: `waiting`, `reviewed`, `skipped`, `disputed`."""
        query = sa.select(tasks.c.state, sa.func.count()).group_by(tasks.c.state)
        with self._engine.connect() as db:
            by_state = {row[0]: row[1] for row in db.execute(query)}
        return {
            "waiting": by_state.get("open", 0) + by_state.get("full", 0),
            "reviewed": by_state.get("done", 0) + by_state.get("disputed", 0),
            "skipped": by_state.get("skipped", 0),
            "disputed": by_state.get("disputed", 0),
        }

    def outcomes(self) -> dict[str, int]:
        """Replies by what they came to: `approved`, `corrected`, `failed`, `unsure`, `partial`, `disputed`."""
        query = sa.select(tasks.c.outcome, sa.func.count()).where(tasks.c.outcome.is_not(None))
        with self._engine.connect() as db:
            return {row[0]: row[1] for row in db.execute(query.group_by(tasks.c.outcome))}

    def disputed(self, limit: int = 50) -> list[tuple[str, float]]:
        """(reply, agreement 0 to 1) of the replies over which reviewers differ, lowest agreement first."""
        query = (
            sa.select(tasks.c.reply_id, tasks.c.agreement)
            .where(tasks.c.state == "disputed")
            .order_by(tasks.c.agreement, tasks.c.position)
            .limit(limit)
        )
        with self._engine.connect() as db:
            return [(row.reply_id, row.agreement or 0.0) for row in db.execute(query)]

    def flagged_for(self, person: Person, limit: int = 50) -> list[str]:
        """Replies flagged for this person, or for any curator if they are one."""
        whom = ["", person.name] if person.may("curate") else [person.name]
        query = sa.select(tasks.c.reply_id).where(tasks.c.flag_to.in_(whom)).order_by(tasks.c.position).limit(limit)
        with self._engine.connect() as db:
            return list(db.scalars(query))

    def state_of(self, reply_id: str) -> dict[str, Any]:
        """The queue's row of one reply. Raises NotFound."""
        with self._engine.connect() as db:
            row = db.execute(sa.select(tasks).where(tasks.c.reply_id == reply_id)).mappings().first()
        if row is None:
            raise NotFound(f"There is no reply {reply_id} to judge.")
        return dict(row)

    # Hidden checks

    def set_gold(self, reply_id: str, answers: dict[Question, Value], author: str) -> None:
        """Make a reply a hidden check with these right answers; it leaves the ordinary queue. Raises NotFound."""
        row = {"reply_id": reply_id, "answers": answers, "author": author, "made_at": utc_now()}
        with self._writer.begin() as db:
            found = db.execute(tasks.update().where(tasks.c.reply_id == reply_id).values(state="gold"))
            if not found.rowcount:
                raise NotFound(f"There is no reply {reply_id} to judge.")
            db.execute(golds.delete().where(golds.c.reply_id == reply_id))
            db.execute(golds.insert().values(row))

    def unset_gold(self, reply_id: str) -> None:
        """Make a hidden check an ordinary reply again."""
        with self._writer.begin() as db:
            db.execute(golds.delete().where(golds.c.reply_id == reply_id))
            db.execute(tasks.update().where(tasks.c.reply_id == reply_id).values(state="open"))
            refresh(db, [reply_id])

    def golds(self) -> list[Gold]:
        """All hidden checks."""
        with self._engine.connect() as db:
            rows = db.execute(sa.select(golds).order_by(golds.c.made_at)).mappings()
            return [Gold.model_validate(dict(row)) for row in rows]


def settings_of(db: sa.Connection, name: str) -> QueueSettings:
    """A queue's newest settings."""
    body = db.scalar(sa.select(queues.c.body).where(queues.c.name == name).order_by(queues.c.seq.desc()).limit(1))
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


def _free_expired(db: sa.Connection) -> int:
    query = (
        sa.select(leases.c.id, leases.c.reply_id)
        .where(leases.c.state == "held", leases.c.expires_at < utc_now())
        .limit(EXPIRED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    rows = db.execute(query).all()
    if rows:
        db.execute(leases.update().where(leases.c.id.in_([row.id for row in rows])).values(state="expired"))
        refresh(db, sorted({row.reply_id for row in rows}))
    return len(rows)


def _held(db: sa.Connection, person: str, settings: QueueSettings, exclude: Collection[str]) -> Hold | None:
    query = (
        sa.select(leases.c.id, leases.c.reply_id, leases.c.route)
        .join(tasks, tasks.c.reply_id == leases.c.reply_id)
        .where(
            leases.c.person == person,
            leases.c.state == "held",
            leases.c.route.in_(("queue", "gold", "repeat")),
            tasks.c.queue == settings.name,
            leases.c.reply_id.not_in(list(exclude)),
        )
        .order_by(leases.c.seq)
        .limit(1)
    )
    row = db.execute(query).first()
    return _renewed(db, row, settings) if row else None


def _renewed(db: sa.Connection, row: Any, settings: QueueSettings) -> Hold:
    until = utc_now() + timedelta(minutes=settings.lease_minutes)
    db.execute(leases.update().where(leases.c.id == row.id).values(expires_at=until))
    return Hold(id=row.id, reply_id=row.reply_id, route=row.route, queue=settings.name, expires_at=until)


def _hold(db: sa.Connection, reply_id: str, person: str, route: Route, settings: QueueSettings) -> Hold:
    now = utc_now()
    until = now + timedelta(minutes=settings.lease_minutes)
    row = {"id": new_id(), "reply_id": reply_id, "person": person, "route": route, "expires_at": until}
    db.execute(leases.insert().values(row | {"state": "held", "made_at": now}))
    return Hold(id=str(row["id"]), reply_id=reply_id, route=route, queue=settings.name, expires_at=until)


def _close_if_full(db: sa.Connection, reply_id: str) -> None:
    """After a new hold: no more of them once every place is taken."""
    taken = places_taken(db, reply_id)
    full = tasks.c.reply_id == reply_id, tasks.c.state == "open", tasks.c.done + taken >= tasks.c.overlap
    db.execute(tasks.update().where(*full).values(state="full"))


def _deals(db: sa.Connection, person: str) -> int:
    """How many replies this person was dealt so far; counts this one."""
    number = db.scalar(sa.select(deals.c.number).where(deals.c.person == person))
    if number is None:
        db.execute(deals.insert().values(person=person, number=1))
    else:
        db.execute(deals.update().where(deals.c.person == person).values(number=number + 1))
    return number or 0


def _gold_for(db: sa.Connection, person: str) -> str | None:
    met = sa.select(leases.c.reply_id).where(leases.c.person == person)
    query = sa.select(golds.c.reply_id).where(golds.c.reply_id.not_in(met)).order_by(golds.c.made_at, golds.c.reply_id)
    return db.scalar(query.limit(1))


def _repeat_for(db: sa.Connection, person: str) -> str | None:
    """The oldest of this person's replies that is no longer fresh in mind and has not come a second time."""
    twice = sa.select(leases.c.reply_id).where(leases.c.person == person, leases.c.route == "repeat")
    query = (
        sa.select(leases.c.reply_id)
        .where(
            leases.c.person == person,
            leases.c.route == "queue",
            leases.c.state == "done",
            leases.c.reply_id.not_in(twice),
            leases.c.reply_id.in_(sa.select(acts.c.reply_id).where(acts.c.person == person, acts.c.kind == "review")),
        )
        .order_by(leases.c.seq)
    )
    since = sa.select(sa.func.count()).select_from(acts).where(acts.c.person == person, acts.c.kind == "review")
    if (db.scalar(since) or 0) < REPEAT_AFTER:
        return None
    return db.scalar(query.limit(1))


def _from_lanes(db: sa.Connection, person: Person, settings: QueueSettings) -> str | None:
    """The first open reply: what is kept for the person before what is for everybody, then by rank over the skills."""
    skills = ("", *person.skills)
    own = _open(person.name, settings.name).where(tasks.c.assignee == person.name, tasks.c.skill.in_(skills))
    if (row := db.execute(own).first()) is not None:
        return str(row.reply_id)
    found = [one for skill in skills if (one := _first_in_lane(db, person.name, settings.name, skill))]
    return min(found)[1] if found else None


def _open(person: str, queue: str) -> sa.Select[Any]:
    """The open replies of a queue that this person has not met, by rank."""
    met = sa.exists().where(
        leases.c.reply_id == tasks.c.reply_id,
        leases.c.person == person,
        leases.c.state.in_(("held", "done", "passed")),
    )
    return (
        sa.select(tasks.c.rank, tasks.c.reply_id)
        .where(tasks.c.queue == queue, tasks.c.state == "open", ~met)
        .order_by(tasks.c.rank)
        .limit(1)
        .with_for_update(of=tasks, skip_locked=True)
    )


def _first_in_lane(db: sa.Connection, person: str, queue: str, skill: str) -> tuple[int, str] | None:
    """The first reply for everybody with this skill: what was put first, then from where this person has come to, then
    from the start.
    """
    lane = {"person": person, "queue": queue, "skill": skill}
    came_to = db.scalar(sa.select(cursors.c.rank).where(*[cursors.c[key] == value for key, value in lane.items()]))
    query = _open(person, queue).where(tasks.c.assignee == "", tasks.c.skill == skill)
    parts: Sequence[Any] = (tasks.c.rank < 0, tasks.c.rank > (came_to or 0), tasks.c.rank.between(0, came_to or 0))
    for number, part in enumerate(parts):
        row = db.execute(query.where(part)).first()
        if row is not None:
            if number:
                _advance(db, lane, row.rank, came_to)
            return row.rank, row.reply_id
    return None


def _advance(db: sa.Connection, lane: dict[str, str], rank: int, came_to: int | None) -> None:
    if came_to is None:
        db.execute(cursors.insert().values(lane | {"rank": rank}))
    else:
        here = [cursors.c[key] == value for key, value in lane.items()]
        db.execute(cursors.update().where(*here).values(rank=rank))


def _route_of_claim(task: Any, person: Person, done: Any) -> Route:
    """How a reply found by search may be judged. Raises Conflict if it may not."""
    if task.state == "gold":
        return "gold" if done is None else "repeat"
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
    if task.state != "open":
        raise Conflict(
            f"This reply has the {task.overlap} {'reviewer' if task.overlap == 1 else 'reviewers'} it asks for.",
            "One that still waits.",
            "You can read it here. A curator can settle it, or ask for it again.",
        )
    return "search"
