"""An experiment from its questions to its figures in a real browser, on scripted replies, by two people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.end_to_end.test_pages import GRADIOS_OWN
from tests.fixtures.studio import PATIENCE_MS, Studio

pytestmark = pytest.mark.slow
QUESTIONS = [f"Where is parcel {word}?" for word in ("Aachen", "Bergamo", "Coimbra", "Dortmund", "Espoo", "Faro")]
THOUGHT = "no model has read the replies"
"""What the scripted model gives as its reason when it judges."""
TELLING = ("SmolLM2", "provenance", "Base model", "with the guide", "sha256", '"control"', '"repeat"', THOUGHT)
"""What would tell the sides of a pair apart, that it is a check, or what a model thinks of it."""

LISTEN = """
window.heard = [];
const ask = window.fetch;
window.fetch = async (...asked) => {
  const answer = await ask(...asked);
  if (!answer.body) return answer;
  const [shown, copied] = answer.body.tee();
  const read = async () => {
    const pieces = copied.pipeThrough(new TextDecoderStream()).getReader();
    for (let next = await pieces.read(); !next.done; next = await pieces.read()) heard.push(next.value);
  };
  read().catch(() => {});
  return new Response(shown, { status: answer.status, statusText: answer.statusText, headers: answer.headers });
};
const Source = window.EventSource;
window.EventSource = class extends Source {
  constructor(...asked) { super(...asked); this.addEventListener("message", (event) => heard.push(event.data)); }
};
const Socket = window.WebSocket;
window.WebSocket = class extends Socket {
  constructor(...asked) { super(...asked); this.addEventListener("message", (event) => heard.push(`${event.data}`)); }
};
"""
"""Keeps all that the server tells the page, however it is sent."""
PLACE = "document.querySelector('#ts-prompt p')?.innerText ?? ''"
"""'Number 3 of 7 for you', or nothing when there is no more to judge."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    started = Studio(tmp_path_factory.mktemp("experiments") / "home", "--demo", "--engine", "scripted")
    started.start()
    for name, role in (("cat", "curator"), ("ana", "reviewer")):
        started.run("people", "add", name, "--role", role)
    yield started
    started.stop()


def window(browser: Browser, studio: Studio, name: str) -> Page:
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE_MS)
    studio.sign_in(page, name)
    return page


def go(page: Page, studio: Studio) -> None:
    studio.open(page, "/experiments")
    page.wait_for_timeout(1500)


def choose(page: Page, field: str, option: str) -> None:
    page.click(f"{field} input")
    page.get_by_role("option", name=option, exact=True).click()


def set_up(page: Page) -> None:
    """The form, with one mistake on the way."""
    page.click("#ts-x-start")
    expect(page.get_by_text("The experiment has no name.")).to_be_visible()
    page.fill("#ts-x-name input, #ts-x-name textarea", "Does the guide help?")
    page.fill("#ts-x-questions textarea", "\n".join(QUESTIONS))
    page.click("#ts-x-start")
    expect(page.get_by_text("'Base model' stands on two sides.")).to_be_visible()
    choose(page, "#ts-x-told-1", "The guide, from the charter")
    page.fill("#ts-x-variety-1 input[type=number]", "0.3")
    page.keyboard.press("Tab")
    page.get_by_label("Whose tone is more like us?").check()
    page.click("#ts-x-start")
    expect(page.locator("#ts-standing")).not_to_contain_text("The models are writing", timeout=PATIENCE_MS)
    expect(page.locator("#ts-experiment input")).to_have_value("Does the guide help?")


def test_from_the_questions_to_the_figures(browser: Browser, studio: Studio, tmp_path: Path) -> None:
    cat, ana = window(browser, studio, "cat"), window(browser, studio, "ana")
    go(cat, studio)
    set_up(cat)
    let_a_model_judge(cat)
    ana.add_init_script(LISTEN)
    logged = len(studio.whole_log())
    go(ana, studio)
    expect(ana.locator("#ts-voting")).to_be_visible()
    expect(ana.locator("#ts-new-experiment")).to_be_hidden()
    before = judge_all(ana)
    assert before >= len(QUESTIONS) - 3  # some pairs say the same twice, and are left aside
    ana.wait_for_timeout(500)
    told = "".join(ana.evaluate("heard")) + ana.content() + studio.whole_log()[logged:]
    assert told.count("Where is parcel") > before
    assert [word for word in TELLING if word in told] == []
    expect(ana.locator("#ts-standing")).to_contain_text(f"{before} votes by 1 person")
    expect(ana.locator("#ts-figures-show")).to_be_hidden()
    expect(ana.locator("#ts-judges")).to_be_hidden()

    ana.click("#ts-fix")
    ana.wait_for_selector("#desk-reply")
    expect(ana.locator("main")).to_contain_text("Where is parcel")
    at_desk = "".join(ana.evaluate("heard")) + ana.content()
    assert [word for word in ("Base model with the guide", "with the guide", "sha256") if word in at_desk] == []

    go(cat, studio)
    cat.click("#ts-figures-show")
    expect(cat.locator("#ts-figures")).to_contain_text("you can't judge in this experiment any more")
    expect(cat.locator("#ts-figures")).not_to_contain_text("Base model")
    cat.click("#ts-sure")
    expect(cat.locator("#ts-figures")).to_contain_text("Base model with the guide against Base model")
    expect(cat.locator("#ts-figures")).not_to_contain_text("What a model thinks")
    cat.get_by_text("End it, and name the sides").click()
    cat.fill("#ts-end-reason input, #ts-end-reason textarea", "Enough seen")
    cat.click("#ts-end")
    expect(cat.locator("#ts-standing")).to_contain_text("ended it: Enough seen")
    expect(cat.locator("#ts-voting")).to_be_hidden()
    cat.click("#ts-standings > button")
    expect(cat.locator("#ts-standings tbody tr")).to_have_count(2)
    expect(cat.locator("#ts-standings")).to_contain_text("Base model with the guide")
    apart = cat.locator("#ts-figures .ts-judged")
    expect(apart).to_contain_text("none of it is counted in the figures above")
    expect(apart).to_contain_text("Always says “the first”")
    apart.locator("summary").focus()
    cat.keyboard.press("Enter")
    expect(apart.locator(".ts-judged-pair").first).to_contain_text(THOUGHT)
    with cat.expect_download() as download:
        cat.click("#ts-export")
    lines = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    ballots = [ballot["form"] for line in lines[1:] for ballot in line["ballots"]]
    assert len(ballots) == before
    first = next(form for form in ballots if form["comment"])
    assert (first["criteria"], first["strength"]) == ({"voice": "left"}, 3)
    assert lines[0]["experiment"]["ended_by"] == "cat"
    assert len(lines[0]["judges"]) == 1
    assert [side["sampling"]["temperature"] for side in lines[0]["experiment"]["design"]["sides"]] == [0.7, 0.3]
    for page in (cat, ana):
        page.context.close()


def let_a_model_judge(page: Page) -> None:
    page.get_by_text("Ask a model to judge").click()
    page.click("#ts-judge-ask")
    expect(page.locator("#ts-judge-said")).to_contain_text("Shown when the experiment has ended.", timeout=PATIENCE_MS)
    expect(page.locator("#ts-judge-halt")).to_be_hidden()


def judge_all(page: Page) -> int:
    """Judge by keyboard, the first one with more to say, the last one for left; returns how many there were."""
    page.locator("h1#ts-main").focus()
    page.keyboard.press("q")
    expect(page.get_by_label("Left", exact=True)).to_be_checked()
    page.keyboard.press("9")
    expect(page.get_by_label("much", exact=True)).to_be_checked()
    page.fill("#ts-comment textarea", "Kinder. 1 2 3")  # digits in a comment are no votes
    page.locator("h1#ts-main").focus()
    number = 0
    while place := page.evaluate(PLACE):
        _, place_of, _, last, *_ = place.split()
        key = "1" if place_of == last else "1423"[number % 4]
        page.keyboard.press(key)
        page.wait_for_function(f"place => ({PLACE}) !== place", arg=place)
        expect(page.locator("#ts-fix")).to_be_visible(visible=key in "14")
        number += 1
        assert number < 30
    return number


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_it_fits_and_can_be_read_by_everybody(browser: Browser, studio: Studio, size: tuple[int, int]) -> None:
    page = window(browser, studio, "cat")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    go(page, studio)
    page.click("#ts-figures-show")
    page.locator(".ts-judged summary").click()
    for closed in ("New experiment", "Ask a model to judge"):
        page.get_by_text(closed).click()
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    found = [
        f"{violation['id']}: {node['html'][:160]}"
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical") and violation["id"] not in GRADIOS_OWN
        for node in violation["nodes"]
    ]
    page.context.close()
    assert found == []
