"""Top-p without sorting the whole vocabulary, for vLLM on the CPU: there the sort takes longer than the model's layers.

Registered by `serving.vllm_plugin`. Only tensors' own methods are used, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MOST = 1024
"""Tokens that are looked at; where they do not hold the share that is asked for, that row is sorted after all."""


def likeliest(by_sorting: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """vLLM's `apply_top_k_top_p`, made quick where only top-p is asked for; `by_sorting` is its own."""

    def apply(logits: Any, k: Any, p: Any) -> Any:
        if k is not None or p is None:
            return by_sorting(logits, k, p)
        return top_p(logits, p, by_sorting)

    return apply


def top_p(logits: Any, p: Any, by_sorting: Callable[[Any, Any, Any], Any]) -> Any:
    """Keep the likeliest tokens up to a share of `p`, the others become −∞; `logits` is changed in place.

    `logits` (rows, vocabulary), `p` (rows,), 0 < p ≤ 1. A token stays if those likelier than it hold less than `p`, as
    with sorting.
    """
    values, places = logits.topk(min(MOST, logits.shape[1]), dim=-1)
    probabilities = (values - logits.logsumexp(dim=-1, keepdim=True)).exp_()
    reach = probabilities.cumsum(dim=-1)
    rest = (reach[:, -1] < p).nonzero().flatten()
    sorted_rest = by_sorting(logits[rest], None, p[rest]) if len(rest) else None
    values.masked_fill_(reach - probabilities >= p.unsqueeze(1), -float("inf"))
    logits.fill_(-float("inf")).scatter_(-1, places, values)
    if sorted_rest is not None:
        logits[rest] = sorted_rest
    return logits
