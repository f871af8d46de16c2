"""The review desk: what is next for somebody, and what they say about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Self

from pydantic import AwareDatetime, Field, model_validator

from annotation.acts import QUESTIONS, Act, ActBody, Resolved, not_undone, replay
from annotation.argilla_form import ReplyForDesk, act_of
from annotation.charter import system_prompt
from annotation.errors import Conflict, UserError, refuse_nul
from annotation.people import Person
from annotation.queue import MAIN, QueueSettings
from annotation.store import Store
from annotation.store.dealing import Hold
from annotation.store.helpers import Candidate, Suggestion, found_by_patterns
from annotation.store.items import LEFT, Item
from annotation.store.reviews import ASKED, NOTE_LIMIT, CharterMoved, NeverHeld, ReviewAct, Verdict
from annotation.types import (
    Charter,
    ChatModel,
    Conversation,
    Frozen,
    Judgement,
    Message,
    Provenance,
    Question,
    Sampling,
    Turn,
    utc_now,
)

REASONS = {
    "tone": "Tone",
    "too-long": "Too long",
    "unclear": "Unclear",
    "wrong": "Wrong or made up",
    "missing": "Something missing",
    "against-rules": "Against the rules",
    "unfair": "Unfair",
    "language": "Language mistake",
}
"""Why a reply was rewritten, beside the rules it broke."""
SKIP_REASONS = {
    "unclear": "I can't tell what was asked",
    "broken": "The conversation is broken or empty",
    "sensitive": "It holds something private",
    "other": "Another reason",
}
CORRECTION_LIMIT = 200_000
"""Longest correction, in characters."""


class RulesChanged(Conflict):
    """A new charter version came into force while the item was open."""


class Said(Frozen):
    """A line of an item's history, for people."""

    who: str
    when: AwareDatetime
    kind: str
    text: str
    before: str = ""
    after: str = ""
    """What a rewrite made of the reply; both empty where nothing was rewritten."""


class ReviewItem(Frozen):
    """One reply to judge, with its whole conversation. Nothing here tells a hidden check or a repeat from the rest."""

    act_id: str
    """Id of the hold; goes back with the save, so that one press counts once. Empty where it is only to be read."""
    conversation: Conversation
    """Up to the reply, which comes last."""
    after: tuple[Turn, ...] = ()
    """What was said after it."""
    mine: dict[Question, Judgement | Verdict] = Field(default_factory=dict)
    """What this person answered before, where they look at their own answer again, or began to answer in Argilla."""
    text_now: str
    """This person's newest correction, or the one they began in Argilla, or else the reply itself."""
    suggestions: tuple[Suggestion, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    said: tuple[Said, ...] = ()
    """Comments and flags."""
    asked: tuple[Question, ...] = ()
    """What was asked again, and has no answer of this person yet."""
    expires_at: AwareDatetime

    @property
    def reply(self) -> Turn:
        return self.conversation.turns[-1]


class ReviewForm(Frozen):
    """What the reviewer filled in."""

    act_id: str
    reply_id: str
    verdicts: tuple[Verdict, ...] = ()
    corrected: str = Field("", max_length=CORRECTION_LIMIT)
    reasons: tuple[str, ...] = ()
    ranking: tuple[str, ...] = ()
    """Replies to the same conversation, best first."""
    seconds: float | None = Field(None, ge=0)
    charter_version: int | None = None
    """The charter on screen; None for the newest."""
    extra: bool = False
    """Keep it as an extra opinion, after the hold ran out and somebody else has the reply."""

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        refuse_nul(self.model_dump())  # a UserError, which passes through pydantic as it is
        return self


class ReviewService:
    """What the Review page and `tonesmith review` call, for one person."""

    def __init__(
        self,
        store: Store,
        who: Person,
        model: Callable[[], ChatModel],
        identify: Callable[[str], Provenance],
    ) -> None:
        self._store = store
        self._who = who
        self._model = model
        self._identify = identify

    @property
    def charter(self) -> Charter:
        """The newest charter. Raises UserError if there is none."""
        self._who.must("look")
        charter = self._store.charters.current()
        if charter is None:
            raise UserError(
                "There is no charter yet.",
                "House rules to judge by.",
                "Write one, or take an example, on the Charter page.",
            )
        return charter

    def counts(self) -> dict[str, int]:
        """Replies waiting, reviewed, skipped and in dispute."""
        self._who.must("look")
        return self._store.tasks.counts()

    def queues(self) -> dict[str, int]:
        """Every queue, the main one first, and how many replies wait in it."""
        self._who.must("look")
        waiting = self._store.tasks.waiting_by_queue()
        known = [queue.name for queue in self._store.tasks.queues()]
        return {name: waiting.get(name, 0) for name in (*known, *sorted(waiting.keys() - set(known)))}

    # What to look at

    def next(self, queue: str = MAIN, exclude: Collection[str] = ()) -> ReviewItem | None:
        """The next reply for this person, held for them; None when nothing is left. `exclude`: what they have open."""
        self._who.must("judge")
        dealt = self._store.items.deal(self._who, queue, exclude)
        return self._shown(dealt.hold, dealt.item, dealt.settings) if dealt else None

    def open(self, reply_id: str) -> ReviewItem:
        """One reply that was found, held for this person. Raises NotFound, Conflict."""
        self._who.must("judge")
        return self._again(self._store.tasks.claim_one(self._who, reply_id))

    def look(self, reply_id: str) -> ReviewItem:
        """One reply to read only, for who may not or need not judge it. Raises NotFound."""
        self._who.must("look")
        item = self._store.items.get(reply_id)
        return ReviewItem(
            act_id="",
            conversation=item.conversation,
            after=item.after,
            text_now=item.conversation.turns[-1].text,
            said=tuple(
                _said(act) for act in self._not_to_repeat(reply_id, _to_read(item.history)) if act.kind != "requeue"
            ),
            expires_at=utc_now(),
        )

    def back(self) -> ReviewItem | None:
        """The reply this person saved or skipped last, to look at it again."""
        self._who.must("judge")
        reply_id = self._store.reviews.last_of(self._who.name)
        return self.open(reply_id) if reply_id else None

    def _again(self, hold: Hold) -> ReviewItem:
        """What this person asked for themselves: they see what they said about it."""
        item = self._store.items.get(hold.reply_id)
        return self._shown(hold, item, self._store.tasks.settings(hold.queue), again=True)

    def _shown(self, hold: Hold, item: Item, settings: QueueSettings, again: bool = False) -> ReviewItem:
        """What is dealt comes without answers, also a repeat; not so what somebody looks at `again`."""
        reply = item.conversation.turns[-1].text
        live = not_undone(self._not_to_repeat(hold.reply_id, item.history) if hold.route == "repeat" else item.history)
        own = [act for act in live if act.person == self._who.name]
        mine = own if again else []
        # What is asked anew comes with what they had made of it; a repeat comes as it came the first time.
        text = _own_text(own) if again or hold.route == "queue" else None
        begun = self._begun(item) if again and not mine else None
        standing = replay(item.history)
        given = standing.answers.get(self._who.name, {})
        return ReviewItem(
            act_id=hold.id,
            conversation=item.conversation,
            after=item.after,
            mine={one.question: one for one in (begun.verdicts if begun else _said_by(mine))},
            text_now=text or (begun.correction if begun else None) or reply,
            suggestions=(*self._found(reply, item.charter_version), *item.suggestions) if settings.suggestions else (),
            candidates=tuple(item.candidates),
            said=tuple(_said(act) for act in _to_read(item.history) if act in live and self._is_for_me(act)),
            asked=tuple(one for one in QUESTIONS if one in standing.asked and one not in given),
            expires_at=hold.expires_at,
        )

    def _is_for_me(self, act: Act) -> bool:
        """Whether it does not just ask somebody else again."""
        return act.kind != "requeue" or act.body.of in (None, self._who.name)

    def _begun(self, item: Item) -> ReviewAct | None:
        """What this person began to say about it in Argilla and has not sent, to go on with it here."""
        conversation, charter = item.conversation, self._store.charters.current()
        said = self._store.argilla.draft_of(conversation.turns[-1].id, self._who.name)
        if said is None or charter is None:
            return None
        reply = ReplyForDesk(conversation=conversation, rank=0, candidates=tuple(item.candidates))
        return act_of(said, reply, charter, self._who.name)

    def _found(self, reply: str, charter_version: int | None) -> list[Suggestion]:
        """What the charter's patterns find in the reply."""
        charter = self._store.charters.get(charter_version) if charter_version else None
        return found_by_patterns(charter, reply) if charter else []

    def history(self, reply_id: str) -> list[Said]:
        """Who did what about a reply. A reviewer sees what they did themselves, and what was said to everybody: what
        others answered stays unseen until a curator settles it, also to a curator who holds the reply to judge it. Of a
        reply that is before them once more, nobody sees what they did the first time.
        """
        self._who.must("look")
        acts = self._not_to_repeat(reply_id, self._store.reviews.history(reply_id))
        whole = self._who.may("curate") and not self._store.tasks.judges_blind(self._who.name, reply_id)
        return [
            _said(act)
            for act in acts
            if whole or act.person == self._who.name or act.kind in ("comment", "flag", "unflag")
        ]

    def _not_to_repeat(self, reply_id: str, history: Sequence[Act]) -> list[Act]:
        """Without what this person did before it came to them once more, while they hold it."""
        since = self._store.tasks.repeated_since(self._who.name, reply_id)
        return [act for act in history if since is None or act.person != self._who.name or act.made_at >= since]

    # What to say

    def save(self, form: ReviewForm) -> bool:
        """Keep the answers and the correction; False if this form was saved before.

        A corrected text that equals the newest correction is not a new one. Raises UserError if the form says nothing
        or cites a rule that the charter does not have; Conflict if the rules changed meanwhile, another tab was
        quicker, the hold ran out, or the reply was never theirs and is not to be had.
        """
        self._who.must("judge")
        seen = self._store.charters.last_seen()
        if seen is not None and seen.version == form.charter_version:
            try:
                return self._keep(form, seen)
            except CharterMoved:  # by another process: to ask before each save would make everybody wait for it
                pass
        return self._keep(form, self.charter)

    def _keep(self, form: ReviewForm, charter: Charter) -> bool:
        elsewhere = form.charter_version not in (None, charter.version)
        shown = self._store.charters.get(form.charter_version or 0) if elsewhere else None
        check_rules(form.verdicts, charter, shown)
        act = ReviewAct(
            act_id=form.act_id,
            reply_id=form.reply_id,
            reviewer=self._who.name,
            charter_version=charter.version,
            verdicts=form.verdicts,
            correction=form.corrected,
            reasons=form.reasons + tuple(clause for verdict in form.verdicts for clause in verdict.clause_ids),
            ranking=form.ranking,
            seconds=form.seconds,
            route="late" if form.extra else "search",
        )
        try:
            return self._store.reviews.save(act, charter)
        except NeverHeld:  # by the command line, say: whoever may open it may judge it
            hold = self._store.tasks.claim_one(self._who, form.reply_id, hold_id=form.act_id)
            return self._store.reviews.save(act.model_copy(update={"act_id": hold.id}), charter)

    def skip(self, act_id: str, reply_id: str, reason: str = "no reason given") -> None:
        """Set a reply aside; it can be brought back."""
        self._who.must("judge")
        refuse_nul(reason)
        self._store.reviews.skip(act_id, reply_id, self._who.name, SKIP_REASONS.get(reason, reason))

    def pass_on(self, act_id: str, reply_id: str) -> None:
        """Leave a reply to a colleague; it does not come to this person again."""
        self._who.must("judge")
        self._store.reviews.add("pass", reply_id, self._who.name, ActBody(), act_id)

    def undo(self) -> ReviewItem | None:
        """Take back this person's last save, skip or pass and show that reply again; None if there is none."""
        self._who.must("judge")
        undone = self._store.reviews.undo(self._who.name)
        if undone is None:
            return None
        hold = self._store.tasks.claim_again(self._who, undone.reply_id, undone.route)
        item = self._again(hold)
        answers = {one.question: one for one in undone.judgements}
        text = undone.correction.after if undone.correction else item.text_now
        return item.model_copy(update={"mine": answers, "text_now": text})

    def release(self, act_id: str) -> None:
        """Give a reply back untouched."""
        self._who.must("judge")
        self._store.tasks.release(self._who.name, act_id)

    def renew(self, act_id: str) -> bool:
        """Keep a hold while somebody works on it; False if it ran out."""
        self._who.must("judge")
        return self._store.tasks.renew(self._who.name, act_id)

    def flag(self, reply_id: str, to: str | None, text: str) -> None:
        """Ask a colleague, or any curator, to look at a reply. Raises NotFound for a name nobody has."""
        self._who.must("judge")
        if to:
            self._store.people.get(to)
        self._store.reviews.add("flag", reply_id, self._who.name, ActBody(text=_note(text, empty=True), to=to or None))

    def unflag(self, reply_id: str) -> None:
        """Take the flags of a reply down."""
        self._who.must("judge")
        self._store.reviews.add("unflag", reply_id, self._who.name, ActBody())

    def comment(self, reply_id: str, text: str) -> Said:
        """Say something about a reply to everybody who looks at it."""
        self._who.must("judge")
        self._store.reviews.add("comment", reply_id, self._who.name, ActBody(text=_note(text)))
        return _said(self._store.reviews.history(reply_id)[-1])

    def stands(self, reply_id: str) -> dict[Question, Resolved]:
        """What the answers about a reply came to, and how, for a curator; nothing while they hold it to judge it."""
        self._who.must("curate")
        if self._store.tasks.judges_blind(self._who.name, reply_id):
            return {}
        return self._store.reviews.standing(reply_id).resolved()

    def flagged(self) -> list[str]:
        """Replies flagged for this person."""
        self._who.must("look")
        return self._store.tasks.flagged_for(self._who)

    def bring_back_skipped(self) -> int:
        """Queue every skipped reply again; returns how many. What a change of many at once set aside is a curator's to
        bring back.
        """
        self._who.must("judge")
        return self._store.reviews.bring_back_skipped(self._who.name, also_of_batches=self._who.may("curate"))

    # Drafts

    async def draft(self, reply_id: str, models: Sequence[str], with_rules: bool) -> AsyncIterator[Candidate]:
        """Let each of `models` (`base` or a loaded adapter) write another reply, with the charter as its instructions
        or without, and keep what they wrote. Raises UserError if the engine can't answer.
        """
        self._who.must("judge")
        conversation = self._store.conversations.of_reply(reply_id)
        prompt = [turn.as_message() for turn in conversation.turns[:-1]]
        if with_rules:
            prompt = [Message(role="system", text=system_prompt(self.charter)), *prompt]
        sampling = Sampling(temperature=0.8, max_tokens=300)
        for name in models:
            text, weights = "", None
            async for chunk in self._model().stream(prompt, model=name, sampling=sampling):
                text, weights = text + chunk.text, chunk.weights
            if text.strip():
                provenance = self._identify(name).model_copy(update={"sampling": sampling, "attested": weights})
                yield self._store.helpers.add_candidate(reply_id, text.strip(), provenance, self._who.name)


def check_rules(verdicts: Sequence[Verdict], charter: Charter, shown: Charter | None) -> None:
    """Raises RulesChanged where `shown`, the charter on screen, says anything else than `charter`, the newest, and
    UserError where a rule is cited that it does not have.
    """
    if shown is not None and shown.version != charter.version and shown != charter:
        raise RulesChanged(
            f"The house rules changed while this was open: version {charter.version} is in force now.",
            "",
            "Your answers are still here. Look at the rules once more, then save again.",
        )
    _check_cited(verdicts, charter)


def _check_cited(verdicts: Sequence[Verdict], charter: Charter) -> None:
    for verdict in verdicts:
        known = [rule.id for rule in getattr(charter, verdict.question)]
        if unknown := sorted(set(verdict.clause_ids).difference(known)):
            raise UserError(
                f"'{unknown[0]}' is no rule of {verdict.question} in version {charter.version} of the charter.",
                f"One of {', '.join(known)}." if known else "No rule: there is none.",
                "Look at the rules once more, then save again.",
            )


def _to_read(history: Sequence[Act]) -> list[Act]:
    """What is there for whoever comes next to read, without the flags that were taken down."""
    flags = replay(history).flags
    return [act for act in not_undone(history) if act.kind in LEFT and (act.kind != "flag" or act in flags)]


def _said_by(acts: Sequence[Act]) -> list[Judgement]:
    return [one for act in acts for one in act.judgements]


def _own_text(acts: Sequence[Act]) -> str | None:
    """What a person's reviews made of the reply; None where they left it, or put it back as it was."""
    text = None
    for act in acts:
        if act.body.as_it_was:
            text = None
        text = act.correction.after if act.correction else text
    return text


def _note(text: str, empty: bool = False) -> str:
    text = text.strip()
    refuse_nul(text)
    if not text and not empty:
        raise UserError("There is nothing to keep.", do="Write something first.")
    if len(text) > NOTE_LIMIT:
        raise UserError(f"The note has {len(text):,} characters.", f"At most {NOTE_LIMIT:,}.", "Shorten it.")
    return text


ANSWERS = {
    ("voice", "pass"): "on brand",
    ("voice", "fail"): "off brand",
    ("policy", "pass"): "within policy",
    ("policy", "fail"): "breaks policy",
    ("bias", "pass"): "fair",
    ("bias", "fail"): "biased",
}


def in_words(judgement: Judgement) -> str:
    """An answer for people: `breaks policy (no-promises; major)`."""
    plain = {"unsure": "not sure", "not_applicable": "does not apply"}
    word = ANSWERS.get((judgement.question, judgement.value)) or f"{judgement.question}: {plain[judgement.value]}"
    kind = (judgement.kind or "").replace("_", " ")
    parts = [part for part in (", ".join(judgement.clause_ids), judgement.severity or "", kind) if part]
    return word + (f" ({'; '.join(parts)})" if parts else "") + (f", “{judgement.note}”" if judgement.note else "")


def _said(act: Act) -> Said:
    words = {
        "skip": "set it aside",
        "pass": "left it to a colleague",
        "flag": f"flagged it for {act.body.to or 'a curator'}",
        "unflag": "took the flag down",
        "comment": "said",
        "undo": "took their last answer back",
        "requeue": f"asked for {' and '.join(ASKED[one] for one in act.body.questions) or 'it'} again",
        "restore": "brought it back",
    }
    if act.kind != "review":
        said = f"{words[act.kind]}: {act.body.text}" if act.body.text else words[act.kind]
        return Said(who=act.person, when=act.made_at, kind=act.kind, text=said)
    parts = [in_words(judgement) for judgement in act.judgements]
    parts += ["rewrote it"] if act.correction else []
    parts += ["ranked the drafts"] if act.body.ranking else []
    settled = "settled: " if act.route == "adjudication" else ""
    changed = {"before": act.correction.before, "after": act.correction.after} if act.correction else {}
    return Said(who=act.person, when=act.made_at, kind="review", text=settled + ", ".join(parts), **changed)
