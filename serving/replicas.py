"""One engine or several that hold the same, behind one address; with several, vLLM's router stands in front of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from annotation.errors import UserError
from annotation.types import Frozen
from serving.client import Client
from serving.daemon import Daemon
from serving.engine import Engine, EngineConfig, EngineStatus, Watcher
from serving.router import Router
from training.hardware import Hardware

RUNNING = ("engine.json", "asleep")
"""What stands in the folder of an engine that was started and not stopped."""


class Share(Frozen):
    """What one replica has of the machine."""

    threads: int = 0
    """Of the CPU; 0 is all."""
    devices: str = ""
    """Its GPU, as in CUDA_VISIBLE_DEVICES; '' is as it comes."""


def shares(hardware: Hardware, count: int, visible: str | None = None) -> list[Share]:
    """The machine shared out among `count` replicas: a GPU for each, or the CPU's cores as evenly as they go.

    `visible` is our own CUDA_VISIBLE_DEVICES. GPUs that are left over stay free for training. Raises UserError if
    there are not enough.
    """
    if count == 1:
        return [Share()]
    gpus = visible.split(",") if visible else [str(number) for number in range(len(hardware.gpus))]
    there, what = (len(gpus), "GPUs") if hardware.gpus else (hardware.cpu_cores, "CPU cores")
    if count > there:
        raise UserError(
            f"{count} replicas are wanted, and there are {there} {what}.",
            "One for each, at least.",
            f"Set TONESMITH_REPLICAS to {max(1, there)} or less.",
        )
    if hardware.gpus:
        return [Share(devices=gpu.strip()) for gpu in gpus[:count]]
    each, more = divmod(hardware.cpu_cores, count)
    return [Share(threads=each + (number < more)) for number in range(count)]


def found(home: Path) -> int:
    """How many replicas were started in `home`, by whatever process; 0 if there are none behind a router."""
    places = [place for place in home.glob("replica-*") if any((place / name).exists() for name in RUNNING)]
    return len(places) if (home / "router.json").is_file() else 0


class Replicas:
    """Engines of ours with one address. One alone needs no router and keeps its files in `home` itself; of several,
    each has a folder there.
    """

    def __init__(self, config: EngineConfig, home: Path, hardware: Hardware, count: int = 1) -> None:
        self._home = home
        parts = shares(hardware, count, os.environ.get("CUDA_VISIBLE_DEVICES"))
        several = {"port": 0} if count > 1 else {}  # the port that was asked for is the router's
        homes = [home / f"replica-{number}" for number in range(1, count + 1)] if count > 1 else [home]
        self.engines = tuple(
            Engine(config.model_copy(update=several | part.model_dump()), place, hardware)
            for part, place in zip(parts, homes, strict=True)
        )
        self.router = Router(home, config.port) if count > 1 else None

    @property
    def url(self) -> str:
        """The one address, '' while there is none."""
        return self.router.url if self.router else self.engines[0].url

    @property
    def logs(self) -> list[Path]:
        """Where the engines write, and the router."""
        return [engine.log for engine in self.engines] + ([self.router.log] if self.router else [])

    def start(self) -> None:
        """Start what is not running, and end what an earlier number of replicas left. Raises UserError."""
        self._stop_others()
        for engine in self.engines:
            engine.start()
        if self.router:
            self.router.start()

    def adopt(self) -> bool:
        """Whether all engines are running with the present settings."""
        return all(engine.adopt() for engine in self.engines)

    def stop(self) -> None:
        """Stop all of it."""
        if self.router:
            self.router.stop()
        self._each(Engine.stop)
        self._stop_others()

    def sleep(self) -> None:
        """Have all engines give their memory back; the router stays, and so does the address."""
        if self.router and self.router.status().state == "ready":
            self.router.only(())
        self._each(Engine.sleep)

    def wake(self) -> None:
        """Have all engines be there again. Raises UserError as `Engine.wake`."""
        self._each(Engine.wake)

    def status(self) -> EngineStatus:
        """The state of the whole, asked now."""
        return together(
            [engine.status() for engine in self.engines], self.router.status() if self.router else None, self._let_in()
        )

    def ready(self) -> list[Client]:
        """A client of each engine that is ready, itself and not through the router."""
        return [Client(engine.url) for engine in self.engines if engine.status().state == "ready"]

    def _let_in(self) -> int:
        try:
            return len(self.router.workers()) if self.router else 0
        except UserError:
            return 0

    def _each(self, what: Callable[[Engine], None]) -> None:
        with ThreadPoolExecutor(len(self.engines)) as pool:
            list(pool.map(what, self.engines))

    def _stop_others(self) -> None:
        ours = {engine.log.parent for engine in self.engines}
        for place in {self._home, *self._home.glob("replica-*")} - ours:
            Daemon(place, "engine").stop()
            (place / "asleep").unlink(missing_ok=True)
        if not self.router:
            Daemon(self._home, "router").stop()


def together(engines: Sequence[EngineStatus], router: EngineStatus | None, let_in: int) -> EngineStatus:
    """What several engines and their router come to; `let_in` of them may answer. One engine alone speaks for itself.

    Some that answer are enough to be ready; the message says what is with the others.
    """
    if router is None:
        return engines[0]
    known = {"url": router.url, "pid": router.pid}
    if router.state == "ready" and let_in:
        others = [
            f"replica {number} is {one.phase or one.state}"
            for number, one in enumerate(engines, 1)
            if one.state != "ready"
        ]
        message = f"{let_in} of {len(engines)} replicas answer; {', '.join(others)}." if others else ""
        return EngineStatus(state="ready", phase="ready", fraction=1.0, message=message, **known)
    if router.state in ("crashed", "unreachable") and any(one.state == "ready" for one in engines):
        return router
    furthest = max(engines, key=lambda one: (RANK.index(one.state), one.fraction))
    if furthest.state == "ready":  # it gets its adapters, or the router is on its way
        furthest = furthest.model_copy(update={"state": "starting", "phase": "loading adapters", "fraction": 0.99})
    return furthest.model_copy(update=known)


RANK = ("off", "crashed", "unreachable", "asleep", "starting", "ready")
"""Which of several states speaks for all while none answers: the last in this row."""


class Keeper:
    """Keeps all of it up, each as a `Watcher` does, and lets the router ask only engines that hold what they should.

    `prepare(client)` is called for each start of an engine before anybody else may ask it; `mend(client)` at each look
    puts right what it holds, and returns in words what that was, '' for nothing. Either may raise UserError: then the
    engine is asked nothing, and the call comes again.
    """

    def __init__(
        self, replicas: Replicas, prepare: Callable[[Client], None], mend: Callable[[Client], str] = lambda client: ""
    ) -> None:
        self._replicas = replicas
        self._prepare = prepare
        self._mend = mend
        self._watchers = [Watcher(engine, self._greeting(engine)) for engine in replicas.engines]
        self._router = Watcher(replicas.router, lambda: None) if replicas.router else None
        self.fit: tuple[Client, ...] = ()
        """The engines that are ready and hold what they should, as last seen."""
        self.mended: dict[int, str] = {}
        """What was last put right, by the replica's number, from 1."""
        self.status = EngineStatus(state="off")
        """Of the whole, as last seen."""

    @property
    def statuses(self) -> list[EngineStatus]:
        """Of each engine, as last seen."""
        return [watcher.status for watcher in self._watchers]

    @property
    def gave_up(self) -> str:
        """Why nothing is tried any more, '' while something is: trouble of the router, or of every engine."""
        why = [watcher.gave_up for watcher in self._watchers]
        return (self._router.gave_up if self._router else "") or (why[0] if all(why) else "")

    def stop(self) -> None:
        """Nothing: it looks only when it is told to."""

    def look(self) -> EngineStatus:
        """Look at all once and act on it; returns the status of the whole."""
        for watcher in self._watchers:
            watcher.look()
        fit = [place for place, watcher in enumerate(self._watchers) if watcher.greeted and self._sound(place)]
        self.fit = tuple(self._client(place) for place in fit)
        let_in = self._let_in(fit)
        self.status = together(self.statuses, self._router.status if self._router else None, let_in)
        return self.status

    def _greeting(self, engine: Engine) -> Callable[[], None]:
        return lambda: self._prepare(Client(engine.url))

    def _client(self, place: int) -> Client:
        return Client(self._watchers[place].status.url)

    def _sound(self, place: int) -> bool:
        try:
            told = self._mend(self._client(place))
        except UserError:
            return False
        if told:
            self.mended[place + 1] = told
        return True

    def _let_in(self, fit: Collection[int]) -> int:
        """Tell the router who may answer; returns how many that are."""
        router = self._replicas.router
        if router is None or self._router is None or self._router.look().state != "ready":
            return 0
        slow = (place for place, one in enumerate(self.statuses) if one.state == "unreachable")
        asked = self._urls(fit or slow)  # a slow one is better than none
        try:
            router.only(asked)
        except UserError:
            return 0
        return len(asked)

    def _urls(self, places: Iterable[int]) -> list[str]:
        return [self._watchers[place].status.url for place in places]
