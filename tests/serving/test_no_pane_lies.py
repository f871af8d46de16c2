"""Adapters come and go while the engine answers: every reply is its own model's, says so, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from annotation.errors import UserError
from annotation.types import ChatModel, Message, Provenance, Sampling
from benchmarks import voices
from benchmarks.swaps import Swaps
from serving.adapters import AdapterServer
from serving.client import Client
from serving.engine import Engine
from serving.fitting import Base
from serving.memory import Memory
from studio.services.checked import Checked
from studio.services.serving import ServingService
from studio.settings import Settings
from tests.fixtures.engines import SLOTS
from training import registry
from training.base_model import EMBEDDED
from training.types import Adapter
from training.weights import digest

pytestmark = [pytest.mark.slow, pytest.mark.alone]
SWAPS, VOICES = 40, 5
GREEDY = Sampling(temperature=0, top_p=1, max_tokens=12)


@dataclass(frozen=True)
class Choir:
    """More adapters than the engine has room for, no two of which say the same."""

    server: AdapterServer
    adapters: tuple[Adapter, ...]
    names: tuple[str, ...]


@pytest.fixture(scope="module")
def made(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Adapter, ...]]:
    """The adapters on disk."""
    root = tmp_path_factory.mktemp("voices")
    return root, tuple(voices.make(root, base_model, VOICES))


@pytest.fixture
def choir(
    engine: Engine, client: Client, made: tuple[Path, tuple[Adapter, ...]], base_model: Path, tmp_path: Path
) -> Iterator[Choir]:
    """None of them loaded, before and after."""
    root, adapters = made
    base = Base(name=EMBEDDED, folder=base_model)
    server = AdapterServer(client, root, Memory(tmp_path / "serving.json"), base, SLOTS)
    for name in server.loaded():
        server.unload(name)
    yield Choir(server, adapters, tuple(adapter.name for adapter in adapters))
    for name in server.loaded():
        server.unload(name)


async def said(client: ChatModel, model: str, text: str = "Where is my parcel?", sampling: Sampling = GREEDY) -> str:
    asked = [Message(role="user", text=text)]
    return "".join([chunk.text async for chunk in client.stream(asked, model=model, sampling=sampling)])


def test_no_reply_comes_from_the_wrong_weights_while_adapters_are_swapped(
    engine: Engine, client: Client, choir: Choir
) -> None:
    tally = asyncio.run(Swaps(client, choir.server, choir.adapters, engine.config.model).run(SWAPS, ask_every=3))
    assert tally.wrong == []
    assert tally.unattested == 0
    assert tally.broken == []
    assert tally.swaps == SWAPS
    assert tally.replies > SWAPS // 3
    assert tally.base_replies > 0


def test_an_answer_from_other_weights_than_the_registry_knows_is_refused(
    client: Client, choir: Choir, tmp_path: Path
) -> None:
    mine = choir.adapters[0]
    choir.server.load(mine.name)
    checked = Checked(client, Memory(tmp_path / "uses.json"), registered(mine.weights_sha256))
    assert asyncio.run(said(checked, mine.name))
    tampered = Checked(client, Memory(tmp_path / "uses.json"), registered("0" * 64))
    with pytest.raises(UserError, match=f"{mine.name} is not what answered.*{mine.weights_sha256[:12]}.*000000000000"):
        asyncio.run(said(tampered, mine.name))


def test_the_studio_holds_each_answer_against_the_weights_that_lie_here(
    engine: Engine, base_model: Path, tmp_path: Path
) -> None:
    """From the settings to the reply: what the engine read is what the studio reads, and no other passes."""
    (tmp_path / "engine").symlink_to(engine.log.parent)
    serving = ServingService(Settings(home=tmp_path, cache=tmp_path / "cache", base_model=str(base_model)))
    serving.adopt()
    assert asyncio.run(said(serving.model(), "base"))
    assert serving.identify("base").base_sha256 == digest(base_model)
    (note,) = (tmp_path / "cache" / "hashes").iterdir()
    note.write_text(note.read_text().replace(digest(base_model), "0" * 64))
    other = ServingService(Settings(home=tmp_path, cache=tmp_path / "cache", base_model=str(base_model)))
    other.adopt()
    with pytest.raises(UserError, match="The engine answers from a base model with the hash"):
        asyncio.run(said(other.model(), "base"))


def registered(weights_sha256: str) -> Callable[[str], Provenance]:
    """A registry that knows one hash."""
    return lambda name: Provenance(model=EMBEDDED, adapter=name, weights_sha256=weights_sha256)


def test_a_reply_under_way_outlives_its_adapter(client: Client, choir: Choir) -> None:
    """Its adapter is unloaded, and every slot is taken by another, before it has ended."""
    mine, *others = choir.names
    long = Sampling(temperature=0, top_p=1, max_tokens=24)
    choir.server.load(mine)
    alone = asyncio.run(said(client, mine, sampling=long))

    async def under_way() -> tuple[str, bool]:
        text, left = "", False
        asked = [Message(role="user", text="Where is my parcel?")]
        async for chunk in client.stream(asked, model=mine, sampling=long):
            text += chunk.text
            if chunk.text and not left:
                left = True
                choir.server.unload(mine)
                for name in others[:SLOTS]:
                    choir.server.load(name)
        return text, left

    assert asyncio.run(under_way()) == (alone, True)
    assert mine not in choir.server.loaded()


@pytest.mark.parametrize("fault", ["deleted", "cut short"])
def test_an_adapter_whose_file_is_gone_speaks_on_while_it_is_loaded(
    client: Client, choir: Choir, fault: str, tmp_path: Path
) -> None:
    """More others come and go than the engine's memory holds; vLLM alone would look for the file, and end."""
    mine, *others = choir.names
    choir.server.load(mine)
    before = asyncio.run(said(client, mine))
    weights = choir.adapters[0].path / registry.WEIGHTS
    aside = tmp_path / "aside"
    weights.rename(aside)
    try:
        if fault == "cut short":
            weights.write_bytes(aside.read_bytes()[:1000])
        for name in others:
            choir.server.load(name)
            choir.server.unload(name)
        assert asyncio.run(said(client, mine)) == before
        choir.server.unload(mine)
        with pytest.raises(UserError, match=f"The weights of {mine} are missing or damaged"):
            choir.server.load(mine)
        assert asyncio.run(said(client, "base"))
    finally:
        aside.replace(weights)
    choir.server.load(mine)
    assert asyncio.run(said(client, mine)) == before
