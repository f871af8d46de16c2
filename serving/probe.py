"""Whether a loaded adapter does anything, and leaves the base alone: how likely fixed texts are with and without it."""

from __future__ import annotations

from annotation.errors import UserError
from annotation.types import Message
from serving.client import Client
from serving.engine import BASE

PROMPTS = (
    "Where is my parcel?",
    "Can I return a lamp that I bought last week?",
    "Thank you, that was all.",
)
UNCHANGED = 1e-3
"""Nats a token: in float32 the engine's own noise lies well below it."""
UNCHANGED_HALF = 0.05
"""The same where numbers have 16 bits, and what else is in the batch shows."""

Scores = tuple[tuple[float, ...], ...]


def scores(client: Client, model: str) -> Scores:
    """Log-probability (nats) of each token of each prompt under `model`. Raises UserError."""
    chats = [client.tokenize([Message(role="user", text=prompt)], BASE) for prompt in PROMPTS]
    return tuple(tuple(client.log_probabilities(ids, model)) for ids in chats)


def apart(one: Scores, other: Scores) -> float:
    """Largest mean difference (nats a token) of any prompt."""
    return max(
        sum(abs(mine - theirs) for mine, theirs in zip(ours, others, strict=True)) / len(ours)
        for ours, others in zip(one, other, strict=True)
    )


def effect(client: Client, name: str, base_before: Scores, tolerance: float = UNCHANGED) -> float:
    """How far the adapter `name`, which has just been loaded, moves the prompts from the base; nats a token.

    0 is an adapter that does nothing, which may be so (its training changed nothing) and is worth saying. Raises
    UserError if loading it changed the base by more than `tolerance`; its scores before were `base_before`.
    """
    base = scores(client, BASE)
    if apart(base, base_before) > tolerance:
        raise UserError(
            f"Loading {name} changed how the base model itself answers.",
            "A base that stays as it was.",
            "Unload it, restart the engine, and tell whoever looks after it: nothing that it says can be trusted.",
        )
    return apart(scores(client, name), base)
