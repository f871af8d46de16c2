"""A real Argilla server for a measurement: everything it writes is in one folder, and it has ended afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_cache_path

from annotation.argilla_server import ArgillaServer


@contextlib.contextmanager
def running_argilla(folder: Path) -> Iterator[ArgillaServer]:
    """Everything it writes is below `folder`; everything it starts has ended when this returns or raises."""
    server = ArgillaServer(folder, user_cache_path("tonesmith", ensure_exists=True))
    try:
        server.start()
        yield server
    finally:
        server.stop()
