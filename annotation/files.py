"""Files that are whole or not there: written aside, synced, renamed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_whole(path: Path, content: str, mode: int = 0o644) -> None:
    """Put `content` at `path` in one step; a reader sees the old file or the new one, also after a crash.

    `mode`: who may read it, from its first byte on.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    os.close(os.open(aside, os.O_CREAT | os.O_WRONLY, mode))
    write_synced(aside, content.encode())
    aside.replace(path)
    sync(path.parent)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and push it to the disk itself."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Push a file, or a folder's list of names (so that a rename in it outlives a power cut), to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
