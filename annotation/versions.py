"""Immutable dataset versions: rows become files once, under a hash, and never change."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from annotation.curate import Rows, SftRow
from annotation.errors import NotFound, UserError
from annotation.files import sync, write_synced
from annotation.store import Store
from annotation.types import DatasetVersion, Preference, utc_now

MANIFEST = "manifest.json"
FILES = ("sft", "preference", "unpaired", "held_out", "left_out")


def freeze(store: Store, root: Path, rows: Rows, charter_version: int, author: str, note: str = "") -> DatasetVersion:
    """Write `rows` as the next version under `root` and keep its card.

    The folder appears complete or not at all (written aside, synced, renamed); a folder whose card was lost to a
    crash is taken up by `recover`. Raises UserError if there is nothing to train on, or if the newest version
    already holds exactly this.
    """
    if not rows.sft and not rows.preference:
        raise UserError(
            "There is nothing to put into a dataset yet.",
            "At least one approved or corrected reply, or one vote.",
            "Review a few replies first.",
        )
    recover(store, root)
    newest = next(iter(store.datasets.all()), None)
    contents = {name: _jsonl(_line(row) for row in getattr(rows, name)) for name in FILES}
    sha256 = hashlib.sha256(contents["sft"] + contents["preference"]).hexdigest()
    if newest and newest.sha256 == sha256:
        raise UserError(
            f"Version {newest.number} already holds exactly these rows.",
            do="Review or compare something new first, or train on that version.",
        )
    number = newest.number + 1 if newest else 1
    version = DatasetVersion(
        id=f"ds-{number}-{sha256[:8]}",
        number=number,
        parent_id=newest.id if newest else None,
        note=note.strip(),
        rows=rows.counts(),
        charter_version=charter_version,
        sha256=sha256,
        author=author,
        made_at=utc_now(),
    )
    _write(root, version, contents)
    store.datasets.add(version)
    return version


def recover(store: Store, root: Path) -> list[DatasetVersion]:
    """Keep the card of every complete version folder that has none (the process died in between); returns those."""
    known = {version.id for version in store.datasets.all()}
    found = []
    for manifest in sorted(root.glob(f"ds-*/{MANIFEST}")):
        if manifest.parent.name not in known:
            version = DatasetVersion.model_validate_json(manifest.read_bytes())
            store.datasets.add(version)
            found.append(version)
    return found


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of one file of a version, as written. Raises NotFound if the folder is gone."""
    path = folder / f"{name}.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise NotFound(
            f"The files of dataset version '{folder.name}' are not at {folder}.",
            do="Put the folder back, or make a new version.",
        ) from error


def verify(folder: Path) -> DatasetVersion:
    """Check that a version's files are those it was made with; returns its card. Raises UserError."""
    try:
        version = DatasetVersion.model_validate_json((folder / MANIFEST).read_bytes())
        content = (folder / "sft.jsonl").read_bytes() + (folder / "preference.jsonl").read_bytes()
    except (FileNotFoundError, ValidationError) as error:
        raise NotFound(f"{folder} is not a complete dataset version.", do="Make a new version.") from error
    if hashlib.sha256(content).hexdigest() != version.sha256:
        raise UserError(
            f"The files of {version.id} were changed after it was made.",
            "A version as it was frozen.",
            "Make a new version from the store, or put the original files back.",
        )
    return version


def _line(row: BaseModel) -> dict[str, Any]:
    """A row in the form training libraries read: chat messages, `content` rather than `text`."""
    if isinstance(row, Preference):
        return {
            "id": row.id,
            "prompt": [message.as_chat() for message in row.prompt],
            "chosen": [{"role": "assistant", "content": row.chosen}],
            "rejected": [{"role": "assistant", "content": row.rejected}],
            "source": row.source,
            "voter": row.voter,
        }
    line = row.model_dump(mode="json")
    if "messages" in line:
        line["messages"] = [message.as_chat() for message in getattr(row, "messages", ())]
    if isinstance(row, SftRow):
        line.pop("conversation_id")
    return line


def _jsonl(lines: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def _write(root: Path, version: DatasetVersion, contents: dict[str, bytes]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".making-", dir=root))
    try:
        for name, content in contents.items():
            write_synced(aside / f"{name}.jsonl", content)
        write_synced(aside / MANIFEST, version.model_dump_json(indent=2).encode())
        aside.chmod(0o755)
        aside.rename(root / version.id)
        sync(root)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise UserError(
            f"The dataset version could not be written to {root}: {error.strerror}.",
            do="Free some space, or check the folder's permissions, and press the button again.",
        ) from error


def reasons(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many of the `left_out` rows each reason holds, most frequent first."""
    counted: dict[str, int] = {}
    for row in rows:
        counted[row["reason"]] = counted.get(row["reason"], 0) + 1
    return dict(sorted(counted.items(), key=lambda pair: -pair[1]))
