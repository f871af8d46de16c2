"""Starting, adopting and watching the engine: the parts that need no engine."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from annotation.errors import UserError
from annotation.processes import began
from serving import engine as engine_module
from serving.daemon import Record
from serving.engine import (
    Attached,
    Engine,
    EngineConfig,
    EngineStatus,
    Watcher,
    argv,
    environment,
    unwatched_at_once,
)
from training.hardware import GIB, Gpu, Hardware

GPU = Hardware(gpus=(Gpu(name="L4", memory_bytes=24 * GIB, capability=(8, 9)),), cpu_cores=8)
OLD_CPU = Hardware(cpu_cores=2)
NEW_CPU = Hardware(cpu_cores=16, cpu_bf16=True)
CONFIG = EngineConfig(model=Path("/models/small"))


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def listens_at(command: list[str]) -> str:
    """As vLLM's command line reads it: also by `=` and cut short, and the last one counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    return str(parser.parse_known_args(command)[0].host)


def test_the_command_binds_to_this_machine_and_takes_adapters() -> None:
    command = argv(CONFIG, OLD_CPU, 8123)
    assert (option(command, "--host"), option(command, "--port")) == ("127.0.0.1", "8123")
    assert (option(command, "--model"), option(command, "--served-model-name")) == ("/models/small", "base")
    assert "--enable-lora" in command
    assert (option(command, "--max-loras"), option(command, "--max-lora-rank")) == ("4", "32")
    assert "vllm.entrypoints.openai.api_server" in command


@pytest.mark.parametrize("more", [("--host", "0.0.0.0"), ("--host=0.0.0.0",), ("--hos", "::")])
def test_whatever_else_is_said_it_binds_to_this_machine(more: tuple[str, ...]) -> None:
    assert listens_at([*more]) in ("0.0.0.0", "::")
    assert listens_at(argv(CONFIG.model_copy(update={"extra": more}), GPU, 1)) == "127.0.0.1"


def test_where_the_studio_listens_has_no_way_to_the_engine() -> None:
    assert not {"host", "address", "uds"} & EngineConfig.model_fields.keys()
    assert option(argv(CONFIG, OLD_CPU, 1), "--host") == "127.0.0.1"


def test_what_developers_may_ask_of_an_engine_is_off_whatever_our_own_surroundings_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    for hardware in (OLD_CPU, GPU):
        assert (os.environ | environment(CONFIG, hardware))["VLLM_SERVER_DEV_MODE"] == "0"


@pytest.mark.parametrize(("hardware", "dtype"), [(OLD_CPU, "float32"), (NEW_CPU, "bfloat16")])
def test_a_cpu_serves_in_what_it_multiplies_fast(hardware: Hardware, dtype: str) -> None:
    assert option(argv(CONFIG, hardware, 1), "--dtype") == dtype


def test_what_nobody_watches_fills_our_engine_by_half_and_somebody_elses_little() -> None:
    assert [unwatched_at_once(hardware) for hardware in (None, OLD_CPU, NEW_CPU, GPU)] == [16, 64, 64, 128]


def test_a_gpu_chooses_its_own_number_format_and_leaves_room_for_the_trainer() -> None:
    command = argv(CONFIG, GPU, 1)
    assert "--dtype" not in command
    assert option(command, "--gpu-memory-utilization") == "0.5"


def test_more_arguments_are_passed_on() -> None:
    config = CONFIG.model_copy(update={"extra": ("--max-num-seqs", "8")})
    assert option(argv(config, OLD_CPU, 1), "--max-num-seqs") == "8"


def test_a_cpu_gets_all_its_cores_a_cache_and_the_libraries_that_are_there() -> None:
    variables = environment(CONFIG, OLD_CPU, (Path("/lib/a.so"), Path("/lib/b.so")))
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert variables["LD_PRELOAD"] == "/lib/a.so:/lib/b.so"


def test_a_cpu_binds_no_threads_since_auto_keeps_a_core_back_and_overrides_their_number() -> None:
    assert environment(CONFIG, OLD_CPU)["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


def test_a_gpu_gets_nothing_that_is_for_cpus() -> None:
    variables = environment(CONFIG, GPU).keys()
    assert not {"LD_PRELOAD", "OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND"} & variables


@pytest.mark.parametrize("hardware", [OLD_CPU, GPU])
def test_no_engine_reports_usage_or_asks_the_hub_or_compiles_its_imports_anew(hardware: Hardware) -> None:
    variables = environment(CONFIG, hardware)
    assert variables["VLLM_NO_USAGE_STATS"] == variables["DO_NOT_TRACK"] == variables["HF_HUB_OFFLINE"] == "1"
    assert variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert variables["PYTHONDONTWRITEBYTECODE"] == ""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, None),
        ("", "tonesmith_cpu_lora"),
        ("other", "other,tonesmith_cpu_lora"),
        ("tonesmith_cpu_lora", "tonesmith_cpu_lora"),
    ],
)
def test_our_plugin_is_always_among_those_allowed(before: str | None, after: str | None) -> None:
    variables = {} if before is None else {"VLLM_PLUGINS": before}
    assert engine_module._with_our_plugin(variables).get("VLLM_PLUGINS") == after


def test_the_plugin_is_an_entry_point_that_vllm_finds() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="vllm.general_plugins", name=engine_module.PLUGIN)
    assert found.value == "serving.vllm_plugin:register"


def test_other_settings_make_another_engine() -> None:
    assert CONFIG.fingerprint == EngineConfig(model=Path("/models/small")).fingerprint
    assert CONFIG.fingerprint != CONFIG.model_copy(update={"max_rank": 64}).fingerprint


def test_serving_imports_no_engine() -> None:
    script = "import serving.engine, serving.adapters, serving.arena, serving.scripted, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "vllm", "transformers", "peft", "trl"} & set(loaded)


# What is wrong before a start


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_no_model_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no model at .*nowhere.*TONESMITH_BASE_MODEL"):
        Engine(EngineConfig(model=tmp_path / "nowhere"), tmp_path, OLD_CPU).start()


def test_a_taken_port_is_a_sentence(tmp_path: Path, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} for the engine is taken"):
            Engine(EngineConfig(model=model, port=port), tmp_path, OLD_CPU).start()


@pytest.mark.parametrize(
    "extra",
    [
        ("--api-server-count", "2"),
        ("--max-num-seqs", "8", "--api-server-count=4"),
        ("-asc", "2"),
        ("--api_server_count", "2"),
        ("--data-parallel-size", "2", "--api-server-count", "1"),
        ("--data_parallel_size=2",),
        ("-dp", "2"),
    ],
)
def test_several_front_doors_with_a_list_of_adapters_each_are_a_sentence(
    tmp_path: Path, model: Path, extra: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match=r"several front doors.*own list of adapters.*TONESMITH_REPLICAS"):
        Engine(EngineConfig(model=model, extra=extra), tmp_path, OLD_CPU).start()


@pytest.mark.parametrize("extra", [(), ("--api-server-count", "1", "-dp=1"), ("--data-parallel-backend", "mp")])
def test_one_front_door_is_none(extra: tuple[str, ...]) -> None:
    assert not engine_module._several_doors(extra)


def test_no_vllm_is_a_sentence(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"vLLM is not installed.*tonesmith\[serve-cpu\]"):
        Engine(EngineConfig(model=model), tmp_path, OLD_CPU).start()


# What the files say


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    """A process of ours with a child, in a session of its own."""
    child = "import time; time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    started = subprocess.Popen([sys.executable, "-c", parent], start_new_session=True)
    process = psutil.Process(started.pid)
    while not process.children():
        time.sleep(0.02)
    family = [*process.children(), process]
    yield process
    for member in family:
        if member.is_running():
            member.kill()
    started.wait()


def recorded(home: Path, process: psutil.Process, created: float | None = None, ago: float = 1.0) -> Record:
    record = Record(
        pid=process.pid,
        created=began(process.pid) if created is None else created,
        port=1,  # nothing listens there
        fingerprint=CONFIG.fingerprint,
        started=time.time() - ago,
        log_start=0,
    )
    (home / "engine.json").write_text(record.model_dump_json())
    return record


def test_without_a_record_it_is_off(tmp_path: Path) -> None:
    engine = Engine(CONFIG, tmp_path, OLD_CPU)
    assert (engine.status().state, engine.url, engine.adopt()) == ("off", "", False)


def test_a_broken_record_is_none(tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text('{"pid": 1')
    assert Engine(CONFIG, tmp_path, OLD_CPU).status().state == "off"


def test_a_running_engine_is_adopted_by_a_new_studio_with_the_same_settings(
    tmp_path: Path, sleeper: psutil.Process
) -> None:
    recorded(tmp_path, sleeper)
    assert Engine(CONFIG, tmp_path, OLD_CPU).adopt()
    assert not Engine(CONFIG.model_copy(update={"max_rank": 64}), tmp_path, OLD_CPU).adopt()


def test_a_number_that_went_to_somebody_else_is_neither_adopted_nor_stopped(
    tmp_path: Path, sleeper: psutil.Process
) -> None:
    recorded(tmp_path, sleeper, created=began(sleeper.pid) - 1000)
    engine = Engine(CONFIG, tmp_path, OLD_CPU)
    assert not engine.adopt()
    engine.stop()
    assert sleeper.is_running()


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("", "starting"),
        ("INFO non-default args: {}", "reading the settings"),
        ("INFO Initializing a V1 LLM engine (v0.32.0)", "starting the workers"),
        ("INFO Starting to load model /models/small...", "loading the model"),
        ("INFO Loading weights took 0.38 seconds", "warming up"),
    ],
)
def test_the_log_says_how_far_the_start_is(tmp_path: Path, sleeper: psutil.Process, line: str, phase: str) -> None:
    recorded(tmp_path, sleeper)
    (tmp_path / "engine.log").write_text(f"something\n{line}\n")
    status = Engine(CONFIG, tmp_path, OLD_CPU).status()
    assert (status.state, status.phase) == ("starting", phase)
    assert 0 < status.fraction < 1


def test_the_share_goes_by_how_long_the_last_start_took(tmp_path: Path, sleeper: psutil.Process) -> None:
    recorded(tmp_path, sleeper, ago=50)
    (tmp_path / "start-seconds").write_text("100")
    assert Engine(CONFIG, tmp_path, OLD_CPU).status().fraction == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full."),
        ("RuntimeError: DefaultCPUAllocator: not enough memory: you tried", "ran out of memory"),
        ("OSError: [Errno 98] error while attempting to bind: address already in use", "TONESMITH_ENGINE_PORT"),
        (
            "(EngineCore pid=7) ERROR 11-23 [core.py:1] ValueError: max_model_len (9999) is too large.\n"
            "RuntimeError: Engine core initialization failed. See root cause above.",
            "ValueError: max_model_len (9999) is too large. Its log is",
        ),
        ("INFO all is well", "stopped from outside"),
        ("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.", "stopped from outside"),
    ],
)
def test_a_crash_says_why(tmp_path: Path, sleeper: psutil.Process, log: str, reason: str) -> None:
    recorded(tmp_path, sleeper)
    for member in [*sleeper.children(recursive=True), sleeper]:
        member.kill()
    sleeper.wait()
    (tmp_path / "engine.log").write_text(log)
    status = Engine(CONFIG, tmp_path, OLD_CPU).status()
    assert status.state == "crashed"
    assert reason in status.message


def test_stopping_ends_the_whole_family(tmp_path: Path, sleeper: psutil.Process) -> None:
    recorded(tmp_path, sleeper)
    (worker,) = sleeper.children()
    Engine(CONFIG, tmp_path, OLD_CPU).stop()
    assert not worker.is_running()
    assert not (tmp_path / "engine.json").exists()


def test_two_studios_that_see_one_crash_start_one_engine(
    tmp_path: Path, model: Path, sleeper: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "argv", lambda *settings: [sys.executable, "-c", "import time; time.sleep(60)"])
    dead = recorded(tmp_path, sleeper)
    studios = [Engine(EngineConfig(model=model), tmp_path, OLD_CPU) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda studio: studio.restart(dead.pid), studios))
    first = studios[0]._daemon.record()
    assert first
    assert first.pid != dead.pid
    assert not sleeper.is_running()
    studios[1].restart(dead.pid)  # it comes late
    assert studios[1]._daemon.record() == first
    studios[1].stop()
    studios[0].restart(first.pid)
    assert studios[0]._daemon.record() is None, "what was switched off stays off"
    family = psutil.Process().children()
    assert not any("time.sleep(60)" in " ".join(child.cmdline()) for child in family if child.is_running())


def test_stopping_ends_orphans_of_a_killed_engine(tmp_path: Path, sleeper: psutil.Process) -> None:
    recorded(tmp_path, sleeper)
    (worker,) = sleeper.children()
    sleeper.kill()
    sleeper.wait()
    assert worker.is_running()
    Engine(CONFIG, tmp_path, OLD_CPU).stop()
    psutil.wait_procs([worker], timeout=5)
    assert not worker.is_running()


# The watcher


class ScriptedEngine(Engine):
    """An engine whose states are given, to see what the watcher does about them."""

    def __init__(self, home: Path, *states: EngineStatus) -> None:
        super().__init__(CONFIG, home, OLD_CPU)
        self.states = list(states)
        self.starts = 0
        self.refuse: UserError | None = None

    def status(self) -> EngineStatus:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def restart(self, pid: int | None) -> None:
        self.starts += 1
        if self.refuse:
            raise self.refuse


READY = EngineStatus(state="ready", url="http://127.0.0.1:1", pid=10)
CRASHED = EngineStatus(state="crashed", pid=10, message="It crashed.")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The watcher's clock, to be moved by hand."""
    now = [1000.0]
    monkeypatch.setattr(engine_module.time, "monotonic", lambda: now[0])
    return now


def test_each_start_is_greeted_once(tmp_path: Path) -> None:
    again = READY.model_copy(update={"pid": 11})
    greeted: list[int] = []
    watcher = Watcher(ScriptedEngine(tmp_path, READY, READY, again, again), lambda: greeted.append(1))
    assert [watcher.look().pid for _ in range(4)] == [10, 10, 11, 11]
    assert len(greeted) == 2


def test_a_greeting_that_fails_is_tried_again(tmp_path: Path) -> None:
    tries: list[int] = []

    def greet() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise UserError("The engine did not answer in time.")

    watcher = Watcher(ScriptedEngine(tmp_path, READY), greet)
    for _ in range(3):
        watcher.look()
    assert len(tries) == 2


def test_a_crash_is_followed_by_a_restart_each_later_than_the_last(tmp_path: Path, clock: list[float]) -> None:
    engine = ScriptedEngine(tmp_path, CRASHED)
    watcher = Watcher(engine, lambda: None)
    started = []
    for _ in range(60):
        before = engine.starts
        watcher.look()
        if engine.starts > before:
            started.append(clock[0] - 1000)
        clock[0] += 1
    assert started == [0, 6, 27]
    assert "restarted 3 times" in watcher.gave_up
    assert watcher.status.message == watcher.gave_up


def test_crashes_long_apart_are_always_followed_by_a_restart(tmp_path: Path, clock: list[float]) -> None:
    engine = ScriptedEngine(tmp_path, CRASHED)
    watcher = Watcher(engine, lambda: None)
    for _ in range(8):
        watcher.look()
        clock[0] += engine_module.CRASH_WINDOW_SECONDS
    assert engine.starts == 8


def test_a_start_that_is_refused_ends_the_tries_with_its_reason(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, CRASHED)
    engine.refuse = UserError("There is no model.")
    watcher = Watcher(engine, lambda: None)
    for _ in range(3):
        watcher.look()
    assert (engine.starts, watcher.gave_up) == (1, "There is no model.")


def test_a_start_by_hand_ends_the_giving_up(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, CRASHED, READY, READY)
    engine.refuse = UserError("There is no model.")
    watcher = Watcher(engine, lambda: None)
    watcher.look()
    assert watcher.gave_up
    assert (watcher.look().state, watcher.gave_up) == ("ready", "")


def test_a_short_silence_is_waited_out_and_a_long_one_ended(tmp_path: Path, clock: list[float]) -> None:
    engine = ScriptedEngine(tmp_path, EngineStatus(state="unreachable", pid=10))
    watcher = Watcher(engine, lambda: None)
    watcher.look()
    clock[0] += engine_module.SILENCE_LIMIT_SECONDS - 1
    watcher.look()
    assert engine.starts == 0
    clock[0] += 2
    watcher.look()
    assert engine.starts == 1


def test_an_engine_switched_off_is_left_off(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, EngineStatus(state="off"))
    Watcher(engine, lambda: None).look()
    assert engine.starts == 0


# Somebody else's engine


def test_a_wrong_address_is_a_sentence() -> None:
    status = Attached("http://127.0.0.1:1").status()
    assert (status.state, status.attached) == ("unreachable", True)
    assert "No engine answers at http://127.0.0.1:1" in status.message
    assert "TONESMITH_ENGINE_URL" in status.message
