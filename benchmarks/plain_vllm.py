"""The peer: vLLM's own offline figure, what one would write to answer many prompts with `vllm.LLM` alone."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest


def main(path: str, into: str) -> None:
    """Answer the file's requests, all handed over at once, and write tokens and seconds to another file, as JSON: vLLM
    prints words of its own.
    """
    given = json.loads(Path(path).read_text(encoding="utf-8"))
    llm = LLM(**given["engine"])
    requests: list[dict[str, Any]] = given["requests"]
    messages = [one["messages"] for one in requests]
    sampling = [SamplingParams(**one["sampling"]) for one in requests]
    adapters = [LoRARequest("adapter", 1, one["adapter"]) if one["adapter"] else None for one in requests]
    llm.chat(messages[:2], sampling[:2], lora_request=adapters[:2], use_tqdm=False)  # it is in, as in ours
    began = time.monotonic()
    said = llm.chat(messages, sampling, lora_request=adapters, use_tqdm=False)
    seconds = time.monotonic() - began
    tokens = sum(len(one.outputs[0].token_ids) for one in said)
    Path(into).write_text(json.dumps({"tokens": tokens, "seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":  # vLLM starts its workers anew from this file
    main(*sys.argv[1:])
