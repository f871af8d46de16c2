"""`python -m benchmarks.account BASE ADAPTER`: the trainer's account of an adapter, as a run writes it down, in JSON.

torch and peft load here and not in the measures' own process.
"""

from __future__ import annotations

import sys

from peft import PeftModel
from pydantic import RootModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.hardware import detect, dtype_for
from training.parity import score
from training.types import Scored


class Account(RootModel[tuple[Scored, ...]]):
    """What is printed."""


def account(base: str, adapter: str) -> Account:
    """In the number format that a run here would have trained in."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype_for(detect()))
    return Account(score(PeftModel.from_pretrained(model, adapter), AutoTokenizer.from_pretrained(base)))


if __name__ == "__main__":
    sys.stdout.write(account(*sys.argv[1:]).model_dump_json())
