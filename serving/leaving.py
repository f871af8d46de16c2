"""An adapter leaves the engine's memory when its name is gone and its last reply has ended, and not before.

vLLM's unloading only forgets the name: the weights stay until others push them out, and by then they may push out an
adapter that is still in use, which vLLM reads again from disk in the middle of a step. If its file is gone by then, the
whole engine ends. So what is unloaded is taken out here, and the engine has room for twice the adapters it may name
(`serving.engine.argv`): what is loaded stays in memory, whatever becomes of its file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from serving.attestation import ANSWERS, App, Receive, Scope, Send, body_of, model_asked

UNLOAD = "/v1/unload_lora_adapter"
UNDER_WAY = "/tonesmith/under-way"
"""Says how many requests each adapter has, those that wait included; vLLM's own figures only name the adapters."""


class Leaving:
    """ASGI middleware for vLLM (its `--middleware`): takes weights out that nobody needs any more."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._answering: Counter[int] = Counter()
        self._gone: set[int] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (*ANSWERS, UNLOAD, UNDER_WAY):
            await self._app(scope, receive, send)
            return
        if scope["path"] == UNDER_WAY:
            await self._tell(scope["app"].state.openai_serving_models.lora_requests, send)
            return
        body, again = await body_of(receive)
        state = scope["app"].state
        names = state.openai_serving_models.lora_requests
        if scope["path"] == UNLOAD:
            adapter = names.get(model_asked(body, "lora_name"))
            await self._app(scope, again, send)
            if adapter and names.get(adapter.lora_name) is not adapter:
                self._gone.add(adapter.lora_int_id)
                await self._take_out(state.engine_client, adapter.lora_int_id)
            return
        adapter = names.get(model_asked(body, "model"))
        async with self._reply(state.engine_client, adapter):
            await self._app(scope, again, send)

    async def _tell(self, names: Any, send: Send) -> None:
        counts = {name: self._answering[adapter.lora_int_id] for name, adapter in names.items()}
        body = json.dumps({name: number for name, number in counts.items() if number}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    @asynccontextmanager
    async def _reply(self, engine: Any, adapter: Any) -> AsyncIterator[None]:
        if adapter is None:
            yield
            return
        number = adapter.lora_int_id
        self._answering[number] += 1
        try:
            yield
        finally:
            self._answering[number] -= 1
            await self._take_out(engine, number)

    async def _take_out(self, engine: Any, number: int) -> None:
        if number in self._gone and not self._answering[number]:
            self._gone.discard(number)
            del self._answering[number]
            await engine.remove_lora(number)
