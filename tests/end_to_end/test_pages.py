"""Each page in a real browser, on scripted replies: it fits, it can be read by everybody, and bad input stays text."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.fixtures.api import ENGINES_OWN, TRICKS
from tests.fixtures.studio import Studio
from tests.serving.conftest import make_adapter

pytestmark = pytest.mark.slow
NAV = ("/", "/chat", "/review", "/charter", "/datasets", "/training", "/compare", "/models", "/team")
UNDER = {"/find": "/review", "/settle": "/review", "/agreement": "/review", "/keys": "/models"}
PAGES = (*NAV, *UNDER)
# Gradio's own mark-up, not ours to mend: landmarks and headings inside its wrappers.
GRADIOS_OWN = {"region", "landmark-one-main", "landmark-unique", "page-has-heading-one", "heading-order"}

BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    started = Studio(tmp_path_factory.mktemp("pages") / "home", "--demo", "--engine", "scripted")
    started.start()
    yield started
    started.stop()


def go(page: Page, studio: Studio, path: str) -> None:
    """Open a page and let it settle: its first figures come a moment after it."""
    studio.open(page, path)
    page.wait_for_timeout(1500)


def fits(page: Page, path: str) -> None:
    """Nothing stands out at the side, and the way round is ours alone."""
    assert page.viewport_size
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.locator("#ts-nav nav a").count() == len(NAV)
    assert page.locator("#ts-nav a[aria-current]").get_attribute("href") == UNDER.get(path, path)
    assert page.locator(".nav-holder:visible, footer:visible").count() == 0


def unreadable(page: Page) -> list[str]:
    """What axe-core finds that shuts somebody out, and finds again once colours that were fading have settled."""
    found = _unreadable(page)
    if found:
        page.wait_for_timeout(2000)
        found = _unreadable(page)
    return found


def _unreadable(page: Page) -> list[str]:
    return [
        f"{violation['id']}: {node['html'][:160]} {node['any'][0]['message'] if node['any'] else ''}"
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical") and violation["id"] not in GRADIOS_OWN
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_a_desk_and_can_be_read_by_everybody(page: Page, studio: Studio, path: str) -> None:
    page.emulate_media(color_scheme="light")
    go(page, studio, path)
    fits(page, path)
    assert unreadable(page) == []
    light = page.evaluate(BACKGROUND)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{BACKGROUND} != '{light}'")
    page.wait_for_timeout(500)  # colours fade
    assert unreadable(page) == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_a_phone_and_can_be_read_there(page: Page, studio: Studio, path: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    go(page, studio, path)
    fits(page, path)
    assert unreadable(page) == []


NO_TICKS = """
window.dropped = 0;
const every = window.setInterval;
window.setInterval = (run, pause, ...given) => {
  if (pause !== 5000) return every(run, pause, ...given);
  dropped += 1;
};
"""
"""Home looks again every five seconds, and here it does not."""


def test_home_tells_where_things_stand_now_and_not_when_the_studio_started(
    page: Page, studio: Studio, tmp_path: Path
) -> None:
    log = tmp_path / "one.jsonl"
    said = [{"role": "user", "content": "Are you open?"}, {"role": "assistant", "content": "Until nine."}]
    log.write_text(json.dumps({"messages": said}))
    studio.open(page, "/")
    before = studio.json("status")["conversations"]
    expect(page.locator("#ts-overview a", has_text="Collect")).to_contain_text(f"{before:,}")
    studio.run("import", str(log))
    page.add_init_script(NO_TICKS)
    studio.open(page, "/")
    expect(page.locator("#ts-overview a", has_text="Collect")).to_contain_text(f"{before + 1:,}")
    page.wait_for_function("dropped")


def test_markup_in_a_chat_log_is_shown_as_text(page: Page, studio: Studio, tmp_path: Path) -> None:
    log = tmp_path / "nasty.jsonl"
    said = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> **bold** مرحبا 👋"
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": said}]
    log.write_text(json.dumps({"messages": messages}) + "\n{bad\n")
    go(page, studio, "/")
    page.get_by_text("Bring in conversations").click()
    page.locator("input[type=file]").set_input_files(log)
    expect(page.get_by_text("1 conversation added, 1 line refused.")).to_be_visible()
    expect(page.get_by_text("Line 2: not JSON")).to_be_visible()
    go(page, studio, "/chat")
    page.fill("#ts-message textarea", said)
    page.press("#ts-message textarea", "Enter")
    expect(page.locator("#ts-answered")).to_be_visible()
    expect(page.locator("#ts-chat .bot.message").last).to_contain_text("<script>")
    assert page.title() == "Tonesmith"


def test_a_key_is_made_shown_once_and_revoked(page: Page, studio: Studio) -> None:
    go(page, studio, "/keys")
    expect(page.locator("#ts-keys")).to_contain_text("None yet.")
    example = page.locator("#ts-example pre")
    expect(example).to_contain_text(f"curl {studio.url}/v1/chat/completions")
    page.press("#ts-key-name input, #ts-key-name textarea", "Enter")
    expect(page.get_by_text("The key has no name.")).to_be_visible()
    page.fill("#ts-key-name input, #ts-key-name textarea", "<b>website</b>")
    page.press("#ts-key-name input, #ts-key-name textarea", "Enter")
    expect(page.locator("#ts-keys")).to_contain_text("<b>website</b>")
    key = page.locator("#ts-new-key").inner_text()
    expect(example).to_contain_text(f"Bearer {key}")
    expect(example).to_contain_text(studio.url)
    (kept,) = studio.json("keys", "list")
    assert key.startswith(f"tonesmith-{kept['id']}-")

    def told() -> str:
        """What a shell makes of the command on the page, to its last character; here no engine answers it."""
        done = subprocess.run(["bash", "-c", f"{example.inner_text()} -s"], capture_output=True, text=True, check=True)
        return str(json.loads(done.stdout)["error"]["code"])

    assert told() == "engine_unavailable"
    page.click("#ts-copy")
    expect(page.locator("#ts-copy")).to_have_text("Copied")
    page.reload()
    expect(page.locator("#ts-keys")).to_contain_text("just now")
    assert key not in page.content()
    page.click("#ts-revoke-key")
    expect(page.locator("#ts-key-made")).to_contain_text("opens nothing any more")
    expect(page.locator("#ts-keys")).to_contain_text("revoked")
    assert httpx.get(f"{studio.url}/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 401


def test_nothing_of_an_engine_is_among_the_pages(studio: Studio) -> None:
    headers = {"cookie": f"tonesmith-session={studio.session()}"}
    with httpx.Client(base_url=studio.url, headers=headers) as visitor:
        for path in (*ENGINES_OWN, *(trick for trick in TRICKS if trick.startswith("/"))):
            for method in ("GET", "POST"):
                answer = visitor.request(method, path, content=b"{}" if method == "POST" else None)
                assert answer.status_code in (307, 400, 401, 404, 405), (method, path, answer.text[:200])


def test_empty_pages_say_what_to_do(page: Page, studio: Studio) -> None:
    go(page, studio, "/training")
    expect(page.locator("#ts-run-state")).to_contain_text("No run yet")
    page.click("#ts-start")
    expect(page.get_by_text("There is no dataset version to learn from.")).to_be_visible()
    page.fill("#ts-steps input, #ts-steps textarea", "a few")
    page.click("#ts-start")
    expect(page.get_by_text("'a few' is no number of steps.")).to_be_visible()
    go(page, studio, "/compare")
    expect(page.get_by_text("Only the base model can answer yet")).to_be_visible()
    go(page, studio, "/datasets")
    expect(page.locator("#ts-card")).to_contain_text("No version yet")


def promote(page: Page, adapter: str, reason: str, button: str) -> None:
    """Choose an adapter on the Models page, say why, and press a button."""
    page.click("#ts-model-choice input")
    page.get_by_role("option", name=adapter).click()
    page.fill("#ts-reason input, #ts-reason textarea", reason)
    page.click(button)


def test_a_candidate_is_tried_promoted_and_taken_back(
    page: Page, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONESMITH_ENGINE", "scripted")  # for the commands below
    for name in ("first-0", "second-0"):
        make_adapter(studio.home / "adapters", name)
    go(page, studio, "/models")
    expect(page.locator("#ts-standing")).to_contain_text("Nothing was chosen yet.")
    promote(page, "first-0", "", "#ts-make-production")
    expect(page.get_by_text("There is no reason given.")).to_be_visible()
    promote(page, "first-0", "<b>won</b> the votes", "#ts-make-production")
    expect(page.locator("#ts-models-said")).to_have_text("first-0 is what customers get.")
    promote(page, "second-0", "to try", "#ts-make-candidate")
    expect(page.locator("#ts-models-said")).to_have_text("second-0 is the candidate, for 0% of people.")
    page.fill("#ts-share input[type=number]", "100")
    page.fill("#ts-reason input, #ts-reason textarea", "all of us")
    page.click("#ts-set-share")
    expect(page.locator("#ts-models-said")).to_have_text("100% of people get the candidate.")
    expect(page.locator("#ts-history")).to_contain_text("<b>won</b> the votes")

    said = studio.json("chat", "Hello", "--model", "production")
    assert said["adapter"] == "second-0"
    page.fill("#ts-reason input, #ts-reason textarea", "too cold")
    page.click("#ts-back-candidate")
    expect(page.locator("#ts-models-said")).to_have_text("There is no candidate now.")
    expect(page.locator("#ts-standing")).to_contain_text("100% of people")  # get first-0 again
    studio.run("rollback", "--as", "production", "--reason", "worse than none")
    expect(page.locator("#ts-standing")).to_contain_text("The base alone")  # the page follows by itself
    expect(page.locator("#ts-history")).to_contain_text("worse than none")


def test_who_only_looks_sees_the_models_and_nothing_to_press(page: Page, studio: Studio) -> None:
    studio.run("people", "add", "vic", "--role", "viewer")
    studio.sign_in(page, "vic")
    go(page, studio, "/models")
    expect(page.locator("#ts-standing")).to_contain_text("What customers get")
    assert page.locator("#ts-change-models:visible, #ts-log:visible").count() == 0
