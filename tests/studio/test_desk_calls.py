"""The desk's calls over HTTP: a very long reply, and what is refused in words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from annotation.store.search import Filter
from annotation.types import Charter, Message
from studio.services import Services, open_services
from studio.settings import Settings
from studio.web.desk import add_desk
from studio.web.login import COOKIE

with warnings.catch_warnings():  # Starlette would rather have another client than the httpx we have
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

LONG = " ".join(f"{number}:é🙂" for number in range(9_000))
"""A reply of 100 kB: no word comes twice."""


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    opened = open_services(settings)
    opened.store.people.add(opened.who.name, "admin")
    opened.store.charters.add(Charter(name="Shop"), "owner")
    messages = [(Message(role="user", text="All of it, please."), None), (Message(role="assistant", text=LONG), None)]
    opened.store.conversations.import_one("log", "1", "Title", "en", messages)
    yield opened
    opened.close()


@pytest.fixture
def browser(services: Services) -> TestClient:
    """Signed in as whoever started the studio."""
    app = FastAPI()
    add_desk(app, services)
    token = services.store.people.open_session(services.who.name)
    return TestClient(app, base_url="http://studio.test", cookies={COOKIE: token})


def test_a_reply_of_100_kb_is_shown_corrected_and_saved(services: Services, browser: TestClient) -> None:
    assert len(LONG.encode()) > 100_000
    item = browser.get("/desk/next").json()["item"]
    assert item["turns"][-1]["text"] == item["text_now"] == LONG
    corrected = LONG.replace("8999:", "nine thousand:")
    changes = browser.post("/desk/diff", json={"before": LONG, "after": corrected}).json()
    assert "".join(text for kind, text in changes if kind != "added") == LONG
    assert [text for kind, text in changes if kind == "added"] == ["nine thousand"]
    form = {"act_id": item["act_id"], "reply_id": item["reply_id"], "corrected": corrected, "charter_version": 1}
    assert browser.post("/desk/save", json=form).json() == {"saved": True}
    (line,) = browser.get(f"/desk/history/{item['reply_id']}").json()
    assert line["changes"] == changes
    assert browser.get("/desk/back").json()["item"]["text_now"] == corrected
    assert services.store.search.find(Filter())[0].outcome == "corrected"


def test_a_nul_character_is_refused_in_words(browser: TestClient) -> None:
    item = browser.get("/desk/next").json()["item"]
    form = {"act_id": item["act_id"], "reply_id": item["reply_id"], "corrected": "a\0b", "charter_version": 1}
    note = {"reply_id": item["reply_id"], "text": "a\0b"}
    for path, given in (("save", form), ("comment", note), ("flag", note)):
        answer = browser.post(f"/desk/{path}", json=given)
        assert (answer.status_code, answer.json()["found"]) == (
            422,
            "The text has a NUL character, which can't be kept.",
        )
    assert browser.post("/desk/save", json=form | {"corrected": "ab"}).json() == {"saved": True}
