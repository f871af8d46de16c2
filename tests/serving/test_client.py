"""The client against servers that misbehave: every failure is a sentence, and text that came is not lost."""

from __future__ import annotations

import asyncio
import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from annotation.errors import UserError
from annotation.types import Chunk, Message, Sampling
from serving.client import Client
from tests.serving.conftest import Answer, Peer, respond

ASK = [Message(role="user", text="Hello")]
NOBODY = "http://127.0.0.1:1"


def stream(client: Client, model: str = "base", sampling: Sampling | None = None) -> tuple[list[Chunk], str]:
    """The chunks of a reply, and the sentence it broke off with, or ''."""
    chunks: list[Chunk] = []

    async def collect() -> None:
        async for chunk in client.stream(ASK, model=model, sampling=sampling or Sampling()):
            chunks.append(chunk)

    try:
        asyncio.run(collect())
    except UserError as error:
        return chunks, str(error)
    return chunks, ""


def events(*bodies: Any, done: bool = True) -> Answer:
    """An answer that streams these events, then ends."""
    lines = "".join(f"data: {json.dumps(body)}\n\n" for body in bodies) + ("data: [DONE]\n\n" if done else "")
    return lambda handler: respond(handler, 200, lines, "text/event-stream")


def delta(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}


def test_a_reply_comes_in_pieces_with_its_end_and_its_counts(peer: Peer) -> None:
    peer.answer = events(delta("Good "), delta("day", "stop"), USAGE)
    chunks, problem = stream(Client(peer.url))
    assert ("".join(chunk.text for chunk in chunks), problem) == ("Good day", "")
    assert (chunks[-1].finish, chunks[-1].prompt_tokens, chunks[-1].completion_tokens) == ("stop", 7, 2)


def test_a_reply_that_nobody_watches_comes_whole(peer: Peer) -> None:
    whole = {"choices": [{"message": {"role": "assistant", "content": "Good day"}, "finish_reason": "length"}]}
    peer.answer = lambda handler: respond(handler, 200, whole | {"usage": USAGE["usage"]})
    (chunk,), problem = stream(Client(peer.url, pieces=False))
    assert (chunk.text, chunk.finish, chunk.prompt_tokens, chunk.completion_tokens, problem) == (
        "Good day", "length", 7, 2, "",
    )  # fmt: skip
    assert not peer.asked[0][1].get("stream")


def test_a_whole_reply_that_is_refused_says_why(peer: Peer) -> None:
    peer.answer = lambda handler: respond(handler, 404, {"error": {"message": "no such model"}})
    chunks, problem = stream(Client(peer.url, pieces=False), model="shop-1")
    assert (chunks, "does not hold 'shop-1'" in problem) == ([], True)


def test_sampling_is_sent_in_full(peer: Peer) -> None:
    peer.answer = events(delta("x", "length"), USAGE)
    stream(Client(peer.url), sampling=Sampling(temperature=0, top_p=1, max_tokens=5, seed=3))
    (path, body) = peer.asked[0]
    assert path == "/v1/chat/completions"
    assert {key: body[key] for key in ("model", "temperature", "top_p", "max_tokens", "seed", "stream")} == {
        "model": "base",
        "temperature": 0,
        "top_p": 1,
        "max_tokens": 5,
        "seed": 3,
        "stream": True,
    }
    assert body["stream_options"] == {"include_usage": True}


def test_a_form_is_asked_for_as_openai_defines_it_and_only_then(peer: Peer) -> None:
    peer.answer = events(delta("{}", "stop"), USAGE)
    stream(Client(peer.url), sampling=Sampling(json_schema='{"type": "object"}'))
    stream(Client(peer.url), sampling=Sampling())
    with_form, without = (body for _, body in peer.asked)
    assert with_form["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    }
    assert not {"response_format", "json_schema"} & set(without)
    assert "json_schema" not in with_form


def test_the_base_is_called_what_the_server_calls_it(peer: Peer) -> None:
    peer.answer = events(delta("x", "stop"), USAGE)
    stream(Client(peer.url + "/v1", base="acme/model-7b"))
    stream(Client(peer.url + "/v1", base="acme/model-7b"), model="an-adapter")
    assert [(path, body["model"]) for path, body in peer.asked] == [
        ("/v1/chat/completions", "acme/model-7b"),
        ("/v1/chat/completions", "an-adapter"),
    ]


def test_nobody_there_is_a_sentence() -> None:
    assert stream(Client(NOBODY))[1].startswith(f"No engine answers at {NOBODY}.")


@pytest.mark.parametrize("url", ["not an address", "http://", "http://127.0.0.1:99999999"])
def test_a_wrong_address_is_a_sentence(url: str) -> None:
    assert stream(Client(url))[1].startswith(f"No engine answers at {url.rstrip('/')}")
    assert Client(url).health() is None


@pytest.mark.parametrize(
    ("status", "reason", "sentence"),
    [
        (404, "The model `x` does not exist.", "The engine does not hold 'x'."),
        (400, "This model's maximum context length is 2048 tokens.", "The conversation is too long for the model."),
        (401, "Unauthorized", "The engine refused the API key."),
        (500, "Internal trouble", "The engine refused the request (500): Internal trouble"),
    ],
)
def test_a_refusal_is_a_sentence(peer: Peer, status: int, reason: str, sentence: str) -> None:
    peer.answer = lambda handler: respond(handler, status, {"error": {"message": reason}})
    assert stream(Client(peer.url), "x")[1].startswith(sentence)


def test_what_came_before_a_break_is_kept(peer: Peer) -> None:
    peer.answer = events(delta("Half a "), delta("reply"), done=False)
    chunks, problem = stream(Client(peer.url))
    assert "".join(chunk.text for chunk in chunks) == "Half a reply"
    assert problem.startswith("The engine broke off in the middle of the reply.")


def test_a_connection_that_dies_is_a_break(peer: Peer) -> None:
    def die(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Content-Length", "9999")
        handler.end_headers()
        handler.wfile.write(f"data: {json.dumps(delta('Half'))}\n\n".encode())

    peer.answer = die
    chunks, problem = stream(Client(peer.url))
    assert [chunk.text for chunk in chunks] == ["Half"]
    assert problem.startswith("The engine broke off")


def test_an_error_inside_the_stream_is_a_sentence(peer: Peer) -> None:
    peer.answer = events(delta("Half"), {"error": {"message": "EngineCore is dead"}})
    chunks, problem = stream(Client(peer.url))
    assert [chunk.text for chunk in chunks] == ["Half"]
    assert "EngineCore is dead" in problem


@pytest.mark.parametrize(
    ("body", "kind"),
    [("<html>Welcome</html>", "text/html"), ({"hello": 1}, "application/json"), ([], "application/json")],
)
def test_some_other_server_is_a_sentence(peer: Peer, body: Any, kind: str) -> None:
    peer.answer = lambda handler: respond(handler, 200, body, kind)
    with pytest.raises(UserError, match="is no model server"):
        Client(peer.url).models()
    assert stream(Client(peer.url))[1] != ""


def test_models_with_those_first_that_are_no_adapters(peer: Peer) -> None:
    models = [{"id": "tuned", "parent": "acme/model-7b"}, {"id": "acme/model-7b", "parent": None}]
    peer.answer = lambda handler: respond(handler, 200, {"data": models})
    assert Client(peer.url).models() == ["acme/model-7b", "tuned"]


def test_a_server_takes_adapters_if_it_knows_what_an_empty_load_lacks(peer: Peer) -> None:
    for status, takes in ((400, True), (422, True), (404, False), (405, False), (200, False), (500, False)):
        peer.answer = lambda handler, status=status: respond(handler, status, {})  # type: ignore[misc]
        assert Client(peer.url).takes_adapters() is takes
    assert {path for path, _ in peer.asked} == {"/v1/load_lora_adapter"}
    assert all(body == {} for _, body in peer.asked)


def test_a_dead_engine_behind_an_open_door_is_not_healthy(peer: Peer) -> None:
    peer.answer = lambda handler: respond(handler, 503 if handler.path == "/health" else 200, {"data": []})
    assert Client(peer.url).health() == 503
    assert not Client(peer.url).healthy()


def test_a_server_without_a_health_page_is_asked_for_its_models(peer: Peer) -> None:
    peer.answer = lambda handler: respond(handler, 404 if handler.path == "/health" else 200, {"data": []})
    assert Client(peer.url).healthy()


def test_one_client_serves_several_event_loops(peer: Peer) -> None:
    peer.answer = events(delta("x", "stop"), USAGE)
    client = Client(peer.url)
    assert [stream(client)[1] for _ in range(3)] == ["", "", ""]


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (404, {"detail": "Not Found"}, "This server takes no adapters."),
        (405, {"detail": "Method Not Allowed"}, "This server takes no adapters."),
        (404, {"error": {"message": "Loading lora a-0 failed: No adapter found"}}, "refused the request (404)"),
        (500, {"detail": "oh"}, "refused the request (500)"),
    ],
)
def test_a_server_that_takes_no_adapters_is_told_from_one_that_refuses_this_one(
    peer: Peer, status: int, body: dict[str, Any], sentence: str
) -> None:
    peer.answer = lambda handler: respond(handler, status, body)
    with pytest.raises(UserError) as refused:
        Client(peer.url).post("/v1/load_lora_adapter", {"lora_name": "a-0", "lora_path": "/a-0"})
    assert sentence in str(refused.value)
