"""What is in Argilla as far as we know: which datasets and records, and which of its responses we have."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from annotation.acts import Act
from annotation.queue import MAIN
from annotation.store.dealing import settings_of
from annotation.store.helpers import Candidate, Suggestion
from annotation.store.history import acts_of
from annotation.store.part import Part
from annotation.store.tables import (
    acts,
    argilla_datasets,
    argilla_records,
    argilla_responses,
    candidates,
    charters,
    suggestions,
    tasks,
)
from annotation.types import Frozen, utc_now

AT_ONCE = 500
ABSENT = ("gone", "owed")
"""Statuses of responses that are not in Argilla."""
HIDDEN = -1
"""Stands for the newest suggestion where the queue shows none to anybody."""
MirrorState = Literal["live", "lost"]
RecordState = Literal["there", "failed", "removed"]


_BEGUN = (argilla_responses.c.status == "draft", argilla_responses.c.act_id == "")
"""Drafts that are not ours: an answer of our desk that was taken back is a draft there too."""


_FROM_THERE = sa.or_(
    sa.and_(acts.c.route == "import", argilla_responses.c.said.is_not(None)),
    acts.c.kind == "pass",
)
"""Kept here by a pull; an answer of our desk that is shown there is a response with an act too."""


class Mirror(Frozen):
    """A dataset of ours in Argilla: one queue under one charter version."""

    id: str
    workspace: str
    queue: str
    charter_version: int
    name: str
    questions: dict[str, str]
    """Name → Argilla's id."""
    state: MirrorState = "live"
    """`lost`: deleted in Argilla."""
    cursor: str = ""
    """Tells whether anybody answered there since all answers were pulled last."""
    acts_seq: int = 0
    """The last act of ours that was shown there."""


class MirrorRecord(Frozen):
    """A reply's record in one dataset."""

    dataset_id: str
    reply_id: str
    record_id: str = ""
    state: RecordState
    sha256: str = ""
    """Of what it says there."""
    rank: int = 0
    suggested: int = 0
    """The newest suggestion, or HIDDEN."""
    drafted: int = 0
    """These three tell whether anything changed here since."""
    reason: str = ""
    """Why it could not be put there."""


class MirrorResponse(Frozen):
    """A response in Argilla as it was when we last saw it."""

    id: str
    dataset_id: str
    reply_id: str
    person: str
    status: Literal["submitted", "discarded", "draft", "gone", "owed"]
    """`owed`: not there. An answer of ours for whose author nobody there has an account, or that was refused."""
    updated_at: str
    act_id: str = ""
    """The act here that says the same; '' if there is none."""
    reason: str = ""
    """Why it could not be kept, or shown."""
    said: dict[str, Any] | None = None
    """What it said when it was pulled last, as Argilla has it; None for one that was never pulled."""


class Changed(Frozen):
    """A reply that Argilla lacks, or knows as it was."""

    reply_id: str
    position: int
    rank: int
    suggested: int
    drafted: int
    before: MirrorRecord | None


class MirrorCounts(Frozen):
    """How far one dataset is."""

    there: int
    """Records in Argilla."""
    waiting: int
    """Replies to be put there or changed."""
    pulled: int
    """Responses that came from there and are kept here as acts."""
    begun: int
    """Drafts there that nobody has sent yet."""
    failed: int
    """Records and responses that could not be brought over."""


class ArgillaState(Part):
    """Keep what is known about Argilla's side."""

    def identity(self) -> str:
        """A name for this store, so that two of them never take each other's datasets for their own."""
        query = sa.select(charters.c.author, charters.c.made_at).order_by(charters.c.version).limit(1)
        with self._engine.connect() as db:
            row = db.execute(query).first()
        return hashlib.sha256(f"{row.author} {row.made_at.isoformat()}".encode()).hexdigest()[:12] if row else ""

    # Datasets

    def mirrors(self, workspace: str, *, lost: bool = False) -> list[Mirror]:
        """All datasets of ours in this workspace that are still there, oldest first; also those `lost` if asked."""
        query = sa.select(argilla_datasets).where(argilla_datasets.c.workspace == workspace)
        if not lost:
            query = query.where(argilla_datasets.c.state == "live")
        with self._engine.connect() as db:
            rows = db.execute(query.order_by(argilla_datasets.c.made_at)).mappings()
            return [Mirror(**{name: row[name] for name in Mirror.model_fields}) for row in rows]

    def add_mirror(self, mirror: Mirror) -> None:
        """Keep a new dataset. One that was lost and is found again is live, and all in it is looked at anew."""
        row = mirror.model_dump() | {"made_at": utc_now()}
        anew = {name: row[name] for name in ("name", "questions", "state", "cursor", "acts_seq")}
        insert = self._insert(argilla_datasets).values(row)
        with self._writer.begin() as db:
            db.execute(insert.on_conflict_do_update(index_elements=["id"], set_=anew))

    def change_mirror(self, dataset_id: str, **values: Any) -> None:
        """Change what is given."""
        with self._writer.begin() as db:
            db.execute(argilla_datasets.update().where(argilla_datasets.c.id == dataset_id).values(values))

    def queues(self, workspace: str) -> list[str]:
        """The queues with a reply in them or a dataset in this workspace, and the main one, which comes first."""
        ours = argilla_datasets.c.workspace == workspace, argilla_datasets.c.state == "live"
        with self._engine.connect() as db:
            names = {*db.scalars(sa.select(tasks.c.queue).distinct())}
            names |= {*db.scalars(sa.select(argilla_datasets.c.queue).where(*ours)), MAIN}
        return sorted(names, key=lambda name: (name != MAIN, name))

    def has_drafts(self, queue: str) -> bool:
        """Whether any reply of the queue has drafts beside it."""
        query = sa.select(candidates.c.id).join(tasks, tasks.c.reply_id == candidates.c.reply_id)
        with self._engine.connect() as db:
            return db.scalar(query.where(tasks.c.queue == queue).limit(1)) is not None

    # Records

    def changed(self, mirror: Mirror, after: int, limit: int) -> list[Changed]:
        """Open replies of the queue that Argilla lacks or knows as they were, by position after `after`."""
        with self._engine.connect() as db:
            helped = _helped(db, mirror.queue)
            query = _replies(mirror, *_columns(helped)).where(*_waiting(mirror, helped), tasks.c.position > after)
            rows = db.execute(query.order_by(tasks.c.position).limit(limit)).mappings()
            return [_changed(row) for row in rows]

    def as_they_are(self, mirror: Mirror, reply_ids: Sequence[str]) -> list[Changed]:
        """These replies, at most some hundreds, open or not, by position."""
        with self._engine.connect() as db:
            query = _replies(mirror, *_columns(_helped(db, mirror.queue))).where(tasks.c.reply_id.in_(reply_ids))
            return [_changed(row) for row in db.execute(query.order_by(tasks.c.position)).mappings()]

    def closed(self, mirror: Mirror, *, all_open: bool = False) -> list[MirrorRecord]:
        """Records without an answer there that nobody need look at there any more; with `all_open`, all without one."""
        answered = sa.exists().where(
            argilla_responses.c.dataset_id == argilla_records.c.dataset_id,
            argilla_responses.c.reply_id == argilla_records.c.reply_id,
            argilla_responses.c.status.in_(("submitted", "discarded")),
        )
        query = (
            sa.select(argilla_records)
            .join(tasks, tasks.c.reply_id == argilla_records.c.reply_id)
            .where(argilla_records.c.dataset_id == mirror.id, argilla_records.c.state == "there", ~answered)
        )
        if not all_open:
            elsewhere = sa.or_(tasks.c.queue != mirror.queue, tasks.c.assignee != "")
            query = query.where(sa.or_(tasks.c.state.not_in(("open", "full")), elsewhere))
        with self._engine.connect() as db:
            return [MirrorRecord.model_validate(dict(row)) for row in db.execute(query).mappings()]

    def records(self, mirror: Mirror) -> dict[str, MirrorRecord]:
        """Everything known about a dataset's records, by reply."""
        query = sa.select(argilla_records).where(argilla_records.c.dataset_id == mirror.id)
        with self._engine.connect() as db:
            return {row["reply_id"]: MirrorRecord.model_validate(dict(row)) for row in db.execute(query).mappings()}

    def keep_records(self, rows: Sequence[MirrorRecord]) -> None:
        """Keep what is known about records, in place of what was."""
        self._keep(argilla_records, ("dataset_id", "reply_id"), [one.model_dump() for one in rows])

    def forget_records(self, dataset_id: str, reply_ids: Sequence[str] | None = None) -> None:
        """Take records for not there; all of the dataset for None."""
        where = [argilla_records.c.dataset_id == dataset_id]
        with self._writer.begin() as db:
            if reply_ids is None:
                db.execute(argilla_records.delete().where(*where))
            for some in _pieces(reply_ids or ()):
                db.execute(argilla_records.delete().where(*where, argilla_records.c.reply_id.in_(some)))

    def forget_failures(self, dataset_id: str) -> int:
        """Let the next sync try again what failed; returns how much that is."""
        with self._writer.begin() as db:
            failed = argilla_records.c.dataset_id == dataset_id, argilla_records.c.state == "failed"
            records = db.execute(argilla_records.delete().where(*failed)).rowcount
            broken = argilla_responses.c.dataset_id == dataset_id, argilla_responses.c.reason != ""
            ours = *broken, argilla_responses.c.status == "owed"
            refused = db.execute(argilla_responses.update().where(*ours).values(reason="")).rowcount
            responses = db.execute(argilla_responses.update().where(*broken).values(updated_at="")).rowcount
            if responses:
                db.execute(argilla_datasets.update().where(argilla_datasets.c.id == dataset_id).values(cursor=""))
        return records + refused + responses

    # Responses

    def responses(self, mirror: Mirror, reply_ids: Iterable[str]) -> dict[str, MirrorResponse]:
        """Known responses about these replies, by Argilla's id."""
        found: dict[str, MirrorResponse] = {}
        with self._engine.connect() as db:
            for some in _pieces(list(reply_ids)):
                query = sa.select(argilla_responses).where(
                    argilla_responses.c.dataset_id == mirror.id, argilla_responses.c.reply_id.in_(some)
                )
                rows = db.execute(query).mappings()
                found |= {row["id"]: MirrorResponse.model_validate(dict(row)) for row in rows}
        return found

    def all_responses(self, mirror: Mirror) -> dict[str, MirrorResponse]:
        """All known responses of a dataset, by Argilla's id."""
        query = sa.select(argilla_responses).where(argilla_responses.c.dataset_id == mirror.id)
        with self._engine.connect() as db:
            return {row["id"]: MirrorResponse.model_validate(dict(row)) for row in db.execute(query).mappings()}

    def keep_responses(self, rows: Sequence[MirrorResponse]) -> None:
        """Keep what is known about responses, in place of what was."""
        self._keep(argilla_responses, ("id",), [one.model_dump() for one in rows], lasting=("said",))

    def forget_responses(self, ids: Sequence[str]) -> None:
        """Know nothing of these responses any more."""
        if ids:
            with self._writer.begin() as db:
                for some in _pieces(ids):
                    db.execute(argilla_responses.delete().where(argilla_responses.c.id.in_(some)))

    def broken(self, mirror: Mirror) -> list[MirrorResponse]:
        """Responses that could not be kept, or shown."""
        here = argilla_responses.c.dataset_id == mirror.id, argilla_responses.c.reason != ""
        with self._engine.connect() as db:
            rows = db.execute(sa.select(argilla_responses).where(*here)).mappings()
            return [MirrorResponse.model_validate(dict(row)) for row in rows]

    def said(self, mirror: Mirror) -> Counter[tuple[str, str]]:
        """How many responses are there as far as known here, by person and status."""
        by = argilla_responses.c.person, argilla_responses.c.status
        there = argilla_responses.c.dataset_id == mirror.id, argilla_responses.c.status.not_in(ABSENT)
        with self._engine.connect() as db:
            rows = db.execute(sa.select(*by, sa.func.count()).where(*there).group_by(*by))
            return Counter({(row[0], row[1]): row[2] for row in rows})

    def owed(self, mirror: Mirror, people: Collection[str]) -> list[str]:
        """Replies with answers of these people that are to be shown there and are not."""
        query = sa.select(argilla_responses.c.reply_id, argilla_responses.c.person).where(
            argilla_responses.c.dataset_id == mirror.id,
            argilla_responses.c.status == "owed",
            argilla_responses.c.reason == "",
        )
        with self._engine.connect() as db:
            return list(dict.fromkeys(row.reply_id for row in db.execute(query) if row.person in people))

    # Our side

    def acts_after(self, mirror: Mirror, seq: int, limit: int) -> list[tuple[int, str]]:
        """(seq, reply) of acts after `seq` about replies that are in Argilla, oldest first."""
        query = (
            sa.select(acts.c.seq, acts.c.reply_id)
            .join(argilla_records, argilla_records.c.reply_id == acts.c.reply_id)
            .where(argilla_records.c.dataset_id == mirror.id, argilla_records.c.state == "there", acts.c.seq > seq)
            .order_by(acts.c.seq)
            .limit(limit)
        )
        with self._engine.connect() as db:
            return [(row.seq, row.reply_id) for row in db.execute(query)]

    def histories(self, reply_ids: Iterable[str]) -> dict[str, list[Act]]:
        """All acts about each of these replies, oldest first."""
        found: dict[str, list[Act]] = {}
        with self._engine.connect() as db:
            for some in _pieces(list(reply_ids)):
                found |= acts_of(db, some)
        return found

    def helpers(self, reply_ids: Sequence[str]) -> tuple[dict[str, list[Suggestion]], dict[str, list[Candidate]]]:
        """Suggestions and drafts of these replies, at most some hundreds, oldest first."""
        given: dict[str, list[Suggestion]] = {}
        drafted: dict[str, list[Candidate]] = {}
        with self._engine.connect() as db:
            query = sa.select(suggestions).where(suggestions.c.reply_id.in_(reply_ids)).order_by(suggestions.c.seq)
            for row in db.execute(query).mappings():
                one = Suggestion(**{name: row[name] for name in Suggestion.model_fields})
                given.setdefault(row["reply_id"], []).append(one)
            query = sa.select(candidates).where(candidates.c.reply_id.in_(reply_ids)).order_by(candidates.c.seq)
            for row in db.execute(query).mappings():
                draft = Candidate(id=row["id"], text=row["text"], provenance=row["provenance"])
                drafted.setdefault(row["reply_id"], []).append(draft)
        return given, drafted

    def ranks(self, reply_ids: Sequence[str]) -> dict[str, int]:
        """Place in the queue of those of these replies that can be judged, at most some hundreds."""
        with self._engine.connect() as db:
            query = sa.select(tasks.c.reply_id, tasks.c.rank).where(tasks.c.reply_id.in_(reply_ids))
            return {row.reply_id: row.rank for row in db.execute(query)}

    # Looking

    def counts(self, mirror: Mirror) -> MirrorCounts:
        """How far a dataset is."""
        here = argilla_records.c.dataset_id == mirror.id
        by_state = sa.select(argilla_records.c.state, sa.func.count()).where(here).group_by(argilla_records.c.state)
        theirs = argilla_responses.c.dataset_id == mirror.id
        responses = sa.select(sa.func.count()).select_from(argilla_responses)
        with self._engine.connect() as db:
            waiting = _replies(mirror, sa.func.count()).where(*_waiting(mirror, _helped(db, mirror.queue)))
            records = {row[0]: row[1] for row in db.execute(by_state)}
            kept = responses.join(acts, acts.c.id == argilla_responses.c.act_id)
            pulled = db.scalar(kept.where(theirs, _FROM_THERE)) or 0
            broken = db.scalar(responses.where(theirs, argilla_responses.c.reason != "")) or 0
            return MirrorCounts(
                there=records.get("there", 0),
                waiting=db.scalar(waiting) or 0,
                pulled=pulled,
                begun=db.scalar(responses.where(theirs, *_BEGUN)) or 0,
                failed=records.get("failed", 0) + broken,
            )

    def failures(self, mirror: Mirror, limit: int = 100) -> list[tuple[str, str]]:
        """(reply, reason) of what could not be brought over."""
        records = sa.select(argilla_records.c.reply_id, argilla_records.c.reason).where(
            argilla_records.c.dataset_id == mirror.id, argilla_records.c.state == "failed"
        )
        responses = sa.select(argilla_responses.c.reply_id, argilla_responses.c.reason).where(
            argilla_responses.c.dataset_id == mirror.id, argilla_responses.c.reason != ""
        )
        with self._engine.connect() as db:
            rows = [*db.execute(records.limit(limit)), *db.execute(responses.limit(limit))]
        return [(row.reply_id, row.reason) for row in rows[:limit]]

    def begun(self, limit: int = 100) -> list[tuple[str, str]]:
        """(person, reply) of drafts that were begun in Argilla and not sent, the newest first."""
        query = sa.select(argilla_responses.c.person, argilla_responses.c.reply_id).where(*_BEGUN)
        with self._engine.connect() as db:
            rows = db.execute(query.order_by(argilla_responses.c.updated_at.desc()).limit(limit))
            return [(row.person, row.reply_id) for row in rows]

    def draft_of(self, reply_id: str, person: str) -> dict[str, Any] | None:
        """What this person began to say about a reply in Argilla and has not sent, as Argilla has it."""
        mine = argilla_responses.c.reply_id == reply_id, argilla_responses.c.person == person
        query = sa.select(argilla_responses.c.said).where(*_BEGUN, *mine)
        with self._engine.connect() as db:
            found: dict[str, Any] | None = db.scalar(query.order_by(argilla_responses.c.updated_at.desc()).limit(1))
            return found

    def _keep(
        self, table: sa.Table, keys: Sequence[str], rows: Sequence[Mapping[str, Any]], lasting: Sequence[str] = ()
    ) -> None:
        """Put rows in place of those with the same keys; NULL leaves `lasting` columns as they are."""
        if not rows:
            return
        insert = self._insert(table)
        values: dict[str, Any] = {one.name: insert.excluded[one.name] for one in table.columns if one.name not in keys}
        values |= {name: sa.func.coalesce(values[name], table.c[name]) for name in lasting}
        with self._writer.begin() as db:
            db.execute(insert.on_conflict_do_update(index_elements=list(keys), set_=values), list(rows))

    def _insert(self, table: sa.Table) -> Any:
        return (postgres_insert if self._engine.dialect.name == "postgresql" else sqlite_insert)(table)


def _helped(db: sa.Connection, queue: str) -> list[sa.ColumnElement[int]]:
    """The newest suggestion and the newest draft of a reply: they change when anything about them does."""
    suggested, drafted = [
        sa.func.coalesce(
            sa.select(sa.func.max(table.c.seq))
            .where(table.c.reply_id == tasks.c.reply_id)
            .correlate(tasks)
            .scalar_subquery(),
            0,
        ).label(name)
        for table, name in ((suggestions, "suggested"), (candidates, "drafted"))
    ]
    return [suggested if settings_of(db, queue).suggestions else sa.literal(HIDDEN).label("suggested"), drafted]


def _columns(helped: Sequence[sa.ColumnElement[int]]) -> list[Any]:
    kept = [column.label(f"kept_{column.name}") for column in argilla_records.columns]
    return [tasks.c.position, tasks.c.reply_id, tasks.c.rank, *helped, *kept]


def _replies(mirror: Mirror, *columns: Any) -> sa.Select[Any]:
    """All replies, each with what is known of its record."""
    here = sa.and_(argilla_records.c.reply_id == tasks.c.reply_id, argilla_records.c.dataset_id == mirror.id)
    return sa.select(*columns).select_from(tasks).outerjoin(argilla_records, here)


def _waiting(mirror: Mirror, helped: Sequence[sa.ColumnElement[int]]) -> Sequence[sa.ColumnElement[bool]]:
    """Replies for everybody that wait for a judgement and are not in Argilla as they are now."""
    suggested, drafted = helped
    return (
        tasks.c.queue == mirror.queue,
        tasks.c.state == "open",
        tasks.c.assignee == "",
        sa.or_(
            argilla_records.c.reply_id.is_(None),
            argilla_records.c.state == "removed",
            argilla_records.c.rank != tasks.c.rank,
            argilla_records.c.suggested != suggested,
            argilla_records.c.drafted != drafted,
        ),
    )


def _changed(row: sa.RowMapping) -> Changed:
    kept = {name: row[f"kept_{name}"] for name in MirrorRecord.model_fields}
    return Changed(
        reply_id=row["reply_id"],
        position=row["position"],
        rank=row["rank"],
        suggested=row["suggested"],
        drafted=row["drafted"],
        before=MirrorRecord.model_validate(kept) if kept["reply_id"] is not None else None,
    )


def _pieces(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))
