"""Start, adopt, watch and restart vLLM. The engine lives in a session of its own and outlives a crash of the studio."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Literal

import psutil
from pydantic import ValidationError

from annotation.errors import UserError
from annotation.types import Frozen
from serving.client import Client
from training.files import write_whole
from training.hardware import Hardware, dtype_for
from training.processes import stop_tree

State = Literal["off", "starting", "ready", "crashed", "unreachable"]
BASE = "base"
"""The name the base model answers to."""
GIB = 2**30
USUAL_START_SECONDS = 60.0
"""How long a start is taken to last before one was measured."""
START_LIMIT_SECONDS = 900.0
CRASHES_ALLOWED, CRASH_WINDOW_SECONDS = 3, 600.0
MILESTONES = (
    ("Loading weights took", "warming up", 0.55),
    ("Starting to load model", "loading the model", 0.4),
    ("Initializing a V1 LLM engine", "starting the workers", 0.3),
    ("vLLM API server version", "reading the settings", 0.15),
)
"""What a line of the log says about how far the start is, the furthest first."""


class EngineConfig(Frozen):
    """What to serve and how. The runtime-LoRA endpoints change what is served, so the address is loopback, always."""

    model: Path
    """Folder of the base model."""
    port: int = 0
    """0 picks a free one."""
    max_adapters: int = 4
    """Adapters held at once."""
    max_rank: int = 32
    context: int = 2048
    """Longest prompt and reply together, in tokens."""
    kv_cache_gib: int = 2
    """Memory for the key-value cache on a CPU."""

    @property
    def fingerprint(self) -> str:
        """Tells an engine with these settings from one with others."""
        content = json.dumps([self.model_dump(mode="json"), sys.executable])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class EngineStatus(Frozen):
    """The engine's state, and what to do about it in words."""

    state: State
    phase: str = ""
    fraction: float = 0.0
    """Share of the start that is done, 0 to 1."""
    seconds: float = 0.0
    """Since it was started."""
    url: str = ""
    pid: int | None = None
    message: str = ""
    attached: bool = False
    """Whether it is somebody else's engine, which we neither start nor stop."""


class Record(Frozen):
    """`engine.json`: which process is ours, so that a restarted studio finds it again."""

    pid: int
    created: float
    port: int
    fingerprint: str
    started: float
    """Seconds since the epoch."""
    log_start: int
    """Where this start begins in the log, in bytes."""


def argv(config: EngineConfig, hardware: Hardware, port: int) -> list[str]:
    """The command line. On a CPU without bfloat16, float32 is four times faster; a GPU chooses for itself."""
    dtype = [] if hardware.gpus else ["--dtype", dtype_for(hardware)]
    return [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        *("--model", str(config.model)),
        *("--served-model-name", BASE),
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        "--enable-lora",
        *("--max-loras", str(config.max_adapters)),
        *("--max-cpu-loras", str(config.max_adapters)),
        *("--max-lora-rank", str(config.max_rank)),
        *("--max-model-len", str(config.context)),
        # A reply's defaults come with each request, never from the model's folder.
        *("--generation-config", "vllm"),
        *dtype,
    ]


def environment(config: EngineConfig, hardware: Hardware, libraries: tuple[Path, ...] = ()) -> dict[str, str]:
    """The variables to set over our own; `libraries` are preloaded on a CPU (a faster allocator and OpenMP)."""
    always = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",  # the model is a folder by now
        "TRANSFORMERS_OFFLINE": "1",
    }
    if hardware.gpus:
        return always
    cores = hardware.cpu_cores
    return always | {
        "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # 'auto' keeps a core back, half the machine on two
        "OMP_NUM_THREADS": str(cores),
        "LD_PRELOAD": ":".join(str(library) for library in libraries),
    }


def preloads() -> tuple[Path, ...]:
    """The allocator and OpenMP libraries that are there: a third more tokens a second on a CPU."""
    places = [Path(sys.prefix) / "lib", *(Path("/usr/lib").glob("*-linux-gnu"))]
    found = []
    for name in ("libtcmalloc_minimal.so.4", "libiomp5.so"):
        found += [place / name for place in places if (place / name).is_file()][:1]
    return tuple(found)


class Engine:
    """One vLLM process of ours. What is known about it is on disk, so any process may ask."""

    def __init__(self, config: EngineConfig, home: Path, hardware: Hardware) -> None:
        self.config = config
        self.log = home / "engine.log"
        self._home = home
        self._hardware = hardware
        self._lock = RLock()

    @property
    def url(self) -> str:
        """Address of the running engine, '' if there is none."""
        record = self._record()
        return f"http://127.0.0.1:{record.port}" if record else ""

    def start(self) -> None:
        """Start vLLM, unless ours is running with the same settings: then that one goes on.

        Raises UserError if vLLM is not installed, the model is not there, or the port is taken.
        """
        with self._lock:
            if self.adopt():
                return
            self.stop()
            self._check()
            port = self.config.port or _free_port()
            self._home.mkdir(parents=True, exist_ok=True)
            command = argv(self.config, self._hardware, port)
            variables = environment(self.config, self._hardware, preloads())
            with self.log.open("ab") as log:
                begin = log.tell()
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | variables,
                    start_new_session=True,
                )
            record = Record(
                pid=child.pid,
                created=psutil.Process(child.pid).create_time(),
                port=port,
                fingerprint=self.config.fingerprint,
                started=time.time(),
                log_start=begin,
            )
            write_whole(self._home / "engine.json", record.model_dump_json())
            Thread(target=child.wait, daemon=True).start()  # reap it, so that a dead engine is seen to be dead

    def adopt(self) -> bool:
        """Whether ours is running (ready or on its way) with the present settings."""
        record = self._record()
        return record is not None and record.fingerprint == self.config.fingerprint and _alive(record)

    def stop(self) -> None:
        """Stop our engine with all its processes; nothing happens if there is none."""
        with self._lock:
            record = self._record()
            if record:
                stop_tree(record.pid, record.created)
                self._stop_orphans(record)
                (self._home / "engine.json").unlink(missing_ok=True)

    def _stop_orphans(self, record: Record) -> None:
        """End workers whose parent was killed: they share its session, whose number is the parent's."""
        for process in psutil.process_iter(["pid"]):
            try:
                if os.getsid(process.pid) == record.pid and process.create_time() >= record.created - 1:
                    process.kill()
            except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
                continue

    def status(self) -> EngineStatus:
        """The state now; asks the engine's health, at most two seconds."""
        record = self._record()
        if record is None:
            return EngineStatus(state="off", message="The engine is not running. `tonesmith up` starts it.")
        url, seconds = f"http://127.0.0.1:{record.port}", time.time() - record.started
        known = {"url": url, "pid": record.pid, "seconds": seconds}
        if not _alive(record):
            return EngineStatus(state="crashed", message=self.why_crashed(), **known)
        if Client(url).healthy():
            self._remember_start(record, seconds)
            return EngineStatus(state="ready", phase="ready", fraction=1.0, **known)
        if (self._home / f"ready-{record.pid}").is_file():
            return EngineStatus(
                state="unreachable", phase="not answering", message="It has stopped answering.", **known
            )
        phase, fraction = self._progress(record, seconds)
        return EngineStatus(state="starting", phase=phase, fraction=fraction, **known)

    def why_crashed(self) -> str:
        """The reason, out of the log, as a sentence."""
        text = self._log_since_start()
        known = (
            (r"No module named '?vllm", "vLLM is not installed. Install the extra serve-cpu or serve-gpu."),
            (r"address already in use", "Its port was taken by another program. Choose another TONESMITH_ENGINE_PORT."),
            (r"(out of memory|Cannot allocate memory|MemoryError)", "The machine ran out of memory."),
            (r"No space left on device", "The disk is full."),
        )
        for pattern, sentence in known:
            if re.search(pattern, text, re.IGNORECASE):
                return sentence
        errors = re.findall(r"^(?:\([^)]*\) *)?(?:ERROR.*\] )?(\w*(?:Error|Exception): .+)$", text, re.MULTILINE)
        reason = errors[-1].strip()[:300] if errors else "it was stopped from outside"
        return f"The engine ended by itself: {reason}. Its log is {self.log}."

    def _check(self) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "vLLM is not installed here.",
                "The engine that answers.",
                "Install it: `pip install 'tonesmith[serve-cpu]'` (or serve-gpu), or set TONESMITH_ENGINE_URL to one "
                "that runs elsewhere. Reviewing and importing work without it.",
            )
        if not (self.config.model / "config.json").is_file():
            raise UserError(
                f"There is no model at {self.config.model}.",
                "A folder with a model.",
                "Set TONESMITH_BASE_MODEL to one, or leave it out for the embedded default.",
            )
        if self.config.port and not _is_free(self.config.port):
            raise UserError(
                f"Port {self.config.port} for the engine is taken.",
                "A free port.",
                "Set TONESMITH_ENGINE_PORT to another, or to 0 to have one picked.",
            )

    def _record(self) -> Record | None:
        try:
            return Record.model_validate_json((self._home / "engine.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _log_since_start(self) -> str:
        record = self._record()
        if not self.log.is_file():
            return ""
        with self.log.open("rb") as log:
            log.seek(record.log_start if record else 0)
            return log.read()[-40_000:].decode(errors="replace")

    def _progress(self, record: Record, seconds: float) -> tuple[str, float]:
        """Phase out of the log; the share also creeps with time, by how long the last start took."""
        by_time = min(0.97, seconds / self._usual_seconds())
        text = self._log_since_start()
        for sign, phase, share in MILESTONES:
            if sign in text:
                return phase, max(share, by_time)
        return "starting", by_time

    def _usual_seconds(self) -> float:
        try:
            return max(5.0, float((self._home / "start-seconds").read_text()))
        except (FileNotFoundError, ValueError):
            return USUAL_START_SECONDS

    def _remember_start(self, record: Record, seconds: float) -> None:
        mark = self._home / f"ready-{record.pid}"
        if mark.is_file():
            return
        for old in self._home.glob("ready-*"):
            old.unlink(missing_ok=True)
        mark.touch()
        (self._home / "start-seconds").write_text(f"{seconds:.1f}")


class Watcher:
    """Keeps the engine up: restarts it when it crashes or stops answering, and says when it is ready anew.

    `on_ready` is called once for each start, from the watcher's thread. After `CRASHES_ALLOWED` crashes within
    `CRASH_WINDOW_SECONDS` it gives up, and `gave_up` says so.
    """

    def __init__(self, engine: Engine, on_ready: Callable[[], None], every_seconds: float = 1.0) -> None:
        self._engine = engine
        self._on_ready = on_ready
        self._every = every_seconds
        self._crashes: deque[float] = deque(maxlen=CRASHES_ALLOWED)
        self._silent_since: float | None = None
        self._greeted: int | None = None
        self._stop = Event()
        self.gave_up = ""
        self.status = EngineStatus(state="off")
        """As last seen."""

    def run(self) -> None:
        """Watch until `stop` is called."""
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._every)

    def stop(self) -> None:
        """End `run` after the look under way."""
        self._stop.set()

    def look(self) -> EngineStatus:
        """Look once and act on it; returns the status seen."""
        status = self._engine.status()
        self.status = status
        if status.state == "ready":
            self._silent_since = None
            if self._greeted != status.pid:
                self._on_ready()
                self._greeted = status.pid
        elif status.state == "unreachable":
            # A busy CPU may miss a look; only a long silence is a hang.
            self._silent_since = self._silent_since or time.monotonic()
            if time.monotonic() - self._silent_since > 60:
                self._restart()
        elif status.state == "crashed" or (status.state == "starting" and status.seconds > START_LIMIT_SECONDS):
            self._restart()
        return status

    def _restart(self) -> None:
        now = time.monotonic()
        if self.gave_up:
            return
        if len(self._crashes) == CRASHES_ALLOWED and now - self._crashes[0] < CRASH_WINDOW_SECONDS:
            self.gave_up = f"{self._engine.why_crashed()} It was started {CRASHES_ALLOWED} times; it is left off now."
            return
        self._crashes.append(now)
        self._silent_since = None
        self._engine.stop()
        self._engine.start()


def _alive(record: Record) -> bool:
    try:
        process = psutil.Process(record.pid)
        return abs(process.create_time() - record.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
