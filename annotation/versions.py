"""Immutable dataset versions: rows become files once, under a hash, and never change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from annotation.curate import Judged, Rows, SftRow, curate, share_for
from annotation.errors import NotFound, UserError
from annotation.files import sync, write_synced
from annotation.store import Store
from annotation.types import DatasetVersion, Preference, utc_now

MANIFEST = "manifest.json"
FILES = ("sft", "preference", "unpaired", "held_out", "left_out")


def rows_in(store: Store) -> Iterator[Rows]:
    """What a version made now would hold, some hundreds of replies at a time."""
    outcomes = store.tasks.outcomes()
    share = share_for(outcomes.get("approved", 0) + outcomes.get("corrected", 0))
    return curate(_judged(store), store.comparisons.voted(), share, store.experiments.openings())


def _judged(store: Store) -> Iterator[list[Judged]]:
    for some in store.reviews.standings():
        conversations = store.conversations.of_replies(some)
        yield [
            Judged(reply_id, state, standing, conversations[reply_id]) for reply_id, (state, standing) in some.items()
        ]


def freeze(
    store: Store, root: Path, pieces: Iterable[Rows], charter_version: int, author: str, note: str = ""
) -> DatasetVersion:
    """Write `pieces` as the next version under `root` and keep its card.

    The folder appears complete or not at all (written aside piece by piece, synced, renamed); a folder whose card was
    lost to a crash is taken up by `recover`. Raises UserError if there is nothing to train on, or if the newest version
    already holds exactly this.
    """
    recover(store, root)
    newest = next(iter(store.datasets.all()), None)
    aside = _new_folder(root)
    try:
        counts = _write_pieces(aside, pieces)
        sha256 = _hash_of_rows(aside)
        _check_new(counts, sha256, newest)
        number = newest.number + 1 if newest else 1
        version = DatasetVersion(
            id=f"ds-{number}-{sha256[:8]}",
            number=number,
            parent_id=newest.id if newest else None,
            note=note.strip(),
            rows=counts,
            charter_version=charter_version,
            sha256=sha256,
            author=author,
            made_at=utc_now(),
        )
        write_synced(aside / MANIFEST, version.model_dump_json(indent=2).encode())
        aside.chmod(0o755)
        aside.rename(root / version.id)
        sync(root)
    except OSError as error:
        raise _not_written(root, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # gone already if all went well
    store.datasets.add(version)
    return version


def _check_new(counts: dict[str, int], sha256: str, newest: DatasetVersion | None) -> None:
    if not counts["sft"] and not counts["preference"]:
        raise UserError(
            "There is nothing to put into a dataset yet.",
            "At least one approved or corrected reply, or one vote.",
            "Review a few replies first.",
        )
    if newest and newest.sha256 == sha256:
        raise UserError(
            f"Version {newest.number} already holds exactly these rows.",
            do="Review or compare something new first, or train on that version.",
        )


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
        sha256 = _hash_of_rows(folder)
    except (FileNotFoundError, ValidationError) as error:
        raise NotFound(f"{folder} is not a complete dataset version.", do="Make a new version.") from error
    if sha256 != version.sha256:
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
            "strength": row.strength,
        }
    line = row.model_dump(mode="json")
    if "messages" in line:
        line["messages"] = [message.as_chat() for message in getattr(row, "messages", ())]
    if isinstance(row, SftRow):
        line.pop("conversation_id")
    return line


def _new_folder(root: Path) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".making-", dir=root))
    except OSError as error:
        raise _not_written(root, error) from error


def _write_pieces(folder: Path, pieces: Iterable[Rows]) -> dict[str, int]:
    """Write the rows of every piece, synced; returns the rows a file."""
    counts = dict.fromkeys(FILES, 0)
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.jsonl").open("wb")) for name in FILES}
        for piece in pieces:
            for name, file in files.items():
                for row in getattr(piece, name):
                    file.write(json.dumps(_line(row), ensure_ascii=False).encode() + b"\n")
                    counts[name] += 1
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    return counts


def _hash_of_rows(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("sft", "preference"):
        with (folder / f"{name}.jsonl").open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _not_written(root: Path, error: OSError) -> UserError:
    return UserError(
        f"The dataset version could not be written to {root}: {error.strerror}.",
        do="Free some space, or check the folder's permissions, and press the button again.",
    )


def reasons(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many of the `left_out` rows each reason holds, most frequent first."""
    counted: dict[str, int] = {}
    for row in rows:
        counted[row["reason"]] = counted.get(row["reason"], 0) + 1
    return dict(sorted(counted.items(), key=lambda pair: -pair[1]))
