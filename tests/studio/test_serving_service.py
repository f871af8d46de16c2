"""Whose weights a name stands for, by what is served and by whom."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from annotation.errors import UserError
from annotation.processes import began
from annotation.store import open_store
from annotation.types import ChatModel, Message, Provenance, Sampling, Weights
from serving.engine import Record
from studio.pages.chat import answered_html
from studio.services.serving import ServingService
from studio.settings import Settings
from tests.serving.conftest import SHAPES, Peer, make_adapter, respond, running_peer, write_tensors
from training.weights import digest


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "Small"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_tensors(folder / "model.safetensors", SHAPES)
    make_adapter(tmp_path / "home" / "adapters", "a-0")
    return Settings(home=tmp_path / "home", cache=tmp_path / "cache", base_model=str(folder))


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as found:
        yield found


def test_an_engine_of_ours_has_the_base_that_lies_here(settings: Settings) -> None:
    serving = ServingService(settings)
    folder = Path(settings.base_model)
    for model in ("base", "a-0"):
        assert serving.identify(model).base_sha256 == digest(folder)
    write_tensors(folder / "model.safetensors", SHAPES | {"model.more.weight": [1, 1]})
    assert serving.identify("base").base_sha256 != digest(folder)  # what the engine read when it began still counts
    assert ServingService(settings).identify("base").base_sha256 == digest(folder)


@pytest.mark.parametrize(("served", "called"), [("somebody/else-8b", "somebody/else-8b"), ("base", "Small")])
def test_somebody_elses_server_is_called_by_its_own_name_and_no_hash_is_claimed(
    settings: Settings, peer: Peer, served: str, called: str
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        loads = handler.path == "/v1/load_lora_adapter"  # it takes adapters, as a vLLM that serves ours does
        respond(handler, 400 if loads else 200, json.dumps({"data": [{"id": served}]}))

    peer.answer = answer
    attached = ServingService(settings.model_copy(update={"engine_url": peer.url}))
    attached.adopt()
    found = attached.identify("base")
    assert (found.model, found.base_sha256) == (called, None)


def test_a_script_has_no_weights(settings: Settings) -> None:
    scripted = ServingService(settings.model_copy(update={"engine": "scripted"}))
    assert scripted.identify("base").base_sha256 is None


@pytest.mark.parametrize(
    ("attested", "said"),
    [
        (Weights(base_sha256="b", adapter_sha256="a"), ">confirmed by the engine<"),
        (None, ">not confirmed by the engine<"),
    ],
)
def test_chat_says_who_gave_the_last_reply_and_who_says_so(tmp_path: Path, attested: Weights | None, said: str) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    conversation = store.conversations.start("chat")
    asked = store.conversations.add_turn(conversation, None, "user", "Hello")
    assert answered_html(store.conversations.get(conversation)) == ""
    made = Provenance(model="Small", adapter="<a>-0", attested=attested)
    reply = store.conversations.add_turn(conversation, asked.id, "assistant", "Hi", made)
    html = answered_html(store.conversations.get(conversation))
    assert said in html
    assert "&lt;a&gt;-0" in html
    assert "broke off" not in html
    store.conversations.add_turn(
        conversation, asked.id, "assistant", "Hi, I", made.model_copy(update={"finish": "error"})
    )
    assert ">broke off<" in answered_html(store.conversations.get(conversation))
    person = Provenance(model="person:ana", corrects=reply.id)
    store.conversations.add_turn(conversation, asked.id, "assistant", "Hi!", person)
    assert answered_html(store.conversations.get(conversation)) == ""
    store.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Stands for vLLM in the engine's record; its door is the peer's."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child


@pytest.mark.parametrize("ours", [True, False])
def test_an_engine_of_ours_must_say_whose_weights_answer(
    settings: Settings, peer: Peer, process: subprocess.Popen[bytes], ours: bool
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/v1/models":
            respond(handler, 200, {"data": [{"id": "base"}]})
        elif handler.path == "/v1/chat/completions":
            piece = {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}
            respond(handler, 200, f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n", "text/event-stream")
        else:
            respond(handler, 200 if handler.path == "/health" else 404, {})

    async def said(model: ChatModel) -> list[str]:
        asked = [Message(role="user", text="Hello")]
        return [chunk.text async for chunk in model.stream(asked, model="base", sampling=Sampling())]

    peer.answer = answer
    record = Record(
        pid=process.pid,
        created=began(process.pid),
        port=int(peer.url.rpartition(":")[2]),
        fingerprint="",
        started=time.time(),
        log_start=0,
    )
    settings.engine_home.mkdir(parents=True)
    (settings.engine_home / "engine.json").write_text(record.model_dump_json())
    serving = ServingService(settings if ours else settings.model_copy(update={"engine_url": peer.url}))
    serving.adopt()
    if ours:
        with pytest.raises(UserError, match="The engine does not say which weights answered"):
            asyncio.run(said(serving.model()))
    else:
        assert asyncio.run(said(serving.model())) == ["Hi"]
