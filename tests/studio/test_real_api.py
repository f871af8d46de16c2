"""`/v1` before a real vLLM, asked by OpenAI's own library: it says what the engine says, as fast, and nothing else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from openai import OpenAI

from annotation.store.comparisons import VoteForm
from annotation.types import Message, Sampling
from benchmarks import voices
from serving import attestation
from serving.client import Client
from serving.engine import Engine
from serving.metrics import Figures, figures
from studio.services import Services, open_services
from studio.services.compare import RoundForm, SideOf
from studio.settings import Settings
from tests.fixtures.api import ENGINES_OWN, TRICKS, Server
from tests.fixtures.engines import SLOTS
from tests.fixtures.studio import wait_until
from training.base_model import EMBEDDED

pytestmark = [pytest.mark.slow, pytest.mark.alone]
ASK = "Where is my parcel?"
TOKENS = 16
GREEDY = Sampling(temperature=0, top_p=1, max_tokens=TOKENS)
DRAWN = {"temperature": 0, "max_tokens": TOKENS}


class Address:
    """A studio's `/v1` behind a web server in this process."""

    def __init__(self, services: Services, url: str) -> None:
        self.services = services
        self.url = url
        self.key = services.keys.add("tests")[1]

    def openai(self, key: str = "") -> OpenAI:
        """OpenAI's own client, which would try again by itself."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key or self.key, max_retries=0)


@pytest.fixture(scope="module")
def address(engine: Engine, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A studio with two adapters on the real engine; the first is what customers get, the second the candidate."""
    home = tmp_path_factory.mktemp("api") / "home"
    settings = Settings(
        home=home,
        cache=base_model.parent.parent,
        engine_url=engine.url,
        max_adapters=SLOTS,
        person="owner",
        base_model=EMBEDDED,
    )
    adapters = voices.make(settings.adapters, base_model, 2)
    services = open_services(settings)
    services.store.people.add("owner", "admin")
    services.serving.adopt()
    for name in Client(engine.url).models()[1:]:
        Client(engine.url).post("/v1/unload_lora_adapter", {"lora_name": name})
    services.promotion.promote("production", adapters[0].name, "first")
    services.promotion.promote("candidate", adapters[1].name, "to try")
    with Server(services) as server:
        yield Address(services, server.url)
    for adapter in adapters:
        Client(engine.url).post("/v1/unload_lora_adapter", {"lora_name": adapter.name})
    services.close()


def names(address: Address) -> tuple[str, str]:
    """What customers get, and the candidate."""
    now = address.services.promotion.current()
    assert now.production.adapter
    assert now.candidate.adapter
    return now.production.adapter, now.candidate.adapter


def said_by_the_engine(engine: Engine, model: str) -> str:
    async def ask() -> str:
        asked = [Message(role="user", text=ASK)]
        return "".join([chunk.text async for chunk in Client(engine.url).stream(asked, model=model, sampling=GREEDY)])

    return asyncio.run(ask())


def test_each_name_answers_with_its_own_weights_as_the_engine_itself_does(engine: Engine, address: Address) -> None:
    production, candidate = names(address)
    meant = {"base": "base", production: production, "production": production, "candidate": candidate}
    client = address.openai()
    assert [model.id for model in client.models.list()] == ["base", "production", "candidate", candidate, production]
    own = {model: said_by_the_engine(engine, model) for model in set(meant.values())}
    assert len(set(own.values())) == 3
    base = attestation.digest(engine.config.model)
    for asked, model in meant.items():
        raw = client.chat.completions.with_raw_response.create(
            model=asked, messages=[{"role": "user", "content": ASK}], **DRAWN
        )
        reply = raw.parse()
        assert reply.choices[0].message.content == own[model]
        assert (reply.model, raw.headers["x-tonesmith-model"]) == (model, model)
        hashed = address.services.serving.identify(model).weights_sha256
        assert raw.headers[attestation.HEADER] == f"base={base}" + (f";adapter={hashed}" if hashed else "")


def test_a_stream_has_the_same_words_in_pieces_and_its_counts(address: Address) -> None:
    ask = {"model": "production", "messages": [{"role": "user", "content": ASK}], "extra_body": {"min_tokens": TOKENS}}
    whole = address.openai().chat.completions.create(**ask, **DRAWN)  # type: ignore[call-overload]
    counted = {"stream": True, "stream_options": {"include_usage": True}}
    pieces, usage = [], None
    for event in address.openai().chat.completions.create(**ask, **DRAWN, **counted):  # type: ignore[call-overload]
        pieces += [choice.delta.content for choice in event.choices if choice.delta.content]
        usage = event.usage or usage
    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) > TOKENS // 2
    assert usage.completion_tokens == whole.usage.completion_tokens == TOKENS


def test_plain_text_goes_on_and_a_form_is_held_to(engine: Engine, address: Address) -> None:
    client, ask = address.openai(), {"model": "base", "prompt": "One, two, three,", **DRAWN}
    text = client.completions.create(**ask).choices[0].text  # type: ignore[call-overload]
    assert text.strip()
    assert text == Client(engine.url).post("/v1/completions", ask)["choices"][0]["text"]
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    reply = client.chat.completions.create(
        model="base",
        messages=[{"role": "user", "content": "Is it fine?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        temperature=0,
        max_tokens=60,
    )
    assert json.loads(reply.choices[0].message.content or "").keys() == {"ok"}


def test_a_conversation_goes_on_from_the_librarys_own_reply(address: Address) -> None:
    client = address.openai()
    messages: list[object] = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": ASK}]
    reply = client.chat.completions.create(model="production", messages=messages, **DRAWN)  # type: ignore[call-overload]
    messages += [reply.choices[0].message, {"role": "user", "content": [{"type": "text", "text": "And then?"}]}]
    assert client.chat.completions.create(model="production", messages=messages, **DRAWN).choices  # type: ignore[call-overload]


def test_what_can_not_be_is_an_error_of_the_librarys_own(address: Address) -> None:
    ask = {"model": "base", "messages": [{"role": "user", "content": ASK}]}
    with pytest.raises(openai.AuthenticationError, match="wrong, or was revoked"):
        address.openai("tonesmith-wrong").chat.completions.create(**ask)  # type: ignore[call-overload]
    with pytest.raises(openai.NotFoundError, match="There is no adapter 'gpt-4'"):
        address.openai().chat.completions.create(**ask | {"model": "gpt-4"})  # type: ignore[call-overload]
    long = [{"role": "user", "content": "word " * 5000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="too long for the model"):
            address.openai().chat.completions.create(**ask | {"messages": long, "stream": stream})  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError, match="'chat_template' is not taken here"):
        address.openai().chat.completions.create(**ask, extra_body={"chat_template": "{{ x }}"})  # type: ignore[call-overload]


def test_the_engine_stops_when_a_program_hangs_up(engine: Engine, address: Address) -> None:
    def now() -> Figures:
        """After a short request, since the engine counts when it works."""
        Client(engine.url).post("/v1/completions", {"model": "base", "prompt": "One", "max_tokens": 1})
        found = figures(str(Client(engine.url).get("/metrics")), time.monotonic())
        assert found is not None
        return found

    def running() -> float:
        found = now()
        return found.running + found.waiting

    whole = 1900
    story = [{"role": "user", "content": "Tell me a long story."}]
    long = {"model": "base", "messages": story, "max_tokens": whole, "extra_body": {"min_tokens": whole}}
    before = now().generation_tokens
    stream = address.openai().chat.completions.create(**long, stream=True)  # type: ignore[call-overload]
    pieces = iter(stream)
    next(pieces)
    wait_until(lambda: running() == 1, 60, "the reply")
    stream.close()
    wait_until(lambda: running() == 0, 60, "the engine to stop")
    between = now().generation_tokens
    with pytest.raises(openai.APITimeoutError):
        address.openai().chat.completions.create(**long, timeout=1.0)  # type: ignore[call-overload]
    wait_until(lambda: running() == 0, 60, "the engine to stop")
    assert between - before < whole, "so it did not end by itself"
    assert now().generation_tokens - between < whole


def test_the_rest_of_the_engine_is_out_of_reach_for_a_key_too(engine: Engine, address: Address) -> None:
    before = Client(engine.url).models()
    inside = {"lora_name": before[-1], "lora_path": "/etc"}
    tricks = (trick for trick in TRICKS if trick.startswith("/v1"))
    with httpx.Client(base_url=address.url, headers={"authorization": f"Bearer {address.key}"}) as program:
        for path in (*ENGINES_OWN, *(f"/v1{path}" for path in ENGINES_OWN), *tricks):
            assert not program.post(path, json=inside).is_success
            assert "vllm:" not in program.get(path).text
    assert Client(engine.url).models() == before


def test_another_studio_compares_what_this_one_serves_and_keeps_whose_weights_it_was(
    engine: Engine, address: Address, tmp_path: Path
) -> None:
    settings = Settings(
        home=tmp_path, cache=tmp_path, base_model="/nowhere", engine_url=address.url, engine_key=address.key
    )
    other = open_services(settings)
    assert other.serving.adopt()
    assert (other.serving.view().label, other.serving.view().adapters) == ("For comparing only", False)
    assert [name for _, name in other.serving.choices()][:3] == ["base", "production", "candidate"]
    sides = tuple(SideOf(model=model, temperature=0) for model in ("base", "production"))

    async def ask() -> str:
        live = [live async for live in other.compare.ask(ASK, RoundForm(sides=sides, longest=TOKENS))][-1]
        assert live.problem is None
        return live.comparison_id or ""

    voted = other.compare.vote(asyncio.run(ask()), VoteForm(outcome="tie"))
    answers = {answer.provenance.model: answer for answer in voted.answers.values()}
    production = address.services.serving.identify(names(address)[0])
    assert {name: answer.provenance.elsewhere for name, answer in answers.items()} == dict.fromkeys(
        ("base", "production"), address.url
    )
    attested = answers["production"].provenance.attested
    assert attested is not None
    assert attested.adapter_sha256 == production.weights_sha256
    assert answers["base"].text != answers["production"].text
    other.close()


def test_the_engine_itself_listens_on_this_machine_only_and_has_nothing_for_developers(engine: Engine) -> None:
    pid = engine.status().pid
    assert pid
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    heard = {one.laddr.ip for process in family for one in process.net_connections("inet") if one.status == "LISTEN"}
    assert heard == {"127.0.0.1"}
    for path in ("/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache", "/server_info"):
        assert httpx.post(f"{engine.url}{path}", json={}, trust_env=False).status_code == 404
