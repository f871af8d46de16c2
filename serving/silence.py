"""Whether a server that is not ours still works, though its front door answers: by what it tells, and our own wait."""

from __future__ import annotations

import time

from annotation.errors import UserError
from serving.client import Client
from serving.metrics import Figures, figures

STUCK_SECONDS = 20.0
"""An engine whose front door answers, but which itself has been silent for so long, does not answer; no step lasts that
long.
"""
NO_WORD_SECONDS = 60.0
"""The same where only its count of tokens tells, which does not move while a long prompt is read."""


class Silence:
    """Looks again and again; `under_way` holds our own requests to that server, as `Client` notes them."""

    def __init__(self, client: Client) -> None:
        self.under_way: set[object] = set()
        self._client = client
        self._well = time.monotonic()
        self._tokens = -1.0
        self._moved = 0.0

    def trouble(self, plugin: bool) -> str:
        """Why it can't answer, in a sentence, '' if nothing speaks against it; asks it, at most a few seconds.

        `/health` of a vLLM says 503 once its engine is dead, but 200 while that hangs. Then our `plugin` there tells it
        (`serving.beating`), and without one, that no token is counted while we are owed a reply.
        """
        health, now = self._client.health(), time.monotonic()
        if health is not None and health >= 500:
            return f"It lists its models, but says that it can't answer ({health})."
        if health is not None:
            self._well = now
        silent = self._client.silent_seconds() if plugin and health is not None else now - self._well
        if silent > STUCK_SECONDS:
            return f"It lists its models, but has not worked on anything for {silent:.0f} s."
        if not plugin and (owing := self._owing_seconds()) > NO_WORD_SECONDS:
            return f"It takes requests, but has neither read nor written a word for {owing:.0f} s."
        return ""

    def _owing_seconds(self) -> float:
        """For how long it has counted no token while a request of ours was under way; 0 where it tells no figures."""
        found = self._figures() if self.under_way else None
        if found is None:
            self._tokens = -1.0
            return 0.0
        now, tokens = time.monotonic(), found.prompt_tokens + found.generation_tokens
        if tokens != self._tokens:
            self._tokens, self._moved = tokens, now
        return now - self._moved

    def _figures(self) -> Figures | None:
        try:
            return figures(str(self._client.get("/metrics")), time.monotonic())
        except UserError:
            return None
