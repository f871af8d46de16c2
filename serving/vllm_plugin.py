"""A vLLM plugin. Everywhere, the weights that are loaded are noted. On the CPU, a request without an adapter gets none.

vLLM's CPU kernels pick each token's adapter by its index, and a token of the base model has index −1, which in PyTorch
is the last slot: in a batch that mixes both, the base is answered in an adapter's voice. Here every adapter speaks only
for the tokens that are its own. It is faster too: one matrix product an adapter, where vLLM copies the adapter's
weights for every token, also for those of the base. GPU kernels pass over −1 and are left alone. Upstream:
vllm-project/vllm #48421, #49656; with those released, this file can go.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving import attestation
from training.weights import digest


def register() -> None:
    """Called by vLLM in each of its processes (entry point `vllm.general_plugins`); a second call changes nothing."""
    from vllm.platforms import current_platform

    _note_what_is_read()
    if not current_platform.is_cpu():
        return
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    for module in (lora_ops, punica_cpu):
        module.bgmv_shrink = shrink
        module.bgmv_expand = expand
        module.bgmv_expand_slice = expand_slice


def _note_what_is_read() -> None:
    """Have weights noted (`serving.attestation`) as they are loaded, by the process that loads them."""
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
        return loaded

    LoRAModel.from_local_checkpoint = classmethod(from_local_checkpoint)
    BaseModelLoader.load_model = load
    LoRAModel._noted = True


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
