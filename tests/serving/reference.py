"""transformers and peft as the reference, in a process of their own: `python -m tests.serving.reference make …`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def make(base: str, folder: str, seed: int) -> None:
    """A LoRA of random matrices for `base`: every reply comes out different from the base's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(r=8, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    tuned = get_peft_model(model, settings)
    with torch.no_grad():
        for name, matrix in tuned.named_parameters():
            if "lora_B" in name:
                matrix.normal_(std=0.1)
    tuned.save_pretrained(folder)


def score(base: str, adapter: str, conversations: list[list[dict[str, str]]]) -> list[dict[str, Any]]:
    """For each conversation the prompt's and all token ids, and the mean log-probability (nats) a reply token."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.tokens import IGNORED, encode

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    rows = [encode(tokenizer, conversation, 1024) for conversation in conversations]

    def means(scored: Any) -> list[float]:
        found = []
        for row in rows:
            ids = torch.tensor([row.input_ids])
            with torch.no_grad():
                likely = scored(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            found.append(float(likely[torch.tensor(row.labels[1:]) != IGNORED].mean()))
        return found

    before = means(model)  # first: wrapping changes the model in place
    after = means(PeftModel.from_pretrained(model, adapter).eval())
    return [
        {"ids": row.input_ids, "learned": row.learned, "base": one, "tuned": two}
        for row, one, two in zip(rows, before, after, strict=True)
    ]


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        asked = json.loads(Path(sys.argv[4]).read_text(encoding="utf-8"))
        sys.stdout.write(json.dumps(score(sys.argv[2], sys.argv[3], asked)))
