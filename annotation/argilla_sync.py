"""Keep each queue and its dataset in Argilla alike: replies go there, answers come back, ours are shown there.

What is known about the other side is in our store. Every step may be cut off and made again: records are put under the
reply's id, an answer becomes an act whose id follows from the response and its time. So after a kill anywhere the next
sync goes on, and a reconcile, which compares everything, finds nothing to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from annotation.acts import COUNTED, Act, ActBody, replay
from annotation.argilla_client import Argilla, Json, Refused
from annotation.argilla_datasets import ArgillaDatasets
from annotation.argilla_form import (
    Opinion,
    ReplyForDesk,
    act_of,
    form_of,
    record_of,
    same_values,
    sha_of,
    values_of,
)
from annotation.argilla_report import Asked, DatasetProgress, Progress, Repairs, Report, Summary
from annotation.errors import NotFound, UserError
from annotation.store import Store
from annotation.store.argilla import HIDDEN, Changed, Mirror, MirrorRecord, MirrorResponse
from annotation.store.helpers import found_by_patterns
from annotation.types import Charter

AT_ONCE = 250
"""Records a call; Argilla takes 500."""
SAVED_AT_ONCE = 50
"""Acts a transaction: few enough that nobody who saves at our desk waits for long."""


class _Cancelled(Exception):
    """Somebody asked to stop; what was done is kept."""


class ArgillaSync:
    """A store with all its queues and one Argilla."""

    def __init__(self, store: Store, argilla: Argilla) -> None:
        self._store = store
        self._state = store.argilla
        self._argilla = argilla
        self._datasets = ArgillaDatasets(store, argilla, lambda: self._tell("making the dataset", 0, 0))
        self._summary: Summary = Summary()
        self._users: dict[str, str] = {}
        self._report: Report = lambda progress: None
        self._cancelled: Asked = lambda: False

    def sync(self, report: Report = lambda progress: None, cancelled: Asked = lambda: False) -> Summary:
        """Bring over what is new on either side. Repeat it as often as you like.

        Raises Unreachable, and UserError for a wrong key, a version too old, a dataset that was deleted in Argilla, or
        a store without a charter; what was done before is kept.
        """
        self._begin(Summary(), report, cancelled)
        try:
            workspace = self._connect()
            live = self._live(workspace)
            needed = {one.id for one in live}
            for mirror in self._state.mirrors(workspace):
                self._pull(mirror, needed=mirror.id in needed)
            self._push_all(workspace, live)
        except _Cancelled:
            self._summary.cancelled = True
        return self._summary

    def pull(self, report: Report = lambda progress: None, cancelled: Asked = lambda: False) -> Summary:
        """Keep every answer and every draft that is there, and send nothing. A dataset that was deleted has none.

        Raises Unreachable, and UserError for a wrong key or a version too old.
        """
        self._begin(Summary(), report, cancelled)
        try:
            for mirror in self._state.mirrors(self._connect()):
                self._pull(mirror, needed=False)
        except _Cancelled:
            self._summary.cancelled = True
        return self._summary

    def fetch(self, record_ids: Iterable[str]) -> Summary:
        """Keep the answers to these records of Argilla now; those that are none of ours are left alone. A look at all
        of them, as `sync` does, stays due. Raises as `sync`.
        """
        self._begin(Summary(), lambda progress: None, lambda: False)
        ours = {one.id: one for one in self._state.mirrors(self._connect())}
        found: dict[str, list[Json]] = {}
        for record_id in record_ids:
            with contextlib.suppress(NotFound):
                record = self._argilla.record(record_id)
                found.setdefault(record["dataset_id"], []).append(record)
        for dataset_id in found.keys() & ours.keys():
            mirror = ours[dataset_id]
            self._pull_some(mirror, self._store.charters.get(mirror.charter_version), found[dataset_id])
        return self._summary

    def reconcile(self, report: Report = lambda progress: None, cancelled: Asked = lambda: False) -> Repairs:
        """Compare everything with everything and put right what differs; returns what that was.

        Raises as `sync`, but makes a deleted dataset anew with what is still open.
        """
        repairs = Repairs()
        self._begin(repairs, report, cancelled)
        try:
            workspace = self._connect()
            for mirror in self._state.mirrors(workspace):
                self._compare(mirror, repairs)
            self._push_all(
                workspace, [self._datasets.live(workspace, queue) for queue in self._state.queues(workspace)]
            )
        except _Cancelled:
            repairs.cancelled = True
        return repairs

    def progress(self) -> list[DatasetProgress]:
        """Where each dataset stands, oldest first, as far as known here; only the workspace is asked of Argilla.

        Raises as `sync`.
        """
        mirrors = self._state.mirrors(self._argilla.workspace_id())
        return [
            DatasetProgress(
                name=mirror.name, charter_version=mirror.charter_version, **self._state.counts(mirror).model_dump()
            )
            for mirror in mirrors
        ]

    def failures(self) -> list[tuple[str, str]]:
        """(reply, reason) of what could not be brought over. Raises as `sync`."""
        mirrors = self._state.mirrors(self._argilla.workspace_id())
        return [one for mirror in mirrors for one in self._state.failures(mirror)]

    def retry(self) -> int:
        """Let the next sync try again what failed; returns how much that is. Raises as `sync`."""
        mirrors = self._state.mirrors(self._argilla.workspace_id())
        return sum(self._state.forget_failures(mirror.id) for mirror in mirrors)

    # Beginning

    def _begin(self, summary: Summary, report: Report, cancelled: Asked) -> None:
        self._summary, self._report, self._cancelled = summary, report, cancelled

    def _connect(self) -> str:
        """The workspace's id, with the people there at hand."""
        self._argilla.check()
        workspace = self._argilla.workspace_id()
        self._users = self._argilla.users(workspace)
        return workspace

    def _live(self, workspace: str) -> list[Mirror]:
        """Each queue's dataset."""
        return [self._datasets.live(workspace, queue) for queue in self._state.queues(workspace)]

    # Push

    def _push_all(self, workspace: str, live: Sequence[Mirror]) -> None:
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
        """Put replies that are new or changed there, in the order of the queue."""
        total, done, after = self._state.counts(mirror).waiting, 0, -1
        while some := self._state.changed(mirror, after, AT_ONCE):
            after = some[-1].position
            self._tell("sending replies", done, total)
            self._push_some(mirror, some)
            done += len(some)

    def _push_some(self, mirror: Mirror, some: Sequence[Changed]) -> None:
        replies = self._replies([one.reply_id for one in some])
        charter = self._store.charters.get(mirror.charter_version)
        by_id = {one.reply_id: one for one in some}
        kept: list[MirrorRecord] = []
        changed: list[Json] = []
        for one in some:
            try:
                offered = _offered(replies[one.reply_id], charter, hidden=one.suggested == HIDDEN)
                record = record_of(offered, mirror.questions, charter)
            except UserError as error:
                kept.append(_failed(mirror, one, error.found))
                continue
            if one.before and one.before.state == "there" and one.before.sha256 == sha_of(record):
                kept.append(_record(mirror, one, one.before.record_id, record))
            else:
                changed.append(record)
        for record, item in self._put(mirror, changed):
            about = by_id[record["external_id"]]
            if isinstance(item, UserError):
                kept.append(_failed(mirror, about, item.found))
                continue
            if about.before and about.before.state == "there":
                self._argilla.replace_suggestions(item["id"], record["suggestions"])
            kept.append(_record(mirror, about, item["id"], record))
            self._summary.pushed += 1
        self._state.keep_records(kept)
        self._summary.failed += sum(one.state == "failed" for one in kept)
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
            self._tell("taking out what is done", start, len(records))
            some = [one for one in records[start : start + AT_ONCE] if not self._begun(one)]
            self._argilla.remove(mirror.id, [one.record_id for one in some])
            self._state.keep_records([one.model_copy(update={"state": "removed", "sha256": ""}) for one in some])
            self._summary.removed += len(some)

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
            self._tell("showing our answers", 0, 0)
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
        ids = {name: user_id for user_id, name in self._users.items()}
        owed = {
            reply_id: [one for one in self._owed(history, known.get(reply_id, {})) if self._has_account(one[0], ids)]
            for reply_id, history in histories.items()
        }
        charter = self._store.charters.get(mirror.charter_version)
        replies = self._replies([reply_id for reply_id, some in owed.items() if some])
        items, meant = [], {}
        for reply_id, reply in replies.items():
            responses = []
            for person, status, act in owed[reply_id]:
                values = values_of(_said(histories[reply_id], person, act), reply, mirror.questions, charter)
                responses.append({"user_id": ids[person], "status": status, "values": values})
                meant[reply_id, ids[person]] = (person, act.id)
            items.append({"external_id": reply_id, "responses": responses})
        rows = []
        for asked, item in self._put(mirror, items):
            if isinstance(item, UserError):
                self._summary.failed += 1
                continue
            for response in item.get("responses") or ():
                if (asked["external_id"], response["user_id"]) in meant:
                    person, act_id = meant[asked["external_id"], response["user_id"]]
                    rows.append(_response(mirror, asked["external_id"], response, person, act_id))
        self._state.keep_responses(rows)
        self._summary.shown += len(rows)

    def _has_account(self, person: str, ids: Mapping[str, str]) -> bool:
        if person not in ids:
            self._summary.without_account.add(person)
        return person in ids

    @staticmethod
    def _owed(history: Sequence[Act], known: Mapping[str, MirrorResponse]) -> Iterator[tuple[str, str, Act]]:
        """(person, status, act) of answers that Argilla does not show as they are: new ones are submitted there,
        and those that were taken back or are asked anew become drafts, so that they can be given again.
        """
        standing = _standing_acts(history)
        for person, act in standing.items():
            there = known.get(person)
            if there is None or there.act_id != act.id or there.status != "submitted":
                yield person, "submitted", act
        by_id = {act.id: act for act in history}
        for person, there in known.items():
            if person not in standing and there.status == "submitted" and there.act_id in by_id:
                yield person, "draft", by_id[there.act_id]

    # Pull

    def _pull(self, mirror: Mirror, *, needed: bool) -> None:
        """Keep every answer that is new there. Where nobody answered anything since, that is one question."""
        try:
            activity = str(self._datasets.there(mirror)["last_activity_at"])
        except UserError:
            if needed:
                raise
            self._state.change_mirror(mirror.id, state="lost")
            return
        if activity == mirror.cursor:
            return
        charter = self._store.charters.get(mirror.charter_version)
        seen: set[str] = set()
        total = 0
        for records, total in self._argilla.answered(mirror.id):
            self._tell("fetching answers", len(seen), total)
            seen |= {record["id"] for record in records}
            self._pull_some(mirror, charter, records)
        # Pages shift while people work; then the next sync reads them again.
        if len(seen) >= total:
            self._state.change_mirror(mirror.id, cursor=activity)

    def _pull_some(self, mirror: Mirror, charter: Charter, records: Sequence[Json]) -> None:
        by_reply = {record["external_id"]: record for record in records if record.get("external_id")}
        known = self._state.responses(mirror, by_reply)
        fresh = [
            (reply_id, response)
            for reply_id, record in by_reply.items()
            for response in record.get("responses") or ()
            if not _is_known(known.get(response["id"]), response)
        ]
        if not fresh:
            return
        replies = self._replies(list(dict.fromkeys(reply_id for reply_id, _ in fresh)))
        histories = self._state.histories(replies)
        fresh = [one for one in fresh if one[0] in replies]  # records made by hand are none of ours
        rows, acts = [], []
        for reply_id, response in fresh:
            person = self._users.get(response["user_id"], response["user_id"])
            history = histories.get(reply_id, [])
            before = known.get(response["id"])
            if response["status"] != "submitted":
                self._take_back(response, person, history, before)
                act_id = self._pass_on(reply_id, response, person) if response["status"] == "discarded" else ""
                self._summary.begun += response["status"] == "draft"
                rows.append(_response(mirror, reply_id, response, person, act_id, said=response["values"]))
                continue
            row, act = self._as_act(mirror, charter, replies[reply_id], response, person, history, before)
            rows.append(row)
            acts += [act] if act else []
        reasons = self._save(acts)
        rows = [
            row.model_copy(update={"act_id": "", "reason": reasons[row.act_id]}) if row.act_id in reasons else row
            for row in rows
        ]
        self._state.keep_responses(rows)

    def _as_act(
        self,
        mirror: Mirror,
        charter: Charter,
        reply: ReplyForDesk,
        response: Json,
        person: str,
        history: Sequence[Act],
        before: MirrorResponse | None,
    ) -> tuple[MirrorResponse, Any]:
        """What to know about a submitted response, and the act to keep; None if what it says is here already."""
        reply_id = reply.conversation.turns[-1].id
        act_id = _act_id(response)
        row = _response(mirror, reply_id, response, person, act_id, said=response["values"])
        if any(act.id == act_id for act in history):
            return row, None
        text = reply.conversation.turns[-1].text
        standing = _standing_acts(history).get(person)
        if standing:
            ours = values_of(_said(history, person, standing), reply, mirror.questions, charter)
        if standing and same_values(ours, response["values"], text):
            return row.model_copy(update={"act_id": standing.id}), None
        act = act_of(response["values"], reply, charter, person, act_id=act_id, made_at=_moment(response["updated_at"]))
        corrects = act.correction is not None and act.correction.strip() != text.strip()
        if before and standing and standing.id == before.act_id and standing.correction and not corrects:
            self._undo(standing, person, response)  # they took their correction back
        return row, act

    def _take_back(self, response: Json, person: str, history: Sequence[Act], before: MirrorResponse | None) -> None:
        """No answer there (any more): what they had submitted there before does not count here either."""
        standing = _standing_acts(history).get(person)
        if standing and before and standing.id == before.act_id:
            self._undo(standing, person, response)

    def _pass_on(self, reply_id: str, response: Json, person: str) -> str:
        """Discarded: they leave it to a colleague. Returns the act's id."""
        act_id = _act_id(response)
        made_at = _moment(response["updated_at"])
        self._store.reviews.add("pass", reply_id, person, ActBody(), act_id, made_at)
        self._summary.passed += 1
        return act_id

    def _undo(self, act: Act, person: str, response: Json) -> None:
        undo_id = _act_id(response, "undo")
        made_at = _moment(response["updated_at"])
        self._store.reviews.add("undo", act.reply_id, person, ActBody(undoes=act.id), undo_id, made_at)

    def _save(self, acts: Sequence[Any]) -> dict[str, str]:
        """Keep acts; returns act id → reason of those that could not be."""
        failed: list[UserError | None] = []
        for start in range(0, len(acts), SAVED_AT_ONCE):
            failed += self._store.reviews.save_all(acts[start : start + SAVED_AT_ONCE])
        reasons = {act.act_id: error.found for act, error in zip(acts, failed, strict=True) if error}
        self._summary.pulled += len(acts) - len(reasons)
        self._summary.failed += len(reasons)
        return reasons

    # Compare

    def _compare(self, mirror: Mirror, repairs: Repairs) -> None:
        """Find out what is really there, so that push, show and pull put right what differs."""
        try:
            there = self._datasets.there(mirror)
        except UserError:
            self._state.change_mirror(mirror.id, state="lost")
            self._state.forget_records(mirror.id)
            repairs.datasets.append(mirror.name)
            return
        charter = self._store.charters.get(mirror.charter_version)
        overlap = self._store.tasks.settings(mirror.queue).overlap
        form = form_of(charter, overlap, "ranking" in mirror.questions)
        self._datasets.complete_metadata(mirror.id, form)
        repairs.reworded += self._datasets.reword(there, form)
        kept, responses = self._state.records(mirror), self._state.all_responses(mirror)
        found: set[str] = set()
        for records, total in self._argilla.records(mirror.id, "responses,suggestions"):
            self._tell("comparing", len(found), total)
            self._compare_some(mirror, charter, records, kept, responses, repairs)
            found |= {record["external_id"] for record in records if record.get("external_id")}
        missing = [one.reply_id for one in kept.values() if one.state == "there" and one.reply_id not in found]
        repairs.missing += len(missing)
        self._state.forget_records(mirror.id, missing)
        gone = [one for one in responses.values() if one.status != "gone"]
        self._state.keep_responses([one.model_copy(update={"status": "gone"}) for one in gone])
        repairs.gone += len(gone)
        self._state.change_mirror(mirror.id, acts_seq=0)

    def _compare_some(
        self,
        mirror: Mirror,
        charter: Charter,
        records: Sequence[Json],
        kept: Mapping[str, MirrorRecord],
        responses: dict[str, MirrorResponse],
        repairs: Repairs,
    ) -> None:
        """One page. Takes the responses that are there out of `responses`."""
        self._pull_some(mirror, charter, records)
        ours = self._state.ranks([record["external_id"] for record in records if record.get("external_id")])
        rows = []
        for record in records:
            for response in record.get("responses") or ():
                responses.pop(response["id"], None)
            reply_id = record.get("external_id")
            if reply_id not in ours:
                repairs.foreign += 1
                continue
            before = kept.get(reply_id)
            if before and before.state == "there" and before.sha256 == sha_of(record):
                continue
            repairs.altered += before is not None and before.state == "there"
            # A rank that no reply has lets the next push look at it again.
            about = {"record_id": record["id"], "state": "there", "sha256": sha_of(record), "rank": -1}
            rows.append(MirrorRecord(dataset_id=mirror.id, reply_id=reply_id, **about))
        self._state.keep_records(rows)

    # Reading our side

    def _replies(self, reply_ids: Sequence[str]) -> dict[str, ReplyForDesk]:
        """All that Argilla shows of these replies; those that are none of ours are left out."""
        conversations = self._store.conversations.of_replies(reply_ids)
        ranks = self._state.ranks(reply_ids)
        suggestions, candidates = self._state.helpers(reply_ids)
        return {
            reply_id: ReplyForDesk(
                conversation=conversation,
                rank=ranks[reply_id],
                suggestions=tuple(suggestions.get(reply_id, ())),
                candidates=tuple(candidates.get(reply_id, ())),
            )
            for reply_id, conversation in conversations.items()
            if reply_id in ranks
        }

    def _tell(self, what: str, done: int, total: int) -> None:
        """Report, and end here if somebody asked to stop."""
        if self._cancelled():
            raise _Cancelled
        self._report(Progress(what=what, done=done, total=total))


def _offered(reply: ReplyForDesk, charter: Charter, *, hidden: bool) -> ReplyForDesk:
    """A reply with the suggestions that our desk would show beside it: also those of the charter's patterns."""
    found = () if hidden else (*found_by_patterns(charter, reply.conversation.turns[-1].text), *reply.suggestions)
    return reply.model_copy(update={"suggestions": found})


def _standing_acts(history: Sequence[Act]) -> dict[str, Act]:
    """The newest counted review of each person, as long as it stands."""
    undone = {act.body.undoes for act in history if act.kind == "undo"}
    standing: dict[str, Act] = {}
    for act in history:
        if act.kind == "requeue" and act.id not in undone:
            standing.clear()
        elif act.kind == "review" and act.route in COUNTED and act.id not in undone:
            standing[act.person] = act
    return standing


def _said(history: Sequence[Act], person: str, newest: Act) -> Opinion:
    """All that stands of a person's answers; `newest` alone if nothing stands."""
    standing = replay(history)
    answers = standing.answers.get(person)
    corrections = [one for one in standing.corrections if one.author == person]
    rankings = [one.body.ranking for one in standing.rankings if one.person == person]
    if answers is None and not corrections and not rankings:
        return Opinion(newest.judgements, newest.correction, newest.body.ranking)
    return Opinion(
        list((answers or {}).values()), corrections[-1] if corrections else None, rankings[-1] if rankings else ()
    )


def _is_known(known: MirrorResponse | None, response: Json) -> bool:
    return known is not None and (known.updated_at, known.status) == (response["updated_at"], response["status"])


def _act_id(response: Json, what: str = "act") -> str:
    """Follows from the response and its time, so that pulling it twice keeps it once."""
    return uuid5(NAMESPACE_URL, f"argilla:{what}:{response['id']}:{response['updated_at']}").hex


def _moment(text: str) -> datetime:
    """Argilla's times are in UTC and do not say so."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _response(
    mirror: Mirror, reply_id: str, response: Json, person: str, act_id: str, said: Json | None = None
) -> MirrorResponse:
    return MirrorResponse(
        id=response["id"],
        dataset_id=mirror.id,
        reply_id=reply_id,
        person=person,
        status=response["status"],
        updated_at=response["updated_at"],
        act_id=act_id,
        said=said,
    )


def _record(mirror: Mirror, about: Changed, record_id: str, record: Json) -> MirrorRecord:
    return _kept(mirror, about, state="there", record_id=record_id, sha256=sha_of(record))


def _failed(mirror: Mirror, about: Changed, reason: str) -> MirrorRecord:
    return _kept(mirror, about, state="failed", reason=reason)


def _kept(mirror: Mirror, about: Changed, **values: Any) -> MirrorRecord:
    numbers = {"rank": about.rank, "suggested": about.suggested, "drafted": about.drafted}
    return MirrorRecord(dataset_id=mirror.id, reply_id=about.reply_id, **numbers, **values)
