"""The CPU kernels of the plugin against a plain loop over tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.vllm_lora import (
    add_lora_linear,
    add_lora_logits,
    expand,
    expand_slice,
    forgetting_own,
    joined,
    rows_of_slots,
    shrink,
)

if TYPE_CHECKING:
    import torch

pytestmark = pytest.mark.slow  # importing torch takes seconds, which the fast tests should not pay
RANK, IN, OUT, SLOTS = 2, 5, 7, 3
batches = st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=6)


def tensors(rows: int, width: int) -> torch.Tensor:
    import torch

    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows * width))


def stacked(out: int, into: int) -> torch.Tensor:
    """Weights as vLLM stacks them: (slots, 1, out, in)."""
    import torch

    return torch.randn(SLOTS, 1, out, into, generator=torch.Generator().manual_seed(out))


def by_hand(inputs: torch.Tensor, weights: torch.Tensor, slots: list[int]) -> torch.Tensor:
    """One token at a time; zero for a token of the base."""
    import torch

    rows = [
        weights[slot, 0] @ row if slot >= 0 else torch.zeros(weights.shape[2])
        for row, slot in zip(inputs, slots, strict=True)
    ]
    return torch.stack(rows)


@settings(deadline=None)
@given(batches)
def test_shrink_takes_each_tokens_own_adapter(slots: list[int]) -> None:
    import torch

    inputs, weights = tensors(len(slots), IN), stacked(RANK, IN)
    output = torch.full((len(slots), RANK), 9.0)
    shrink(inputs, weights, output, torch.tensor(slots), 0.5)
    torch.testing.assert_close(output, 0.5 * by_hand(inputs, weights, slots))


@settings(deadline=None)
@given(batches, st.booleans())
def test_expand_adds_to_the_tokens_of_an_adapter_and_leaves_the_base_as_it_was(slots: list[int], add: bool) -> None:
    import torch

    inputs, weights = tensors(len(slots), RANK), stacked(OUT, RANK)
    before = tensors(len(slots), OUT)
    output = before.clone()
    expand(inputs, weights, output, torch.tensor(slots), add_inputs=add)
    own = by_hand(inputs, weights, slots)
    torch.testing.assert_close(output, before + own if add else own)
    base = [place for place, slot in enumerate(slots) if slot < 0]
    if add:
        assert torch.equal(output[base], before[base])  # to the last bit


@settings(deadline=None)
@given(batches)
def test_expand_into_columns_touches_no_other_columns(slots: list[int]) -> None:
    import torch

    inputs, weights = tensors(len(slots), RANK), stacked(OUT, RANK)
    before = tensors(len(slots), OUT + 4)
    output = before.clone()
    expand_slice(inputs, weights, output, torch.tensor(slots), 3, OUT)
    assert torch.equal(output[:, :3], before[:, :3])
    assert torch.equal(output[:, 3 + OUT :], before[:, 3 + OUT :])
    torch.testing.assert_close(output[:, 3 : 3 + OUT], before[:, 3 : 3 + OUT] + by_hand(inputs, weights, slots))


@settings(deadline=None)
@given(batches)
def test_a_layer_of_several_parts_adds_each_tokens_own_adapter_and_leaves_the_base_as_it_was(slots: list[int]) -> None:
    import torch

    inputs, parts = tensors(len(slots), IN), (OUT, OUT + 2)
    down, up = [stacked(RANK, IN), 2 * stacked(RANK, IN)], [stacked(part, RANK) for part in parts]
    before = tensors(len(slots), sum(parts))
    output = before.clone()
    wrapper = SimpleNamespace(rows_of_slots=rows_of_slots(torch.tensor(slots)))
    add_lora_linear(wrapper, output, inputs, down, up, 0.5, parts)
    own = [by_hand(by_hand(inputs, a, slots), b, slots) for a, b in zip(down, up, strict=True)]
    torch.testing.assert_close(output, before + 0.5 * torch.cat(own, dim=1))
    base = [place for place, slot in enumerate(slots) if slot < 0]
    assert torch.equal(output[base], before[base])  # to the last bit


def test_rows_that_stand_together_are_a_slice() -> None:
    import torch

    (first, together), (second, apart) = rows_of_slots(torch.tensor([2, -1, 0, 0, 2]))
    assert (first, together, second, apart.tolist()) == (0, slice(2, 4), 2, [0, 4])
    assert rows_of_slots(torch.tensor([-1, -1])) == []


@pytest.mark.parametrize(("slots", "expected"), [([1], 1), ([-1], -1), ([2, 2], 2), ([0, -1], -1)])
def test_the_output_layer_for_a_whole_prompt_with_one_slot_a_request(slots: list[int], expected: int) -> None:
    """How it is called for the log-probabilities of a prompt: more tokens than slots."""
    import torch

    inputs, down, up = tensors(5, IN), stacked(RANK, IN), stacked(OUT, RANK)
    before = tensors(5, OUT)
    output = before.clone()
    add_lora_logits(SimpleNamespace(sampler_indices=torch.tensor(slots)), output, inputs, down, up, 1.0)
    own = by_hand(by_hand(inputs, down, [expected] * 5), up, [expected] * 5)
    torch.testing.assert_close(output, before + own)


def test_ranks_that_an_adapter_does_not_have_are_left_out() -> None:
    import torch

    down, up = [stacked(4, IN)[0, 0], stacked(4, IN)[1, 0]], [stacked(OUT, 4)[0, 0], stacked(OUT, 4)[1, 0]]
    down[0][2:] = 0
    low, high = joined(down, up, torch.empty(0)) or (None, None)
    assert low is not None
    assert high is not None
    assert (tuple(low.shape), tuple(high.shape)) == ((6, IN), (2 * OUT, 6))
    inputs = tensors(3, IN)
    wanted = torch.cat([inputs @ a.T @ b.T for a, b in zip(down, up, strict=True)], dim=1)
    torch.testing.assert_close(inputs @ low.T @ high.T, wanted)
    assert joined([torch.zeros(4, IN)], [torch.zeros(OUT, 4)], torch.empty(0)) is None


def test_another_adapter_in_the_same_slot_speaks_for_itself() -> None:
    import torch

    inputs, down, up = tensors(2, IN), stacked(RANK, IN), stacked(OUT, RANK)
    wrapper = SimpleNamespace(rows_of_slots=[(1, slice(0, 2))])
    manager = SimpleNamespace(punica_wrapper_mapping={"": wrapper})

    def said() -> torch.Tensor:
        output = torch.zeros(2, OUT)
        add_lora_linear(wrapper, output, inputs, (down,), (up,), 1.0, (OUT,))
        return output

    first = said()
    torch.testing.assert_close(first, by_hand(by_hand(inputs, down, [1, 1]), up, [1, 1]))

    def activate(self: object, lora_id: int) -> bool:
        down[lora_id] *= -1
        return True

    assert forgetting_own(activate)(manager, 1)
    torch.testing.assert_close(said(), -first)
    made = wrapper.own_matrices
    assert not forgetting_own(lambda self, lora_id: False)(manager, 1)  # as at every step, where it has its slot
    assert wrapper.own_matrices is made


def test_the_number_format_of_the_output_counts() -> None:
    import torch

    inputs, weights = tensors(3, IN).bfloat16(), stacked(RANK, IN).bfloat16()
    output = torch.zeros(3, RANK)
    shrink(inputs, weights, output, torch.tensor([0, -1, 2]), 1.0)
    torch.testing.assert_close(output, by_hand(inputs.float(), weights.float(), [0, -1, 2]))
