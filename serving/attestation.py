"""Which weights an answer came from, said by the engine itself: each process that loads weights notes what it read, and
the engine's front door puts it on every answer."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from annotation.files import write_whole
from annotation.types import Weights
from training.weights import digest

FOLDER = "TONESMITH_ATTESTED"
"""Variable that names the folder of the notes."""
HEADER = "x-tonesmith-weights"
ATTESTED = "/tonesmith/attested"
"""Says whether weights are noted here, which is so where our plugin runs (`serving.vllm_plugin`)."""
ANSWERS = ("/v1/chat/completions", "/v1/completions")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def note(folder: Path) -> str | None:
    """Keep on disk what was just read from `folder`, and return its hash. Nothing, and None, where no FOLDER is set."""
    place = _place(folder)
    if place is None:
        return None
    found = digest(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, json.dumps({"folder": str(folder), "sha256": found}))
    return found


def noted(folder: Path) -> str | None:
    """What was noted about `folder`, None if nothing was."""
    place = _place(folder)
    try:
        return str(json.loads(place.read_bytes())["sha256"]) if place else None
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _place(folder: Path) -> Path | None:
    root = os.environ.get(FOLDER)
    return Path(root) / f"{hashlib.sha256(str(folder).encode()).hexdigest()}.json" if root else None


def said(headers: Mapping[str, str]) -> Weights | None:
    """Out of an answer's headers; None from a server that does not say."""
    parts = dict(part.partition("=")[::2] for part in headers.get(HEADER, "").split(";"))
    return Weights(base_sha256=parts["base"], adapter_sha256=parts.get("adapter")) if parts.get("base") else None


class Attesting:
    """ASGI middleware for vLLM (its `--middleware`): HEADER on each answer, by the name that was asked for.

    An answer whose weights nobody noted goes out without. ATTESTED tells the base's.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (*ANSWERS, ATTESTED):
            await self._app(scope, receive, send)
            return
        if scope["path"] == ATTESTED:
            await _tell({"base_sha256": noted(_base_of(scope["app"].state))}, send)
            return
        body, again = await body_of(receive)
        header = _header(scope["app"].state, body)

        async def marked(message: dict[str, Any]) -> None:
            if header and message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", ()), (HEADER.encode(), header.encode())]}
            await send(message)

        await self._app(scope, again, marked)


async def body_of(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body, and what gives it out once more."""
    messages, body = [], b""
    while True:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    kept = iter(messages)

    async def again() -> dict[str, Any]:
        return next(kept, None) or await receive()

    return body, again


def model_asked(body: bytes, field: str) -> str | None:
    """The model's name in the `field` of a JSON body; None where there is none."""
    try:
        name = json.loads(body).get(field)
    except (ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None


def _base_of(state: Any) -> Path:
    return Path(state.vllm_config.model_config.model)


async def _tell(what: dict[str, Any], send: Send) -> None:
    body = json.dumps(what).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _header(state: Any, body: bytes) -> str:
    """'' where it is not known which weights will answer."""
    name = model_asked(body, "model")
    if name is None:
        return ""
    base = noted(_base_of(state))
    if base is None:
        return ""
    adapter = state.openai_serving_models.lora_requests.get(name)
    if adapter is None:
        return f"base={base}"
    weights = noted(Path(adapter.lora_path))
    return f"base={base};adapter={weights}" if weights else ""
