"""Keep each queue and its dataset in Argilla alike: replies go there, answers come back, ours are shown there.

What is known about the other side is in our store. Every step may be cut off and made again: records are put under the
reply's id, an answer becomes an act whose id follows from the response and its time. So after a kill anywhere the next
sync goes on, and a reconcile, which compares everything, finds nothing to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from annotation.argilla_client import Argilla, Json
from annotation.argilla_datasets import ArgillaDatasets
from annotation.argilla_form import form_of, sha_of
from annotation.argilla_pull import ArgillaPull
from annotation.argilla_push import ArgillaPush
from annotation.argilla_report import Asked, Cancelled, DatasetProgress, Repairs, Report, Run, Summary
from annotation.errors import NotFound, UserError
from annotation.store import Store
from annotation.store.argilla import Mirror, MirrorRecord, MirrorResponse
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

        Raises Unreachable, and UserError for a wrong key, a version too old, a dataset that was deleted in Argilla, or
        a store without a charter; what was done before is kept.
        """
        self._begin(Summary(), report, cancelled)
        try:
            workspace = self._connect()
            live = self._live(workspace)
            needed = {one.id for one in live}
            for mirror in self._state.mirrors(workspace):
                self._pulling.new_answers(mirror, needed=mirror.id in needed)
            self._pushing.everything(workspace, live)
        except Cancelled:
            self._run.summary.cancelled = True
        return self._run.summary

    def pull(self, report: Report = lambda progress: None, cancelled: Asked = lambda: False) -> Summary:
        """Keep every answer and every draft that is there, and send nothing. A dataset that was deleted has none.

        Raises Unreachable, and UserError for a wrong key or a version too old.
        """
        self._begin(Summary(), report, cancelled)
        try:
            for mirror in self._state.mirrors(self._connect()):
                self._pulling.new_answers(mirror, needed=False)
        except Cancelled:
            self._run.summary.cancelled = True
        return self._run.summary

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

        Raises as `sync`, but makes a deleted dataset anew with what is still open.
        """
        repairs = Repairs()
        self._begin(repairs, report, cancelled)
        try:
            workspace = self._connect()
            for mirror in self._state.mirrors(workspace):
                self._compare(mirror, repairs)
            self._pushing.everything(
                workspace, [self._datasets.live(workspace, queue) for queue in self._state.queues(workspace)]
            )
        except Cancelled:
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
        self._run.summary, self._run.report, self._run.cancelled = summary, report, cancelled

    def _connect(self) -> str:
        """The workspace's id, with the people there at hand."""
        self._argilla.check()
        workspace = self._argilla.workspace_id()
        self._run.users = self._argilla.users(workspace)
        return workspace

    def _live(self, workspace: str) -> list[Mirror]:
        """Each queue's dataset."""
        return [self._datasets.live(workspace, queue) for queue in self._state.queues(workspace)]

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
            self._run.tell("comparing", len(found), total)
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
        self._pulling.some(mirror, charter, records)
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
