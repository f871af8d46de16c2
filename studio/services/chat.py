"""Talk to the base or an adapter; every reply is kept, also the stopped and the broken ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial

from annotation.errors import UserError, refuse_nul
from annotation.people import Person
from annotation.store import Store
from annotation.store.conversations import new_turn
from annotation.store.part import new_id
from annotation.store.reviews import ReviewAct, Thumb
from annotation.types import ChatModel, Chunk, Conversation, Finish, Frozen, Provenance, Sampling, Turn

MESSAGE_LIMIT = 20_000
"""Longest message a person can send, in characters."""
HEAD_START_SECONDS = 0.02
"""What asking the engine has of it before a message is written down: two threads of Python hold each other up."""
Keep = Callable[[], None]
"""Writes down what a person did."""
Piece = tuple[Provenance, Chunk]
"""Of a reply, with whose it is."""


class LiveReply(Frozen):
    """A reply while it grows. `turn` is set once it is kept; `problem` says why it broke off.

    `said` is what it answers, from the first message on; it comes once, before any text, when all of it is kept.
    """

    conversation_id: str
    text: str
    said: tuple[Turn, ...] = ()
    turn: Turn | None = None
    problem: str | None = None


class ChatService:
    """What the Chat page and `tonesmith chat` call.

    `identify(model)` gives the provenance (without sampling and time) of `base` or an adapter's name; `resolve(model)`
    makes such a name of an alias.
    """

    def __init__(
        self,
        store: Store,
        model: Callable[[], ChatModel],
        identify: Callable[[str], Provenance],
        who: Person,
        charter_version: Callable[[], int],
        resolve: Callable[[str], str] = str,
    ) -> None:
        self._store = store
        self._model = model
        self._identify = identify
        self._who = who
        self._charter_version = charter_version
        self._resolve = resolve

    def recent(self) -> list[tuple[str, str]]:
        """(id, title) of the latest chats, newest first."""
        self._who.must("look")
        return self._store.conversations.recent("chat")

    def open(self, conversation_id: str) -> Conversation:
        """A chat along its current path. Raises NotFound."""
        self._who.must("look")
        return self._store.conversations.get(conversation_id)

    async def send(
        self, conversation_id: str | None, text: str, model: str, sampling: Sampling
    ) -> AsyncIterator[LiveReply]:
        """Add a message and stream the reply. With an empty `text` the last message is asked again, if its reply never
        came.

        The message is kept before anything is shown of its reply. Raises UserError for an overlong message, and for an
        empty one where nothing waits for a reply.
        """
        self._who.must("judge")
        if conversation_id is None:
            path = [new_turn(new_id(), None, "user", _checked(text))]
            keep: Keep = partial(self._store.conversations.begin, "chat", path[0])
        else:
            path = list((await asyncio.to_thread(self._store.conversations.get, conversation_id)).turns)
            keep = self._say(conversation_id, path, text)
        async with aclosing(self._answer(path, keep, model, sampling)) as lives:
            async for live in lives:
                yield live

    def _say(self, conversation_id: str, path: list[Turn], text: str) -> Keep:
        """Put a message at the end of `path`; returns what keeps it."""
        if path and path[-1].role == "user":  # its reply never came: ask it again, or something else beside it
            if not text.strip():
                return _nothing
            path.pop()
        path.append(new_turn(conversation_id, path[-1].id if path else None, "user", _checked(text)))
        return partial(self._store.conversations.add, path[-1])

    async def retry(
        self, conversation_id: str, reply_index: int, model: str, sampling: Sampling
    ) -> AsyncIterator[LiveReply]:
        """Answer again at `reply_index` (place in the path, a user's or a reply's); the old reply is kept beside."""
        self._who.must("judge")
        path = list(self._store.conversations.get(conversation_id).turns[: reply_index + 1])
        while path and path[-1].role != "user":
            path.pop()
        if not path:
            raise UserError("There is nothing to answer again.", do="Send a message first.")
        keep = partial(self._store.conversations.set_head, conversation_id, path[-1].id)
        async with aclosing(self._answer(path, keep, model, sampling)) as lives:
            async for live in lives:
                yield live

    async def edit(
        self, conversation_id: str, index: int, text: str, model: str, sampling: Sampling
    ) -> AsyncIterator[LiveReply]:
        """Say something else at place `index` and go on from there; what was said before is kept beside."""
        self._who.must("judge")
        turns = self._store.conversations.get(conversation_id).turns
        edited = new_turn(conversation_id, turns[index].parent_id, "user", _checked(text))
        keep = partial(self._store.conversations.add, edited)
        async with aclosing(self._answer((*turns[:index], edited), keep, model, sampling)) as lives:
            async for live in lives:
                yield live

    async def _answer(
        self, turns: Sequence[Turn], keep: Keep, model: str, sampling: Sampling
    ) -> AsyncGenerator[LiveReply, None]:
        """Have `keep` write down what was said, and stream the reply to it."""
        conversation_id, shown, started = turns[-1].conversation_id, False, time.monotonic()
        text, finish, problem, provenance = "", None, None, None

        def kept(otherwise: Finish) -> Turn | None:
            return self._keep(turns, text, provenance, sampling, finish or otherwise, started)

        try:
            async with aclosing(_meanwhile(keep, self._pieces(turns, model, sampling))) as pieces:
                async for piece in pieces:
                    if piece is None:
                        shown = True
                        yield LiveReply(conversation_id=conversation_id, text="", said=tuple(turns))
                        continue
                    provenance, chunk = piece
                    text += chunk.text
                    finish = chunk.finish or finish
                    if chunk.text:
                        yield LiveReply(conversation_id=conversation_id, text=text)
        except UserError as error:
            if not shown:  # what was said could not be kept
                raise
            finish, problem = "error", str(error)
        except BaseException:  # the person pressed 'stop', which closes this generator: there may be no loop any more
            kept("stopped")
            raise
        turn = await asyncio.to_thread(kept, "stopped")
        yield LiveReply(conversation_id=conversation_id, text=text, turn=turn, problem=problem)

    async def _pieces(self, turns: Sequence[Turn], model: str, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        model = self._resolve(model)  # to the name of what answers, which is what is kept beside the reply
        made = self._identify(model)
        async for chunk in self._model().stream([turn.as_message() for turn in turns], model=model, sampling=sampling):
            if chunk.weights != made.attested:
                made = made.model_copy(update={"attested": chunk.weights})
            yield made, chunk

    def _keep(
        self,
        turns: Sequence[Turn],
        text: str,
        provenance: Provenance | None,
        sampling: Sampling,
        finish: Finish,
        started: float,
    ) -> Turn | None:
        if not text.strip() or provenance is None:
            return None
        drawn = {"sampling": sampling, "seconds": round(time.monotonic() - started, 3), "finish": finish}
        parent = turns[-1]
        return self._store.conversations.add_turn(
            parent.conversation_id, parent.id, "assistant", text, provenance.model_copy(update=drawn)
        )

    def correct(self, act_id: str, reply_id: str, after: str) -> Turn:
        """Keep a reply as it should have been, and go on from there; returns the turn that now stands in its place.

        Raises UserError if nothing changed.
        """
        self._who.must("judge")
        refuse_nul(after)
        shown = self._store.conversations.turn(reply_id)
        made = shown.provenance
        # A correction of a correction is still about what the model said.
        model_said = made.corrects if made and made.corrects else reply_id
        if not after.strip():
            raise UserError("The corrected reply is empty.", "What the model should have said.", "Write it, then save.")
        if after.strip() == shown.text.strip():
            raise UserError("The reply is unchanged.", do="Edit it, then save.")
        self._store.reviews.save(
            ReviewAct(
                act_id=act_id,
                reply_id=model_said,
                reviewer=self._who.name,
                charter_version=self._charter_version(),
                correction=after,
                origin="chat",
                route="search",
            )
        )
        provenance = Provenance(model=f"person:{self._who.name}", corrects=model_said)
        return self._store.conversations.add_turn(
            shown.conversation_id, shown.parent_id, "assistant", after.strip(), provenance
        )

    def react(self, reply_id: str, thumb: Thumb) -> None:
        """Keep a thumb."""
        self._who.must("judge")
        self._store.reviews.react(reply_id, thumb, self._who.name)


async def _meanwhile(keep: Keep, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece | None, None]:
    """The engine is asked for `pieces` while `keep` writes; the first that comes is None, when that is done."""
    async with aclosing(pieces):
        first = asyncio.ensure_future(_next(pieces))
        try:
            await asyncio.wait({first}, timeout=HEAD_START_SECONDS)
            await asyncio.to_thread(keep)
            yield None
            piece = await first
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        if piece:
            yield piece
        async for piece in pieces:
            yield piece


async def _next(pieces: AsyncIterator[Piece]) -> Piece | None:
    return await anext(pieces, None)


def _nothing() -> None:
    """Keeps a message that is kept already."""


def _checked(text: str) -> str:
    text = text.strip()
    refuse_nul(text)
    if not text:
        raise UserError("There is no message to send.", do="Write one first.")
    if len(text) > MESSAGE_LIMIT:
        raise UserError(
            f"The message has {len(text):,} characters.", f"At most {MESSAGE_LIMIT:,}.", "Shorten it and send again."
        )
    return text
