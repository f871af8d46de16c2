"""Aliases in the store: what stands is what replaying every change gives, also in a store opened anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.errors import Conflict
from annotation.store import Store, open_store
from annotation.store.aliases import Alias, AliasChange, Kind, replay
from annotation.store.part import new_id
from annotation.types import utc_now


def change(number: int, adapter: str | None, kind: Kind = "promote", alias: Alias = "production") -> AliasChange:
    return AliasChange(
        id=new_id(),
        alias=alias,
        number=number,
        kind=kind,
        adapter=adapter,
        weights_sha256="0" * 64 if adapter else None,
        reason="so it is",
        author="ana",
        made_at=utc_now(),
    )


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


def names(changes: list[AliasChange], alias: Alias = "production") -> list[str | None]:
    return [stood.adapter for stood in replay(changes, alias)]


def test_going_back_twice_ends_two_before() -> None:
    promoted = [change(1, "a"), change(2, "b"), change(3, "c")]
    assert names(promoted) == ["a", "b", "c"]
    assert names([*promoted, change(4, "b", "rollback"), change(5, "a", "rollback")]) == ["a"]
    assert names([*promoted, change(4, "b", "rollback"), change(5, "d")]) == ["a", "b", "d"]
    assert names([change(1, "a"), change(2, None, "rollback"), change(3, None, "rollback")]) == []


def test_the_aliases_do_not_mix() -> None:
    changes = [change(1, "a"), change(1, "b", alias="candidate"), change(2, None, "rollback")]
    assert (names(changes), names(changes, "candidate")) == ([], ["b"])


@given(st.lists(st.sampled_from(["promote", "rollback"])))
def test_a_replay_is_a_stack(kinds: list[Kind]) -> None:
    changes, stack = [], []
    for number, kind in enumerate(kinds, 1):
        if kind == "promote":
            stack.append(str(number))
        elif stack:
            stack.pop()
        changes.append(change(number, stack[-1] if stack else None, kind))
    assert names(changes) == stack
    assert not stack or changes[-1].adapter == stack[-1]


def test_a_store_opened_anew_says_the_same(store: Store, url: str) -> None:
    kept = [store.aliases.add(change(1, "a")), store.aliases.add(change(2, None))]
    share = store.aliases.set_canary(0.25, "a few", "ana")
    again = open_store(url)  # while the first one was never closed, as after a kill
    assert again.aliases.changes() == kept
    assert again.aliases.canary() == share
    again.close()


def test_of_two_at_the_same_moment_one_is_told(store: Store) -> None:
    store.aliases.add(change(1, "a"))
    with pytest.raises(Conflict, match="Somebody else has just changed what is production"):
        store.aliases.add(change(1, "b"))
    store.aliases.add(change(1, "b", alias="candidate"))
    assert [found.adapter for found in store.aliases.changes()] == ["a", "b"]


def test_the_salt_stays_while_the_share_moves(store: Store) -> None:
    assert store.aliases.canary() is None
    salts = {store.aliases.set_canary(share, "so", "ana").salt for share in (0.1, 0.0, 0.7)}
    assert len(salts) == 1
    assert [found.share for found in store.aliases.canary_changes()] == [0.7, 0.0, 0.1]
