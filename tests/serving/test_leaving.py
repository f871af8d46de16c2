"""What is unloaded leaves the engine's memory once its last reply has ended; nothing else does."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from serving.leaving import UNDER_WAY, UNLOAD, Leaving

CHAT = "/v1/chat/completions"


class Server:
    """vLLM's part: names, replies that last until they are let go, and a memory."""

    def __init__(self) -> None:
        self.names = {name: SimpleNamespace(lora_name=name, lora_int_id=number) for number, name in enumerate("ab", 1)}
        self.removed: list[int] = []
        self.sent: list[dict[str, Any]] = []
        self.let_go = asyncio.Event()
        self.breaks = False
        state = SimpleNamespace(openai_serving_models=SimpleNamespace(lora_requests=self.names), engine_client=self)
        self._app = SimpleNamespace(state=state)
        self._middleware = Leaving(self._answer)

    async def remove_lora(self, number: int) -> None:
        self.removed.append(number)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        asked = json.loads((await receive())["body"])
        if scope["path"] == UNLOAD:
            self.names.pop(asked["lora_name"], None)
            return
        await self.let_go.wait()
        if self.breaks:
            raise RuntimeError("broken")

    def ask(self, path: str, **body: str) -> asyncio.Task[None]:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: dict[str, Any]) -> None:
            self.sent.append(message)

        return asyncio.create_task(self._call({"type": "http", "path": path, "app": self._app}, receive, send))

    async def _call(self, *arguments: Any) -> None:
        await self._middleware(*arguments)


def test_an_idle_adapter_leaves_at_once() -> None:
    async def scene() -> list[int]:
        server = Server()
        await server.ask(UNLOAD, lora_name="a")
        await server.ask(UNLOAD, lora_name="a")  # it is gone already
        await server.ask(UNLOAD, lora_name="never")
        return server.removed

    assert asyncio.run(scene()) == [1]


@pytest.mark.parametrize("breaks", [False, True])
def test_a_busy_one_leaves_after_its_last_reply(breaks: bool) -> None:
    async def scene() -> tuple[list[int], list[int]]:
        server = Server()
        server.breaks = breaks
        replies = [server.ask(CHAT, model=model) for model in ("a", "a", "b", "base")]
        await asyncio.sleep(0)
        await server.ask(UNLOAD, lora_name="a")
        during = list(server.removed)
        server.let_go.set()
        await asyncio.gather(*replies, return_exceptions=True)
        return during, server.removed

    assert asyncio.run(scene()) == ([], [1])


def test_what_stays_loaded_stays_in_memory() -> None:
    async def scene() -> list[int]:
        server = Server()
        server.let_go.set()
        await server.ask(CHAT, model="a")
        return server.removed

    assert asyncio.run(scene()) == []


def test_the_door_says_how_many_requests_each_adapter_has() -> None:
    async def scene() -> list[Any]:
        server = Server()
        replies = [server.ask(CHAT, model=model) for model in ("a", "a", "b", "base")]
        await asyncio.sleep(0)
        await server.ask(UNDER_WAY)
        server.let_go.set()
        await asyncio.gather(*replies)
        await server.ask(UNDER_WAY)
        return [json.loads(message["body"]) for message in server.sent if "body" in message]

    assert asyncio.run(scene()) == [{"a": 2, "b": 1}, {}]
