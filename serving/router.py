"""vLLM's router in front of several engines: one address, the least busy first, a conversation where it was before."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

from annotation.errors import UserError
from annotation.ports import any_free_port, is_free
from serving.client import Client
from serving.daemon import Daemon
from serving.engine import START_LIMIT_SECONDS, EngineStatus

ATTEMPTS, FAILURES = 3, 2
"""How often a request is tried that no engine has begun to answer, and after how many failures in a row an engine is
left alone for a second. So a request survives one dead engine, and one that makes every engine fail leaves all but one
of them to the others.
"""
APART = 1
"""How many more requests an engine may have under way than another; beyond that, the least busy one is asked,
wherever the conversation was before.
"""


def argv(port: int, figures_port: int) -> list[str]:
    """The command line. It starts with no engine: which ones may answer is said to it later (`Router.only`).

    An engine that is gone is taken off by us at our next look. Until then the router leaves it alone for a second after
    FAILURES; without that a request would be sent where its conversation was before, again and again. The router's own
    look at them only covers for a studio that is away.
    """
    return [
        sys.executable,
        *("-m", "vllm_router.launch_router"),
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        # Without one it lets any page in a browser on this machine read what it answers. It serves no page itself.
        *("--cors-allowed-origins", f"http://127.0.0.1:{port}"),
        *("--policy", "cache_aware"),
        *("--balance-abs-threshold", str(APART)),
        *("--balance-rel-threshold", "1.0"),
        # Whom we let in is ready already.
        *("--worker-startup-timeout-secs", "5"),
        *("--worker-startup-check-interval", "1"),
        *("--retry-max-retries", str(ATTEMPTS)),
        *("--cb-failure-threshold", str(FAILURES)),
        *("--cb-success-threshold", "1"),
        *("--cb-timeout-duration-secs", "1"),
        *("--health-check-interval-secs", "2"),
        *("--health-check-timeout-secs", "10"),
        *("--health-failure-threshold", "3"),
        *("--health-success-threshold", "1"),
        *("--prometheus-host", "127.0.0.1"),
        *("--prometheus-port", str(figures_port)),
        *("--log-level", "warning"),
    ]


class Router:
    """The router as a process of ours. What is known about it is on disk, so any process may ask."""

    def __init__(self, home: Path, port: int = 0) -> None:
        self._daemon = Daemon(home, "router")
        self._wanted_port = port
        self._fingerprint = " ".join(argv(port, 0))

    @property
    def url(self) -> str:
        """Where it answers, '' while it was never started."""
        record = self._daemon.record()
        return record.url if record else ""

    @property
    def log(self) -> Path:
        """Where it writes what it does."""
        return self._daemon.log

    def start(self) -> None:
        """Start it, unless it is running. Raises UserError if it is not installed, or the port is taken."""
        with self._daemon.alone():
            if not self._daemon.runs(self._fingerprint):
                self._daemon.stop()
                self._start()

    def restart(self, pid: int | None) -> None:
        """Start it anew in place of process `pid`, at the same address; nothing happens if that was done already."""
        with self._daemon.alone():
            record = self._daemon.record()
            if record is not None and record.pid == pid:
                self._daemon.stop()
                self._start()

    def stop(self) -> None:
        """End it."""
        with self._daemon.alone():
            self._daemon.stop()

    def status(self) -> EngineStatus:
        """Whether it answers; this says nothing of the engines behind it."""
        record = self._daemon.record()
        if record is None:
            return EngineStatus(state="off")
        seconds = time.time() - record.started
        known = {"url": record.url, "pid": record.pid, "seconds": seconds}
        if not record.alive():
            return EngineStatus(state="crashed", message=self.why_crashed(), **known)
        if Client(record.url).answers("/liveness"):
            return EngineStatus(state="ready", phase="ready", fraction=1.0, **known)
        if seconds < START_LIMIT_SECONDS and "Router ready" not in self._daemon.log_since_start():
            return EngineStatus(state="starting", phase="starting the router", **known)
        return EngineStatus(state="unreachable", phase="not answering", message="The router does not answer.", **known)

    def why_crashed(self) -> str:
        """Where to look for the reason."""
        return f"The router in front of the engines ended. Its log is {self._daemon.log}."

    def workers(self) -> set[str]:
        """Addresses of the engines that it may ask. Raises UserError if it does not answer."""
        return set(Client(self.url).get("/list_workers")["urls"])

    def only(self, wanted: Collection[str]) -> None:
        """Let these engines answer and no others; replies under way are not touched. Raises UserError."""
        held = self.workers()
        for url in held.difference(wanted):
            Client(self.url).post(f"/remove_worker?url={quote(url, safe='')}", {})
        for url in sorted(set(wanted) - held):
            Client(self.url).post(f"/add_worker?url={quote(url, safe='')}", {})

    def _start(self) -> None:
        if importlib.util.find_spec("vllm_router") is None:
            raise UserError(
                "vLLM's router is not installed here.",
                "It, for more than one engine.",
                "Install it: `pip install 'tonesmith[serve-cpu]'` (or serve-gpu), or set TONESMITH_REPLICAS to 1.",
            )
        if self._wanted_port and not is_free(self._wanted_port):
            raise UserError(
                f"Port {self._wanted_port} for the engines is taken.",
                "A free port.",
                "Set TONESMITH_ENGINE_PORT to another, or to 0 to have one picked.",
            )
        port = self._daemon.free_port(self._wanted_port)
        self._daemon.home.mkdir(parents=True, exist_ok=True)
        # What goes to this machine itself goes through no proxy.
        variables = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        self._daemon.start(argv(port, any_free_port()), variables, port, self._fingerprint)
