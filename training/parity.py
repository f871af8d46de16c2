"""What the finished adapter makes of three short exchanges, by the trainer itself: serving is held against it."""

from __future__ import annotations

from typing import Any

import torch

from training.tokens import IGNORED, RowError, encode
from training.types import Scored

EXCHANGES = (
    ("Where is my parcel?", "I am sorry for the wait. Could you give me your order number?"),
    ("Can I return a lamp that I bought last week?", "Yes, within thirty days. Shall I send you a label?"),
    ("Thank you, that was all.", "You are welcome. Have a good day!"),
)
"""Request and reply; nobody trains on them, so they need not be good."""
LONGEST = 512
"""Tokens."""


def score(model: Any, tokenizer: Any) -> tuple[Scored, ...]:
    """Log-probabilities of the exchanges under `model`, a PeftModel, with its adapter and without.

    An exchange that the chat template can't take is left out.
    """
    model.eval()
    found = []
    for asked, said in EXCHANGES:
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        try:
            row = encode(tokenizer, messages, LONGEST)
        except RowError:
            continue
        tuned = _likely(model, row.input_ids)
        with model.disable_adapter():
            base = _likely(model, row.input_ids)
        prompt = sum(label == IGNORED for label in row.labels)
        found.append(Scored(asked=asked, ids=row.input_ids, prompt=prompt, base=base, tuned=tuned))
    return tuple(found)


def _likely(model: Any, ids: tuple[int, ...]) -> tuple[float, ...]:
    given = torch.tensor([ids], device=model.device)
    with torch.no_grad():
        scores = model(given).logits[0, :-1].float().log_softmax(-1)
    return tuple(scores.gather(1, given[0, 1:, None])[:, 0].tolist())
