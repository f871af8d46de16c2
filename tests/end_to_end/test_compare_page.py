"""The live comparison in a real browser, on scripted replies: three sides, several turns, blind until the vote."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from annotation.files import sha256_of
from tests.end_to_end.test_experiments_page import LISTEN, window
from tests.end_to_end.test_pages import GRADIOS_OWN
from tests.fixtures.studio import Studio, wait_until
from tests.serving.conftest import SHAPES, FakeEngine, Peer, make_adapter, running_peer, write_tensors

pytestmark = pytest.mark.slow
ADAPTER, WORDS, PAUSE = "quokka-7", 8, 0.3
PIECES = """
window.pieces = [];
const push = heard.push.bind(heard);
heard.push = (said) => {
  for (const word of said.match(/(swift|tardy)[0-9]/g) ?? [])
    if (!pieces.some((one) => one.word === word)) pieces.push({ word, at: performance.now() / 1000 });
  return push(said);
};
"""
"""Which words of the two voices the server has told, in their order, and when (s). After LISTEN."""
NOTING_NO_VOTES = """() => new MutationObserver(() => {
  if (!document.querySelector('#ts-votes')?.checkVisibility()) window.noVotes = true;
}).observe(document.body, { attributes: true, childList: true, subtree: true })"""
"""Notes when there is nothing to vote with, however short that is."""
OWN = "Answer like a pirate."
TELLING = ("SmolLM2", "provenance", "base model", "with instructions", "sha256", "pirate", "Juniper", "tokens")
"""What would tell the sides apart. (Juniper is whose charter one side is told.)"""


def from_now_on(page: Page) -> None:
    """Forget what was heard, once the page has been told all it asked for: on a busy machine that may take a while."""
    page.wait_for_function(
        "() => { const now = performance.now(); if (window.length0 !== heard.length) [window.length0, window.since] ="
        " [heard.length, now]; return now - window.since > 1500; }"
    )
    page.evaluate("heard.length = 0")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    started = Studio(tmp_path_factory.mktemp("compare") / "home", "--demo", "--engine", "scripted")
    started.start()
    started.run("people", "add", "ana", "--role", "reviewer")
    yield started
    started.stop()


@pytest.fixture
def ana(browser: Browser, studio: Studio) -> Iterator[Page]:
    page = window(browser, studio, "ana")
    page.add_init_script(LISTEN)
    studio.open(page, "/compare")
    expect(page.locator("#ts-ask textarea")).to_be_visible()
    page.wait_for_timeout(1000)
    yield page
    page.context.close()


def choose(page: Page, field: str, option: str) -> None:
    page.click(f"{field} input")
    page.get_by_role("option", name=option, exact=True).click()


def three_sides(page: Page) -> None:
    """The base as it is, with the charter, and with instructions of one's own."""
    page.click("#ts-drawn > button")
    choose(page, "#ts-told-1", "The charter")
    choose(page, "#ts-side-2", "Base model")
    choose(page, "#ts-told-2", "My own")
    page.fill("#ts-own-2 textarea", OWN)
    page.click("#ts-drawn > button")


def ask(page: Page, text: str) -> None:
    page.fill("#ts-ask textarea", text)
    page.keyboard.press("Enter")
    page.wait_for_selector("#ts-votes", state="visible")


def test_three_sides_stay_blind_over_two_turns_until_the_vote(ana: Page, studio: Studio) -> None:
    ana.fill("#ts-ask textarea", "Where is my parcel?")
    ana.click("#ts-ask-both")
    expect(ana.get_by_text("Two sides are the same.")).to_be_visible()
    three_sides(ana)
    from_now_on(ana)
    logged = len(studio.whole_log())
    ask(ana, "Where is my parcel?")
    expect(ana.locator("#ts-third")).to_contain_text("Where is my parcel?")
    ana.fill("#ts-ask textarea", "And if it is lost?")
    ana.click("#ts-go-on")
    expect(ana.locator("#ts-third")).to_contain_text("You asked: “And if it is lost?”")
    ana.wait_for_selector("#ts-votes", state="visible")
    ana.wait_for_timeout(500)
    told = "".join(ana.evaluate("heard"))
    assert told.count("And if it is lost?") > 3
    shown = "".join(ana.locator(f"#ts-{place}").inner_html() for place in ("left", "right", "third"))
    assert [word for word in TELLING if word in told + shown + studio.whole_log()[logged:]] == []

    ana.locator("h1").click()
    ana.keyboard.press("5")
    expect(ana.locator("#ts-third .ts-won")).to_be_visible()
    expect(ana.locator("#ts-sides")).to_contain_text("with instructions")
    expect(ana.locator("#ts-sides")).to_contain_text("the cheapest")
    expect(ana.locator("#ts-votes")).to_be_hidden()
    ana.click("#ts-differs summary")
    expect(ana.locator("#ts-differs .ts-diff")).to_have_count(2)
    ana.click("#ts-fix")
    ana.wait_for_selector("#desk-reply")
    expect(ana.locator("main")).to_contain_text("And if it is lost?")


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as found:
        yield found


@pytest.fixture
def tuned(peer: Peer, tmp_path: Path) -> Iterator[Studio]:
    """A studio on an engine whose base speaks at once, and whose adapter needs PAUSE seconds for each word."""
    (tmp_path / "Small").mkdir()
    for file in ("config.json", "tokenizer.json", "chat_template.jinja"):
        (tmp_path / "Small" / file).write_text("{}")
    write_tensors(tmp_path / "Small" / "model.safetensors", SHAPES)
    make_adapter(tmp_path / "home" / "adapters", ADAPTER)
    fake = FakeEngine(peer)
    fake.held = [ADAPTER]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/v1/chat/completions":
            speak(handler)
        else:
            fake(handler)

    def speak(handler: BaseHTTPRequestHandler) -> None:
        slow = peer.now.body["model"] == ADAPTER
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for number in range(WORDS):
            time.sleep(PAUSE if slow else 0)
            delta = {"content": f"{'tardy' if slow else 'swift'}{number} "}
            handler.wfile.write(f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode())
            handler.wfile.flush()
        end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
        handler.wfile.write(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode())

    peer.answer = answer
    base = str(tmp_path / "Small")
    started = Studio(tmp_path / "home", "--engine-url", peer.url, "--base-model", base)
    started.start()
    started.wait_for_engine(60)
    started.run("people", "add", "ana", "--role", "reviewer")
    yield started
    started.stop()


def test_neither_names_nor_hashes_nor_pace_tell_a_tuned_model_from_its_base(
    browser: Browser, tuned: Studio, tmp_path: Path
) -> None:
    lineage = json.loads((tmp_path / "home" / "adapters" / ADAPTER / "lineage.json").read_text())
    secrets = [ADAPTER, lineage["weights_sha256"], sha256_of(tmp_path / "Small" / "model.safetensors")]
    page = window(browser, tuned, "ana")
    page.add_init_script(LISTEN + PIECES)
    tuned.open(page, "/compare")
    from_now_on(page)
    logged = len(tuned.whole_log())
    ask(page, "Where is my parcel?")
    page.wait_for_timeout(500)
    told = "".join(page.evaluate("heard"))
    assert f"tardy{WORDS - 1}" in told
    assert [one for one in secrets if one in told + page.content() + tuned.whole_log()[logged:]] == []

    when = {one["word"]: one["at"] for one in page.evaluate("pieces")}
    assert len(when) == 2 * WORDS
    rounds = [(when[f"swift{number}"], when[f"tardy{number}"]) for number in range(WORDS)]
    assert max(abs(swift - tardy) for swift, tardy in rounds) < PAUSE
    assert all(max(before) <= min(after) for before, after in pairwise(rounds)), "nobody is a word ahead"
    assert rounds[-1][0] - rounds[0][0] > PAUSE * (WORDS - 1) / 2, "the swift one had to wait"

    page.click("#ts-vote-left")
    expect(page.locator("#ts-sides")).to_contain_text(ADAPTER)
    assert ADAPTER in "".join(page.evaluate("heard")) + page.content(), "so it would have been found"
    page.context.close()


def test_a_chat_is_compared_from_any_of_its_messages(ana: Page, studio: Studio) -> None:
    studio.open(ana, "/chat")
    ana.wait_for_timeout(1000)
    ana.click("#ts-compare-from")
    expect(ana.get_by_text("There is no message here to compare replies to.")).to_be_visible()
    for text in ("Do you sell boots?", "And in red?"):
        ana.fill("#ts-message textarea", text)
        ana.keyboard.press("Enter")
        expect(ana.locator("#ts-chat .user").last).to_contain_text(text)
        expect(ana.locator("#ts-send")).to_be_visible()
        expect(ana.locator("#ts-answered")).to_be_visible()
    ana.wait_for_timeout(500)
    ana.click("#ts-compare-from")
    ana.wait_for_url("**/compare?after=*")
    expect(ana.locator("#ts-ask textarea")).to_have_value("And in red?")
    expect(ana.locator("#ts-history .ts-user")).to_have_count(1)
    expect(ana.locator("#ts-history")).to_contain_text("Do you sell boots?")
    choose(ana, "#ts-begin", "After the last reply")
    expect(ana.locator("#ts-history .ts-turn")).to_have_count(4)
    expect(ana.locator("#ts-ask textarea")).to_have_value("")
    three_sides(ana)
    from_now_on(ana)
    ask(ana, "And in blue?")
    told = "".join(ana.evaluate("heard"))
    assert [word for word in TELLING if word in told] == []
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        ((prompt,),) = db.execute("SELECT prompt FROM comparisons ORDER BY seq DESC LIMIT 1")
    said = json.loads(prompt)
    assert [one["role"] for one in said] == ["user", "assistant", "user", "assistant", "user"]
    assert (said[0]["text"], said[-1]["text"]) == ("Do you sell boots?", "And in blue?")
    ana.click("#ts-vote-left")
    expect(ana.locator("#ts-left .ts-won")).to_be_visible()
    ana.click("#ts-anew")
    expect(ana.locator("#ts-history")).to_be_hidden()
    ask(ana, "Do you sell hats?")
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        ((prompt,),) = db.execute("SELECT prompt FROM comparisons ORDER BY seq DESC LIMIT 1")
    assert len(json.loads(prompt)) == 1


def test_a_vote_says_more_and_is_kept_whole(ana: Page, studio: Studio) -> None:
    three_sides(ana)
    ask(ana, "Can I pay by card?")
    ana.click("#ts-say-more > button")
    ana.locator("#ts-asked-policy").get_by_label("Third").check()
    ana.locator("#ts-strength").get_by_label("much").check()
    ana.locator("#ts-tags").get_by_label("unclear").check()
    ana.fill("#ts-comment textarea", "The second rambles.")
    ana.click("#ts-vote-left")
    expect(ana.locator("#ts-left .ts-won")).to_be_visible()
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        ((outcome, voter, form),) = db.execute("SELECT outcome, voter, form FROM votes ORDER BY seq DESC LIMIT 1")
    kept = json.loads(form)
    assert (outcome, voter) == ("left", "ana")
    assert (kept["strength"], kept["criteria"], kept["tags"]) == (3, {"policy": "third"}, ["unclear"])
    assert kept["comment"] == "The second rambles."


def test_all_of_a_vote_can_be_given_by_keys(ana: Page, studio: Studio) -> None:
    three_sides(ana)
    ask(ana, "Do you ship abroad?")
    ana.locator("h1").click()
    for key in "tfze8":  # voice: third; policy: right; bias: left, then both bad by voice's key; clearly
        ana.keyboard.press(key)
    expect(ana.locator("#ts-strength").get_by_label("clearly")).to_be_checked()
    expect(ana.locator("#ts-asked-voice")).to_contain_text("q first, w same, e all bad, r second, t third")
    ana.fill("#ts-comment textarea", "qqq 9 4")  # while somebody types, keys are letters
    ana.locator("h1").click()
    ana.keyboard.press("g")
    ana.keyboard.press("h")  # there is no fourth
    ana.wait_for_timeout(300)
    ana.keyboard.press("4")
    expect(ana.locator("#ts-right .ts-won")).to_be_visible()
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        ((form,),) = db.execute("SELECT form FROM votes ORDER BY seq DESC LIMIT 1")
    kept = json.loads(form)
    assert kept["criteria"] == {"voice": "both_bad", "policy": "third", "bias": "left"}
    assert (kept["strength"], kept["comment"]) == (2, "qqq 9 4")


def test_replies_can_be_drawn_again_before_the_vote(ana: Page) -> None:
    three_sides(ana)
    ana.click("#ts-drawn > button")
    ana.fill("#ts-seed input, #ts-seed textarea", "seven")
    ana.fill("#ts-ask textarea", "Do you sell tents?")
    ana.click("#ts-ask-both")
    expect(ana.get_by_text("The seed is 'seven'.")).to_be_visible()
    expect(ana.locator("#ts-ask textarea")).to_have_value("Do you sell tents?")
    ana.fill("#ts-seed input, #ts-seed textarea", "0")
    ask(ana, "Do you sell tents?")
    before = ana.locator("#ts-left").inner_text()
    ana.evaluate(NOTING_NO_VOTES)
    ana.click("#ts-again")
    ana.wait_for_function("window.noVotes")  # none while they are drawn
    ana.wait_for_selector("#ts-votes", state="visible")
    assert ana.locator("#ts-left").inner_text() != before
    ana.locator("h1").click()
    ana.keyboard.press("2")
    expect(ana.locator("#ts-after")).to_contain_text("You called it even.")


def test_a_vote_while_the_sides_go_on_ends_the_round(ana: Page, studio: Studio) -> None:
    """One vote reveals who stands where, so the replies that were under way take none, and one can ask anew."""
    three_sides(ana)
    ask(ana, "Can I order by phone?")
    ana.fill("#ts-ask textarea", "And on Sundays?")
    ana.evaluate("document.querySelector('#ts-go-on').click(); document.querySelector('#ts-vote-left').click()")
    # Which of the two is over first is left to chance: the page ends with the vote, or says what it did to the replies.
    over = ana.locator("#ts-problem, #ts-after").get_by_text(re.compile("no longer blind|You preferred"))
    expect(over.first).to_be_visible()
    expect(ana.locator("#ts-ask-both")).to_be_enabled()
    for hidden in ("#ts-votes", "#ts-on"):
        expect(ana.locator(hidden)).to_be_hidden()

    def voted_and_went_on() -> tuple[int, int]:
        counted = (
            "SELECT count(votes.id), count(root) FROM comparisons LEFT JOIN votes ON comparison_id = comparisons.id"
        )
        with sqlite3.connect(studio.home / "tonesmith.db") as db:
            ((voted, went_on),) = db.execute(f"{counted} WHERE prompt LIKE '%order by phone%'")
        return voted, went_on

    def refused() -> bool:
        """The vote was there before the sides were asked to go on."""
        return "The names are out, so" in "".join(ana.evaluate("heard"))

    wait_until(lambda: refused() or voted_and_went_on() == (1, 1), 60, "the end of both")
    assert voted_and_went_on() == (1, 0 if refused() else 1)
    ask(ana, "Do you repair tents?")


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_it_fits_and_can_be_read_by_everybody(ana: Page, size: tuple[int, int]) -> None:
    ana.set_viewport_size({"width": size[0], "height": size[1]})
    three_sides(ana)
    ask(ana, "Is there a discount?")
    for voted in (False, True):
        if voted:
            ana.click("#ts-vote-right")
            expect(ana.locator("#ts-after")).to_contain_text("You preferred")
        assert ana.evaluate("document.documentElement.scrollWidth") <= size[0]
        widths = ana.evaluate("[...document.querySelectorAll('#ts-sides .ts-side')].map((one) => one.clientWidth)")
        assert min(widths) > 250
        found = Axe().run(ana, options={"rules": {rule: {"enabled": False} for rule in GRADIOS_OWN}})
        assert found.violations_count == 0, found.generate_report()
