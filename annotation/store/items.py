"""Everything about one reply in one go, since a reviewer waits for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from annotation.acts import Act
from annotation.people import Person
from annotation.queue import QueueSettings
from annotation.store.conversations import around
from annotation.store.dealing import Hold, claim, settings_of
from annotation.store.helpers import Candidate, Suggestion, candidates_of, suggestions_of
from annotation.store.history import acts_of
from annotation.store.part import Part
from annotation.types import Conversation, Turn


@dataclass(frozen=True)
class Item:
    """A reply with its conversation, its history, and what machines offer about it."""

    conversation: Conversation
    """Up to the reply, which comes last."""
    after: tuple[Turn, ...]
    history: list[Act]
    suggestions: list[Suggestion]
    candidates: list[Candidate]


@dataclass(frozen=True)
class Dealt:
    """What comes before somebody: the hold, the item, and the queue's settings."""

    hold: Hold
    item: Item
    settings: QueueSettings


class Items(Part):
    """Read items, and deal them."""

    def get(self, reply_id: str) -> Item:
        """One item, over one connection. Raises NotFound."""
        with self._engine.connect() as db:
            return _item(db, reply_id)

    def deal(self, person: Person, queue: str, exclude: Collection[str] = ()) -> Dealt | None:
        """`Tasks.claim` and what it holds, in one transaction; None when nothing is left for this person."""
        with self._writer.begin() as db:
            settings = settings_of(db, queue)
            hold = claim(db, person, settings, exclude)
            return Dealt(hold, _item(db, hold.reply_id), settings) if hold else None


def _item(db: sa.Connection, reply_id: str) -> Item:
    conversation, after = around(db, reply_id)
    return Item(
        conversation=conversation,
        after=after,
        history=acts_of(db, [reply_id]).get(reply_id, []),
        suggestions=suggestions_of(db, reply_id),
        candidates=candidates_of(db, reply_id),
    )
