"""How work is dealt out: how many see a reply, when a hidden check or a repeat comes. Pure and without dice: the same
person meets the same sequence however often the page is loaded again."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field

from annotation.types import Frozen

MAIN = "main"
Share = Annotated[float, Field(ge=0, le=0.5)]
RANKS = 10**12
"""Distance between two priorities; more than any store has turns."""
REPEAT_AFTER = 20
"""A reply comes to the same person a second time after so many others, when it is no longer fresh in mind."""


class QueueSettings(Frozen):
    """How one queue is worked."""

    name: Annotated[str, Field(pattern=r"^[\w .-]{1,64}$")] = MAIN
    overlap: Annotated[int, Field(ge=1, le=9)] = 1
    """How many people judge each reply, none of them seeing what the others said."""
    second_share: Share = 0.0
    """Share of the replies, 0 to ½, that one more person judges, unseen, as a check on the first."""
    gold_share: Share = 0.0
    """Share of what a reviewer meets that is a hidden check with a known answer."""
    repeat_share: Share = 0.0
    """Share of what a reviewer meets that they have judged before."""
    lease_minutes: Annotated[float, Field(gt=0, le=1440)] = 30.0
    """How long a reply is held for somebody who has it open and does nothing."""
    suggestions: bool = True
    """Whether reviewers see what a check or a model would say."""
    by_language: bool = False
    """Whether a reply goes only to people with its language among their skills."""


def share_of(*parts: str) -> float:
    """A number from 0 up to 1 that is always the same for the same `parts`, and spread evenly over different ones."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def overlap_for(settings: QueueSettings, reply_id: str) -> int:
    """How many people should judge this reply."""
    return settings.overlap + (share_of("second", reply_id) < settings.second_share)


def dealt(settings: QueueSettings, person: str, turn: int) -> Literal["queue", "gold", "repeat"]:
    """What kind of reply this person meets at their `turn`-th deal, from 0."""
    drawn = share_of("deal", settings.name, person, str(turn))
    if drawn < settings.gold_share:
        return "gold"
    return "repeat" if drawn < settings.gold_share + settings.repeat_share else "queue"


def rank_of(priority: int, position: int) -> int:
    """Place in the queue, lower first; `priority` 0 is ordinary, above comes earlier."""
    return position - priority * RANKS


def priority_of(rank: int) -> int:
    """The priority in a rank."""
    return -(rank // RANKS)
