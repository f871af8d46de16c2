"""Dataset versions: what one would hold, making it, and looking into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotation.curate import joined, share_for
from annotation.people import Person
from annotation.store import Store
from annotation.types import DatasetVersion, Frozen
from annotation.versions import freeze, read_rows, recover, rows_in

EXACT_UP_TO = 2_000
"""Judged replies up to which the preview works every row out; beyond, it counts what they came to."""


class Preview(Frozen):
    """What a version made now would hold, in rows."""

    sft: int
    preference: int
    held_out: int
    left_out: int
    starter: int = 0
    exact: bool
    """False where it is an estimate: rows that turn out to be the same are counted twice."""


class DatasetService:
    """What the Datasets page and `tonesmith curate` call, for one person."""

    def __init__(self, store: Store, root: Path, who: Person) -> None:
        self._store = store
        self._root = root
        self._who = who

    def recover(self) -> list[DatasetVersion]:
        """Take up versions whose card a crash lost; returns those."""
        self._who.must("curate")
        return recover(self._store, self._root)

    def preview(self) -> Preview:
        """What a version made now would hold."""
        self._who.must("look")
        outcomes = self._store.tasks.outcomes()
        if sum(outcomes.values()) <= EXACT_UP_TO:
            rows = joined(rows_in(self._store))
            starter = sum(row.origin == "starter" for row in rows.sft)
            counts = {name: number for name, number in rows.counts().items() if name != "unpaired"}
            return Preview(**counts, starter=starter, exact=True)
        good = outcomes.get("approved", 0) + outcomes.get("corrected", 0)
        held_out = round(share_for(good) * good)
        pairs = outcomes.get("corrected", 0) + self._store.comparisons.decided()
        left_out = sum(outcomes.values()) - good
        return Preview(sft=good - held_out, preference=pairs, held_out=held_out, left_out=left_out, exact=False)

    def make(self, note: str = "") -> DatasetVersion:
        """Freeze what was judged so far. Raises UserError if that is nothing, or nothing new."""
        self._who.must("curate")
        charter = self._store.charters.current()
        version = charter.version if charter else 0
        return freeze(self._store, self._root, rows_in(self._store), version, self._who.name, note)

    def all(self) -> list[DatasetVersion]:
        """All versions, newest first."""
        self._who.must("look")
        return self._store.datasets.all()

    def get(self, version_id: str) -> DatasetVersion:
        """One version by id or number. Raises NotFound."""
        self._who.must("look")
        return self._store.datasets.get(version_id)

    def folder(self, version: DatasetVersion) -> Path:
        """Where a version's files are."""
        self._who.must("look")
        return self._root / version.id

    def rows(self, version: DatasetVersion, name: str) -> list[dict[str, Any]]:
        """The rows of one of its files: `sft`, `preference`, `unpaired`, `held_out` or `left_out`."""
        self._who.must("look")
        return read_rows(self.folder(version), name)
