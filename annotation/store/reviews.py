"""What people said about replies: answers, corrections, skips, flags, comments and thumbs. All of it append-only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import AwareDatetime, Field

from annotation.acts import COUNTED, QUESTIONS, Act, ActBody, ActKind, Standing, replay
from annotation.errors import Conflict, NotFound, UserError
from annotation.store.charters import NEWEST
from annotation.store.history import acts_of, add_act, fixed, lock, refresh, write_row
from annotation.store.part import Part, new_id
from annotation.store.tables import acts, leases, reactions, tasks, turns
from annotation.types import (
    BiasKind,
    Charter,
    Correction,
    Frozen,
    Judgement,
    Question,
    Route,
    Severity,
    Span,
    Value,
    utc_now,
)

Thumb = Literal["up", "down", "none"]
CHUNK = 500
OF_BATCH = "-skip-"
"""In the ids of skips that a change of many replies at once made; it is taken back as a whole."""
ASKED: dict[Question, str] = {"voice": "brand voice", "policy": "policy", "bias": "bias"}
"""The questions inside a sentence."""
NOTE_LIMIT = 5_000
"""Longest note or comment, in characters."""


class SavedElsewhere(Conflict):
    """The item was saved before, with other answers: in another tab, say."""


class HoldLost(Conflict):
    """The hold on the item ran out and its places are taken."""


class NeverHeld(Conflict):
    """The item was not dealt to this person, nor opened by them."""


class Verdict(Frozen):
    """One answer of a review act, before it has an id and a time."""

    question: Question
    value: Value
    clause_ids: tuple[str, ...] = ()
    severity: Severity | None = None
    kind: BiasKind | None = None
    spans: tuple[Span, ...] = ()
    note: str = Field("", max_length=NOTE_LIMIT)


class CharterMoved(Conflict):
    """There is a newer charter than the one an act was checked against."""


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
    ranking: tuple[str, ...] = ()
    """Replies to the same conversation, best first."""
    seconds: float | None = None
    origin: Literal["review", "chat", "starter", "import"] = "review"
    route: Route = "queue"
    """How it came about, where no hold says so."""
    made_at: AwareDatetime | None = None
    """When it was said, for what was said elsewhere; None is now."""


class Reviews(Part):
    """Save acts and read them back."""

    def save(self, act: ReviewAct, checked: Charter | None = None) -> bool:
        """Keep one act in one transaction; False if this very act was kept before.

        Raises UserError for an act that says nothing, NotFound for an unknown reply, SavedElsewhere if another tab
        saved this item with other answers, HoldLost if the hold on it ran out and its places are taken, NeverHeld for
        a review by search that has no hold; CharterMoved if `checked`, the charter that the act was checked against,
        is not the newest.
        """
        with self._writer.begin() as db:
            return _save(db, act, checked)

    def save_all(self, given: Sequence[ReviewAct]) -> list[UserError | None]:
        """`save` many acts in one transaction; for each, why it could not be kept, or None."""
        failed: list[UserError | None] = []
        with self._writer.begin() as db:
            for act in given:
                try:
                    _save(db, act)
                except UserError as error:  # raised before anything of it was written
                    failed.append(error)
                else:
                    failed.append(None)
        return failed

    def add(
        self,
        kind: ActKind,
        reply_id: str,
        person: str,
        body: ActBody,
        act_id: str | None = None,
        made_at: datetime | None = None,
    ) -> str:
        """Keep an act other than a review; returns its id. The same `act_id` again changes nothing.

        A skip or a pass ends the hold of that id; a skip without one, or after it ran out, of a reply that others have
        finished or hold since, is kept and sets nothing aside. `made_at` is for what was said elsewhere; None is now.
        Raises NotFound for an unknown reply.
        """
        act = Act(
            id=act_id or new_id(),
            reply_id=reply_id,
            person=person,
            kind=kind,
            route="queue",
            made_at=made_at or utc_now(),
            body=body,
        )
        with self._writer.begin() as db:
            task = _task(db, reply_id)
            if db.scalar(sa.select(acts.c.id).where(acts.c.id == act.id)) is None:
                if kind in ("skip", "pass"):
                    hold = _hold(db, act.id, reply_id, person)
                    lost = hold.state == "expired" if hold else kind == "skip"
                    if lost and task.state not in ("open", "skipped"):
                        act = act.model_copy(update={"route": "late"})
                    elif hold and hold.route in ("gold", "repeat"):  # what stands about it stays
                        act = act.model_copy(update={"route": hold.route})
                add_act(db, act)
                if kind in ("skip", "pass"):
                    _close_hold(db, act.id, "passed" if kind == "pass" else "done")
                    if kind == "pass":
                        _mark_seen(db, act)
                refresh(db, [reply_id])
        return act.id

    def skip(self, act_id: str, reply_id: str, reviewer: str, reason: str) -> None:
        """Set a reply aside with a reason."""
        self.add("skip", reply_id, reviewer, ActBody(text=reason), act_id)

    def undo(self, person: str) -> Act | None:
        """Take back this person's newest review, skip or pass that still stands; returns it, None if there is none."""
        taken_back = sa.select(acts.c.body["undoes"].as_string()).where(acts.c.person == person, acts.c.kind == "undo")
        newest = (
            sa.select(acts.c.id, acts.c.reply_id)
            .where(acts.c.person == person, acts.c.kind.in_(("review", "skip", "pass")), acts.c.id.not_in(taken_back))
            .where(~acts.c.id.contains(OF_BATCH))
            .order_by(acts.c.seq.desc())
            .limit(1)
        )
        with self._writer.begin() as db:
            row = db.execute(newest).first()
            if row is None:
                return None
            lock(db, [row.reply_id])
            undone = next(act for act in acts_of(db, [row.reply_id])[row.reply_id] if act.id == row.id)
            add_act(
                db,
                Act(
                    id=new_id(),
                    reply_id=row.reply_id,
                    person=person,
                    kind="undo",
                    route=undone.route,
                    made_at=utc_now(),
                    body=ActBody(undoes=row.id),
                ),
            )
            db.execute(leases.update().where(leases.c.id == row.id).values(state="released"))
            refresh(db, [row.reply_id])
        return undone

    def requeue(
        self, reply_ids: Sequence[str], questions: Sequence[Question], person: str, why: str, of: str | None = None
    ) -> None:
        """Ask for some questions again, since the answers of `of` (None: of anybody) do not hold any more; they, or
        everybody, may be dealt these replies anew.
        """
        body = ActBody(text=why, questions=tuple(questions), of=of)
        for start in range(0, len(reply_ids), CHUNK):
            some = reply_ids[start : start + CHUNK]
            with self._writer.begin() as db:
                lock(db, some)
                _add_to_each(db, "requeue", some, person, body)
                theirs = leases.c.person == of if of else sa.true()
                seen = leases.c.reply_id.in_(some), leases.c.state.in_(("done", "passed")), theirs
                db.execute(leases.update().where(*seen).values(state="released"))
                refresh(db, some)

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

    def bring_back_skipped(self, person: str, also_of_batches: bool = True) -> int:
        """Queue every skipped reply again, without `also_of_batches` only those that no change of many at once set
        aside; returns how many.
        """
        with self._engine.connect() as db:
            skipped = list(db.scalars(sa.select(tasks.c.reply_id).where(tasks.c.state == "skipped")))
        back = 0
        for start in range(0, len(skipped), CHUNK):
            some = skipped[start : start + CHUNK]
            with self._writer.begin() as db:
                lock(db, some)
                some = some if also_of_batches else _skipped_by_somebody(db, some)
                _add_to_each(db, "restore", some, person, ActBody())
                # Whoever skipped one may meet it again; whoever has judged it has not to.
                skips = sa.select(acts.c.id).where(acts.c.reply_id.in_(some), acts.c.kind == "skip")
                db.execute(leases.update().where(leases.c.id.in_(skips)).values(state="released"))
                refresh(db, some)
            back += len(some)
        return back

    def history(self, reply_id: str) -> list[Act]:
        """Everything anybody did about a reply, oldest first."""
        with self._engine.connect() as db:
            return acts_of(db, [reply_id]).get(reply_id, [])

    def standing(self, reply_id: str) -> Standing:
        """Where a reply stands."""
        return replay(self.history(reply_id))

    def standings(self) -> Iterator[dict[str, tuple[str, Standing]]]:
        """Every reply that anybody did something about, some hundreds at a time: id → (state in the queue, standing).

        In the order in which the replies came in.
        """
        spoken = sa.select(acts.c.reply_id).distinct()
        query = (
            sa.select(tasks.c.position, tasks.c.reply_id, tasks.c.state)
            .where(tasks.c.reply_id.in_(spoken))
            .order_by(tasks.c.position)
            .limit(CHUNK)
        )
        last = 0
        while True:
            with self._engine.connect() as db:
                rows = db.execute(query.where(tasks.c.position > last)).all()
                if not rows:
                    return
                histories = acts_of(db, [row.reply_id for row in rows])
            last = rows[-1].position
            yield {row.reply_id: (row.state, replay(histories[row.reply_id])) for row in rows}

    def acts_since(self, moment: datetime | None) -> int:
        """How many reviews were kept since `moment`; all of them for None."""
        query = sa.select(sa.func.count()).select_from(acts).where(acts.c.kind == "review")
        if moment is not None:
            query = query.where(acts.c.made_at > moment)
        with self._engine.connect() as db:
            return db.scalar(query) or 0

    def last_of(self, person: str) -> str | None:
        """Id of the reply this person reviewed or skipped last."""
        query = sa.select(acts.c.reply_id).where(acts.c.person == person, acts.c.kind.in_(("review", "skip", "pass")))
        query = query.where(~acts.c.id.contains(OF_BATCH))
        with self._engine.connect() as db:
            return db.scalar(query.order_by(acts.c.seq.desc()).limit(1))


# Built once: a reviewer waits for these.
TASK = (
    sa.select(turns.c.text, tasks.c.overlap, tasks.c.state, NEWEST.scalar_subquery().label("charter"))
    .join(tasks, tasks.c.reply_id == turns.c.id)
    .where(turns.c.id == sa.bindparam("reply"))
    .with_for_update(of=tasks)
)
HOLD = (
    sa.select(leases.c.state, leases.c.route, leases.c.reply_id, leases.c.person)
    .where(leases.c.id == sa.bindparam("hold"))
    .with_for_update()
)
END = leases.update().where(leases.c.id == sa.bindparam("hold"))
END_HELD = (
    END.where(leases.c.reply_id == sa.bindparam("reply"), leases.c.person == sa.bindparam("by"))
    .where(leases.c.state == fixed("held"))
    .values(state="done")
    .returning(leases.c.route)
)


def _save(db: sa.Connection, act: ReviewAct, checked: Charter | None = None) -> bool:
    """Keep one act; False if this very act was kept before."""
    task = _task(db, act.reply_id)
    if checked is not None and checked.version != task.charter:
        raise CharterMoved("The house rules changed just now.", do="Save once more.")
    before = acts_of(db, [act.reply_id]).get(act.reply_id, [])
    if (kept := next((one for one in before if one.id == act.act_id), None)) is not None:
        return _same_again(act, kept, task.text, before)
    corrected = _corrects(act, task.text, before)
    restored = _restores(act, task.text, before)
    _check(act, task.text, corrected or restored)
    if act.made_at and _said_since(act, act.made_at, before):
        act = act.model_copy(update={"route": "late"})
    route = _end_hold(db, act, task.state, before)
    _check_asked(act, route, before)
    made = _as_act(act, task.text if corrected else None, restored, route)
    add_act(db, made)
    write_row(db, act.reply_id, task.overlap, task.state == "gold", [*before, made])
    return True


def _hold(db: sa.Connection, act_id: str, reply_id: str, person: str) -> Any:
    """`state` and `route` of the hold that this act ends, None if it was never taken. Raises Conflict if it is not this
    person's, or is of another reply.
    """
    hold = db.execute(HOLD, {"hold": act_id}).first()
    if hold is not None and (hold.reply_id, hold.person) != (reply_id, person):
        raise Conflict("This form belongs to another reply, or to somebody else.", do="Load the page again.")
    return hold


def _add_to_each(db: sa.Connection, kind: ActKind, reply_ids: Sequence[str], person: str, body: ActBody) -> None:
    """The same act about each of these replies."""
    for reply_id in reply_ids:
        act = Act(id=new_id(), reply_id=reply_id, person=person, kind=kind, route="queue", made_at=utc_now(), body=body)
        add_act(db, act)


def _skipped_by_somebody(db: sa.Connection, reply_ids: Sequence[str]) -> list[str]:
    """Those that a person set aside one by one, not a change of many at once."""
    found = []
    for reply_id, history in acts_of(db, reply_ids).items():
        undone = {act.body.undoes for act in history}
        skips = [act.id for act in history if act.kind == "skip" and act.route in COUNTED and act.id not in undone]
        if skips and OF_BATCH not in skips[-1]:
            found.append(reply_id)
    return found


def _task(db: sa.Connection, reply_id: str) -> Any:
    """A reply's `text`, `overlap` and `state` of its place in the queue, and the number of the newest `charter`. On
    PostgreSQL this also makes everybody else wait who would change where it stands. Raises NotFound.
    """
    row = db.execute(TASK, {"reply": reply_id}).first()
    if row is None:
        raise NotFound(f"There is no reply {reply_id} to judge.", do="Open the next one on the Review page.")
    return row


def _corrects(act: ReviewAct, text: str, before: Sequence[Act]) -> bool:
    """Whether the act changes the reply, and not just as this person's newest correction did."""
    after = (act.correction or "").strip()
    if after in ("", text.strip()):
        return False
    mine = [one.after for one in replay(before).corrections if one.author == act.reviewer]
    return not mine or after != mine[-1].strip() or act.origin != "review"


def _said_since(act: ReviewAct, made_at: datetime, before: Sequence[Act]) -> bool:
    """Whether this person has said something newer here than what now arrives from elsewhere."""
    newest = [
        one.made_at for one in before if one.person == act.reviewer and one.kind == "review" and one.route in COUNTED
    ]
    return bool(newest) and max(newest) > made_at


def _restores(act: ReviewAct, text: str, before: Sequence[Act]) -> bool:
    """Whether the act puts the reply back as it was, which it had been corrected from: by this person, or by anybody
    where it settles a difference.
    """
    if (act.correction or "").strip() != text.strip() or not text.strip():
        return False
    settles = act.route == "adjudication"
    return any(settles or one.author == act.reviewer for one in replay(before).corrections)


def _same_again(act: ReviewAct, kept: Act, text: str, history: Sequence[Act]) -> bool:
    """False if what was kept under this id says the same, and still stands. Raises SavedElsewhere if not."""
    said = {one.question: _answer(one) for one in kept.judgements}
    again = {one.question: _answer(one) for one in act.verdicts}
    after = act.correction.strip() if act.correction and _corrects(act, text, history[: history.index(kept)]) else None
    unchanged = act.correction is None or after == (kept.correction.after if kept.correction else None)
    undone = any(one.body.undoes == kept.id for one in history)
    if kept.kind == "review" and said == again and unchanged and act.ranking == kept.body.ranking and not undone:
        return False
    what = f"{'saved' if kept.kind == 'review' else 'skipped'} from another tab at {kept.made_at:%H:%M} UTC"
    raise SavedElsewhere(
        f"What you said here was {what}, and taken back since."
        if undone
        else f"This reply was {what}, with other answers.",
        "One answer at a time.",
        "What you entered is still here. Save once more to keep it as your newer answer.",
    )


def _answer(one: Judgement | Verdict) -> tuple[object, ...]:
    return one.value, one.clause_ids, one.severity, one.kind, one.spans, one.note


def _check(act: ReviewAct, text: str, corrected: bool) -> None:
    if not act.verdicts and not corrected and not act.ranking:
        raise UserError(
            "Nothing is marked and the reply is unchanged.",
            "At least one answer, or a correction.",
            "Answer a question, edit the reply, or skip it.",
        )
    questions = [verdict.question for verdict in act.verdicts]
    if len(set(questions)) != len(questions):
        raise Conflict("One question was answered twice in the same act.")
    for span in (span for verdict in act.verdicts for span in verdict.spans):
        if not span.start < span.end <= len(text):
            raise UserError(
                f"A mark from {span.start} to {span.end} is not inside the reply, which has {len(text)} characters.",
                do="Mark the place again.",
            )


def _check_asked(act: ReviewAct, route: Route, before: Sequence[Act]) -> None:
    """What was asked again is what the reply is there for. Raises UserError if it is left open; what was said
    elsewhere is taken as it comes.
    """
    if route not in ("queue", "search") or act.made_at or not any(one.kind == "requeue" for one in before):
        return
    standing = replay(before)
    given = {*standing.answers.get(act.reviewer, ()), *(one.question for one in act.verdicts)}
    if missing := [one for one in QUESTIONS if one in standing.asked - given]:
        named = " and ".join(ASKED[one] for one in missing)
        raise UserError(
            f"This reply came back for {named}, which {'has' if len(missing) == 1 else 'have'} no answer yet.",
            f"An answer to {named}; “not sure” and “does not apply” are answers.",
            "Answer it and save again, or skip the reply.",
        )


def _end_hold(db: sa.Connection, act: ReviewAct, state: str, before: Sequence[Act]) -> Route:
    """End the hold of this act, or put one behind it that was never taken, so that nobody is dealt this reply twice.

    `state` is where the reply stands. Raises HoldLost if the hold ran out and all places are taken by others.
    """
    if act.route != "late":  # nearly always
        mine = {"hold": act.act_id, "reply": act.reply_id, "by": act.reviewer}
        held: Route | None = db.scalar(END_HELD, mine)
        if held is not None:
            return held
    hold = _hold(db, act.act_id, act.reply_id, act.reviewer)
    if hold is None and act.route == "search" and act.origin == "review":
        raise NeverHeld("This reply was not given to you.", do="Open it on the Find page, or take the next one.")
    if hold is None:
        row = {"id": act.act_id, "reply_id": act.reply_id, "person": act.reviewer, "route": act.route}
        db.execute(leases.insert(), row | {"state": "done", "made_at": utc_now(), "expires_at": utc_now()})
        return act.route
    lost = hold.state != "held" and hold.route in ("queue", "search")
    if lost:  # unless the place that is taken is their own: one they were dealt again since, or have judged in
        ours = leases.c.reply_id == act.reply_id, leases.c.person == act.reviewer, leases.c.state == "held"
        again = leases.update().where(*ours, leases.c.route.in_(("queue", "search"))).values(state="done")
        seated = db.execute(again).rowcount or act.reviewer in replay(before).done_by
        lost = state != "open" and not seated
    if lost and act.route != "late":
        raise HoldLost(
            "Your hold on this reply ran out while it was open, and somebody else has it now.",
            "",
            "What you wrote is still here. Keep it as an extra opinion, or copy it.",
        )
    route: Route = "late" if act.route == "late" else hold.route
    db.execute(END, {"hold": act.act_id, "state": "done", "route": route})
    return route


def _close_hold(db: sa.Connection, hold_id: str, state: str) -> None:
    db.execute(leases.update().where(leases.c.id == hold_id).values(state=state))


def _mark_seen(db: sa.Connection, act: Act) -> None:
    """A reply passed on without a hold must not be dealt to the same person again."""
    if db.scalar(sa.select(leases.c.id).where(leases.c.id == act.id)) is None:
        row = {"id": act.id, "reply_id": act.reply_id, "person": act.person, "route": act.route}
        db.execute(leases.insert().values(row | {"state": "passed", "made_at": utc_now(), "expires_at": utc_now()}))


def _as_act(act: ReviewAct, before: str | None, restored: bool, route: Route) -> Act:
    """`before` is the reply as it was, None if it is not corrected; `restored`: an earlier correction is taken back."""
    now = act.made_at or utc_now()
    correction = None
    if before is not None:
        correction = Correction(
            id=new_id(),
            reply_id=act.reply_id,
            before=before,
            after=(act.correction or "").strip(),
            reasons=act.reasons,
            author=act.reviewer,
            origin=act.origin,
            made_at=now,
        )
    return Act(
        id=act.act_id,
        reply_id=act.reply_id,
        person=act.reviewer,
        kind="review",
        route=route,
        seconds=act.seconds,
        made_at=now,
        body=ActBody(ranking=act.ranking, as_it_was=restored),
        correction=correction,
        judgements=tuple(
            Judgement(
                **verdict.model_dump(),
                id=new_id(),
                reply_id=act.reply_id,
                charter_version=act.charter_version,
                reviewer=act.reviewer,
                route=route,
                seconds=act.seconds,
                made_at=now,
            )
            for verdict in act.verdicts
        ),
    )
