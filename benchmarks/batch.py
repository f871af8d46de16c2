"""An experiment's replies against vLLM's own offline figure: 500 prompts and two sides, drawn as the studio does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from annotation.experiments import Design, Draw, Pair
from annotation.types import Sampling
from benchmarks import served
from benchmarks.row import Row
from benchmarks.served import Lasting, Served
from serving.engine import EngineConfig, environment, preloads
from studio.services.drawing import ExperimentRunner
from studio.services.experiments import ExperimentForm, SideForm
from training.hardware import detect, dtype_for

PROMPTS = 500
TOKENS = 32
AT_LEAST = 0.9


def measure(folder: Path) -> list[Row]:
    """Tokens a second, every reply `TOKENS` long: ours with the store's writes, then the same requests offline."""
    with served.studio(folder) as studio:
        design, tokens, seconds = drawn(studio, PROMPTS)
        ours, base = tokens / seconds, studio.base
        request = {"engine": _engine(base), "requests": _requests(design, studio)}
    served.stop(folder)  # the peer has the machine to itself, as ours had
    theirs = offline(folder, request)
    what = f"{PROMPTS} prompts × 2 sides, {TOKENS} tokens each"
    measured = f"{ours:.0f} tokens/s ({seconds:.0f} s)"
    return [Row(what, measured, f"vLLM offline {theirs:.0f} tokens/s", ours / theirs, ours / theirs >= AT_LEAST)]


def drawn(studio: Served, prompts: int) -> tuple[Design, int, float]:
    """An experiment is started, and its last pair is on disk: its design, the tokens that were drawn, and seconds."""
    services = studio.services
    form = ExperimentForm(
        name=f"bench of {prompts}",
        sides=(SideForm(model="base"), SideForm(model=studio.adapter.name)),
        prompts="\n".join(served.requests(prompts)),
        longest=TOKENS,
        controls=False,
    )
    experiment = services.experiments.start(form)
    serving = services.serving  # as `open_services` wires it, only that replies go on to their full length
    runner = ExperimentRunner(
        services.store, lambda: Lasting(serving.model(pieces=False)), at_once=serving.unwatched_at_once
    )
    began = time.monotonic()
    runner.start()
    try:
        while len(services.store.experiments.made(experiment.id)) < prompts:
            if runner.view().trouble:
                raise RuntimeError(runner.view().trouble)
            time.sleep(0.1)
        seconds = time.monotonic() - began
    finally:
        runner.close()
    pairs = services.store.experiments.pairs(experiment.id)
    return experiment.design, sum(map(_tokens, pairs)), seconds


def _tokens(pair: Pair) -> int:
    return (pair.left.completion_tokens or 0) + (pair.right.completion_tokens or 0)


def _engine(base: Path) -> dict[str, Any]:
    """What ours was started with, as `vllm.LLM` takes it."""
    config = EngineConfig(model=base)
    return {
        "model": str(base),
        "dtype": dtype_for(detect()),
        "enable_lora": True,
        "max_loras": config.max_adapters,
        "max_lora_rank": config.max_rank,
        "max_model_len": config.context,
        "generation_config": "vllm",
    }


def _requests(design: Design, studio: Served) -> list[dict[str, Any]]:
    found = []
    for prompt in range(len(design.prompts)):
        for side in range(len(design.sides)):
            draw = Draw(prompt=prompt, side=side)
            found.append(
                {
                    "messages": [message.as_chat() for message in draw.messages(design)],
                    "sampling": as_vllm_takes_it(draw.sampling(design)),
                    "adapter": str(studio.adapter.path.resolve()) if design.sides[side].model != "base" else None,
                }
            )
    return found


def as_vllm_takes_it(sampling: Sampling) -> dict[str, Any]:
    """The keywords of `vllm.SamplingParams`, for a reply of full length."""
    return sampling.model_dump(exclude_none=True) | {"ignore_eos": True}


def offline(folder: Path, request: dict[str, Any]) -> float:
    """Tokens a second of `benchmarks.plain_vllm`, with the variables and libraries that ours gets."""
    asked, said = folder / "offline.json", folder / "offline-said.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    variables = environment(EngineConfig(model=folder), detect(), preloads())
    command = [sys.executable, "-m", "benchmarks.plain_vllm", str(asked), str(said)]
    subprocess.run(command, env=os.environ | variables, stdout=subprocess.DEVNULL, check=True)
    found = json.loads(said.read_text(encoding="utf-8"))
    return float(found["tokens"] / found["seconds"])
