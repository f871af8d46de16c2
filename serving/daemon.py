"""A process of ours that outlives the studio: which one it is stands on disk, so that others may adopt or end it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread

import psutil
from pydantic import ValidationError

from annotation.files import write_whole
from annotation.ports import any_free_port, is_free
from annotation.processes import began
from annotation.types import Frozen
from training.processes import stop_tree

LOG_TAIL_BYTES, LOG_LIMIT_BYTES = 40_000, 10_000_000


class Record(Frozen):
    """`engine.json` or `router.json`: which process is ours, so that a restarted studio finds it again."""

    pid: int
    created: float
    port: int
    fingerprint: str
    started: float
    """Seconds since the epoch."""
    log_start: int
    """Where this start begins in the log, in bytes."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def alive(self) -> bool:
        """Whether this very process is still there."""
        try:
            process = psutil.Process(self.pid)
            return abs(began(self.pid) - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Daemon:
    """One such process, called `name`: `home/name.json` is its record, `home/name.log` its log."""

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.log = home / f"{name}.log"
        self._file = home / f"{name}.json"
        self._guard = home / f".{name}.lock"
        self._lock = Lock()
        self._port = 0

    def record(self) -> Record | None:
        """What is known of it, None if it was never started, or was stopped."""
        try:
            return Record.model_validate_json(self._file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def runs(self, fingerprint: str) -> bool:
        """Whether it is running with these settings."""
        record = self.record()
        return record is not None and record.fingerprint == fingerprint and record.alive()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else starts or stops it meanwhile, in this process or another."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self._lock, self._guard.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def free_port(self, wanted: int = 0) -> int:
        """`wanted`, or else the one it had, where it can keep it for those who hold its address."""
        self._port = wanted or (self._port if self._port and is_free(self._port) else any_free_port())
        return self._port

    def start(self, command: Sequence[str], variables: Mapping[str, str], port: int, fingerprint: str) -> None:
        """Start `command` in a session of its own with just these `variables`, and write down which process it is."""
        if self.log.is_file() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as log:
            begin = log.tell()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(variables),
                start_new_session=True,
            )
        record = Record(
            pid=child.pid,
            created=began(child.pid),
            port=port,
            fingerprint=fingerprint,
            started=time.time(),
            log_start=begin,
        )
        write_whole(self._file, record.model_dump_json())
        Thread(target=child.wait, daemon=True).start()  # reap it, so that it is seen to be dead when it is

    def stop(self) -> None:
        """End it with all its processes, and forget it; nothing happens if there is none."""
        record = self.record()
        if record:
            self._port = record.port
            stop_tree(record.pid, record.created)
            _stop_orphans(record)
            self._file.unlink(missing_ok=True)

    def log_since_start(self) -> str:
        """The end of what it wrote since it was started last."""
        record = self.record()
        if not self.log.is_file():
            return ""
        begin = record.log_start if record else 0
        with self.log.open("rb") as log:
            log.seek(max(begin, self.log.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")


def _stop_orphans(record: Record) -> None:
    """End workers whose parent was killed: they share its session, whose number is the parent's."""
    if psutil.pid_exists(record.pid) and not record.alive():
        return  # the number is somebody else's by now, and so is the session
    for process in psutil.process_iter(["pid"]):
        try:
            if os.getsid(process.pid) == record.pid and began(process.pid) >= record.created - 1:
                process.kill()
        except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            continue
