"""The Training page in a real browser, with a model whose steps are over in an instant: killed, gone on, cancelled."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.fixtures.studio import Studio, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studio(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """The demo project with scripted replies, and a dataset version to learn from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TONESMITH_BASE_MODEL", str(tiny_model))
        started = Studio(tmp_path_factory.mktemp("training-page") / "home", "--demo", "--engine", "scripted")
        started.start()
        started.run("curate")
        yield started
        started.stop()


def test_a_killed_run_says_so_goes_on_and_can_be_cancelled(page: Page, studio: Studio) -> None:
    studio.open(page, "/training")
    page.click("#ts-start")
    state = page.locator("#ts-run-state")
    process = held_at(studio, "checkpoints/checkpoint-10/complete.json")
    expect(state).to_contain_text(re.compile(r"[1-4]\d of 4\d"))
    process.kill()
    expect(state).to_contain_text("failed")
    expect(state).to_contain_text("stopped from outside")
    page.click("#ts-resume")
    process = held_at(studio, "checkpoints/checkpoint-20/complete.json", after=process.pid)
    expect(state).to_contain_text("running")
    expect(state).to_contain_text(re.compile(r"[2-4]\d of 4\d"))
    page.click("#ts-cancel")
    expect(state).to_contain_text("cancelled")
    process.wait(60)


def held_at(studio: Studio, sign: str, after: int = 0) -> psutil.Process:
    """The trainer of the one run, stopped where it stands once there is the file `sign` in the run's folder. It is
    another one than process `after`, which may have come as far.
    """
    (run,) = wait_until(lambda: list((studio.home / "runs").glob("*")), 60, "the run")
    limit = time.monotonic() + 240
    while not (run / sign).is_file() or (pid := trainer(run)) in (0, after):
        assert time.monotonic() < limit, (run / "log.txt").read_text()[-2000:] if (run / "log.txt").is_file() else sign
        time.sleep(0.005)
    process = psutil.Process(pid)
    process.suspend()
    return process


def trainer(run: Path) -> int:
    """The pid in the run's folder, 0 while there is none."""
    kept = run / "process.json"
    return int(json.loads(kept.read_text())["pid"]) if kept.is_file() else 0
