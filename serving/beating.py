"""Whether the engine behind vLLM's front door still works: the door itself answers even if what is behind it hangs."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from serving.attestation import App, Receive, Scope, Send

BEAT = "/tonesmith/beat"
PATIENCE_SECONDS = 0.5
"""How long one question waits; a step of a busy CPU takes a good part of it."""


class Beating:
    """ASGI middleware for vLLM (its `--middleware`): BEAT says for how long the engine has left us waiting.

    The question goes the way of the requests and is answered between two steps, however many requests wait.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._asked: asyncio.Task[Any] | None = None
        self._since = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != BEAT:
            await self._app(scope, receive, send)
            return
        silent = await self._silent_seconds(scope["app"].state.engine_client)
        body = json.dumps({"silent_seconds": silent}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _silent_seconds(self, engine: Any) -> float:
        if self._asked is None or self._asked.done():
            self._asked, self._since = asyncio.create_task(engine.list_loras()), time.monotonic()
        await asyncio.wait({self._asked}, timeout=PATIENCE_SECONDS)
        if not self._asked.done():
            return time.monotonic() - self._since
        self._asked.exception()  # of a dead engine, which /health tells
        return 0.0
