"""An engine that is attached to and lists its models may be dead or hang all the same; it must not be called ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from annotation.types import Message, Sampling
from serving import silence
from serving.beating import BEAT
from serving.client import Client
from serving.engine import Attached, EngineStatus, Watcher
from tests.serving.conftest import FakeEngine, Peer, respond

FIGURES = "vllm:num_requests_running 0\nvllm:prompt_tokens_total {read}\nvllm:generation_tokens_total 7\n"


def answering(peer: Peer, path: str, answer: Callable[[BaseHTTPRequestHandler], None]) -> FakeEngine:
    """An engine that holds no adapter and answers at `path` by `answer`, else as vLLM does."""
    fake = FakeEngine(peer)
    peer.answer = lambda handler: answer(handler) if handler.path == path else fake(handler)
    return fake


def seen(attached: Attached, state: str, seconds: float = 10) -> EngineStatus:
    limit = time.monotonic() + seconds
    while (status := attached.status()).state != state:
        assert time.monotonic() < limit, status
        time.sleep(0.05)
    return status


@pytest.mark.parametrize("status", [200, 404])
def test_one_that_is_well_or_has_no_such_page_is_ready(peer: Peer, status: int) -> None:
    answering(peer, "/health", lambda handler: respond(handler, status, ""))
    assert Attached(peer.url).status().state == "ready"


def test_one_whose_engine_is_dead_is_not_ready_until_it_is_back(peer: Peer) -> None:
    found = [503]
    answering(peer, "/health", lambda handler: respond(handler, found[0], ""))
    attached, greeted = Attached(peer.url), [0]
    watcher = Watcher(attached, lambda: greeted.append(0))
    status = watcher.look()
    assert (status.state, status.attached) == ("unreachable", True)
    assert "says that it can't answer (503). Ask whoever looks after the engine" in status.message
    found[0] = 200
    assert (watcher.look().state, len(greeted)) == ("ready", 2), "what it should hold is loaded once it is back"


def test_one_whose_health_hangs_is_not_ready_after_a_while(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "STUCK_SECONDS", 1.0)
    hangs = [True]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(2.2 * hangs[0])
        respond(handler, 200, "")

    answering(peer, "/health", answer)
    attached = Attached(peer.url)
    assert "has not worked on anything for" in seen(attached, "unreachable").message
    hangs.clear()
    hangs.append(False)
    assert attached.status().state == "ready"


def test_our_plugin_there_tells_of_a_hang_behind_the_door(peer: Peer) -> None:
    silent = [25.0]
    answering(peer, BEAT, lambda handler: respond(handler, 200, {"silent_seconds": silent[0]}))
    attached = Attached(peer.url)
    assert "has not worked on anything for 25 s" in attached.status().message
    silent[0] = 3.0
    assert attached.status().state == "ready"


def test_without_the_plugin_replies_that_wait_in_vain_tell(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "NO_WORD_SECONDS", 0.3)
    fake = answering(peer, "/v1/chat/completions", lambda handler: time.sleep(3))
    fake.attests, fake.metrics = False, FIGURES.format(read=1)
    attached = Attached(peer.url)

    async def ask() -> None:
        client = Client(peer.url, under_way=attached.under_way)
        async for _ in client.stream([Message(role="user", text="Hi")], model="base", sampling=Sampling()):
            raise AssertionError

    async def scene() -> EngineStatus:
        assert (await asyncio.to_thread(seen, attached, "ready")).state == "ready"
        await asyncio.sleep(0.5)
        assert attached.status().state == "ready", "nobody asked it for anything"
        reply = asyncio.create_task(ask())
        found = await asyncio.to_thread(seen, attached, "unreachable")
        fake.metrics = FIGURES.format(read=2)
        assert (await asyncio.to_thread(attached.status)).state == "ready", "it goes on"
        reply.cancel()
        await asyncio.gather(reply, return_exceptions=True)
        return found

    assert "neither read nor written a word" in asyncio.run(scene()).message
    assert attached.under_way == set()
