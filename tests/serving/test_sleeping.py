"""Sleep and wake: who stays asleep, who wakes, and when it is time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving import engine as engine_module
from serving.engine import Engine, EngineConfig, EngineStatus, Watcher
from serving.metrics import Figures
from serving.sleeping import SLEEP, WAKE, Idle, Sleeping
from studio.services.engine_view import in_words
from training.hardware import GIB, Gpu, Hardware

CPU = Hardware(cpu_cores=2)
GPU = Hardware(gpus=(Gpu(name="L4", memory_bytes=24 * GIB, capability=(8, 9)),))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine whose process only waits."""
    monkeypatch.setattr(engine_module, "argv", lambda *settings: [sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / "config.json").write_text("{}")
    made = Engine(EngineConfig(model=tmp_path), tmp_path / "engine", CPU)
    made.start()
    yield made
    made.stop()


def again(engine: Engine) -> Engine:
    """As the next studio sees it."""
    return Engine(engine.config, engine.log.parent, CPU)


def test_on_a_cpu_an_engine_that_sleeps_is_gone_and_stays_so_for_every_studio(engine: Engine) -> None:
    running = engine._daemon.record()
    assert running
    engine.sleep()
    assert not running.alive()
    next_one = again(engine)
    next_one.start()
    next_one.restart(running.pid)
    assert (next_one.status().state, next_one._daemon.record()) == ("asleep", None)


def test_a_studio_killed_while_it_put_the_engine_to_sleep_is_finished_by_the_next(engine: Engine) -> None:
    running = engine._daemon.record()
    assert running
    engine._asleep.touch()
    again(engine).start()
    assert not running.alive()
    assert engine.status().state == "asleep"


def test_it_wakes_once_at_its_old_address(engine: Engine) -> None:
    before = engine.url
    engine.sleep()
    engine.wake()
    woken = engine._daemon.record()
    assert woken
    assert (engine.status().state, engine.url) == ("starting", before)
    again(engine).wake()
    assert engine._daemon.record() == woken


def test_an_engine_that_is_stopped_sleeps_no_more(engine: Engine) -> None:
    engine.sleep()
    engine.stop()
    assert engine.status().state == "off"


def test_the_watcher_lets_it_sleep_and_greets_it_when_it_wakes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    greeted: list[int] = []
    watcher = Watcher(engine, lambda: greeted.append(1))
    engine.sleep()
    assert [watcher.look().state for _ in range(3)] == ["asleep"] * 3
    assert engine._daemon.record() is None
    ready = EngineStatus(state="ready", url="http://127.0.0.1:1", pid=1)
    monkeypatch.setattr(engine, "status", lambda: ready)
    watcher.look()
    assert len(greeted) == 1


def test_asleep_is_said_in_words() -> None:
    view = in_words(EngineStatus(state="asleep"))
    assert f"{view.label}, {view.detail}" == "Asleep, To leave the machine to training. Wakes when somebody asks."
    assert not view.ready


# On a GPU the process stays, and vLLM's own sleep mode is called


class Core:
    """vLLM's engine behind the door."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def sleep(self, **how: Any) -> None:
        self.calls.append(how)

    async def wake_up(self) -> None:
        self.calls.append("wake")


def call(core: Core, path: str, method: str = "POST") -> int:
    """What the middleware answers; 404 is what stands behind it."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404})

    app = SimpleNamespace(state=SimpleNamespace(engine_client=core))
    asyncio.run(Sleeping(behind)({"type": "http", "path": path, "method": method, "app": app}, receive, send))
    return int(sent[0]["status"])


def test_the_door_has_vllms_sleep_mode_and_lets_replies_end_first() -> None:
    core = Core()
    assert [call(core, SLEEP), call(core, WAKE)] == [200, 200]
    assert core.calls == [{"level": 1, "mode": "wait"}, "wake"]
    assert [call(core, "/v1/models"), call(core, SLEEP, "GET")] == [404, 404]
    assert len(core.calls) == 2


def test_a_gpus_engine_that_can_not_be_told_is_ended_instead(engine: Engine, tmp_path: Path) -> None:
    on_gpu = Engine(engine.config, engine.log.parent, GPU)  # nothing listens at its port
    running = on_gpu._daemon.record()
    assert running
    on_gpu.sleep()
    assert not running.alive()
    on_gpu.wake()
    assert on_gpu.status().state == "starting"


# When it is time


def figures(tokens: float, running: int = 0) -> Figures:
    return Figures(running=running, waiting=0, kv_cache=0, prompt_tokens=tokens, generation_tokens=0)


def test_it_is_time_when_nobody_asked_any_engine_for_so_long() -> None:
    idle = Idle(60)
    assert not idle.too_long([figures(0), figures(0)], 1000)
    assert not idle.too_long([figures(0), figures(0)], 1059)
    assert idle.too_long([figures(0), figures(0)], 1060)
    assert not idle.too_long([figures(0), figures(5)], 1061), "somebody asked, whoever it was"
    assert not idle.too_long([figures(0), figures(5)], 1120)
    assert idle.too_long([figures(0), figures(5)], 1121)


def test_a_long_reply_and_an_engine_that_is_away_are_no_idleness() -> None:
    idle = Idle(60)
    idle.too_long([figures(5)], 1000)
    assert not idle.too_long([figures(5, running=1)], 1100)
    assert not idle.too_long([], 1200)
    assert not idle.too_long([figures(5)], 1259), "the time begins anew with what it says when it is back"
    assert not idle.too_long([figures(5)], 1318)
    assert idle.too_long([figures(5)], 1319)
