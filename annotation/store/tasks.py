"""Who reviews what next: holds that run out, lanes for people and skills, hidden checks and repeats."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import AwareDatetime

from annotation.acts import replay
from annotation.errors import NotFound
from annotation.people import Person
from annotation.queue import MAIN, QueueSettings, overlap_for
from annotation.store.dealing import (
    Hold,
    claim,
    free_expired,
    hold,
    renewed,
    route_of_claim,
    settings_of,
)
from annotation.store.history import acts_of, lead_back, lock, refresh
from annotation.store.part import Part
from annotation.store.tables import acts, conversations, golds, leases, queues, tasks, turns
from annotation.types import Frozen, Question, Route, Value, utc_now

NOT_DONE = ("open", "full", "skipped")
LANGUAGE = (
    sa.select(conversations.c.language)
    .join(turns, turns.c.conversation_id == conversations.c.id)
    .where(turns.c.id == tasks.c.reply_id)
    .correlate(tasks)
    .scalar_subquery()
)
"""Of the conversation that a reply stands in."""


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
        """Keep new settings; replies not yet done get the new overlap, and are for people with their language or for
        everybody.
        """
        row = {"name": settings.name, "body": settings.model_dump(), "author": author, "made_at": utc_now()}
        waiting = sa.select(tasks.c.reply_id).where(tasks.c.queue == settings.name, tasks.c.state.in_(NOT_DONE))
        with self._writer.begin() as db:
            if db.dialect.name == "postgresql":  # one change at a time, or two would start from the same settings
                db.execute(sa.select(sa.func.pg_advisory_xact_lock(1, 2)))
            before = settings_of(db, settings.name)
            db.execute(queues.insert().values(row))
            moved = _follow_language(db, settings) if before.by_language != settings.by_language else None
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
            if moved is not None:
                lead_back(db, moved)

    # Holds

    def claim(self, person: Person, settings: QueueSettings, exclude: Collection[str] = ()) -> Hold | None:
        """Hold the next reply for `person` and return the hold; None when nothing is left for them.

        What they hold already comes first, unless it is in `exclude` (ids of replies on screen). Holds that ran out
        are freed on the way.
        """
        with self._writer.begin() as db:
            return claim(db, person, settings, exclude)

    def claim_one(self, person: Person, reply_id: str, adjudicate: bool = False, hold_id: str | None = None) -> Hold:
        """Hold one reply that was found by search. The sampling design holds here too: a full reply is not given out
        once more, one kept for somebody else is not given away, and a hidden check stays one.

        With `adjudicate`, to settle a difference, whatever its state. A new hold gets the id `hold_id` if there is one.
        Raises NotFound and Conflict.
        """
        with self._writer.begin() as db:  # on its own: nobody is made to wait for what it locks while this waits
            free_expired(db)
        with self._writer.begin() as db:
            task = db.execute(sa.select(tasks).where(tasks.c.reply_id == reply_id).with_for_update()).first()
            if task is None:
                raise NotFound(f"There is no reply {reply_id} to judge.", do="Open another one.")
            settings = settings_of(db, task.queue)
            mine = sa.select(leases).where(leases.c.reply_id == reply_id, leases.c.person == person.name)
            held = db.execute(mine.where(leases.c.state == "held")).first()
            if held is not None and (held.route == "adjudication") is adjudicate:
                return renewed(db, held, settings)
            if held is not None:
                db.execute(leases.update().where(leases.c.id == held.id).values(state="released"))
            route: Route = "adjudication" if adjudicate else "search"
            if not adjudicate:
                done = db.execute(mine.where(leases.c.state == "done").order_by(leases.c.seq.desc())).first()
                settled = done is not None and done.route == "adjudication" and task.state != "gold"
                route = "adjudication" if settled else route_of_claim(task, person, done)
            made = hold(db, reply_id, person.name, route, settings, hold_id)
            refresh(db, [reply_id])
            return made

    def claim_again(self, person: Person, reply_id: str, route: Route) -> Hold:
        """Hold a reply after this person took back what they said about it; what came as a hidden check or a repeat
        is that still. Raises NotFound and Conflict.
        """
        if route not in ("gold", "repeat"):
            return self.claim_one(person, reply_id, adjudicate=route == "adjudication")
        with self._writer.begin() as db:
            lock(db, [reply_id])
            queue = db.scalar(sa.select(tasks.c.queue).where(tasks.c.reply_id == reply_id))
            mine = leases.c.reply_id == reply_id, leases.c.person == person.name, leases.c.state == "held"
            if (held := db.execute(sa.select(leases).where(*mine)).first()) is not None:
                return renewed(db, held, settings_of(db, queue or MAIN))
            return hold(db, reply_id, person.name, route, settings_of(db, queue or MAIN))

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
                renewed(db, row, settings_of(db, row.queue))
            return row is not None

    def repeated_since(self, person: str, reply_id: str) -> datetime | None:
        """When a reply that this person holds came to them once more, None where it did not or they don't hold it."""
        repeats = leases.c.reply_id == reply_id, leases.c.person == person, leases.c.route == "repeat"
        query = sa.select(leases.c.made_at, leases.c.state).where(*repeats).order_by(leases.c.seq)
        with self._engine.connect() as db:
            rows = db.execute(query).all()
        return rows[0].made_at if any(row.state == "held" for row in rows) else None

    def judges_blind(self, person: str, reply_id: str) -> bool:
        """Whether this person holds a reply to judge it, and has not said yet what they think of it."""
        mine = sa.select(leases.c.state, leases.c.route).where(
            leases.c.reply_id == reply_id, leases.c.person == person, leases.c.state.in_(("held", "done"))
        )
        with self._engine.connect() as db:
            rows = db.execute(mine).all()
        held = [row.route for row in rows if row.state == "held" and row.route != "adjudication"]
        return "repeat" in held or bool(held and all(row.state == "held" for row in rows))

    def release(self, person: str, hold_id: str) -> None:
        """Give a reply back untouched."""
        with self._writer.begin() as db:
            theirs = leases.c.id == hold_id, leases.c.person == person, leases.c.state == "held"
            reply_id = db.scalar(sa.select(leases.c.reply_id).where(*theirs))
            if reply_id:
                lock(db, [reply_id])
                db.execute(leases.update().where(*theirs).values(state="released"))
                refresh(db, [reply_id])

    def free_expired(self) -> int:
        """Free every hold that ran out; returns how many."""
        with self._writer.begin() as db:
            freed = 0
            while some := free_expired(db):
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

    def waiting_by_queue(self) -> dict[str, int]:
        """How many replies wait in each queue that has some."""
        waiting = sa.select(tasks.c.queue, sa.func.count()).where(tasks.c.state.in_(("open", "full")))
        with self._engine.connect() as db:
            return {row[0]: row[1] for row in db.execute(waiting.group_by(tasks.c.queue))}

    def outcomes(self) -> dict[str, int]:
        """Replies by what they came to: `approved`, `corrected`, `failed`, `unsure`, `partial`, `disputed`."""
        query = sa.select(tasks.c.outcome, sa.func.count()).where(tasks.c.outcome.is_not(None))
        with self._engine.connect() as db:
            return {row[0]: row[1] for row in db.execute(query.group_by(tasks.c.outcome))}

    def disputed(self, limit: int = 50, after: str | None = None) -> list[tuple[str, float]]:
        """(reply, agreement 0 to 1) of the replies over which reviewers differ, lowest agreement first; only those that
        come after the reply `after`, which may be settled by now.
        """
        query = sa.select(tasks.c.reply_id, tasks.c.agreement).where(tasks.c.state == "disputed")
        if after is not None:
            here = tasks.alias()
            same = tasks.c.agreement == here.c.agreement
            further = sa.or_(tasks.c.agreement > here.c.agreement, sa.and_(same, tasks.c.position > here.c.position))
            query = query.join(here, sa.and_(here.c.reply_id == after, further))
        query = query.order_by(tasks.c.agreement, tasks.c.position).limit(limit)
        with self._engine.connect() as db:
            return [(row.reply_id, row.agreement or 0.0) for row in db.execute(query)]

    def flagged_for(self, person: Person, limit: int = 50) -> list[str]:
        """Replies flagged for this person, or for any curator if they are one; the first `limit`."""
        whom = ["", person.name] if person.may("curate") else [person.name]
        to = sa.func.coalesce(acts.c.body["to"].as_string(), "")
        flag = sa.exists().where(acts.c.reply_id == tasks.c.reply_id, acts.c.kind == "flag", to.in_(whom))
        query = sa.select(tasks.c.reply_id).where(tasks.c.flag_to.is_not(None), flag).order_by(tasks.c.position)
        with self._engine.connect() as db:
            found = db.scalars(query.limit(limit)).all()
            # One that was taken down may stand beside another, for somebody else.
            flags = {reply_id: replay(history).flags for reply_id, history in acts_of(db, found).items()}
        return [one for one in found if any((flag.body.to or "") in whom for flag in flags[one])]

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
            held = leases.c.reply_id == reply_id, leases.c.state == "held", leases.c.route.in_(("queue", "search"))
            db.execute(leases.update().where(*held).values(route="gold"))

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


def _follow_language(db: sa.Connection, settings: QueueSettings) -> int | None:
    """Let the replies of a queue that nobody is done with ask for their language, or no longer ask for it. A skill that
    somebody gave them by hand stays.

    Returns the first rank among them, None if there are none: whoever has gone past it must be led back, as they lie in
    another lane now.
    """
    waits = tasks.c.queue == settings.name, tasks.c.state.in_(NOT_DONE)
    asks = tasks.c.skill == ("" if settings.by_language else LANGUAGE)
    moved = *waits, asks, LANGUAGE != ""
    # Before they are changed: always in one order, as in `lock`, so that two changes can't wait for each other.
    ranks = db.scalars(sa.select(tasks.c.rank).where(*moved).order_by(tasks.c.reply_id).with_for_update()).all()
    skill = LANGUAGE if settings.by_language else ""
    db.execute(tasks.update().where(*moved).values(skill=skill))
    return min(ranks, default=None)
