"""Keys of other programs: shown once, kept as a hash, and dead the moment they are revoked or their person has left."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import sqlalchemy as sa

from annotation.errors import Conflict, NotFound, UserError
from annotation.store import Store
from annotation.store.keys import MOST, USED_EVERY
from annotation.store.tables import api_key_uses
from annotation.types import utc_now


@pytest.fixture
def team(store: Store) -> Store:
    store.people.add("boss", "admin")
    store.people.add("ana", "reviewer")
    return store


def test_a_key_acts_for_its_person_as_they_stand_now(team: Store) -> None:
    made, key = team.keys.add("ana", "  website ", "boss")
    assert (made.person, made.name, made.author, made.last_used, made.revoked_at) == (
        "ana",
        "website",
        "boss",
        None,
        None,
    )
    assert re.fullmatch(rf"tonesmith-{made.id}-[\w-]{{43}}", key)
    assert team.keys.person_of(key) == team.people.get("ana")
    team.people.change("ana", role="viewer")
    person = team.keys.person_of(key)
    assert person is not None
    assert person.role == "viewer"


def test_nothing_in_the_store_is_the_key(team: Store) -> None:
    _, key = team.keys.add("ana", "website", "ana")
    secret = key.rpartition("-")[2]
    with team.engine.connect() as db:
        kept = [
            str(row)
            for table in sa.inspect(db).get_table_names()
            for row in db.execute(sa.text(f"SELECT * FROM {table}"))
        ]
    assert any("website" in row for row in kept)
    assert not any(secret in row for row in kept)


@pytest.mark.parametrize("how", [str.upper, lambda key: key[:-1], lambda key: key + "x", lambda key: key + "\n"])
def test_a_key_that_is_nearly_right_is_wrong(team: Store, how: object) -> None:
    _, key = team.keys.add("ana", "website", "ana")
    assert callable(how)
    assert how(key) != key
    assert team.keys.person_of(how(key)) is None


def test_of_two_keys_neither_opens_with_the_secret_of_the_other(team: Store) -> None:
    (first, one), (second, other) = (team.keys.add("ana", "website", "ana") for _ in range(2))
    assert team.keys.person_of(one.replace(first.id, second.id)) is None
    assert team.keys.person_of(other.replace(second.id, "0" * 12)) is None
    assert team.keys.person_of("") is None


def test_a_revoked_key_is_dead_at_once_and_for_good(team: Store) -> None:
    made, key = team.keys.add("ana", "website", "ana")
    _, other = team.keys.add("ana", "shop", "ana")
    ended = team.keys.revoke(made.id, "boss")
    assert (ended.revoked_by, ended.revoked_at is not None) == ("boss", True)
    assert team.keys.person_of(key) is None
    assert team.keys.person_of(other) is not None
    assert team.keys.revoke(made.id, "ana") == ended
    with pytest.raises(NotFound, match="There is no key"):
        team.keys.revoke("none", "boss")


def test_a_closed_account_has_no_keys(team: Store) -> None:
    _, key = team.keys.add("ana", "website", "ana")
    team.people.change("ana", active=False)
    assert team.keys.person_of(key) is None


def test_a_use_is_written_down_by_the_minute(team: Store) -> None:
    made, key = team.keys.add("ana", "website", "ana")
    team.keys.person_of(key.replace(made.id, "0" * 12))
    assert team.keys.get(made.id).last_used is None
    team.keys.person_of(key)
    first = team.keys.get(made.id).last_used
    assert first is not None
    assert utc_now() - first < timedelta(seconds=30)
    team.keys.person_of(key)
    assert team.keys.get(made.id).last_used == first
    before = first - 2 * USED_EVERY
    with team.engine.begin() as db:
        db.execute(api_key_uses.update().values(used_at=before))
    team.keys.person_of(key)
    assert (team.keys.get(made.id).last_used or before) >= first


def test_keys_are_listed_newest_first_each_with_its_person(team: Store) -> None:
    for person, name in (("ana", "one"), ("boss", "two"), ("ana", "three")):
        team.keys.add(person, name, "boss")
    assert [key.name for key in team.keys.all()] == ["three", "two", "one"]
    assert [key.name for key in team.keys.of("ana")] == ["three", "one"]


def test_one_person_has_only_so_many(team: Store) -> None:
    made = [team.keys.add("ana", "website", "ana")[0] for _ in range(MOST)]
    with pytest.raises(Conflict, match=f"ana has {MOST} keys already"):
        team.keys.add("ana", "one more", "ana")
    team.keys.revoke(made[0].id, "ana")
    team.keys.add("ana", "one more", "ana")
    team.keys.add("boss", "another's", "boss")


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "two\nlines", "a\x00b"])
def test_a_key_has_a_name_on_one_line(team: Store, name: str) -> None:
    with pytest.raises(UserError, match="name"):
        team.keys.add("ana", name, "ana")
    assert team.keys.all() == []


def test_nobody_has_no_keys(team: Store) -> None:
    with pytest.raises(NotFound, match="Nobody here is called 'carl'"):
        team.keys.add("carl", "website", "boss")
