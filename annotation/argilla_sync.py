"""Keep each queue and its dataset in Argilla alike: replies go there, answers come back, ours are shown there.

What is known about the other side is in our store. Every step may be cut off and made again: records are put under the
reply's id, an answer becomes an act whose id follows from the response and its time. So after a kill anywhere the next
sync goes on, and a reconcile, which compares everything, finds nothing to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from annotation.argilla_client import Argilla, Json
from annotation.argilla_datasets import ArgillaDatasets, Deleted
from annotation.argilla_form import form_of, is_shortened, sha_of
from annotation.argilla_pull import ArgillaPull
from annotation.argilla_push import ArgillaPush
from annotation.argilla_report import Asked, Cancelled, DatasetProgress, Repairs, Report, Run, Summary
from annotation.errors import NotFound
from annotation.store import Store
from annotation.store.argilla import ABSENT, Mirror, MirrorRecord, MirrorResponse
from annotation.types import Charter


class ArgillaSync:
    """A store with all its queues and one Argilla."""

    def __init__(self, store: Store, argilla: Argilla) -> None:
        self._store = store
        self._state = store.argilla
        self._argilla = argilla
        self._run = Run()
        self._datasets = ArgillaDatasets(store, argilla, lambda: self._run.tell("making the dataset", 0, 0))
        self._pulling = ArgillaPull(store, argilla, self._datasets, self._run)
        self._pushing = ArgillaPush(store, argilla, self._run)

    def sync(self, report: Report = lambda progress: None, cancelled: Asked = lambda: False) -> Summary:
        """Bring over what is new on either side. Repeat it as often as you like.

        Raises Unreachable, and UserError for a wrong key or a version too old, or a store without a charter; what was
        done before is kept. So it does for a dataset that was deleted in Argilla, or one that can't be made, but only
        once all the others are up to date.
        """
        self._begin(Summary(), report, cancelled)
        try:
            workspace = self._connect()
            live = self._live(workspace)
            self._pull(workspace, {one.id for one in live})
            self._pushing.everything(workspace, live)
        except Cancelled:
            self._run.summary.cancelled = True
            return self._run.summary
        self._run.end()
        return self._run.summary

    def pull(self, report: Report = lambda progress: None, cancelled: Asked = lambda: False) -> Summary:
        """Keep every answer and every draft that is there, and send nothing: for who leaves. All is read, since there
        is no next time: a program may have written over answers, and a dataset taken for lost may be back. One that
        was deleted has none.

        Raises Unreachable, and UserError for a wrong key or a version too old, or if answers keep coming too fast.
        """
        self._begin(Summary(), report, cancelled)
        try:
            for mirror in self._state.mirrors(self._connect(), lost=True):
                with self._run.going_on():
                    self._pulling.new_answers(mirror, needed=False, whole=True)
        except Cancelled:
            self._run.summary.cancelled = True
            return self._run.summary
        self._run.end()
        return self._run.summary

    def _pull(self, workspace: str, needed: set[str]) -> None:
        """From all datasets. One that is `needed`, or that a queue lacks already, is not given up without a word."""
        needed |= {one.dataset for one in self._run.troubles if isinstance(one, Deleted)}
        for mirror in self._state.mirrors(workspace):
            with self._run.going_on():
                self._pulling.new_answers(mirror, needed=mirror.id in needed)

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
            self._pulling.some(mirror, self._store.charters.get(mirror.charter_version), found[dataset_id])
        return self._run.summary

    def reconcile(self, report: Report = lambda progress: None, cancelled: Asked = lambda: False) -> Repairs:
        """Compare everything with everything and put right what differs; returns what that was.

        Raises as `sync`, but makes a deleted dataset anew with what is still open, and takes up one that was lost and
        is there.
        """
        repairs = Repairs()
        self._begin(repairs, report, cancelled)
        try:
            workspace = self._connect()
            for mirror in self._state.mirrors(workspace, lost=True):
                with self._run.going_on():
                    self._compare(mirror, repairs)
            self._pushing.everything(workspace, self._live(workspace))
        except Cancelled:
            repairs.cancelled = True
            return repairs
        self._run.end()
        return repairs

    def progress(self) -> list[DatasetProgress]:
        """Where each dataset stands, oldest first, as far as known here; only the workspace is asked of Argilla.

        Raises as `sync`.
        """
        mirrors = self._state.mirrors(self._argilla.workspace_id())
        return [
            DatasetProgress(
                name=mirror.name,
                charter_version=mirror.charter_version,
                shortened=is_shortened(self._store.charters.get(mirror.charter_version)),
                **self._state.counts(mirror).model_dump(),
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
        self._run.summary, self._run.report, self._run.cancelled = summary, report, cancelled
        self._run.troubles = []

    def _connect(self) -> str:
        """The workspace's id, with the people there and here at hand."""
        self._argilla.check()
        workspace = self._argilla.workspace_id()
        self._run.users = self._argilla.users(workspace)
        self._run.judges = frozenset(one.name for one in self._store.people.all() if one.may("judge"))
        return workspace

    def _live(self, workspace: str) -> list[Mirror]:
        """Each queue's dataset, without those that there is trouble with."""
        live = []
        for queue in self._state.queues(workspace):
            with self._run.going_on():
                live.append(self._datasets.live(workspace, queue))
        return live

    # Compare

    def _compare(self, mirror: Mirror, repairs: Repairs) -> None:
        """Find out what is really there, so that push, show and pull put right what differs."""
        there = self._there(mirror, repairs)
        if there is None:
            return
        charter = self._store.charters.get(mirror.charter_version)
        overlap = self._store.tasks.settings(mirror.queue).overlap
        form = form_of(charter, overlap, "ranking" in mirror.questions)
        self._datasets.complete_metadata(mirror.id, form)
        repairs.reworded += self._datasets.reword(there, form)
        kept, responses = self._state.records(mirror), self._state.all_responses(mirror)
        look = _Look(kept, responses, overlap)
        for records, total in self._argilla.records(mirror.id, "responses,suggestions"):
            self._run.tell("comparing", len(look.seen), total)
            self._compare_some(mirror, charter, records, look, repairs)
        self._look_again(mirror, charter, look, repairs)
        if look.stale:
            self._datasets.work_out_anew(mirror)
            repairs.stale += look.stale
        missing = look.unseen()
        repairs.missing += len(missing)
        self._state.forget_records(mirror.id, missing)
        gone = look.unheard()
        self._state.keep_responses([one.model_copy(update={"status": "gone"}) for one in gone])
        repairs.gone += len(gone)
        self._state.change_mirror(mirror.id, acts_seq=0)
        self._pushing.put_right(mirror, look.altered)

    def _there(self, mirror: Mirror, repairs: Repairs) -> Json | None:
        """The dataset as Argilla has it, None if it was deleted; one that was taken for lost is live again."""
        try:
            there = self._datasets.there(mirror)
        except Deleted:
            if mirror.state == "live":
                self._state.change_mirror(mirror.id, state="lost")
                self._state.forget_records(mirror.id)
                repairs.datasets.append(mirror.name)
            return None
        if mirror.state == "lost":
            self._state.change_mirror(mirror.id, state="live", cursor="")
        return there

    def _look_again(self, mirror: Mirror, charter: Charter, look: _Look, repairs: Repairs) -> None:
        """Ask for each record that was on no page, or lacked a response there: pages shift while people work."""
        doubtful = list(dict.fromkeys([*look.unseen(), *(one.reply_id for one in look.unheard())]))
        for number, reply_id in enumerate(doubtful):
            self._run.tell("looking again", number, len(doubtful))
            if reply_id in look.kept and (record_id := look.kept[reply_id].record_id):
                with contextlib.suppress(NotFound):
                    self._compare_some(mirror, charter, [self._argilla.record(record_id)], look, repairs)

    def _compare_some(
        self, mirror: Mirror, charter: Charter, records: Sequence[Json], look: _Look, repairs: Repairs
    ) -> None:
        """Some records, with their responses and suggestions."""
        self._pulling.some(mirror, charter, records)
        ours = self._state.ranks([record["external_id"] for record in records if record.get("external_id")])
        rows = []
        for record in records:
            for response in record.get("responses") or ():
                look.responses.pop(response["id"], None)
            if record["id"] in look.seen:
                continue
            look.seen.add(record["id"])
            look.stale += _is_stale(record, look.overlap)
            reply_id = record.get("external_id")
            if reply_id not in ours:
                repairs.foreign += 1
                continue
            look.replies.add(reply_id)
            before = look.kept.get(reply_id)
            known = before is not None and before.state == "there"
            if known and before and before.sha256 == sha_of(record):
                continue
            repairs.altered += known
            look.altered += [reply_id] if known else []
            # A rank that no reply has lets the next push look at it again, and no sum the next comparison.
            about = {"record_id": record["id"], "state": "there", "sha256": "" if known else sha_of(record), "rank": -1}
            rows.append(MirrorRecord(dataset_id=mirror.id, reply_id=reply_id, **about))
        self._state.keep_records(rows)


@dataclass
class _Look:
    """What a comparison has seen of one dataset."""

    kept: Mapping[str, MirrorRecord]
    """What was known of its records, by reply."""
    responses: dict[str, MirrorResponse]
    """What was known of its responses and has not been seen, by id."""
    overlap: int
    """How many people complete a record."""
    seen: set[str] = field(default_factory=set)
    """Records, by Argilla's id."""
    replies: set[str] = field(default_factory=set)
    altered: list[str] = field(default_factory=list)
    """Replies whose record says something else there."""
    stale: int = 0
    """Records whose state does not follow from their answers."""

    def unseen(self) -> list[str]:
        """Replies whose record should be there."""
        return [one for one, record in self.kept.items() if record.state == "there" and one not in self.replies]

    def unheard(self) -> list[MirrorResponse]:
        """Responses that should be there."""
        return [one for one in self.responses.values() if one.status not in ABSENT]


def _is_stale(record: Json, overlap: int) -> bool:
    submitted = sum(one["status"] == "submitted" for one in record.get("responses") or ())
    return bool(record.get("status") != ("completed" if submitted >= overlap else "pending"))
