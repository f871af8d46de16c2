"""The door tells how long the engine behind it has been silent."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from serving import beating
from serving.beating import BEAT, Beating


class Engine:
    """Answers once it is let."""

    def __init__(self) -> None:
        self.lets = asyncio.Event()
        self.breaks = False

    async def list_loras(self) -> set[int]:
        await self.lets.wait()
        if self.breaks:
            raise RuntimeError("dead")
        return set()


async def ask(door: Beating, engine: Engine) -> float:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    await door(
        {"type": "http", "path": BEAT, "app": SimpleNamespace(state=SimpleNamespace(engine_client=engine))},
        receive,
        send,
    )
    return float(json.loads(sent[1]["body"])["silent_seconds"])


@pytest.mark.parametrize("breaks", [False, True])
def test_silence_grows_until_the_engine_answers(monkeypatch: pytest.MonkeyPatch, breaks: bool) -> None:
    monkeypatch.setattr(beating, "PATIENCE_SECONDS", 0.02)

    async def scene() -> list[float]:
        async def passed_on(*arguments: Any) -> None:
            raise AssertionError("this was for the door")

        engine, door = Engine(), Beating(passed_on)
        engine.breaks = breaks
        heard = [await ask(door, engine), await ask(door, engine)]
        engine.lets.set()
        return [*heard, await ask(door, engine), await ask(door, engine)]

    first, second, third, fourth = asyncio.run(scene())
    assert 0.01 < first < second
    assert (third, fourth) == (0, 0)


def test_other_requests_go_through() -> None:
    passed: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["path"])

    asyncio.run(Beating(application)({"type": "http", "path": "/health"}, None, None))  # type: ignore[arg-type]
    assert passed == ["/health"]
