"""The charter: read it, change it, see what a change makes stale, and ask for that again."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import AwareDatetime

from annotation.charter import (
    Change,
    Combination,
    compare,
    parse_markdown,
    parse_toml,
    stale_combinations,
    write_markdown,
    write_toml,
)
from annotation.errors import UserError, refuse_nul
from annotation.people import Person
from annotation.store import Store
from annotation.types import Charter, Frozen, Question, Value

LISTED = 50
"""Answers that are shown one by one."""


class VersionCard(Frozen):
    """One version, in a line."""

    version: int
    name: str
    author: str
    made_at: AwareDatetime


class Consequence(Frozen):
    """What a new version would change, and which earlier answers it would make stale."""

    charter: Charter
    changes: tuple[Change, ...]
    replies: int
    """Replies with an answer that no longer holds."""
    answers: int


class StaleAnswer(Frozen):
    """One answer that no longer holds."""

    reply_id: str
    reviewer: str
    question: Question
    value: Value
    clause_ids: tuple[str, ...]
    made_under: int
    """The charter version."""
    reply: str
    """Its beginning."""


class Stale(Frozen):
    """The answers that no longer hold, the first of them one by one."""

    answers: int = 0
    replies: int = 0
    first: tuple[StaleAnswer, ...] = ()


class CharterService:
    """What the Charter page and `tonesmith charter` call, for one person."""

    def __init__(self, store: Store, who: Person) -> None:
        self._store = store
        self._who = who

    def current(self) -> Charter | None:
        """The newest version, None if there is none yet."""
        self._who.must("look")
        return self._store.charters.current()

    def versions(self) -> list[VersionCard]:
        """All versions, newest first."""
        self._who.must("look")
        return [VersionCard(**row) for row in self._store.charters.cards()]

    def get(self, version: int) -> Charter:
        """One version. Raises NotFound."""
        self._who.must("look")
        return self._store.charters.get(version)

    def between(self, old: int, new: int) -> tuple[Change, ...]:
        """What changed from one version to another. Raises NotFound."""
        return compare(self.get(old), self.get(new))

    def as_text(self, version: int, form: str) -> str:
        """A version as a file people can edit: `toml` or `md`."""
        charter = self.get(version)
        return write_toml(charter) if form == "toml" else write_markdown(charter)

    def read(self, text: str, form: str) -> Charter:
        """A charter out of an edited text. Raises UserError that lists what is wrong, with lines."""
        self._who.must("look")
        if not text.strip():
            raise UserError("There is no text.", "A charter.", "Write one, or load an example.")
        charter = parse_toml(text, "The text") if form == "toml" else parse_markdown(text, "The text")
        refuse_nul(charter.model_dump())
        return charter

    def consequence(self, charter: Charter) -> Consequence:
        """What keeping `charter` as the next version would mean. Nothing is kept yet."""
        self._who.must("look")
        newest = self._store.charters.current()
        if newest is None:
            return Consequence(charter=charter, changes=(), replies=0, answers=0)
        stale = self._stale(self._history(charter))
        return Consequence(
            charter=charter,
            changes=compare(newest, charter),
            replies=len(self._replies(stale)),
            answers=sum(stale.values()),
        )

    def stale(self, charter: Charter | None = None, limit: int = LISTED) -> Stale:
        """The answers that no longer hold and are not asked again yet; with `charter`, those that would not if it were
        the next version. It names who answered what, so it is for curators.
        """
        self._who.must("curate")
        stale = self._stale(self._history(charter))
        first: list[StaleAnswer] = []
        for question, value, clause_ids, version in stale:
            left = limit - len(first)
            found = self._store.figures.answers_with(question, value, clause_ids, version, left) if left else []
            said = {"question": question, "value": value, "clause_ids": clause_ids, "made_under": version}
            first += [
                StaleAnswer.model_validate(said | {"reply_id": reply_id, "reviewer": reviewer, "reply": reply})
                for reply_id, reviewer, reply in found
            ]
        return Stale(answers=sum(stale.values()), replies=len(self._replies(stale)), first=tuple(first))

    def save(self, charter: Charter, ask_again: bool = True, based_on: int | None = None) -> Charter:
        """Keep `charter` as the next version, and queue again every reply with an answer it makes stale.

        The same charter again makes no new version; what a crash left unqueued is queued then. `based_on` is the
        version it was made from, 0 where there was none yet, None where that is not known. Raises Conflict if there is
        a newer one than that.
        """
        self._who.must("curate")
        refuse_nul(charter.model_dump())
        kept = self._store.charters.add(charter, self._who.name, based_on)
        if ask_again:
            self.ask_stale_again()
        return kept

    def ask_stale_again(self) -> int:
        """Queue every reply with a stale answer, for whoever gave it; returns how many replies. What others said about
        them still holds. Those queued already are not stale any more.
        """
        self._who.must("curate")
        history = self._history()
        if not history:
            return 0
        stale: dict[tuple[str, str], set[Question]] = {}
        for key in self._stale(history):
            for reply_id, reviewer in self._store.figures.given_by(*key):
                stale.setdefault((reply_id, reviewer), set()).add(key[0])
        groups: dict[tuple[tuple[Question, ...], str], list[str]] = {}
        for (reply_id, reviewer), questions in stale.items():
            groups.setdefault((tuple(sorted(questions)), reviewer), []).append(reply_id)
        why = f"the house rules changed (version {history[-1].version})"
        for (asked, reviewer), reply_ids in groups.items():
            self._store.reviews.requeue(reply_ids, asked, self._who.name, why, of=reviewer)
        return len({reply_id for reply_id, _ in stale})

    def _history(self, charter: Charter | None = None) -> list[Charter]:
        """All versions; with `charter` as one more after them."""
        history = self._store.charters.all()
        following = history[-1].version + 1 if history else 1
        return [*history, charter.model_copy(update={"version": following})] if charter else history

    def _replies(self, stale: Iterable[Combination]) -> set[str]:
        return {reply_id for key in stale for reply_id, _ in self._store.figures.given_by(*key)}

    def _stale(self, history: list[Charter]) -> dict[Combination, int]:
        """Each different answer that no longer holds, and how many there are of it."""
        if len(history) < 2:
            return {}
        counts: dict[Combination, int] = {
            (question, value, clauses, version): number  # type: ignore[misc]
            for question, value, clauses, version, number in self._store.figures.cited(history[-1].version)
        }
        return {key: counts[key] for key in sorted(stale_combinations(counts, history))}
