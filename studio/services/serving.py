"""The engine and its adapters, as the page and the commands see them; a watcher keeps both as they should be."""

from __future__ import annotations

import logging
from datetime import datetime

from annotation.types import Frozen

log = logging.getLogger("tonesmith")
BASE = "base"
POLL_SECONDS = 0.5


class EngineView(Frozen):
    """The engine's state in words."""

    label: str
    detail: str
    tone: str
    """`good`, `busy`, `bad` or `quiet`."""
    fraction: float = 1.0
    """Share of the way to ready, 0 to 1."""
    ready: bool = False


class AdapterView(Frozen):
    """An adapter of the registry, and whether the engine holds it."""

    name: str
    loaded: bool
    problem: str
    dataset_id: str
    base_name: str
    created_at: datetime
