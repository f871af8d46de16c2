"""The pages round the review desk in a real browser: people, finding, settling, agreement and the charter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from annotation.store import open_store
from annotation.store.search import Filter
from tests.end_to_end.test_pages import unreadable
from tests.fixtures.studio import PATIENCE_MS, Studio, wait_until

pytestmark = pytest.mark.slow
QUESTIONS = ("voice", "policy", "bias")
SIZES = [(1440, 900), (390, 844)]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """The demo's replies, with an admin (who started it), cat the curator, ana and ben who review, and a viewer."""
    started = Studio(tmp_path_factory.mktemp("review-pages") / "home", "--demo", "--engine", "scripted")
    started.start()
    for name, role in (("cat", "curator"), ("ana", "reviewer"), ("ben", "reviewer"), ("vic", "viewer")):
        started.run("people", "add", name, "--role", role)
    yield started
    started.stop()


@pytest.fixture
def windows(browser: Browser, studio: Studio) -> Iterator[dict[str, Page]]:
    """A browser window for each person, opened where one is asked for."""

    class Windows(dict[str, Page]):
        def __missing__(self, name: str) -> Page:
            opened = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            opened.set_default_timeout(PATIENCE_MS)
            if name != "stranger":
                studio.sign_in(opened, name)
            self[name] = opened
            return opened

    found = Windows()
    yield found
    for page in found.values():
        page.context.close()


def go(page: Page, studio: Studio, path: str) -> Page:
    """Open a page and let its first figures arrive."""
    studio.open(page, path)
    page.wait_for_timeout(1500)
    return page


def choose(page: Page, where: str, option: str) -> None:
    """Pick an option of one of Gradio's drop-downs."""
    page.locator(f"{where} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def settled(page: Page) -> None:
    """Wait for what was just pressed to come back."""
    page.wait_for_timeout(1000)


def call(page: Page, studio: Studio, path: str, body: dict[str, Any] | None = None) -> Any:
    """One of the desk's calls with the window's own cookie."""
    sent = page.request.get if body is None else page.request.post
    answer = sent(f"{studio.url}/desk/{path}", **({} if body is None else {"data": body}))
    assert answer.ok, answer.text()
    return answer.json()


def judge(page: Page, studio: Studio, item: dict[str, Any], value: str = "pass", rule: str = "") -> None:
    """Answer the policy question one way, and the others well."""
    verdicts = [
        {
            "question": question,
            "value": value if question == "policy" else "pass",
            "clause_ids": [rule] if rule and question == "policy" else [],
        }
        for question in QUESTIONS
    ]
    form = {"act_id": item["act_id"], "reply_id": item["reply_id"], "verdicts": verdicts, "seconds": 40}
    assert call(page, studio, "save", form | {"corrected": item["text_now"]}) == {"saved": True}


# Team


def test_somebody_comes_gets_a_role_and_leaves(page: Page, windows: dict[str, Page], studio: Studio) -> None:
    go(page, studio, "/team")
    page.fill("#ts-person input, #ts-person textarea", "zoe")
    page.locator("#ts-role").get_by_text("Viewer: looks").click()
    page.fill("#ts-skills input, #ts-skills textarea", "de, fr")
    page.click("#ts-add-person")
    said = page.locator("#ts-team-said")
    expect(said).to_contain_text("zoe is added. Send zoe this link")
    link = page.locator(".ts-link")
    expect(link).to_have_text(re.compile(rf"^{re.escape(studio.url)}/welcome/\S+$"))
    stranger = windows["stranger"]
    stranger.goto(link.inner_text())
    stranger.wait_for_selector("h1#ts-main")
    assert call(stranger, studio, "start")["who"] == "zoe"
    assert not call(stranger, studio, "start")["may_judge"]
    row = page.locator("#ts-people tr", has_text="zoe")
    # Naming somebody shows their role and skills, so that a change keeps the rest.
    go(page, studio, "/team")
    page.fill("#ts-person input, #ts-person textarea", "zoe")
    expect(page.locator("#ts-skills input, #ts-skills textarea")).to_have_value("de, fr")
    expect(page.locator("#ts-role input[value=viewer]")).to_be_checked()
    page.locator("#ts-role").get_by_text("Reviewer: chats").click()
    page.click("#ts-change-person")
    expect(row).to_contain_text("reviewer")
    expect(row).to_contain_text("de, fr")
    assert call(stranger, studio, "start")["may_judge"]
    page.click("#ts-close-person")
    expect(row).to_contain_text("closed")
    assert stranger.request.get(f"{studio.url}/desk/start").status == 401
    page.click("#ts-link")
    expect(page.get_by_text("The account 'zoe' is closed.")).to_be_visible()


def test_the_last_admin_stays_and_odd_names_are_refused(page: Page, studio: Studio) -> None:
    go(page, studio, "/team")
    admin = call(page, studio, "start")["who"]
    page.fill("#ts-person input, #ts-person textarea", admin)
    page.click("#ts-close-person")
    expect(page.get_by_text(f"{admin} is the last admin.")).to_be_visible()
    page.fill("#ts-person input, #ts-person textarea", "<b>zed</b>")
    page.click("#ts-add-person")
    expect(page.get_by_text("'<b>zed</b>' can't be a name here.")).to_be_visible()


def test_who_may_not_manage_people_is_told_so(windows: dict[str, Page], studio: Studio) -> None:
    page = go(windows["cat"], studio, "/team")
    page.fill("#ts-person input, #ts-person textarea", "mine")
    page.click("#ts-add-person")
    expect(page.get_by_text("a curator, who can't change who works here")).to_be_visible()


def test_how_replies_are_dealt_out_is_kept(windows: dict[str, Page], studio: Studio) -> None:
    page = go(windows["cat"], studio, "/team")
    for where, value in (("#ts-second", "10"), ("#ts-minutes", "45")):
        page.fill(f"{where} input[type=number]", value)
        page.press(f"{where} input[type=number]", "Tab")
    page.locator("#ts-by-language input").check()
    page.click("#ts-keep-queue")
    expect(page.get_by_text("Replies not yet done follow the new settings.")).to_be_visible()
    go(page, studio, "/team")
    expect(page.locator("#ts-second input[type=number]")).to_have_value("10")
    expect(page.locator("#ts-minutes input[type=number]")).to_have_value("45")
    expect(page.locator("#ts-by-language input")).to_be_checked()
    # As it was, for what comes after.
    page.fill("#ts-second input[type=number]", "0")
    page.press("#ts-second input[type=number]", "Tab")
    page.locator("#ts-by-language input").uncheck()
    page.click("#ts-keep-queue")
    expect(page.get_by_text("Replies not yet done follow the new settings.")).to_be_visible()
    page.fill("#ts-queue input", "a/b")
    page.press("#ts-queue input", "Enter")
    settled(page)
    page.click("#ts-keep-queue")
    expect(page.get_by_text("'a/b' can't be a queue's name.")).to_be_visible()


def test_a_hidden_check_is_made_and_unmade(windows: dict[str, Page], studio: Studio) -> None:
    page = go(windows["cat"], studio, "/find")
    page.fill("#ts-words input, #ts-words textarea", "seat")
    with found_anew(page):
        page.click("#ts-find")
    address = page.locator("#ts-found a").last.get_attribute("href") or ""
    reply_id = address.partition("reply=")[2]
    go(page, studio, "/team")
    page.fill("#ts-gold-reply input, #ts-gold-reply textarea", f"{studio.url}{address}#top")
    page.click("#ts-set-gold")
    expect(page.get_by_text("A hidden check needs its right answers.")).to_be_visible()
    choose(page, "#ts-gold-voice", "Off brand")
    page.click("#ts-set-gold")
    checks = page.locator("#ts-golds")
    expect(checks).to_contain_text(reply_id[:8])
    expect(checks).to_contain_text("Off brand")
    reviewer = go(windows["ana"], studio, "/team")
    expect(reviewer.locator("#ts-golds")).to_have_text("Curators choose them.")
    assert reply_id[:8] not in reviewer.content()
    page.click("#ts-unset-gold")
    expect(checks).to_have_text("None yet.")


# Find


@contextmanager
def found_anew(page: Page) -> Iterator[None]:
    """What is done meanwhile finds something else; wait until that stands there."""
    before = page.locator("#ts-found table").inner_text()
    yield
    expect(page.locator("#ts-found")).not_to_contain_text(before, use_inner_text=True)


def number(page: Page) -> int:
    """How many replies were found."""
    return int(page.locator("#ts-found caption").inner_text().split()[0].replace(",", ""))


def test_words_filters_and_views(windows: dict[str, Page], studio: Studio) -> None:
    page = go(windows["cat"], studio, "/find")
    everything = number(page)
    assert everything > 300
    expect(page.locator("#ts-found tbody tr")).to_have_count(25)
    first = page.locator("#ts-found tbody tr").first.inner_text()
    page.click("#ts-more")
    expect(page.locator("#ts-found tbody tr").first).not_to_have_text(first, use_inner_text=True)
    page.click("#ts-first")
    expect(page.locator("#ts-found tbody tr").first).to_have_text(first, use_inner_text=True)
    page.fill("#ts-words input, #ts-words textarea", "seat")
    with found_anew(page):
        page.press("#ts-words input, #ts-words textarea", "Enter")
    seats = number(page)
    assert 0 < seats < everything
    choose(page, "#ts-state", "Reviewed")
    with found_anew(page):
        page.click("#ts-find")
    reviewed = number(page) if page.locator("#ts-found caption").count() else 0
    assert reviewed < seats
    choose(page, "#ts-state", "Waiting")
    page.get_by_text("More filters").click()
    page.fill("#ts-view-name input, #ts-view-name textarea", "Seats that wait")
    page.click("#ts-keep-view")
    expect(page.locator("#ts-view input")).to_have_value("Seats that wait (cat)")
    other = go(windows["ana"], studio, "/find")
    expect(other.locator("#ts-batch")).to_be_hidden()
    with found_anew(other):
        choose(other, "#ts-view", "Seats that wait (cat)")
    expect(other.locator("#ts-words input, #ts-words textarea")).to_have_value("seat")
    assert number(other) == seats - reviewed
    other.get_by_text("More filters").click()
    other.click("#ts-drop-view")
    expect(other.get_by_text("That view is not yours, or is gone.")).to_be_visible()
    page.fill("#ts-words input, #ts-words textarea", "***")
    page.click("#ts-find")
    expect(page.get_by_text("There is no word to look for in '***'.")).to_be_visible()
    page.fill("#ts-words input, #ts-words textarea", "xyzzyplugh")
    page.click("#ts-find")
    expect(page.locator("#ts-found")).to_contain_text("Nothing is like that")


def test_many_are_changed_at_once_and_put_back(windows: dict[str, Page], studio: Studio) -> None:
    page = go(windows["cat"], studio, "/find")
    page.fill("#ts-words input, #ts-words textarea", "seat")
    choose(page, "#ts-state", "Waiting")
    with found_anew(page):
        page.click("#ts-find")
    waiting = number(page)
    page.get_by_text("Change all of them at once").click()
    page.click("#ts-preview-change")
    expect(page.locator("#ts-change-said")).to_have_text("Choose what to do with them.")
    choose(page, "#ts-give", "ben")
    choose(page, "#ts-priority", "Earlier")
    page.click("#ts-preview-change")
    expect(page.locator("#ts-change-said")).to_have_text(
        f"This would touch {waiting} waiting replies: keep them for ben, give them priority 1."
    )
    expect(page.locator("#ts-found tbody tr").first).to_contain_text("everybody")
    page.click("#ts-make-change")
    expect(page.locator("#ts-change-said")).to_have_text(f"Done for {waiting} replies. It can be taken back below.")
    expect(page.locator("#ts-found tbody tr").first).to_contain_text("ben")
    ana, ben = (call(windows[name], studio, "next")["item"] for name in ("ana", "ben"))
    assert "seat" in json.dumps(ben).lower()
    assert ana["reply_id"] != ben["reply_id"]
    page.click("#ts-take-back")
    expect(page.locator("#ts-change-said")).to_have_text(f"Taken back for {waiting} replies.")
    expect(page.locator("#ts-found tbody tr").first).to_contain_text("everybody")
    for name, item in (("ana", ana), ("ben", ben)):
        call(windows[name], studio, "release", {"act_id": item["act_id"]})
    page.fill("#ts-move input, #ts-move textarea", "no/queue")
    page.click("#ts-preview-change")
    expect(page.get_by_text("'no/queue' can't be a queue's name.")).to_be_visible()


def test_a_model_is_asked_from_the_page_and_goes_on_when_it_is_closed(windows: dict[str, Page], studio: Studio) -> None:
    page = go(windows["cat"], studio, "/find")
    page.get_by_text("Let a model suggest answers").click()
    expect(page.locator("#ts-ask-model input")).not_to_have_value("")
    settled(page)  # Gradio makes what an accordion holds anew in the moment after it opens
    most = page.locator("#ts-ask-most input")
    most.fill("1")
    most.press("Tab")
    settled(page)
    expect(most).to_have_value("1")
    page.click("#ts-ask-start")
    said = page.locator("#ts-ask-said")
    expect(said).to_contain_text("Asking base")
    go(page, studio, "/team")
    go(page, studio, "/find").get_by_text("Let a model suggest answers").click()
    expect(said).to_contain_text("base was asked about 1 of 1 reply.", timeout=PATIENCE_MS)
    expect(page.locator("#ts-ask-stop")).to_be_hidden()
    expect(go(windows["ana"], studio, "/find").locator("#ts-ask")).to_be_hidden()


# Settle, agreement


def test_two_who_differ_are_settled(windows: dict[str, Page], studio: Studio) -> None:
    cat, ana, ben = (windows[name] for name in ("cat", "ana", "ben"))
    go(cat, studio, "/team")
    cat.fill("#ts-overlap input[type=number]", "2")
    cat.press("#ts-overlap input[type=number]", "Tab")
    cat.click("#ts-keep-queue")
    expect(cat.get_by_text("Replies not yet done follow the new settings.")).to_be_visible()
    charter = call(ana, studio, "start")["charter"]
    rule, other = (one["id"] for one in charter["policy"][:2])
    ids = []
    for turn in range(3):
        mine, same = (call(page, studio, "next")["item"] for page in (ana, ben))
        assert mine["reply_id"] == same["reply_id"]
        assert mine.keys() == same.keys()
        judge(ana, studio, mine)
        assert call(ben, studio, f"history/{mine['reply_id']}") == []
        judge(ben, studio, same, *(("fail", rule) if turn < 2 else ()))
        ids.append(mine["reply_id"])
    assert call(cat, studio, "counts")["disputed"] == 2

    page = go(cat, studio, "/settle")
    answers = page.locator("#ts-answers")
    expect(answers).to_contain_text("50% say the same")
    expect(answers.locator("tr", has_text="ana")).to_contain_text("Within policy")
    expect(answers.locator("tr", has_text="ben")).to_contain_text("Breaks policy")
    expect(answers.locator("tr", has_text="ben")).to_contain_text(rule)
    together = answers.locator("tr", has_text="Together")
    expect(together.locator("td")).to_have_text(["Together", "unanimous", "unresolved", "unanimous"])
    expect(page.locator("#ts-settle-voice input:checked")).to_have_value("pass")
    assert unreadable(page) == []
    page.click("#ts-settle")
    expect(page.get_by_text("The difference on policy is still open.")).to_be_visible()
    page.locator("#ts-settle-policy").get_by_text("Breaks policy").click()
    item = page.locator("#ts-settle-item .ts-conversation")  # beside it stands for a moment how long it took
    shown = item.inner_text()
    for _ in range(2):  # to the other one, and round again to this
        before = item.inner_text()
        page.click("#ts-later")
        expect(item).not_to_have_text(before, use_inner_text=True)
    assert item.inner_text() == shown
    settled(page)  # Gradio takes what is pressed while a page comes for the one before
    expect(page.locator("#ts-settle-policy-rules")).to_be_hidden()
    page.locator("#ts-settle-policy").get_by_text("Breaks policy").click()
    rules = page.locator("#ts-settle-policy-rules input[type=checkbox]")
    expect(rules).to_have_count(len(charter["policy"]))
    expect(rules.first).to_be_checked()  # the one that ben cited
    rules.nth(1).check()
    choose(page, "#ts-settle-severity", "Critical")
    page.locator("#ts-settle-bias").get_by_text("Biased").click()
    choose(page, "#ts-settle-kind", "Talks down")
    page.click("#ts-settle")
    expect(item).not_to_have_text(shown, use_inner_text=True)
    wait_until(lambda: call(cat, studio, "counts")["disputed"] == 1, 60, "one difference less")
    history = call(cat, studio, f"history/{ids[0]}")
    assert (history[-1]["who"], history[-1]["text"].startswith("settled: ")) == ("cat", True)
    assert history[-1]["text"] == f"settled: breaks policy ({rule}, {other}; critical), biased (disrespect)"
    how = {one["question"]: (one["value"], one["how"]) for one in call(cat, studio, f"stands/{ids[0]}")}
    assert how["Policy"] == ("Breaks policy", "adjudicated")
    assert how["Brand voice"] == ("On brand", "unanimous")  # left as it was, so it stays theirs
    assert ana.request.get(f"{studio.url}/desk/stands/{ids[0]}").status == 403
    expect(page.locator("#ts-settle-policy input[type=radio]:checked")).to_have_count(0)
    page.locator("#ts-settle-policy").get_by_text("Within policy").click()
    page.click("#ts-settle")
    expect(page.get_by_text("Nobody differs")).to_be_visible()


def test_a_reviewer_sees_nothing_on_the_settle_page(windows: dict[str, Page], studio: Studio) -> None:
    for name in ("ana", "vic"):
        page = go(windows[name], studio, "/settle")
        expect(page.get_by_text("Settling is for curators")).to_be_visible()
        assert "Breaks policy" not in page.locator("#ts-answers, #ts-settle-item").all_inner_texts()
        expect(page.locator("#ts-settle")).to_be_hidden()
        page = go(windows[name], studio, "/agreement")
        expect(page.get_by_text("These figures are for curators")).to_be_visible()
        assert page.locator("#ts-figures table").count() == 0


def test_agreement_has_figures_a_plot_and_examples(windows: dict[str, Page], studio: Studio) -> None:
    page = go(windows["cat"], studio, "/agreement")
    figures = page.locator("#ts-figures")
    expect(figures.locator("svg[role=img]")).to_be_visible()
    assert unreadable(page) == []
    expect(figures.locator("tr", has_text="Policy").first).to_contain_text("33%")
    expect(figures.locator("tr", has_text="Bias").first).to_contain_text("Undefined: only one label was used.")
    for name in ("ana", "ben"):
        expect(figures.locator("tr", has_text=name).first).to_contain_text("3")
    figures.get_by_text("Policy: rules and pairs of reviewers").click()
    cell = figures.locator("tr", has_text="Within policy").locator("a").last
    address = cell.get_attribute("href") or ""
    cell.click()
    page.wait_for_selector("#desk-reply")
    assert page.url.endswith(address)
    expect(page.locator("#desk-reply")).not_to_be_empty()


# Charter


def text_of(page: Page) -> str:
    """The whole text in the editor, which keeps only the lines in sight on the page."""
    return str(page.evaluate("document.querySelector('#ts-charter-text .cm-content').cmTile.view.state.doc.toString()"))


def write(page: Page, text: str) -> None:
    """Put `text` into the editor in place of what is there."""
    page.locator("#ts-charter-text .cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)
    settled(page)


def test_the_charter_is_changed_as_a_text(windows: dict[str, Page], studio: Studio, tmp_path: Path) -> None:
    cat, ana = windows["cat"], windows["ana"]
    page = go(cat, studio, "/charter")
    expect(page.locator("#ts-rules")).to_contain_text("version 1")
    page.get_by_role("tab", name="Change them").click()
    expect(page.locator("#ts-charter-text .cm-content")).to_contain_text("Juniper Concierge")
    text = text_of(page)
    rule = call(ana, studio, "start")["charter"]["policy"][0]
    heading = next(line for line in text.split("\n") if line.startswith(f"### {rule['id']}"))
    # A mistake: the error names the line, and the text stays.
    wrong = text.replace(heading, heading.replace(rule["id"], "No Promises!"))
    write(page, wrong)
    page.click("#ts-check")
    said = page.locator("#ts-consequence")
    line = wrong.split("\n").index(heading.replace(rule["id"], "No Promises!")) + 1
    expect(said).to_contain_text(f"Line {line}: 'No Promises!' can't be an id")
    expect(page.locator("#ts-keep")).to_be_hidden()
    assert text_of(page) == wrong
    # Nor can it be written another way: it stays as it is, said to be what it is.
    page.locator("#ts-form").get_by_text("TOML").click()
    settled(page)
    expect(page.locator("#ts-form input:checked")).to_have_value("md")
    assert text_of(page) == wrong
    # Mended, with another meaning of the rule that ben cited.
    write(page, text.replace(rule["text"][:20], "Always, and " + rule["text"][:20]))
    page.click("#ts-check")
    expect(said).to_contain_text("8 answers about 3 replies would no longer hold.")
    expect(said).to_contain_text(f"Policy, '{rule['id']}': text was")
    expect(said.locator("ins").first).to_be_visible()
    expect(said.locator("table caption")).to_have_text("All of them")
    expect(said.locator("tbody tr")).to_have_count(8)
    expect(said.locator("tbody tr", has_text=rule["id"]).first).to_contain_text("Breaks policy")
    before = call(cat, studio, "counts")["waiting"]
    page.click("#ts-keep")
    expect(page.locator("#ts-rules")).to_contain_text("version 2")
    expect(page.locator("#ts-rules")).to_contain_text("Always, and")
    assert call(cat, studio, "counts")["waiting"] == before + 3
    # The stale replies come back to the desk before any other.
    again = call(ana, studio, "next")["item"]
    assert "the house rules changed (version 2)" in json.dumps(again["said"])
    call(ana, studio, "release", {"act_id": again["act_id"]})
    # The versions, and the files.
    page.get_by_role("tab", name="Versions").click()
    expect(page.locator("#ts-charter-difference")).to_contain_text(f"Policy, '{rule['id']}': text was")
    choose(page, "#ts-new", page.locator("#ts-old input").input_value())
    expect(page.locator("#ts-charter-difference")).to_have_text("No difference.")
    for name, sign in (("Markdown", "# Juniper Concierge"), ("TOML", 'name = "Juniper Concierge"')):
        with page.expect_download() as download:
            page.get_by_text(f"The newest as {name}").click()
        download.value.save_as(tmp_path / name)
        assert sign in (tmp_path / name).read_text(encoding="utf-8")
        assert "Always, and" in (tmp_path / name).read_text(encoding="utf-8")
    page.get_by_role("tab", name="As instructions").click()
    expect(page.locator("#ts-prompt")).to_contain_text("Always, and")


def test_a_charter_starts_from_an_example_and_reviewers_only_read(windows: dict[str, Page], studio: Studio) -> None:
    page = go(windows["ana"], studio, "/charter")
    page.get_by_role("tab", name="Change them").click()
    expect(page.locator("#ts-charter-text .cm-content")).to_contain_text("Juniper Concierge")
    own = text_of(page)
    page.locator("#ts-example input").click()
    page.get_by_role("option").nth(1).click()
    expect(page.locator("#ts-charter-text .cm-content")).not_to_contain_text("Juniper Concierge")
    example = text_of(page)
    assert example.startswith("# ")
    assert example != own
    page.locator("#ts-form").get_by_text("TOML").click()
    expect(page.locator("#ts-charter-text .cm-content")).to_contain_text("name = ")
    page.locator("#ts-form").get_by_text("Markdown").click()
    expect(page.locator("#ts-charter-text .cm-content")).not_to_contain_text("name = ")
    assert text_of(page) == example
    page.click("#ts-check")
    expect(page.locator("#ts-consequence")).to_contain_text("would no longer hold")
    page.click("#ts-keep")
    expect(page.get_by_text("a reviewer, who can't change how the project runs")).to_be_visible()
    assert text_of(page) == example
    assert call(page, studio, "start")["charter"]["version"] == 2


def test_a_charter_is_opened_from_a_file(windows: dict[str, Page], studio: Studio, tmp_path: Path) -> None:
    page = go(windows["cat"], studio, "/charter")
    page.get_by_role("tab", name="Change them").click()
    expect(page.locator("#ts-charter-text .cm-content")).to_contain_text("Juniper Concierge")
    rules = {"ours.toml": 'name = "From a file"\n', "ours.md": "# Written elsewhere\n"}
    for name, text in rules.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        with page.expect_file_chooser() as chooser:
            page.click("#ts-charter-file")
        chooser.value.set_files(tmp_path / name)
        expect(page.locator("#ts-charter-text .cm-content")).to_contain_text(text.strip())
        expect(page.locator("#ts-form input:checked")).to_have_value(name.split(".")[1])
    page.click("#ts-check")
    expect(page.locator("#ts-consequence")).to_contain_text("would no longer hold")


def test_a_charter_that_another_curator_kept_meanwhile_is_seen_before_it_is_written_over(
    windows: dict[str, Page], studio: Studio
) -> None:
    page = go(windows["cat"], studio, "/charter")
    page.get_by_role("tab", name="Change them").click()
    expect(page.locator("#ts-charter-text .cm-content")).to_contain_text("Juniper Concierge")
    mine = text_of(page).replace("# Juniper Concierge", "# Juniper's Concierge")
    write(page, mine)
    page.click("#ts-check")
    expect(page.locator("#ts-keep")).to_be_visible()
    with closing(open_store(f"sqlite:///{studio.home / 'tonesmith.db'}")) as store:
        now = store.charters.current()
        assert now is not None
        theirs = store.charters.add(now.model_copy(update={"purpose": f"{now.purpose} As Dan has it."}), "dan").version
    page.click("#ts-keep")
    said = page.locator("#ts-consequence")
    expect(said.get_by_role("alert")).to_contain_text(f"dan kept version {theirs} while you were editing.")
    expect(said.locator("ins").first).to_contain_text("As Dan has it.")
    assert text_of(page) == mine
    assert call(page, studio, "start")["charter"]["version"] == theirs
    page.click("#ts-keep")
    expect(page.locator("#ts-rules")).to_contain_text(f"version {theirs + 1}")
    expect(page.locator("#ts-rules")).to_contain_text("Juniper's Concierge")
    # The page goes by the version that it holds now.
    page.get_by_role("tab", name="Change them").click()
    write(page, text_of(page).replace("# Juniper's Concierge", "# Juniper Concierge"))
    page.click("#ts-check")
    expect(page.locator("#ts-keep")).to_be_visible()
    expect(said.get_by_role("alert")).to_have_count(0)


def test_a_rule_that_goes_while_a_difference_is_open_is_in_nobodys_way(
    windows: dict[str, Page], studio: Studio
) -> None:
    cat, ana, ben = (windows[name] for name in ("cat", "ana", "ben"))
    rules = call(ana, studio, "start")["charter"]["policy"]
    with closing(open_store(f"sqlite:///{studio.home / 'tonesmith.db'}")) as store:
        reply_id = store.search.find(Filter(state="open"), limit=1000)[-1].reply_id
        judge(ana, studio, call(ana, studio, f"item/{reply_id}")["item"])
        judge(ben, studio, call(ben, studio, f"item/{reply_id}")["item"], "fail", rules[0]["id"])
        page = go(cat, studio, "/settle")
        page.locator("#ts-settle-policy").get_by_text("Breaks policy").click()
        boxes = page.locator("#ts-settle-policy-rules input[type=checkbox]")
        expect(boxes.first).to_be_checked()
        now = store.charters.current()
        assert now is not None
        store.charters.add(now.model_copy(update={"policy": now.policy[1:]}), "cat")
    page.click("#ts-settle")
    expect(page.get_by_text("The house rules changed while this was open")).to_be_visible()
    expect(boxes).to_have_count(len(rules) - 1)
    expect(page.locator("#ts-settle-policy-rules input:checked")).to_have_count(0)
    page = go(cat, studio, "/settle")
    expect(page.locator("#ts-answers tr", has_text="ben")).to_contain_text(rules[0]["id"])
    page.locator("#ts-settle-policy").get_by_text("Breaks policy").click()
    boxes.first.check()
    page.click("#ts-settle")
    expect(page.get_by_text("Nobody differs")).to_be_visible()
    assert f"breaks policy ({rules[1]['id']}" in call(cat, studio, f"history/{reply_id}")[-1]["text"]


# How they look


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", ["/team", "/find", "/agreement", "/charter"])
def test_a_page_with_much_on_it_fits(
    windows: dict[str, Page], studio: Studio, path: str, size: tuple[int, int]
) -> None:
    page = windows["cat"]
    page.set_viewport_size({"width": size[0], "height": size[1]})
    go(page, studio, path)
    for text in ("More filters", "Change all of them at once") if path == "/find" else ():
        page.get_by_text(text, exact=True).first.click()
    if path == "/charter":
        page.get_by_role("tab", name="Change them").click()
    for details in page.locator("#ts-figures summary").all():
        details.click()
    page.wait_for_timeout(400)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    tall = (
        "[...document.querySelectorAll('button.lg, button.sm')].filter(b => b.offsetHeight > 60).map(b => b.innerText)"
    )
    assert page.evaluate(tall) == []


def test_keys_stand_one_below_the_other_on_a_phone(windows: dict[str, Page], studio: Studio) -> None:
    studio.run("keys", "add", "The program behind the long name of a window", "--person", "cat")
    page = windows["cat"]
    page.set_viewport_size({"width": 390, "height": 844})
    cells = go(page, studio, "/keys").locator("#ts-keys tbody tr").first.locator("td")
    expect(cells.first).to_have_css("display", "grid")
    sideways = "[...document.querySelectorAll('#ts-keys .ts-scroll')].map((box) => box.scrollWidth - box.clientWidth)"
    assert page.evaluate(sideways) == [0]
    head = page.evaluate("getComputedStyle(document.querySelector('#ts-keys td:last-child'), '::before').content")
    assert head == '"State"'
