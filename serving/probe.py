"""Whether a loaded adapter does anything, leaves the base alone, and is served as trained: how likely fixed texts
are with it, without it, and by its trainer's account.
"""

from __future__ import annotations

from collections.abc import Sequence

from annotation.errors import UserError
from annotation.types import Message
from serving.client import Client, Refused
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


class Unsound(UserError):
    """What is served is not what was trained: nobody should be answered by it."""


Scores = Sequence[Sequence[float]]
Texts = Sequence[Sequence[int]]
"""Token ids of each."""


def texts(client: Client, adapter: Adapter) -> Texts:
    """What `adapter` is measured on. Raises UserError."""
    return [one.ids for one in adapter.scored] if adapter.scored else fixed(client)


def fixed(client: Client) -> Texts:
    """PROMPTS as the engine words them. Raises UserError."""
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


def must_be_unchanged(name: str, moved: float, tolerance: float) -> None:
    """Raise Unsound if loading `name` moved the base, in nats a token, by more than `tolerance`."""
    if moved > tolerance:
        raise Unsound(
            f"Loading {name} changed how the base model itself answers.",
            "A base that stays as it was.",
            "Restart the engine, and tell whoever looks after it: nothing that it says can be trusted.",
        )


def must_hold(name: str, found: Parity | None) -> None:
    """Raise Unsound if `name` was measured and is not served as it was trained."""
    if found is None or found.holds:
        return
    if not found.same_prompt:
        raise _worded_otherwise(name)
    raise Unsound(
        f"{name} is not served as it was trained.",
        "The same scores in the engine as at the end of its training.",
        "A curator can load it again on the Models page, restart the engine, or train it anew. Until then it answers "
        "nobody.",
    )


def must_word_alike(client: Client, adapter: Adapter) -> None:
    """Raise Unsound if the engine words a request otherwise than `adapter` was trained on. Nothing is said of an engine
    that does not tell its tokens, or an adapter whose trainer left no account.
    """
    try:
        alike = _worded_alike(client, adapter.scored)
    except Refused:
        return
    if not alike:
        raise _worded_otherwise(adapter.name)


def _worded_otherwise(name: str) -> Unsound:
    return Unsound(
        f"{name} was trained on requests that were worded otherwise than this engine words them.",
        "An engine with the tokenizer and the chat template that it was trained with.",
        "Put the base model's own tokenizer files back and restart the engine, or train it again on this base.",
    )


def _worded_alike(client: Client, scored: Sequence[Scored]) -> bool:
    return all(
        client.tokenize([Message(role="user", text=one.asked)], BASE) == list(one.ids[: one.prompt]) for one in scored
    )


def parity(client: Client, scored: Sequence[Scored], base: Scores, tuned: Scores, tolerance: float) -> Parity | None:
    """The engine's scores of the texts in `scored` held against the trainer's; None where it left none."""
    if not scored:
        return None
    furthest = max(apart(base, [one.base for one in scored]), apart(tuned, [one.tuned for one in scored]))
    same = _worded_alike(client, scored)
    return Parity(apart=furthest, same_prompt=same, holds=same and furthest <= tolerance)
