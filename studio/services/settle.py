"""Settle what reviewers differ about: all their answers side by side, lowest agreement first."""

from __future__ import annotations

from dataclasses import dataclass

from annotation.acts import Resolved, Standing
from annotation.errors import Conflict, UserError, refuse_nul
from annotation.people import Person
from annotation.store import Store
from annotation.store.reviews import ReviewAct, Verdict
from annotation.types import Charter, Conversation, Question
from studio.services.review import check_rules


@dataclass(frozen=True)
class Dispute:
    """A reply over which reviewers differ."""

    reply_id: str
    conversation: Conversation
    standing: Standing
    """Who said what; `resolved()` gives what is agreed and what is open."""

    def resolved(self) -> dict[Question, Resolved]:
        """One answer a question, with how it came about."""
        return self.standing.resolved()


class SettleService:
    """What the Settle page calls, for one curator."""

    def __init__(self, store: Store, who: Person) -> None:
        self._store = store
        self._who = who

    def waiting(self, after: str | None = None) -> list[tuple[str, float]]:
        """(reply, agreement 0 to 1), lowest agreement first: the first fifty of all, or after one of them."""
        self._who.must("curate")
        return self._store.tasks.disputed(after=after)

    def next(self, after: str | None = None) -> tuple[str, float] | None:
        """The first of them, or the one that comes `after` another; after the last from the start. None where nobody
        differs.
        """
        waiting = self.waiting(after) if after else []
        return next(iter(waiting or self.waiting()), None)

    def count(self) -> int:
        """How many there are."""
        self._who.must("look")
        return self._store.tasks.counts()["disputed"]

    def open(self, reply_id: str) -> Dispute:
        """One of them, with everybody's answers. Raises NotFound."""
        self._who.must("curate")
        return Dispute(
            reply_id=reply_id,
            conversation=self._store.conversations.of_reply(reply_id),
            standing=self._store.reviews.standing(reply_id),
        )

    def settle(
        self,
        reply_id: str,
        verdicts: tuple[Verdict, ...],
        correction: str | None = None,
        seconds: float | None = None,
        charter_version: int | None = None,
    ) -> None:
        """Decide, by the charter that was on screen (`charter_version`, None for the newest).

        Every question that was open must be answered. Raises UserError if one is not, or if a rule is cited that the
        charter does not have; Conflict if somebody else settled it meanwhile, or the rules changed.
        """
        self._who.must("curate")
        refuse_nul(correction, [verdict.note for verdict in verdicts])
        if self._store.tasks.state_of(reply_id)["state"] != "disputed":
            raise Conflict("There is no open difference on this reply any more.", do="Take the next one.")
        charter = self._charter()
        check_rules(verdicts, charter, self._store.charters.get(charter_version) if charter_version else None)
        self._check_answered(reply_id, verdicts)
        hold = self._store.tasks.claim_one(self._who, reply_id, adjudicate=True)
        self._store.reviews.save(
            ReviewAct(
                act_id=hold.id,
                reply_id=reply_id,
                reviewer=self._who.name,
                charter_version=charter.version,
                verdicts=verdicts,
                correction=correction,
                seconds=seconds,
                route="adjudication",
            )
        )

    def _charter(self) -> Charter:
        charter = self._store.charters.current()
        if charter is None:
            raise UserError("There is no charter yet.", "House rules to judge by.", "Write one on the Charter page.")
        return charter

    def _check_answered(self, reply_id: str, verdicts: tuple[Verdict, ...]) -> None:
        resolved = self._store.reviews.standing(reply_id).resolved()
        answered = {verdict.question for verdict in verdicts}
        if missing := sorted(name for name, found in resolved.items() if not found.value and name not in answered):
            raise UserError(
                f"The difference on {' and '.join(missing)} is still open.",
                "An answer to each question that reviewers differ on.",
                "Choose one, then settle.",
            )
