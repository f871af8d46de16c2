"""Everything about one reply in one go, since a reviewer waits for it."""

from __future__ import annotations

from dataclasses import dataclass

from annotation.acts import Act
from annotation.store.conversations import around
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


class Items(Part):
    """Read items."""

    def get(self, reply_id: str) -> Item:
        """One item, over one connection. Raises NotFound."""
        with self._engine.connect() as db:
            conversation, after = around(db, reply_id)
            return Item(
                conversation=conversation,
                after=after,
                history=acts_of(db, [reply_id]).get(reply_id, []),
                suggestions=suggestions_of(db, reply_id),
                candidates=candidates_of(db, reply_id),
            )
