"""Who may call what: every public method of every service, with every role and with closed accounts."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from typing import Any

import pytest

from annotation.errors import UserError
from annotation.experiments import BallotForm
from annotation.people import ROLES, Forbidden, Permission, Person
from annotation.queue import QueueSettings
from annotation.store.batches import Change
from annotation.store.comparisons import VoteForm
from annotation.store.search import Filter
from annotation.types import Charter, Clause, Message, Sampling
from serving.api import ChatAsked, Said
from studio.services import Services, open_services
from studio.services.argilla import ArgillaService
from studio.services.compare import RoundForm, SideOf
from studio.services.experiments import ExperimentForm
from studio.services.review import ReviewForm
from studio.settings import Settings

SAMPLING = Sampling(temperature=0, max_tokens=1)
SIDES = RoundForm(sides=(SideOf(model="base", temperature=0), SideOf(model="base", temperature=1)), longest=1)
HELLO = ChatAsked(model="base", messages=(Said(role="user", content="Hello"),))
CHARTER = Charter(name="Shop", policy=(Clause(id="no-promises", text="No promises."),))
EVERYBODY = [Person(name=role, role=role) for role in ROLES]
CLOSED = [person.model_copy(update={"active": False}) for person in EVERYBODY]


@dataclass(frozen=True)
class World:
    """A small project: a chat, a reply, a person to change, a dataset version, a comparison."""

    services: Services
    chat: str
    reply: str
    version: Any
    comparison: str


Call = tuple[Permission, Callable[[World], tuple[Any, ...]]]


def nothing(world: World) -> tuple[Any, ...]:
    return ()


def reply(world: World) -> tuple[Any, ...]:
    return (world.reply,)


CALLS: dict[str, Call] = {
    "chat.recent": ("look", nothing),
    "chat.open": ("look", lambda world: (world.chat,)),
    "chat.send": ("judge", lambda world: (world.chat, "Hello", "base", SAMPLING)),
    "chat.retry": ("judge", lambda world: (world.chat, 1, "base", SAMPLING)),
    "chat.edit": ("judge", lambda world: (world.chat, 0, "Hello again", "base", SAMPLING)),
    "chat.correct": ("judge", lambda world: ("act-chat", world.reply, "As it should be.")),
    "chat.react": ("judge", lambda world: (world.reply, "up")),
    "review.charter": ("look", nothing),
    "review.counts": ("look", nothing),
    "review.look": ("look", reply),
    "review.history": ("look", reply),
    "review.stands": ("curate", reply),
    "review.flagged": ("look", nothing),
    "review.next": ("judge", nothing),
    "review.open": ("judge", reply),
    "review.back": ("judge", nothing),
    "review.save": ("judge", lambda world: (ReviewForm(act_id="a", reply_id=world.reply, corrected="Better."),)),
    "review.skip": ("judge", lambda world: ("act-skip", world.reply)),
    "review.queues": ("look", nothing),
    "review.pass_on": ("judge", lambda world: ("act-pass", world.reply)),
    "review.undo": ("judge", nothing),
    "review.release": ("judge", lambda world: ("no-hold",)),
    "review.renew": ("judge", lambda world: ("no-hold",)),
    "review.flag": ("judge", lambda world: (world.reply, None, "look")),
    "review.unflag": ("judge", reply),
    "review.comment": ("judge", lambda world: (world.reply, "hm")),
    "review.bring_back_skipped": ("judge", nothing),
    "review.draft": ("judge", lambda world: (world.reply, ["base"], True)),
    "find.find": ("look", lambda world: (Filter(),)),
    "find.count": ("look", lambda world: (Filter(),)),
    "find.choices": ("look", nothing),
    "find.views": ("look", nothing),
    "find.changes": ("look", nothing),
    "find.keep_view": ("judge", lambda world: ("mine", Filter())),
    "find.drop_view": ("judge", lambda world: ("no-view",)),
    "find.preview": ("curate", lambda world: (Filter(), Change(priority=1))),
    "find.change": ("curate", lambda world: (Filter(), Change(priority=1))),
    "find.take_back": ("curate", lambda world: ("no-batch",)),
    "settle.count": ("look", nothing),
    "settle.waiting": ("curate", nothing),
    "settle.next": ("curate", nothing),
    "settle.open": ("curate", reply),
    "settle.settle": ("curate", lambda world: (world.reply, ())),
    "quality.agreement": ("curate", lambda world: ("voice",)),
    "quality.reviewers": ("curate", lambda world: ({},)),
    "suggest.suggest": ("curate", lambda world: (Filter(), "base", 1)),
    "charter.current": ("look", nothing),
    "charter.versions": ("look", nothing),
    "charter.get": ("look", lambda world: (1,)),
    "charter.between": ("look", lambda world: (1, 1)),
    "charter.as_text": ("look", lambda world: (1, "md")),
    "charter.read": ("look", lambda world: ('name = "Shop"', "toml")),
    "charter.consequence": ("look", lambda world: (CHARTER,)),
    "charter.stale": ("curate", nothing),
    "charter.save": ("curate", lambda world: (CHARTER.model_copy(update={"name": "Another shop"}),)),
    "charter.ask_stale_again": ("curate", nothing),
    "team.outdated_golds": ("curate", nothing),
    "team.people": ("look", nothing),
    "team.queues": ("look", nothing),
    "team.change_queue": ("curate", lambda world: (QueueSettings(overlap=2),)),
    "team.golds": ("curate", nothing),
    "team.set_gold": ("curate", lambda world: (world.reply, {"voice": "pass"})),
    "team.unset_gold": ("curate", reply),
    "team.add": ("manage", lambda world: ("somebody-new", "viewer")),
    "team.change": ("manage", lambda world: ("bo", "viewer")),
    "team.link": ("manage", lambda world: ("bo",)),
    "team.set_password": ("manage", lambda world: ("bo", "three plain words")),
    "datasets.preview": ("look", nothing),
    "datasets.all": ("look", nothing),
    "datasets.get": ("look", lambda world: (world.version.id,)),
    "datasets.folder": ("look", lambda world: (world.version,)),
    "datasets.rows": ("look", lambda world: (world.version, "sft")),
    "datasets.make": ("curate", nothing),
    "datasets.recover": ("curate", nothing),
    "training.presets": ("look", nothing),
    "training.all": ("look", nothing),
    "training.view": ("look", lambda world: ("no-run",)),
    "training.start": ("curate", lambda world: (None, "quick")),
    "training.cancel": ("curate", lambda world: ("no-run",)),
    "training.resume": ("curate", lambda world: ("no-run",)),
    "compare.tally": ("look", nothing),
    "compare.last": ("look", nothing),
    "compare.starts": ("look", reply),
    "compare.ask": ("judge", lambda world: ("Hello", SIDES)),
    "compare.go_on": ("judge", lambda world: (world.comparison, "And then?")),
    "compare.again": ("judge", lambda world: (world.comparison,)),
    "compare.places": ("judge", lambda world: (world.comparison,)),
    "compare.fix": ("judge", lambda world: (world.comparison,)),
    "compare.vote": ("judge", lambda world: (world.comparison, VoteForm(outcome="left"))),
    "promotion.current": ("look", nothing),
    "promotion.history": ("look", nothing),
    "promotion.choices": ("look", nothing),
    "promotion.resolve": ("look", lambda world: ("production",)),
    "promotion.promote": ("curate", lambda world: ("candidate", "base", "to begin")),
    "promotion.roll_back": ("curate", lambda world: ("candidate", "to end")),
    "promotion.set_share": ("curate", lambda world: (0.0, "to begin")),
    "experiments.start": ("curate", lambda world: (ExperimentForm(name="x", sides=()),)),
    "experiments.all": ("look", nothing),
    "experiments.standing": ("look", lambda world: ("no-experiment",)),
    "experiments.next": ("judge", lambda world: ("no-experiment",)),
    "experiments.vote": ("judge", lambda world: ("no-pair", BallotForm(outcome="left"))),
    "experiments.fix": ("judge", lambda world: ("no-pair",)),
    "experiments.end": ("curate", lambda world: ("no-experiment",)),
    "experiments.costs_judging": ("look", lambda world: ("no-experiment",)),
    "experiments.votes": ("look", lambda world: ("no-experiment",)),
    "experiments.ended": ("look", nothing),
    "experiments.export": ("look", lambda world: ("no-experiment",)),
    "experiments.find": ("look", lambda world: ("no-experiment",)),
    "judging.choices": ("curate", nothing),
    "judging.ask": ("curate", lambda world: ("no-experiment", "base")),
    "judging.progress": ("curate", lambda world: ("no-experiment",)),
    "judging.verdicts": ("look", lambda world: ("no-experiment",)),
    "keys.all": ("look", nothing),
    "keys.add": ("judge", lambda world: ("website",)),
    "keys.revoke": ("look", lambda world: ("no-key",)),
    "api.models": ("look", nothing),
    "api.resolve": ("judge", lambda world: ("production",)),
    "api.answered": ("judge", lambda world: (HELLO, "base")),
}
"""Service and method: the least permission that it asks for, and something to call it with."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("roles")
    services = open_services(Settings(home=home / "home", cache=home / "cache", engine="scripted", person="owner"))
    services.store.charters.add(CHARTER, "owner")
    for name, role in (("bo", "reviewer"), ("root", "admin")):
        services.store.people.add(name, role)  # type: ignore[arg-type]
    messages = [(Message(role="user", text="Refund?"), None), (Message(role="assistant", text="Sure!"), None)]
    services.store.conversations.import_one("chat", "1", "t", "en", messages)
    found = services.store.search.find(Filter())[0]
    chat = services.store.conversations.of_reply(found.reply_id).id
    services.chat.correct("act-0", found.reply_id, "Of course not.")
    version = services.datasets.make()

    async def ask() -> str:
        pairs = [pair async for pair in services.compare.ask("Hello", SIDES)]
        assert pairs[-1].comparison_id
        return pairs[-1].comparison_id

    yield World(services, chat, found.reply_id, version, asyncio.run(ask()))
    services.close()


def perform(world: World, name: str, who: Person) -> Any:
    """Call a method in somebody's name; of a stream, take the first piece and let go."""
    service, _, method = name.partition(".")
    found = getattr(getattr(world.services.of(who), service), method, None)
    if not callable(found):  # a property, which has been read by now
        return found
    made = found(*CALLS[name][1](world))
    if isinstance(made, AbstractAsyncContextManager):
        return asyncio.run(entered(made))
    return asyncio.run(first(made)) if hasattr(made, "__anext__") else made


async def entered(answer: AbstractAsyncContextManager[Any]) -> Any:
    async with answer as found:
        return found


async def first(stream: AsyncIterator[Any]) -> Any:
    try:
        return await anext(stream, None)
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


def contents(world: World) -> list[str]:
    """All that the project holds: the store's rows and the names of its files."""
    home = world.services.settings.home
    with sqlite3.connect(home / "tonesmith.db") as db:
        rows = list(db.iterdump())
    db.close()
    return rows + sorted(str(path) for path in home.rglob("*") if path.suffix not in (".db-wal", ".db-shm"))


def public() -> list[str]:
    """Every public method and property of the services that act in somebody's name."""
    hints = inspect.get_annotations(Services, eval_str=True)
    named = [(field.name, hints[field.name]) for field in fields(Services)]
    return [
        f"{service}.{name}"
        for service, kind in named
        if service not in ("settings", "store", "serving", "argilla", "suggesting", "drawing", "judge_runner", "who")
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    ]


def test_nobody_forgot_to_say_who_may_call_a_method() -> None:
    assert sorted(public()) == sorted(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_method_is_refused_below_its_role_and_open_from_it_on(world: World, name: str) -> None:
    least = CALLS[name][0]
    before = contents(world)
    for who in (*CLOSED, *(person for person in EVERYBODY if not person.may(least))):
        with pytest.raises(Forbidden):
            perform(world, name, who)
        assert contents(world) == before, f"{name} changed something for {who}"
    for who in (person for person in EVERYBODY if person.may(least)):
        try:
            perform(world, name, who)
        except Forbidden:
            pytest.fail(f"{who.name} may {least}, and was refused")
        except UserError:
            pass  # it went past the check and found something else in the way


@pytest.mark.parametrize("method", ["load", "unload"])
def test_adapters_are_loaded_by_curators(world: World, method: str) -> None:
    for who in (*CLOSED, *EVERYBODY):
        with pytest.raises(UserError) as refused:
            getattr(world.services.serving, method)("no-adapter", who)
        assert isinstance(refused.value, Forbidden) is not who.may("curate")


ARGILLA: dict[str, tuple[Permission, tuple[str, ...]]] = {
    "up": ("manage", ()),
    "attach": ("manage", ("http://127.0.0.1:1", "key")),
    "down": ("manage", ()),
    "leave": ("manage", ()),
    "passwords": ("manage", ()),
    "sync": ("curate", ()),
    "reconcile": ("curate", ()),
    "retry": ("curate", ()),
    "sync_soon": ("curate", ()),
    "up_soon": ("manage", ()),
    "reconcile_soon": ("curate", ()),
    "leave_soon": ("manage", ()),
    "cancel": ("curate", ()),
}
OF_THE_STUDIO = {"start", "close", "view", "hear"}
"""What the studio itself calls, what everybody sees on the page, and what Argilla's signature opens."""


@pytest.mark.parametrize("method", ARGILLA)
def test_argilla_is_connected_by_admins_and_synced_by_curators(world: World, method: str) -> None:
    least, given = ARGILLA[method]
    for who in (*CLOSED, *(person for person in EVERYBODY if not person.may(least))):
        call = getattr(world.services.argilla, method)
        with pytest.raises(Forbidden):
            call(by=who, **dict(zip(("url", "api_key"), given, strict=False)))


def test_nobody_forgot_a_method_of_argilla() -> None:
    public = {name for name, _ in inspect.getmembers(ArgillaService, inspect.isfunction) if not name.startswith("_")}
    assert public == {*ARGILLA, *OF_THE_STUDIO}


def test_a_model_is_asked_in_the_background_by_curators(world: World) -> None:
    batch = world.services.suggesting
    public = {name for name, _ in inspect.getmembers(type(batch), inspect.isfunction) if not name.startswith("_")}
    assert public == {"start", "cancel", "view", "close"}
    for who in (*CLOSED, *(person for person in EVERYBODY if not person.may("curate"))):
        with pytest.raises(Forbidden):
            batch.start(who, Filter(), "base", 1)
        with pytest.raises(Forbidden):
            batch.cancel(who)
    assert not batch.view().model


def test_replies_are_drawn_in_the_background_for_curators(world: World) -> None:
    drawing = world.services.drawing
    public = {name for name, _ in inspect.getmembers(type(drawing), inspect.isfunction) if not name.startswith("_")}
    assert public == {"start", "cancel", "resume", "halted", "view", "close"}
    for who in (*CLOSED, *(person for person in EVERYBODY if not person.may("curate"))):
        for call in (drawing.cancel, drawing.resume):
            with pytest.raises(Forbidden):
                call(who, "no-experiment")
    assert not drawing.halted("no-experiment")


def test_judges_are_stopped_and_go_on_for_curators(world: World) -> None:
    runner = world.services.judge_runner
    public = {name for name, _ in inspect.getmembers(type(runner), inspect.isfunction) if not name.startswith("_")}
    assert public == {"start", "cancel", "resume", "seconds_left", "trouble", "close"}
    for who in (*CLOSED, *(person for person in EVERYBODY if not person.may("curate"))):
        for call in (runner.cancel, runner.resume):
            with pytest.raises(Forbidden):
                call(who, "no-judge")


def test_everybody_sets_their_own_password_while_the_account_is_open(world: World) -> None:
    bo = world.services.store.people.get("bo")
    world.services.of(bo).team.set_password("bo", "my own three words")
    with pytest.raises(Forbidden):
        world.services.of(bo.model_copy(update={"active": False})).team.set_password("bo", "another three words")
