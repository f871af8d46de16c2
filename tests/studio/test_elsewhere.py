"""A server of others that speaks OpenAI's API and takes no adapters: it is there for comparing only, and says so."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from annotation.errors import UserError
from annotation.people import Person
from annotation.store.comparisons import Comparison, VoteForm
from annotation.types import PLACES
from studio.cli.app import app
from studio.cli.errors import run
from studio.pages.compare import _Ring
from studio.parts.reveal import reveal_html, revealed, tally_html
from studio.services import Services, open_services
from studio.services.compare import RoundForm, SideOf
from studio.settings import Settings
from tests.fixtures.studio import wait_until
from tests.serving.conftest import Peer, make_adapter, respond

CURATOR = Person(name="cleo", role="curator")
NAMES = ("small-7b", "large-70b")


def plain(peer: Peer) -> None:
    """As llama.cpp's server and many others: two addresses, and 404 for all else."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/v1/models":
            return respond(
                handler, 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in NAMES]}
            )
        if handler.path != "/v1/chat/completions":
            return respond(
                handler, 404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}
            )
        model = peer.asked[-1][1]["model"]
        if model not in NAMES:
            return respond(handler, 404, {"error": {"message": "no such model"}})
        said = {"choices": [{"delta": {"content": f"I am {model}."}, "finish_reason": "stop"}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 4}}
        lines = "".join(f"data: {json.dumps(event)}\n\n" for event in (said, usage))
        return respond(handler, 200, f"{lines}data: [DONE]\n\n", "text/event-stream")

    peer.answer = answer


@pytest.fixture
def attached(tmp_path: Path, peer: Peer, empty_store: Path) -> Settings:
    """A project with an adapter, attached to such a server; its own base model is nowhere to be found."""
    plain(peer)
    home = tmp_path / "home"
    make_adapter(home / "adapters", "a-0")
    (home / empty_store.name).write_bytes(empty_store.read_bytes())
    return Settings(home=home, cache=tmp_path / "cache", base_model="/nowhere", engine_url=peer.url, person="owner")


@pytest.fixture
def services(attached: Settings) -> Iterator[Services]:
    opened = open_services(attached)
    assert opened.serving.adopt()
    yield opened.of(CURATOR)
    opened.close()


def compared(services: Services, *sides: str) -> Comparison:
    async def ask() -> str:
        form = RoundForm(sides=tuple(SideOf(model=model) for model in sides))
        first = [live async for live in services.compare.ask("Who are you?", form)][-1]
        assert (first.problem, first.comparison_id is None) == (None, False)
        drawn_again = [live async for live in services.compare.again(first.comparison_id or "")][-1]
        return drawn_again.comparison_id or ""

    return services.compare.vote(asyncio.run(ask()), VoteForm(outcome="left"))


def test_its_own_models_are_compared_and_named_as_what_they_are(services: Services, attached: Settings) -> None:
    assert services.serving.choices() == [("small-7b", "base"), ("large-70b", "large-70b")]
    voted = compared(services, "base", "large-70b")
    for answer in voted.answers.values():
        assert answer.text == f"I am {answer.provenance.model}."
        assert (answer.provenance.adapter, answer.provenance.elsewhere) == (None, attached.engine_url)
    assert {answer.provenance.model for answer in voted.answers.values()} == set(NAMES)
    panes = "".join(revealed(voted))
    assert all(name in panes for name in NAMES)
    assert "base model" not in panes
    assert "not confirmed by the engine" in panes
    preferred = voted.answers["left"].provenance.model
    assert f"You preferred {preferred}, of the server at {attached.engine_url}." in reveal_html(voted)
    tally = services.compare.tally()
    assert (tally["elsewhere"], tally["base"], tally["tuned"]) == (1, 0, 0)
    assert "a model of another server 1 ×" in tally_html(tally)


def test_the_page_takes_no_vote_from_the_moment_that_something_is_asked(services: Services) -> None:
    """Before the first word is there: the old buttons would take a vote on the old replies meanwhile."""

    async def first_change() -> list[Any]:
        lives = services.compare.ask("Hello", RoundForm(sides=(SideOf(model="base"), SideOf(model="large-70b"))))
        kept = [live async for live in lives][-1].comparison_id
        changes = _Ring(services).go_on(f"{kept} {time.time()}", "More?")
        try:
            return await anext(changes)
        finally:
            await changes.aclose()

    change = asyncio.run(first_change())
    left, votes, shown = change[0], change[len(PLACES) + 1], change[-2]
    assert 'class="ts-wait"' in left.value
    assert (votes.visible, shown) == (False, "")


def test_it_is_said_that_it_is_for_comparing_only(services: Services) -> None:
    view = services.serving.view()
    assert (view.label, view.ready, view.adapters) == ("For comparing only", True, False)
    assert "takes no adapters" in view.detail
    note, whole, first, *_ = _Ring(services).arrive()
    assert (note.visible, whole.visible) == (True, True)
    assert "For comparing only." in note.value
    assert first.choices == [("small-7b", "base"), ("large-70b", "large-70b")]


def test_nothing_is_loaded_there_and_nobody_gets_what_can_not_answer(services: Services, peer: Peer) -> None:
    for wish in (
        lambda: services.serving.load("a-0", CURATOR),
        lambda: services.serving.ensure("a-0", CURATOR),
        lambda: services.serving.unload("a-0", CURATOR),
        lambda: services.promotion.promote("production", "a-0", "it won"),
    ):
        with pytest.raises(UserError, match=r"takes no adapters: it is there for comparing only.*--enable-lora"):
            wish()
    assert services.promotion.history() == []
    services.serving._restore(services.serving._client())
    services.serving._offer_new()
    assert [view.problem for view in services.serving.adapters()] == [""]
    assert {json.dumps(body) for path, body in peer.asked if path == "/v1/load_lora_adapter"} == {"{}"}


def test_a_studio_comes_up_on_it_without_a_base_model_of_its_own(attached: Settings) -> None:
    services = open_services(attached)
    services.serving.start()
    wait_until(lambda: services.serving.view().ready, 20, "the server to be seen")
    assert services.serving.view().label == "For comparing only"
    services.close()


def test_the_commands_say_so_too(
    attached: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("home", "cache", "base_model", "engine_url", "person"):
        monkeypatch.setenv(f"TONESMITH_{name.upper()}", str(getattr(attached, name)))
    monkeypatch.setenv("COLUMNS", "400")

    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tonesmith", *words])
        run(app)
        printed = capsys.readouterr()
        return printed.out + printed.err

    assert "For comparing only." in call("status")
    assert "For comparing only." in call("adapters")
    assert "for comparing only" in call("load", "a-0")
    told = json.loads(call("compare", "Who are you?", "--adapter", "large-70b", "--vote", "tie", "--json"))
    assert {told["left"], told["right"]} == set(NAMES)
    assert told["left_text"] == f"I am {told['left']}."


def test_a_server_that_comes_back_as_another_is_asked_anew(services: Services, peer: Peer) -> None:
    answer = peer.answer
    peer.answer = lambda handler: respond(handler, 500, {})
    assert not services.serving.view().ready
    peer.answer = lambda handler: (
        respond(handler, 400, {}) if handler.path == "/v1/load_lora_adapter" else answer(handler)
    )
    assert (services.serving.view().ready, services.serving.view().adapters) == (True, True)
