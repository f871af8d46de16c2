"""`/v1`: who is let in, what is asked of the engine and what never is, and what a program is told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from annotation.people import Person
from serving import api, attestation
from serving.api import MOST_BYTES, ChatAsked, Misasked, TextAsked, read
from serving.canary import pick
from studio.services import Services, open_services, present
from studio.settings import Settings
from studio.web import api as web_api
from tests.fixtures.api import ENGINES_OWN, TRICKS, Server, app_of
from tests.serving.conftest import Answer, FakeEngine, Peer, respond

with warnings.catch_warnings():  # Starlette would rather have another client than the httpx we have
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

HELLO = {"model": "base", "messages": [{"role": "user", "content": "Hello"}]}
REPLY = {"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": "Good day"}}]}


class Speaking:
    """The fake engine, which also answers what programs ask."""

    def __init__(self, peer: Peer, fake: FakeEngine) -> None:
        self.fake = fake
        self.answer: Answer = lambda handler: respond(handler, 200, REPLY)
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.asked: list[dict[str, Any]] = []
        self._peer = peer
        peer.answer = self

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path
        self.paths.append(path)
        if path not in attestation.ANSWERS or "prompt_logprobs" in self._peer.asked[-1][1]:
            return self.fake(handler)
        self.headers.append(dict(handler.headers))
        self.asked.append(self._peer.asked[-1][1])
        return self.answer(handler)


@pytest.fixture
def engine(peer: Peer, fake: FakeEngine) -> Speaking:
    return Speaking(peer, fake)


@pytest.fixture
def services(settings: Settings, engine: Speaking) -> Iterator[Services]:
    """In the name of the owner; ana is a reviewer and vic a viewer."""
    opened = open_services(settings)
    opened.serving.adopt()
    for name, role in (("ana", "reviewer"), ("vic", "viewer"), ("owner", "admin")):
        opened.store.people.add(name, role)  # type: ignore[arg-type]
    engine.paths.clear()
    yield opened
    opened.close()


def key_of(services: Services, name: str) -> str:
    return services.store.keys.add(name, "website", "owner")[1]


@pytest.fixture
def program(services: Services) -> TestClient:
    """A program with ana's key."""
    client = TestClient(app_of(services), follow_redirects=False)
    client.headers["authorization"] = f"Bearer {key_of(services, 'ana')}"
    return client


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error, which has OpenAI's form."""
    (inside,) = answer.json().values()
    assert set(inside) == {"message", "type", "param", "code"}
    assert inside["message"]
    return dict(inside)


# Who is let in


def test_without_a_right_key_nothing_is_told_and_nobody_is_sent_to_the_login(
    services: Services, engine: Speaking
) -> None:
    visitor = TestClient(app_of(services), follow_redirects=False)
    for header in ("", "Bearer", "Bearer ", "Bearer wrong", "Basic eDp5", "tonesmith-1", "Bearer é"):
        headers = {"authorization": header.encode(), "accept": "text/html"}
        for answer in (
            visitor.get("/v1/models", headers=headers),
            visitor.post("/v1/chat/completions", headers=headers),
        ):
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert error_of(answer)["code"] == "invalid_api_key"
    assert engine.paths == []


def test_a_session_of_the_page_is_no_key(services: Services) -> None:
    visitor = TestClient(app_of(services), cookies={"tonesmith-session": services.store.people.open_session("ana")})
    assert visitor.post("/v1/chat/completions", json=HELLO).status_code == 401


def test_a_revoked_key_and_a_closed_account_are_out_at_the_next_request(
    services: Services, program: TestClient
) -> None:
    assert program.post("/v1/chat/completions", json=HELLO).status_code == 200
    mine = services.of(services.store.people.get("ana"))
    (key,) = mine.keys.all()
    assert key.last_used is not None
    mine.keys.revoke(key.id)
    assert program.post("/v1/chat/completions", json=HELLO).status_code == 401
    program.headers["authorization"] = f"Bearer {key_of(services, 'ana')}"
    assert program.post("/v1/chat/completions", json=HELLO).status_code == 200
    services.team.change("ana", active=False)
    assert program.post("/v1/chat/completions", json=HELLO).status_code == 401
    services.team.change("ana", active=True)
    assert program.post("/v1/chat/completions", json=HELLO).status_code == 401, "an old key is dead for good"


def test_who_may_not_chat_may_not_have_a_program_chat(services: Services, engine: Speaking) -> None:
    viewer = TestClient(app_of(services), headers={"authorization": f"Bearer {key_of(services, 'vic')}"})
    assert viewer.get("/v1/models").status_code == 200
    answer = viewer.post("/v1/chat/completions", json=HELLO)
    assert (answer.status_code, error_of(answer)["type"]) == (403, "permission_error")
    assert "a viewer, who can't judge replies" in error_of(answer)["message"]
    assert engine.asked == []


def test_keys_are_ones_own_and_admins_see_all(services: Services) -> None:
    ana, vic = (services.of(services.store.people.get(name)) for name in ("ana", "vic"))
    mine, _ = ana.keys.add("website")
    theirs, _ = services.keys.add("shop", "vic")
    assert [key.id for key in ana.keys.all()] == [mine.id]
    assert [key.id for key in services.keys.all()] == [theirs.id, mine.id]
    for refused in (lambda: ana.keys.add("shop", "vic"), lambda: ana.keys.revoke(theirs.id), lambda: vic.keys.add("x")):
        with pytest.raises(Exception, match="signed in as") as error:
            refused()
        assert type(error.value).__name__ == "Forbidden"
    assert vic.keys.revoke(theirs.id).revoked_by == "vic"
    assert services.keys.revoke(mine.id).revoked_by == "owner"


# What is asked of the engine


def test_an_answer_comes_as_the_engine_gave_it_with_what_answered(
    services: Services, program: TestClient, engine: Speaking
) -> None:
    services.promotion.promote("production", "a-0", "first")
    hashed = services.serving.identify("a-0").weights_sha256

    def answer(handler: BaseHTTPRequestHandler) -> None:
        content = json.dumps(REPLY).encode()
        handler.send_response(200)
        handler.send_header(attestation.HEADER, f"base=b;adapter={hashed}")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    engine.answer = answer
    found = program.post("/v1/chat/completions", json=HELLO | {"model": "production", "temperature": 0, "seed": 3})
    assert found.json() == REPLY
    assert (found.headers["x-tonesmith-model"], found.headers[attestation.HEADER]) == (
        "a-0",
        f"base=b;adapter={hashed}",
    )
    (asked,) = engine.asked
    assert asked == {
        "model": "a-0",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0,
        "seed": 3,
        "n": 1,
        "stream": False,
    }
    assert next(view.last_used for view in services.serving.adapters() if view.name == "a-0") is not None


def test_an_answer_from_other_weights_is_refused_before_a_word_is_shown(
    services: Services, program: TestClient, engine: Speaking
) -> None:
    services.serving.load("a-0", services.who)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header(attestation.HEADER, "base=b;adapter=other")
        handler.end_headers()
        handler.wfile.write(b"data: SECRET\n\n")

    engine.answer = answer
    for stream in (False, True):
        found = program.post("/v1/chat/completions", json=HELLO | {"model": "a-0", "stream": stream})
        assert found.status_code == 502
        assert "a-0 is not what answered" in error_of(found)["message"]
        assert "SECRET" not in found.text


def test_people_get_the_candidate_over_their_keys_as_they_do_in_chat(services: Services, engine: Speaking) -> None:
    services.promotion.promote("production", "a-0", "first")
    services.promotion.promote("candidate", "b-0", "to try")
    services.promotion.set_share(0.5, "half")
    canary = services.store.aliases.canary()
    assert canary is not None
    app = app_of(services)
    for number in range(12):
        name = f"person-{number}"
        services.store.people.add(name, "reviewer")
        program = TestClient(app, headers={"authorization": f"Bearer {key_of(services, name)}"})
        program.post("/v1/chat/completions", json=HELLO | {"model": "production"})
        side = {"production": "a-0", "candidate": "b-0"}[pick(name, canary.salt, 0.5)]
        assert engine.asked[-1]["model"] == side
        assert services.of(Person(name=name)).promotion.resolve("production") == side
    assert {asked["model"] for asked in engine.asked} == {"a-0", "b-0"}


def test_each_customer_of_one_key_gets_a_side_of_their_own_and_keeps_it(services: Services, engine: Speaking) -> None:
    services.promotion.promote("production", "a-0", "first")
    services.promotion.promote("candidate", "b-0", "to try")
    services.promotion.set_share(0.5, "half")
    app, name = app_of(services), services.who.name

    def sides() -> list[str]:
        program = TestClient(app, headers={"authorization": f"Bearer {key_of(services, name)}"})
        for number in range(20):
            asked = HELLO | {"model": "production", "user": f"customer-{number}"}
            assert program.post("/v1/chat/completions", json=asked).status_code == 200
        assert all("user" not in asked for asked in engine.asked), "it goes no further"
        return [asked["model"] for asked in engine.asked[-20:]]

    first = sides()
    assert 3 < first.count("b-0") < 17
    assert sides() == first, "a new key moves nobody"


def test_the_models_are_listed_by_the_names_that_can_be_asked_for(services: Services, program: TestClient) -> None:
    def names() -> list[str]:
        return [model["id"] for model in program.get("/v1/models").json()["data"]]

    assert names() == ["base", "production"]
    answer = program.post("/v1/chat/completions", json=HELLO | {"model": "candidate"})
    assert (answer.status_code, error_of(answer)["param"]) == (404, "model")
    services.promotion.promote("candidate", "b-0", "to try")
    services.serving.load("a-0", services.who)
    assert names()[:3] == ["base", "production", "candidate"]
    assert sorted(names()[3:]) == ["a-0", "b-0"]
    one = program.get("/v1/models/b-0").json()
    assert (one["object"], one["parent"], one["created"] > 0) == ("model", "base", True)
    assert program.get("/v1/models/c-0").status_code == 404
    assert (
        program.post("/v1/chat/completions", json=HELLO | {"model": "candidate"}).headers["x-tonesmith-model"] == "b-0"
    )


def test_a_model_that_is_none_or_not_loaded_is_404_in_words(program: TestClient, engine: Speaking) -> None:
    engine.answer = lambda handler: respond(handler, 404, {"error": {"message": "The model does not exist."}})
    for model in ("c-0", "nobody", "../a-0", "x/a-0", "..", "/etc/passwd", "lineage.json", "a" * 200):
        answer = program.post("/v1/chat/completions", json=HELLO | {"model": model})
        assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    assert engine.asked == [], "an engine of others' is not asked for what nobody loaded there"


# What never reaches it


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_nothing_else_of_the_engine_is_here(program: TestClient, engine: Speaking, method: str) -> None:
    for where in {form.format(path) for path in ENGINES_OWN for form in ("{}", "/v1{}", "/v1/{}", "{}/")}:
        answer = program.request(method, where, content=b'{"lora_name": "x", "lora_path": "/etc"}')
        assert answer.status_code in (404, 405)
        if where.startswith("/v1") and method != "HEAD":
            assert error_of(answer)["code"] == "unknown_url"
    assert engine.paths == []


HEADERS = (
    "X-Original-URL: /sleep\r\nX-Rewrite-URL: /sleep\r\nX-Forwarded-Prefix: /v1/../sleep\r\n",
    "X-HTTP-Method-Override: POST\r\nX-Forwarded-Path: /v1/load_lora_adapter\r\n",
    "X-Forwarded-Host: 127.0.0.1\r\nHost: 127.0.0.1:1\r\nX-Forwarded-Uri: /collective_rpc\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
)


def test_no_trick_of_path_or_header_reaches_what_else_the_engine_does(services: Services, engine: Speaking) -> None:
    body = json.dumps(HELLO | {"lora_name": "x", "lora_path": "/etc"}).encode()
    with Server(services) as server:
        key = key_of(services, "ana")
        for path in TRICKS:
            for more in ("", *HEADERS):
                for method in ("GET", "POST"):
                    head = f"{method} {path} HTTP/1.1\r\nHost: studio\r\nAuthorization: Bearer {key}\r\n{more}"
                    said = server.raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                    assert b" 200 " not in said.split(b"\r\n")[0] or b'"object":"list"' in said, (path, more, said)
    assert set(engine.paths) <= {"/v1/models"}


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.sampled_from([".", "..", "/", "//", "%2f", "%2e", "v1", "chat", "completions", "models", "sleep"])
    )
)
def test_no_path_of_such_pieces_does_either(program: TestClient, engine: Speaking, parts: list[str]) -> None:
    path = f"/v1/{'/'.join(parts)}"
    answer = program.post(path, json={"lora_name": "x", "lora_path": "/etc"})
    assert not answer.is_success
    assert engine.paths == []


def test_a_second_request_hidden_in_the_first_goes_nowhere(services: Services, engine: Speaking) -> None:
    hidden = b"POST /v1/load_lora_adapter HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    with Server(services) as server:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key_of(services, 'ana')}\r\n"
        for framing in (b"Content-Length: 0\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"):
            server.raw(head.encode() + framing + hidden)
        server.raw(head.encode() + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden)
    assert engine.paths == []


def test_a_programs_headers_stay_here(program: TestClient, engine: Speaking) -> None:
    sent = {
        "x-request-id": "1",
        "cookie": "a=b",
        "x-data-parallel-rank": "1",
        "x-session-id": "2",
        "user-agent": "evil",
    }
    assert program.post("/v1/chat/completions", json=HELLO, headers=sent).status_code == 200
    (got,) = engine.headers
    assert not {"x-request-id", "cookie", "x-data-parallel-rank", "x-session-id", "authorization"} & {
        name.lower() for name in got
    }
    assert "evil" not in str(got)


UNTAKEN = (
    *("chat_template", "chat_template_kwargs", "documents", "mm_processor_kwargs", "media_io_kwargs", "priority"),
    *("kv_transfer_params", "ec_transfer_params", "vllm_xargs", "prompt_logprobs", "request_id", "cache_salt"),
    *("use_beam_search", "prompt_embeds", "structured_outputs", "tools", "ignore_eos", "logits_processors", "x"),
    *("lora_name", "lora_path", "load_inplace", "truncate_prompt_tokens", "best_of", "echo", "return_prompt_text"),
)


def test_a_field_that_is_not_known_to_be_harmless_is_refused_by_name(program: TestClient, engine: Speaking) -> None:
    asked = {"/v1/chat/completions": HELLO, "/v1/completions": {"model": "base", "prompt": "Hello"}}
    for field in UNTAKEN:
        for path, body in asked.items():
            answer = program.post(path, json=body | {field: "x"})
            assert (answer.status_code, error_of(answer)["param"]) == (400, field)
            assert f"'{field}' is not taken here" in error_of(answer)["message"]
    assert engine.asked == []


def in_form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


PICTURE = [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]


MISASKED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"messages": [{"role": "user", "content": PICTURE}]}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "x", "audio": {"id": "x"}}]}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "Hello"}, "messages"),
    ({"model": None}, "model"),
    ({"model": "base\r\nx: y"}, "model"),
    ({"model": ["base"]}, "model"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"max_completion_tokens": 4097}, "max_completion_tokens"),
    ({"n": 9}, "n"),
    ({"temperature": -1}, "temperature"),
    ({"top_logprobs": 1000}, "top_logprobs"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stream_options": {"include_usage": True, "x": 1}}, "stream_options"),
    ({"response_format": {"type": "structural_tag"}}, "response_format"),
    (in_form({"$ref": "file:///etc/passwd"}), "response_format"),
    (in_form({"items": [{"a": {"$ref": "http://evil/x.json"}}]}), "response_format"),
    (in_form({"description": "x" * 30_000}), "response_format"),
)


def test_what_can_not_be_taken_is_said_with_its_field(program: TestClient, engine: Speaking) -> None:
    for change, param in MISASKED:
        answer = program.post("/v1/chat/completions", json=HELLO | change)
        assert (answer.status_code, error_of(answer)["type"]) == (400, "invalid_request_error")
        assert error_of(answer)["param"] == param
    assert engine.asked == []


def test_a_body_that_is_no_request_is_400_in_words(program: TestClient) -> None:
    for body in (b"", b"{", b"[]", b"null", b'"x"', b"[" * 100_000, b"\xff", b'{"temperature": NaN}'):
        answer = program.post("/v1/chat/completions", content=body)
        assert answer.status_code == 400
        assert error_of(answer)["type"] == "invalid_request_error"


def test_a_body_that_is_too_long_is_not_read_to_its_end(program: TestClient, engine: Speaking) -> None:
    read_so_far = []

    def endless() -> Iterator[bytes]:
        for number in range(100):
            read_so_far.append(number)
            yield b" " * 100_000

    answer = program.post("/v1/chat/completions", content=endless())
    assert (answer.status_code, engine.asked) == (413, [])
    assert f"{MOST_BYTES:,} bytes" in error_of(answer)["message"]


ANYTHING = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.text(max_size=2), max_size=2)
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted({*ChatAsked.model_fields, *TextAsked.model_fields})), ANYTHING))
def test_whatever_is_sent_is_understood_or_refused_in_words(change: dict[str, Any]) -> None:
    for kind in (ChatAsked, TextAsked):
        try:
            body = read(kind, json.dumps(HELLO | {"prompt": "Hello"} | change).encode()).body("base")
        except Misasked:
            continue
        assert set(body) <= set(kind.model_fields)


def test_a_reply_of_the_client_library_can_be_sent_back_as_it_is() -> None:
    kept = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": None, "tool_calls": [], "audio": None}
    asked = read(ChatAsked, json.dumps(HELLO | {"messages": [kept, HELLO["messages"][0]]}).encode())  # type: ignore[index]
    assert asked.body("base")["messages"][0] == {"role": "assistant", "content": "Hi"}
    assert set(api.PATHS.values()) == set(attestation.ANSWERS)


# How a stream goes


def streaming(*pieces: bytes, wait: Callable[[], object] = bool, cut: bool = False) -> Answer:
    """An answer in chunks, with `wait` after the first; `cut` leaves without an end."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for place, piece in enumerate(pieces):
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            handler.wfile.flush()
            if not place:
                wait()
        if not cut:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return answer


def test_pieces_come_one_by_one_and_a_hung_up_program_is_told_to_the_engine(
    services: Services, engine: Speaking
) -> None:
    seen, gone = threading.Event(), threading.Event()

    def more(handler: BaseHTTPRequestHandler) -> None:
        streaming(b"data: one\n\n", wait=lambda: seen.wait(10), cut=True)(handler)
        handler.connection.settimeout(10)
        if handler.connection.recv(1) == b"":
            gone.set()

    engine.answer = more

    async def ask() -> bytes:
        headers = {"authorization": f"Bearer {key_of(services, 'ana')}"}
        async with (
            httpx.AsyncClient(headers=headers, trust_env=False) as http,
            http.stream("POST", f"{server.url}/v1/chat/completions", json=HELLO | {"stream": True}) as response,
        ):
            assert response.headers["content-type"] == "text/event-stream"
            async for piece in response.aiter_bytes():
                seen.set()
                return piece
        raise AssertionError

    with Server(services) as server:
        assert asyncio.run(ask()) == b"data: one\n\n"  # while the second one is not there yet
        assert gone.wait(10)


def test_a_program_that_hangs_up_before_the_first_word_is_told_to_the_engine_too(
    services: Services, engine: Speaking
) -> None:
    asked, gone = threading.Event(), threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        handler.connection.settimeout(10)
        if handler.connection.recv(1) == b"":
            gone.set()

    engine.answer = silent
    body = json.dumps(HELLO).encode()
    with Server(services) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key_of(services, 'ana')}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert asked.wait(10)
        connection.close()
        assert gone.wait(10)


def test_a_stream_that_breaks_off_ends_in_words(program: TestClient, engine: Speaking) -> None:
    engine.answer = streaming(b"data: one\n\n", b"data: two\n\n", cut=True)
    said = program.post("/v1/chat/completions", json=HELLO | {"stream": True}).text
    assert said.startswith("data: one\n\ndata: two\n\ndata: {")
    error = json.loads(said.rpartition("data: ")[2])["error"]
    assert "broke off in the middle" in error["message"]


def test_an_answer_that_breaks_off_is_an_error_and_no_half_of_one(program: TestClient, engine: Speaking) -> None:
    engine.answer = streaming(b'{"object": ', cut=True)
    answer = program.post("/v1/chat/completions", json=HELLO)
    assert (answer.status_code, error_of(answer)["type"]) == (502, "api_error")


def test_what_the_engine_refuses_is_said_in_words(program: TestClient, engine: Speaking) -> None:
    for status, reason, told, words in (
        (400, "This model's maximum context length is 2048 tokens.", 400, "too long for the model"),
        (422, "no", 422, "refused the request"),
        (500, "out of memory", 502, "refused the request"),
        (401, "key", 502, "refused the API key"),
        (503, "dead", 503, "refused the request"),
    ):
        answered = {"error": {"message": reason}}
        engine.answer = lambda handler, status=status, body=answered: respond(handler, status, body)  # type: ignore[misc]
        answer = program.post("/v1/chat/completions", json=HELLO)
        assert answer.status_code == told
        assert words in error_of(answer)["message"]


def test_without_an_engine_it_says_when_to_ask_again(settings: Settings) -> None:
    services = open_services(settings.model_copy(update={"engine_url": None}))
    services.store.people.add("ana", "reviewer")
    program = TestClient(app_of(services), headers={"authorization": f"Bearer {key_of(services, 'ana')}"})
    answer = program.post("/v1/chat/completions", json=HELLO)
    assert (answer.status_code, answer.headers["retry-after"].isdecimal()) == (503, True)
    assert "Engine is off." in error_of(answer)["message"]
    services.close()


def test_an_adapter_that_is_just_put_back_is_worth_another_try(
    services: Services, program: TestClient, engine: Speaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(present, "PATIENCE_SECONDS", 1.0)
    services.promotion.promote("production", "a-0", "first")
    engine.answer = lambda handler: respond(handler, 404, {"error": {"message": "The model does not exist."}})
    answer = program.post("/v1/chat/completions", json=HELLO | {"model": "production"})
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


def test_one_person_can_not_take_all_the_room(
    services: Services, engine: Speaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_api, "AT_ONCE", 1)
    asked, go_on = threading.Event(), threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        assert go_on.wait(10)
        respond(handler, 200, REPLY)

    engine.answer = slow

    async def ask() -> tuple[int, int, int]:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:

            async def call(name: str) -> httpx.Response:
                headers = {"authorization": f"Bearer {key_of(services, name)}"}
                return await http.post("/v1/chat/completions", json=HELLO, headers=headers)

            first = asyncio.create_task(call("ana"))
            await asyncio.to_thread(asked.wait, 10)
            second = await call("ana")
            assert second.headers["retry-after"].isdecimal()
            go_on.set()
            return second.status_code, (await call("owner")).status_code, (await first).status_code

    with Server(services) as server:
        assert asyncio.run(ask()) == (429, 200, 200)
