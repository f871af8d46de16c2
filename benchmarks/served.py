"""A studio with a real engine and one adapter in it, shared by the measures that ask it; started once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from annotation.types import ChatModel, Chunk, Message, Sampling
from benchmarks import voices
from serving.engine import Engine, EngineConfig
from studio.demo_project import lines, seed
from studio.services import Services, open_services
from studio.settings import Settings
from training import registry
from training.hardware import detect
from training.types import Adapter

READY_SECONDS = 300.0
HOME = "served"


class Fixed(Sampling):
    """As the page draws replies, but each exactly `max_tokens` long: what is compared must be equally much."""

    ignore_eos: bool = True


class Lasting:
    """A model whose replies are all `Fixed`, for the services that make their own sampling."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        return self._model.stream(messages, model=model, sampling=Fixed(**sampling.model_dump()))


@dataclass(frozen=True)
class Served:
    """`services` of a demo project, its engine ready and `adapter` loaded; `base` is the model's folder."""

    services: Services
    adapter: Adapter
    base: Path

    @property
    def url(self) -> str:
        """The engine's own address."""
        return Engine(EngineConfig(model=self.base), self.services.settings.engine_home, detect()).url


@contextmanager
def studio(folder: Path) -> Iterator[Served]:
    """Started, or found again from the measure before; the engine goes on until `stop`."""
    settings = Settings(home=folder / HOME)
    services = open_services(settings)
    try:
        seed(services.store)
        base = services.serving.prepare_base()
        made = registry.all_adapters(settings.adapters) or [voices.trained(settings.adapters, base)]
        services.serving.start()
        _wait(services, made[0].name)
        yield Served(services, made[0], base)
    finally:
        services.close()


def _wait(services: Services, adapter: str) -> None:
    """Until it is loaded and was seen to be served as it was trained, so that nothing is measured meanwhile."""
    end = time.monotonic() + READY_SECONDS
    while not any(view.name == adapter and view.loaded and view.parity for view in services.serving.adapters()):
        if time.monotonic() > end:
            raise RuntimeError(services.serving.view().detail)
        time.sleep(0.1)
    services.serving.must_be_sound(adapter)


def stop(folder: Path) -> None:
    """End the engine, if one was started."""
    home = folder / HOME / "engine"
    if home.is_dir():
        Engine(EngineConfig(model=folder), home, detect()).stop()


def requests(number: int) -> list[str]:
    """So many different messages, as customers of the demo project wrote them."""
    spoken = (message for line in lines("conversations.jsonl") for message in line["messages"])
    texts = list(dict.fromkeys(message["text"] for message in spoken if message["role"] == "user"))
    return [f"{texts[place % len(texts)]} My customer number is {place + 1:04}." for place in range(number)]
