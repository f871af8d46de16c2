"""Whether a loaded adapter does anything, leaves the base alone, and is served as trained: how likely fixed texts
are with it, without it, and by its trainer's account.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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

CERTAIN = 3.0
"""Standard errors between what was seen and its opposite, before something is said of it."""


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
    found = compared(scored, base, tuned, tolerance)
    same = _worded_alike(client, scored)
    return found.model_copy(update={"same_prompt": same, "holds": found.holds and same})


def compared(scored: Sequence[Scored], base: Scores, tuned: Scores, tolerance: float) -> Parity:
    """As `parity` finds it, but for the prompt's tokens."""
    then, learned = [one.base for one in scored], [one.tuned for one in scored]
    furthest = max(apart(base, then), apart(tuned, learned))
    served = applied(base, tuned, then, learned)
    holds = furthest <= tolerance and served is not False
    return Parity(apart=furthest, same_prompt=True, holds=holds, told=served is not None)


def applied(base: Scores, tuned: Scores, then: Scores, learned: Scores) -> bool | None:
    """Whether the engine applies an adapter: what it changes there (`base` to `tuned`) is nearer to what it changed in
    training (`then` to `learned`) than to nothing. None where that can't be told, since it changed too little.

    That no score is far off is not enough where numbers have 16 bits: an adapter whose whole effect is smaller than the
    tolerance could be left out. Over all tokens, the share of the trained change that is served is 1 or 0 but for the
    noise, which is what does not fit that share, and how far the engine's base is from the trainer's.
    """
    given, due = _flat(tuned) - _flat(base), _flat(learned) - _flat(then)
    size = float(np.linalg.norm(due))
    if size == 0.0:
        return None
    share = float(given @ due) / size**2
    noise = np.mean((given - share * due) ** 2 + (_flat(base) - _flat(then)) ** 2)
    off = abs(share - 0.5) * size
    return share > 0.5 if off > CERTAIN * float(np.sqrt(noise)) else None


def _flat(scores: Scores) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(one, dtype=np.float64) for one in scores])
