"""What people said about replies: judgements, corrections, skips and thumbs. All of it append-only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import sqlalchemy as sa
from pydantic import Field

from annotation.errors import Conflict, NotFound, UserError
from annotation.store.conversations import new_id
from annotation.store.part import Part
from annotation.store.tables import corrections, judgements, reactions, skips, turns
from annotation.types import Correction, Frozen, Judgement, Question, Value, utc_now

Thumb = Literal["up", "down", "none"]


class Verdict(Frozen):
    """One answer of a review act, before it has an id and a time."""

    question: Question
    value: Value
    clause_ids: tuple[str, ...] = ()
    note: str = ""


class ReviewAct(Frozen):
    """Everything one press of 'save' says about one reply. Saving the same act twice keeps it once."""

    act_id: str = Field(default_factory=new_id)
    """Made when the item was shown; a repeated save (double click, retried request) is recognised by it."""
    reply_id: str
    reviewer: str
    charter_version: int
    verdicts: tuple[Verdict, ...] = ()
    correction: str | None = None
    """The reply as it should have been; None or unchanged text means no correction."""
    reasons: tuple[str, ...] = ()
    seconds: float | None = None
    origin: Literal["review", "chat", "starter", "import"] = "review"


class Reviewed(Frozen):
    """All that was said about one reply, oldest first."""

    reply_id: str
    judgements: tuple[Judgement, ...] = ()
    corrections: tuple[Correction, ...] = ()
    skipped: str | None = None
    """Reason of the newest skip, None if it was never skipped."""

    def latest(self) -> Mapping[Question, Judgement]:
        """The newest judgement a question."""
        return {judgement.question: judgement for judgement in self.judgements}


class Reviews(Part):
    """Save acts and read them back."""

    def save(self, act: ReviewAct) -> bool:
        """Keep one act in one transaction; False if this very act was kept before.

        Raises UserError for an act that says nothing, NotFound for an unknown reply.
        """
        with self._writer.begin() as db:
            reply = db.execute(sa.select(turns.c.role, turns.c.text).where(turns.c.id == act.reply_id)).first()
            if reply is None or reply.role != "assistant":
                raise NotFound(f"There is no reply {act.reply_id}.", do="Open the next one from the Review page.")
            if _already_kept(db, act.act_id):
                return False
            corrected = act.correction is not None and act.correction.strip() not in ("", reply.text.strip())
            if not act.verdicts and not corrected:
                raise UserError(
                    "Nothing is marked and the reply is unchanged.",
                    "At least one answer, or a correction.",
                    "Answer a question, edit the reply, or skip it.",
                )
            _insert_verdicts(db, act)
            if corrected:
                _insert_correction(db, act, reply.text)
            _set_state(db, act.reply_id, "reviewed")
        return True

    def skip(self, act_id: str, reply_id: str, reviewer: str, reason: str) -> bool:
        """Set a reply aside with a reason; False if this very act was kept before."""
        with self._writer.begin() as db:
            if _already_kept(db, act_id):
                return False
            row = {"id": new_id(), "act_id": act_id, "reply_id": reply_id, "reviewer": reviewer}
            db.execute(skips.insert().values(row | {"reason": reason, "made_at": utc_now()}))
            _set_state(db, reply_id, "skipped")
        return True

    def react(self, reply_id: str, value: Thumb, author: str) -> None:
        """Keep a thumb; the newest one counts."""
        with self._writer.begin() as db:
            row = {"id": new_id(), "reply_id": reply_id, "value": value, "author": author, "made_at": utc_now()}
            db.execute(reactions.insert().values(row))

    def thumbs(self, reply_ids: list[str]) -> dict[str, Thumb]:
        """The newest thumb of each reply that has one."""
        query = sa.select(reactions).where(reactions.c.reply_id.in_(reply_ids)).order_by(reactions.c.seq)
        with self._engine.connect() as db:
            return {row["reply_id"]: row["value"] for row in db.execute(query).mappings()}

    def next_waiting(self, after: int = 0, exclude: str | None = None) -> str | None:
        """Id of the oldest reply waiting for review, or None; `exclude` is the one on screen."""
        query = sa.select(turns.c.id).where(turns.c.review_state == "waiting", turns.c.seq > after)
        if exclude:
            query = query.where(turns.c.id != exclude)
        with self._engine.connect() as db:
            return db.scalar(query.order_by(turns.c.seq).limit(1))

    def bring_back_skipped(self) -> int:
        """Queue every skipped reply again; returns how many."""
        with self._writer.begin() as db:
            change = turns.update().where(turns.c.review_state == "skipped").values(review_state="waiting")
            return db.execute(change).rowcount

    def counts(self) -> dict[str, int]:
        """Replies by review state: `waiting`, `reviewed`, `skipped`."""
        query = (
            sa.select(turns.c.review_state, sa.func.count())
            .where(turns.c.review_state.is_not(None))
            .group_by(turns.c.review_state)
        )
        with self._engine.connect() as db:
            return {"waiting": 0, "reviewed": 0, "skipped": 0} | {row[0]: row[1] for row in db.execute(query)}

    def of_reply(self, reply_id: str) -> Reviewed:
        """All that was said about one reply."""
        return self._read(reply_id).get(reply_id, Reviewed(reply_id=reply_id))

    def everything(self) -> list[Reviewed]:
        """All that was ever said, a reply each, in the order in which they were first spoken about."""
        return list(self._read(None).values())

    def last_act_of(self, reviewer: str) -> str | None:
        """Id of the reply this person saved or skipped last, for 'back'."""
        with self._engine.connect() as db:
            newest = [
                db.execute(
                    sa.select(table.c.made_at, table.c.reply_id)
                    .where(table.c[person] == reviewer)
                    .order_by(table.c.seq.desc())
                    .limit(1)
                ).first()
                for table, person in ((judgements, "reviewer"), (corrections, "author"), (skips, "reviewer"))
            ]
        acts = [row for row in newest if row]
        return max(acts, key=lambda row: row.made_at).reply_id if acts else None

    def _read(self, reply_id: str | None) -> dict[str, Reviewed]:
        found: dict[str, dict[str, list[sa.RowMapping]]] = {}
        with self._engine.connect() as db:
            for table in (judgements, corrections, skips):
                query = sa.select(table).order_by(table.c.seq)
                if reply_id:
                    query = query.where(table.c.reply_id == reply_id)
                for row in db.execute(query).mappings():
                    found.setdefault(row["reply_id"], {}).setdefault(table.name, []).append(row)
        return {key: _reviewed(key, rows) for key, rows in found.items()}


def _reviewed(reply_id: str, rows: dict[str, list[sa.RowMapping]]) -> Reviewed:
    hidden = ("seq", "act_id")
    skipped = rows.get("skips", [])
    return Reviewed(
        reply_id=reply_id,
        judgements=tuple(
            Judgement(**{key: value for key, value in row.items() if key not in hidden})
            for row in rows.get("judgements", [])
        ),
        corrections=tuple(
            Correction(**{key: value for key, value in row.items() if key not in hidden})
            for row in rows.get("corrections", [])
        ),
        skipped=skipped[-1]["reason"] if skipped else None,
    )


def _already_kept(db: sa.Connection, act_id: str) -> bool:
    tables = (judgements, corrections, skips)
    return any(db.scalar(sa.select(table.c.id).where(table.c.act_id == act_id).limit(1)) for table in tables)


def _insert_verdicts(db: sa.Connection, act: ReviewAct) -> None:
    questions = [verdict.question for verdict in act.verdicts]
    if len(set(questions)) != len(questions):
        raise Conflict("One question was answered twice in the same act.")
    for verdict in act.verdicts:
        row = verdict.model_dump(mode="json") | {
            "id": new_id(),
            "act_id": act.act_id,
            "reply_id": act.reply_id,
            "charter_version": act.charter_version,
            "reviewer": act.reviewer,
            "seconds": act.seconds,
            "made_at": utc_now(),
        }
        db.execute(judgements.insert().values(row))


def _insert_correction(db: sa.Connection, act: ReviewAct, before: str) -> None:
    row = {
        "id": new_id(),
        "act_id": act.act_id,
        "reply_id": act.reply_id,
        "before": before,
        "after": (act.correction or "").strip(),
        "reasons": list(act.reasons),
        "author": act.reviewer,
        "origin": act.origin,
        "made_at": utc_now(),
    }
    db.execute(corrections.insert().values(row))


def _set_state(db: sa.Connection, reply_id: str, state: str) -> None:
    db.execute(turns.update().where(turns.c.id == reply_id).values(review_state=state))
