"""A vLLM plugin. Everywhere, the weights that are loaded are noted. On the CPU, a request without an adapter gets none,
and top-p is quick (`serving.vllm_top_p`).

vLLM's CPU kernels pick each token's adapter by its index, and a token of the base model has index −1, which in PyTorch
is the last slot: in a batch that mixes both, the base is answered in an adapter's voice. Here every adapter speaks only
for the tokens that are its own. It is faster too: whose tokens stand where is worked out once a step, and each adapter
multiplies its own, where vLLM copies the adapter's weights for every token of every layer, also for those of the base.
GPU kernels pass over −1 and are left alone. Upstream: vllm-project/vllm #48421, #49656; with those released, this file
can go.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from serving import attestation, vllm_top_p
from training.weights import digest

PAUSE_SECONDS = 2e-4
"""Between two looks whether a step is done, which takes a hundred times as long."""


def register() -> None:
    """Called by vLLM in each of its processes (entry point `vllm.general_plugins`); a second call changes nothing."""
    from vllm.platforms import current_platform

    _note_what_is_read(seeds_last=current_platform.is_cpu())
    if not current_platform.is_cpu():
        return
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu
    from vllm.v1.sample.ops import topk_topp_sampler

    for module in (lora_ops, punica_cpu):
        module.bgmv_shrink = shrink
        module.bgmv_expand = expand
        module.bgmv_expand_slice = expand_slice
    wrapper = punica_cpu.PunicaWrapperCPU
    if wrapper.add_lora_linear is not add_lora_linear:
        wrapper.update_metadata = _noting_rows(wrapper.update_metadata)
        wrapper.add_lora_linear = add_lora_linear
        # While a step runs, vLLM's scheduler asks without a pause whether it is done, on a core that the model needs.
        shm_broadcast.sched_yield = partial(time.sleep, PAUSE_SECONDS)
        topk_topp_sampler.apply_top_k_top_p = vllm_top_p.likeliest(topk_topp_sampler.apply_top_k_top_p)


def _note_what_is_read(seeds_last: bool) -> None:
    """Have weights noted (`serving.attestation`) as they are loaded, by the process that loads them. With `seeds_last`
    that process also gets `_keep_seeds`: it holds what that needs by then, and others need not load it.
    """
    from vllm.lora.lora_model import LoRAModel
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    if hasattr(LoRAModel, "_noted"):
        return
    load_adapter, load_model = LoRAModel.from_local_checkpoint.__func__, BaseModelLoader.load_model

    def from_local_checkpoint(cls: Any, lora_dir: str, *args: Any, **options: Any) -> Any:
        before = digest(Path(lora_dir))
        if attestation.noted(Path(lora_dir)) not in (None, before):
            # Replies may be under way that began with the old ones, and vLLM's prefix cache goes by the name and path.
            raise ValueError(f"the weights in {lora_dir} are not those that this engine read there before")
        loaded = load_adapter(cls, lora_dir, *args, **options)
        if attestation.note(Path(lora_dir)) not in (None, before):
            raise ValueError(f"{lora_dir} was changed while it was read")
        return loaded

    def load(self: Any, *args: Any, **options: Any) -> Any:
        model_config = options.get("model_config") or args[1]
        loaded = load_model(self, *args, **options)
        attestation.note(Path(model_config.model))
        if seeds_last:
            _keep_seeds()
        return loaded

    LoRAModel.from_local_checkpoint = classmethod(from_local_checkpoint)
    BaseModelLoader.load_model = load
    LoRAModel._noted = True


def _keep_seeds() -> None:
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    if "sample_tokens" not in vars(CPUModelRunner):
        CPUModelRunner.sample_tokens = keeping_seeds(CPUModelRunner.sample_tokens)


def keeping_seeds(sample_tokens: Any) -> Any:
    """A request of which only a part was read in this step draws nothing from its seed.

    vLLM draws a token all the same, throws it away, and puts the generator back by an offset, which a CPU's generator
    does not have: then the whole engine ends. It happens as soon as seeded prompts come together that are longer than
    what vLLM reads in one step.
    """

    def sample(self: Any, *args: Any) -> Any:
        generators, unread = self.input_batch.generators, self.discard_request_mask.np[: self.input_batch.num_reqs]
        waiting = {place: generators.pop(place) for place in unread.nonzero()[0].tolist() if place in generators}
        try:
            return sample_tokens(self, *args)
        finally:
            generators.update(waiting)

    return sample


def _noting_rows(update_metadata: Any) -> Any:
    def noting(self: Any, *args: Any, **options: Any) -> None:
        update_metadata(self, *args, **options)
        self.rows_of_slots = rows_of_slots(self.token_lora_indices)

    return noting


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
        mine, begin = x[rows].to(y.dtype), 0
        for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            low = mine @ a[slot, 0].to(y.dtype).T
            columns, up = y[:, begin : begin + width], b[slot, 0].to(y.dtype).T
            if isinstance(rows, slice):
                columns[rows].addmm_(low, up, alpha=scale)
            else:
                columns.index_add_(0, rows, low @ up, alpha=scale)
            begin += width


def by_slot(inputs: Any, weights: Any, slots: Any, like: Any) -> Any:
    """Each token times the matrix of its own slot, zero for tokens that have none; None if no token has one.

    `inputs` (tokens, in), `weights` (slots, out, in) or (slots, 1, out, in), `slots` (tokens,) with −1 for none;
    returns (tokens, out) in the number format of `like`.
    """
    asked = set(slots.tolist())
    if slots.shape[0] != inputs.shape[0]:
        # The log-probabilities of a prompt: vLLM passes all its tokens through the output layer, but one slot a request
        # of the batch. With one slot it is clear whose they are; else the output layer goes without its adapter, which
        # none has unless it was trained on `lm_head`. (vLLM's own kernels end the engine here.)
        if len(asked) > 1:
            return None
        slots = slots[:1].expand(inputs.shape[0])
    present = [slot for slot in asked if slot >= 0]
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
