"""Who gets the candidate: a share of people, always the same ones."""

from __future__ import annotations

import hashlib
import json
from typing import Literal


def pick(user: str, salt: str, share: float) -> Literal["candidate", "production"]:
    """What `user` gets while a `share` (0 to 1) of people get the candidate.

    Each person has a fixed place between 0 and 1, drawn by hash from name and salt, and gets the candidate where the
    share lies above it. So a person's side changes only when the share passes their place: raising the share moves
    people to the candidate and nobody away from it. Another salt draws all places anew.
    """
    return "candidate" if place(user, salt) < share else "production"


def place(user: str, salt: str) -> float:
    """A person's place, 0 (included) to 1 (excluded), spread evenly over names."""
    content = json.dumps([salt, user]).encode()
    # 53 bits are what a float holds; more could round up to 1.
    return (int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 11) / 2**53
