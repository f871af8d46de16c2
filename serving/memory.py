"""`serving.json`: what the engine should hold, and when each adapter was last asked for a reply."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, RLock
from typing import IO

from pydantic import Field, ValidationError

from annotation.files import write_whole
from annotation.types import Frozen

WRITE_SECONDS = 60.0
"""Uses are written down at most this often; a crash forgets no more than those since."""


class Parity(Frozen):
    """How an adapter is served, held against how it was trained; see `serving.probe`."""

    apart: float
    """Largest mean difference of an exchange's log-probabilities, of the adapter or the base, in nats a token."""
    same_prompt: bool
    """Whether the engine renders a request into the tokens the adapter was trained on."""
    holds: bool
    """Nothing speaks against it. False is an adapter that is served otherwise, or is not applied at all."""
    told: bool = True
    """Whether the adapter was seen to be applied; False where its training moved these exchanges too little to tell, at
    the engine's precision.
    """


class Held(Frozen):
    """What the file says."""

    wanted: tuple[str, ...] = ()
    """What the engine should hold, oldest load first."""
    offered: tuple[str, ...] = ()
    """What was ever offered to it."""
    used: dict[str, float] = Field(default_factory=dict)
    """When each was last loaded or asked for a reply, in seconds since the epoch."""
    effects: dict[str, float] = Field(default_factory=dict)
    """How far each moved the likelihood of fixed prompts when it was loaded, in nats a token; see `serving.probe`."""
    parities: dict[str, Parity] = Field(default_factory=dict)
    """Whether each is served as it was trained, as measured when it was loaded last."""
    bases: dict[str, tuple[tuple[float, ...], ...]] = Field(default_factory=dict)
    """How likely the base at each address found fixed prompts when it had no adapter beside it, in nats."""


class Hold:
    """A lock on what the engine holds: within this process, and over the file at `path` for all others. May be taken
    again by whoever has it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._here = RLock()
        self._times = 0
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        self._here.acquire()
        try:
            if not self._times:
                self._file = self._opened()
                fcntl.flock(self._file, fcntl.LOCK_EX)
        except BaseException:
            self._here.release()
            raise
        self._times += 1

    def __exit__(self, *error: object) -> None:
        self._times -= 1
        if not self._times and self._file:
            self._file.close()
        self._here.release()

    def free(self) -> bool:
        """Whether nobody else has it just now; for one who would rather come again than wait."""
        if not self._here.acquire(blocking=False):
            return False
        try:
            if self._times:
                return True
            with self._opened() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        finally:
            self._here.release()

    def _opened(self) -> IO[str]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._path.open("w")


class Memory:
    """The file and the uses not written yet. Share one within a process; others may have the file open as well."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._noted: dict[str, float] = {}
        self._noting = Lock()
        self._written = now()
        self.lock = Hold(path.with_name(f".{path.name}.hold"))
        """Hold it over a change of what the engine holds."""

    def read(self) -> Held:
        """What is remembered, with the uses that were only noted; nothing, if the file is missing or broken."""
        held = self._on_disk()
        with self._noting:
            return held.model_copy(update={"used": _newest(held.used, self._noted)})

    def note(self, name: str) -> None:
        """`name` was asked for a reply just now. Writes nothing, and waits for nobody."""
        with self._noting:
            self._noted[name] = self._now()

    def write_uses(self, at_once: bool = False) -> bool:
        """Write down the uses that were noted, if the last time is long enough ago; whether it did."""
        if not self._noted or (not at_once and self._now() - self._written < WRITE_SECONDS):
            return False
        self.change(lambda held: held)
        return True

    def change(self, how: Callable[[Held], Held]) -> None:
        """Write what `how` makes of what is remembered; nobody else changes it meanwhile."""
        with self._file_lock():
            with self._noting:
                noted, self._noted = self._noted, {}
            held = self._on_disk()
            held = how(held.model_copy(update={"used": _newest(held.used, noted)}))
            write_whole(self._path, held.model_dump_json())
            self._written = self._now()

    def _on_disk(self) -> Held:
        try:
            return Held.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return Held()

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(f".{self._path.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _newest(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in one | other}
