"""The engine and its adapters, as the page and the commands see them; a watcher keeps both as they should be."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx

from annotation.errors import UserError
from annotation.people import Person
from annotation.types import ChatModel, Provenance
from serving import attestation, probe, stand_in
from serving.adapters import AdapterServer
from serving.client import Client, NoEngine, Refused, not_held
from serving.engine import BASE, Attached, EngineConfig, EngineStatus, Watcher, unwatched_at_once
from serving.fitting import Base, base_shapes
from serving.memory import Memory
from serving.replicas import Keeper, Replicas, found
from serving.scripted import ScriptedModel
from serving.shared import SharedAdapters
from serving.sleeping import Idle
from studio.services.checked import Checked, must_be
from studio.services.engine_view import AdapterView, EngineView, in_words
from studio.services.measuring import Measuring
from studio.services.present import Present, gone
from studio.services.under_way import Counted, UnderWay
from studio.services.workload import EngineLoad, Workload, last_lines
from studio.settings import Settings
from training import base_model, registry
from training.hardware import detect, dtype_for
from training.weights import known_digest

log = logging.getLogger("tonesmith")
LOOK_SECONDS = 0.5
RETRY_SECONDS = 30.0
GRACE_SECONDS = 3.0
"""Between a load by hand and its measurement, which keeps the engine busy for a second or two."""


class ServingService:
    """What the pages and commands know of the engine.

    In the studio, `start` keeps an engine up and offers it each new adapter. A command calls `adopt` to use the engine
    that the studio keeps. `aliased()` names the adapters that people rely on, each with what it is.
    """

    def __init__(self, settings: Settings, aliased: Callable[[], Mapping[str, str]] = dict) -> None:
        self._settings = settings
        self._aliased = aliased
        self._memory = Memory(settings.engine_home / "serving.json")
        self._workload = Workload()
        self._under_way = UnderWay()
        self._idle = Idle(60 * settings.idle_minutes) if settings.idle_minutes else None
        self._stop = Event()
        self._thread: Thread | None = None
        self._engine: Replicas | Attached | None = None
        self._watcher: Keeper | Watcher | None = None
        self._preparing: tuple[str, float] | None = None
        self._trouble: UserError | None = None
        self._problems: dict[str, str] = {}
        self._loaded: tuple[str, ...] = ()
        self._measuring = Measuring()
        self._mended = ""
        self._stand_in: Path | None = None
        self._base_sha256: str | None = None

    # Starting and stopping

    def start(self) -> None:
        """Prepare the base model and bring the engine up, in the background; the page is usable meanwhile."""
        if self._settings.engine != "scripted":
            self._thread = Thread(target=self._run, name="serving", daemon=True)
            self._thread.start()

    def adopt(self, required: bool = True) -> bool:
        """Use the engine that runs already. False, or a UserError if `required`, if there is none that is ready."""
        if self._settings.engine == "scripted":
            return True
        elsewhere = self._elsewhere()
        folder = self._prepared()
        if elsewhere is None:
            count = found(self._settings.engine_home) or self._settings.replicas
            self._engine = self._new_engine(folder, count) if folder else None
        ready = self._status().state == "ready"
        if ready:
            self._loaded = () if elsewhere else tuple(self._server().at_hand())
        elif required:
            if self._status().state == "asleep":
                raise UserError("The engine is asleep.", "A running engine.", "`tonesmith engine wake` wakes it.")
            view = self.view()
            raise UserError(f"{view.label}.", "A running engine.", view.detail or "`tonesmith up` starts it.")
        return ready

    def close(self, stop_engine: bool) -> None:
        """End the watching; the engine too if `stop_engine`."""
        self._stop.set()
        if self._watcher:
            self._watcher.stop()
        if self._thread:
            self._thread.join(timeout=15)
        self._memory.write_uses(at_once=True)
        if stop_engine and self._engine:
            self._engine.stop()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._bring_up()
                self._trouble = None
                self._watch()
            except UserError as error:  # shown at the top of every page; what is wrong may be put right meanwhile
                log.warning("%s", error)
                self._trouble, self._preparing = error, None
                self._stop.wait(RETRY_SECONDS)

    def _bring_up(self) -> None:
        if self._elsewhere() is None:
            folder = self.prepare_base()
            self._base_hash()
            self._preparing = None
            self._engine = self._new_engine(folder, self._settings.replicas)
        assert self._engine is not None
        self._engine.start()
        watcher = self._new_watcher(self._engine)
        watcher.look()  # until it has, it takes the engine to be off
        self._watcher = watcher

    def _new_watcher(self, engine: Replicas | Attached) -> Keeper | Watcher:
        if isinstance(engine, Replicas):
            return Keeper(engine, self._restore, self._mend)
        return Watcher(engine, lambda: self._restore(self._client()))

    def _watch(self) -> None:
        assert self._watcher is not None
        while not self._stop.is_set():
            if self._watcher.look().state == "ready":
                self._put_right()
                self._offer_new()
            else:
                self._loaded = ()
                self._measuring.clear()
            self._memory.write_uses()
            self._sleep_if_idle()
            self._stop.wait(LOOK_SECONDS)

    def _restore(self, client: Client) -> None:
        if self._elsewhere():
            return
        server = self._server(client)
        problems = server.restore()
        held = server.loaded()
        self._problems = {name: why for name, why in (self._problems | problems).items() if name not in held}

    def _mend(self, client: Client) -> str:
        server = self._server(client)
        several = isinstance(self._engine, Replicas) and len(self._engine.engines) > 1
        # Of several all hold the same; one alone may be attached to by another studio.
        drift = server.drift(leave=self._problems, guests=not several)
        if not drift:
            return ""
        problems = server.repair(drift)
        self._problems |= problems
        told = drift.told(problems)
        log.warning("The engine at %s %s.", client.base_url, told)
        return told

    def _put_right(self) -> None:
        """What an engine that is not ours should hold; each of ours is seen to by `Keeper`."""
        if isinstance(self._engine, Attached) and not self._elsewhere():
            try:
                self._mended = self._mend(self._client()) or self._mended
            except UserError as error:  # it went away between two looks
                log.info("%s", error)

    def _offer_new(self) -> None:
        if self._elsewhere():
            return
        try:
            engines = self._engines()
            server = self._server(*engines)
            offered = server.offer_new()
            self._problems |= {name: problem for name, problem in offered.items() if problem}
            self._loaded = tuple(server.at_hand())
            where = _addresses(engines)
            name = self._measuring.next(server.loaded(), where)  # one a look, to see the rest too
            if name:
                self._measure(server, name, where)
        except UserError as error:  # the engine went away between two looks; the watcher sees to it
            log.info("%s", error)

    def _measure(self, server: AdapterServer, name: str, where: tuple[str, ...]) -> None:
        """Raises UserError if the engine went away; then it is tried again."""
        try:
            server.measure_again(name, self._tolerance())
        except probe.Unsound as error:
            log.warning("%s", error)
            self._problems[name] = error.found
            self._loaded = tuple(server.at_hand())
        except Refused as error:  # it does not say how likely a text is
            log.info("%s", error)
        except UserError:
            self._measuring.later(name, where, RETRY_SECONDS)
            raise
        self._measuring.done(name, where)

    # A server that is not ours and takes no adapters

    def _elsewhere(self) -> Attached | None:
        """The server that is attached to, if no adapter can be loaded there."""
        if self._settings.engine_url and self._engine is None:
            self._engine = Attached(self._settings.engine_url, self._settings.engine_key)
        if not isinstance(self._engine, Attached):
            return None
        seen = self._seen()
        return self._engine if seen.state == "ready" and not seen.adapters else None

    def _must_take_adapters(self) -> None:
        server = self._elsewhere()
        if server:
            raise UserError(
                f"The server at {server.url} takes no adapters: it is there for comparing only.",
                "A vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.",
                "Attach to one, or leave TONESMITH_ENGINE_URL out to have an engine started here.",
            )

    # Sleep

    def sleep(self, by: Person) -> None:
        """Have the engine give its memory back until somebody asks. Raises UserError while it is answering, and where
        it is not ours.
        """
        by.must("curate")
        engine = self._own()
        with self._under_way.shut() as ours:
            # Ours may not have reached the engine; others reach it with no word to us.
            there = sum(load.now.running + load.now.waiting for load in self.loads(afresh=True) if load.now)
            if busy := max(ours, there):
                raise UserError(
                    f"{'A request is' if busy == 1 else f'{busy} requests are'} being answered.",
                    "An engine that nobody is asking.",
                    "Try again when the replies are there.",
                )
            engine.sleep()

    def wake(self, by: Person) -> None:
        """Have the engine be there again; it gets its adapters back by itself. Raises UserError as `sleep`."""
        by.must("judge")
        self._own().wake()

    def wait_awake(self) -> None:
        """Look after the engine until it is ready with its adapters, for a command. Raises UserError if it fails."""
        keeper = self._new_watcher(self._own())
        while (status := keeper.look()).state != "ready":
            if keeper.gave_up or status.state in ("off", "asleep"):
                view = in_words(status, keeper.gave_up)
                raise UserError(f"{view.label}.", do=view.detail)
            time.sleep(LOOK_SECONDS)
        self._loaded = tuple(self._server(*self._engines()).at_hand())

    def _own(self) -> Replicas:
        if not isinstance(self._engine, Replicas):
            raise UserError(
                "There is no engine of ours." if self._engine is None else "This engine is somebody else's.",
                "One that Tonesmith started.",
                "Start it with `tonesmith up`.",
            )
        return self._engine

    def _sleep_if_idle(self) -> None:
        if self._idle is None or not isinstance(self._engine, Replicas) or not self._idle_by(self.loads()):
            return
        with self._under_way.shut() as ours:
            if not ours and self._idle_by(self.loads(afresh=True)):  # somebody may have asked since
                log.info("Nobody has asked for %g minutes: the engine goes to sleep.", self._settings.idle_minutes)
                self._engine.sleep()

    def _idle_by(self, loads: Sequence[EngineLoad]) -> bool:
        assert self._idle is not None
        return self._idle.too_long([load.now for load in loads if load.now], time.monotonic())

    # The base model

    def prepare_base(self) -> Path:
        """The base model's folder, prepared first if need be. Raises UserError."""

        def report(what: str, share: float) -> None:
            self._preparing = (what, share)

        settings = self._settings
        return base_model.prepare(settings.base_model, settings.cache, report, revision=settings.base_revision)

    def _prepared(self) -> Path | None:
        settings = self._settings
        return base_model.prepared(settings.base_model, settings.cache, settings.base_revision)

    def base_path(self) -> Path:
        """The base model's folder. Raises UserError while it is not there yet."""
        folder = self._prepared()
        if folder is None:
            view = self.view()
            raise UserError("The base model is not ready yet.", do=f"{view.label}. Try again in a minute.")
        return folder

    # The engine

    def model(self, pieces: bool = True) -> ChatModel:
        """Who answers, piece by piece or (where nobody watches) whole. Raises UserError with the engine's state if
        nobody can.
        """
        if self._settings.engine == "scripted":
            return Checked(ScriptedModel(), self._memory, self.identify)
        self._must_be_up()
        if self._elsewhere():
            return self._client(pieces)  # nothing is known here of its weights
        checked = Checked(self._present(pieces), self._memory, self.identify, silence=not self.ours)
        return Counted(checked, self._under_way)

    def _present(self, pieces: bool) -> Present[Client]:
        return Present(lambda model, again: self._asked_of(model, pieces, again), at_once=self.ours)

    def _asked_of(self, model: str, pieces: bool, again: bool) -> Client:
        """The engine, which holds `model` by then; `again`: it was asked already, and did not. Raises UserError."""
        if model == BASE or self._elsewhere():
            if again and (self.ours or self._elsewhere()):  # the stand-in for a base may have been taken out
                raise not_held(model)
            return self._client(pieces)
        self.must_be_sound(model)
        if again or not self.ours:  # ours is looked after by its watcher
            if model not in (*self._memory.read().wanted, *self._aliased()):
                raise not_held(model)
            self._server().ensure_there(model)
        return self._client(pieces)

    def must_be_sound(self, model: str) -> None:
        """Raise UserError for an adapter that was seen not to be served as it was trained."""
        if self._settings.engine != "scripted":
            probe.must_hold(model, self._memory.read().parities.get(model))

    def _must_be_up(self) -> None:
        seen = self._seen()
        if seen.state == "asleep" and isinstance(self._engine, Replicas):
            self._engine.wake()
            raise NoEngine(
                "The engine was asleep and is waking up.",
                do=f"It is there in about {max(5, round(seen.usual_seconds, -1)):.0f} s; what you wrote is kept. "
                "Ask again then.",
            )
        if seen.state not in ("ready", "unreachable"):
            view = self.view()
            raise NoEngine(f"{view.label}.", do=view.detail or "Try again in a moment.")

    @asynccontextmanager
    async def answered(self, path: str, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """The engine's own answer to a request for `body["model"]`, as it begins to come; none of it from other weights
        than were asked for.

        Raises NotFound for a model that is none, NoEngine, Refused, and UserError if the engine breaks off.
        """
        model = str(body["model"])
        wanted = await asyncio.to_thread(self._check_asked, model)
        async with AsyncExitStack() as opened:
            opened.enter_context(self._under_way.one())
            response = await self._open(opened, path, body)
            if not self._elsewhere():
                must_be(model, wanted, attestation.said(response.headers), silence=not self.ours)
            yield response

    async def _open(self, opened: AsyncExitStack, path: str, body: dict[str, Any]) -> httpx.Response:
        model, pieces = str(body["model"]), bool(body.get("stream"))
        try:
            async for client, helps in self._present(pieces).tries(model):
                try:
                    return await opened.enter_async_context(client.answered(path, body))
                except Refused as refusal:
                    if not helps(refusal):
                        raise
        except Refused as error:
            if gone(error) and model in (*self._memory.read().wanted, *self._aliased()):
                raise NoEngine(f"{model} is just being loaded.", do="Try again in a moment.") from error
            raise
        raise AssertionError("the last refusal is raised")

    def _check_asked(self, model: str) -> Provenance:
        if self._settings.engine == "scripted":
            raise NoEngine("There is no engine here: replies are scripted.", do="Start the studio with an engine.")
        wanted = self.identify(model)
        self._must_be_up()
        if model != BASE:
            self._memory.note(model)
        return wanted

    def unwatched_at_once(self) -> int:
        """How many replies that nobody watches it may be asked for together."""
        engines = len(self._engine.engines) if isinstance(self._engine, Replicas) else 1
        return engines * unwatched_at_once(detect() if self.ours else None)

    def view(self) -> EngineView:
        """The engine's state in words, without asking it where the watcher just did."""
        if self._settings.engine == "scripted":
            return EngineView(
                label="Scripted replies", detail="No engine: the replies are canned.", tone="quiet", ready=True
            )
        if self._trouble:
            detail = " ".join(part for part in (self._trouble.wanted, self._trouble.do) if part)
            return EngineView(label=self._trouble.found.rstrip("."), detail=detail, tone="bad")
        if self._preparing:
            what, share = self._preparing
            detail = "Only the first time. You can review meanwhile."
            return EngineView(label=what, detail=detail, tone="busy", fraction=share * 0.5)
        gave_up = self._watcher.gave_up if self._watcher else ""
        return in_words(self._seen(), gave_up)

    def _seen(self) -> EngineStatus:
        return self._watcher.status if self._watcher else self._status()

    def _status(self) -> EngineStatus:
        if self._engine is None:
            return EngineStatus(state="off", message="`tonesmith up` starts it.")
        return self._engine.status()

    def _new_engine(self, folder: Path, count: int) -> Replicas | Attached:
        if self._settings.engine_url:
            return Attached(self._settings.engine_url, self._settings.engine_key)
        config = EngineConfig(
            model=folder,
            port=self._settings.engine_port,
            max_adapters=self._settings.max_adapters,
            max_rank=self._settings.max_rank,
            context=self._settings.context,
        )
        return Replicas(config, self._settings.engine_home, detect(), count)

    def _client(self, pieces: bool = True) -> Client:
        engine = self._engine
        if isinstance(engine, Attached):
            base = self._asked_as_base(engine)
            key, waiting = self._settings.engine_key, engine.under_way
            return Client(engine.url, key, base, pieces, scores=engine.attests, under_way=waiting)
        return Client(engine.url if engine else "", pieces=pieces)

    def _asked_as_base(self, server: Attached) -> str:
        """What to ask an engine of somebody else's for, to hear its base and nothing else. Raises UserError."""
        if server.attests or self._elsewhere():
            return server.base()
        if self._stand_in is None:
            self._stand_in = stand_in.make(self._settings.engine_home, base_shapes(self.base_path()))
        return stand_in.put_in(Client(server.url, self._settings.engine_key), self._stand_in) or server.base()

    def _engines(self) -> Sequence[Client]:
        """Each engine that is ready, to be told what to hold; the router is only for those who ask."""
        if isinstance(self._watcher, Keeper):
            return self._watcher.fit
        return self._engine.ready() if isinstance(self._engine, Replicas) else (self._client(),)

    # Adapters

    def choices(self) -> list[tuple[str, str]]:
        """(label, name) of what can be chatted with: the base, then the loaded adapters, newest first.

        Of a server that takes none, its models; the first of them stands as the base.
        """
        server = self._elsewhere()
        if server:
            return [(name, BASE if name == server.served else name) for name in server.names]
        loaded = [
            adapter.name for adapter in registry.all_adapters(self._settings.adapters) if adapter.name in self._loaded
        ]
        return [(f"Base model ({self._settings.base_name})", BASE), *((name, name) for name in loaded)]

    def adapters(self) -> list[AdapterView]:
        """All adapters, newest first."""
        held = self._memory.read()
        return [
            AdapterView(
                name=adapter.name,
                loaded=adapter.name in self._loaded,
                problem=self._problems.get(adapter.name, ""),
                dataset_id=adapter.dataset_id,
                base_name=adapter.base_name,
                created_at=adapter.created_at,
                weights_sha256=adapter.weights_sha256,
                last_used=datetime.fromtimestamp(held.used[adapter.name], UTC) if adapter.name in held.used else None,
                effect=held.effects.get(adapter.name),
                parity=held.parities.get(adapter.name),
            )
            for adapter in registry.all_adapters(self._settings.adapters)
        ]

    def load(self, name: str, by: Person) -> None:
        """Load an adapter now. What it does is measured too: in our own engine by its watcher, a little later, so that
        whoever loaded it can ask it at once. Raises UserError that says why it can't be.
        """
        by.must("curate")
        self.model()
        self._must_take_adapters()
        if self._settings.engine == "scripted":
            registry.get(self._settings.adapters, name)
            self._memory.note(name)
            self._loaded = (*(kept for kept in self._loaded if kept != name), name)
            return
        engines = self._engines()
        server = self._server(*engines)
        if self._watcher and self.ours:  # somebody else's must first say what its base says without it
            # Before it is there: the watcher looks meanwhile.
            self._measuring.later(name, _addresses(engines), GRACE_SECONDS)
            server.load(name)
        else:
            server.measure(name, self._tolerance())
            self._measuring.done(name, _addresses(engines))  # the watcher need not do it again
        self._problems.pop(name, None)
        self._loaded = tuple(server.at_hand())

    def ensure(self, name: str, by: Person) -> None:
        """Load an adapter unless it is loaded. Raises UserError that says why it can't be, or why it should not be
        relied on.
        """
        by.must("curate")
        registry.get(self._settings.adapters, name)
        self.model()
        self._must_take_adapters()
        if name not in (self._loaded if self._settings.engine == "scripted" else self._server().loaded()):
            self.load(name, by)
        self.must_be_sound(name)

    def unload(self, name: str, by: Person) -> None:
        """Take an adapter out. Raises UserError for one that people rely on."""
        by.must("curate")
        self.model()
        self._must_take_adapters()
        registry.get(self._settings.adapters, name)
        if self._settings.engine == "scripted":
            self._loaded = tuple(kept for kept in self._loaded if kept != name)
            return
        server = self._server()
        server.unload(name)
        self._loaded = tuple(server.at_hand())

    def _tolerance(self) -> float:
        ours = isinstance(self._engine, Replicas)
        return probe.UNCHANGED if ours and dtype_for(detect()) == "float32" else probe.UNCHANGED_HALF

    def identify(self, model: str) -> Provenance:
        """Whose weights `model` stands for: `base`, an adapter of the registry, or a model of a server that takes none.
        Raises NotFound.
        """
        server = self._elsewhere()
        if server and model in (BASE, *server.names):
            return Provenance(model=server.served if model == BASE else model, elsewhere=server.url)
        if model == BASE:
            return Provenance(model=self._base_called(), base_sha256=self._base_hash())
        adapter = registry.get(self._settings.adapters, model)
        return Provenance(
            model=adapter.base_name,
            adapter=adapter.name,
            weights_sha256=adapter.weights_sha256,
            base_sha256=self._base_hash(),
        )

    def _base_called(self) -> str:
        """By its own name where somebody else's server has another one than ours."""
        served = self._engine.served if isinstance(self._engine, Attached) else BASE
        return self._settings.base_name if served == BASE else served

    @property
    def ours(self) -> bool:
        """Whether the engine is one that is started here."""
        return self._settings.engine == "vllm" and not self._settings.engine_url

    def _base_hash(self) -> str | None:
        """Of the base's weights as they were when this process first asked; None where others serve them."""
        folder = self._prepared() if self.ours and self._base_sha256 is None else None
        if folder is not None:
            self._base_sha256 = known_digest(folder, self._settings.cache / "hashes")
        return self._base_sha256

    def _server(self, *engines: Client) -> AdapterServer:
        """The adapters of these engines; of all that are ready, if none is named."""
        base = Base(
            name=self._settings.base_name,
            folder=self.base_path(),
            revision=self._settings.base_revision,
            max_rank=self._settings.max_rank,
            sha256=self._base_hash(),
        )
        settings = self._settings
        kind = AdapterServer if self.ours else SharedAdapters
        return kind(
            engines or self._engines(), settings.adapters, self._memory, base, settings.max_adapters, self._aliased
        )

    # What the engine says of itself

    def loads(self, afresh: bool = False) -> list[EngineLoad]:
        """How hard each engine works, and in what state it is; empty while there is none to ask. `afresh`: not even a
        second ago.
        """
        engine, watcher = self._engine, self._watcher
        if isinstance(engine, Replicas):
            keeper = watcher if isinstance(watcher, Keeper) else None
            statuses = keeper.statuses if keeper else [one.status() for one in engine.engines]
            return self._workload.of(statuses, keeper.mended if keeper else {}, afresh=afresh)
        mended = {1: self._mended} if self._mended else {}
        return self._workload.of([self._seen()], mended, self._settings.engine_key, afresh) if engine else []

    def last_lines(self, by: Person) -> list[str]:
        """The end of each engine's log, oldest first; empty for an engine that is not ours."""
        by.must("curate")
        return last_lines(self._engine.logs) if isinstance(self._engine, Replicas) else []


def _addresses(engines: Sequence[Client]) -> tuple[str, ...]:
    return tuple(engine.base_url for engine in engines)
