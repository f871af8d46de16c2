"""The peer: vLLM's own door, with httpx and nothing else between."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import httpx

from benchmarks.served import Fixed


@dataclass(frozen=True)
class Timed:
    """One reply: seconds to its first piece and to its end."""

    first: float
    whole: float

    @property
    def after_first(self) -> float:
        """From the first piece to the end, which is what the pace is taken from."""
        return self.whole - self.first


def client(url: str) -> httpx.AsyncClient:
    """As one would open it, once, and keep it open."""
    return httpx.AsyncClient(base_url=url, timeout=300.0, trust_env=False, limits=httpx.Limits(max_connections=None))


async def reply(http: httpx.AsyncClient, model: str, text: str, sampling: Fixed) -> Timed:
    """Ask for one reply and read it piece by piece."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling.model_dump(exclude_none=True),
    }
    began, first, tokens = time.perf_counter(), 0.0, 0
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if not first and event["choices"] and event["choices"][0]["delta"].get("content"):
                first = time.perf_counter() - began
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    if tokens != sampling.max_tokens:
        raise RuntimeError(f"{tokens} tokens came, not {sampling.max_tokens}")
    return Timed(first, time.perf_counter() - began)
