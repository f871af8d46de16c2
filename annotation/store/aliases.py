"""Which adapter is the candidate, which one customers get, and the share of them who get the candidate.

Every change is a new row; what stands now is replayed from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import sqlalchemy as sa
from pydantic import AwareDatetime

from annotation.errors import Conflict
from annotation.store.part import Part, fields, new_id
from annotation.store.tables import alias_changes, canary_changes
from annotation.types import Frozen, utc_now

Alias = Literal["candidate", "production"]
Kind = Literal["promote", "rollback"]
ALIASES: tuple[Alias, ...] = ("candidate", "production")


class AliasChange(Frozen):
    """An alias was pointed at something else."""

    id: str
    alias: Alias
    number: int
    """Which change of this alias it is, 1 the first."""
    kind: Kind
    adapter: str | None
    """What it points at from here on; None is the base alone."""
    weights_sha256: str | None
    """Of the adapter's weights."""
    reason: str
    author: str
    made_at: AwareDatetime


class CanaryChange(Frozen):
    """The share of people who get the candidate was changed."""

    id: str
    share: float
    """0 to 1."""
    salt: str
    """With a person's name it decides who they are; it stays the same, so that raising the share moves nobody back."""
    reason: str
    author: str
    made_at: AwareDatetime


def replay(changes: Iterable[AliasChange], alias: Alias) -> list[AliasChange]:
    """What `alias` points at (the last one) and what it can go back to, the oldest first; `changes` oldest first.

    Empty: it points at nothing yet, or went back to that.
    """
    stood: list[AliasChange] = []
    for change in changes:
        if change.alias != alias:
            continue
        if change.kind == "promote":
            stood.append(change)
        elif stood:
            stood.pop()
    return stood


class Aliases(Part):
    """Read and add changes."""

    def changes(self) -> list[AliasChange]:
        """All changes of all aliases, oldest first."""
        with self._engine.connect() as db:
            rows = db.execute(sa.select(alias_changes).order_by(alias_changes.c.seq)).mappings()
            return [AliasChange(**fields(row)) for row in rows]

    def add(self, change: AliasChange) -> AliasChange:
        """Keep a change. Raises Conflict if somebody made that alias's change of this number meanwhile."""
        try:
            with self._writer.begin() as db:
                db.execute(alias_changes.insert().values(change.model_dump()))
        except sa.exc.IntegrityError as error:
            raise Conflict(
                f"Somebody else has just changed what is {change.alias}.", do="Look at what it is now, and try again."
            ) from error
        return change

    def canary(self) -> CanaryChange | None:
        """The share as it stands, None if it was never set."""
        found = self.canary_changes(newest=1)
        return found[0] if found else None

    def canary_changes(self, newest: int | None = None) -> list[CanaryChange]:
        """Changes of the share, newest first; all of them, or the `newest` so many."""
        query = sa.select(canary_changes).order_by(canary_changes.c.seq.desc()).limit(newest)
        with self._engine.connect() as db:
            rows = db.execute(query).mappings()
            return [CanaryChange(**fields(row)) for row in rows]

    def set_canary(self, share: float, reason: str, author: str) -> CanaryChange:
        """Keep a new share, 0 to 1; the salt is drawn once and stays."""
        before = self.canary()
        salt = before.salt if before else new_id()
        change = CanaryChange(id=new_id(), share=share, salt=salt, reason=reason, author=author, made_at=utc_now())
        with self._writer.begin() as db:
            db.execute(canary_changes.insert().values(change.model_dump()))
        return change
