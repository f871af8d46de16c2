"""No web page gets at an engine, and nobody by a way that is not watched."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from serving.engine import EngineConfig, argv
from serving.guarding import TAKEN, Guarding
from tests.fixtures.api import ENGINES_OWN
from training.hardware import Hardware

PASSED = 200
PAGES = (
    {"origin": "https://page.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:8000"},  # the engine has no page of its own, and a name may be made to lead here
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "same-origin"},
)


def answered(method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and body; PASSED and no body where the engine itself was reached."""
    sent: list[dict[str, Any]] = []

    async def engine(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": PASSED})

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing of a refused request is read")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw}
    asyncio.run(Guarding(engine)(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


@pytest.mark.parametrize("path", TAKEN)
def test_a_program_may_ask_what_is_known_and_a_page_may_not(path: str) -> None:
    assert answered("POST", path) == (PASSED, "")
    for page in PAGES:
        status, said = answered("POST", path, page)
        assert (status, json.loads(said)["error"]["message"]) == (403, "This engine answers no web page.")
        assert answered("OPTIONS", path, page)[0] == 403


@pytest.mark.parametrize("path", sorted({*ENGINES_OWN, "/v1/what/comes/next", "/v1/load_lora_adapter/"} - {*TAKEN}))
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_is_not_known_is_not_there(path: str, method: str) -> None:
    assert answered(method, path) == (404, json.dumps({"error": {"message": f"This engine takes nothing at {path}."}}))


def test_looking_is_free_but_not_for_a_page() -> None:
    for path in ("/health", "/v1/models", "/metrics", "/tonesmith/beat"):
        assert answered("GET", path) == answered("GET", path, {"sec-fetch-site": "none"}) == (PASSED, "")
        assert {answered("GET", path, page)[0] for page in PAGES} == {403}


def test_a_websocket_is_not_opened_and_a_start_is_passed_on() -> None:
    async def through(kind: str) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def engine(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "reached"})

        await Guarding(engine)({"type": kind, "path": "/v1/realtime", "headers": []}, None, send)  # type: ignore[arg-type]
        return sent

    assert asyncio.run(through("websocket")) == [{"type": "websocket.close", "code": 1008}]
    assert asyncio.run(through("lifespan")) == [{"type": "reached"}]


def test_every_engine_is_guarded_before_anything_else_is_asked() -> None:
    """vLLM puts each middleware around those before it."""
    command = argv(EngineConfig(model=Path("/models/small")), Hardware(cpu_cores=2), 1)
    ours = [value for name, value in pairwise(command) if name == "--middleware"]
    assert ours[-1] == "serving.guarding.Guarding"
