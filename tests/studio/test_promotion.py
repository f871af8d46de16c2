"""Promotion: what customers get always answers, who may change it and why, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation.errors import NotFound, UserError
from annotation.people import Forbidden, Person
from annotation.types import Provenance, Sampling
from serving.canary import pick
from studio.pages.models import figures_html, history_html, shelf_html, standing_html
from studio.services import Services, open_services
from studio.settings import Settings
from tests.serving.conftest import FakeEngine, make_adapter

CURATOR, VIEWER = Person(name="cleo", role="curator"), Person(name="vic", role="viewer")
METRICS = Path(__file__).parent.parent / "serving" / "vllm_metrics.txt"


@pytest.fixture
def services(settings: Settings, fake: FakeEngine) -> Iterator[Services]:
    opened = open_services(settings)
    opened.serving.adopt()
    yield opened.of(CURATOR)
    opened.close()


def test_at_first_customers_get_the_base_and_there_is_no_candidate(services: Services) -> None:
    now = services.promotion.current()
    assert (now.production.adapter, now.candidate.change, now.share) == (None, None, 0)
    assert services.promotion.resolve("production") == "base"
    assert services.promotion.choices() == []


def test_a_promoted_adapter_is_loaded_first_and_told_with_hash_and_reason(services: Services, fake: FakeEngine) -> None:
    now = services.promotion.promote("production", "a-0", " won the votes ")
    assert fake.held == ["a-0"]
    assert now.change is not None
    assert (now.adapter, now.change.reason, now.change.author) == ("a-0", "won the votes", "cleo")
    assert now.change.weights_sha256 == services.serving.identify("a-0").weights_sha256
    assert services.promotion.choices() == [("As customers get it", "production")]
    assert services.promotion.history()[0].what == "a-0 became what customers get"


def test_what_can_not_be_loaded_is_never_pointed_at(services: Services, settings: Settings, fake: FakeEngine) -> None:
    services.promotion.promote("production", "a-0", "first")
    fake.refuses = "The worker is out of memory."
    with pytest.raises(UserError, match="out of memory"):
        services.promotion.promote("production", "b-0", "next")
    fake.refuses = ""
    (settings.adapters / "c-0" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="missing or damaged"):
        services.promotion.promote("production", "c-0", "next")
    with pytest.raises(NotFound):
        services.promotion.promote("production", "nowhere", "next")
    assert services.promotion.current().production.adapter == "a-0"
    assert len(services.promotion.history()) == 1


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_a_change_needs_a_reason_of_some_words(services: Services, fake: FakeEngine, reason: str) -> None:
    changes = (
        lambda: services.promotion.promote("candidate", "a-0", reason),
        lambda: services.promotion.roll_back("candidate", reason),
        lambda: services.promotion.set_share(0.1, reason),
    )
    for change in changes:
        with pytest.raises(UserError, match="reason"):
            change()
    assert fake.held == []


def test_only_curators_change_what_customers_get(services: Services) -> None:
    viewer = services.of(VIEWER).promotion
    for change in (
        lambda: viewer.promote("production", "a-0", "mine"),
        lambda: viewer.roll_back("production", "mine"),
        lambda: viewer.set_share(0.5, "mine"),
    ):
        with pytest.raises(Forbidden):
            change()
    assert viewer.history() == []
    with pytest.raises(Forbidden):
        services.serving.last_lines(VIEWER)
    with pytest.raises(Forbidden):
        services.serving.ensure("a-0", VIEWER)


def test_going_back_step_by_step_to_the_beginning(services: Services) -> None:
    for name in ("a-0", "b-0", "base"):
        services.promotion.promote("production", name, "next")
    before = [services.promotion.current().production.before]
    stood = []
    for _ in range(3):
        stood.append(services.promotion.roll_back("production", "worse").adapter)
        before.append(services.promotion.current().production.before)
    assert stood == ["b-0", "a-0", None]
    assert before == ["b-0", "a-0", "the base alone", None]
    with pytest.raises(UserError, match="Nothing stands as what customers get"):
        services.promotion.roll_back("production", "worse")
    assert [entry.what for entry in services.promotion.history()][:3] == [
        "Went back: the base alone is what customers get",
        "Went back: a-0 is what customers get",
        "Went back: b-0 is what customers get",
    ]


def test_the_one_before_is_loaded_if_it_went(services: Services, fake: FakeEngine) -> None:
    services.promotion.promote("production", "a-0", "first")
    services.promotion.promote("production", "b-0", "second")
    services.serving.unload("a-0", CURATOR)
    assert fake.held == ["b-0"]
    services.promotion.roll_back("production", "worse")
    assert sorted(fake.held) == ["a-0", "b-0"]


def test_a_way_back_that_can_not_answer_is_not_taken(services: Services, settings: Settings) -> None:
    services.promotion.promote("production", "a-0", "first")
    services.promotion.promote("production", "b-0", "second")
    services.serving.unload("a-0", CURATOR)
    (settings.adapters / "a-0" / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        services.promotion.roll_back("production", "worse")
    assert services.promotion.current().production.adapter == "b-0"


def test_aliased_adapters_stay_while_others_come_and_go(services: Services, fake: FakeEngine) -> None:
    services.promotion.promote("production", "a-0", "first")
    services.promotion.promote("candidate", "b-0", "to try")
    for name in ("c-0", "d-0", "c-0"):
        services.serving.load(name, CURATOR)
    assert sorted(fake.held) == ["a-0", "b-0", "c-0"]
    with pytest.raises(UserError, match="b-0 is the candidate"):
        services.serving.unload("b-0", CURATOR)


def test_a_studio_that_starts_anew_knows_what_customers_get(services: Services, settings: Settings) -> None:
    services.promotion.promote("production", "a-0", "first")
    services.promotion.promote("candidate", "b-0", "to try")
    services.promotion.set_share(0.5, "half")
    again = open_services(settings)
    assert again.promotion.current() == services.promotion.current()
    again.close()


def test_each_person_gets_their_side_and_it_is_kept_beside_the_reply(services: Services) -> None:
    with pytest.raises(UserError, match="no candidate yet"):
        services.promotion.set_share(0.5, "half")
    services.promotion.promote("production", "a-0", "first")
    services.promotion.promote("candidate", "b-0", "to try")
    services.promotion.set_share(0.5, "half")
    canary = services.store.aliases.canary()
    assert canary is not None
    sides = {"production": "a-0", "candidate": "b-0"}
    people = [f"person-{number}" for number in range(40)]
    got = [services.of(Person(name=name)).promotion.resolve("production") for name in people]
    assert got == [sides[pick(name, canary.salt, 0.5)] for name in people]
    assert set(got) == {"a-0", "b-0"}
    assert services.promotion.resolve("candidate") == "b-0"
    assert [services.promotion.resolve(name) for name in ("base", "c-0")] == ["base", "c-0"]


def test_a_chat_as_customers_get_it_names_the_adapter_that_answered(tmp_path: Path) -> None:
    made = make_adapter(tmp_path / "home" / "adapters", "a-0")
    services = open_services(
        Settings(home=tmp_path / "home", cache=tmp_path / "cache", engine="scripted", person="owner")
    )
    services.promotion.promote("production", "a-0", "first")

    async def ask() -> Provenance | None:
        stream = services.chat.send(None, "Hello", "production", Sampling(max_tokens=1))
        return [live async for live in stream][-1].turn.provenance  # type: ignore[union-attr]

    provenance = asyncio.run(ask())
    assert provenance is not None
    assert (provenance.adapter, provenance.weights_sha256) == ("a-0", made.weights_sha256)
    (view,) = services.serving.adapters()
    assert view.last_used is not None
    services.close()


def test_with_the_candidate_gone_the_next_one_begins_with_nobody(services: Services) -> None:
    services.promotion.promote("candidate", "a-0", "to try")
    services.promotion.set_share(0.5, "half")
    services.promotion.roll_back("candidate", "worse")
    assert services.promotion.current().share == 0
    assert services.promotion.resolve("candidate") == "base"
    services.promotion.promote("candidate", "b-0", "another")
    assert services.promotion.current().share == 0


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_none_and_all(services: Services, share: float) -> None:
    services.promotion.promote("candidate", "a-0", "to try")
    with pytest.raises(UserError, match="is no share"):
        services.promotion.set_share(share, "so")


def test_the_page_says_all_this_in_words(services: Services, fake: FakeEngine) -> None:
    fake.moves["a-0"] = 0.25
    services.promotion.promote("production", "a-0", "<b>bold</b>")
    services.promotion.promote("candidate", "b-0", "to try")
    now = services.promotion.current()
    assert "&lt;b&gt;bold&lt;/b&gt;" in standing_html(now) + history_html(services.promotion.history())
    assert "<b>bold" not in standing_html(now) + history_html(services.promotion.history())
    shelf = shelf_html(services.serving.adapters(), now)
    assert "what customers get" in shelf
    assert "0.25" in shelf
    assert "none: it answers as the base does" in shelf
    assert [load.now for load in services.serving.loads()] == [None]
    fake.metrics = METRICS.read_text()
    figures = figures_html(services.serving.loads(), "")
    assert "3 requests" in figures
    assert "one-0" in figures
