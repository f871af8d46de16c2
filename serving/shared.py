"""The adapters of an engine that others use too: another studio, or people with programs of their own."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from annotation.errors import UserError
from annotation.files import sha256_of
from serving.adapters import AdapterServer, Drift, held
from serving.client import Client, Refused
from serving.leaving import UNLOAD
from training import registry
from training.types import Adapter

log = logging.getLogger("tonesmith")


class SharedAdapters(AdapterServer):
    """As `AdapterServer`, and nothing is taken for a stray. What others pushed out comes back when it is asked for
    (`ensure_there`), or by itself where there is room.

    For one more, ours make room first, those people rely on last; somebody else's only if there is no other way, and
    only for what was asked for. None of ours is forgotten by that.
    """

    def loaded(self) -> list[str]:
        """Names of ours that the engine answers to just now."""
        wanted = self._wanted()
        return [name for name in super().loaded() if name in wanted]

    def at_hand(self) -> list[str]:
        """Names of ours, whether they are in just now or come when they are asked for."""
        return list(self._wanted())

    def restore(self) -> dict[str, str]:
        """As there is room."""
        self._note_bases()
        with self._memory.lock:
            drift = self.drift()
            return self.repair(drift) if drift else {}

    def drift(self, leave: Collection[str] = (), guests: bool = True) -> Drift | None:
        """What the engine lacks and has room for."""
        found = super().drift(leave)
        if found is None:
            return None
        (engine,) = self._engines
        room = max(0, self._max - len(held(engine)))
        return Drift(lacks=found.lacks[:room])

    def _holds(self, engine: Client, adapter: Adapter) -> bool:
        folder = held(engine).get(adapter.name)
        if folder is None:
            return False
        if folder in ("", str(adapter.path.resolve())) or _same(Path(folder), adapter):
            return True
        raise UserError(
            f"The engine holds another adapter under the name {adapter.name}, from {folder}.",
            f"The one in {adapter.path}.",
            "Have whoever loaded it take it out, or train this one again under another name.",
        )

    def _make_room(self, engine: Client, urgent: bool) -> bool:
        there, known, kept = held(engine), self._memory.read(), self._kept()
        ours = self._wanted()

        def when(name: str) -> tuple[bool, bool, float]:
            return (name not in ours, name in kept, known.used.get(name, 0.0))

        may_go = [name for name in sorted(there, key=when) if urgent or name in ours]
        too_many = max(0, len(there) - self._max + 1)
        if len(may_go) < too_many:
            return False
        for name in may_go[:too_many]:
            _unload(engine, name)
            if name not in ours:
                log.warning("%s, which somebody else loaded at %s, had to make room.", name, engine.base_url)
        return True

    def _take_out(self, name: str) -> None:
        for engine in self._engines:
            _unload(engine, name)
        self._forget(name)


def _unload(engine: Client, name: str) -> None:
    try:
        engine.post(UNLOAD, {"lora_name": name})
    except Refused:
        if name in held(engine):  # else it was taken out by somebody else, just before
            raise


def _same(folder: Path, adapter: Adapter) -> bool:
    weights = folder / registry.WEIGHTS
    return weights.is_file() and sha256_of(weights) == adapter.weights_sha256
