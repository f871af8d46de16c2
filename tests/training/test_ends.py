"""What a run says when it can't go on, and what a base model that can't be had says."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from annotation.errors import UserError
from training import launch
from training.__main__ import explain
from training.base_model import prepare
from training.rundir import RunDir
from training.types import RunState, SftConfig


@pytest.fixture
def run(tmp_path: Path, configured: Callable[..., SftConfig]) -> RunDir:
    return RunDir.create(tmp_path / "runs" / "r", configured())


def wrapped(cause: Exception) -> Exception:
    """`cause` as libraries pass it on: inside an error of their own."""
    try:
        raise RuntimeError("could not save") from cause
    except RuntimeError as error:
        return error


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    wrapped(OSError(errno.ENOSPC, "No space left on device")),
    RuntimeError("Error while serializing: IoError(Os { code: 28, message: os error 28 })"),
    RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos 1024 vs 918"),
]


@pytest.mark.parametrize("error", FULL, ids=[type(error).__name__ + str(place) for place, error in enumerate(FULL)])
def test_a_full_disk_names_the_place_the_need_and_what_to_do(run: RunDir, error: Exception) -> None:
    said = explain(error, run)
    assert said.startswith("The disk of ")
    assert " is full" in said
    assert " MB there" in said
    assert "Free some space" in said


def test_an_error_a_person_can_fix_is_said_as_it_is(run: RunDir) -> None:
    assert explain(UserError("This.", "That.", "Do."), run) == "This. That. Do."


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate")])
def test_no_memory_is_a_sentence(run: RunDir, error: Exception) -> None:
    assert "ran out of memory" in explain(error, run)


def test_anything_else_names_itself_and_the_log(run: RunDir) -> None:
    said = explain(KeyError("labels"), run)
    assert said.startswith("The trainer failed: KeyError: 'labels'")
    assert str(run.log) in said


def test_an_error_that_only_sounds_like_a_full_disk_is_not_one(run: RunDir) -> None:
    assert "disk" not in explain(OSError(errno.EACCES, "Permission denied"), run)


def test_a_folder_that_is_no_run_is_said_on_the_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "is not the folder of a run" in done.stderr
    assert list(tmp_path.iterdir()) == []


# Runs that can't go on


def test_a_run_without_a_checkpoint_does_not_resume(run: RunDir) -> None:
    run.finish(RunState(status="failed", message="No."))
    with pytest.raises(UserError, match="no checkpoint to go on from"):
        launch.resume(run)


@pytest.mark.parametrize("status", ["queued", "succeeded"])
def test_a_run_that_has_not_failed_does_not_resume(run: RunDir, status: str) -> None:
    run.write_state(RunState.model_validate({"status": status}))
    with pytest.raises(UserError, match=f"is {status}"):
        launch.resume(run)


def test_cancelling_a_run_that_is_over_changes_nothing(run: RunDir) -> None:
    run.finish(RunState(status="succeeded", message="Done."))
    before = run.state.read_bytes()
    assert launch.cancel(run).status == "succeeded"
    assert run.state.read_bytes() == before


def test_a_run_that_waits_can_be_cancelled(run: RunDir) -> None:
    assert launch.cancel(run).status == "cancelled"
    assert run.read_state().status == "cancelled"


# Base models that can't be had


@pytest.fixture
def hollow_model(tmp_path: Path) -> Path:
    """A folder with every file that a model needs, and nothing in them."""
    folder = tmp_path / "hollow"
    folder.mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\0" * 1000)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no model at .*nowhere"):
        prepare(str(tmp_path / "nowhere"), tmp_path / "cache")


def test_a_folder_of_a_users_own_is_taken_where_it_is(hollow_model: Path, tmp_path: Path) -> None:
    assert prepare(str(hollow_model), tmp_path / "cache") == hollow_model.resolve()
    assert not (tmp_path / "cache").exists()


def test_a_model_without_weights_in_safetensors_form_is_refused(hollow_model: Path, tmp_path: Path) -> None:
    (hollow_model / "model.safetensors").rename(hollow_model / "pytorch_model.bin")
    with pytest.raises(UserError, match="no weights in safetensors form"):
        prepare(str(hollow_model), tmp_path)


@pytest.mark.parametrize("base", ["nobody/nothing-here", "not a name at all"])
def test_a_name_the_hub_does_not_give_is_a_sentence(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # no network in a test
    with pytest.raises(UserError, match=f"'{base}' is neither a folder here nor a model that can be fetched") as caught:
        prepare(base, tmp_path)
    assert "TONESMITH_BASE_MODEL" in caught.value.do


def test_a_cache_that_cant_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"The base model can't be prepared in .*cache"):
        prepare("SmolLM2-135M-Instruct", tmp_path / "cache")


def test_a_model_from_the_hub_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = tmp_path / "hub" / "snapshots" / "abc"
    fetched.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (fetched / name).write_text("{}")
    calls: list[list[str]] = []

    def hub(arguments: list[str], trouble: str) -> str:
        calls.append(arguments)
        return f"{fetched}\n"

    monkeypatch.setattr("training.base_model._run", hub)
    for _ in range(2):
        assert prepare("somebody/model", tmp_path, revision="v1") == fetched
    assert len(calls) == 1
    assert calls[0][2:4] == ["somebody/model", "v1"]
