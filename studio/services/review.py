"""The review desk: what is next, and what was said about it."""

from __future__ import annotations

from annotation.errors import UserError
from annotation.store import Store
from annotation.store.conversations import new_id
from annotation.store.reviews import ReviewAct, Reviewed, Verdict
from annotation.types import Charter, Conversation, Frozen, Turn


class ReviewItem(Frozen):
    """One reply to judge, with its conversation up to it."""

    act_id: str
    """Goes back with the save, so that one press counts once."""
    conversation: Conversation
    said: Reviewed
    """What was said about it before, if it is looked at again."""

    @property
    def reply(self) -> Turn:
        return self.conversation.turns[-1]

    @property
    def text_now(self) -> str:
        """The newest correction, or else the reply itself."""
        return self.said.corrections[-1].after if self.said.corrections else self.reply.text


class ReviewForm(Frozen):
    """What the reviewer filled in."""

    act_id: str
    reply_id: str
    verdicts: tuple[Verdict, ...] = ()
    corrected: str = ""
    seconds: float | None = None


class ReviewService:
    """What the Review page and `tonesmith review` call."""

    def __init__(self, store: Store, person: str) -> None:
        self._store = store
        self._person = person

    @property
    def charter(self) -> Charter:
        """The newest charter. Raises UserError if there is none."""
        charter = self._store.charters.current()
        if charter is None:
            raise UserError(
                "There is no charter yet.",
                "House rules to judge by.",
                "Bring one in with `tonesmith charter FILE.toml`.",
            )
        return charter

    def counts(self) -> dict[str, int]:
        """Replies waiting, reviewed and skipped."""
        return self._store.reviews.counts()

    def next(self, exclude: str | None = None) -> ReviewItem | None:
        """The next reply waiting, other than `exclude`; None when all is done."""
        reply_id = self._store.reviews.next_waiting(exclude=exclude)
        return self.item(reply_id) if reply_id else None

    def item(self, reply_id: str) -> ReviewItem:
        """One reply by its id. Raises NotFound."""
        return ReviewItem(
            act_id=new_id(),
            conversation=self._store.conversations.of_reply(reply_id),
            said=self._store.reviews.of_reply(reply_id),
        )

    def back(self) -> ReviewItem | None:
        """The reply this person saved or skipped last, to look at it again."""
        reply_id = self._store.reviews.last_act_of(self._person)
        return self.item(reply_id) if reply_id else None

    def save(self, form: ReviewForm) -> bool:
        """Keep the answers and the correction; False if this form was saved before.

        A corrected text that equals the newest correction is not a new one. Raises UserError if the form says nothing.
        """
        corrections = self._store.reviews.of_reply(form.reply_id).corrections
        unchanged = bool(corrections) and corrections[-1].after.strip() == form.corrected.strip()
        clauses = tuple(clause for verdict in form.verdicts for clause in verdict.clause_ids)
        act = ReviewAct(
            act_id=form.act_id,
            reply_id=form.reply_id,
            reviewer=self._person,
            charter_version=self.charter.version,
            verdicts=form.verdicts,
            correction=None if unchanged else form.corrected,
            reasons=clauses,
            seconds=form.seconds,
        )
        return self._store.reviews.save(act)

    def skip(self, act_id: str, reply_id: str, reason: str = "no reason given") -> bool:
        """Set a reply aside; it can be brought back."""
        return self._store.reviews.skip(act_id, reply_id, self._person, reason)

    def bring_back_skipped(self) -> int:
        """Queue every skipped reply again; returns how many."""
        return self._store.reviews.bring_back_skipped()
