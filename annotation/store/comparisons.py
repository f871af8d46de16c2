"""Blind comparisons and their votes. Which side is which stays here until the vote is in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import AwareDatetime

from annotation.errors import Conflict, NotFound
from annotation.store.part import Part, fields, new_id
from annotation.store.tables import comparisons, votes
from annotation.types import Frozen, Message, Outcome, Provenance, utc_now


class Answer(Frozen):
    """One side of a comparison: what was said, and by which weights."""

    text: str
    provenance: Provenance


class Comparison(Frozen):
    """Two answers to one prompt, as they stood left and right, and the vote once there is one."""

    id: str
    prompt: tuple[Message, ...]
    left: Answer
    right: Answer
    author: str
    made_at: AwareDatetime
    outcome: Outcome | None = None
    voter: str | None = None
    voted_at: AwareDatetime | None = None


class Comparisons(Part):
    """Keep comparisons, take one vote each."""

    def add(self, prompt: Sequence[Message], left: Answer, right: Answer, author: str) -> str:
        """Keep both answers; returns the comparison's id."""
        row = {
            "id": new_id(),
            "prompt": [message.model_dump() for message in prompt],
            "left": left.model_dump(mode="json"),
            "right": right.model_dump(mode="json"),
            "author": author,
            "made_at": utc_now(),
        }
        with self._writer.begin() as db:
            db.execute(comparisons.insert().values(row))
        return str(row["id"])

    def vote(self, comparison_id: str, outcome: Outcome, voter: str, seconds: float | None = None) -> Comparison:
        """Keep the one vote of a comparison and return it. Raises NotFound, and Conflict for a second vote."""
        self.get(comparison_id)
        row = {"id": new_id(), "comparison_id": comparison_id, "outcome": outcome, "voter": voter}
        try:
            with self._writer.begin() as db:
                db.execute(votes.insert().values(row | {"seconds": seconds, "made_at": utc_now()}))
        except sa.exc.IntegrityError as error:
            raise Conflict(
                "This comparison already has its vote, and the sides have been shown.",
                do="Ask something new to vote again.",
            ) from error
        return self.get(comparison_id)

    def get(self, comparison_id: str) -> Comparison:
        """One comparison. Raises NotFound."""
        with self._engine.connect() as db:
            row = db.execute(_with_votes().where(comparisons.c.id == comparison_id)).mappings().first()
        if row is None:
            raise NotFound("That comparison is not here.", do="Ask again to get a new one.")
        return _comparison(row)

    def voted(self) -> list[Comparison]:
        """All comparisons with a vote, oldest vote first."""
        query = _with_votes().where(votes.c.outcome.is_not(None)).order_by(votes.c.seq)
        with self._engine.connect() as db:
            return [_comparison(row) for row in db.execute(query).mappings()]

    def decided(self, since: datetime | None = None) -> int:
        """Votes that preferred one side, since a moment or ever."""
        query = sa.select(sa.func.count()).select_from(votes).where(votes.c.outcome.in_(("left", "right")))
        if since is not None:
            query = query.where(votes.c.made_at > since)
        with self._engine.connect() as db:
            return db.scalar(query) or 0


def _with_votes() -> sa.Select[Any]:
    return sa.select(comparisons, votes.c.outcome, votes.c.voter, votes.c.made_at.label("voted_at")).outerjoin(
        votes, votes.c.comparison_id == comparisons.c.id
    )


def _comparison(row: sa.RowMapping) -> Comparison:
    return Comparison(**fields(row))
