"""What people did about a reply, and where it stands after all of it. Pure: history in, present state out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from pydantic import AwareDatetime, BaseModel

from annotation.types import Correction, Frozen, Judgement, Question, Route, Value

ActKind = Literal["review", "skip", "pass", "flag", "unflag", "comment", "undo", "requeue", "restore"]
"""`skip` sets a reply aside for everybody, `pass` leaves it to a colleague; `restore` brings a skipped one back;
`requeue` asks for some questions again."""
QUESTIONS: tuple[Question, ...] = get_args(Question)
COUNTED: frozenset[Route] = frozenset({"queue", "search", "import"})
"""Routes whose answers count towards a reply's overlap and its outcome."""
Settled = Literal["unanimous", "single", "adjudicated", "unresolved"]
"""How an answer came about: all reviewers agree, only one was asked, somebody settled it, or nobody has yet."""
Outcome = Literal["approved", "corrected", "failed", "unsure", "partial", "disputed"]
TaskState = Literal["open", "full", "done", "disputed", "skipped", "gold"]


class ActBody(BaseModel, frozen=True):
    """What an act holds beside its judgements and its correction."""

    text: str = ""
    """A comment, a flag's note, or the reason of a skip."""
    to: str | None = None
    """Whom a flag is for; None for any curator."""
    undoes: str | None = None
    """Id of the act that this one takes back."""
    questions: tuple[Question, ...] = ()
    """What is asked again."""
    of: str | None = None
    """Whose answers do not hold any more, where something is asked again; None for everybody's."""
    ranking: tuple[str, ...] = ()
    """Replies to the same conversation, best first."""
    as_it_was: bool = False
    """The reply is good as it was: an earlier correction of this person does not stand any more."""


class Act(Frozen):
    """One thing one person did about one reply. Never changed once kept."""

    id: str
    reply_id: str
    person: str
    kind: ActKind
    route: Route
    seconds: float | None = None
    made_at: AwareDatetime
    body: ActBody = ActBody()
    judgements: tuple[Judgement, ...] = ()
    correction: Correction | None = None


@dataclass(frozen=True)
class Resolved:
    """The one answer to a question, out of several people's. `value` is None while nobody has settled a difference."""

    value: Value | None
    how: Settled
    clause_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """Where a reply stands after its acts."""

    answers: Mapping[str, Mapping[Question, Judgement]] = field(default_factory=dict)
    """Newest counted answer, a person and question."""
    settled: Mapping[Question, Judgement] = field(default_factory=dict)
    """What an adjudicator decided."""
    corrections: tuple[Correction, ...] = ()
    rankings: tuple[Act, ...] = ()
    """Each person's newest."""
    done_by: frozenset[str] = frozenset()
    """Who has dealt with it since it was last asked anew."""
    asked: frozenset[Question] = frozenset()
    """Questions with answers that were asked for again: whoever judges it now has to answer them."""
    skipped: str | None = None
    """Reason it is set aside, None if it is not."""
    flags: tuple[Act, ...] = ()
    """Flags not yet taken down."""
    comments: tuple[Act, ...] = ()

    def resolved(self) -> dict[Question, Resolved]:
        """One answer for each question that anybody answered."""
        return {question: found for question in QUESTIONS if (found := self._resolve(question))}

    def _resolve(self, question: Question) -> Resolved | None:
        if question in self.settled:
            judgement = self.settled[question]
            return Resolved(judgement.value, "adjudicated", judgement.clause_ids)
        given = [answers[question] for answers in self.answers.values() if question in answers]
        if not given:
            return None
        cited = tuple(dict.fromkeys(clause for judgement in given for clause in judgement.clause_ids))
        if len({judgement.value for judgement in given}) > 1:
            return Resolved(None, "unresolved", cited)
        return Resolved(given[0].value, "single" if len(given) == 1 else "unanimous", cited)

    def agreement(self) -> float | None:
        """Share, 0 to 1, of the commonest answer in the question with the most dissent; None where nobody could
        differ.
        """
        shares = []
        for question in QUESTIONS:
            values = [answers[question].value for answers in self.answers.values() if question in answers]
            if len(values) > 1:
                shares.append(Counter(values).most_common(1)[0][1] / len(values))
        return min(shares) if shares else None

    def outcome(self) -> Outcome:
        """What the reply came to, in one word."""
        resolved = self.resolved()
        values = [found.value for found in resolved.values()]
        if None in values:
            return "disputed"
        if self.corrections:
            return "corrected"
        if "fail" in values:
            return "failed"
        if "unsure" in values:
            return "unsure"
        return "approved" if len(values) == len(QUESTIONS) else "partial"


def not_undone(acts: Sequence[Act]) -> list[Act]:
    """The acts that were not taken back, without those that took something back."""
    undone = {act.body.undoes for act in acts if act.kind == "undo"}
    return [act for act in acts if act.id not in undone and act.kind != "undo"]


def replay(acts: Sequence[Act]) -> Standing:
    """Where a reply stands after `acts`, oldest first.

    An act that was taken back counts as never done. A `requeue` clears the answers it asks for again, with the
    corrections that followed from them, and whoever gave them (everybody, if it names nobody) has to look anew.
    """
    live = not_undone(acts)
    answers: dict[str, dict[Question, Judgement]] = {}
    settled: dict[Question, Judgement] = {}
    corrections: list[Correction] = []
    rankings: dict[str, Act] = {}
    done_by: set[str] = set()
    asked: set[Question] = set()
    skipped: str | None = None
    for act in live:
        if act.kind == "review" and act.route in (*COUNTED, "adjudication"):
            corrections = _corrected(corrections, act)
        if act.kind == "review" and act.route in COUNTED:
            rankings |= {act.person: act} if act.body.ranking else {}
            answers.setdefault(act.person, {}).update({one.question: one for one in act.judgements})
            done_by.add(act.person)
            skipped = None
        elif act.kind == "review" and act.route == "adjudication":
            settled.update({one.question: one for one in act.judgements})
        elif act.kind == "requeue":
            cleared, corrections = _asked_again(answers, settled, corrections, act.body)
            asked |= cleared
            done_by -= {act.body.of or one for one in done_by}
        elif act.kind == "skip" and act.route in COUNTED:
            skipped = act.body.text or "no reason given"
        elif act.kind == "restore":
            skipped = None
    return Standing(
        answers={person: given for person, given in answers.items() if given},
        settled=settled,
        corrections=tuple(corrections),
        rankings=tuple(rankings.values()),
        done_by=frozenset(done_by),
        asked=frozenset(asked),
        skipped=skipped,
        flags=_flags(live),
        comments=tuple(act for act in live if act.kind == "comment"),
    )


def _corrected(before: list[Correction], act: Act) -> list[Correction]:
    """The corrections that stand after a review."""
    if act.body.as_it_was:  # who settles says so for everybody
        before = [one for one in before if act.route != "adjudication" and one.author != act.person]
    return [*before, act.correction] if act.correction else before


def _faulted(answers: dict[str, dict[Question, Judgement]], settled: dict[Question, Judgement]) -> set[str]:
    """Who has an answer standing that finds something wrong: what they corrected was for that."""
    given = [one for some in (settled, *answers.values()) for one in some.values()]
    return {one.reviewer for one in given if one.value in ("fail", "unsure")}


def _asked_again(
    answers: dict[str, dict[Question, Judgement]],
    settled: dict[Question, Judgement],
    corrections: list[Correction],
    asked: ActBody,
) -> tuple[set[Question], list[Correction]]:
    """Clear the answers that are asked for again; returns their questions, and the corrections that stand without."""
    before = _faulted(answers, settled)
    cleared: set[Question] = set()
    for given in (settled, *answers.values()):
        for question in asked.questions:
            if question in given and given[question].reviewer == (asked.of or given[question].reviewer):
                del given[question]
                cleared.add(question)
    without = before - _faulted(answers, settled)
    if set(asked.questions) == set(QUESTIONS):
        without |= {one.author for one in corrections if one.author == (asked.of or one.author)}
    return cleared, [one for one in corrections if one.author not in without]


def _flags(live: Sequence[Act]) -> tuple[Act, ...]:
    flags: list[Act] = []
    for act in live:
        if act.kind == "flag":
            flags.append(act)
        elif act.kind == "unflag":
            flags.clear()
    return tuple(flags)


@dataclass(frozen=True)
class Projection:
    """The part of a standing that the queue needs at hand."""

    done: int
    state: TaskState
    outcome: Outcome | None
    agreement: float | None
    flag_to: str | None
    stale: bool


def project(acts: Sequence[Act], overlap: int, held: int, gold: bool = False) -> Projection:
    """What the queue keeps of a reply: `overlap` people should see it, `held` of the places are taken just now."""
    standing = replay(acts)
    done = len(standing.done_by)
    enough = done >= overlap
    outcome = standing.outcome() if enough else None
    state: TaskState = "open"
    if gold:
        state = "gold"
    elif standing.skipped is not None:
        state = "skipped"
    elif enough:
        state = "disputed" if outcome == "disputed" else "done"
    elif done + held >= overlap:
        state = "full"
    flag_to = (standing.flags[-1].body.to or "") if standing.flags else None
    asked_again = any(act.kind == "requeue" for act in acts)
    return Projection(done, state, outcome, standing.agreement(), flag_to, asked_again and not enough)
