"""No word from other weights than were asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from annotation.errors import Conflict, UserError
from annotation.types import ChatModel, Chunk, Message, Provenance, Sampling, Weights
from serving.engine import BASE
from serving.memory import Memory


class Checked:
    """A model that remembers which adapter was asked for a reply, and passes on no word from other weights.

    `silence` says whether it may keep to itself which weights answer: a server that is not ours may.
    """

    def __init__(
        self, model: ChatModel, memory: Memory, identify: Callable[[str], Provenance], silence: bool = True
    ) -> None:
        self._model = model
        self._memory = memory
        self._identify = identify
        self._silence = silence

    async def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        if model != BASE:
            self._memory.note(model)
        wanted = self._identify(model)
        async for chunk in self._model.stream(messages, model=model, sampling=sampling):
            must_be(model, wanted, chunk.weights, self._silence)
            yield chunk


def must_be(model: str, wanted: Provenance, said: Weights | None, silence: bool) -> None:
    """Raise UserError if the weights that answered are not those that were asked for, or if the engine says nothing of
    them and `silence` is not allowed.
    """
    if said is None:
        if silence:
            return
        raise UserError(
            "The engine does not say which weights answered.",
            "An engine of this release, started from here: it says so with every answer.",
            "Run `tonesmith down`, then `tonesmith up`. Nothing of this answer was kept.",
        )
    if said.adapter_sha256 != wanted.weights_sha256:
        raise UserError(
            f"{model} is not what answered: the engine says it used {_by_hash(said.adapter_sha256)}.",
            f"{model}, {_by_hash(wanted.weights_sha256)}.",
            "Take it out on the Models page and load it again. Nothing of this answer was kept.",
        )
    if wanted.base_sha256 not in (None, said.base_sha256):
        raise UserError(
            f"The engine answers from a base model with the hash {said.base_sha256[:12]}….",
            f"{wanted.model}, with the hash {wanted.base_sha256[:12]}….",
            "The model's files have changed: put them back, or restart the studio and its engine to use the new ones. "
            "Nothing of this answer was kept.",
        )


def must_count(made: Provenance, sound: Callable[[str], None]) -> None:
    """Raise Conflict, without telling which side it is, for a reply of an adapter that is not `sound`."""
    try:
        if made.adapter:
            sound(made.adapter)
    except UserError as error:
        raise Conflict(
            "One of these models is not served as it was trained, so these replies can't be voted on.",
            do="Ask a curator to look at the Models page, and compare others meanwhile.",
        ) from error


def _by_hash(sha256: str | None) -> str:
    return f"the adapter with the hash {sha256[:12]}…" if sha256 else "the base model alone"
