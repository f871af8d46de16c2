"""vLLM itself: the base stays the base, what is served is what was trained, and a killed engine comes back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from annotation.errors import UserError
from annotation.types import Chunk, Message, Sampling, Weights
from serving.adapters import AdapterServer
from serving.client import Client
from serving.engine import Attached, Engine, Watcher
from serving.fitting import Base
from serving.guarding import TAKEN
from serving.memory import Memory
from serving.metrics import Figures, figures, rates
from tests.fixtures.engines import reference
from training.hardware import detect
from training.weights import ADAPTER_FILE, digest

pytestmark = [pytest.mark.slow, pytest.mark.alone]
GREEDY = Sampling(temperature=0, top_p=1, max_tokens=24)
PROMPTS = (
    "Where is my parcel?",
    "I would like to return a lamp that I bought last week.",
    "Name three colours.",
    "Can I pay with a gift card?",
    "Write a short greeting for a new customer.",
    "My order arrived broken. What now?",
)
CONVERSATIONS = [
    [
        {"role": "system", "content": "You answer for a small shop."},
        {"role": "user", "content": "Where is my parcel? It’s been 9 days…"},
        {"role": "assistant", "content": "I'm sorry for the wait! Could you give me your order number?"},
    ],
    [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello! How can I help you today?"},
        {"role": "user", "content": "Größe M, bitte. Do you have it in   blue?\n\nThanks"},
        {"role": "assistant", "content": "We do: the blue one is in stock in size M. Shall I put one aside?"},
    ],
    [
        {"role": "user", "content": "Can I return it without the receipt?"},
        {"role": "assistant", "content": "Yes. Bring the card you paid with, and we will find the purchase."},
    ],
]


@pytest.fixture
def serving(engine: Engine, random_adapters: Path, tmp_path: Path) -> AdapterServer:
    """The engine's adapters, none loaded."""
    model = engine.config.model
    base = Base(name=model.name, folder=model)
    server = AdapterServer(
        Client(engine.url), random_adapters, Memory(tmp_path / "serving.json"), base, engine.config.max_adapters
    )
    for name in server.loaded():
        server.unload(name)
    return server


def replies(url: str, *models: str) -> dict[str, list[str]]:
    """The greedy replies of each model to all prompts, all asked at the same moment."""

    async def one(model: str, prompt: str) -> str:
        asked = [Message(role="user", text=prompt)]
        return "".join([chunk.text async for chunk in Client(url).stream(asked, model=model, sampling=GREEDY)])

    async def ask() -> list[str]:
        return await asyncio.gather(*(one(model, prompt) for model in models for prompt in PROMPTS))

    said = asyncio.run(ask())
    count = len(PROMPTS)
    return {model: said[count * place : count * (place + 1)] for place, model in enumerate(models)}


def test_the_base_stays_byte_identical_while_adapters_are_loaded_and_busy(
    engine: Engine, serving: AdapterServer
) -> None:
    alone = replies(engine.url, "base")["base"]
    serving.load("one-0")
    serving.load("two-0")
    assert replies(engine.url, "base")["base"] == alone
    tuned = replies(engine.url, "one-0", "two-0")  # from here on every slot holds an adapter's weights
    assert replies(engine.url, "base")["base"] == alone
    together = replies(engine.url, "base", "one-0", "two-0")
    assert together["base"] == alone
    assert all(mine != base for mine, base in zip(together["one-0"], alone, strict=True))
    assert together["one-0"] == tuned["one-0"]
    assert together["two-0"] == tuned["two-0"]


def test_every_answer_says_which_weights_the_engine_read(
    engine: Engine, client: Client, serving: AdapterServer, random_adapters: Path, tmp_path: Path
) -> None:
    async def said(model: str) -> set[Weights | None]:
        asked = [Message(role="user", text="Hello")]
        return {chunk.weights async for chunk in client.stream(asked, model=model, sampling=GREEDY)}

    base = digest(engine.config.model)
    assert asyncio.run(said("base")) == {Weights(base_sha256=base)}
    copy = tmp_path / "copy"
    shutil.copytree(random_adapters / "one-0", copy)
    read = digest(copy)
    client.post("/v1/load_lora_adapter", {"lora_name": "copy", "lora_path": str(copy)})
    (copy / ADAPTER_FILE).write_bytes(b"changed after it was loaded")
    assert asyncio.run(said("copy")) == {Weights(base_sha256=base, adapter_sha256=read)}
    client.post("/v1/unload_lora_adapter", {"lora_name": "copy"})


def test_other_weights_under_a_name_and_path_that_were_used_are_refused(
    client: Client, serving: AdapterServer, random_adapters: Path, tmp_path: Path
) -> None:
    """vLLM's prefix cache goes by name and path, and would answer from both."""
    asked = {"lora_name": "twice", "lora_path": str(tmp_path / "twice")}
    shutil.copytree(random_adapters / "one-0", tmp_path / "twice")
    client.post("/v1/load_lora_adapter", asked)
    client.post("/v1/unload_lora_adapter", {"lora_name": "twice"})
    shutil.copyfile(random_adapters / "two-0" / ADAPTER_FILE, tmp_path / "twice" / ADAPTER_FILE)
    with pytest.raises(UserError, match="are not those that this engine read there before"):
        client.post("/v1/load_lora_adapter", asked)
    assert "twice" not in client.models()
    shutil.copyfile(random_adapters / "one-0" / ADAPTER_FILE, tmp_path / "twice" / ADAPTER_FILE)
    client.post("/v1/load_lora_adapter", asked)
    client.post("/v1/unload_lora_adapter", {"lora_name": "twice"})


def test_what_is_served_is_what_was_trained(
    engine: Engine, serving: AdapterServer, random_adapters: Path, tmp_path: Path
) -> None:
    (tmp_path / "asked.json").write_text(json.dumps(CONVERSATIONS))
    expected: list[dict[str, Any]] = json.loads(
        reference("score", str(engine.config.model), str(random_adapters / "one-0"), str(tmp_path / "asked.json"))
    )
    serving.load("one-0")
    client = Client(engine.url)
    for conversation, row in zip(CONVERSATIONS, expected, strict=True):
        prompt = [Message(role=turn["role"], text=turn["content"]) for turn in conversation[:-1]]  # type: ignore[arg-type]
        assert client.tokenize(prompt, "base") == row["ids"][: -row["learned"]]
        found = {}
        for model in ("base", "one-0"):
            likely = client.log_probabilities([row["ids"]], model)[0][-row["learned"] :]
            found[model] = sum(likely) / len(likely)
        assert found["base"] == pytest.approx(row["base"], abs=1e-3)
        assert found["one-0"] == pytest.approx(row["tuned"], abs=1e-3)
        assert found["one-0"] - found["base"] == pytest.approx(row["tuned"] - row["base"], abs=1e-3)
        assert abs(row["tuned"] - row["base"]) > 0.02  # twenty times the tolerance: an adapter left out would show


def test_an_adapter_moves_the_prompts_and_leaves_the_base_alone(serving: AdapterServer) -> None:
    found = serving.measure("one-0")
    assert found is not None
    assert found > 0.02
    assert serving.measure("one-0") == pytest.approx(found, abs=1e-3)
    assert serving.loaded() == ["one-0"]


def test_the_figures_of_a_live_engine_move_with_what_it_does(engine: Engine, serving: AdapterServer) -> None:
    def now() -> Figures:
        found = figures(str(Client(engine.url).get("/metrics")), time.monotonic())
        assert found is not None
        return found

    serving.load("one-0")
    before = now()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(replies, engine.url, "base", "one-0")
        seen = []
        while not asked.done():
            seen.append(now())
            time.sleep(0.1)
        said = asked.result()
    after = now()
    assert max(one.running for one in seen) > 1
    assert ("one-0",) in {one.adapters_running for one in seen}
    assert max(one.kv_cache for one in seen) > after.kv_cache
    written = rates(before, after)
    assert written is not None
    assert 0 < written.generation * (after.at - before.at) <= len(said) * len(PROMPTS) * GREEDY.max_tokens
    assert written.prompt > 0


def test_load_list_unload_without_a_restart(engine: Engine, serving: AdapterServer) -> None:
    before = engine.status().pid
    serving.load("one-0")
    serving.load("one-0")
    assert serving.loaded() == ["one-0"]
    serving.unload("one-0")
    assert serving.loaded() == []
    with pytest.raises(UserError, match="does not hold 'one-0'"):
        replies(engine.url, "one-0")
    assert engine.status().pid == before


def test_long_prompts_with_seeds_that_come_together_say_what_each_says_alone(engine: Engine) -> None:
    """Together they are longer than what vLLM reads in one step; without our plugin its engine ends there on a CPU."""
    client = Client(engine.url, pieces=False)
    asked = [f"Order {number}. " + "Where is my parcel, please? " * 110 for number in range(5)]

    async def reply(number: int) -> tuple[str, int | None]:
        sampling = Sampling(max_tokens=3, seed=number)
        prompt = [Message(role="user", text=asked[number])]
        (whole,) = [chunk async for chunk in client.stream(prompt, model="base", sampling=sampling)]
        return whole.text, whole.prompt_tokens

    async def together() -> list[tuple[str, int | None]]:
        return await asyncio.gather(*map(reply, range(5)))

    at_once = asyncio.run(together())
    assert min(tokens or 0 for _, tokens in at_once) > 2048 / 3
    assert at_once == [asyncio.run(reply(number)) for number in range(5)]


def test_a_reply_that_comes_whole_is_the_one_that_comes_in_pieces(engine: Engine) -> None:
    async def chunks(client: Client) -> list[Chunk]:
        asked = [Message(role="user", text=PROMPTS[0])]
        return [chunk async for chunk in client.stream(asked, model="base", sampling=GREEDY)]

    pieces, (whole,) = asyncio.run(chunks(Client(engine.url))), asyncio.run(chunks(Client(engine.url, pieces=False)))
    assert len(pieces) > 10
    assert whole.model_copy(update={"text": ""}) == pieces[-1].model_copy(update={"text": ""})
    assert whole.text == "".join(piece.text for piece in pieces)
    assert whole.weights is not None


def test_the_engine_has_no_other_way_to_an_adapter_and_none_for_a_web_page(
    engine: Engine, serving: AdapterServer, random_adapters: Path
) -> None:
    """vLLM itself loads by `POST /adapters?name=…&src=…`, which a page can send unasked, and lets any page read."""
    serving.load("one-0")
    more = {"lora_name": "two-0", "lora_path": str(random_adapters / "two-0"), "name": "two-0", "model": "one-0"}
    as_words = {"name": "two-0", "src": more["lora_path"]}
    page = {"Origin": "https://page.example"}
    with httpx.Client(base_url=engine.url) as program:
        ways = program.get("/openapi.json").json()["paths"]
        others = [(path, how) for path in ways if path not in TAKEN for how in ways[path] if how not in ("get", "head")]
        assert {("/adapters", "post"), ("/adapters/{adapter_name}", "delete"), ("/invocations", "post")} <= {*others}
        for path, how in others:
            asked = path.replace("{adapter_name}", "one-0")
            assert program.request(how, asked, json=more).status_code == 404, path
            assert program.request(how, asked, params=as_words).status_code == 404, path
        for path in TAKEN:
            assert program.post(path, json=more, headers=page).status_code == 403, path
            ask_first = page | {"Access-Control-Request-Method": "POST"}
            assert program.options(path, headers=ask_first).status_code == 403, path
    assert serving.loaded() == ["one-0"]


def test_a_conversation_that_is_too_long_is_a_sentence(engine: Engine) -> None:
    async def ask() -> None:
        asked = [Message(role="user", text="word " * 5000)]
        async for _ in Client(engine.url).stream(asked, model="base", sampling=GREEDY):
            pass

    with pytest.raises(UserError, match="The conversation is too long for the model"):
        asyncio.run(ask())


def test_an_attached_engine_is_found_ready_with_the_name_of_its_base(engine: Engine) -> None:
    attached = Attached(engine.url + "/v1")
    assert (attached.status().state, attached.base()) == ("ready", "base")


def test_a_restarted_studio_adopts_the_running_engine(engine: Engine) -> None:
    again = Engine(engine.config, engine.log.parent, detect())
    again.start()
    assert (again.status().state, again.status().pid) == ("ready", engine.status().pid)


def test_an_engine_that_hangs_is_seen_and_goes_on_where_it_was(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, not dead: its front door answers as before. (A hang that lasts ends in a restart: see below.)"""
    monkeypatch.setattr("serving.engine.STUCK_SECONDS", 1.0)
    alone = replies(engine.url, "base")
    status = engine.status()
    assert status.state == "ready"
    assert status.pid
    family = psutil.Process(status.pid).children(recursive=True)
    core = next(process for process in family if "EngineCore" in " ".join(process.cmdline()))
    with ThreadPoolExecutor(1) as pool:
        core.suspend()
        try:
            asked = pool.submit(replies, engine.url, "base")
            limit = time.monotonic() + 60
            while (status := engine.status()).state == "ready":
                assert time.monotonic() < limit
                time.sleep(0.2)
        finally:
            core.resume()
        assert (status.state, "has not worked on any for" in status.message) == ("unreachable", True)
        assert asked.result() == alone
    assert engine.status().state == "ready"


@pytest.mark.parametrize("fault", ["killed", "hangs"])
def test_an_engine_that_is_killed_or_hangs_for_good_is_restarted_with_its_adapters(
    engine: Engine, serving: AdapterServer, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """In the middle of a reply, behind a front door that stands. (The door itself is killed in the loop's test.)"""
    monkeypatch.setattr("serving.engine.STUCK_SECONDS", 3.0)
    monkeypatch.setattr("serving.engine.SILENCE_LIMIT_SECONDS", 20.0)  # a start on a busy machine is silent for some
    serving.load("one-0")
    first = engine.status().pid
    assert first
    family = psutil.Process(first).children(recursive=True)
    core = next(process for process in family if "EngineCore" in " ".join(process.cmdline()))

    def put_back() -> None:
        server = AdapterServer(Client(engine.url), serving._root, serving._memory, serving._base, serving._max)
        assert server.restore() == {}

    watcher = Watcher(engine, put_back)
    assert watcher.look().state == "ready"

    said: list[str] = []

    async def strike_in_the_middle() -> None:
        asked = [Message(role="user", text="Tell me a long story.")]
        long = Sampling(temperature=0, top_p=1, max_tokens=1500)
        async for chunk in Client(engine.url).stream(asked, model="base", sampling=long):
            said.append(chunk.text)
            if "".join(said) and core.is_running():
                os.kill(core.pid, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)

    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(asyncio.run, strike_in_the_middle())
        limit = time.monotonic() + 600
        while (watcher.look().state, engine.status().pid == first) != ("ready", False):
            assert time.monotonic() < limit, watcher.status
            assert not watcher.gave_up
            time.sleep(0.5)
        with pytest.raises(UserError, match=r"The engine (broke off in the middle of the reply|gave up)"):
            reply.result()
    assert "".join(said)
    assert Client(engine.url).models() == ["base", "one-0"]
    assert not any(process.is_running() for process in family)
