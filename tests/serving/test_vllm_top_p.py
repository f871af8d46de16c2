"""Top-p by the likeliest tokens against sorting them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import vllm_top_p
from serving.vllm_top_p import likeliest

if TYPE_CHECKING:
    import torch

pytestmark = pytest.mark.slow  # importing torch takes seconds, which the fast tests should not pay


def by_sorting(logits: torch.Tensor, k: torch.Tensor | None, p: torch.Tensor | None) -> torch.Tensor:
    """Top-p as vLLM has it for the CPU; top-k only says that it was asked for."""
    if k is not None or p is None:
        return logits + 1
    likely, places = logits.sort(dim=-1)
    left_out = likely.softmax(dim=-1).cumsum(dim=-1) <= 1 - p.unsqueeze(1)
    left_out[:, -1] = False
    return logits.scatter_(-1, places, likely.masked_fill_(left_out, -float("inf")))


def random_logits(rows: int, seed: int, spread: float) -> torch.Tensor:
    import torch

    return spread * torch.randn(rows, 300, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.05, 0.3, 0.8, 0.95, 1.0]), min_size=1, max_size=5),
    st.integers(0, 1000),
    st.sampled_from([0.1, 1.0, 4.0]),
)
def test_the_same_tokens_stay_as_with_sorting(shares: list[float], seed: int, spread: float) -> None:
    """Of 300 tokens 40 are looked at, so that rows of both kinds come together."""
    import torch

    logits, p = random_logits(len(shares), seed, spread), torch.tensor(shares)
    expected = by_sorting(logits.clone(), None, p)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_top_p, "MOST", 40)
        found = likeliest(by_sorting)(logits.clone(), None, p)
    assert torch.equal(found, expected)
    assert found.isfinite().any(dim=-1).all()


def test_what_else_is_asked_for_is_left_to_vllm() -> None:
    import torch

    logits, k, p = random_logits(2, 1, 1.0), torch.tensor([3, 5]), torch.tensor([0.9, 0.9])
    assert torch.equal(likeliest(by_sorting)(logits, k, p), logits + 1)
    assert torch.equal(likeliest(by_sorting)(logits, None, None), logits + 1)
