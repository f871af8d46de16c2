"""The peer: what one would write with trl alone, with the quick preset's settings, in float32."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):  # type: ignore[misc]
    """Time from the first step's beginning to the last one's end, and the tokens trl counted."""

    began = ended = tokens = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "num_tokens" in logs:
            self.tokens, self.ended = logs["num_tokens"], time.monotonic()


def main(path: str, base: str, output: str, steps: int) -> None:
    """Train and print the tokens a second as JSON."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 -- as anyone would
        lines = [json.loads(line)["messages"] for line in file]
    rows = Dataset.from_list([{"prompt": messages[:-1], "completion": messages[-1:]} for messages in lines])
    clock = Clock()
    SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=SFTConfig(
            output_dir=output,
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=1,
            save_steps=10,
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    ).train()
    print(json.dumps({"tokens_per_second": clock.tokens / (clock.ended - clock.began)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
