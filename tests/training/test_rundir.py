"""A run's folder tells the truth, whatever was killed in the middle of what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from annotation.errors import UserError
from annotation.processes import began
from annotation.types import utc_now
from training.rundir import Process, RunDir
from training.types import Metric, RunState, SftConfig


@pytest.fixture
def run(tmp_path: Path, configured: Callable[..., SftConfig]) -> RunDir:
    return RunDir.create(tmp_path / "runs" / "r", configured(run_name="test"))


def metric(step: int, loss: float = 1.0) -> Metric:
    return Metric(
        step=step,
        of_steps=9,
        loss=loss,
        learning_rate=1e-3,
        tokens_per_second=9.0,
        tokens_seen=step * 100,
        eta_seconds=1.0,
        at=utc_now(),
    )


def complete(run: RunDir, step: int) -> Path:
    folder = run.checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "complete.json").write_text(json.dumps({"step": step}))
    return folder


def older(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_new_run_waits(run: RunDir) -> None:
    assert run.read_state().status == "queued"
    assert run.read_config().run_name == "test"


def test_the_same_run_is_not_made_twice(run: RunDir) -> None:
    with pytest.raises(UserError, match="already a run 'r'"):
        RunDir.create(run.path, run.read_config())


def test_a_run_that_never_got_a_process_fails_after_a_while(run: RunDir) -> None:
    older(run.state, 31)
    state = run.read_state()
    assert state.status == "failed"
    assert "Start a new run" in state.message


def test_a_live_process_is_running(run: RunDir) -> None:
    run.keep_process(os.getpid())
    run.write_state(RunState(status="running", step=3))
    assert run.read_state().status == "running"


def test_a_dead_process_without_an_end_has_failed_and_says_where_it_can_go_on(run: RunDir) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.keep_process(child.pid)
    run.write_state(RunState(status="running", step=7, eta_seconds=9.0))
    child.kill()
    child.communicate()
    complete(run, 5)
    state = run.read_state()
    assert (state.status, state.step, state.eta_seconds) == ("failed", 7, None)
    assert "at step 7" in state.message
    assert "go on from step 5" in state.message


def test_a_number_given_to_another_process_is_not_the_trainer(run: RunDir) -> None:
    started = began(os.getpid())
    run.process.write_text(Process(pid=os.getpid(), created=started - 100).model_dump_json())
    run.write_state(RunState(status="running"))
    assert not run.alive()
    assert run.read_state().status == "failed"


@pytest.mark.parametrize("torn", ["", "{", '{"status": "runn'])
def test_a_torn_state_file_is_no_crash(run: RunDir, torn: str) -> None:
    run.state.write_text(torn)
    older(run.state, 60)
    assert run.read_state().status == "failed"


def test_a_run_that_was_queued_again_is_not_judged_by_its_old_process(run: RunDir) -> None:
    run.process.write_text(Process(pid=2**22 - 1, created=1.0).model_dump_json())
    older(run.process, 60)
    run.write_state(RunState(status="queued"))
    assert run.read_state().status == "queued"


def test_metrics_come_back_one_a_step(run: RunDir) -> None:
    assert run.read_metrics() == []
    for step in (1, 2, 3):
        run.add_metric(metric(step))
    assert [entry.step for entry in run.read_metrics()] == [1, 2, 3]


def test_after_a_resume_the_steps_beyond_the_checkpoint_no_longer_count(run: RunDir) -> None:
    for step, loss in [(1, 5.0), (2, 4.0), (3, 3.0), (4, 2.0), (3, 3.5)]:
        run.add_metric(metric(step, loss))
    assert [(entry.step, entry.loss) for entry in run.read_metrics()] == [(1, 5.0), (2, 4.0), (3, 3.5)]


def test_a_line_torn_by_a_kill_is_passed_over_and_swallows_nothing(run: RunDir) -> None:
    run.add_metric(metric(1))
    with run.metrics.open("a") as file:
        file.write(metric(2).model_dump_json()[:20])
    assert [entry.step for entry in run.read_metrics()] == [1]
    run.tidy()
    run.add_metric(metric(2))
    assert [entry.step for entry in run.read_metrics()] == [1, 2]


def test_a_half_written_checkpoint_is_never_gone_on_from(run: RunDir) -> None:
    kept = complete(run, 10)
    (run.checkpoints / "checkpoint-20").mkdir()
    (run.checkpoints / "checkpoint-tmp").mkdir()
    assert run.last_checkpoint() == kept
    assert run.last_checkpoint_step() == 10
    run.tidy()
    assert list(run.checkpoints.iterdir()) == [kept]


def test_checkpoints_go_by_number_not_by_name(run: RunDir) -> None:
    complete(run, 9)
    newest = complete(run, 100)
    assert run.last_checkpoint() == newest


def test_the_end_is_written_into_the_room_kept_for_it(run: RunDir) -> None:
    run.tidy()
    assert run.reserve.stat().st_size >= 2**16
    run.finish(RunState(status="failed", stage="training", eta_seconds=3.0, message="No."))
    state = run.read_state()
    assert (state.status, state.stage, state.eta_seconds, state.message) == ("failed", None, None, "No.")
    assert state.ended_at is not None
    assert not run.reserve.exists()


def test_a_reader_never_sees_half_a_state(run: RunDir) -> None:
    run.keep_process(os.getpid())
    seen = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(run.read_state().status)

    run.write_state(RunState(status="running"))
    reader = threading.Thread(target=read)
    reader.start()
    for step in range(100):
        run.write_state(RunState(status="running", step=step, message="x" * 5000))
    done.set()
    reader.join()
    assert seen == {"running"}


def test_of_two_at_once_the_second_waits(run: RunDir) -> None:
    order = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with run.exclusive():
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with run.exclusive():
        inside.set()
        time.sleep(0.1)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
