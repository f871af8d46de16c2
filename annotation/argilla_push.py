"""Bring our side to Argilla: replies that are new or changed, answers given here, and take out what is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from annotation.acts import Act
from annotation.argilla_client import Argilla, Json, Refused
from annotation.argilla_form import ReplyForDesk, record_of, sha_of, values_of
from annotation.argilla_known import opinion_of, replies_for_desk, response_row, standing_acts
from annotation.argilla_report import Run
from annotation.errors import NotFound, UserError
from annotation.store import Store
from annotation.store.argilla import HIDDEN, Changed, Mirror, MirrorRecord, MirrorResponse
from annotation.store.helpers import found_by_patterns
from annotation.types import Charter

AT_ONCE = 250
"""Records a call; Argilla takes 500."""


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

    def everything(self, workspace: str, live: Sequence[Mirror]) -> None:
        """Bring the datasets of `workspace` up to date with our side; `live` are those that take new replies."""
        ids = {one.id for one in live}
        for mirror in self._state.mirrors(workspace):
            if mirror.id not in ids:
                # What nobody answered under the old charter waits under the new one.
                self._remove(mirror, self._state.closed(mirror, all_open=True))
        for one in live:
            self._push(one)
        for one in self._state.mirrors(workspace):
            if one.id in ids:
                self._show(one)
                self._remove(one, self._state.closed(one))

    def _push(self, mirror: Mirror) -> None:
        """Put replies that are new or changed there, in the order of the queue.

        While Argilla takes some, the next are put together: half of the time would else be spent waiting in turn.
        """
        total, done = self._state.counts(mirror).waiting, 0
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._batch, mirror, -1)
            while (batch := coming.result()).changed:
                coming = ahead.submit(self._batch, mirror, batch.changed[-1].position)
                self._run.tell("sending replies", done, total)
                self._send(mirror, batch)
                done += len(batch.changed)

    def _batch(self, mirror: Mirror, after: int) -> _Batch:
        """The next replies behind this position; it has no replies where there are none."""
        some = self._state.changed(mirror, after, AT_ONCE)
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
        self._show_some(mirror, [one.reply_id for one in kept if one.state == "there"])

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
        for start in range(0, len(records), AT_ONCE):
            self._run.tell("taking out what is done", start, len(records))
            some = [one for one in records[start : start + AT_ONCE] if not self._begun(one)]
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
            self._show_some(mirror, list(dict.fromkeys(reply_id for _, reply_id in some)))
            seq = some[-1][0]
            self._state.change_mirror(mirror.id, acts_seq=seq)

    def _show_some(self, mirror: Mirror, reply_ids: Sequence[str]) -> None:
        histories = self._state.histories(reply_ids)
        if not histories:
            return
        known: dict[str, dict[str, MirrorResponse]] = {}
        responses_known = self._state.responses(mirror, histories).values()
        for one in sorted(responses_known, key=lambda one: one.status != "gone"):
            known.setdefault(one.reply_id, {})[one.person] = one
        ids = {name: user_id for user_id, name in self._run.users.items()}
        owed = {
            reply_id: [one for one in self._owed(history, known.get(reply_id, {})) if self._has_account(one[0], ids)]
            for reply_id, history in histories.items()
        }
        charter = self._store.charters.get(mirror.charter_version)
        replies = replies_for_desk(self._store, [reply_id for reply_id, some in owed.items() if some])
        items, meant = [], {}
        for reply_id, reply in replies.items():
            responses = []
            for person, status, act in owed[reply_id]:
                values = values_of(opinion_of(histories[reply_id], person, act), reply, mirror.questions, charter)
                responses.append({"user_id": ids[person], "status": status, "values": values})
                meant[reply_id, ids[person]] = (person, act.id)
            items.append({"external_id": reply_id, "responses": responses})
        rows = []
        for asked, item in self._put(mirror, items):
            if isinstance(item, UserError):
                self._run.summary.failed += 1
                continue
            for response in item.get("responses") or ():
                if (asked["external_id"], response["user_id"]) in meant:
                    person, act_id = meant[asked["external_id"], response["user_id"]]
                    rows.append(response_row(mirror, asked["external_id"], response, person, act_id))
        self._state.keep_responses(rows)
        self._run.summary.shown += len(rows)

    def _has_account(self, person: str, ids: Mapping[str, str]) -> bool:
        if person not in ids:
            self._run.summary.without_account.add(person)
        return person in ids

    @staticmethod
    def _owed(history: Sequence[Act], known: Mapping[str, MirrorResponse]) -> Iterator[tuple[str, str, Act]]:
        """(person, status, act) of answers that Argilla does not show as they are: new ones are submitted there,
        and those that were taken back or are asked anew become drafts, so that they can be given again.
        """
        standing = standing_acts(history)
        for person, act in standing.items():
            there = known.get(person)
            if there is None or there.act_id != act.id or there.status != "submitted":
                yield person, "submitted", act
        by_id = {act.id: act for act in history}
        for person, there in known.items():
            if person not in standing and there.status == "submitted" and there.act_id in by_id:
                yield person, "draft", by_id[there.act_id]


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
