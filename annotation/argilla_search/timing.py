"""How much of a request's time was the search engine's: told in the answer's `Server-Timing` header (W3C),
beside what Argilla tells there."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

_spent: ContextVar[list[float] | None] = ContextVar("seconds", default=None)


def timed(ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Count this method's time towards the request it is called in; nothing outside of one."""

    @functools.wraps(ask)
    async def answer(*args: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return await ask(*args, **named)
        finally:
            if (spent := _spent.get()) is not None:
                spent.append(time.perf_counter() - began)

    return answer


class ServerTiming:
    """ASGI: adds `Server-Timing: search;dur=<milliseconds>` to what the engine was asked for."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        spent: list[float] = []
        _spent.set(spent)

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start" and spent:
                header = (b"server-timing", f"search;dur={1000 * sum(spent):.1f}".encode())
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        await self._app(scope, receive, told)
