"""Let a model say what it thinks of replies. Suggestions only: shown with their author and score, never counted."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from threading import Event, Lock

from annotation.acts import QUESTIONS
from annotation.errors import Conflict, UserError
from annotation.people import Person
from annotation.store import Store
from annotation.store.helpers import Suggestion
from annotation.store.search import Filter
from annotation.types import Axis, Charter, ChatModel, Clause, Conversation, Frozen, Message, Question, Sampling, Trait
from studio.services.background import Background

SAMPLES = 3
"""Answers drawn for one suggestion; the score is the share of them that say the same."""
ASKED: dict[Question, str] = {
    "voice": "Which of these rules of brand voice does the reply break?",
    "policy": "Which of these policy rules does the reply break?",
    "bias": "In which of these ways is the reply unfair?",
}


class Progress(Frozen):
    """How far a batch of suggestions has come."""

    done: int
    of: int


class SuggestService:
    """What `tonesmith suggest` calls, for one person."""

    def __init__(self, store: Store, who: Person, model: Callable[[], ChatModel]) -> None:
        self._store = store
        self._who = who
        self._model = model

    async def suggest(self, wanted: Filter, model: str, limit: int) -> AsyncIterator[Progress]:
        """Ask `model` (`base` or a loaded adapter) about up to `limit` replies of a filter, one after another.

        Each reply is kept as it is answered, and one that this model has spoken about is passed over, so that an
        interrupted batch goes on where it was. Raises UserError without a charter or an engine.
        """
        self._who.must("curate")
        charter = self._store.charters.current()
        if charter is None:
            raise UserError("There is no charter to judge by.", do="Write one on the Charter page.")
        author = f"model:{model}"
        hits = self._store.search.find(wanted, limit=limit)
        for number, hit in enumerate(hits):
            yield Progress(done=number, of=len(hits))
            if any(one.author == author for one in self._store.helpers.suggestions(hit.reply_id)):
                continue
            conversation = self._store.conversations.of_reply(hit.reply_id)
            found = [await self._about(question, charter, conversation, model) for question in QUESTIONS]
            self._store.helpers.suggest(hit.reply_id, author, [one for one in found if one])
        yield Progress(done=len(hits), of=len(hits))

    async def _about(
        self, question: Question, charter: Charter, conversation: Conversation, model: str
    ) -> Suggestion | None:
        rules: Sequence[Trait | Clause | Axis] = getattr(charter, question)
        if not rules:
            return None
        prompt = [Message(role="user", text=question_text(question, rules, conversation))]
        answers = []
        for seed in range(SAMPLES):
            text = ""
            sampling = Sampling(temperature=0.7, max_tokens=40, seed=seed)
            async for chunk in self._model().stream(prompt, model=model, sampling=sampling):
                text += chunk.text
            answers.append(rules_named(text, [rule.id for rule in rules]))
        return consensus(question, answers, f"model:{model}")


class BatchView(Frozen):
    """Where the batch in the background stands."""

    running: bool = False
    model: str = ""
    done: int = 0
    of: int = 0
    eta_seconds: float | None = None
    trouble: str = ""
    """Why it stopped, where nobody wanted it to."""


class SuggestBatch:
    """One batch of suggestions at a time, in a thread of the studio: closing the page does not stop it."""

    def __init__(self, store: Store, model: Callable[[], ChatModel]) -> None:
        self._store = store
        self._model = model
        self._one = Lock()
        self._cancelled = Event()
        self._job: tuple[SuggestService, Filter, int] | None = None
        self._thread = Background("suggest", self._work, self._over)
        self._view = BatchView()

    def start(self, by: Person, wanted: Filter, model: str, limit: int) -> None:
        """Begin. Raises Forbidden, Conflict while another batch runs, UserError without a charter."""
        by.must("curate")
        if self._store.charters.current() is None:
            raise UserError("There is no charter to judge by.", do="Write one on the Charter page.")
        with self._one:
            if self._view.running:
                raise Conflict(f"{self._view.model} is being asked already.", do="Wait for it, or stop it.")
            self._cancelled.clear()
            self._view = BatchView(running=True, model=model)
            self._job = (SuggestService(self._store, by, self._model), wanted, limit)
            self._thread.wake()

    def cancel(self, by: Person) -> None:
        """Stop after the reply that is being asked about; what was suggested stays."""
        by.must("curate")
        self._cancelled.set()

    def view(self) -> BatchView:
        """Where it stands."""
        return self._view

    def close(self) -> None:
        """Stop, and wait a little for it."""
        self._thread.close()

    def _work(self) -> None:
        job, self._job = self._job, None
        if job:
            asyncio.run(self._follow(*job))
            self._over()

    def _over(self, trouble: str = "") -> None:
        self._view = self._view.model_copy(update={"running": False, "eta_seconds": None, "trouble": trouble})

    async def _follow(self, service: SuggestService, wanted: Filter, limit: int) -> None:
        began = time.monotonic()
        async for step in service.suggest(wanted, self._view.model, limit):
            left = (time.monotonic() - began) / step.done * (step.of - step.done) if step.done else None
            now = {"done": step.done, "of": step.of, "eta_seconds": left}
            self._view = self._view.model_copy(update=now)
            if self._cancelled.is_set() or self._thread.stopping:
                return


def question_text(question: Question, rules: Sequence[Trait | Clause | Axis], conversation: Conversation) -> str:
    """What the model is asked: the rules by id, the last message and the reply, and the form of the answer."""
    listed = "\n".join(f"- {rule.id}: {rule.text}" for rule in rules)
    *before, reply = conversation.turns
    asked = next((turn.text for turn in reversed(before) if turn.role == "user"), "")
    return (
        f"{ASKED[question]}\n\n{listed}\n\nCustomer: {asked}\n\nReply: {reply.text}\n\n"
        "Answer with the ids of the rules it breaks, separated by commas, or with the word none."
    )


def rules_named(answer: str, ids: Sequence[str]) -> tuple[str, ...] | None:
    """The rules an answer names; empty for 'none', None where it says neither."""
    named = tuple(one for one in ids if re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", answer))
    if named:
        return named
    return () if re.search(r"\bnone\b", answer, re.IGNORECASE) else None


def consensus(question: Question, answers: Sequence[tuple[str, ...] | None], author: str) -> Suggestion | None:
    """The commonest answer, with its share of all answers as the score; None where no answer could be read."""
    readable = [answer for answer in answers if answer is not None]
    if not readable:
        return None
    answer, times = Counter(readable).most_common(1)[0]
    return Suggestion(
        question=question,
        value="fail" if answer else "pass",
        clause_ids=answer,
        why=f"{'breaks ' + ', '.join(answer) if answer else 'nothing broken'}",
        score=round(times / len(answers), 2),
        author=author,
    )
