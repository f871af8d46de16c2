"""A NUL character in what people write: PostgreSQL takes none, so it is refused in words before it gets there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from annotation.errors import NotFound, UserError
from annotation.people import Person
from annotation.store import Store
from annotation.store.batches import Change
from annotation.store.people import WrongPassword
from annotation.store.search import Filter
from annotation.types import Charter, Provenance
from serving.scripted import ScriptedModel
from studio.services.chat import ChatService
from studio.services.find import FindService
from studio.services.review import ReviewForm, ReviewService
from studio.services.rules import CharterService
from studio.services.settle import SettleService
from studio.services.team import TeamService
from tests.fixtures.desk import CURATOR, a_reply, an_empty_store, judge, verdict

ROOT = Person(name="root", role="admin")
NUL = "a\0b"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from an_empty_store(request, tmp_path)


def desk(store: Store) -> ReviewService:
    return ReviewService(store, CURATOR, ScriptedModel, lambda name: Provenance(model=name))


def form(reply_id: str, **given: object) -> ReviewForm:
    return ReviewForm.model_validate({"act_id": "act", "reply_id": reply_id, "charter_version": 1} | given)


def charter(store: Store) -> CharterService:
    return CharterService(store, CURATOR)


TELL: dict[str, Callable[[Store, str], object]] = {
    "correction": lambda store, reply: desk(store).save(form(reply, corrected=NUL)),
    "note": lambda store, reply: desk(store).save(form(reply, verdicts=[verdict("fail", note=NUL)])),
    "tag": lambda store, reply: desk(store).save(form(reply, corrected="Mine.", reasons=[NUL])),
    "comment": lambda store, reply: desk(store).comment(reply, NUL),
    "skip": lambda store, reply: desk(store).skip("act", reply, NUL),
    "flag": lambda store, reply: desk(store).flag(reply, None, NUL),
    "settling": lambda store, reply: SettleService(store, CURATOR).settle(reply, (), NUL),
    "why settled": lambda store, reply: SettleService(store, CURATOR).settle(reply, (verdict(note=NUL),)),
    "charter as text": lambda store, reply: charter(store).read(f"# Shop\n\n{NUL}\n", "md"),
    "charter": lambda store, reply: charter(store).save(Charter(name="Shop", purpose=NUL)),
    "person": lambda store, reply: TeamService(store, ROOT).add(NUL, "reviewer"),
    "skill": lambda store, reply: TeamService(store, ROOT).add("ana", "reviewer", (NUL,)),
    "changed skill": lambda store, reply: TeamService(store, ROOT).change("root", skills=(NUL,)),
    "view": lambda store, reply: FindService(store, CURATOR).keep_view(NUL, Filter()),
    "skill of many": lambda store, reply: FindService(store, CURATOR).change(Filter(), Change(skill=NUL)),
    "chat": lambda store, reply: chat(store).correct("act", reply, NUL),
}


def chat(store: Store) -> ChatService:
    return ChatService(store, ScriptedModel, lambda name: Provenance(model=name), CURATOR, lambda: 1)


@pytest.mark.parametrize("what", TELL)
def test_it_is_refused_in_words_and_nothing_is_kept(store: Store, what: str) -> None:
    store.charters.add(Charter(name="Shop"), "cleo")
    store.people.add("root", "admin")
    reply_id = a_reply(store)
    with pytest.raises(UserError) as told:
        TELL[what](store, reply_id)
    assert what == "person" or "NUL character, which can't be kept" in told.value.found
    assert store.reviews.history(reply_id) == []
    assert len(store.charters.all()) == 1
    assert [person.skills for person in store.people.all()] == [()]
    assert judge(store, CURATOR).reply_id == reply_id  # the desk works as before


def test_nobody_has_a_name_with_it(store: Store) -> None:
    reply_id = a_reply(store)
    with pytest.raises(NotFound):
        desk(store).flag(reply_id, NUL, "Look.")
    with pytest.raises(WrongPassword, match="don't match"):
        store.people.sign_in(NUL, "guess")
