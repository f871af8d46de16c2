"""Adapters swapped in and out of a full engine while it answers: whose weights gave each reply, and what broke."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from annotation.errors import UserError
from annotation.types import Message, Sampling, Weights
from benchmarks import voices
from benchmarks.row import Row, show, within
from serving.adapters import AdapterServer
from serving.client import Client
from serving.engine import BASE, Engine, EngineConfig
from serving.fitting import Base
from serving.memory import Memory
from studio.settings import Settings
from training.base_model import EMBEDDED, prepare
from training.hardware import detect
from training.types import Adapter
from training.weights import digest

SWAPS, VOICES, SLOTS = 1000, 8, 2
AT_ONCE = 4
"""Replies under way beside the base's."""
LOAD_LIMIT = 5.0
READY_SECONDS = 300.0
GREEDY = Sampling(temperature=0, top_p=1, max_tokens=5)
PROMPTS = ("Where is my parcel?", "Name three colours.")
Replies = dict[tuple[str, str], str]
"""By (model, prompt)."""


@dataclass
class Tally:
    """What was seen. A reply is `wrong` if it is not to the last byte what its model says when nothing else goes on."""

    swaps: int = 0
    replies: int = 0
    base_replies: int = 0
    wrong: list[str] = field(default_factory=list)
    unattested: int = 0
    """Replies for which the engine told other weights than the registry knows, or none."""
    broken: list[str] = field(default_factory=list)
    """Replies that began and did not come to their end."""
    refused: int = 0
    """Requests that came after their adapter had left, and were told so."""
    outlived: int = 0
    """Replies that ended after their adapter had been taken out."""
    load_seconds: list[float] = field(default_factory=list)


class Swaps:
    """Swaps adapters in `server` round and round, and asks all along."""

    def __init__(self, client: Client, server: AdapterServer, adapters: Sequence[Adapter], base: Path) -> None:
        self._client = client
        self._server = server
        self._hashes: dict[str, str | None] = {adapter.name: adapter.weights_sha256 for adapter in adapters}
        self._names = [adapter.name for adapter in adapters]
        self._in: list[str] = []
        self._own: Replies = {}
        self._base = digest(base)
        self.tally = Tally()

    async def run(self, swaps: int, ask_every: int = 1) -> Tally:
        """What each says alone, then `swaps` loads into a full engine under load; every so many is asked at once."""
        await self._listen()
        base = asyncio.create_task(self._keep_asking_the_base())
        replies = set[asyncio.Task[None]]()
        order = itertools.cycle(self._names)
        try:
            while self.tally.swaps < swaps:
                name = await self._swap(next(name for name in order if name not in self._in))
                if self.tally.swaps % ask_every:
                    continue
                prompt = PROMPTS[self.tally.swaps // len(self._names) % len(PROMPTS)]
                replies.add(asyncio.create_task(self._ask(name, prompt)))
                if len(replies) >= AT_ONCE:
                    ended, replies = await asyncio.wait(replies, return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.gather(*ended)
        finally:
            await asyncio.gather(*replies)
            base.cancel()
        return self.tally

    async def _listen(self) -> None:
        for name in (BASE, *self._names):
            if name != BASE:
                await asyncio.to_thread(self._server.load, name)
            heard = await asyncio.gather(*(self._reply(name, prompt) for prompt in PROMPTS))
            self._own |= {(name, prompt): said for prompt, (said, _) in zip(PROMPTS, heard, strict=True)}
        for prompt in PROMPTS:
            if len({self._own[name, prompt] for name in (BASE, *self._names)}) <= len(self._names):
                raise RuntimeError(f"two of them say the same to {prompt!r}: nothing could be told")
        self._in = self._server.loaded()

    async def _swap(self, name: str) -> str:
        began = time.monotonic()
        await asyncio.to_thread(self._server.load, name)
        self.tally.load_seconds.append(time.monotonic() - began)
        self._in = await asyncio.to_thread(self._server.loaded)
        self.tally.swaps += 1
        return name

    async def _keep_asking_the_base(self) -> None:
        for prompt in itertools.cycle(PROMPTS):
            await self._ask(BASE, prompt)

    async def _ask(self, model: str, prompt: str) -> None:
        tally = self.tally
        try:
            said, weights = await self._reply(model, prompt)
        except UserError as error:
            if "does not hold" in str(error):
                tally.refused += 1
            else:
                tally.broken.append(f"{model}: {error}")
            return
        tally.replies += 1
        tally.base_replies += model == BASE
        tally.outlived += model != BASE and model not in self._in
        if said != self._own[model, prompt]:
            tally.wrong.append(f"{model} to {prompt!r}: {said!r}, alone {self._own[model, prompt]!r}")
        if weights != Weights(base_sha256=self._base, adapter_sha256=self._hashes.get(model)):
            tally.unattested += 1

    async def _reply(self, model: str, prompt: str) -> tuple[str, Weights | None]:
        text, weights = "", None
        asked = [Message(role="user", text=prompt)]
        async for chunk in self._client.stream(asked, model=model, sampling=GREEDY):
            text, weights = text + chunk.text, chunk.weights
        return text, weights


def measure(folder: Path) -> list[Row]:
    """1,000 swaps under load, on an engine of their own."""
    home = folder / "swaps"
    model = prepare(EMBEDDED, Settings(home=home).cache)
    adapters = voices.make(home / "adapters", model, VOICES)
    engine = Engine(EngineConfig(model=model, max_adapters=SLOTS, max_rank=voices.RANK), home / "engine", detect())
    try:
        engine.start()
        end = time.monotonic() + READY_SECONDS
        while engine.status().state != "ready":
            if time.monotonic() > end:
                raise RuntimeError(engine.status().message)
            time.sleep(0.2)
        client = Client(engine.url)
        base = Base(name=EMBEDDED, folder=model, max_rank=voices.RANK)
        server = AdapterServer(client, home / "adapters", Memory(home / "serving.json"), base, SLOTS)
        return rows(asyncio.run(Swaps(client, server, adapters, model).run(SWAPS)))
    finally:
        engine.stop()


def rows(tally: Tally) -> list[Row]:
    """None wrong, none unattested, none broken; and how long a load takes under load."""
    replies = f"{tally.replies:,} replies, {tally.swaps:,} swaps"
    return [
        _none(f"replies from the wrong weights ({replies})", len(tally.wrong)),
        _none("replies whose weights the engine did not confirm", tally.unattested),
        _none(f"replies broken off ({tally.outlived:,} outlived their adapter)", len(tally.broken)),
        within("adapter load under load, median", statistics.median(tally.load_seconds), LOAD_LIMIT),
        within(f"the slowest (of all {show(sum(tally.load_seconds))})", max(tally.load_seconds), LOAD_LIMIT),
    ]


def _none(what: str, found: int) -> Row:
    return Row(what, f"{found:,}", "none", float(found), found == 0)
