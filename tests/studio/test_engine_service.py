"""The engine as pages and commands see it: who may put it to sleep, and what a question to a sleeping one does."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation.errors import UserError
from annotation.people import Forbidden, Person
from annotation.types import Sampling
from serving import engine as engine_module
from serving.client import NoEngine
from serving.engine import EngineStatus
from serving.metrics import Figures, Rates
from serving.scripted import ScriptedModel
from serving.sleeping import Idle
from studio.pages.models import figures_html
from studio.services import Services, open_services
from studio.services.serving import ServingService
from studio.services.under_way import UnderWay
from studio.services.workload import EngineLoad, Workload
from studio.settings import Settings
from tests.serving.conftest import FakeEngine, Peer

CURATOR, REVIEWER, VIEWER = (Person(name=role, role=role) for role in ("curator", "reviewer", "viewer"))
READY = EngineStatus(state="ready", url="http://127.0.0.1:1", pid=1)


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """A project whose engine's process only waits."""
    monkeypatch.setattr(engine_module, "argv", lambda *settings: [sys.executable, "-c", "import time; time.sleep(60)"])
    model = tmp_path / "Small"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (model / name).write_text("{}")
    settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache", base_model=str(model), person="owner")
    settings.home.mkdir()
    opened = open_services(settings)
    opened.serving._bring_up()
    yield opened
    opened.close(stop_engine=True)


def test_curators_put_it_to_sleep_and_whoever_asks_may_wake_it(services: Services) -> None:
    serving = services.serving
    with pytest.raises(Forbidden):
        serving.sleep(REVIEWER)
    serving.sleep(CURATOR)
    assert serving._status().state == "asleep"
    with pytest.raises(Forbidden):
        serving.wake(VIEWER)
    serving.wake(REVIEWER)
    assert serving._status().state == "starting"


def test_an_engine_that_is_answering_is_not_put_to_sleep(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Figures(running=1, waiting=1, kv_cache=0.1, prompt_tokens=1, generation_tokens=1)
    monkeypatch.setattr(services.serving, "loads", lambda afresh=False: [EngineLoad(status=READY, now=busy)])
    with pytest.raises(UserError, match="2 requests are being answered"):
        services.serving.sleep(CURATOR)
    assert services.serving._status().state == "starting"


def test_what_is_asked_of_a_sleeping_engine_is_kept_and_wakes_it(services: Services) -> None:
    services.serving.sleep(CURATOR)
    services.serving._watcher.look()  # type: ignore[union-attr]

    async def send() -> str:
        return [live async for live in services.chat.send(None, "Hello?", "base", Sampling())][-1].problem or ""

    assert "The engine was asleep and is waking up. It is there in about 60 s" in asyncio.run(send())
    ((chat, _),) = services.chat.recent()
    assert [turn.text for turn in services.chat.open(chat).turns] == ["Hello?"]
    assert services.serving._status().state == "starting"


def test_after_some_minutes_with_nobody_asking_it_sleeps_by_itself(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = Figures(running=0, waiting=0, kv_cache=0, prompt_tokens=1, generation_tokens=1)
    monkeypatch.setattr(services.serving, "loads", lambda afresh=False: [EngineLoad(status=READY, now=idle)])
    services.serving._sleep_if_idle()
    assert services.serving._status().state == "starting", "never, unless it was set"
    services.serving._idle = Idle(0.0)
    services.serving._sleep_if_idle()
    services.serving._sleep_if_idle()
    assert services.serving._status().state == "asleep"


def test_a_request_that_came_since_the_figures_were_taken_keeps_it_awake(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = Figures(running=0, waiting=0, kv_cache=0, prompt_tokens=1, generation_tokens=1)
    busy = idle.model_copy(update={"running": 1})
    serving = services.serving
    monkeypatch.setattr(serving, "loads", lambda afresh=False: [EngineLoad(status=READY, now=busy if afresh else idle)])
    serving._idle = Idle(0.05)
    serving._sleep_if_idle()
    time.sleep(0.1)
    serving._sleep_if_idle()
    with pytest.raises(UserError, match="A request is being answered"):
        serving.sleep(CURATOR)
    assert serving._status().state == "starting"


def test_a_request_of_ours_that_no_figure_shows_yet_keeps_it_awake(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = Figures(running=0, waiting=0, kv_cache=0, prompt_tokens=1, generation_tokens=1)
    serving = services.serving
    monkeypatch.setattr(serving, "loads", lambda afresh=False: [EngineLoad(status=READY, now=idle)])
    monkeypatch.setattr(serving, "_must_be_up", lambda: None)
    monkeypatch.setattr(serving, "_present", lambda pieces: ScriptedModel(["One two"], word_seconds=0))
    monkeypatch.setattr(ServingService, "ours", False)  # a script names no weights
    serving._idle = Idle(0.0)

    async def ask() -> None:
        said = serving.model().stream([], model="base", sampling=Sampling())
        assert (await anext(said)).text == "One "
        serving._sleep_if_idle()
        with pytest.raises(UserError, match="A request is being answered"):
            serving.sleep(CURATOR)
        assert [chunk.text async for chunk in said] == ["two", ""]

    asyncio.run(ask())
    assert serving._status().state == "starting"
    serving._sleep_if_idle()
    assert serving._status().state == "asleep"


def test_no_request_begins_while_it_goes_to_sleep() -> None:
    under_way = UnderWay()
    with under_way.one(), under_way.one(), under_way.shut() as there:
        assert there == 2
        with pytest.raises(NoEngine, match="just going to sleep"), under_way.one():
            pass
    with under_way.one(), under_way.shut() as there:
        assert there == 1


def test_engines_are_asked_afresh_before_they_sleep(peer: Peer, fake: FakeEngine) -> None:
    said = "vllm:num_requests_running {}\nvllm:num_requests_waiting 0\n".format
    workload, status = Workload(), READY.model_copy(update={"url": peer.url})

    def running(afresh: bool) -> int | None:
        (load,) = workload.of([status], {}, afresh=afresh)
        return load.now and load.now.running

    fake.metrics = said(0)
    assert running(False) == 0
    fake.metrics = said(1)
    assert (running(False), running(True)) == (0, 1)


def test_several_engines_stand_in_a_row_each_and_what_was_put_right_is_told() -> None:
    now = Figures(
        running=2, waiting=1, kv_cache=0.25, prompt_tokens=1, generation_tokens=1, adapters_running=("<one>-0",)
    )
    working = EngineLoad(
        status=READY,
        now=now,
        rates=Rates(prompt=120, generation=35),
        under_way={"<one>-0": 3, "two-0": 1},
        mended="lacked X; put back",
    )
    away = EngineLoad(status=EngineStatus(state="starting", fraction=0.4))
    page = figures_html([working, away], "")
    assert page.count("<tr>") == 3
    for told in (
        "2 requests",
        "25%",
        "35",
        "&lt;one&gt;-0 (3), two-0 (1)",
        "Replica 1 lacked X; put back.",
        "warming up, 40%",
    ):
        assert told in page
    alone = figures_html([working], "")
    assert "It lacked X; put back." in alone
    assert "<table" not in alone
    assert "There are no figures. Asleep." in figures_html([away], "Asleep.")
