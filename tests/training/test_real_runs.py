"""Real runs of the real child: to the end, killed, cancelled, on a full disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from annotation.errors import UserError
from annotation.files import sha256_of
from tests.fixtures.models import TrainedRun, row, short_rows, wait_over
from training import launch, registry
from training.processes import family
from training.rundir import RunDir
from training.types import LoraSettings, RunState, SftConfig
from training.weights import digest

pytestmark = [pytest.mark.slow, pytest.mark.alone]

Make = Callable[..., RunDir]
TINY = LoraSettings(rank=2, alpha=4)


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path, configured: Callable[..., SftConfig]) -> Iterator[Make]:
    """Makes a run on a tiny model; whatever still goes at the end of the test is stopped."""
    made = []

    def run(rows: list[dict[str, Any]] | None = None, **changes: Any) -> RunDir:
        quick = {"run_name": "test", "lora": TINY, "rows_per_step": 2, "max_steps": 4, "epochs": 1000}
        config = configured(rows, tiny_model, **quick | changes)
        made.append(RunDir.create(tmp_path / "runs" / "r", config))
        return made[-1]

    yield run
    for left in made:
        launch.cancel(left)


def wait_for_step(run: RunDir, step: int, seconds: float = 400) -> None:
    limit = time.monotonic() + seconds
    while not any(metric.step >= step for metric in run.read_metrics()):
        state = run.read_state()
        assert state.status in ("queued", "running"), f"{state.message}\n{run.log_tail(30)}"
        assert time.monotonic() < limit, run.log_tail(30)
        time.sleep(0.02)


def succeeded(run: RunDir) -> RunState:
    state = wait_over(run)
    assert state.status == "succeeded", f"{state.message}\n{run.log_tail(40)}"
    return state


def test_a_finished_run_proves_what_it_did(trained_run: TrainedRun) -> None:
    state, metrics = trained_run.run.read_state(), trained_run.run.read_metrics()
    result = state.result
    assert result is not None
    assert result.rows_in == result.rows_trained >= 40
    assert (result.rows_truncated, result.rows_dropped) == (0, {})
    assert result.tokens_with_loss > 1000
    assert result.steps == state.step == state.of_steps == len(metrics) >= 20
    assert [metric.step for metric in metrics] == list(range(1, result.steps + 1))
    assert metrics[-1].tokens_seen > metrics[0].tokens_seen > 0
    assert all(metric.tokens_per_second > 0 for metric in metrics)
    assert metrics[-1].eta_seconds == 0
    assert result.first_loss == metrics[0].loss
    first, last = (sum(metric.loss for metric in part) / 5 for part in (metrics[:5], metrics[-5:]))
    assert last < first * 0.7, f"the loss went from {first:.2f} to {last:.2f}"


def test_what_is_published_is_what_was_trained(trained_run: TrainedRun) -> None:
    adapter, config = trained_run.adapter, trained_run.run.read_config()
    assert adapter.run_id == trained_run.run.path.name
    assert (adapter.dataset_id, adapter.dataset_sha256) == (config.dataset_id, config.dataset_sha256)
    assert adapter.weights_sha256 == sha256_of(adapter.path / registry.WEIGHTS)
    assert adapter.name.endswith(adapter.weights_sha256[:8])
    assert adapter.base_sha256 == digest(Path(config.base_model))
    assert {"torch", "transformers", "trl", "peft"} <= set(adapter.versions)
    settings = json.loads((adapter.path / "adapter_config.json").read_text())
    assert (settings["r"], settings["bias"], settings["use_dora"]) == (config.lora.rank, "none", False)
    assert settings["modules_to_save"] is None


def test_a_finished_run_gives_back_what_nobody_needs(trained_run: TrainedRun) -> None:
    left = {path.name for path in trained_run.run.path.iterdir()}
    assert not left & {"checkpoints", "making", "reserve"}
    assert {path.name for path in (trained_run.home / "adapters").iterdir()} == {trained_run.adapter.name}


def test_a_run_is_done_once(trained_run: TrainedRun) -> None:
    before = trained_run.run.state.read_bytes()
    again = [sys.executable, "-m", "training", str(trained_run.run.path)]
    assert subprocess.run(again, capture_output=True, check=False).returncode == 2
    with pytest.raises(UserError, match="is succeeded"):
        launch.resume(trained_run.run)
    assert launch.cancel(trained_run.run).status == "succeeded"
    assert trained_run.run.state.read_bytes() == before


def test_killed_between_publishing_and_saying_so_it_ends_in_one_adapter(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "quick")
    shutil.copytree(trained_run.run.path, run.path)
    state = trained_run.run.read_state()
    run.write_state(state.model_copy(update={"status": "running", "result": None, "adapter": None, "ended_at": None}))
    assert run.read_state().status == "failed"
    subprocess.run([sys.executable, "-m", "training", str(run.path)], check=True)
    after = run.read_state()
    assert (after.status, after.adapter, after.result) == ("succeeded", state.adapter, state.result)
    assert len(registry.all_adapters(trained_run.home / "adapters")) == 1


def test_killed_in_the_middle_it_says_so_and_goes_on(make: Make) -> None:
    run = make(max_steps=60, checkpoint_every=4)
    child = launch.start(run)
    with pytest.raises(UserError, match="going already"):
        launch.start(run)
    wait_for_step(run, 5)
    process = psutil.Process(child)
    process.kill()
    process.wait(10)
    state = run.read_state()
    assert state.status == "failed"
    assert "killed" in state.message
    step = run.last_checkpoint_step()
    assert step >= 4
    assert f"go on from step {step}" in state.message
    before = run.read_metrics()
    half = run.checkpoints / "checkpoint-99"  # as a kill in the middle of a save leaves it
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    with run.metrics.open("a") as file:
        file.write('{"step": 6, "of_st')

    launch.resume(run)
    assert run.read_state().status in ("queued", "running")
    result = succeeded(run).result
    metrics = run.read_metrics()
    assert result is not None
    assert result.steps == 60
    assert [metric.step for metric in metrics] == list(range(1, 61))
    assert [metric.loss for metric in metrics[:step]] == [metric.loss for metric in before[:step]]
    lines = [json.loads(text)["step"] for text in run.metrics.read_text().splitlines() if text.endswith("}")]
    assert lines.count(1) == 1, "it went on, rather than beginning again"
    seen = [metric.tokens_seen for metric in metrics]
    assert seen == sorted(set(seen)), "tokens are counted on over a resume"
    assert len(registry.all_adapters(run.read_config().adapters_dir)) == 1


def test_cancelled_it_stops_with_all_it_started_and_can_go_on(make: Make) -> None:
    run = make(max_steps=2000, checkpoint_every=2)
    child = launch.start(run)
    wait_for_step(run, 3)
    state = launch.cancel(run)
    assert state.status == "cancelled"
    assert re.fullmatch(r"Cancelled at step \d+\.", state.message)
    assert state.ended_at is not None
    assert [process for process in family(child) if process.status() != psutil.STATUS_ZOMBIE] == []
    assert run.last_checkpoint_step() >= 2
    assert launch.cancel(run) == state, "a second click changes nothing"
    assert not (run.read_config().adapters_dir).exists()


def test_nothing_to_learn_from_fails_in_words_before_the_model_is_loaded(make: Make) -> None:
    rows = [row(1, "word " * 200, "Too long a prompt."), row(2, "Hello?", "  ")]
    run = make(rows, max_length=64)
    launch.start(run)
    state = wait_over(run)
    assert state.status == "failed"
    assert "No row of this version can be learned from" in state.message
    assert "1 × the prompt alone fills the 64 tokens" in state.message
    assert "1 × the last message is not a reply" in state.message
    assert "Loading weights" not in run.log_tail(200)


def test_rows_cut_and_rows_left_out_are_counted(make: Make) -> None:
    rows = [*short_rows(4), row(8, "Hello?", "word " * 100), row(9, "Hello?", "")]
    run = make(rows, max_length=64, max_steps=2)
    launch.start(run)
    result = succeeded(run).result
    assert result is not None
    assert (result.rows_in, result.rows_trained, result.rows_truncated) == (6, 5, 1)
    assert result.rows_dropped == {"the last message is not a reply with text": 1}


def test_a_save_that_the_disk_has_no_room_for_fails_in_words(make: Make) -> None:
    run = make(max_steps=2000, checkpoint_every=100)
    launch.start(run)
    wait_for_step(run, 1)
    (run.checkpoints / "checkpoint-100").mkdir(parents=True)
    (run.checkpoints / "checkpoint-100" / "optimizer.pt").symlink_to("/dev/full")  # the kernel's own ENOSPC
    state = wait_over(run)
    assert state.status == "failed"
    needed = re.search(r"The disk of (\S+) is full.*needs about (\d+) MB there\. Free some space", state.message)
    assert needed is not None, state.message
    assert needed[1] in (str(run.path), str(run.read_config().adapters_dir))
    assert run.last_checkpoint() is None
    assert list(run.checkpoints.glob("checkpoint-*")) == [], "the half-written one is given back"


FULL_DISK = Path(__file__).with_name("full_disk.py")


def test_a_disk_that_is_full_to_the_last_byte_still_takes_the_reason(make: Make, tmp_path: Path) -> None:
    config = make(max_steps=2000, checkpoint_every=100).read_config()
    told, disk = tmp_path / "state.json", tmp_path / "disk"
    (tmp_path / "config.json").write_text(config.model_copy(update={"adapters_dir": disk / "a"}).model_dump_json())
    disk.mkdir()
    space = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [*space, sys.executable, str(FULL_DISK), str(disk), str(tmp_path / "config.json"), str(told)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    state = RunState.model_validate_json(told.read_bytes())
    assert state.status == "failed"
    assert state.ended_at is not None
    assert re.search(rf"The disk of {disk}\S* is full.*needs about \d+ MB there", state.message), state.message
