"""Two real engines behind vLLM's router, kept as the studio keeps them: one address, the same adapters on both, and
what becomes of that when one of the three is killed, when somebody loads by hand, and when all of it sleeps.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from annotation.errors import UserError
from annotation.people import Person
from annotation.types import Message, Sampling, Weights
from serving.client import Client
from serving.daemon import Daemon, Record
from serving.memory import Memory
from serving.replicas import found
from studio.services.serving import ServingService
from studio.settings import Settings
from tests.serving.conftest import keep_lineage
from training.weights import digest

pytestmark = [pytest.mark.slow, pytest.mark.alone]
CURATOR = Person(name="cleo", role="curator")
BOTH = ["one-0", "two-0"]
SHORT = Sampling(temperature=0, top_p=1, max_tokens=8)


@pytest.fixture(scope="module")
def settings(base_model: Path, random_adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("replicas")
    for name in BOTH:
        shutil.copytree(random_adapters / name, home / "adapters" / name)
        keep_lineage(home / "adapters" / name, base_model.name, 8, str(base_model))
    return Settings(home=home, base_model=str(base_model), replicas=2, max_adapters=3, person="owner")


@pytest.fixture(scope="module")
def engines(settings: Settings) -> Iterator[None]:
    """Started by the first studio that needs them, and stopped when all tests are over."""
    yield
    last = ServingService(settings)
    last.adopt(required=False)
    last.close(stop_engine=True)
    assert found(settings.engine_home) == 0


@contextmanager
def running(settings: Settings) -> Iterator[ServingService]:
    """A studio that looks after both; it goes away without a word to them, as a crash would."""
    opened = ServingService(settings)
    opened.start()
    yield opened
    opened.close(stop_engine=False)


@pytest.fixture
def studio(settings: Settings, engines: None) -> Iterator[ServingService]:
    """One that has both ready."""
    with running(settings) as opened:
        wait(lambda: answering(opened) == 2, "both replicas", 400)
        yield opened


def wait(what: Callable[[], object], name: str, seconds: float) -> float:
    """How long it took until `what()` was true."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, f"waited {seconds:.0f} s in vain for {name}"
        time.sleep(0.05)
    return time.monotonic() - began


def record(settings: Settings, which: str) -> Record | None:
    """Of `router`, `replica-1` or `replica-2`."""
    router = which == "router"
    home = settings.engine_home
    return Daemon(home if router else home / which, "router" if router else "engine").record()


def known(settings: Settings, which: str) -> Record:
    found = record(settings, which)
    assert found, f"no {which}"
    return found


def answering(studio: ServingService) -> int:
    """How many engines may be asked, all with both adapters."""
    if not studio.view().ready or [name for _, name in studio.choices()] != ["base", *reversed(BOTH)]:
        return 0
    return sum(load.status.state == "ready" for load in studio.loads()) if "of 2" not in studio.view().detail else 1


def ask(studio: ServingService, *models: str) -> list[Weights | None]:
    """The weights that gave a reply to each of `models`, all asked at the same moment. Raises UserError."""

    async def one(number: int, model: str) -> Weights | None:
        asked = [Message(role="user", text=f"Number {number}: where is my parcel?")]
        said = [chunk async for chunk in studio.model().stream(asked, model=model, sampling=SHORT)]
        assert "".join(chunk.text for chunk in said)
        return said[-1].weights

    async def all_of_them() -> list[Weights | None]:
        return await asyncio.gather(*(one(number, model) for number, model in enumerate(models)))

    return asyncio.run(all_of_them())


def held(settings: Settings, which: str) -> list[str]:
    return Client(known(settings, which).url).models()


def test_one_address_and_both_answer_with_the_same_adapters(studio: ServingService, settings: Settings) -> None:
    assert studio.view().detail == f"Answers come from vLLM at {known(settings, 'router').url}."
    assert set(held(settings, "replica-1")) == set(held(settings, "replica-2")) == {"base", *BOTH}
    before = [load.now.generation_tokens for load in studio.loads() if load.now]
    said = ask(studio, *["base", *BOTH] * 4)
    base = digest(Path(settings.base_model))
    adapters = [studio.identify(name).weights_sha256 for name in BOTH]
    each = [Weights(base_sha256=base), *(Weights(base_sha256=base, adapter_sha256=one) for one in adapters)]
    assert said == each * 4
    wait(
        lambda: all(
            load.now and load.now.generation_tokens > old for load, old in zip(studio.loads(), before, strict=True)
        ),
        "words from both",
        120,
    )
    wait(lambda: all(view.effect is not None for view in studio.adapters()), "the measurements", 300)
    assert all((view.effect or 0) > 0.02 for view in studio.adapters()), "of both; the smaller one counts"


def test_what_is_loaded_by_hand_answers_at_once_and_is_measured_after(
    studio: ServingService, settings: Settings
) -> None:
    wait(lambda: all(view.effect is not None for view in studio.adapters()), "the measurements before", 300)
    studio.unload("one-0", CURATOR)
    memory = Memory(settings.engine_home / "serving.json")
    memory.change(lambda held: held.model_copy(update={"effects": {}}))
    studio.load("one-0", CURATOR)
    assert ask(studio, "one-0")[0] is not None
    wait(lambda: "one-0" in memory.read().effects, "its measurement", 180)


def test_what_somebody_did_to_one_by_hand_is_put_right_and_told(studio: ServingService, settings: Settings) -> None:
    one, two = (Client(known(settings, f"replica-{number}").url) for number in (1, 2))
    one.post("/v1/unload_lora_adapter", {"lora_name": "two-0"})
    path = str(settings.adapters / "one-0")
    two.post("/v1/load_lora_adapter", {"lora_name": "stranger", "lora_path": path})
    right = {"base", *BOTH}
    wait(lambda: set(one.models()) == right and set(two.models()) == right, "the repair", 180)
    wait(lambda: all(load.mended for load in studio.loads()), "word of it", 60)
    assert [load.mended for load in studio.loads()] == [
        "lacked two-0; put back",
        "held stranger, which it should not; taken out",
    ]
    assert len(ask(studio, *BOTH * 4)) == 8


def test_with_one_killed_the_other_answers_and_it_comes_back_with_its_adapters(
    studio: ServingService, settings: Settings
) -> None:
    killed = known(settings, "replica-2")
    os.killpg(killed.pid, signal.SIGKILL)
    ask(studio, *BOTH, "base", "one-0")  # in the very moment: the router asks the other one instead
    wait(lambda: "1 of 2 replicas answer" in studio.view().detail, "word of it", 180)
    began = time.monotonic()
    while answering(studio) < 2:  # whenever it is let in again, it holds what it is asked for
        ask(studio, *BOTH)
        time.sleep(0.5)  # else the one that answers leaves little of the machine to the one that starts
        assert time.monotonic() - began < 400, studio.loads()
    assert known(settings, "replica-2").pid != killed.pid
    assert set(held(settings, "replica-2")) == {"base", *BOTH}
    assert len(ask(studio, *BOTH * 4)) == 8


def test_a_killed_router_is_back_at_its_address(studio: ServingService, settings: Settings) -> None:
    before = known(settings, "router")
    os.kill(before.pid, signal.SIGKILL)
    wait(lambda: record(settings, "router") not in (None, before) and answering(studio) == 2, "the router", 180)
    assert known(settings, "router").url == before.url
    assert len(ask(studio, "base", *BOTH)) == 3


def test_all_of_it_is_adopted_by_the_next_studio(studio: ServingService, settings: Settings) -> None:
    """`studio` is the fifth one here, and each found what the one before had left."""
    mine = [known(settings, which) for which in ("router", "replica-1", "replica-2")]
    studio.close(stop_engine=False)
    with running(settings) as again:
        wait(lambda: answering(again) == 2, "both", 180)
        assert [known(settings, which) for which in ("router", "replica-1", "replica-2")] == mine


def test_asleep_they_hold_no_memory_whatever_becomes_of_the_studio_and_a_question_wakes_them(
    studio: ServingService, settings: Settings
) -> None:
    processes = [psutil.Process(known(settings, f"replica-{number}").pid) for number in (1, 2)]
    family = [member for process in processes for member in (process, *process.children(recursive=True))]
    wait(lambda: put_to_sleep(studio), "an engine that answers nobody", 300)
    wait(lambda: studio.view().label == "Asleep", "word of it", 120)
    assert not any(member.is_running() for member in family)
    studio.close(stop_engine=False)
    with running(settings) as again:
        wait(lambda: again.view().label == "Asleep", "the next studio", 180)
        for _ in range(4):
            time.sleep(0.5)  # as often as it looks
            assert again.view().label == "Asleep"
            assert [record(settings, f"replica-{number}") for number in (1, 2)] == [None, None]
        with pytest.raises(UserError, match=r"was asleep and is waking up. It is there in about \d+ s"):
            ask(again, "one-0")
        wait(lambda: answering(again), "one of them awake", 400)
        assert ask(again, "one-0")[0]


def put_to_sleep(studio: ServingService) -> bool:
    try:
        studio.sleep(CURATOR)
    except UserError:  # it is being measured
        return False
    return True
