"""Labelling on Argilla's own page, in a real browser against the real server: what is said there arrives here."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from annotation.ports import any_free_port
from tests.fixtures.studio import Studio, set_alike_aside, wait_until

pytestmark = pytest.mark.slow
EMOJI = "Hi 👋🏽 the 🎉 balloon comes on Monday"
WORD_ON_SCREEN = """(word) => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const at = walker.currentNode.data.indexOf(word);
        if (at < 0 || !walker.currentNode.data.includes('balloon')) continue;
        const range = document.createRange();
        range.setStart(walker.currentNode, at);
        range.setEnd(walker.currentNode, at + word.length);
        const found = range.getBoundingClientRect();
        return { x: found.x + found.width / 2, y: found.y + found.height / 2 };
    }
}"""
CORRECTED = "Hi there, thanks for asking Juniper! Which flight is it?"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    started = Studio(tmp_path_factory.mktemp("argilla-page") / "home", "--demo", "--engine", "scripted")
    started.start()
    started.run("people", "add", "ben")
    set_alike_aside(started.home)
    port = any_free_port()
    assert f"Argilla is at http://127.0.0.1:{port}." in started.run("argilla", "up", "--port", str(port))
    yield started
    started.run("argilla", "down")
    started.stop()


def said(studio: Studio, query: str) -> list[Any]:
    """Straight out of the store's file."""
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        return db.execute(query).fetchall()


def sign_in(page: Page, studio: Studio) -> None:
    """As ben, with the first password that was made for him, into the dataset of the charter."""
    wait_until(lambda: studio.json("argilla", "status")["datasets"], 180, "the dataset in Argilla")
    wait_until(lambda: studio.json("argilla", "status")["datasets"][0]["waiting"] == 0, 180, "the replies in Argilla")
    keys = json.loads((studio.home / "argilla" / "keys.json").read_text())
    page.goto(studio.json("argilla", "status")["url"])
    page.wait_for_selector("input[type=password]")
    page.locator("input").first.fill("ben")
    page.locator("input[type=password]").fill(keys["people"]["ben"])
    page.keyboard.press("Enter")
    page.get_by_text("juniper-concierge-v1").first.click()
    page.wait_for_selector(".button--submit")


def form(page: Page) -> Locator:
    return page.locator("form").first


def answer(page: Page, *words: str) -> None:
    """Answer the three questions, for example `Yes`, `No`, `Yes`; what a suggestion has chosen already stays so."""
    for place, word in enumerate(words):
        if not form(page).locator(f"input[name='{word}']").nth(place).is_checked():
            form(page).get_by_text(word, exact=True).nth(place).click()


def completed(studio: Studio) -> int:
    """Records that need nobody any more, as Argilla counts them."""
    keys = json.loads((studio.home / "argilla" / "keys.json").read_text())
    url = studio.json("argilla", "status")["url"]
    with httpx.Client(base_url=f"{url}/api/v1", headers={"X-Argilla-Api-Key": keys["api_key"]}) as argilla:
        (dataset,) = argilla.get("/me/datasets").json()["items"]
        return int(argilla.get(f"/datasets/{dataset['id']}/progress").json()["completed"])


def next_record(page: Page, before: str) -> None:
    expect(page.locator(".content__text").first).not_to_have_text(before, use_inner_text=True)


def test_a_label_a_correction_and_a_discard_on_argillas_page_arrive_here(page: Page, studio: Studio) -> None:
    sign_in(page, studio)
    shown = page.locator(".content__text").first
    first = shown.inner_text()
    answer(page, "Yes", "Yes", "Yes")
    page.click(".button--submit")
    next_record(page, first)
    second = shown.inner_text()
    answer(page, "No", "Yes", "Yes")
    shown.click()
    page.keyboard.press("Control+a")
    page.keyboard.type(CORRECTED)
    page.click(".button--submit")
    next_record(page, CORRECTED)
    third = shown.inner_text()
    page.click(".button--discard")
    next_record(page, third)

    wait_until(
        lambda: studio.json("argilla", "status")["datasets"][0]["pulled"] >= 3, 180, "three answers from Argilla"
    )
    acts = said(studio, "SELECT kind, count(*) FROM acts WHERE person = 'ben' GROUP BY kind ORDER BY kind")
    assert acts == [("pass", 1), ("review", 2)]
    values = said(studio, "SELECT value, count(*) FROM judgements WHERE reviewer = 'ben' GROUP BY value ORDER BY value")
    assert values == [("fail", 1), ("pass", 5)]
    ((before, after),) = said(studio, "SELECT before, after FROM corrections WHERE author = 'ben'")
    assert (before.strip(), after) == (second.strip(), CORRECTED)


def test_our_page_says_what_went_over_and_a_judgement_here_closes_it_there(page: Page, studio: Studio) -> None:
    studio.open(page, "/argilla")
    expect(page.locator("#ts-argilla")).to_contain_text("juniper-concierge-v1", timeout=180_000)
    expect(page.locator("#ts-argilla")).to_contain_text("Argilla calls when somebody answers.")
    before = completed(studio)
    studio.open(page, "/review")
    page.wait_for_selector("#desk-reply")
    page.keyboard.press("a")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#desk-saved")).to_have_text("Saved")
    studio.open(page, "/argilla")
    page.click("#ts-argilla-sync")
    wait_until(lambda: completed(studio) > before, 180, "the record to be completed in Argilla")


def test_words_marked_on_argillas_page_after_an_emoji_are_the_same_words_here(
    page: Page, studio: Studio, tmp_path: Path
) -> None:
    log = tmp_path / "emoji.jsonl"
    turns = [{"role": "user", "content": "Any news?"}, {"role": "assistant", "content": EMOJI}]
    log.write_text(json.dumps({"messages": turns}) + "\n")
    studio.run("import", str(log))
    sign_in(page, studio)
    find(page, "balloon")
    page.get_by_text("Policy", exact=True).first.click()
    mark(page, "Monday")
    answer(page, "Yes", "No", "Yes")
    expect(page.locator(".span-entity__wrapper")).to_have_count(1)
    page.click(".button--submit")
    judged = f"""SELECT spans FROM judgements JOIN turns ON turns.id = judgements.reply_id
        WHERE reviewer = 'ben' AND turns.text = '{EMOJI}' ORDER BY spans DESC"""
    wait_until(lambda: said(studio, judged), 180, "the answer about the balloon")
    (span,) = json.loads(said(studio, judged)[0][0])
    assert EMOJI[span["start"] : span["end"]] == "Monday"


def find(page: Page, word: str) -> None:
    """The first pending reply with this word."""
    page.locator(".search-area").first.click()
    page.locator(".search-area input").first.fill(word)
    page.keyboard.press("Enter")
    expect(page.locator(".content__text").first).to_contain_text(word)


def mark(page: Page, word: str) -> None:
    """Mark a word of the reply with the mouse, again if Argilla's page moved the word away under it. With patience: of
    a mark that only came late, another double click would make two.
    """
    for _ in range(5):
        at = page.evaluate(WORD_ON_SCREEN, word)
        page.mouse.dblclick(at["x"], at["y"])
        with contextlib.suppress(PlaywrightTimeoutError):
            page.wait_for_selector(".span-entity__wrapper", state="attached", timeout=20_000)
            return
    raise AssertionError(f"Argilla's page did not take the mark on {word!r}")
