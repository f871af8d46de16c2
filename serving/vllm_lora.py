"""LoRA in vLLM on the CPU: each adapter speaks for its own tokens only, and costs as little as it can.

Registered by `serving.vllm_plugin`, which says why. Only tensors' own methods are used, so nothing heavy is imported
here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def noting_rows(update_metadata: Callable[..., None]) -> Callable[..., None]:
    """vLLM's `update_metadata`, which also works out once a step whose tokens stand where."""

    def noting(self: Any, *args: Any, **options: Any) -> None:
        update_metadata(self, *args, **options)
        self.rows_of_slots = rows_of_slots(self.token_lora_indices)

    return noting


def forgetting_own(activate_adapter: Callable[..., bool]) -> Callable[..., bool]:
    """vLLM's `activate_adapter`, after which nothing is kept of what its slot held before (`_own`).

    vLLM calls it at every step; it says whether the adapter was put into a slot by that.
    """

    def activate(self: Any, lora_id: int) -> bool:
        changed = activate_adapter(self, lora_id)
        if changed:
            for wrapper in self.punica_wrapper_mapping.values():
                wrapper.own_matrices = {}
        return changed

    return activate


def rows_of_slots(slots: Any) -> list[tuple[int, Any]]:
    """Where each adapter's tokens stand in a batch, a slice if they stand together and their places if not.

    `slots` (tokens,), −1 for tokens of the base, which are left out.
    """
    found = []
    for slot in sorted(set(slots.tolist()) - {-1}):
        places = (slots == slot).nonzero().flatten()
        first, last = int(places[0]), int(places[-1])
        found.append((slot, slice(first, last + 1) if last - first + 1 == len(places) else places))
    return found


def add_lora_linear(
    self: Any,
    y: Any,
    x: Any,
    lora_a_stacked: Sequence[Any],
    lora_b_stacked: Sequence[Any],
    scale: float,
    output_slices: Sequence[int],
    **_: Any,
) -> None:
    """`y += scale · x Aᵀ Bᵀ` for the tokens of each adapter, in place; the base's stay as they are, to the last bit.

    The signature is vLLM's: `x` (tokens, in), `y` (tokens, sum of `output_slices`), and for each slice A (slots, 1,
    rank, in) and B (slots, 1, slice, rank).
    """
    for slot, rows in self.rows_of_slots:
        _add(y, x, rows, _own(self, slot, lora_a_stacked, lora_b_stacked, y), scale)


def add_lora_logits(
    self: Any, y: Any, x: Any, lora_a_stacked: Any, lora_b_stacked: Any, scale: float, **_: Any
) -> None:
    """The same for the output layer, which few adapters change: `y` (tokens, vocabulary) and `x` (tokens, in).

    For the log-probabilities of a prompt vLLM passes all its tokens through the output layer, but one slot a request of
    the batch. With one slot it is clear whose they are; else the output layer goes without its adapter. (vLLM's own
    kernels end the engine here.)
    """
    y, x, slots = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1]), self.sampler_indices
    if slots.shape[0] != x.shape[0]:
        if len(set(slots.tolist())) > 1:
            return
        slots = slots[:1].expand(x.shape[0])
    for slot, rows in rows_of_slots(slots):
        _add(y, x, rows, _own(self, slot, (lora_a_stacked,), (lora_b_stacked,), y), scale)


def _own(wrapper: Any, slot: int, down: Sequence[Any], up: Sequence[Any], like: Any) -> tuple[Any, Any] | None:
    """One adapter's matrices for a layer, made once: all its slices in one A (ranks, in) and one B (slices, ranks),
    without the ranks that it does not have. None if it does not change this layer.

    So a token takes two products a layer instead of two a slice: it is their number that costs, not their size.
    """
    kept, key = vars(wrapper).setdefault("own_matrices", {}), (down[0].data_ptr(), slot)
    if key not in kept:
        kept[key] = joined([a[slot, 0] for a in down], [b[slot, 0] for b in up], like)
    found: tuple[Any, Any] | None = kept[key]
    return found


def joined(down: Sequence[Any], up: Sequence[Any], like: Any) -> tuple[Any, Any] | None:
    """A's (rank, in) below each other and B's (slice, rank) as blocks along a diagonal, in the number format of `like`;
    ranks where A is all zero are left out. None if none is left.
    """
    ranks = [int(used[-1]) + 1 if len(used := a.any(dim=1).nonzero()) else 0 for a in down]
    if not any(ranks):
        return None
    low = like.new_empty((sum(ranks), down[0].shape[1]))
    high = like.new_zeros((sum(b.shape[0] for b in up), sum(ranks)))
    row = column = 0
    for a, b, rank in zip(down, up, ranks, strict=True):
        low[column : column + rank] = a[:rank]
        high[row : row + b.shape[0], column : column + rank] = b[:, :rank]
        row, column = row + b.shape[0], column + rank
    return low, high


def _add(y: Any, x: Any, rows: Any, own: tuple[Any, Any] | None, scale: float) -> None:
    if own is None:
        return
    low, high = own
    width = min(high.shape[0], y.shape[1])  # adapter and model may be padded differently
    mine, target = x[rows].to(y.dtype) @ low.T, y[:, :width]
    if isinstance(rows, slice):
        target[rows].addmm_(mine, high[:width].T, alpha=scale)
    else:
        target.index_add_(0, rows, mine @ high[:width].T, alpha=scale)


def by_slot(inputs: Any, weights: Any, slots: Any, like: Any) -> Any:
    """Each token times the matrix of its own slot, zero for tokens that have none; None if no token has one.

    `inputs` (tokens, in), `weights` (slots, out, in) or (slots, 1, out, in), `slots` (tokens,) with −1 for none;
    returns (tokens, out) in the number format of `like`.
    """
    present = [slot for slot in set(slots.tolist()) if slot >= 0]
    if not present:
        return None
    if weights.dim() == 4:
        weights = weights.squeeze(1)
    inputs = inputs.to(like.dtype)
    total = like.new_zeros((inputs.shape[0], weights.shape[1]))
    for slot in present:
        mine = slots == slot
        total[mine] = inputs[mine] @ weights[slot].to(like.dtype).T
    return total


def shrink(
    inputs: Any, lora_b_weights: Any, output_tensor: Any, lora_indices_tensor: Any, scaling: float = 1.0
) -> None:
    """`output = scaling · inputs Aᵀ`, in place; the signature is vLLM's."""
    found = by_slot(inputs, lora_b_weights, lora_indices_tensor, output_tensor)
    if found is None:
        output_tensor.zero_()
    else:
        output_tensor[:, : found.shape[1]] = scaling * found


def expand(
    inputs: Any, lora_b_weights: Any, output_tensor: Any, lora_indices_tensor: Any, add_inputs: bool = True
) -> None:
    """`output += inputs Bᵀ` (or `=` without `add_inputs`), in place; the signature is vLLM's."""
    found = by_slot(inputs, lora_b_weights, lora_indices_tensor, output_tensor)
    _put(output_tensor, found, add_inputs)


def expand_slice(
    inputs: Any,
    lora_b_weights: Any,
    output_tensor: Any,
    lora_indices_tensor: Any,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """`expand` into the columns from `slice_offset`, as many as `slice_size`; the signature is vLLM's."""
    found = by_slot(inputs, lora_b_weights, lora_indices_tensor, output_tensor)
    _put(output_tensor[:, slice_offset : slice_offset + slice_size], found, add_inputs)


def _put(target: Any, found: Any, add: bool) -> None:
    if found is None:
        if not add:
            target.zero_()
        return
    width = min(found.shape[1], target.shape[1])  # adapter and model may be padded differently
    if add:
        target[:, :width] += found[:, :width]
    else:
        target[:, :width] = found[:, :width]
