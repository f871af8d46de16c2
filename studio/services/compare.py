"""Two to four replies to the same words, blind: who is who stays on this side until the vote."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from annotation.charter import system_prompt
from annotation.errors import Conflict, UserError, refuse_nul
from annotation.experiments import MOST_SIDES
from annotation.people import Person
from annotation.store import Store
from annotation.store.comparisons import Answer, Comparison, VoteForm
from annotation.store.conversations import shorten
from annotation.types import ChatModel, Chunk, Frozen, Message, Place, Provenance, Sampling, Turn
from serving.arena import paced
from studio.services.checked import must_count

log = logging.getLogger("tonesmith")


class SideOf(Frozen):
    """One side as it is asked for."""

    model: str
    """`base`, or an adapter's name."""
    instructions: Literal["none", "charter", "own"] = "none"
    """What is put before the conversation."""
    own: str = ""
    """The instructions, where they are one's own."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7


class RoundForm(Frozen):
    """What is compared, and how replies are drawn."""

    sides: tuple[SideOf, ...]
    longest: Annotated[int, Field(ge=1, le=4096)] = 200
    """Of a reply, in tokens."""
    seed: int | None = None
    """The same for all sides; None lets the engine draw one for each."""


class Start(Frozen):
    """Where a comparison can begin in a conversation of the store."""

    label: str
    turn: str
    """Id of the turn that it is named after."""
    before: tuple[Turn, ...]
    """What all sides go on from; empty for the beginning."""
    text: str
    """What was said then, as a proposal for what is asked; '' after the last reply."""

    @property
    def after(self) -> str:
        """Id of the turn that the history ends with, '' for none."""
        return self.before[-1].id if self.before else ""


class LiveRound(Frozen):
    """The replies while they grow, in the places where they stand; nothing here tells which is which.

    `comparison_id` is set once they are kept, also where one broke off; `problem` says why they can't be voted on, in
    words that are as true of each side. The first one comes before anybody has said a word.
    """

    texts: tuple[str, ...]
    earlier: tuple[tuple[str, ...], ...] = ()
    """What each side said before, oldest first."""
    asked: tuple[str, ...] = ()
    """What was said to all of them, from where the comparison began."""
    comparison_id: str | None = None
    problem: str | None = None


@dataclass
class _Speaker:
    """One side while it speaks."""

    model: str
    identity: Provenance
    system: str
    sampling: Sampling
    earlier: tuple[str, ...] = ()
    text: str = ""
    end: Chunk = field(default_factory=Chunk)
    seconds: float = 0.0
    trouble: str = ""
    """What kept it from its end; it may name the side."""

    def messages(self, prompt: Sequence[Message], later: Sequence[str]) -> list[Message]:
        """Its instructions, and the conversation as it went on this side."""
        said = list(prompt)
        if self.system:  # in place of the conversation's own, so that no side is told twice
            said = [Message(role="system", text=self.system), *(one for one in prompt if one.role != "system")]
        for reply, text in zip(self.earlier, later, strict=True):
            said += [Message(role="assistant", text=reply), Message(role="user", text=text)]
        return said

    def take(self, chunk: Chunk) -> None:
        """The next piece of its reply."""
        self.text += chunk.text
        self.end = chunk if chunk.finish else self.end

    def answer(self, broken: bool) -> Answer:
        """What is kept of it."""
        made = {
            "sampling": self.sampling,
            "seconds": round(self.seconds, 3),
            "finish": self.end.finish or ("error" if broken else None),
            "attested": self.end.weights,
        }
        return Answer(
            text=self.text,
            provenance=self.identity.model_copy(update=made),
            system=self.system,
            earlier=self.earlier,
            prompt_tokens=self.end.prompt_tokens,
            completion_tokens=self.end.completion_tokens,
        )


class CompareService:
    """What the Compare page and `tonesmith compare` call."""

    def __init__(
        self,
        store: Store,
        model: Callable[[], ChatModel],
        identify: Callable[[str], Provenance],
        who: Person,
        coin: random.Random | None = None,
        *,
        sound: Callable[[str], None] = lambda model: None,
    ) -> None:
        self._store = store
        self._model = model
        self._identify = identify
        self._who = who
        self._coin = coin or random.SystemRandom()
        self._sound = sound

    def starts(self, turn_id: str) -> list[Start]:
        """Where one can begin in the conversation of a turn, along the path to it and what came after. Raises NotFound.

        At each message of the user's, which is asked again, and after the last reply.
        """
        self._who.must("look")
        upto, later = self._store.conversations.around(turn_id)
        turns = (*upto.turns, *later)
        found = [
            Start(label=f"At “{shorten(turn.text)}”", turn=turn.id, before=turns[:at], text=turn.text)
            for at, turn in enumerate(turns)
            if turn.role == "user" and (at == 0 or turns[at - 1].role != "user")
        ]
        if turns[-1].role == "assistant":
            found.append(Start(label="After the last reply", turn=turns[-1].id, before=turns, text=""))
        return found

    async def ask(self, text: str, form: RoundForm, after: str = "") -> AsyncIterator[LiveRound]:
        """Ask all sides the same, their places drawn at random, and stream them at the slowest one's pace. `after` is
        the turn that ends what was said before, the same for all sides; '' where nothing was.

        Raises UserError for an empty message, fewer than two sides or more than four, two that are the same, and an
        `after` that is no reply; NotFound for one that is not here.
        """
        self._who.must("judge")
        before = self._store.conversations.of_reply(after).turns if after else ()
        if before and before[-1].role == "user":
            raise UserError("That message has no reply yet to go on from.", do="Choose another place to begin.")
        prompt = [*(turn.as_message() for turn in before), Message(role="user", text=_said(text))]
        speakers = self._speakers(form)
        self._coin.shuffle(speakers)
        async for live in self._round(prompt, (), speakers):
            yield live

    async def go_on(self, comparison_id: str, text: str) -> AsyncIterator[LiveRound]:
        """Say one more thing to all sides of a comparison that has no vote yet, each going on from its own words.

        Raises Conflict where it is no longer blind.
        """
        before = self._blind(comparison_id)
        speakers = [self._same(answer, (*answer.earlier, answer.text)) for answer in before.answers.values()]
        async for live in self._round(before.prompt, (*before.later, _said(text)), speakers, before.round):
            yield live

    async def again(self, comparison_id: str) -> AsyncIterator[LiveRound]:
        """Have the last replies drawn anew, also ones that broke off. A new seed, where there was one.

        First replies get new places. Later ones stay below the words they go on from, so there Conflict is raised where
        it is no longer blind.
        """
        before = self._open(comparison_id)
        if before.later:
            self._must_be_blind(before)
        speakers = [self._same(answer, answer.earlier) for answer in before.answers.values()]
        if not before.later:
            self._coin.shuffle(speakers)
        async for live in self._round(before.prompt, before.later, speakers, before.round):
            yield live

    def places(self, comparison_id: str) -> tuple[Place, ...]:
        """Where there are replies to vote on; none where there are none to. Raises Conflict where that is for good."""
        comparison = self._open(comparison_id)
        if comparison.later:
            self._must_be_blind(comparison)
        votable = comparison.whole and not self._store.comparisons.not_blind(comparison)
        return tuple(comparison.answers) if votable else ()

    def vote(self, comparison_id: str, form: VoteForm) -> Comparison:
        """Take the one vote and reveal the sides. Raises Conflict, as `Comparisons.vote`, and UserError if a side was
        seen meanwhile not to be served as it was trained.

        Where all are bad, all wait for a correction at the review desk; they are brought there first, so that no crash
        can come between.
        """
        self._who.must("judge")
        refuse_nul(form.comment)
        comparison = self._store.comparisons.get(comparison_id)
        for answer in comparison.answers.values():
            must_count(answer.provenance, self._sound)
        kept = self._store.comparisons
        blind = not (kept.revealed(comparison.round) or kept.not_blind(comparison))
        if form.outcome == "both_bad" and blind and comparison.author == self._who.name:
            for place in comparison.answers:
                _at_the_desk(self._store, comparison, place)
        return self._store.comparisons.vote(comparison_id, form, self._who.name)

    def fix(self, comparison_id: str) -> str:
        """Bring the reply that was preferred before the review desk; returns its id there. Raises UserError where none
        was.
        """
        self._who.must("judge")
        comparison = self._store.comparisons.get(comparison_id)
        if comparison.best is None:
            raise UserError("No side was called better.", "A vote for one of them.", "Vote first.")
        return _at_the_desk(self._store, comparison, comparison.best)

    def tally(self) -> dict[str, int]:
        """Votes so far: `tuned`, `base`, `elsewhere` (a model of a server that is not ours), `tie`, `both_bad`."""
        self._who.must("look")
        counted = {"tuned": 0, "base": 0, "elsewhere": 0, "tie": 0, "both_bad": 0}
        for comparison in self._store.comparisons.voted():
            if comparison.best is None:
                counted[comparison.outcome or "tie"] += 1
            else:
                best = comparison.answers[comparison.best].provenance
                counted["tuned" if best.adapter else "elsewhere" if best.elsewhere else "base"] += 1
        return counted

    def last(self) -> Comparison | None:
        """The comparison voted on last."""
        self._who.must("look")
        voted = self._store.comparisons.voted()
        return voted[-1] if voted else None

    def _open(self, comparison_id: str) -> Comparison:
        """A comparison of this person's in whose round there is no vote yet. Raises Conflict."""
        self._who.must("judge")
        comparison = self._store.comparisons.get(comparison_id)
        if comparison.author != self._who.name:
            raise Conflict(f"{comparison.author} asked for these replies.", "Your own.", "Ask something yourself.")
        if self._store.comparisons.revealed(comparison.round):
            raise Conflict("The names are out, so this is no longer blind.", do="Ask something new.")
        return comparison

    def _blind(self, comparison_id: str) -> Comparison:
        """As `_open`, and one that this person can tell no side of. Raises Conflict."""
        comparison = self._open(comparison_id)
        self._must_be_blind(comparison)
        return comparison

    def _must_be_blind(self, comparison: Comparison) -> None:
        if why := self._store.comparisons.not_blind(comparison):
            raise why

    def _speakers(self, form: RoundForm) -> list[_Speaker]:
        if not 2 <= len(form.sides) <= MOST_SIDES:
            raise UserError(
                f"{len(form.sides)} models are chosen.", f"2 to {MOST_SIDES}.", "Choose who answers beside the first."
            )
        if len(set(form.sides)) < len(form.sides):
            raise UserError(
                "Two sides are the same.", "Sides that differ.", "Change the model, the instructions or the variety."
            )
        return [self._speaker(side, form) for side in form.sides]

    def _speaker(self, side: SideOf, form: RoundForm) -> _Speaker:
        system = ""
        if side.instructions == "charter":
            charter = self._store.charters.current()
            if charter is None:
                raise UserError("There is no charter yet.", do="Write one on the Charter page, or choose another.")
            system = system_prompt(charter)
        elif side.instructions == "own":
            system = side.own.strip()
            if not system:
                raise UserError("Your own instructions are empty.", do="Write them, or choose 'No instructions'.")
        self._sound(side.model)
        sampling = Sampling(temperature=side.temperature, max_tokens=form.longest, seed=form.seed)
        return _Speaker(side.model, self._identify(side.model), system, sampling)

    def _same(self, answer: Answer, earlier: tuple[str, ...]) -> _Speaker:
        """The same side once more. Raises Conflict if its name stands for other weights by now."""
        speaker = _again(answer, earlier)
        self._sound(speaker.model)
        if self._identify(speaker.model) != speaker.identity:
            raise Conflict("The models have changed since these replies.", do="Ask something new.")
        return speaker

    async def _round(
        self, prompt: Sequence[Message], later: Sequence[str], speakers: Sequence[_Speaker], root: str | None = None
    ) -> AsyncIterator[LiveRound]:
        """Stream what all say and keep it, also where one breaks off. `root` is the round that this goes on with."""
        asked = (prompt[-1].text, *later)
        shown = LiveRound(texts=("",) * len(speakers), earlier=tuple(one.earlier for one in speakers), asked=asked)
        yield shown
        streams = [self._timed(one, one.messages(prompt, later)) for one in speakers]
        problem = None
        try:
            async for step in paced(*streams):
                for place, chunk in step.items():
                    speakers[place].take(chunk)
                yield shown.model_copy(update={"texts": tuple(one.text for one in speakers)})
        except UserError:  # each side has its own in `trouble`
            problem = _in_common(speakers)
        texts = tuple(one.text for one in speakers)
        if not any(text.strip() for text in texts):
            yield shown.model_copy(update={"problem": problem or "Nobody said anything. Ask again."})
            return
        answers = [one.answer(broken=problem is not None) for one in speakers]
        kept = self._store.comparisons.add(prompt, answers, self._who.name, later, root)
        problem = self._not_to_vote_on(kept, problem)
        if root and self._store.comparisons.revealed(root):
            problem = "You voted meanwhile, and the names are out: this is no longer blind. Ask something new."
        yield shown.model_copy(update={"texts": texts, "comparison_id": kept, "problem": problem})

    def _not_to_vote_on(self, comparison_id: str, broke: str | None) -> str | None:
        """Why these replies take no vote, None if they do. `broke`: what kept some from their end, None if nothing."""
        comparison = self._store.comparisons.get(comparison_id)
        why = self._store.comparisons.not_blind(comparison)
        if broke:  # first replies can be drawn again in other places
            return f"{broke} {why}" if why and comparison.later else broke
        if not all(answer.text.strip() for answer in comparison.answers.values()):
            return "One side said nothing, so there is nothing to compare. Ask again."
        return str(why) if why else None

    async def _timed(self, one: _Speaker, messages: Sequence[Message]) -> AsyncIterator[Chunk]:
        """Its own time, which the pacing hides from whoever watches; and its own trouble, which is hidden as well."""
        began = time.monotonic()
        try:
            async for chunk in self._model().stream(messages, model=one.model, sampling=one.sampling):
                one.seconds = time.monotonic() - began
                yield chunk
        except UserError as error:
            one.trouble = str(error)
            raise


def _in_common(speakers: Sequence[_Speaker]) -> str:
    """What kept a round from its end, in words that are as true of each side.

    What is wrong with one side alone often names it, and the gap on the page would show which one that is. It goes to
    the log; whoever reads it there can't vote on these replies.
    """
    troubles = {one.trouble for one in speakers}
    if len(troubles) == 1:
        return troubles.pop()
    for trouble in sorted(troubles - {""}):
        log.warning("A side of a comparison could not answer. %s", trouble)
    return (
        "Not every side could answer to the end, so there is nothing to vote on. Curators see on the Models page who "
        "can be asked, and the studio's log has the reason."
    )


def _said(text: str) -> str:
    if not text.strip():
        raise UserError("There is no message to compare on.", do="Write what a customer might ask.")
    return text.strip()


def _again(answer: Answer, earlier: tuple[str, ...]) -> _Speaker:
    """The same side once more."""
    sampling = answer.provenance.sampling or Sampling()
    if sampling.seed is not None:
        sampling = sampling.model_copy(update={"seed": sampling.seed + 1})
    identity = answer.provenance.model_copy(
        update={"sampling": None, "seconds": None, "finish": None, "attested": None}
    )
    return _Speaker(identity.asked_as, identity, answer.system, sampling, earlier)


def _at_the_desk(store: Store, comparison: Comparison, place: Place) -> str:
    """A side's reply as a conversation that waits for review, however often this is done; returns its id."""
    source, external_id = "compare", f"{comparison.id}-{place}"
    answer = comparison.answers[place]
    reply = (Message(role="assistant", text=answer.text), answer.provenance)
    messages = [*((message, None) for message in comparison.said_to(place)), reply]
    store.conversations.import_one(source, external_id, comparison.asked, None, messages)
    return store.conversations.of_external(source, external_id).turns[-1].id
