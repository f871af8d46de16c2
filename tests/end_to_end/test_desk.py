"""The review desk in a real browser: by keyboard alone, through a kill, in two tabs, on bad input, and signed in."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Response, expect

from tests.end_to_end.test_pages import unreadable
from tests.fixtures.studio import Studio, set_alike_aside, wait_until

pytestmark = pytest.mark.slow
QUESTIONS = ("voice", "policy", "bias")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    started = Studio(tmp_path_factory.mktemp("desk") / "home", "--demo", "--engine", "scripted")
    started.start()
    started.run("people", "add", "ben", "--role", "reviewer")
    started.run("people", "add", "vic", "--role", "viewer")
    set_alike_aside(started.home)
    yield started
    started.stop()


def desk(page: Page, studio: Studio, path: str = "/review") -> None:
    studio.open(page, path)
    page.wait_for_selector("#desk-reply")


def desk_and_next(page: Page, studio: Studio) -> list[dict[str, Any]]:
    """Open the desk and wait until the reply after this one has come too; returns both."""
    dealt: list[Response] = []
    page.on("response", lambda answer: dealt.append(answer) if "/desk/next" in answer.url else None)
    desk(page, studio)
    while len(dealt) < 2:
        page.wait_for_timeout(50)
    return [answer.json()["item"] for answer in dealt[:2]]


def reply(page: Page) -> str:
    return page.locator("#desk-reply").inner_text()


def said(studio: Studio, query: str) -> list[Any]:
    """Straight out of the store's file."""
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        return db.execute(query).fetchall()


def correct(page: Page, text: str) -> None:
    """Open the box in the reply's bubble, by its key, and write."""
    page.keyboard.press("e")
    page.fill("#desk-corrected", text)


def wait_saved(page: Page) -> None:
    expect(page.locator("#desk-saved")).to_have_text("Saved")


def test_the_first_ten_items_by_keyboard_alone(page: Page, studio: Studio) -> None:
    """Every kind of answer, rules, a mark, a note, a rewrite with a reason, skip, undo, comment, flag and help."""
    desk(page, studio)
    key = page.keyboard
    # 1: all fine
    first = reply(page)
    key.press("a")
    key.press("Control+Enter")
    expect(page.locator("#desk-reply")).not_to_have_text(first, use_inner_text=True)
    wait_saved(page)
    # undo: the same reply again, with its answers
    key.press("u")
    expect(page.locator("#desk-reply")).to_have_text(first)
    expect(page.locator("#desk-voice input:checked")).to_have_value("pass")
    key.press("Control+Enter")
    expect(page.locator("#desk-reply")).not_to_have_text(first, use_inner_text=True)
    wait_saved(page)
    # 2: off brand, two rules by digit and by arrows, words marked, a note
    key.press("2")
    key.press("f")
    key.press("1")
    key.press("ArrowDown")
    key.press("Space")
    key.press("Escape")
    key.press("m")
    key.press("Shift+ArrowRight")
    key.press("Enter")
    expect(page.locator("#desk-reply mark.desk-on-voice").first).to_be_visible()
    key.press("n")
    key.type("cold")
    key.press("Escape")
    key.press("4")
    key.press("7")
    key.press("Control+Enter")
    wait_saved(page)
    # 3: breaks policy; 4: biased; 5: unsure and does not apply
    for keys in (("1", "5", "7"), ("1", "4", "8"), ("3", "x", "9")):
        before = reply(page)
        for one in keys:
            key.press(one)
        key.press("Control+Enter")
        expect(page.locator("#desk-reply")).not_to_have_text(before, use_inner_text=True)
        wait_saved(page)
    # 6: a rewrite, with its difference and a reason
    key.press("e")
    key.press("Control+a")
    key.type("Hi there, thanks for asking! 👋 I can help.")
    expect(page.locator("#desk-difference ins").first).to_be_visible()
    key.press("Tab")
    key.press("Space")
    key.press("Control+Enter")
    wait_saved(page)
    # 7: a comment, a flag, the history, the keys; then skipped with a reason
    key.press("c")
    key.type("Is this ours?")
    key.press("Control+Enter")
    expect(page.locator("#desk-conversation")).to_contain_text("Is this ours?")
    key.press("g")
    key.type("look, please")
    key.press("Control+Enter")
    expect(page.locator("#desk-saved")).to_have_text("Flagged")
    key.press("h")
    expect(page.locator("dialog .desk-history")).to_contain_text("flagged it")
    key.press("Escape")
    key.press("?")
    expect(page.locator("#desk-help")).to_be_visible()
    key.press("Escape")
    before = reply(page)
    key.press("s")
    key.press("1")
    expect(page.locator("#desk-reply")).not_to_have_text(before, use_inner_text=True)
    # 8: left to a colleague; 9 and 10: fine
    before = reply(page)
    key.press("s")
    key.press("5")
    expect(page.locator("#desk-reply")).not_to_have_text(before, use_inner_text=True)
    for _ in range(2):
        before = reply(page)
        key.press("a")
        key.press("Control+Enter")
        expect(page.locator("#desk-reply")).not_to_have_text(before, use_inner_text=True)
        wait_saved(page)

    values = dict(said(studio, "SELECT value, count(*) FROM judgements GROUP BY value"))
    assert values["fail"] == 3
    assert values["unsure"] == 2
    assert values["not_applicable"] == 1
    ((clauses, spans, note),) = said(studio, "SELECT clause_ids, spans, note FROM judgements WHERE note = 'cold'")
    assert (len(json.loads(clauses)), len(json.loads(spans)), note) == (2, 1, "cold")
    ((after, reasons),) = said(studio, "SELECT after, reasons FROM corrections WHERE origin = 'review'")
    assert after == "Hi there, thanks for asking! 👋 I can help."
    assert json.loads(reasons) == ["tone"]
    kinds = dict(said(studio, "SELECT kind, count(*) FROM acts WHERE route != 'import' GROUP BY kind"))
    assert kinds == {"review": 9, "undo": 1, "comment": 1, "flag": 1, "skip": 1, "pass": 1}


def test_the_next_reply_is_there_at_once_and_an_empty_save_is_refused(page: Page, studio: Studio) -> None:
    desk_and_next(page, studio)
    page.route("**/desk/next*", lambda route: route.abort())  # what is shown next is here already
    before = reply(page)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Nothing is marked and the reply is unchanged.")).to_be_visible()
    assert reply(page) == before
    page.keyboard.press("a")
    expect(page.get_by_text("Nothing is marked and the reply is unchanged.")).to_have_count(0)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#desk-reply")).not_to_have_text(before, use_inner_text=True)


def test_a_change_of_mind_loses_nothing_and_each_answer_takes_a_note(page: Page, studio: Studio) -> None:
    desk(page, studio)
    key = page.keyboard
    key.press("5")
    key.press("f")
    key.press("2")
    key.press("Escape")
    key.press("m")
    key.press("Enter")
    key.press("n")
    key.type("by mistake")
    key.press("Escape")
    marked = page.locator("#desk-reply mark.desk-on-policy")
    key.press("4")
    expect(marked).to_have_count(0)
    expect(page.locator("#desk-policy-note")).to_have_value("by mistake")
    key.press("6")
    expect(marked).to_have_count(1)
    key.press("5")
    expect(page.locator("#desk-policy-rules input:checked")).to_have_count(1)
    key.press("6")
    key.press("1")
    key.press("n")
    key.type("just right")
    key.press("Control+Enter")
    wait_saved(page)
    rows = said(studio, "SELECT question, value, clause_ids, spans, note FROM judgements ORDER BY seq DESC LIMIT 2")
    found = {row[0]: (row[1], json.loads(row[2]), len(json.loads(row[3])), row[4]) for row in rows}
    assert found == {"voice": ("pass", [], 0, "just right"), "policy": ("unsure", [], 1, "by mistake")}


def test_a_correction_stands_in_the_bubble_and_an_empty_one_is_refused(page: Page, studio: Studio) -> None:
    desk(page, studio)
    box = page.locator(".desk-bubble #desk-corrected")
    expect(box).to_be_hidden()
    was = reply(page)
    page.click("#desk-edit")
    expect(box).to_have_value(was)
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    correct(page, " ")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Nothing is left of the reply.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(box).to_be_visible()  # what was written stays in sight
    page.click("#desk-as-it-was")
    expect(box).to_be_hidden()
    assert reply(page) == was
    # A suggestion is taken by its key, and what was changed is in the history.
    expect(page.locator(".desk-hints li").first).to_be_visible()
    page.keyboard.press("t")
    expect(page.locator("#desk-voice-rules input:checked")).to_have_count(1)
    correct(page, f"{was} Warmly")
    page.keyboard.press("Control+Enter")
    wait_saved(page)
    page.keyboard.press("b")
    expect(page.locator("#desk-reply")).to_have_text(was)
    expect(box).to_have_value(f"{was} Warmly")
    page.keyboard.press("h")
    expect(page.locator("dialog .desk-history ins")).to_have_text(re.compile("Warmly"))


def test_every_key_is_on_the_list(page: Page, studio: Studio) -> None:
    desk(page, studio)
    shown = "HELP.map(([keys]) => keys)", "Object.keys(keysOf({ item: { act_id: 'a' } }))"
    script = f"import('/ours/desk/keys.js').then(({{ HELP, keysOf }}) => [{', '.join(shown)}])"
    listed, known = page.evaluate(script)
    listed = {key.lower() for keys in listed for key in keys.split(" ")}
    assert {"?", "a", "e", "n", "t", "9"} <= set(known)
    assert set(known) <= {*listed, "?"}


SLOW_SAVES = """() => {
  const before = window.fetch;
  window.fetch = async (path, options) => {
    if (String(path).includes('/desk/save')) await new Promise((resolve) => setTimeout(resolve, 1500));
    return before(path, options);
  };
}"""


def test_a_slow_save_does_not_bring_the_same_reply_again(page: Page, studio: Studio) -> None:
    desk_and_next(page, studio)

    page.evaluate(SLOW_SAVES)
    seen = []
    for _ in range(3):
        seen.append(reply(page))
        page.keyboard.press("a")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#desk-reply")).not_to_have_text(seen[-1], use_inner_text=True)
    wait_saved(page)
    assert len({*seen, reply(page)}) == 4


def test_what_was_typed_outlives_a_kill_and_a_reload(page: Page, studio: Studio) -> None:
    desk(page, studio)
    shown = reply(page)
    page.keyboard.press("2")
    correct(page, "Typed before the kill.")
    studio.kill()
    studio.start()
    page.wait_for_timeout(3000)
    page.reload()
    page.wait_for_selector("#desk-reply")
    assert reply(page) == shown
    expect(page.locator("#desk-corrected")).to_have_value("Typed before the kill.")
    expect(page.locator("#desk-voice input:checked")).to_have_value("fail")
    page.keyboard.press("Control+Enter")
    wait_saved(page)
    assert said(studio, "SELECT count(*) FROM corrections WHERE after = 'Typed before the kill.'") == [(1,)]


NOTING_SAVED = """() => new MutationObserver(() => {
  if (document.getElementById('desk-saved')?.textContent === 'Saved') sessionStorage.setItem('said-saved', 'yes');
}).observe(document, { childList: true, subtree: true, characterData: true })"""


def test_a_save_while_the_studio_is_down_is_sent_when_it_is_back(page: Page, studio: Studio) -> None:
    desk_and_next(page, studio)
    correct(page, "Saved while it was down.")
    page.context.add_init_script(f"({NOTING_SAVED})()")  # the page may load anew once the studio is back
    page.evaluate(NOTING_SAVED)
    studio.kill()
    page.click("#desk-save")
    expect(page.get_by_text("The studio does not answer.").first).to_be_visible()
    studio.start()
    kept = "SELECT count(*) FROM corrections WHERE after = 'Saved while it was down.'"
    wait_until(lambda: said(studio, kept) == [(1,)], 60, "the save")
    page.wait_for_function("sessionStorage.getItem('said-saved')")
    page.wait_for_function("[null, '[]'].includes(sessionStorage.getItem('desk-unsent'))")
    page.wait_for_timeout(4000)  # it would be sent again by then
    assert said(studio, kept) == [(1,)]


def test_two_tabs_on_the_same_reply_lose_nothing(page: Page, studio: Studio) -> None:
    desk(page, studio)
    shown = reply(page)
    other = page.context.new_page()
    desk(other, studio)
    assert reply(other) == shown
    other.keyboard.press("a")
    other.keyboard.press("Control+Enter")
    wait_saved(other)
    page.keyboard.press("2")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("saved from another tab")).to_be_visible()
    assert reply(page) == shown
    expect(page.locator("#desk-voice input:checked")).to_have_value("fail")
    page.keyboard.press("Control+Enter")
    wait_saved(page)
    other.close()


def test_a_hold_that_ran_out_keeps_the_text_and_offers_it(page: Page, browser: Browser, studio: Studio) -> None:
    desk(page, studio)
    shown = reply(page)
    correct(page, "Too late, but kept.")
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        db.execute("UPDATE leases SET expires_at = '2020-01-01 00:00:00.000000' WHERE state = 'held'")
    kept = "Object.keys(sessionStorage).find((key) => sessionStorage.getItem(key).includes('Too late, but kept.'))"
    reply_id = page.wait_for_function(kept).json_value().removeprefix("desk-")
    context = browser.new_context()
    rival = context.new_page()
    studio.sign_in(rival, "ben")
    desk(rival, studio, f"/review?reply={reply_id}")
    assert reply(rival) == shown
    page.click("#desk-save")
    expect(page.get_by_text("ran out while it was open")).to_be_visible()
    expect(page.locator("#desk-corrected")).to_have_value("Too late, but kept.")
    page.click("#desk-extra")
    wait_saved(page)
    ((route,),) = said(
        studio,
        "SELECT route FROM acts JOIN corrections ON act_id = acts.id WHERE after = 'Too late, but kept.'",
    )
    assert route == "late"
    context.close()


def test_a_save_that_was_kept_while_the_studio_was_down_is_offered_when_the_hold_is_lost(
    page: Page, studio: Studio
) -> None:
    desk_and_next(page, studio)
    correct(page, "Kept, and then too late.")
    page.route("**/desk/save", lambda route: route.abort())
    page.click("#desk-save")
    expect(page.get_by_text("The studio does not answer.").first).to_be_visible()
    ((unsent,),) = [page.evaluate("JSON.parse(sessionStorage.getItem('desk-unsent'))")]
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        db.execute("UPDATE leases SET state = 'expired' WHERE id = ?", (unsent["act_id"],))
        db.execute("UPDATE tasks SET state = 'full' WHERE reply_id = ?", (unsent["reply_id"],))
    page.unroute("**/desk/save")
    expect(page.get_by_text("ran out while it was open")).to_be_visible()
    page.reload()  # and it is offered still
    page.click("#desk-extra")
    wait_saved(page)
    query = "SELECT route FROM acts JOIN corrections ON act_id = acts.id WHERE after = 'Kept, and then too late.'"
    assert said(studio, query) == [("late",)]


PLACES = """[...document.querySelectorAll('.desk-actions button')].map((button) => {
  const { left, right, top, bottom } = button.getBoundingClientRect();
  return [left, right, top, bottom];
})"""


def over(one: list[float], other: list[float]) -> bool:
    """Whether two buttons cover each other in part."""
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def test_the_reply_and_the_keys_to_save_are_in_sight(page: Page, studio: Studio, tmp_path: Path) -> None:
    """After a long conversation too, beside a long list of rules, and on a phone; any turn of it can be judged."""
    turns = [
        {"role": role, "content": f"{role} {number}: " + "and so on " * 20}
        for number in range(9)
        for role in ("user", "assistant")
    ]
    log = tmp_path / "long.jsonl"
    log.write_text(json.dumps({"messages": turns}))
    studio.run("import", str(log))
    ids = dict(said(studio, "SELECT substr(text, 1, 11), id FROM turns WHERE text LIKE 'assistant _:%'"))
    for size in ((390, 844), (1440, 900)):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        desk(page, studio, f"/review?reply={ids['assistant 8']}")
        expect(page.locator("#desk-reply")).to_be_in_viewport(ratio=1)
        expect(page.locator("#desk-save")).to_be_in_viewport(ratio=1)
        places = page.evaluate(PLACES)
        assert len(places) == 7
        assert all(left >= 0 and right <= size[0] for left, right, _, _ in places)
        assert not any(over(one, other) for one, other in combinations(places, 2))
    for key in ("2", "5", "8"):
        page.keyboard.press(key)
    page.locator("#desk-bias-note").scroll_into_view_if_needed()
    expect(page.locator("#desk-reply")).to_be_in_viewport(ratio=1)
    page.locator(".ts-turn", has_text="assistant 3:").get_by_text("Judge this one").click()
    expect(page.locator("#desk-reply")).to_contain_text("assistant 3:")
    expect(page.get_by_text("What was said after it (10)")).to_be_visible()
    correct(page, "In the middle.")
    page.keyboard.press("Control+Enter")
    wait_saved(page)
    assert said(studio, "SELECT reply_id FROM corrections WHERE after = 'In the middle.'") == [(ids["assistant 3"],)]


A_MINUTE_ON = "Date.now = ((now) => () => now() + 60_000)(Date.now)"


def test_a_reply_is_held_while_somebody_works_on_it_and_one_that_was_lost_is_passed_by(
    page: Page, studio: Studio
) -> None:
    shown, ahead = desk_and_next(page, studio)
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        db.execute("UPDATE leases SET expires_at = '2020-01-01 00:00:00.000000' WHERE id = ?", (shown["act_id"],))
        db.execute("UPDATE leases SET state = 'expired' WHERE id = ?", (ahead["act_id"],))
        db.execute("UPDATE tasks SET state = 'full' WHERE reply_id = ?", (ahead["reply_id"],))
    page.evaluate(A_MINUTE_ON)
    page.keyboard.press("a")
    until = f"SELECT expires_at > '2021' FROM leases WHERE id = '{shown['act_id']}'"
    wait_until(lambda: said(studio, until) == [(1,)], 60, "the hold to be renewed")
    page.keyboard.press("Control+Enter")
    page.wait_for_function(
        "(known) => !known.includes(document.getElementById('desk-reply').textContent)",
        arg=[shown["text_now"], ahead["text_now"]],
    )
    kept = f"SELECT count(*) FROM acts WHERE kind = 'review' AND id = '{shown['act_id']}'"
    wait_until(lambda: said(studio, kept) == [(1,)], 60, "the save")


NASTY = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> مرحبا بالعالم 👩‍👩‍👧 ok"


def test_nasty_long_and_right_to_left_replies_are_shown_as_text(page: Page, studio: Studio, tmp_path: Path) -> None:
    log = tmp_path / "nasty.jsonl"
    texts = [NASTY, "long " * 20_000, "   "]
    lines = [
        {"messages": [{"role": "user", "content": f"nasty {n}"}, {"role": "assistant", "content": text}]}
        for n, text in enumerate(texts)
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    studio.run("import", str(log), ok=False)  # the empty reply is refused by its line, or kept without a task
    ids = dict(said(studio, "SELECT substr(text, 1, 4), id FROM turns WHERE role = 'assistant'"))
    desk(page, studio, f"/review?reply={ids['<img']}")
    assert reply(page) == NASTY
    assert page.title() == "Tonesmith"
    page.keyboard.press("2")
    page.keyboard.press("m")
    for _ in range(40):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    correct(page, NASTY.replace("ok", "fine <b>"))
    expect(page.locator("#desk-difference ins").first).to_be_visible()
    page.keyboard.press("Control+Enter")
    wait_saved(page)
    ((spans,),) = said(studio, "SELECT spans FROM judgements ORDER BY seq DESC LIMIT 1")
    (span,) = json.loads(spans)
    assert NASTY[span["start"] : span["end"]] == NASTY  # counted in code points, emoji and all
    desk(page, studio, f"/review?reply={ids['long']}")
    assert len(page.locator("#desk-corrected").input_value()) == 100_000
    page.keyboard.press("1")
    page.keyboard.press("Control+Enter")
    wait_saved(page)


def test_a_viewer_can_read_and_not_judge(browser: Browser, studio: Studio) -> None:
    context = browser.new_context()
    page = context.new_page()
    studio.sign_in(page, "vic")
    studio.open(page, "/review")
    expect(page.get_by_text("You can look, but not judge")).to_be_visible()
    refused = page.request.post(f"{studio.url}/desk/undo", data={})
    assert refused.status == 403
    assert "a viewer, who can't judge replies" in refused.json()["found"]
    context.close()


def test_nobody_gets_in_without_signing_in(browser: Browser, studio: Studio) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{studio.url}/review")
    assert page.url == f"{studio.url}/login?to=/review"
    page.fill("#name", "ben")
    page.fill("#password", "not the password")
    page.click("button")
    expect(page.get_by_text("Name and password don't match.")).to_be_visible()
    for path in ("/desk/next", "/desk/start", "/gradio_api/info", "/config"):
        assert page.request.get(f"{studio.url}{path}").status == 401, path
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_the_desk_at_work_can_be_read_by_everybody(
    browser: Browser, studio: Studio, scheme: str, size: tuple[int, int]
) -> None:
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    desk(page, studio)
    for key in ("2", "5", "8"):
        page.keyboard.press(key)
    correct(page, "Something else.")
    expect(page.locator("#desk-difference ins").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = unreadable(page)
    if width > 1000:
        found += the_rest_unreadable(page)
    context.close()
    assert found == []


def the_rest_unreadable(page: Page) -> list[str]:
    """With a mark in the reply, and in each dialog."""
    key, found = page.keyboard, []
    key.press("Escape")
    key.press("m")
    key.press("Enter")
    expect(page.locator("#desk-reply mark")).to_have_count(1)
    found += unreadable(page)
    for opening in ("?", "s", "g", "c", "h"):
        key.press(opening)
        expect(page.locator("dialog[open]")).to_be_visible()
        found += [f"in the dialog of {opening}: {one}" for one in unreadable(page)]
        key.press("Escape")
        expect(page.locator("dialog")).to_have_count(0)
    return found


def test_drafts_are_asked_for_used_and_ranked(page: Page, studio: Studio) -> None:
    desk(page, studio)
    page.keyboard.press("d")
    expect(page.locator(".desk-draft")).to_have_count(1)
    page.get_by_label("Rank draft 1 next").click()
    page.get_by_label("Rank the reply as it was next").click()
    page.get_by_label("Use draft 1").click()
    page.keyboard.press("Control+Enter")
    wait_saved(page)
    ((body,),) = said(studio, "SELECT body FROM acts WHERE body LIKE '%ranking%'")
    assert len(json.loads(body)["ranking"]) == 2


def test_a_draft_is_changed_and_saved_as_the_correction(page: Page, studio: Studio) -> None:
    desk(page, studio)
    page.keyboard.press("d")
    expect(page.locator(".desk-draft")).to_have_count(1)
    drafted = page.locator(".desk-draft .ts-said").inner_text()
    tab_to(page, "[aria-label='Use draft 1']")
    page.keyboard.press("Enter")
    expect(page.locator("#desk-corrected")).to_be_focused()
    expect(page.locator("#desk-corrected")).to_have_value(drafted)
    page.keyboard.press("Control+End")
    page.keyboard.type(" And a word of ours.")
    page.keyboard.press("Control+Enter")
    wait_saved(page)
    query = "SELECT after FROM corrections WHERE after LIKE '%And a word of ours.'"
    assert said(studio, query) == [(f"{drafted} And a word of ours.",)]


def tab_to(page: Page, where: str, key: str = "Tab") -> list[str]:
    """Press Tab until it is there; the ids that were passed, and its own."""
    passed = []
    for _ in range(60):
        page.keyboard.press(key)
        passed.append(page.evaluate("document.activeElement.id"))
        if page.evaluate("(where) => document.activeElement.matches(where)", where):
            return passed
    raise AssertionError(f"{where} is not on the way: {passed}")


FIRST_WORDS = """(letters) => {
  const text = document.getElementById('desk-reply').firstChild;
  const range = document.createRange();
  range.setStart(text, 0);
  range.setEnd(text, letters);
  const { left, right, top, bottom } = range.getClientRects()[0];
  return [left + 1, right, (top + bottom) / 2];
}"""


def test_words_are_marked_by_mouse_and_a_mark_is_taken_off(page: Page, studio: Studio) -> None:
    desk(page, studio)
    shown = reply(page)
    words = shown[: shown.index(" ")]
    left, right, height = page.evaluate(FIRST_WORDS, len(words))
    page.mouse.move(left, height)
    page.mouse.down()
    page.mouse.move(right, height, steps=5)
    page.mouse.up()
    expect(page.locator("#desk-marker q")).to_have_text(words)
    page.locator("#desk-marker").get_by_text("Breaks policy").click()
    expect(page.locator("#desk-reply mark.desk-on-policy")).to_have_text(words)
    expect(page.locator("#desk-policy input[type=radio]:checked")).to_have_value("fail")
    expect(page.locator("#desk-marker")).to_be_hidden()
    expect(page.locator("#desk-reply")).to_be_focused()
    tab_to(page, "[aria-label='Remove this mark']")
    page.keyboard.press("Enter")
    expect(page.locator("#desk-reply mark")).to_have_count(0)
    expect(page.locator("#desk-policy-fail")).to_be_focused()  # not lost with the button
    page.locator("#desk-reply").focus()
    page.keyboard.press("m")
    page.keyboard.press("Enter")
    expect(page.locator("#desk-reply mark.desk-on-policy")).to_have_text(words)
    page.keyboard.press("Control+Enter")
    wait_saved(page)
    ((spans,),) = said(studio, "SELECT spans FROM judgements ORDER BY seq DESC LIMIT 1")
    assert [(span["start"], span["end"]) for span in json.loads(spans)] == [(0, len(words))]


def test_tab_goes_round_in_order_and_the_focus_comes_back(page: Page, studio: Studio) -> None:
    desk(page, studio)
    at_reply = page.locator("#desk-reply")
    expect(at_reply).to_be_focused()
    known = ["desk-edit", "desk-draft", "desk-voice-pass", "desk-policy-pass", "desk-bias-pass", "desk-back",
             "desk-undo", "desk-skip", "desk-flag", "desk-comment", "desk-history", "desk-save"]  # fmt: skip
    passed = tab_to(page, "#desk-save")
    assert [one for one in passed if one in known] == known
    # A dialog gives it back, whether it was opened by its key or by its button, closed or sent.
    page.locator("#desk-reply").focus()
    for opening in ("?", "s", "g", "c", "h"):
        page.keyboard.press(opening)
        expect(page.locator("dialog :focus")).to_have_count(1)
        page.keyboard.press("Escape")
        expect(at_reply).to_be_focused()
    page.keyboard.press("c")
    page.keyboard.type("Where does the focus go?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#desk-saved")).to_have_text("Comment kept")
    expect(at_reply).to_be_focused()
    tab_to(page, "#desk-comment")
    page.keyboard.press("Enter")
    page.keyboard.type("Back to the button.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#desk-conversation")).to_contain_text("Back to the button.")
    expect(page.locator("#desk-comment")).to_be_focused()
    # The next reply has it, after a save and after a skip.
    for leave in ("a", "Control+Enter"), ("s", "1"):
        before = reply(page)
        at_reply.focus()
        for key in leave:
            page.keyboard.press(key)
        expect(at_reply).not_to_have_text(before, use_inner_text=True)
        expect(at_reply).to_be_focused()


def test_how_bad_and_what_kind_are_said_by_keyboard(page: Page, studio: Studio) -> None:
    desk(page, studio)
    key = page.keyboard
    key.press("5")
    key.press("f")
    key.press("1")
    tab_to(page, "#desk-policy-severity")
    key.type("Crit")
    key.press("Escape")
    expect(page.locator("#desk-reply")).to_be_focused()
    key.press("8")
    key.press("f")
    tab_to(page, "#desk-bias-kind")
    key.type("Helps")
    key.press("Control+Enter")
    wait_saved(page)
    query = "SELECT question, severity, kind FROM judgements ORDER BY seq DESC LIMIT 2"
    assert sorted(said(studio, query)) == [("bias", None, "unequal_help"), ("policy", "critical", None)]


def test_drafts_are_ranked_and_another_turn_is_chosen_by_keyboard(page: Page, studio: Studio, tmp_path: Path) -> None:
    texts = ("rank me", "The first answer.", "and now?", "The second answer.")
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, texts, strict=True)]
    log = tmp_path / "ranked.jsonl"
    log.write_text(json.dumps({"messages": turns}) + "\n")
    studio.run("import", str(log))
    ((reply_id,),) = said(studio, "SELECT id FROM turns WHERE text = 'The second answer.'")
    desk(page, studio, f"/review?reply={reply_id}")
    key = page.keyboard
    key.press("d")
    expect(page.locator(".desk-draft")).to_have_count(1)
    drafted = page.locator(".desk-draft .ts-said").inner_text()
    for name, rank in (("desk-rank-the-reply-as-it-was", 1), ("desk-rank-draft-1", 2)):
        page.locator("#desk-reply").focus()
        tab_to(page, f"#{name}")
        key.press("Enter")
        expect(page.locator(f"#{name}")).to_have_text(f"Ranked {rank}")
        expect(page.locator(f"#{name}")).to_be_focused()
    key.press("Control+Enter")
    wait_saved(page)
    ((body,),) = said(studio, f"SELECT body FROM acts WHERE reply_id = '{reply_id}' AND kind = 'review'")
    assert json.loads(body)["ranking"] == ["The second answer.", drafted]
    desk(page, studio, f"/review?reply={reply_id}")
    tab_to(page, ".ts-turn button.desk-small", "Shift+Tab")
    key.press("Enter")
    expect(page.locator("#desk-reply")).to_have_text("The first answer.")
    expect(page.locator("#desk-reply")).to_be_focused()


def test_a_reply_that_says_nothing_is_shown_and_cannot_be_judged(page: Page, studio: Studio, tmp_path: Path) -> None:
    texts = ("say nothing", "To be emptied.", "and now?", "After the silence.")
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, texts, strict=True)]
    log = tmp_path / "silent.jsonl"
    log.write_text(json.dumps({"messages": turns}) + "\n")
    studio.run("import", str(log))
    with sqlite3.connect(studio.home / "tonesmith.db") as db:  # as a model does that stops at once
        db.execute("UPDATE turns SET text = '  ' WHERE text = 'To be emptied.'")
    ((reply_id,),) = said(studio, "SELECT id FROM turns WHERE text = 'After the silence.'")
    desk(page, studio, f"/review?reply={reply_id}")
    silent = page.locator(".ts-turn.ts-assistant").first
    expect(silent).to_contain_text("Nothing was said.")
    expect(silent.locator("button")).to_have_count(0)
    page.keyboard.press("1")
    page.keyboard.press("Control+Enter")
    wait_saved(page)


def test_a_save_that_finds_the_reply_left_and_taken_meanwhile_says_so(
    page: Page, browser: Browser, studio: Studio
) -> None:
    desk(page, studio)
    correct(page, "Written before it was left.")
    kept = "Object.keys(sessionStorage).find((key) => sessionStorage.getItem(key).includes('before it was left.'))"
    reply_id = page.wait_for_function(kept).json_value().removeprefix("desk-")
    other = page.context.new_page()
    desk(other, studio, f"/review?reply={reply_id}")
    shown = reply(other)
    other.keyboard.press("s")
    other.keyboard.press("5")
    expect(other.locator("#desk-reply")).not_to_have_text(shown, use_inner_text=True)
    wait_until(lambda: said(studio, f"SELECT 1 FROM acts WHERE reply_id = '{reply_id}' AND kind = 'pass'"), 60, "pass")
    context = browser.new_context()
    rival = context.new_page()
    studio.sign_in(rival, "ben")
    desk(rival, studio, f"/review?reply={reply_id}")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#desk-notice")).to_contain_text("has the 1 reviewer it asks for")
    expect(page.locator("#desk-saved")).to_have_text("")
    expect(page.locator("#desk-corrected")).to_have_value("Written before it was left.")
    page.click("#desk-extra")
    wait_saved(page)
    query = "SELECT route FROM acts JOIN corrections ON act_id = acts.id WHERE after = 'Written before it was left.'"
    assert said(studio, query) == [("late",)]
    context.close()
    other.close()


def test_a_flag_opens_also_what_its_colleague_may_only_read(browser: Browser, page: Page, studio: Studio) -> None:
    desk(page, studio)
    held = reply(page)
    page.keyboard.press("g")
    page.select_option("#desk-whom", "ben")
    page.fill("#desk-dialog-text", "Is this ours?")
    page.locator("#desk-dialog-text").press("Control+Enter")
    expect(page.locator("#desk-saved")).to_have_text("Flagged")
    context = browser.new_context()
    his = context.new_page()
    studio.sign_in(his, "ben")
    desk(his, studio)
    his.click("#desk-flagged")
    expect(his.locator("#desk-reply")).to_have_text(held)
    expect(his.locator("#desk-notice")).to_contain_text("Somebody flagged this for you. This reply has the 1 reviewer")
    expect(his.locator("#desk-conversation")).to_contain_text("flagged it for ben: Is this ours?")
    his.keyboard.press("c")
    his.keyboard.type("It is.")
    his.keyboard.press("Control+Enter")
    expect(his.locator("#desk-conversation")).to_contain_text("It is.")
    his.click("#desk-flagged")
    his.click("#desk-unflag")
    expect(his.locator("#desk-flagged")).to_be_hidden()
    his.keyboard.press("Control+Enter")
    expect(his.locator("#desk-reply")).not_to_have_text(held, use_inner_text=True)
    context.close()


def test_each_queue_is_chosen_where_one_works(page: Page, studio: Studio) -> None:
    desk(page, studio)
    expect(page.locator("#desk-queue")).to_have_count(0)
    with sqlite3.connect(studio.home / "tonesmith.db") as db:
        there = "FROM tasks JOIN turns ON turns.id = reply_id WHERE state = 'open' AND length(trim(text)) > 20"
        ((moved, text),) = db.execute(f"SELECT reply_id, text {there} ORDER BY position DESC LIMIT 1")
        db.execute("UPDATE tasks SET queue = 'legal' WHERE reply_id = ?", (moved,))
    desk(page, studio)
    page.select_option("#desk-queue", "legal")
    page.wait_for_url("**/review?queue=legal")
    page.wait_for_selector("#desk-reply")
    assert reply(page).split() == text.split()
    page.keyboard.press("a")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#desk-done")).to_contain_text("There is more in “main”.")
    page.get_by_text("Go to main").click()
    page.wait_for_selector("#desk-reply")
    expect(page.locator("#desk-queue")).to_have_count(0)  # nothing waits in the other one any more


def test_counts_and_flags_follow(page: Page, studio: Studio) -> None:
    desk(page, studio)
    expect(page.locator("#desk-counts")).to_contain_text(re.compile(r"\d+ replies waiting · \d+ reviewed"))
    expect(page.get_by_text("1 flagged for you")).to_be_visible()
    page.get_by_text("1 flagged for you").click()
    page.get_by_text("Take the flag down").click()
    expect(page.get_by_text("1 flagged for you")).to_be_hidden()
