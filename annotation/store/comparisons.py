"""Blind comparisons and their votes. Which side is which stays here until the vote is in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import AwareDatetime, Field

from annotation.errors import Conflict, NotFound
from annotation.experiments import names_in
from annotation.store.part import Part, fields, new_id
from annotation.store.tables import comparisons, votes
from annotation.types import PLACES, Frozen, Message, Pick, Place, Provenance, Question, Strength, Tag, utc_now

Said = tuple[tuple[tuple[str, str], ...], str]
"""What was said before, by role and text and without a side's instructions, and the reply to it."""


class Answer(Frozen):
    """One side of a comparison: what was said, and by which weights."""

    text: str
    provenance: Provenance
    system: str = ""
    """The instructions it was given before the conversation."""
    earlier: tuple[str, ...] = ()
    """What this side said before, oldest first."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class VoteForm(Frozen):
    """What a person says about a comparison."""

    outcome: Pick
    strength: Strength = 1
    criteria: dict[Question, Pick] = Field(default_factory=dict)
    """Answers to those questions that the person spoke about; the others are absent."""
    tags: tuple[Tag, ...] = ()
    comment: Annotated[str, Field(max_length=2_000)] = ""
    seconds: float | None = None


class Comparison(Frozen):
    """Two to four answers to one prompt, as they stood, and the vote once there is one."""

    id: str
    prompt: tuple[Message, ...]
    left: Answer
    right: Answer
    more: tuple[Answer, ...] = ()
    """The third and the fourth."""
    later: tuple[str, ...] = ()
    """What was said to all sides after the prompt, each to its own reply before; the last one is answered by `text`."""
    root: str | None = None
    """The comparison that its round began with; None for that one itself."""
    author: str
    made_at: AwareDatetime
    outcome: Pick | None = None
    vote: VoteForm | None = None
    voter: str | None = None
    voted_at: AwareDatetime | None = None

    @property
    def answers(self) -> dict[Place, Answer]:
        """By where they stood."""
        return dict(zip(PLACES, (self.left, self.right, *self.more), strict=False))

    @property
    def best(self) -> Place | None:
        """Where the reply stands that was preferred; None if none was."""
        return next((place for place in self.answers if place == self.outcome), None)

    @property
    def round(self) -> str:
        """Id of the comparison that its round began with. The sides of a round are the same ones."""
        return self.root or self.id

    @property
    def asked(self) -> str:
        """The message that is answered."""
        return self.later[-1] if self.later else self.prompt[-1].text

    def said_to(self, place: Place) -> tuple[Message, ...]:
        """What this side was asked to go on from, its instructions left out."""
        messages = list(self.prompt)
        for reply, text in zip(self.answers[place].earlier, self.later, strict=True):
            messages += [Message(role="assistant", text=reply), Message(role="user", text=text)]
        return tuple(messages)

    @property
    def gives_away(self) -> str:
        """A name in the replies by which a side could be told before the vote, '' if there is none."""
        answers = self.answers.values()
        texts = [text for answer in answers for text in (*answer.earlier, answer.text)]
        return names_in((answer.provenance for answer in answers), texts)

    @property
    def whole(self) -> bool:
        """Whether every reply came to its end, so that there is something to vote on."""
        return all(answer.provenance.finish != "error" and answer.text.strip() for answer in self.answers.values())

    @property
    def tells(self) -> bool:
        """Whether some sides broke off and others did not, or not as early: word of what failed tells them apart."""
        ends = {(one.provenance.finish == "error", bool(one.text.strip())) for one in self.answers.values()}
        return len(ends) > 1 and any(broke for broke, _ in ends)

    def recalls(self, other: Comparison) -> bool:
        """Whether a first reply of `other`, of the same round, can be found again in this one: its side is the same.
        One that broke off is found where another begins like it.
        """
        if self.id == other.id:
            return True
        for seen, answer in zip(other.first_replies, other.answers.values(), strict=True):
            cut = not other.later and answer.provenance.finish == "error"
            found = [one.startswith(seen) if cut else one == seen for one in self.first_replies if seen.strip()]
            # Where all begin so, none is told by it, unless all stand where they stood.
            if any(found) and (self.later or not all(found)):
                return True
        return False

    @property
    def named(self) -> set[Said]:
        """The replies whose side is known once the names are out: those that not all sides gave."""
        each = Counter(one for place in self.answers for one in self._said_by(place))
        return {one for one, sides in each.items() if sides < len(self.answers)}

    @property
    def said(self) -> set[Said]:
        """All replies, each with what it answers."""
        return {one for place in self.answers for one in self._said_by(place)}

    def _said_by(self, place: Place) -> set[Said]:
        said = [(one.role, one.text) for one in self.said_to(place)] + [("assistant", self.answers[place].text)]
        return {(tuple(said[:at]), said[at][1]) for at in range(len(self.prompt), len(said), 2)}

    @property
    def first_replies(self) -> list[str]:
        """What each side said first."""
        return [(*answer.earlier, answer.text)[0] for answer in self.answers.values()]


class Comparisons(Part):
    """Keep comparisons, take one vote each."""

    def add(
        self,
        prompt: Sequence[Message],
        answers: Sequence[Answer],
        author: str,
        later: Sequence[str] = (),
        root: str | None = None,
    ) -> str:
        """Keep the answers, two to four of them; returns the comparison's id. `root` is the `round` of the comparison
        that this one goes on from.
        """
        left, right, *more = (answer.model_dump(mode="json") for answer in answers)
        row = {
            "id": new_id(),
            "prompt": [message.model_dump() for message in prompt],
            "left": left,
            "right": right,
            "more": more,
            "later": list(later),
            "root": root,
            "author": author,
            "made_at": utc_now(),
        }
        with self._writer.begin() as db:
            db.execute(comparisons.insert().values(row))
        return str(row["id"])

    def vote(self, comparison_id: str, form: VoteForm, voter: str) -> Comparison:
        """Keep the one vote of a comparison and return it.

        Raises NotFound; Conflict for a second vote in the same round, one by somebody who did not ask, one for a side
        that is not there, one about replies that broke off, and one that is `not_blind`.
        """
        comparison = self.get(comparison_id)
        _check(comparison, form, voter)
        if why := self.not_blind(comparison):
            raise why
        row = {
            "id": new_id(),
            "comparison_id": comparison_id,
            "outcome": form.outcome,
            "voter": voter,
            "seconds": form.seconds,
            "form": form.model_dump(mode="json"),
            "made_at": utc_now(),
        }
        try:
            with self._writer.begin() as db:
                # Held until the vote is in, so that no other one of its round can come between.
                db.execute(sa.select(comparisons.c.id).where(comparisons.c.id == comparison.round).with_for_update())
                if any(one != comparison_id for one in db.scalars(_voted_in(comparison.round))):
                    raise _revealed()
                db.execute(votes.insert().values(row))
        except sa.exc.IntegrityError as error:
            raise _already() from error
        return self.get(comparison_id)

    def get(self, comparison_id: str) -> Comparison:
        """One comparison. Raises NotFound."""
        with self._engine.connect() as db:
            row = db.execute(_with_votes().where(comparisons.c.id == comparison_id)).mappings().first()
        if row is None:
            raise NotFound("That comparison is not here.", do="Ask again to get a new one.")
        return _comparison(row)

    def revealed(self, round_id: str) -> bool:
        """Whether any comparison of a round has its vote, so that the sides of all of them are known."""
        with self._engine.connect() as db:
            return db.scalar(_voted_in(round_id).limit(1)) is not None

    def not_blind(self, comparison: Comparison) -> Conflict | None:
        """Why its author could tell a side of it without a vote in its round; None if they could not."""
        if any(one.tells and comparison.recalls(one) for one in self._of_round(comparison.round)):
            return Conflict(
                "A side broke off in this round, and what failed may have told you which one: this is no longer blind.",
                do="Ask something new.",
            )
        said = comparison.said
        if any(one.named & said for one in self._named_to(comparison)):
            return Conflict(
                "You have voted on one of these very replies before and were told whose it is: this is not blind.",
                do="Ask something else, or ask with more variety or another seed.",
            )
        return None

    def _named_to(self, comparison: Comparison) -> list[Comparison]:
        """Those of other rounds that its author voted on, with a reply in the same words."""
        texts = {reply for _, reply in comparison.said}
        query = _with_votes().where(votes.c.voter == comparison.author)
        with self._engine.connect() as db:
            rows = [row for row in db.execute(query).mappings() if texts & _replies_in(row)]
        return [one for one in map(_comparison, rows) if one.round != comparison.round]

    def _of_round(self, round_id: str) -> list[Comparison]:
        query = _with_votes().where(sa.or_(comparisons.c.id == round_id, comparisons.c.root == round_id))
        with self._engine.connect() as db:
            return [_comparison(row) for row in db.execute(query).mappings()]

    def voted(self) -> list[Comparison]:
        """All comparisons with a vote, oldest vote first."""
        query = _with_votes().where(votes.c.outcome.is_not(None)).order_by(votes.c.seq)
        with self._engine.connect() as db:
            return [_comparison(row) for row in db.execute(query).mappings()]

    def decided(self, since: datetime | None = None) -> int:
        """Votes that preferred one side, since a moment or ever."""
        query = sa.select(sa.func.count()).select_from(votes).where(votes.c.outcome.in_(PLACES))
        if since is not None:
            query = query.where(votes.c.made_at > since)
        with self._engine.connect() as db:
            return db.scalar(query) or 0


def _check(comparison: Comparison, form: VoteForm, voter: str) -> None:
    if comparison.author != voter:
        raise Conflict(f"{comparison.author} asked for these replies.", "Your own.", "Ask something, and vote on that.")
    if comparison.outcome is not None:
        raise _already()
    if not comparison.whole:
        raise Conflict("A reply broke off, so there is nothing to vote on.", do="Ask again.")
    for pick in (form.outcome, *form.criteria.values()):
        if pick in PLACES and pick not in comparison.answers:
            raise Conflict(f"There are {len(comparison.answers)} replies here, and none in the {pick} place.")


def _already() -> Conflict:
    return Conflict(
        "This comparison already has its vote, and the sides have been shown.", do="Ask something new to vote again."
    )


def _revealed() -> Conflict:
    return Conflict(
        "You voted on other replies of these sides, and their names have been shown: this is no longer blind.",
        do="Ask something new to vote again.",
    )


def _voted_in(round_id: str) -> sa.Select[Any]:
    """Ids of the comparisons of a round that have a vote."""
    query = sa.select(votes.c.comparison_id).join(comparisons, comparisons.c.id == votes.c.comparison_id)
    return query.where(sa.or_(comparisons.c.id == round_id, comparisons.c.root == round_id))


def _with_votes() -> sa.Select[Any]:
    given = (votes.c.outcome, votes.c.voter, votes.c.form.label("vote"), votes.c.made_at.label("voted_at"))
    return sa.select(comparisons, *given).outerjoin(votes, votes.c.comparison_id == comparisons.c.id)


def _replies_in(row: sa.RowMapping) -> set[str]:
    """All that was said, without making a Comparison of the row: a person may have voted on thousands."""
    answers = (row["left"], row["right"], *(row["more"] or ()))
    return {text for answer in answers for text in (*answer.get("earlier", ()), answer["text"])}


def _comparison(row: sa.RowMapping) -> Comparison:
    """Rows of older stores lack what came later."""
    found = fields(row)
    return Comparison(**found | {"more": found["more"] or (), "later": found["later"] or ()})
