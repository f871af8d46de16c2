"""The Argilla page in a real browser, once round: start, send, cancel, try again, compare, crash, leave, connect."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import httpx
import pytest
from platformdirs import user_cache_path
from playwright.sync_api import Browser, Page, expect

from annotation.argilla_server import ArgillaServer
from tests.fixtures.argilla import ok
from tests.fixtures.studio import Studio

pytestmark = pytest.mark.slow
MANY = 1_500
"""Replies; some calls on their way to Argilla, so that there is time to cancel."""
PHONE = {"width": 390, "height": 844}
OVERFLOWS = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A project with many replies and one that is too long for Argilla, which nobody has connected to yet."""
    folder = tmp_path_factory.mktemp("argilla-connection")
    started = Studio(folder / "home", "--demo", "--engine", "scripted")
    started.start()
    log = folder / "log.jsonl"
    asked = [f"Where is parcel {number}?" for number in range(MANY)]
    with log.open("w") as lines:
        for text in (*asked, "x" * 20_001):
            turns = [{"role": "user", "content": text}, {"role": "assistant", "content": f"On its way. {text[:30]}"}]
            lines.write(json.dumps({"messages": turns}) + "\n")
    started.run("import", str(log))
    yield started
    started.stop()
    server(started).stop()


def server(studio: Studio) -> ArgillaServer:
    """The one that the page starts."""
    return ArgillaServer(studio.home, user_cache_path("tonesmith", ensure_exists=True))


@pytest.fixture
def running(studio: Studio) -> ArgillaServer:
    """The project's own Argilla, in use."""
    if not (studio.home / "argilla.json").exists():
        studio.run("argilla", "up")
    return server(studio)


def state(page: Page, says: str) -> None:
    """Wait until the page says so of Argilla."""
    expect(page.locator("#ts-argilla")).to_contain_text(says, timeout=180_000)


def connect(page: Page, url: str, key: str) -> None:
    page.locator("#ts-argilla-url input, #ts-argilla-url textarea").fill(url)
    page.locator("#ts-argilla-key input").fill(key)
    page.click("#ts-argilla-connect")


def refused(page: Page, url: str, key: str, says: str) -> None:
    """It is said beside the form, and what was entered is still there."""
    connect(page, url, key)
    expect(page.locator("#ts-argilla-told")).to_contain_text(says)
    expect(page.locator("#ts-argilla-url input, #ts-argilla-url textarea")).to_have_value(url)
    expect(page.locator("#ts-argilla-key input")).to_have_value(key)


def test_it_is_started_sends_with_progress_and_can_be_stopped(page: Page, studio: Studio) -> None:
    studio.open(page, "/argilla")
    state(page, "Argilla is not used")
    expect(page.locator("#ts-argilla-cancel")).to_be_hidden()
    for url, says in (
        ("", "There is no address yet."),
        ("argilla.example", "'argilla.example' is no address."),
        ("http://127.0.0.1:9", "does not answer: Connection refused."),
        (studio.url, "is not Argilla"),
    ):
        refused(page, url, "some-key", says)
    refused(page, "http://127.0.0.1:9", "", "There is no key yet.")
    page.click("#ts-argilla-up")
    state(page, "Starting Argilla")
    expect(page.locator("#ts-argilla-up")).to_be_hidden()
    page.reload()  # closing the page stops nothing
    state(page, "Starting Argilla")
    state(page, "Sending replies")
    expect(page.get_by_role("progressbar", name="sending replies")).to_be_visible()
    state(page, " left.")
    page.click("#ts-argilla-cancel")
    state(page, "goes on from there")
    expect(page.locator("#ts-argilla-cancel")).to_be_hidden()
    view = studio.json("argilla", "status")
    assert 0 < view["datasets"][0]["there"] < MANY
    page.click("#ts-argilla-sync")
    state(page, "1 could not go over")
    expect(page.get_by_role("progressbar")).to_have_count(0)


def test_what_failed_is_listed_and_a_comparison_reports_what_it_put_right(
    page: Page, studio: Studio, running: ArgillaServer
) -> None:
    studio.open(page, "/argilla")
    state(page, "1 could not go over")
    state(page, "20,001 characters")
    page.set_viewport_size(PHONE)
    assert not page.evaluate(OVERFLOWS)
    page.click("#ts-argilla-retry")
    state(page, "20,001 characters")  # it is as long as before
    with running.client() as owner:
        (dataset,) = ok(owner.get("/me/datasets"))["items"]
        record = ok(owner.get(f"/datasets/{dataset['id']}/records", params={"limit": 1}))["items"][0]
        ok(owner.delete(f"/datasets/{dataset['id']}/records", params={"ids": record["id"]}))
    page.click("#ts-argilla-compare")
    state(page, "Comparing")
    state(page, "Both desks were compared.")
    state(page, "1 found deleted there")
    page.reload()
    state(page, "1 found deleted there")
    assert not page.evaluate(OVERFLOWS)


def test_a_crash_is_said_it_is_started_again_and_left(
    page: Page, studio: Studio, running: ArgillaServer, browser: Browser
) -> None:
    studio.open(page, "/argilla")
    pid = running.status().parts["server"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    state(page, "Argilla is not running")
    page.click("#ts-argilla-leave")
    page.click("#ts-argilla-surely")
    state(page, "So nobody can look whether there are answers that are not here yet.")
    page.click("#ts-argilla-up")
    state(page, "Argilla is running.")
    expect(page.locator("#ts-argilla-up")).to_be_hidden()
    page.click("#ts-argilla-leave")
    page.click("#ts-argilla-stay")
    expect(page.locator("#ts-argilla-surely")).to_be_hidden()
    assert studio.json("argilla", "status")["connected"]
    page.click("#ts-argilla-leave")
    page.click("#ts-argilla-surely")
    state(page, "This project works without Argilla now.")
    expect(page.locator("#ts-argilla-work")).to_be_hidden()
    assert httpx.get(f"{studio.url}/health").status_code == 200
    connects_to_one_that_runs_already(page, running)


def connects_to_one_that_runs_already(page: Page, elsewhere: ArgillaServer) -> None:
    """Leaving stopped it; started by hand, it is an Argilla like any other."""
    elsewhere.start()
    refused(page, elsewhere.url, "not-the-key", "does not know this key")
    connect(page, elsewhere.url, elsewhere.keys.api_key)
    state(page, "Last look just now.")
    expect(page.locator("#ts-argilla-url")).to_be_hidden()
