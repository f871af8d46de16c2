"""A server that misbehaves on demand, adapters small enough to make in a test, and the shapes of a small model."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, local
from typing import Any

import pytest

from annotation.files import sha256_of
from annotation.types import utc_now
from serving.attestation import ATTESTED
from training.types import Adapter, SftConfig

Answer = Callable[[BaseHTTPRequestHandler], None]
SHAPES = {"model.layers.0.self_attn.q_proj.weight": [16, 8], "model.layers.0.mlp.down_proj.weight": [8, 24]}


class Peer:
    """An HTTP server on this machine whose every answer is given by `answer`; `asked` holds the bodies it was sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer: Answer = lambda handler: respond(handler, 404, {})
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.now = local()
        """`now.body`: what is being answered in this thread."""


def respond(handler: BaseHTTPRequestHandler, status: int, body: Any, kind: str = "application/json") -> None:
    """Send one answer; a `str` goes out as it is, anything else as JSON."""
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@contextmanager
def running_peer() -> Iterator[Peer]:
    """A misbehaving server."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            found.now.body = json.loads(self.rfile.read(length) or b"{}")
            found.asked.append((self.path, found.now.body))
            found.answer(self)

        do_GET = do_POST

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Peer(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A misbehaving server."""
    with running_peer() as found:
        yield found


class FakeEngine:
    """vLLM's adapter calls and its scores, with its answers. `moves`: by how many nats an adapter moves each token."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.held: list[str] = []
        self.paths: dict[str, str] = {}
        self.refuses = ""
        self.moves: dict[str, float] = {}
        self.moves_on_load: dict[str, float] = {}
        self.silent = False  # about how likely a text is
        self.metrics = ""
        self.attests = True

    def _entry(self, name: str) -> dict[str, str]:
        return {"id": name, "parent": "base", "root": self.paths.get(name, "")}

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/v1/models":
            entries = [{"id": "base"}, *(self._entry(name) for name in self.held)]
            return respond(handler, 200, {"data": entries})
        if handler.path == "/metrics" and self.metrics:
            return respond(handler, 200, self.metrics, "text/plain; version=0.0.4")
        if handler.path == ATTESTED:
            return respond(handler, 200 if self.attests else 404, {"base_sha256": "b"} if self.attests else {})
        body = self._peer.now.body
        if handler.path == "/tokenize":
            return respond(handler, 200, {"tokens": [1, 2, 3]})
        if handler.path == "/v1/completions" and self.silent:
            return respond(handler, 400, {"error": {"message": "prompt_logprobs is not supported"}})
        if handler.path == "/v1/completions":
            likely = -1.0 + self.moves.get(body["model"], 0.0)
            choices = [
                {"index": place, "prompt_logprobs": [None, *({str(token): {"logprob": likely}} for token in ids[1:])]}
                for place, ids in enumerate(body["prompt"])
            ]
            return respond(handler, 200, {"choices": choices})
        if "lora_name" not in body:
            return respond(handler, 400, {"error": {"message": "Both 'lora_name' and 'lora_path' must be provided."}})
        name = body["lora_name"]
        if handler.path == "/v1/unload_lora_adapter":
            self.held.remove(name)
        elif self.refuses:
            return respond(handler, 500, {"error": {"message": self.refuses}})
        elif name in self.held:
            return respond(handler, 400, {"error": {"message": f"{name} has already been loaded."}})
        else:
            assert "load_inplace" not in body
            self.held.append(name)
            self.moves |= self.moves_on_load
            self.paths[name] = body["lora_path"]
        return respond(handler, 200, "Success", "text/plain")


def write_tensors(path: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file of zeros (float32) with these names and shapes."""
    header, offset = {}, 0
    for name, (rows, columns) in shapes.items():
        end = offset + 4 * rows * columns
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [offset, end]}
        offset = end
    content = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + bytes(offset))


def make_adapter(
    root: Path,
    name: str = "r1-0",
    base: dict[str, list[int]] = SHAPES,
    base_name: str = "Small",
    rank: int = 4,
    **settings: Any,
) -> Adapter:
    """Publish an adapter of zeros for a model with the shapes `base`, with `settings` in its adapter_config.json."""
    folder = root / name
    folder.mkdir(parents=True)
    shapes = {}
    for layer, (out, into) in base.items():
        under = f"base_model.model.{layer.removesuffix('.weight')}"
        shapes |= {f"{under}.lora_A.weight": [rank, into], f"{under}.lora_B.weight": [out, rank]}
    write_tensors(folder / "adapter_model.safetensors", shapes)
    plain = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "bias": "none", "target_modules": ["q_proj", "down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(plain | settings))
    return keep_lineage(folder, base_name, rank)


def keep_lineage(folder: Path, base_name: str, rank: int, base_model: str = "small") -> Adapter:
    """Write `lineage.json` for the weights in `folder`."""
    config = SftConfig(
        run_name=folder.name,
        dataset_dir=folder,
        dataset_id="ds-1",
        dataset_sha256="0",
        base_model=base_model,
        base_name=base_name,
        adapters_dir=folder.parent,
    )
    adapter = Adapter(
        name=folder.name,
        path=folder,
        base_name=base_name,
        base_model=base_model,
        base_revision=None,
        rank=rank,
        run_id="run",
        dataset_id="ds-1",
        dataset_sha256="0",
        charter_version=1,
        weights_sha256=sha256_of(folder / "adapter_model.safetensors"),
        created_at=utc_now(),
        config=config,
        versions={},
    )
    (folder / "lineage.json").write_text(adapter.model_dump_json())
    return adapter
