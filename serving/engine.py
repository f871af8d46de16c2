"""Start, adopt, watch and restart vLLM. The engine lives in a session of its own and outlives a crash of the studio."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Literal, Protocol

from annotation.errors import UserError
from annotation.files import write_whole
from annotation.ports import is_free
from annotation.types import Frozen
from serving import attestation
from serving.attestation import Attesting
from serving.beating import Beating
from serving.client import Client
from serving.daemon import Daemon, Record
from serving.guarding import Guarding
from serving.leaving import Leaving
from serving.silence import STUCK_SECONDS, Silence
from serving.sleeping import SLEEP, WAKE, Sleeping, sleeps_in_place
from training.hardware import Hardware, dtype_for

log = logging.getLogger("tonesmith")
State = Literal["off", "starting", "ready", "crashed", "unreachable", "asleep"]
BASE = "base"
"""The name the base model answers to."""
PLUGIN = "tonesmith_cpu_lora"
"""Our plugin's name among vLLM's entry points."""
USUAL_START_SECONDS = 60.0
"""How long a start is taken to last before one was measured."""
START_LIMIT_SECONDS = 900.0
CRASHES_ALLOWED, CRASH_WINDOW_SECONDS = 3, 600.0
BACKOFF_SECONDS = (0.0, 5.0, 20.0)
"""Wait before the first, second and later restarts within the window."""
SILENCE_LIMIT_SECONDS = 60.0
KNOWN_ENDS = (
    (r"No module named '?vllm", "vLLM is not installed. Install the extra serve-cpu or serve-gpu."),
    (
        r"address already in use",
        "The engine's port was taken by another program. Choose another TONESMITH_ENGINE_PORT.",
    ),
    (r"(out of memory|not enough memory|Cannot allocate memory|MemoryError)", "The machine ran out of memory."),
    (r"No space left on device", "The disk is full."),
)
"""What in a log tells why an engine ended, and how to say it."""
MILESTONES = (
    ("Loading weights took", "warming up", 0.87),
    ("Starting to load model", "loading the model", 0.84),
    ("Initializing a V1 LLM engine", "starting the workers", 0.57),
    ("non-default args:", "reading the settings", 0.28),
)
"""What a line of the log says about how far the start is, the furthest first; shares of a start on two cores."""


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
    gpu_memory_share: float = 0.5
    """Share of a GPU's memory the engine takes, 0 to 1; the rest is the trainer's."""
    threads: int = 0
    """Of a CPU; 0 takes all of its cores."""
    devices: str = ""
    """The GPUs it sees, as in CUDA_VISIBLE_DEVICES; '' leaves that as it is."""
    extra: tuple[str, ...] = ()
    """More arguments for vLLM, as on its command line."""

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
    usual_seconds: float = USUAL_START_SECONDS
    """How long a start takes here, as far as is known."""
    attached: bool = False
    """Whether it is somebody else's engine, which we neither start nor stop."""
    adapters: bool = True
    """Whether adapters can be loaded into it."""
    attests: bool = True
    """Whether it says which weights answer; one that does not may mix base and adapters (`serving.stand_in`)."""


def unwatched_at_once(hardware: Hardware | None) -> int:
    """How many replies that nobody watches are asked for together; `hardware` is None for an engine that is not ours.

    About half of what vLLM works on at once (128 on a CPU, 256 or more on a GPU): it is hardly faster with more, and
    people who chat meanwhile need not queue.
    """
    if hardware is None:
        return 16
    return 128 if hardware.gpus else 64


def argv(config: EngineConfig, hardware: Hardware, port: int) -> list[str]:
    """The command line. On a CPU without bfloat16, float32 is four times faster; a GPU chooses for itself."""
    machine = (
        ["--gpu-memory-utilization", str(config.gpu_memory_share), "--enable-sleep-mode"]
        if hardware.gpus
        else ["--dtype", dtype_for(hardware)]
    )
    return [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        *("--model", str(config.model)),
        *("--served-model-name", BASE),
        "--enable-lora",
        *("--max-loras", str(config.max_adapters)),
        # Twice: what was unloaded stays until its replies have ended (`serving.leaving`).
        *("--max-cpu-loras", str(2 * config.max_adapters)),
        *("--max-lora-rank", str(config.max_rank)),
        *("--max-model-len", str(config.context)),
        # A reply's defaults come with each request, never from the model's folder.
        *("--generation-config", "vllm"),
        *(
            part
            for own in (Leaving, Attesting, Beating, Sleeping, Guarding)  # the last is asked first
            for part in ("--middleware", f"{own.__module__}.{own.__name__}")
        ),
        "--disable-uvicorn-access-log",  # a line for each look at its health would fill the disk
        *machine,
        *config.extra,
        # Last, so that nothing before them counts: whoever reaches this address can change what is served.
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
    ]


def _several_doors(extra: Sequence[str]) -> bool:
    """Whether arguments for vLLM ask for more than one API server or data-parallel copy, however they are written."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--api-server-count", "-asc", nargs="?")
    parser.add_argument("--data-parallel-size", "-dp", nargs="?")
    dashed = [name.replace("_", "-") + sign + value for name, sign, value in (one.partition("=") for one in extra)]
    asked, _ = parser.parse_known_args(dashed)
    return any(count not in (None, "1") for count in vars(asked).values())


def environment(config: EngineConfig, hardware: Hardware, libraries: tuple[Path, ...] = ()) -> dict[str, str]:
    """The variables to set over our own; `libraries` are preloaded on a CPU (a faster allocator and OpenMP)."""
    always = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",  # the model is a folder by now
        "TRANSFORMERS_OFFLINE": "1",
        # Three processes import vLLM, and without its bytecode on disk each compiles it anew: 109 s against 31 s.
        "PYTHONDONTWRITEBYTECODE": "",
        "VLLM_API_KEY": "",  # ours listens on this machine only, and a key meant for another server is not its own
        "VLLM_SERVER_DEV_MODE": "0",
    }
    if hardware.gpus:
        return always | ({"CUDA_VISIBLE_DEVICES": config.devices} if config.devices else {})
    cores = config.threads or hardware.cpu_cores
    return always | {
        "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # 'auto' keeps a core back, half the machine on two
        "OMP_NUM_THREADS": str(cores),
        "LD_PRELOAD": ":".join(str(library) for library in libraries),
    }


def _with_our_plugin(variables: dict[str, str]) -> dict[str, str]:
    """Where somebody has narrowed vLLM's plugins down, ours is added: without it a comparison lies (on a CPU)."""
    allowed = variables.get("VLLM_PLUGINS")
    if allowed is None or PLUGIN in allowed.split(","):
        return variables
    return variables | {"VLLM_PLUGINS": ",".join(filter(None, [allowed, PLUGIN]))}


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
        self._daemon = Daemon(home, "engine")
        self._asleep = home / "asleep"
        self._home = home
        self._hardware = hardware

    @property
    def url(self) -> str:
        """Address of the running engine, '' if there is none."""
        record = self._daemon.record()
        return record.url if record else ""

    @property
    def log(self) -> Path:
        """Where it writes what it does."""
        return self._daemon.log

    def start(self) -> None:
        """Start vLLM, unless ours is running with the same settings, or sleeps: then that goes on.

        Raises UserError if vLLM is not installed, the model is not there, or the port is taken.
        """
        with self._daemon.alone():
            if self._asleep.exists():
                self._rest()  # whoever put it to sleep may have been killed before it slept
            elif not self.adopt():
                self._daemon.stop()
                self._start()

    def restart(self, pid: int | None) -> None:
        """Start vLLM anew in place of process `pid`; nothing happens if it was replaced, switched off or put to sleep
        meanwhile.

        So two studios that see the same engine crash start one, not two that end each other. Raises UserError as
        `start` does.
        """
        with self._daemon.alone():
            record = self._daemon.record()
            if record is not None and record.pid == pid and not self._asleep.exists():
                self._daemon.stop()
                self._start()

    def sleep(self) -> None:
        """Give the memory back until `wake`: on a GPU vLLM keeps its process, elsewhere it ends. It stays asleep
        whatever happens to the studio.
        """
        with self._daemon.alone():
            write_whole(self._asleep, "")  # first, so that nobody takes its end for a crash
            self._rest()

    def wake(self) -> None:
        """Be there again after `sleep`, at the same address if it can; nothing happens to one that is awake.

        Raises UserError as `start` does.
        """
        with self._daemon.alone():
            if self._asleep.exists():
                if not self._told(WAKE):
                    self._daemon.stop()
                    self._start()
                self._asleep.unlink()

    def _rest(self) -> None:
        if not self._told(SLEEP):
            self._daemon.stop()

    def _told(self, what: str) -> bool:
        """Whether a running engine could do it without ending."""
        if not sleeps_in_place(self._hardware) or not self.adopt():
            return False
        try:
            Client(self.url).post(what, {})
        except UserError as error:
            log.warning("The engine did not answer %s, so it is ended: %s", what, error)
            return False
        return True

    def _start(self) -> None:
        self._check()
        port = self._daemon.free_port(self.config.port)
        self._home.mkdir(parents=True, exist_ok=True)
        command = argv(self.config, self._hardware, port)
        attested = self._home / "attested"
        shutil.rmtree(attested, ignore_errors=True)  # what the engine before this one had read
        variables = environment(self.config, self._hardware, preloads()) | {attestation.FOLDER: str(attested)}
        self._daemon.start(command, _with_our_plugin(os.environ | variables), port, self.config.fingerprint)

    def adopt(self) -> bool:
        """Whether ours is running (ready or on its way) with the present settings."""
        return self._daemon.runs(self.config.fingerprint)

    def stop(self) -> None:
        """Stop our engine with all its processes, and let it sleep no more; nothing happens if there is none."""
        with self._daemon.alone():
            self._daemon.stop()
            self._asleep.unlink(missing_ok=True)

    def status(self) -> EngineStatus:
        """The state now; asks the engine's health, at most two seconds."""
        record, usual = self._daemon.record(), self._usual_seconds()
        if self._asleep.exists():
            return EngineStatus(state="asleep", phase="asleep", usual_seconds=usual)
        if record is None:
            return EngineStatus(state="off", message="The engine is not running. `tonesmith up` starts it.")
        url, seconds = record.url, time.time() - record.started
        known = {"url": url, "pid": record.pid, "seconds": seconds, "usual_seconds": usual}
        if not record.alive():
            return EngineStatus(state="crashed", message=self.why_crashed(), **known)
        health, silent = Client(url).health(), 0.0
        if health == 200 and (silent := Client(url).silent_seconds()) > STUCK_SECONDS:
            message = f"It takes requests, but has not worked on any for {silent:.0f} s."
            return EngineStatus(state="unreachable", phase="not answering", message=message, **known)
        if health == 200:
            self._remember_start(record, seconds)
            return EngineStatus(state="ready", phase="ready", fraction=1.0, **known)
        if health == 503:  # the door stands, but the engine behind it is dead
            return EngineStatus(state="crashed", message=self.why_crashed(), **known)
        if (self._home / f"ready-{record.pid}").is_file():
            return EngineStatus(
                state="unreachable", phase="not answering", message="It has stopped answering.", **known
            )
        phase, fraction = self._progress(record, seconds)
        return EngineStatus(state="starting", phase=phase, fraction=fraction, **known)

    def why_crashed(self) -> str:
        """The reason, out of the log, as a sentence."""
        text = self._daemon.log_since_start()
        for pattern, sentence in KNOWN_ENDS:
            if re.search(pattern, text, re.IGNORECASE):
                return sentence
        errors = re.findall(r"^(?:\([^)]*\) *)?(?:ERROR.*?\] *)?([\w.]*(?:Error|Exception): .+)$", text, re.MULTILINE)
        # The outer processes only say that the inner one failed; the cause is what the inner one said.
        causes = [error for error in errors if not re.search(r"EngineDead|root cause|initialization failed", error)]
        if not causes:
            return f"The engine was stopped from outside, perhaps for lack of memory. Its log is {self.log}."
        reason = causes[-1].strip().rstrip(".")[:300]
        return f"The engine ended by itself: {reason}. Its log is {self.log}."

    def _check(self) -> None:
        if _several_doors(self.config.extra):
            raise UserError(
                f"The engine is to have several front doors or copies of itself: {' '.join(self.config.extra)}.",
                "One of each, since each has its own list of adapters, and a load reaches one.",
                "Leave --api-server-count and --data-parallel-size out, and set TONESMITH_REPLICAS instead.",
            )
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
        if self.config.port and not is_free(self.config.port):
            raise UserError(
                f"Port {self.config.port} for the engine is taken.",
                "A free port.",
                "Set TONESMITH_ENGINE_PORT to another, or to 0 to have one picked.",
            )

    def _progress(self, record: Record, seconds: float) -> tuple[str, float]:
        """Phase out of the log; the share also creeps with time, by how long the last start took."""
        by_time = min(0.97, seconds / self._usual_seconds())
        text = self._daemon.log_since_start()
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


class Attached:
    """An engine of somebody else's, found by its address: asked for its state, never started or stopped."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.names: tuple[str, ...] = ()
        """What it answered to when it was seen last, its base first."""
        self._client = Client(self.url, api_key)
        self._silence = Silence(self._client)
        self._adapters: bool | None = None
        self.attests = True
        """Whether it says which weights answer, as last seen."""

    @property
    def under_way(self) -> set[object]:
        """Our requests to it: pass it to `Client(under_way=…)`, so that it is seen when they wait in vain."""
        return self._silence.under_way

    @property
    def served(self) -> str:
        """What this server calls its base model, as last seen."""
        return next(iter(self.names), BASE)

    def start(self) -> None:
        """Nothing: it is not ours."""

    def stop(self) -> None:
        """Nothing: it is not ours."""

    def restart(self, pid: int | None) -> None:
        """Nothing: it is not ours."""

    def status(self) -> EngineStatus:
        """`ready` if it lists its models and does not seem dead or hung, else `unreachable` with the reason."""
        try:
            self.names = tuple(self._client.models())
            if self._adapters is None:  # asked once each time it comes back: it may be another one by then
                self._adapters = self._client.takes_adapters()
                self.attests = self._adapters and self._client.attests()
        except UserError as error:
            return self._unreachable(
                f"{error.found} Check TONESMITH_ENGINE_URL, or leave it out to have an engine started here."
            )
        trouble = self._silence.trouble(plugin=self.attests)
        if trouble:
            return self._unreachable(f"{trouble} Ask whoever looks after the engine at {self.url} to restart it.")
        return EngineStatus(
            state="ready",
            phase="ready",
            fraction=1.0,
            url=self.url,
            attached=True,
            adapters=bool(self._adapters),
            attests=self.attests,
        )

    def _unreachable(self, message: str) -> EngineStatus:
        self._adapters = None
        return EngineStatus(state="unreachable", phase="not answering", url=self.url, message=message, attached=True)

    def base(self) -> str:
        """The name this server gives its base model: pass it to `Client(base=…)`. Raises UserError."""
        self.names = self.names or tuple(self._client.models())
        return self.served

    def why_crashed(self) -> str:
        """It is not ours, so nothing is known but that it is gone."""
        return f"No engine answers at {self.url}."


class Watched(Protocol):
    """What a `Watcher` can keep up."""

    def status(self) -> EngineStatus: ...
    def restart(self, pid: int | None) -> None: ...
    def why_crashed(self) -> str: ...


class Watcher:
    """Keeps the engine up: restarts it when it crashes or stops answering, and says when it is ready anew.

    `on_ready` is called once for each start, from the watcher's thread; if it raises UserError it is called again at
    the next look. A restart waits longer each time (`BACKOFF_SECONDS`). After `CRASHES_ALLOWED` crashes within
    `CRASH_WINDOW_SECONDS` it gives up, and `gave_up` says why; a start by hand that succeeds ends that.
    """

    def __init__(self, engine: Watched, on_ready: Callable[[], None], every_seconds: float = 1.0) -> None:
        self._engine = engine
        self._on_ready = on_ready
        self._every = every_seconds
        self._crashes: deque[float] = deque(maxlen=CRASHES_ALLOWED)
        self._restart_at: float | None = None
        self._silent_since: float | None = None
        self._greeted: tuple[str, int | None] | None = None
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
        self.status = status.model_copy(update={"message": self.gave_up}) if self.gave_up else status
        if status.state == "ready":
            self.gave_up, self._silent_since = "", None
            self.status = status
            self._greet((status.url, status.pid))
        elif status.state == "asleep":
            self.gave_up, self._silent_since, self._greeted = "", None, None
            self.status = status
        elif status.attached:
            self._greeted = None  # it may come back with nothing loaded
        elif status.state == "unreachable":
            # A busy CPU may miss a look; only a long silence is a hang.
            self._silent_since = self._silent_since or time.monotonic()
            if time.monotonic() - self._silent_since > SILENCE_LIMIT_SECONDS:
                self._restart()
        elif status.state == "crashed" or (status.state == "starting" and status.seconds > START_LIMIT_SECONDS):
            self._restart()
        return self.status

    @property
    def greeted(self) -> bool:
        """Whether what was seen last is ready, and `on_ready` went well."""
        return self.status.state == "ready" and self._greeted == (self.status.url, self.status.pid)

    def _greet(self, which: tuple[str, int | None]) -> None:
        if self._greeted == which:
            return
        try:
            self._on_ready()
        except UserError as error:
            log.warning("The engine is ready, but not as it should be: %s", error)
        else:
            self._greeted = which

    def _restart(self) -> None:
        now = time.monotonic()
        if self.gave_up:
            return
        if self._restart_at is None:
            if len(self._crashes) == CRASHES_ALLOWED and now - self._crashes[0] < CRASH_WINDOW_SECONDS:
                why = self._engine.why_crashed()
                self.gave_up = f"{why} It was restarted {CRASHES_ALLOWED} times; it is left off now."
                return
            recent = sum(now - crash < CRASH_WINDOW_SECONDS for crash in self._crashes)
            self._crashes.append(now)
            self._restart_at = now + BACKOFF_SECONDS[min(recent, len(BACKOFF_SECONDS) - 1)]
        if now < self._restart_at:
            return
        self._restart_at = self._silent_since = None
        try:
            self._engine.restart(self.status.pid)
        except UserError as error:
            self.gave_up = str(error)
