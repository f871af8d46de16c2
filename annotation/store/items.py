"""Everything about one reply in one go, since a reviewer waits for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from annotation.acts import Act
from annotation.errors import NotFound
from annotation.people import Person
from annotation.queue import QueueSettings
from annotation.store.conversations import OF_TURN, along
from annotation.store.dealing import Hold, claim, settings_of
from annotation.store.helpers import Candidate, Suggestion, candidates_of, suggestions_of
from annotation.store.history import acts_of, one_of
from annotation.store.part import Part
from annotation.store.tables import acts, candidates, charters, suggestions
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
    charter_version: int | None
    """The newest there is."""


@dataclass(frozen=True)
class Dealt:
    """What comes before somebody: the hold, the item, and the queue's settings."""

    hold: Hold
    item: Item
    settings: QueueSettings


LEFT = ("comment", "flag", "requeue")
"""Acts that are there for whoever comes next to read."""
_OF_IT = {"suggested": suggestions, "drafted": candidates}
_WITH_IT = OF_TURN.add_columns(
    *(sa.exists().where(table.c.reply_id == sa.bindparam("turn")).label(name) for name, table in _OF_IT.items()),
    sa.select(sa.func.max(charters.c.version)).scalar_subquery().label("charter_version"),
)
"""A reply's conversation, and what else there is to ask for: most replies have nothing yet."""
_SAID = sa.exists().where(acts.c.reply_id == sa.bindparam("turn"))
WITH_ALL = _WITH_IT.add_columns(_SAID.label("said"))
WITH_LEFT = _WITH_IT.add_columns(_SAID.where(one_of(acts.c.kind, LEFT)).label("said"))


class Items(Part):
    """Read items, and deal them."""

    def get(self, reply_id: str) -> Item:
        """One item, over one connection. Raises NotFound."""
        with self._engine.connect() as db:
            return _item(db, reply_id, WITH_ALL)

    def deal(self, person: Person, queue: str, exclude: Collection[str] = ()) -> Dealt | None:
        """`Tasks.claim` and what it holds, in one transaction; None when nothing is left for this person.

        The item's history is empty where nobody left a word for whoever comes next: what others answered is not read.
        """
        with self._writer.begin(may_be_lost=True) as db:
            settings = settings_of(db, queue)
            hold = claim(db, person, settings, exclude)
            return Dealt(hold, _item(db, hold.reply_id, WITH_LEFT), settings) if hold else None


def _item(db: sa.Connection, reply_id: str, asked: sa.Select[Any]) -> Item:
    rows = db.execute(asked, {"turn": reply_id}).mappings().all()
    if not rows:
        raise NotFound(f"There is no reply {reply_id}.")
    row = rows[0]
    conversation, after = along(rows, reply_id)
    return Item(
        conversation=conversation,
        after=after,
        history=acts_of(db, [reply_id]).get(reply_id, []) if row["said"] else [],
        suggestions=suggestions_of(db, reply_id) if row["suggested"] else [],
        candidates=candidates_of(db, reply_id) if row["drafted"] else [],
        charter_version=row["charter_version"],
    )
