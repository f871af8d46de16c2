"""Files that a download button hands out: one folder a process, each file under a name of its own."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tonesmith-"))


def offered(name: str, text: str) -> str:
    """Where `text` lies as a file of this name; written anew, since a tidy machine empties its temporary folder."""
    _folder().mkdir(exist_ok=True)
    path = _folder() / name
    path.write_text(text, encoding="utf-8")
    return str(path)
