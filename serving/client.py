"""An OpenAI-compatible server, streamed. Whatever goes wrong becomes a sentence."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import cache
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
from httpx_sse import EventSource, SSEError

from annotation.errors import UserError
from annotation.types import Chunk, Finish, Message, Sampling, Weights
from serving import attestation
from serving.beating import BEAT

FIRST_TOKEN_SECONDS = 300.0
"""Longest wait for a piece of a reply; a busy CPU queues."""
WHOLE_SECONDS = 3600.0
"""Longest wait for a whole reply among many others; an engine that hangs is seen and ended long before."""
QUICK_SECONDS = 30.0
LOAD = "/v1/load_lora_adapter"
BROKEN = (httpx.HTTPError, httpx.InvalidURL, SSEError, json.JSONDecodeError)
"""What is raised where a server is not there, or breaks off."""
FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length", "abort": "error"}


class NoEngine(UserError):
    """Nobody answers just now; it may be starting, or busy."""


class Refused(UserError):
    """The engine does not take the request; `status` is its HTTP status."""

    def __init__(self, status: int, found: str, wanted: str = "", do: str = "") -> None:
        super().__init__(found, wanted, do)
        self.status = status


def not_held(model: str) -> Refused:
    """The refusal of a server that does not know `model`."""
    found = f"The engine does not hold '{model}'."
    return Refused(404, found, "`base`, or a loaded adapter.", "Load it on the Models page.")


class TooLong(Refused):
    """What was sent does not fit into the model, and will not next time."""

    def __init__(self, found: str, wanted: str = "", do: str = "") -> None:
        super().__init__(400, found, wanted, do)


class Client:
    """Talks to one server. Holds no connection between calls, so it can be used from any thread or event loop.

    Without `pieces`, `stream` gives a reply out whole, when it is done: that spares both ends the work for each token,
    where nobody watches. `key_setting`: where the API key is set, for a server that refuses it. Without `scores` the
    server is never asked how likely a text is: vLLM on a CPU without our plugin ends by that while it holds adapters.
    `under_way` holds those of `answered` and `stream` that have not come to an end.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        base: str = "base",
        pieces: bool = True,
        key_setting: str = "TONESMITH_ENGINE_KEY",
        scores: bool = True,
        under_way: set[object] | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.key_setting = key_setting
        self._scores = scores
        self.under_way: set[object] = set() if under_way is None else under_way
        self._base = base  # what this server calls the base model; ours calls it `base`
        self._pieces = pieces
        self._tls = ssl.create_default_context() if self.base_url.startswith("https://") else _no_tls()
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        """Stream a chat reply; the last chunk has `finish` and the token counts.

        Sampling is sent in full, so that no default of the server comes between two sides. Raises UserError if the
        server is not there, refuses, or breaks off; what had arrived was given out before.
        """
        body = {
            "model": model,
            "messages": [message.as_chat() for message in messages],
            **({"stream": True, "stream_options": {"include_usage": True}} if self._pieces else {}),
            **sampling.model_dump(exclude_none=True, exclude={"json_schema"}),
        }
        if sampling.json_schema is not None:
            body["response_format"] = _response_format(sampling.json_schema)
        finish: Finish | None = None
        async with self.answered("/v1/chat/completions", body) as response:
            weights = attestation.said(response.headers)
            if not self._pieces:
                yield _whole(json.loads(await response.aread()), weights)
                return
            async for event in EventSource(response).aiter_sse():
                if event.data == "[DONE]":
                    return
                piece = _chunk(json.loads(event.data), finish, weights)
                finish = piece.finish or finish
                yield piece
        raise UserError("The engine broke off in the middle of the reply.", do="Wait until it is ready, then retry.")

    def answered(self, path: str, body: dict[str, Any]) -> Answering:
        """POST `body`, and the server's answer as it begins to come: `async with client.answered(…) as response`."""
        model = str(body["model"])
        return Answering(self, f"{self.base_url}{path}", body | {"model": self._served(model)}, model)

    def open_http(self) -> httpx.AsyncClient:
        """A connection with the key, that waits long. Raises httpx.InvalidURL."""
        self._check_address()
        timeout = httpx.Timeout(FIRST_TOKEN_SECONDS if self._pieces else WHOLE_SECONDS, connect=10.0)
        return httpx.AsyncClient(headers=self._headers, timeout=timeout, trust_env=False, verify=self._tls)

    def models(self) -> list[str]:
        """Names the server answers to, those that are no adapter first; vLLM's base is among them. Raises UserError."""
        return [str(entry["id"]) for entry in sorted(self._entries(), key=lambda entry: bool(entry.get("parent")))]

    def adapters(self) -> dict[str, str]:
        """The adapters that the server answers to, each with the folder it came from ('' if it does not say). Raises
        UserError.
        """
        return {str(entry["id"]): str(entry.get("root") or "") for entry in self._entries() if entry.get("parent")}

    def attests(self) -> bool:
        """Whether the server runs our plugin, and so knows which weights answer. Raises UserError."""
        try:
            found = self.get(attestation.ATTESTED)
        except Refused:
            return False
        return isinstance(found, dict) and found.get("base_sha256") is not None

    def takes_adapters(self) -> bool:
        """Whether adapters can be loaded into this server while it runs. Raises UserError if it is not there.

        Asked with an empty request: vLLM says what is missing in it, and others that there is no such address.
        """
        try:
            with self._http(QUICK_SECONDS) as http:
                return http.post(LOAD, json={}).status_code in (400, 422)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _broken(error, self.base_url) from error

    def tokenize(self, messages: Sequence[Message], model: str) -> list[int]:
        """Token ids of the prompt, as vLLM renders it for `messages`. Raises UserError."""
        chat = [message.as_chat() for message in messages]
        body = {"model": self._served(model), "messages": chat, "add_generation_prompt": True}
        return cast(list[int], self.post("/tokenize", body)["tokens"])

    def log_probabilities(self, texts: Sequence[Sequence[int]], model: str) -> list[list[float]]:
        """Log-probability (nats) of each token after the first, given those before it, of each text in token ids. Asked
        in one request, so that the engine reads them together. Raises UserError.
        """
        if not self._scores:
            raise Refused(400, f"The engine at {self.base_url} is not asked how likely a text is: that may end it.")
        body = {
            "model": self._served(model),
            "prompt": [list(ids) for ids in texts],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        choices = sorted(self.post("/v1/completions", body)["choices"], key=lambda choice: int(choice["index"]))
        return [_of_prompt(ids, choice["prompt_logprobs"]) for ids, choice in zip(texts, choices, strict=True)]

    def get(self, path: str) -> Any:
        """GET a JSON answer. Raises UserError."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST a JSON body, take a JSON (or text) answer. Raises UserError."""
        return self._ask("POST", path, body)

    def healthy(self, seconds: float = 2.0) -> bool:
        """Whether the server answers `/health`, or `/v1/models` where it has none."""
        return self.health(seconds) == 200

    def health(self, seconds: float = 2.0) -> int | None:
        """HTTP status of `/health` (of `/v1/models` where there is none), None if nothing answers.

        vLLM says 200 when it can answer, and 503 when its engine process is dead.
        """
        try:
            with self._http(seconds) as http:
                found = http.get("/health").status_code
                return http.get("/v1/models").status_code if found == 404 else found
        except (httpx.HTTPError, httpx.InvalidURL):
            return None

    def answers(self, path: str, seconds: float = 2.0) -> bool:
        """Whether a GET of `path` is answered with 200."""
        try:
            with self._http(seconds) as http:
                return http.get(path).status_code == 200
        except (httpx.HTTPError, httpx.InvalidURL):
            return False

    def silent_seconds(self) -> float:
        """How long the engine behind the door has not answered it (`serving.beating`); 0 where the server has no such
        page.
        """
        try:
            with self._http(2.0) as http:
                return float(http.get(BEAT).json()["silent_seconds"])
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            return 0.0

    def _entries(self) -> list[dict[str, Any]]:
        answer = self.get("/v1/models")
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "id" in entry for entry in entries):
            raise UserError(
                f"What answers at {self.base_url} is no model server.",
                "The address of a vLLM, for example http://127.0.0.1:8000.",
                "Check the address.",
            )
        return entries

    def _served(self, model: str) -> str:
        return self._base if model == "base" else model

    def _check_address(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is none
            sound = False
        if not sound:
            raise httpx.InvalidURL(f"{self.base_url} is no address")

    def _http(self, seconds: float) -> httpx.Client:
        self._check_address()
        return httpx.Client(
            base_url=self.base_url, headers=self._headers, timeout=seconds, trust_env=False, verify=self._tls
        )

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            with self._http(QUICK_SECONDS) as http:
                response = http.request(method, path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _broken(error, self.base_url) from error
        if response.status_code != 200:
            if path == LOAD and response.status_code in (404, 405) and "lora" not in said(response).lower():
                raise UserError(
                    "This server takes no adapters.",
                    "A vLLM that was started with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING.",
                    "Compare with it as it is, or leave TONESMITH_ENGINE_URL out to have an engine started here.",
                )
            raise _refused(response, str((body or {}).get("model", "")), self.key_setting)
        kind = response.headers.get("content-type", "")
        return response.json() if kind.startswith("application/json") else response.text


class Answering:
    """The answer to one request while it is read; leaving it closes the connection, which the server notices.

    Raises UserError if the server is not there, refuses, or breaks off. No generator: one that is left half-way is
    closed by nobody knows whom.
    """

    def __init__(self, client: Client, url: str, body: dict[str, Any], model: str) -> None:
        self._client = client
        self._url = url
        self._body = body
        self._model = model
        self._open = AsyncExitStack()

    async def __aenter__(self) -> httpx.Response:
        self._client.under_way.add(self)
        self._open.callback(self._client.under_way.discard, self)
        try:
            http = await self._open.enter_async_context(self._client.open_http())
            response = await self._open.enter_async_context(http.stream("POST", self._url, json=self._body))
            if response.status_code != 200:
                await response.aread()
                raise _refused(response, self._model, self._client.key_setting)
        except BaseException as error:
            await self._open.aclose()
            if isinstance(error, BROKEN):
                raise _broken(error, self._client.base_url) from error
            raise
        return response

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self._open.aclose()
        if isinstance(error, BROKEN):
            raise _broken(error, self._client.base_url) from error


@cache
def _no_tls() -> ssl.SSLContext:
    """An empty one, where there is no TLS: httpx would make its own for each reply, which takes a millisecond."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _chunk(event: dict[str, Any], finish: Finish | None, weights: Weights | None) -> Chunk:
    if "error" in event:
        raise UserError(f"The engine gave up: {event['error'].get('message', event['error'])}.", do="Try again.")
    choice = event["choices"][0] if event.get("choices") else {}
    usage = event.get("usage") or {}
    return Chunk(
        text=choice.get("delta", {}).get("content") or "",
        finish=FINISHES.get(choice.get("finish_reason") or "", finish)
        if usage or choice.get("finish_reason")
        else None,
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        weights=weights,
    )


def _of_prompt(ids: Sequence[int], found: Sequence[Any]) -> list[float]:
    return [float(ranked[str(token)]["logprob"]) for token, ranked in zip(ids[1:], found[1:], strict=True)]


def _whole(answer: dict[str, Any], weights: Weights | None) -> Chunk:
    choice = answer["choices"][0]
    return _chunk(answer | {"choices": [choice | {"delta": choice["message"]}]}, None, weights)


def _response_format(json_schema: str) -> dict[str, Any]:
    """As OpenAI defines it and vLLM takes it (`json_schema` response format)."""
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": json.loads(json_schema), "strict": True},
    }


def _refused(response: httpx.Response, model: str, key_setting: str) -> Refused:
    status, reason = response.status_code, said(response)
    if status == 404 and model:
        return not_held(model)
    if status in (401, 403):
        return Refused(status, "The engine refused the API key.", do=f"Set {key_setting} to the right one.")
    if status == 400 and "context length" in reason:
        return TooLong(
            "The conversation is too long for the model.", reason, "Start a new chat, or set TONESMITH_CONTEXT higher."
        )
    return Refused(status, f"The engine refused the request ({status}): {reason}")


def said(response: httpx.Response) -> str:
    """The server's reason, out of whichever form it came in."""
    try:
        body = response.json()
    except ValueError:
        return response.text[:300]
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]


def _broken(error: Exception, url: str) -> UserError:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL | httpx.UnsupportedProtocol):
        return NoEngine(
            f"No engine answers at {url}.",
            "A running vLLM.",
            "It may be starting: watch its state at the top of the page. `tonesmith up` starts it.",
        )
    if isinstance(error, httpx.TimeoutException):
        return NoEngine("The engine did not answer in time.", do="It may be busy. Try again in a moment.")
    return UserError("The engine broke off in the middle of the reply.", do="Wait until it is ready, then retry.")
