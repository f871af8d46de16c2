"""`/v1`: the models behind an address as OpenAI's, for other programs, each with a key of its person.

Two questions are passed to the engine, at addresses of ours (`serving.api.PATHS`) and with bodies of ours; a program's
own path and headers never are. Everything else here is 404.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotation.errors import NotFound, UserError
from annotation.people import Forbidden
from serving import attestation
from serving.api import MOST_BYTES, ChatAsked, Drawing, Misasked, TextAsked, read
from serving.client import NoEngine, Refused
from studio.services import Services
from studio.services.api import ApiService, Served

log = logging.getLogger("tonesmith")
AT_ONCE = 64
"""Requests of one person that can be under way."""
RETRY_SECONDS = 5
MODEL_HEADER = "x-tonesmith-model"
"""Names what answered, where an alias was asked for."""
JSON, EVENTS = "application/json", "text/event-stream"
WRONG_KEY = "invalid_api_key"


class NoKey(UserError):
    """No key, or one that opens nothing."""


class TooMany(UserError):
    """One person's programs ask too much at once."""


class TooBig(UserError):
    """The request is too long."""


KINDS: tuple[tuple[type[UserError], int, str, str | None], ...] = (
    (NoKey, 401, "invalid_request_error", WRONG_KEY),
    (Forbidden, 403, "permission_error", None),
    (NotFound, 404, "invalid_request_error", "model_not_found"),
    (TooBig, 413, "invalid_request_error", None),
    (Misasked, 400, "invalid_request_error", None),
    (TooMany, 429, "rate_limit_error", "rate_limit_exceeded"),
    (NoEngine, 503, "service_unavailable", "engine_unavailable"),
    (UserError, 502, "api_error", "engine_error"),
)
"""What each error is in OpenAI's terms: status, type, code. The first that fits."""


def api_app(services: Services) -> Starlette:
    """The application that is mounted at `/v1`."""
    calls = _Calls(services)
    app = Starlette(
        routes=[
            Route("/models", calls.models, methods=["GET"]),
            Route("/models/{name:path}", calls.model, methods=["GET"]),
            Route("/chat/completions", calls.chat, methods=["POST"]),
            Route("/completions", calls.text, methods=["POST"]),
        ],
        exception_handlers={UserError: _said, HTTPException: _not_here, Exception: _ours},
    )
    app.router.redirect_slashes = False
    return app


class _Calls:
    """The calls, and how many of them each person has under way."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._under_way: Counter[str] = Counter()

    async def models(self, request: Request) -> Response:
        found = await run_in_threadpool((await self._mine(request)).api.models)
        return JSONResponse({"object": "list", "data": [_entry(model) for model in found]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = await run_in_threadpool((await self._mine(request)).api.models)
        entry = next((_entry(model) for model in found if model.name == name), None)
        if entry is None:
            raise NotFound(f"There is no model '{name}' here.", do="`GET /v1/models` lists what there is.")
        return JSONResponse(entry)

    async def chat(self, request: Request) -> ASGIApp:
        return await self._answer(request, ChatAsked)

    async def text(self, request: Request) -> ASGIApp:
        return await self._answer(request, TextAsked)

    async def _mine(self, request: Request) -> Services:
        """The services in the name of the key's person. Raises NoKey."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise NoKey(
                "The request has no API key.",
                "A header `Authorization: Bearer tonesmith-…`.",
                "Make one on the studio's page Models → API keys.",
            )
        person = await run_in_threadpool(self._services.store.keys.person_of, key.strip())
        if person is None:
            raise NoKey(
                "The API key is wrong, or was revoked.", do="Make another one on the studio's page Models → API keys."
            )
        return self._services.of(person)

    async def _answer(self, request: Request, kind: type[Drawing]) -> ASGIApp:
        mine = await self._mine(request)
        mine.who.must("judge")  # before a byte of the body is read
        asked = read(kind, await _body(request))
        model = await run_in_threadpool(mine.api.resolve, asked.model, asked.user or "")
        return _Passed(mine.api, asked, model, lambda: self._turn(mine.who.name))

    @asynccontextmanager
    async def _turn(self, person: str) -> AsyncIterator[None]:
        if self._under_way[person] >= AT_ONCE:
            raise TooMany(f"{AT_ONCE} requests of {person} are under way.", do="Wait until one is answered.")
        self._under_way[person] += 1
        try:
            yield
        finally:
            self._under_way[person] -= 1
            if not self._under_way[person]:
                del self._under_way[person]


class _Passed:
    """The engine's answer, piece by piece as it comes. When the program hangs up, the engine is told at once."""

    def __init__(
        self, api: ApiService, asked: Drawing, model: str, turn: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        self._api = api
        self._asked = asked
        self._model = model
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passing = asyncio.create_task(self._pass_on(send))
        leaving = asyncio.create_task(_hung_up(receive))
        try:
            await asyncio.wait((passing, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            passing.cancel()
            leaving.cancel()
            ended, _ = await asyncio.gather(passing, leaving, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended

    async def _pass_on(self, send: Send) -> None:
        async with self._turn(), self._api.answered(self._asked, self._model) as response:
            if not self._asked.stream:
                content = await response.aread()  # whole, so that one that breaks off is an error and no half of a JSON
                await send(_start(200, self._headers(response, JSON)))
                await send({"type": "http.response.body", "body": content})
                return
            await send(_start(200, self._headers(response, EVENTS)))
            try:
                async for piece in response.aiter_bytes():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                rest = b""
            except httpx.HTTPError as error:
                log.info("a stream to another program broke off: %s", error)
                broken = UserError("The engine broke off in the middle of the reply.", do="Ask again.")
                rest = f"data: {json.dumps({'error': _in_words(broken)})}\n\n".encode()
            await send({"type": "http.response.body", "body": rest})

    def _headers(self, response: httpx.Response, kind: str) -> dict[str, str]:
        headers = {"content-type": kind, "cache-control": "no-store", MODEL_HEADER: self._model}
        said = response.headers.get(attestation.HEADER)
        if said:
            headers[attestation.HEADER] = said
        if kind == EVENTS:
            headers["x-accel-buffering"] = "no"  # nginx would keep the pieces back
        return headers


async def _body(request: Request) -> bytes:
    """Raises TooBig as soon as it is known."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise TooBig("The request is too long.", f"At most {MOST_BYTES:,} bytes.", "Send less of the conversation.")
    return body


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(status: int, headers: dict[str, str]) -> Message:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": raw}


def _entry(model: Served) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.made_at.timestamp()) if model.made_at else 0,
        "owned_by": "tonesmith",
        "parent": model.parent,
    }


def _kind(error: UserError) -> tuple[int, str, str | None]:
    if isinstance(error, Refused):
        if error.status == 404:
            return _kind(NotFound(""))
        if error.status in (400, 413, 422):
            return error.status, "invalid_request_error", None
        if error.status in (429, 503):
            return _kind(NoEngine(""))
    return next((status, kind, code) for of, status, kind, code in KINDS if isinstance(error, of))


def _in_words(error: UserError) -> dict[str, object]:
    """An error as OpenAI's API has it, in our words."""
    _, kind, code = _kind(error)
    param = error.param if isinstance(error, Misasked) else "model" if isinstance(error, NotFound) else ""
    return {"message": str(error), "type": kind, "param": param or None, "code": code}


def _said(request: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)
    status, _, _ = _kind(error)
    headers = {}
    if status in (429, 503):
        headers["retry-after"] = str(RETRY_SECONDS)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": _in_words(error)}, status, headers)


def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = f"{request.method} {request.url.path} is not here."
    here = "GET /v1/models, POST /v1/chat/completions and POST /v1/completions are."
    inside = {"message": f"{found} {here}", "type": "invalid_request_error", "param": None, "code": "unknown_url"}
    return JSONResponse({"error": inside}, error.status_code, error.headers)


def _ours(request: Request, error: Exception) -> Response:
    """Starlette raises it again after this, so it is in the log with its traceback."""
    text = "Something went wrong on our side. The studio's log has the details."
    return JSONResponse({"error": {"message": text, "type": "api_error", "param": None, "code": None}}, 500)
