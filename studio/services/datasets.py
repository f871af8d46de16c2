"""Dataset versions: what one would hold, making it, and looking into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotation.curate import Rows, curate
from annotation.store import Store
from annotation.types import DatasetVersion
from annotation.versions import freeze, read_rows, recover


class DatasetService:
    """What the Datasets page and `tonesmith curate` call."""

    def __init__(self, store: Store, root: Path, person: str) -> None:
        self._store = store
        self._root = root
        self._person = person

    def recover(self) -> list[DatasetVersion]:
        """Take up versions whose card a crash lost; returns those."""
        return recover(self._store, self._root)

    def preview(self) -> Rows:
        """What a version made now would hold."""
        reviewed = self._store.reviews.everything()
        conversations = self._store.conversations.of_replies(item.reply_id for item in reviewed)
        return curate(reviewed, conversations, self._store.comparisons.voted())

    def make(self, note: str = "") -> DatasetVersion:
        """Freeze what was judged so far. Raises UserError if that is nothing, or nothing new."""
        charter = self._store.charters.current()
        version = charter.version if charter else 0
        return freeze(self._store, self._root, self.preview(), version, self._person, note)

    def all(self) -> list[DatasetVersion]:
        """All versions, newest first."""
        return self._store.datasets.all()

    def get(self, version_id: str) -> DatasetVersion:
        """One version by id or number. Raises NotFound."""
        return self._store.datasets.get(version_id)

    def folder(self, version: DatasetVersion) -> Path:
        """Where a version's files are."""
        return self._root / version.id

    def rows(self, version: DatasetVersion, name: str) -> list[dict[str, Any]]:
        """The rows of one of its files: `sft`, `preference`, `unpaired`, `held_out` or `left_out`."""
        return read_rows(self.folder(version), name)
