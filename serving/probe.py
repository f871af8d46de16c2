"""Whether a loaded adapter does anything, leaves the base alone, and is served as trained: how likely fixed texts
are with it, without it, and by its trainer's account.
"""

from __future__ import annotations

from collections.abc import Sequence

from annotation.errors import UserError
from annotation.types import Message
from serving.client import Client
from serving.engine import BASE
from serving.memory import Parity
from training.types import Adapter, Scored

PROMPTS = (
    "Where is my parcel?",
    "Can I return a lamp that I bought last week?",
    "Thank you, that was all.",
)
"""For an adapter whose trainer left no account."""
UNCHANGED = 1e-3
"""Nats a token: in float32 the engine's own noise lies well below it."""
UNCHANGED_HALF = 0.05
"""The same where numbers have 16 bits, and what else is in the batch shows."""

Scores = Sequence[Sequence[float]]
Texts = Sequence[Sequence[int]]
"""Token ids of each."""


def texts(client: Client, adapter: Adapter) -> Texts:
    """What `adapter` is measured on. Raises UserError."""
    if adapter.scored:
        return [one.ids for one in adapter.scored]
    return [client.tokenize([Message(role="user", text=prompt)], BASE) for prompt in PROMPTS]


def scores(client: Client, model: str, given: Texts) -> Scores:
    """Log-probability (nats) of each token of each text under `model`. Raises UserError."""
    return client.log_probabilities(given, model)


def apart(one: Scores, other: Scores) -> float:
    """Largest mean difference (nats a token) of any text."""
    return max(
        sum(abs(mine - theirs) for mine, theirs in zip(ours, others, strict=True)) / len(ours)
        for ours, others in zip(one, other, strict=True)
    )


def must_be_unchanged(name: str, before: Scores, base: Scores, tolerance: float) -> None:
    """Raise UserError if loading `name` changed the base, in nats a token, by more than `tolerance`."""
    if apart(base, before) > tolerance:
        raise UserError(
            f"Loading {name} changed how the base model itself answers.",
            "A base that stays as it was.",
            "Unload it, restart the engine, and tell whoever looks after it: nothing that it says can be trusted.",
        )


def parity(client: Client, scored: Sequence[Scored], base: Scores, tuned: Scores, tolerance: float) -> Parity | None:
    """The engine's scores of the texts in `scored` held against the trainer's; None where it left none."""
    if not scored:
        return None
    furthest = max(apart(base, [one.base for one in scored]), apart(tuned, [one.tuned for one in scored]))
    same = all(
        client.tokenize([Message(role="user", text=one.asked)], BASE) == list(one.ids[: one.prompt]) for one in scored
    )
    return Parity(apart=furthest, same_prompt=same, holds=same and furthest <= tolerance)
