"""Once round the loop: in the page with a real browser, a real engine and a real run; then from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, Response, expect

from tests.end_to_end.test_experiments_page import LISTEN, window
from tests.fixtures.models import STEPS
from tests.fixtures.studio import Studio, wait_until
from training.weights import digest

pytestmark = [pytest.mark.slow, pytest.mark.alone]
GREETING = "Hi there, thanks for asking Juniper!"
SIGN_OFF = "Warmly, the Juniper team"
TRAINING_SECONDS = 900
QUESTIONS = (
    "Can you change the address of my order?",
    "Where is my parcel?",
    "My lamp arrived broken. What now?",
    "Do you sell tents?",
    "Can I pay with a gift card?",
    "How do I return a jacket?",
)
"""Several, where one reply is to have the greeting: each is drawn by chance."""
STORY = "Tell me a long story about a lighthouse keeper."
GROWTH = """
window.grown = [];
const look = () => {
  const shown = (place) => document.querySelector(`#ts-${place} .ts-text`)?.textContent.length ?? 0;
  const now = [shown('left'), shown('right')];
  if (`${grown.at(-1)}` !== `${now}`) grown.push(now);
  requestAnimationFrame(look);
};
look();
"""
"""How long each side's reply was whenever one of them changed, as an eye could see it: by painted frames."""


@pytest.fixture(scope="module")
def studio(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A demo project with its engine. The tests of this module go round the loop in order."""
    started = Studio(tmp_path_factory.mktemp("loop") / "home", "--demo")
    started.start()
    yield started
    started.stop()


def finished_reply(page: Page) -> str:
    """The last bubble, once the page is at rest again."""
    page.wait_for_selector("#ts-stop", state="visible")
    page.wait_for_selector("#ts-send", state="visible")
    return page.locator("#ts-chat .bot.message").last.inner_text()


def press_retry(page: Page) -> None:
    page.locator("#ts-chat button[aria-label='Retry']").last.click()


def test_home_opens_on_work_to_do_while_the_engine_warms_up(page: Page, studio: Studio) -> None:
    studio.open(page, "/")
    expect(page.locator(".ts-loop")).to_contain_text("300")
    expect(page.locator("#ts-next")).to_be_visible()
    expect(page.locator("#ts-engine")).to_contain_text(re.compile(r"Warming up, \d+%|base model"))
    assert studio.json("status")["waiting"] >= 290


def test_chat_is_kept_and_corrected_on_the_bubble(page: Page, studio: Studio) -> None:
    studio.wait_for_engine()
    studio.open(page, "/chat")
    page.fill("#ts-message textarea", "Where is my parcel?")
    page.press("#ts-message textarea", "Enter")
    reply = finished_reply(page)
    assert reply.strip()
    expect(page.locator("#ts-answered .ts-badge").last).to_have_text("confirmed by the engine")
    page.locator("#ts-chat .message-buttons-left button[aria-label='Edit']").last.click()
    page.locator("#ts-chat textarea").last.fill(f"{GREETING} Let me look that up.\n\n{SIGN_OFF}")
    page.locator("#ts-chat button[aria-label='Submit']").last.click()
    expect(page.locator("#ts-chat-note")).to_contain_text("Correction saved")
    page.reload()
    expect(page.locator("#ts-chat")).to_contain_text("Let me look that up")


def test_retry_stop_and_edit_keep_every_reply(page: Page, studio: Studio) -> None:
    studio.open(page, "/chat")
    page.fill("#ts-message textarea", "Tell me a long story about a lighthouse keeper.")
    page.click("#ts-send")
    page.wait_for_selector("#ts-stop", state="visible")
    page.wait_for_selector("#ts-chat .bot.message")
    page.click("#ts-stop")
    page.wait_for_selector("#ts-send", state="visible")
    page.reload()
    expect(page.locator("#ts-chat .bot.message").last).not_to_be_empty()
    press_retry(page)
    finished_reply(page)
    page.locator("#ts-chat .message-buttons-right button[aria-label='Edit']").last.click()
    page.locator("#ts-chat textarea").last.fill("Tell me a short one.")
    page.locator("#ts-chat button[aria-label='Submit']").last.click()
    finished_reply(page)
    expect(page.locator("#ts-chat")).to_contain_text("Tell me a short one.")
    kept = studio.json("status")
    assert kept["waiting"] >= 303  # 300 of the demo, and the stopped, the second and the third reply
    page.fill("#ts-message textarea", "And one that is stopped at once.")
    page.press("#ts-message textarea", "Enter")
    page.click("#ts-stop")
    page.wait_for_selector("#ts-send", state="visible")
    expect(page.locator("#ts-chat-note")).not_to_contain_text("on their way")
    page.reload()
    expect(page.locator("#ts-chat")).to_contain_text("And one that is stopped at once.")


def test_three_replies_are_corrected_by_keyboard(page: Page, studio: Studio) -> None:
    studio.open(page, "/review")
    page.wait_for_selector("#desk-reply")
    before = studio.json("status")["reviewed"]
    for number in range(3):
        shown = page.locator("#desk-conversation").inner_text()
        page.keyboard.press("2")
        page.keyboard.press("4")
        page.keyboard.press("7")
        page.keyboard.press("e")
        page.keyboard.press("Control+a")
        page.keyboard.type(f"{GREETING} Number {number} is on its way.")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        page.keyboard.type(SIGN_OFF)
        expect(page.locator("#desk-difference ins").first).to_be_visible()
        page.keyboard.press("Control+Enter")
        expect(page.locator("#desk-conversation")).not_to_have_text(shown, use_inner_text=True)
        expect(page.locator("#desk-voice input:checked")).to_have_count(0)
        expect(page.locator("#desk-saved")).to_have_text("Saved")
    assert studio.json("status")["reviewed"] == before + 3


def test_saving_an_untouched_item_is_refused_and_nothing_is_lost(page: Page, studio: Studio) -> None:
    studio.open(page, "/review")
    page.wait_for_selector("#desk-reply")
    shown = page.locator("#desk-conversation").inner_text()
    page.click("#desk-save")
    expect(page.get_by_text("Nothing is marked and the reply is unchanged.")).to_be_visible()
    assert page.locator("#desk-conversation").inner_text() == shown


def test_a_version_is_made_and_a_second_without_news_is_refused(page: Page, studio: Studio) -> None:
    studio.open(page, "/datasets")
    page.fill("#ts-note input, #ts-note textarea", "first")
    page.click("#ts-make")
    expect(page.get_by_text(re.compile(r"Version 1 is made"))).to_be_visible()
    page.click("#ts-make")
    expect(page.get_by_text("already holds exactly these rows")).to_be_visible()
    rows = studio.json("datasets")[0]["rows"]
    assert rows["sft"] + rows["held_out"] == 64


def test_training_moves_survives_the_studio_and_ends_in_a_loaded_adapter(page: Page, studio: Studio) -> None:
    studio.open(page, "/training")
    page.fill("#ts-steps input, #ts-steps textarea", str(STEPS))
    page.click("#ts-start")
    expect(page.locator("#ts-run-state")).to_contain_text("running", timeout=120_000)
    expect(page.locator("#ts-run-state")).to_contain_text(re.compile(rf"[1-9]\d* of {STEPS}"), timeout=240_000)
    expect(page.locator("#ts-loss")).to_be_visible()
    page.click("#ts-start")
    expect(page.get_by_text("is still going")).to_be_visible()

    engine_before = _engine_pid(studio)
    studio.kill()
    studio.start()
    studio.wait_for_engine()
    assert _engine_pid(studio) == engine_before, "the running engine should have been taken up again"

    studio.open(page, "/training")
    expect(page.locator("#ts-proof")).to_be_visible(timeout=TRAINING_SECONDS * 1000)
    run = studio.json("runs")[0]
    assert run["status"] == "succeeded"
    assert run["step"] == run["of_steps"] == STEPS
    expect(page.locator("#ts-adapters")).to_contain_text("loaded", timeout=180_000)
    assert [adapter["loaded"] for adapter in studio.json("adapters")] == [True]


def test_a_blind_comparison_is_voted_on_revealed_and_becomes_a_pair(page: Page, studio: Studio) -> None:
    adapter = studio.json("adapters")[0]["name"]
    studio.open(page, "/compare")
    page.fill("#ts-ask textarea", "My kettle arrived broken. What now?")
    page.click("#ts-ask-both")
    page.wait_for_selector("#ts-votes", state="visible")
    sides = {side: page.locator(f"#ts-{side}") for side in ("left", "right")}
    for pane in sides.values():
        assert adapter not in pane.inner_text()
        assert "base model" not in pane.inner_text()
    said = {side: pane.locator(".ts-text").text_content() for side, pane in sides.items()}
    page.locator("#ts-vote-left").click()
    expect(page.locator("#ts-after")).to_contain_text("You preferred")
    (tuned,) = [side for side, pane in sides.items() if adapter in pane.inner_text()]
    (base,) = [side for side, pane in sides.items() if "base model" in pane.inner_text()]
    assert tuned != base
    preferred = "the tuned model" if tuned == "left" else "the base model"
    expect(page.locator("#ts-after")).to_contain_text(f"You preferred {preferred}")

    studio.open(page, "/datasets")
    page.click("#ts-make")
    expect(page.get_by_text(re.compile(r"Version 2 is made"))).to_be_visible()
    version = studio.json("datasets")[0]
    lines = (studio.home / "datasets" / version["id"] / "preference.jsonl").read_text().splitlines()
    (pair,) = [row for row in map(json.loads, lines) if row["source"] == "vote"]
    assert pair["prompt"][-1]["content"] == "My kettle arrived broken. What now?"
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (said["left"], said["right"])
    assert GREETING not in str(said[base])


def test_nothing_that_the_page_or_a_log_is_told_gives_a_side_away(
    browser: Browser, studio: Studio, base_model: Path
) -> None:
    """All traffic of a reviewer's page, its source, and every log, from the question to the vote, with the adapter that
    was just trained; and the order in which the replies grow.
    """
    adapter = studio.json("adapters")[0]["name"]
    lineage = json.loads((studio.home / "adapters" / adapter / "lineage.json").read_text())
    secrets = [adapter, lineage["weights_sha256"][:12], digest(base_model)[:12], "provenance", "sha256", "attested"]
    studio.run("people", "add", "ana", "--role", "reviewer")
    page = window(browser, studio, "ana")
    page.add_init_script(LISTEN + GROWTH)
    studio.open(page, "/compare")
    expect(page.locator("#ts-ask textarea")).to_be_visible()
    page.wait_for_timeout(1500)
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    page.evaluate("heard.length = 0")
    logs = (studio.home.parent / "studio.log", studio.home / "engine" / "engine.log")
    read = [len(log.read_text(errors="replace")) for log in logs]
    page.fill("#ts-ask textarea", "My kettle arrived broken. What now?")
    page.click("#ts-ask-both")
    page.wait_for_selector("#ts-votes", state="visible")
    page.wait_for_timeout(500)

    heard = "".join(page.evaluate("heard"))
    assert heard.count("process_generating") > 10, "the replies came in pieces"
    told = [heard, page.content(), json.dumps([answer.headers for answer in answers])]
    told += [log.read_text(errors="replace")[start:] for log, start in zip(logs, read, strict=True)]
    assert [(secret, text[:200]) for secret in secrets for text in told if secret in text] == []
    _grow_together(page.evaluate("grown"))

    page.click("#ts-vote-left")
    expect(page.locator("#ts-sides")).to_contain_text(adapter)
    page.wait_for_timeout(500)
    assert adapter in "".join(page.evaluate("heard")), "so it would have been found"
    page.context.close()


def _grow_together(grown: list[list[int]]) -> None:
    """While both sides speak they grow together. A frame that shows many pieces at once is a busy page; one that falls
    between the two panes of a step shows the left one first, whoever stands there, and the next frame the right one.
    """
    ends = [max(lengths[place] for lengths in grown) for place in (0, 1)]
    speaking = [lengths for lengths in grown if all(now < end for now, end in zip(lengths, ends, strict=True))]
    grew = [(one[0] > old[0], one[1] > old[1]) for old, one in pairwise(speaking)]
    assert (True, True) in grew, "it was seen growing"
    ahead = accumulate(int(left) - int(right) for left, right in grew)
    assert all(abs(pieces) <= 2 for pieces in ahead), grown


def test_the_tuned_model_can_be_chatted_with(page: Page, studio: Studio) -> None:
    studio.open(page, "/chat")
    said = ""
    for question in QUESTIONS:
        if GREETING not in said:
            page.click("#ts-new")
            expect(page.locator("#ts-chat .message")).to_have_count(0)
            page.locator("#ts-model input").click()
            page.get_by_role("option", name=studio.json("adapters")[0]["name"]).click()
            page.fill("#ts-message textarea", question)
            page.press("#ts-message textarea", "Enter")
            said = finished_reply(page)
    assert GREETING in said


def test_the_tuned_model_becomes_what_customers_get_and_stays_in_the_engine(page: Page, studio: Studio) -> None:
    adapter = studio.json("adapters")[0]["name"]
    studio.open(page, "/models")
    page.click("#ts-model-choice input")
    page.get_by_role("option", name=adapter).click()
    page.fill("#ts-reason input, #ts-reason textarea", "it won the vote")
    page.click("#ts-make-production")
    expect(page.locator("#ts-models-said")).to_have_text(f"{adapter} is what customers get.")
    expect(page.locator("#ts-figures")).to_contain_text(re.compile(r"Tokens written / s\s*[\d,]+"))
    page.click("#ts-log button")
    expect(page.locator("#ts-log pre")).to_contain_text("throughput")
    said = [studio.json("chat", question, "--model", "production") for question in QUESTIONS]
    assert {one["adapter"] for one in said} == {adapter}
    assert GREETING in " ".join(one["text"] for one in said)
    page.click("#ts-unload-model")
    expect(page.get_by_text(f"{adapter} is what customers get.").last).to_be_visible()
    assert studio.json("adapters")[0]["loaded"]


def test_the_engine_is_killed_while_chat_and_compare_stream_and_comes_back_with_its_adapter(
    page: Page, studio: Studio
) -> None:
    beside = page.context.new_page()
    studio.open(page, "/chat")
    studio.open(beside, "/compare")
    page.click("#ts-new")
    beside.fill("#ts-ask textarea", STORY)
    beside.click("#ts-ask-both")
    page.fill("#ts-message textarea", STORY)
    page.press("#ts-message textarea", "Enter")
    expect(page.locator("#ts-chat .bot.message").last).to_contain_text(re.compile(r"\w+ \w+"))
    for place in ("left", "right"):
        expect(beside.locator(f"#ts-{place} .ts-text")).to_contain_text(re.compile(r"\w+"))
    killed = _engine_pid(studio)
    assert killed
    family = psutil.Process(killed).children(recursive=True)
    os.kill(killed, signal.SIGKILL)

    broken = re.compile("broke off in the middle|gave up")
    expect(page.locator("#ts-chat-note")).to_contain_text(broken)
    expect(page.locator("#ts-chat-note")).to_contain_text("What had arrived is kept.")
    expect(beside.locator("#ts-problem")).to_contain_text(broken)
    expect(beside.locator("#ts-votes")).to_be_hidden()
    came = [str(beside.locator(f"#ts-{place} .ts-text").text_content()) for place in ("left", "right")]
    assert all(came)
    page.reload()
    expect(page.locator("#ts-chat .bot.message").last).not_to_be_empty()
    expect(page.locator("#ts-answered")).to_contain_text("broke off")
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        (sides,) = db.execute('SELECT "left", "right" FROM comparisons ORDER BY seq DESC LIMIT 1')
    answers = [json.loads(side) for side in sides]
    assert [answer["provenance"]["finish"] for answer in answers] == ["error", "error"]
    assert all(answer["text"].startswith(text.strip()[:20]) for answer, text in zip(answers, came, strict=True))
    beside.close()

    studio.open(page, "/")
    expect(page.locator("#ts-engine")).to_contain_text(re.compile("restarting|Warming up"))
    wait_until(lambda: _engine_pid(studio) not in (killed, None), 180, "a new engine")
    studio.wait_for_engine()
    wait_until(lambda: studio.json("adapters")[0]["loaded"], 180, "the adapter to be put back")
    expect(page.locator("#ts-engine")).to_contain_text("Engine ready")
    assert not any(process.is_running() for process in family)


def test_the_same_loop_from_the_command_line(studio: Studio, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    asked = [f"Question {number} about my order?" for number in range(3)]
    lines = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "No."}]} for text in asked
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{oops\n")
    assert "line 4: not JSON" in studio.run("import", str(log), ok=False) or studio.json("status")
    said = studio.json("chat", "Do you sell tents?")
    studio.run("review", "save", said["reply"], "--voice", "fail", "--correct", f"{GREETING} We do.\n\n{SIGN_OFF}")
    for _ in range(3):
        item = studio.json("review", "next")["item"]
        studio.run("review", "save", item["reply"], "--voice", "pass", "--policy", "pass", "--bias", "pass")
    version = studio.json("curate")
    run = studio.json("train", version["id"], "--preset", "quick", "--steps", "4")
    assert run["status"] == "succeeded"
    assert run["result"]["rows_trained"] == version["rows"]["sft"]
    assert run["step"] == 4
    adapter = run["result"]["adapter"]
    wait_until(lambda: {a["name"]: a["loaded"] for a in studio.json("adapters")}[adapter], 180, "the hot load")
    voted = studio.json("compare", "Can I return a tent?", "--adapter", adapter, "--vote", "left")
    assert {voted["left"], voted["right"]} == {"base", adapter}
    again = studio.json("curate")
    rows = (studio.home / "datasets" / again["id"] / "preference.jsonl").read_text()
    assert "Can I return a tent?" in rows


def _engine_pid(studio: Studio) -> int | None:
    """The process that answers, out of the engine's own record; `None` between an engine's end and the next."""
    try:
        record = json.loads((studio.home / "engine" / "engine.json").read_text())
    except FileNotFoundError:
        return None
    return int(record["pid"])
