"""Who may ask the engine, and for what: programs on this machine, for what we know; no web page, and nothing else.

The address is loopback, which keeps other machines out, but not the pages that a browser on this one has open: any of
them may send a request here. And vLLM has more ways to an adapter than its documented ones. `POST /adapters` and
`DELETE /adapters/NAME`, of the hosting standard it carries along, load and unload by words in the address alone, so a
page needs no leave to send them; `/invocations`, `/v1/responses`, `/v1/messages` and others answer past
`serving.leaving` and `serving.attestation`. Its `--api-key` guards /v1 and its like only.
"""

from __future__ import annotations

import json

from serving.attestation import ANSWERS, App, Receive, Scope, Send
from serving.client import LOAD
from serving.leaving import UNLOAD
from serving.sleeping import SLEEP, WAKE

TAKEN = (*ANSWERS, LOAD, UNLOAD, "/tokenize", SLEEP, WAKE)
"""Where something may be asked or changed."""
READING = ("GET", "HEAD")
PASSED_ON = ("lifespan",)


class Guarding:
    """ASGI middleware for vLLM (its `--middleware`), the outermost: refuses what a web page sends (403), and what is
    none of TAKEN and more than a look (404). A websocket is not opened.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in PASSED_ON:
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif _of_a_page(scope):
            await _refuse(403, "This engine answers no web page.", send)
        elif scope["method"] not in READING and scope["path"] not in TAKEN:
            await _refuse(404, f"This engine takes nothing at {scope['path']}.", send)
        else:
            await self._app(scope, receive, send)


def _of_a_page(scope: Scope) -> bool:
    """Whether a browser says that a page sends this. The engine has no pages, so there are none of its own.

    Sec-Fetch-Site is `none` where a person typed the address.
    """
    headers = dict(scope["headers"])
    return b"origin" in headers or headers.get(b"sec-fetch-site", b"none") != b"none"


async def _refuse(status: int, why: str, send: Send) -> None:
    body = json.dumps({"error": {"message": why}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
