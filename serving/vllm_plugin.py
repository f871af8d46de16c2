"""A vLLM plugin. Everywhere, the weights that are loaded are noted. On the CPU, a request without an adapter gets none
(`serving.vllm_lora`), and top-p is quick (`serving.vllm_top_p`).

vLLM's CPU kernels pick each token's adapter by its index, and a token of the base model has index −1, which in PyTorch
is the last slot: in a batch that mixes both, the base is answered in an adapter's voice. Here every adapter speaks only
for the tokens that are its own. It is faster too: whose tokens stand where is worked out once a step, and each adapter
multiplies its own, where vLLM copies the adapter's weights for every token of every layer, also for those of the base.
GPU kernels pass over −1 and are left alone. Upstream: vllm-project/vllm #48421, #49656; with those released, this file
can go, and `serving.vllm_lora` with it.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from serving import attestation, vllm_lora, vllm_top_p
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
    from vllm.lora import model_manager
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu
    from vllm.v1.sample.ops import topk_topp_sampler

    for module in (lora_ops, punica_cpu):
        module.bgmv_shrink = vllm_lora.shrink
        module.bgmv_expand = vllm_lora.expand
        module.bgmv_expand_slice = vllm_lora.expand_slice
    wrapper, manager = punica_cpu.PunicaWrapperCPU, model_manager.LoRAModelManager
    if wrapper.add_lora_linear is not vllm_lora.add_lora_linear:
        manager.activate_adapter = vllm_lora.forgetting_own(manager.activate_adapter)
        wrapper.update_metadata = vllm_lora.noting_rows(wrapper.update_metadata)
        wrapper.add_lora_linear = vllm_lora.add_lora_linear
        wrapper.add_lora_logits = vllm_lora.add_lora_logits
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
