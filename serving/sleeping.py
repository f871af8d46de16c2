"""An engine that nobody needs gives its memory back. A GPU's engine sleeps in its own process; one on a CPU ends and is
started again, since vLLM has no sleep mode there.
"""

from __future__ import annotations

from collections.abc import Sequence

from serving.attestation import App, Receive, Scope, Send
from serving.metrics import Figures
from training.hardware import Hardware

SLEEP, WAKE = "/tonesmith/sleep", "/tonesmith/wake"


def sleeps_in_place(hardware: Hardware) -> bool:
    """Whether vLLM can empty the memory and keep its process: on GPUs only."""
    return bool(hardware.gpus)


class Sleeping:
    """ASGI middleware for vLLM (its `--middleware`): SLEEP and WAKE call the engine's own sleep mode.

    vLLM's pages for this come with its development mode, which opens others that let a caller run anything. Level 1
    keeps the weights in the machine's memory and forgets the key-value cache; replies under way are finished first.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (SLEEP, WAKE) or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        engine = scope["app"].state.engine_client
        if scope["path"] == SLEEP:
            await engine.sleep(level=1, mode="wait")
        else:
            await engine.wake_up()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})


class Idle:
    """Whether nobody has asked for a while, by the engines' own counts, so that whoever asks counts."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tokens = -1.0
        self._since = 0.0

    def too_long(self, engines: Sequence[Figures], now: float) -> bool:
        """Whether it has been so for long enough at `now` (seconds of a clock that only goes forward); with no engines
        the time begins anew.
        """
        tokens = sum(one.prompt_tokens + one.generation_tokens for one in engines)
        busy = not engines or any(one.running or one.waiting for one in engines)
        if busy or tokens != self._tokens:
            self._tokens, self._since = tokens, now
        return now - self._since >= self._seconds
