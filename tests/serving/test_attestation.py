"""What the engine says about its weights: what was read, not what lies there now, on the answers it belongs to."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from annotation.types import Weights
from serving import attestation
from serving.attestation import HEADER, Attesting
from training.weights import ADAPTER_FILE, digest


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def folder(root: Path, name: str, file: str, content: bytes) -> Path:
    (root / name).mkdir()
    (root / name / file).write_bytes(content)
    return root / name


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(attestation.FOLDER, str(tmp_path / "notes"))
    return folder(tmp_path, "base", "model.safetensors", b"base")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return folder(tmp_path, "tuned", ADAPTER_FILE, b"tuned")


def ask(base: Path, adapters: dict[str, Path], path: str, *body: bytes) -> tuple[Weights | None, bytes]:
    """What the middleware put on an answer, and the body that the application behind it got."""
    got, headers = bytearray(), {}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            got.extend(message["body"])
            more = message["more_body"]
        assert (await receive())["type"] == "http.disconnect", "what comes after the body is passed on"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    messages = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    messages[-1]["more_body"] = False
    waiting = iter([*messages, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(waiting)

    async def send(message: dict[str, Any]) -> None:
        headers.update({name.decode(): value.decode() for name, value in message.get("headers", ())})

    requests = {name: SimpleNamespace(lora_path=str(path)) for name, path in adapters.items()}
    state = SimpleNamespace(
        vllm_config=SimpleNamespace(model_config=SimpleNamespace(model=str(base))),
        openai_serving_models=SimpleNamespace(lora_requests=requests),
    )
    scope = {"type": "http", "path": path, "app": SimpleNamespace(state=state)}
    asyncio.run(Attesting(application)(scope, receive, send))
    assert headers["a"] == "b"
    return attestation.said(headers), bytes(got)


def chat(model: str) -> bytes:
    return json.dumps({"model": model, "messages": []}).encode()


def test_an_answer_says_whose_it_is_and_the_request_goes_through_whole(base: Path, adapter: Path) -> None:
    attestation.note(base)
    attestation.note(adapter)
    said, got = ask(base, {"tuned-1": adapter}, "/v1/chat/completions", chat("tuned-1")[:9], chat("tuned-1")[9:])
    assert said == Weights(base_sha256=hash_of(b"base"), adapter_sha256=hash_of(b"tuned"))
    assert got == chat("tuned-1")
    said, _ = ask(base, {"tuned-1": adapter}, "/v1/completions", chat("base"))
    assert said == Weights(base_sha256=hash_of(b"base"))


def test_what_was_read_counts_not_what_lies_there_now(base: Path, adapter: Path) -> None:
    attestation.note(base)
    attestation.note(adapter)
    (adapter / ADAPTER_FILE).write_bytes(b"something else")
    said, _ = ask(base, {"tuned-1": adapter}, "/v1/chat/completions", chat("tuned-1"))
    assert said is not None
    assert said.adapter_sha256 == hash_of(b"tuned")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', chat("tuned-1")])
def test_what_is_not_known_is_not_said(base: Path, adapter: Path, body: bytes) -> None:
    attestation.note(base)  # and not the adapter
    assert ask(base, {"tuned-1": adapter}, "/v1/chat/completions", body) == (None, body)


def test_other_addresses_are_left_alone(base: Path) -> None:
    attestation.note(base)
    assert ask(base, {}, "/v1/models", chat("base"))[0] is None


def test_a_model_in_several_files_has_one_hash_that_knows_them_all(tmp_path: Path) -> None:
    parts = folder(tmp_path, "big", "model-1.safetensors", b"one")
    (parts / "model-2.safetensors").write_bytes(b"two")
    before = digest(parts)
    (parts / "model-2.safetensors").write_bytes(b"three")
    assert digest(parts) != before


def test_an_engine_that_is_not_ours_keeps_no_notes(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(attestation.FOLDER, raising=False)
    assert attestation.note(adapter) is None
    assert attestation.noted(adapter) is None


@pytest.mark.parametrize("header", ["", "adapter=1", "nonsense"])
def test_a_server_that_does_not_say_attests_nothing(header: str) -> None:
    assert attestation.said({HEADER: header} if header else {}) is None
