"""Two studios on one vLLM that neither of them started, with room for fewer adapters than they have: every answer is
from the right weights. And a vLLM without our plugin, where the base stays the base all the same.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from annotation.types import Chunk, Message, Sampling, Weights
from benchmarks import voices
from serving.client import Client
from serving.daemon import Daemon
from serving.engine import Engine, argv, environment, preloads
from serving.leaving import UNLOAD
from studio.services.serving import ServingService
from studio.settings import Settings
from tests.fixtures.engines import START_LIMIT_SECONDS, engine_config
from tests.fixtures.studio import wait_until
from training.hardware import detect
from training.types import Adapter
from training.weights import digest

pytestmark = [pytest.mark.slow, pytest.mark.alone]
GREEDY = Sampling(temperature=0, top_p=1, max_tokens=10)
PROMPTS = ("Where is my parcel?", "Name three colours.", "Can I pay with a gift card?")
Said = dict[str, list[list[Chunk]]]


@pytest.fixture(scope="module")
def made(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Adapter]:
    """Four adapters, no two of which say the same."""
    return voices.make(tmp_path_factory.mktemp("voices"), base_model, 4)


@contextmanager
def attached(home: Path, url: str, base_model: Path, adapters: Sequence[Adapter]) -> Iterator[ServingService]:
    """A studio of its own project with these adapters, on the engine at `url`."""
    for adapter in adapters:
        shutil.copytree(adapter.path, home / "adapters" / adapter.name)
    settings = Settings(home=home, base_model=str(base_model), engine_url=url, max_adapters=2, person="owner")
    opened = ServingService(settings)
    opened.start()
    try:
        wait_until(lambda: opened.view().ready and len(opened.choices()) == 1 + len(adapters), 120, "a studio")
        yield opened
    finally:
        opened.close(stop_engine=False)


@contextmanager
def two(tmp_path: Path, url: str, base_model: Path, made: Sequence[Adapter]) -> Iterator[list[ServingService]]:
    """Two studios, with two of the adapters each."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(attached(tmp_path / name, url, base_model, mine))
            for name, mine in (("one", made[:2]), ("two", made[2:]))
        ]
    for name in Client(url).adapters():
        Client(url).post(UNLOAD, {"lora_name": name})


def ask(studio: ServingService, models: Sequence[str], prompts: Sequence[str] = PROMPTS) -> Said:
    """What each of `models` says to each prompt, all asked at the same moment. Raises UserError."""

    async def one(model: str, prompt: str) -> list[Chunk]:
        asked = [Message(role="user", text=prompt)]
        return [chunk async for chunk in studio.model().stream(asked, model=model, sampling=GREEDY)]

    async def everything() -> list[list[Chunk]]:
        return await asyncio.gather(*(one(model, prompt) for model in models for prompt in prompts))

    said = asyncio.run(everything())
    return {model: said[place * len(prompts) :][: len(prompts)] for place, model in enumerate(models)}


def texts(said: Said) -> dict[str, list[str]]:
    return {model: ["".join(chunk.text for chunk in reply) for reply in replies] for model, replies in said.items()}


def names(adapters: Sequence[Adapter]) -> list[str]:
    return [adapter.name for adapter in adapters]


def test_two_studios_on_one_engine_push_each_other_out_and_every_answer_is_right(
    engine: Engine, base_model: Path, made: list[Adapter], tmp_path: Path
) -> None:
    base = digest(base_model)
    right = {adapter.name: Weights(base_sha256=base, adapter_sha256=adapter.weights_sha256) for adapter in made}
    right["base"] = Weights(base_sha256=base)
    with two(tmp_path, engine.url, base_model, made) as studios:
        one, other = made[:2], made[2:]
        alone = {name: texts(ask(studio, [name]))[name] for studio in studios[:1] for name in ("base", *names(one))}
        alone |= {name: texts(ask(studios[1], [name]))[name] for name in names(other)}
        assert len({tuple(said) for said in alone.values()}) == 5, "all five say something of their own"

        def turns(studio: ServingService, mine: Sequence[str]) -> list[Said]:
            return [ask(studio, (*mine, "base")) for _ in range(4)]

        def steal() -> None:
            for _ in range(5):  # somebody else still, by hand
                for name in list(Client(engine.url).adapters())[:1]:
                    Client(engine.url).post(UNLOAD, {"lora_name": name})

        with ThreadPoolExecutor(3) as pool:
            both = [pool.submit(turns, studio, names(mine)) for studio, mine in zip(studios, (one, other), strict=True)]
            pool.submit(steal)
            rounds = [said for turn in both for said in turn.result()]
        for said in rounds:
            for model, heard in texts(said).items():
                assert heard == alone[model]
            for model, replies in said.items():
                assert {chunk.weights for reply in replies for chunk in reply} == {right[model]}
        assert len(Client(engine.url).adapters()) <= 4


@pytest.fixture(scope="module")
def bare(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM as anybody may have started it: none of our plugin, none of our middleware."""
    config, hardware = engine_config(base_model), detect()
    daemon = Daemon(tmp_path_factory.mktemp("bare"), "engine")
    port = daemon.free_port()
    command = argv(config, hardware, port)
    while "--middleware" in command:
        place = command.index("--middleware")
        del command[place : place + 2]
    variables = os.environ | environment(config, hardware, preloads()) | {"VLLM_PLUGINS": ""}
    with daemon.alone():
        daemon.start(command, variables, port, "")
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(Client(url).healthy, START_LIMIT_SECONDS, f"a bare vLLM; {daemon.log_since_start()[-2000:]}")
        yield url
    finally:
        daemon.stop()


def test_without_our_plugin_the_base_is_asked_through_a_stand_in_and_stays_itself(
    bare: str, base_model: Path, made: list[Adapter], tmp_path: Path
) -> None:
    def raw(count: int) -> list[str]:
        """The base itself, each prompt `count` times, as somebody without a studio would ask it."""

        async def one(prompt: str) -> str:
            asked = [Message(role="user", text=prompt)]
            return "".join([chunk.text async for chunk in Client(bare).stream(asked, model="base", sampling=GREEDY)])

        async def everything() -> list[str]:
            return await asyncio.gather(*(one(prompt) for prompt in PROMPTS * count))

        return asyncio.run(everything())

    alone = raw(1)
    with two(tmp_path, bare, base_model, made) as studios:
        assert "asked through an adapter that changes nothing" in studios[0].view().detail
        assert texts(ask(studios[0], ["base"]))["base"] == alone
        quiet = [texts(ask(studio, names(mine))) for studio, mine in zip(studios, (made[:2], made[2:]), strict=True)]

        def mixed() -> bool:
            """Whether the base says something else to those who ask it plainly, while both studios ask too."""
            with ThreadPoolExecutor(3) as pool:
                busy = [
                    pool.submit(ask, studio, (*names(mine), "base"))
                    for studio, mine in zip(studios, (made[:2], made[2:]), strict=True)
                ]
                plain = pool.submit(raw, 3)
                heard = [texts(said.result()) for said in busy]
            for mine, said in zip(quiet, heard, strict=True):
                assert said == mine | {"base": alone}
            return any(said not in alone for said in plain.result())

        wait_until(mixed, 180, "what happens to those who ask it plainly: they need not have been in one step with us")
