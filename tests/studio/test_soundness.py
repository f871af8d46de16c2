"""An adapter that is not served as it was trained answers nobody, is relied on by nobody and is not voted on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from annotation.errors import Conflict, UserError
from annotation.people import Person
from annotation.store.comparisons import VoteForm
from annotation.types import Message, Sampling
from serving.memory import Memory, Parity
from serving.probe import Unsound
from studio.cli.serve import as_trained
from studio.pages.models import shelf_html
from studio.services import Services, open_services
from studio.services.compare import RoundForm, SideOf
from studio.services.experiments import ExperimentForm, SideForm
from studio.settings import Settings
from tests.serving.conftest import FakeEngine, Peer, respond
from training import registry
from training.types import Scored

CURATOR = Person(name="cleo", role="curator")
BOTH = RoundForm(sides=(SideOf(model="base"), SideOf(model="a-0")))


@pytest.fixture
def services(settings: Settings, fake: FakeEngine, peer: Peer) -> Iterator[Services]:
    """Attached to an engine that says 'Hello', whoever is asked."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path != "/v1/chat/completions":
            return fake(handler)
        piece = {"choices": [{"delta": {"content": "Hello"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}
        return respond(handler, 200, f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n", "text/event-stream")

    peer.answer = answer
    opened = open_services(settings)
    opened.serving.adopt()
    yield opened.of(CURATOR)
    opened.close()


def found_unsound(settings: Settings, same_prompt: bool = True) -> None:
    """What a measurement in the background writes down."""
    parity = Parity(apart=0.3, same_prompt=same_prompt, holds=False)
    memory = Memory(settings.engine_home / "serving.json")
    memory.change(lambda held: held.model_copy(update={"parities": {"a-0": parity}}))


def ask(services: Services, model: str = "a-0") -> str:
    async def said() -> str:
        asked = [Message(role="user", text="Hi")]
        stream = services.serving.model().stream(asked, model=model, sampling=Sampling())
        return "".join([chunk.text async for chunk in stream])

    return asyncio.run(said())


def compare(services: Services) -> str:
    async def last() -> str:
        return [live.comparison_id async for live in services.compare.ask("Hi", BOTH)][-1] or ""

    return asyncio.run(last())


def test_what_is_loaded_and_scores_otherwise_than_in_training_is_taken_out_again(
    services: Services, settings: Settings, fake: FakeEngine
) -> None:
    folder = settings.adapters / "a-0"
    one = Scored(asked="Hello", ids=(1, 2, 3, 4), prompt=3, base=(-1.0,) * 3, tuned=(-7.0,) * 3)
    lineage = registry.read(folder).model_copy(update={"scored": (one,)})
    (folder / "lineage.json").write_text(lineage.model_dump_json())
    for load in (
        lambda: services.serving.load("a-0", CURATOR),
        lambda: services.promotion.promote("production", "a-0", "the best"),
    ):
        with pytest.raises(Unsound, match=r"a-0 is not served as it was trained.*load it again on the Models page"):
            load()
        assert fake.held == []
    assert services.promotion.history() == []
    assert [view.parity.holds for view in services.serving.adapters() if view.parity] == [False]


@pytest.mark.parametrize("same_prompt", [True, False])
def test_what_turns_out_unsound_later_is_asked_no_more(
    services: Services, settings: Settings, same_prompt: bool
) -> None:
    services.serving.load("a-0", CURATOR)
    assert ask(services) == "Hello"
    found_unsound(settings, same_prompt)
    why = "not served as it was trained" if same_prompt else "worded otherwise than this engine words them"

    async def over_http() -> None:
        async with services.serving.answered("/v1/chat/completions", {"model": "a-0"}):
            pass

    sides = tuple(SideForm(model=model) for model in ("base", "a-0"))
    for use in (
        lambda: ask(services),
        lambda: compare(services),
        lambda: asyncio.run(over_http()),
        lambda: services.promotion.promote("candidate", "a-0", "the best"),
        lambda: services.experiments.start(ExperimentForm(name="x", sides=sides, prompts="Hi")),
    ):
        with pytest.raises(Unsound, match=why):
            use()
    assert ask(services, "base") == "Hello"


@pytest.mark.parametrize(
    ("told", "page", "command"),
    [(True, "yes</span>", "yes: 0.01 apart"), (False, "can’t be told at this precision", "can't be told at this")],
)
def test_as_trained_is_yes_only_where_the_adapter_was_seen_to_be_applied(
    services: Services, settings: Settings, told: bool, page: str, command: str
) -> None:
    parity = Parity(apart=0.01, same_prompt=True, holds=True, told=told)
    memory = Memory(settings.engine_home / "serving.json")
    memory.change(lambda held: held.model_copy(update={"parities": {"a-0": parity}}))
    shelf = shelf_html(services.serving.adapters(), services.promotion.current())
    assert page in shelf
    assert ("yes</span>" in shelf) == told
    assert command in as_trained(parity)
    services.serving.load("a-0", CURATOR)
    assert ask(services) == "Hello", "what can't be told is not held against it"


def test_replies_that_were_drawn_before_it_turned_out_take_no_vote_and_tell_no_side(
    services: Services, settings: Settings
) -> None:
    services.serving.load("a-0", CURATOR)
    drawn = compare(services)
    found_unsound(settings)
    with pytest.raises(Conflict) as refused:
        services.compare.vote(drawn, VoteForm(outcome="left"))
    assert "One of these models is not served as it was trained" in str(refused.value)
    assert "a-0" not in str(refused.value)
    assert services.compare.last() is None
    with pytest.raises(UserError, match="not served as it was trained"):
        asyncio.run(anext(services.compare.again(drawn)))
