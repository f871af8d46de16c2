"""From 'training finished' to the first token of the tuned model, with no restart in between."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from annotation.types import Message, Sampling
from benchmarks.project import demo, start_run, wait_for_run
from benchmarks.row import Row, within

LIMIT = 5.0
STEPS = 5
ENGINE_SECONDS = 300.0


def measure(folder: Path) -> list[Row]:
    """The engine's start, the hot load as the studio does it, and the first token."""
    services, version = demo(folder / "first-token")
    began = time.perf_counter()
    services.serving.start()
    while not services.serving.view().ready:
        if time.perf_counter() - began > ENGINE_SECONDS:
            raise RuntimeError(services.serving.view().detail)
        time.sleep(0.1)
    started = time.perf_counter() - began
    run_id = start_run(services, version, "bench", STEPS)
    wait_for_run(services, run_id)
    finished = time.perf_counter()
    adapter = services.training.view(run_id).state.adapter or ""
    while adapter not in {name for _, name in services.serving.choices()}:
        time.sleep(0.02)
    loaded = time.perf_counter() - finished
    asyncio.run(_first_token(services.serving.model(), adapter))
    first = time.perf_counter() - finished
    services.close(stop_engine=True)
    return [
        within("engine start to ready", started, 120.0),
        within("training finished to adapter loaded", loaded, LIMIT),
        within("training finished to first tuned token", first, LIMIT),
    ]


async def _first_token(model: object, adapter: str) -> None:
    prompt = [Message(role="user", text="Where is my parcel?")]
    stream = model.stream(prompt, model=adapter, sampling=Sampling(temperature=0))  # type: ignore[attr-defined]
    async for chunk in stream:
        if chunk.text:
            return
