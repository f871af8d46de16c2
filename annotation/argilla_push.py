"""Bring our side to Argilla: replies that are new or changed, answers given here, and take out what is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from annotation.argilla_client import Argilla, Json, Refused
from annotation.argilla_form import ReplyForDesk, record_of, sha_of
from annotation.argilla_known import replies_for_desk
from annotation.argilla_report import Run
from annotation.argilla_show import ArgillaShow
from annotation.errors import NotFound, UserError
from annotation.store import Store
from annotation.store.argilla import HIDDEN, Changed, Mirror, MirrorRecord
from annotation.store.helpers import found_by_patterns
from annotation.types import Charter

AT_ONCE = 250
"""Records a call; Argilla takes 500."""
REMOVED_AT_ONCE = 10
"""Few: an answer that is begun after the look whether there is one goes with its record."""


@dataclass(frozen=True)
class _Batch:
    """Replies on their way."""

    changed: Sequence[Changed]
    records: list[Json] = field(default_factory=list)
    """What is to be put there."""
    kept: list[MirrorRecord] = field(default_factory=list)
    """What is known of the others without asking Argilla."""


class ArgillaPush:
    """From one store to one Argilla."""

    def __init__(self, store: Store, argilla: Argilla, run: Run) -> None:
        self._store = store
        self._state = store.argilla
        self._argilla = argilla
        self._run = run
        self._showing = ArgillaShow(store, run, self._put)

    def everything(self, workspace: str, live: Sequence[Mirror]) -> None:
        """Bring the datasets of `workspace` up to date with our side; `live` are those that take new replies."""
        ids, queues = {one.id for one in live}, {one.queue for one in live}
        for mirror in self._state.mirrors(workspace):
            if mirror.id not in ids and mirror.queue in queues:
                # What nobody answered under the old charter waits under the new one.
                with self._run.going_on():
                    self._remove(mirror, self._state.closed(mirror, all_open=True))
        for one in live:
            with self._run.going_on():
                self._push(one)
        for one in self._state.mirrors(workspace):
            if one.id in ids:
                with self._run.going_on():
                    self._show(one)
                    self._remove(one, self._state.closed(one))

    def put_right(self, mirror: Mirror, reply_ids: Sequence[str]) -> None:
        """Let the records of these replies say what they should, whether anybody need look at them or not."""
        for start in range(0, len(reply_ids), AT_ONCE):
            self._run.tell("putting records right", start, len(reply_ids))
            some = self._state.as_they_are(mirror, reply_ids[start : start + AT_ONCE])
            self._send(mirror, self._batch_of(mirror, some))

    def _push(self, mirror: Mirror) -> None:
        """Put replies that are new or changed there, in the order of the queue.

        While Argilla takes some, the next are put together: half of the time would else be spent waiting in turn.
        """
        total, done = self._state.counts(mirror).waiting, 0
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._batch, mirror, -1)
            while (batch := coming.result()).changed:
                coming = ahead.submit(self._batch, mirror, batch.changed[-1].position)
                if done >= total:  # more came in meanwhile
                    total = done + self._state.counts(mirror).waiting
                self._run.tell("sending replies", done, total)
                self._send(mirror, batch)
                done += len(batch.changed)

    def _batch(self, mirror: Mirror, after: int) -> _Batch:
        """The next replies behind this position; it has no replies where there are none."""
        return self._batch_of(mirror, self._state.changed(mirror, after, AT_ONCE))

    def _batch_of(self, mirror: Mirror, some: Sequence[Changed]) -> _Batch:
        replies = replies_for_desk(self._store, [one.reply_id for one in some])
        charter = self._store.charters.get(mirror.charter_version)
        batch = _Batch(some)
        for one in some:
            try:
                offered = _offered(replies[one.reply_id], charter, hidden=one.suggested == HIDDEN)
                record = record_of(offered, mirror.questions, charter)
            except UserError as error:
                batch.kept.append(_failed(mirror, one, error.found))
                continue
            if one.before and one.before.state == "there" and one.before.sha256 == sha_of(record):
                batch.kept.append(_record(mirror, one, one.before.record_id, record))
            else:
                batch.records.append(record)
        return batch

    def _send(self, mirror: Mirror, batch: _Batch) -> None:
        by_id = {one.reply_id: one for one in batch.changed}
        kept = batch.kept
        for record, item in self._put(mirror, batch.records):
            about = by_id[record["external_id"]]
            if isinstance(item, UserError):
                kept.append(_failed(mirror, about, item.found))
                continue
            if about.before and about.before.state == "there":
                self._argilla.replace_suggestions(item["id"], record["suggestions"])
            kept.append(_record(mirror, about, item["id"], record))
            self._run.summary.pushed += 1
        self._state.keep_records(kept)
        self._run.summary.failed += sum(one.state == "failed" for one in kept)
        # Some of them were judged here before they came there, and the acts of that time are passed already.
        self._showing.some(mirror, [one.reply_id for one in kept if one.state == "there"])

    def _put(self, mirror: Mirror, records: Sequence[Json]) -> Iterator[tuple[Json, Json | UserError]]:
        """Each record with what Argilla made of it. One that it refuses is found by halves, so the rest goes on."""
        if not records:
            return
        try:
            made = {item["external_id"]: item for item in self._argilla.put(mirror.id, records)}
            yield from ((record, made[record["external_id"]]) for record in records)
        except Refused as error:
            if len(records) == 1:
                yield records[0], error
                return
            half = len(records) // 2
            yield from self._put(mirror, records[:half])
            yield from self._put(mirror, records[half:])

    def _remove(self, mirror: Mirror, records: Sequence[MirrorRecord]) -> None:
        """Take out what nobody need look at there any more, unless somebody has begun an answer there."""
        for start in range(0, len(records), REMOVED_AT_ONCE):
            self._run.tell("taking out what is done", start, len(records))
            some = [one for one in records[start : start + REMOVED_AT_ONCE] if not self._begun(one)]
            self._argilla.remove(mirror.id, [one.record_id for one in some])
            self._state.keep_records([one.model_copy(update={"state": "removed", "sha256": ""}) for one in some])
            self._run.summary.removed += len(some)

    def _begun(self, record: MirrorRecord) -> bool:
        try:
            return bool(self._argilla.record(record.record_id).get("responses"))
        except NotFound:
            return False

    # Our answers, shown there

    def _show(self, mirror: Mirror) -> None:
        """Show there what was judged here since, so that a reply done here is done there."""
        seq = mirror.acts_seq
        while some := self._state.acts_after(mirror, seq, AT_ONCE):
            self._run.tell("showing our answers", 0, 0)
            self._showing.some(mirror, list(dict.fromkeys(reply_id for _, reply_id in some)))
            seq = some[-1][0]
            self._state.change_mirror(mirror.id, acts_seq=seq)
        self._show_owed(mirror)

    def _show_owed(self, mirror: Mirror) -> None:
        """Show what could not be shown before: its author has an account now, or somebody asked to try again. A record
        that was taken out meanwhile is put back for it.
        """
        owed = self._state.owed(mirror, {*self._run.users.values()})
        for start in range(0, len(owed), AT_ONCE):
            self._run.tell("showing our answers", start, len(owed))
            some = self._state.as_they_are(mirror, owed[start : start + AT_ONCE])
            there = {one.reply_id for one in some if one.before and one.before.state == "there"}
            self._showing.some(mirror, list(there))
            self._send(mirror, self._batch_of(mirror, [one for one in some if one.reply_id not in there]))


def _offered(reply: ReplyForDesk, charter: Charter, *, hidden: bool) -> ReplyForDesk:
    """A reply with the suggestions that our desk would show beside it: also those of the charter's patterns."""
    found = () if hidden else (*found_by_patterns(charter, reply.conversation.turns[-1].text), *reply.suggestions)
    return reply.model_copy(update={"suggestions": found})


def _record(mirror: Mirror, about: Changed, record_id: str, record: Json) -> MirrorRecord:
    return _kept(mirror, about, state="there", record_id=record_id, sha256=sha_of(record))


def _failed(mirror: Mirror, about: Changed, reason: str) -> MirrorRecord:
    return _kept(mirror, about, state="failed", reason=reason)


def _kept(mirror: Mirror, about: Changed, **values: Any) -> MirrorRecord:
    numbers = {"rank": about.rank, "suggested": about.suggested, "drafted": about.drafted}
    return MirrorRecord(dataset_id=mirror.id, reply_id=about.reply_id, **numbers, **values)
