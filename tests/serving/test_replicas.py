"""Sharing a machine out, what several engines come to, and who may answer: the parts that need no engine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import httpx
import pytest

from annotation.errors import UserError
from serving.client import Client
from serving.engine import Engine, EngineConfig, EngineStatus, argv, environment
from serving.replicas import Keeper, Replicas, Share, found, shares, together
from serving.router import Router
from serving.router import argv as router_argv
from tests.fixtures.studio import wait_until
from training.hardware import GIB, Gpu, Hardware

L4 = Gpu(name="L4", memory_bytes=24 * GIB, capability=(8, 9))
CONFIG = EngineConfig(model=Path("/models/small"), port=8123)
READY = EngineStatus(state="ready", phase="ready", url="http://127.0.0.1:1", pid=1)
STARTING = EngineStatus(state="starting", phase="warming up", fraction=0.6)
CRASHED = EngineStatus(state="crashed", message="It crashed.", pid=1, url="http://127.0.0.1:1")
SLOW = EngineStatus(state="unreachable", phase="not answering", url="http://127.0.0.1:1", pid=1)
ASLEEP = EngineStatus(state="asleep", phase="asleep")
DOOR = EngineStatus(state="ready", phase="ready", url="http://127.0.0.1:9", pid=9)


# The machine


@pytest.mark.parametrize(
    ("cores", "count", "threads"),
    [(2, 1, [0]), (2, 2, [1, 1]), (8, 2, [4, 4]), (7, 3, [3, 2, 2])],
)
def test_a_cpus_cores_are_shared_out_and_none_is_left_idle(cores: int, count: int, threads: list[int]) -> None:
    assert [share.threads for share in shares(Hardware(cpu_cores=cores), count)] == threads


def test_each_replica_has_a_gpu_of_its_own_and_the_others_are_left_to_training() -> None:
    four = Hardware(gpus=(L4,) * 4, cpu_cores=32)
    assert shares(four, 3) == [Share(devices="0"), Share(devices="1"), Share(devices="2")]
    assert shares(four, 2, visible="2,3") == [Share(devices="2"), Share(devices="3")]
    assert shares(four, 1) == [Share()]


@pytest.mark.parametrize(
    ("hardware", "visible", "there"),
    [
        (Hardware(gpus=(L4, L4), cpu_cores=32), None, "2 GPUs"),
        (Hardware(gpus=(L4,) * 8, cpu_cores=32), "0,1", "2 GPUs"),
        (Hardware(cpu_cores=2), None, "2 CPU cores"),
    ],
)
def test_more_replicas_than_there_is_room_for_is_a_sentence(
    hardware: Hardware, visible: str | None, there: str
) -> None:
    with pytest.raises(UserError, match=rf"3 replicas are wanted, and there are {there}.*TONESMITH_REPLICAS to 2"):
        shares(hardware, 3, visible)


def test_what_a_replica_has_is_what_its_engine_gets() -> None:
    cpu = CONFIG.model_copy(update={"threads": 3})
    assert environment(cpu, Hardware(cpu_cores=7))["OMP_NUM_THREADS"] == "3"
    gpu = CONFIG.model_copy(update={"devices": "2"})
    assert environment(gpu, Hardware(gpus=(L4,)))["CUDA_VISIBLE_DEVICES"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in environment(CONFIG, Hardware(gpus=(L4,)))
    assert len({CONFIG.fingerprint, cpu.fingerprint, gpu.fingerprint}) == 3, "another share is another engine"


def test_only_a_gpus_engine_is_told_that_it_may_sleep_in_place() -> None:
    assert "--enable-sleep-mode" in argv(CONFIG, Hardware(gpus=(L4,)), 1)
    assert "--enable-sleep-mode" not in argv(CONFIG, Hardware(), 1)


def test_one_replica_is_as_before_and_several_have_a_folder_each_and_a_router(tmp_path: Path) -> None:
    one = Replicas(CONFIG, tmp_path, Hardware(cpu_cores=2))
    assert [engine.log for engine in one.engines] == [tmp_path / "engine.log"]
    assert (one.router, one.engines[0].config) == (None, CONFIG)
    two = Replicas(CONFIG, tmp_path, Hardware(cpu_cores=2), 2)
    assert [engine.log.parent.name for engine in two.engines] == ["replica-1", "replica-2"]
    assert [engine.config.port for engine in two.engines] == [0, 0], "the port is the router's"
    assert two.router


def test_a_command_finds_as_many_as_were_started(tmp_path: Path) -> None:
    assert found(tmp_path) == 0
    for number, name in ((1, "engine.json"), (2, "asleep"), (3, "engine.log")):
        (tmp_path / f"replica-{number}").mkdir()
        (tmp_path / f"replica-{number}" / name).touch()
    assert found(tmp_path) == 0
    (tmp_path / "router.json").touch()
    assert found(tmp_path) == 2


def test_the_router_listens_on_this_machine_only() -> None:
    command = router_argv(8000, 8001)
    assert command[command.index("--host") + 1] == command[command.index("--prometheus-host") + 1] == "127.0.0.1"


def test_no_page_in_a_browser_reads_what_the_router_answers(tmp_path: Path) -> None:
    """A page of another site can reach this machine from the browser of somebody who works on it."""
    router = Router(tmp_path)
    router.start()
    try:
        wait_until(lambda: router.status().state == "ready", 60, "the router")
        elsewhere = {"Origin": "http://elsewhere.example"}
        preflight = elsewhere | {"Access-Control-Request-Method": "POST"}
        for answer in (
            httpx.get(f"{router.url}/list_workers", headers=elsewhere),
            httpx.options(f"{router.url}/add_worker", headers=preflight),
        ):
            assert answer.status_code == 200
            assert "access-control-allow-origin" not in answer.headers
        own = httpx.get(f"{router.url}/list_workers", headers={"Origin": router.url})
        assert own.headers["access-control-allow-origin"] == router.url, "else nothing is said of origins at all"
    finally:
        router.stop()


# What several come to


def test_one_engine_speaks_for_itself() -> None:
    assert together([STARTING], None, 0) == STARTING


@pytest.mark.parametrize(
    ("engines", "router", "let_in", "state", "message"),
    [
        ([READY, READY], DOOR, 2, "ready", ""),
        ([READY, STARTING], DOOR, 1, "ready", "1 of 2 replicas answer; replica 2 is warming up."),
        ([CRASHED, READY], DOOR, 1, "ready", "1 of 2 replicas answer; replica 1 is crashed."),
        ([READY, READY], DOOR, 0, "starting", ""),
        ([READY, READY], STARTING, 0, "starting", ""),
        ([READY, READY], CRASHED, 0, "crashed", "It crashed."),
        ([CRASHED, STARTING], DOOR, 0, "starting", ""),
        ([CRASHED, CRASHED], DOOR, 0, "crashed", "It crashed."),
        ([ASLEEP, ASLEEP], DOOR, 0, "asleep", ""),
    ],
)
def test_several_and_their_router_come_to_one_state(
    engines: list[EngineStatus], router: EngineStatus, let_in: int, state: str, message: str
) -> None:
    whole = together(engines, router, let_in)
    assert (whole.state, whole.message) == (state, message)
    assert whole.url == router.url


# Who may answer


class ScriptedEngine(Engine):
    """An engine whose state is given."""

    def __init__(self, home: Path, number: int) -> None:
        super().__init__(CONFIG, home, Hardware())
        self.now = READY.model_copy(update={"url": f"http://127.0.0.1:{number}", "pid": number})
        self.restarted = 0

    @property
    def url(self) -> str:
        return self.now.url

    def status(self) -> EngineStatus:
        return self.now

    def restart(self, pid: int | None) -> None:
        self.restarted += 1


class ScriptedRouter(Router):
    """A router that keeps what it is told."""

    asked: Collection[str] = ()
    now = DOOR

    def status(self) -> EngineStatus:
        return self.now

    def only(self, wanted: Collection[str]) -> None:
        self.asked = tuple(wanted)


class Scene:
    """Two scripted engines and a router with a keeper, and what it asked for."""

    def __init__(self, home: Path) -> None:
        replicas = Replicas(CONFIG, home, Hardware(cpu_cores=2), 2)
        self.one, self.two = engines = ScriptedEngine(home / "1", 1), ScriptedEngine(home / "2", 2)
        replicas.engines, replicas.router = engines, ScriptedRouter(home)
        self.router = replicas.router
        self.prepared: list[str] = []
        self.mended: dict[str, str | UserError] = {}
        self.keeper = Keeper(replicas, self._prepare, self._mend)

    def _prepare(self, client: Client) -> None:
        self.prepared.append(client.base_url)

    def _mend(self, client: Client) -> str:
        told = self.mended.pop(client.base_url, "")
        if isinstance(told, UserError):
            raise told
        return told


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_all_that_are_ready_and_prepared_may_answer(scene: Scene) -> None:
    assert scene.keeper.look().state == "ready"
    assert scene.prepared == [scene.one.url, scene.two.url]
    assert scene.router.asked == (scene.one.url, scene.two.url)
    scene.keeper.look()
    assert len(scene.prepared) == 2, "once for each start"


def test_one_that_crashed_is_asked_nothing_until_it_is_back_and_prepared(scene: Scene) -> None:
    scene.keeper.look()
    back = scene.two.now.model_copy(update={"pid": 22})
    scene.two.now = CRASHED
    assert scene.keeper.look().message == "1 of 2 replicas answer; replica 2 is crashed."
    assert (scene.router.asked, scene.two.restarted) == ((scene.one.url,), 1)
    scene.two.now = back
    scene.mended[scene.two.url] = UserError("The engine did not answer in time.")
    scene.keeper.look()
    assert scene.router.asked == (scene.one.url,), "it is not known what it holds"
    scene.keeper.look()
    assert scene.router.asked == (scene.one.url, scene.two.url)
    assert scene.prepared == [scene.one.url, scene.two.url, scene.two.url]


def test_what_was_put_right_is_told_with_the_replicas_number(scene: Scene) -> None:
    scene.mended[scene.two.url] = "lacked a-0; put back"
    scene.keeper.look()
    scene.keeper.look()
    assert scene.keeper.mended == {2: "lacked a-0; put back"}


def test_a_slow_one_is_asked_only_if_there_is_no_other(scene: Scene) -> None:
    scene.keeper.look()
    scene.two.now = SLOW.model_copy(update={"url": scene.two.url})
    scene.keeper.look()
    assert scene.router.asked == (scene.one.url,)
    scene.one.now = SLOW.model_copy(update={"url": scene.one.url})
    scene.keeper.look()
    assert scene.router.asked == (scene.one.url, scene.two.url)


def test_nobody_restarts_one_that_sleeps(scene: Scene) -> None:
    scene.keeper.look()
    scene.one.now = scene.two.now = ASLEEP
    assert scene.keeper.look().state == "asleep"
    assert (scene.router.asked, scene.one.restarted, scene.two.restarted) == ((), 0, 0)
