"""What the plugin changes in vLLM on the CPU besides LoRA (`test_vllm_lora`) and top-p (`test_vllm_top_p`)."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from serving.vllm_plugin import keeping_seeds


@pytest.mark.parametrize("fails", [False, True])
def test_a_request_read_in_part_draws_nothing_from_its_seed(fails: bool) -> None:
    seeds = {0: "first", 2: "third"}
    runner = SimpleNamespace(
        input_batch=SimpleNamespace(generators=dict(seeds), num_reqs=3),
        discard_request_mask=SimpleNamespace(np=np.array([False, True, True, True])),
    )

    def sample_tokens(self: SimpleNamespace, grammar: str) -> str:
        assert self.input_batch.generators == {0: "first"}
        if fails:
            raise ValueError
        return grammar

    with pytest.raises(ValueError) if fails else nullcontext():
        assert keeping_seeds(sample_tokens)(runner, "none") == "none"
    assert runner.input_batch.generators == seeds
