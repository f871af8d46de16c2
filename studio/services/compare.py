"""Two replies to one message, blind: who is who stays on this side until the vote."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable

from annotation.errors import UserError
from annotation.people import Person
from annotation.store import Store
from annotation.store.comparisons import Answer, Comparison
from annotation.types import ChatModel, Chunk, Frozen, Message, Outcome, Provenance, Sampling
from serving.arena import SIDES, Side, paced


class LivePair(Frozen):
    """Both replies while they grow; nothing here tells which is which.

    `comparison_id` is set once both are kept and can be voted on; `problem` says why they can't be.
    """

    left: str = ""
    right: str = ""
    comparison_id: str | None = None
    problem: str | None = None


class CompareService:
    """What the Compare page and `tonesmith compare` call."""

    def __init__(
        self,
        store: Store,
        model: Callable[[], ChatModel],
        identify: Callable[[str], Provenance],
        who: Person,
        coin: random.Random | None = None,
    ) -> None:
        self._store = store
        self._model = model
        self._identify = identify
        self._who = who
        self._coin = coin or random.SystemRandom()

    async def ask(self, text: str, adapter: str | None, sampling: Sampling) -> AsyncIterator[LivePair]:
        """Ask the base and `adapter` the same, sides drawn at random, and stream both at the slower one's pace.

        Raises UserError for an empty message, and where no adapter is chosen.
        """
        self._who.must("judge")
        if not text.strip():
            raise UserError("There is no message to compare on.", do="Write what a customer might ask.")
        if not adapter:
            raise UserError("No adapter is chosen.", do="Choose what the base model is compared with.")
        prompt = [Message(role="user", text=text.strip())]
        models = ["base", adapter]
        self._coin.shuffle(models)
        identities = [self._identify(model) for model in models]
        texts: dict[Side, str] = {"left": "", "right": ""}
        ends: dict[Side, Chunk] = {}
        started = time.monotonic()
        streams = [self._model().stream(prompt, model=model, sampling=sampling) for model in models]
        try:
            async for side, chunk in paced(*streams):
                texts[side] += chunk.text
                if chunk.finish:
                    ends[side] = chunk
                yield LivePair(**texts)
        except UserError as error:
            yield LivePair(**texts, problem=str(error))
            return
        if not all(text.strip() for text in texts.values()):
            yield LivePair(**texts, problem="One side said nothing, so there is nothing to compare. Ask again.")
            return
        # Both sides get the pair's time: the pacing makes any other figure meaningless.
        seconds = round(time.monotonic() - started, 3)
        left, right = (
            Answer(text=texts[side], provenance=_drawn(identity, sampling, ends.get(side, Chunk()), seconds))
            for side, identity in zip(SIDES, identities, strict=True)
        )
        yield LivePair(**texts, comparison_id=self._store.comparisons.add(prompt, left, right, self._who.name))

    def vote(self, comparison_id: str, outcome: Outcome, seconds: float | None = None) -> Comparison:
        """Take the one vote and reveal the sides. Raises Conflict for a second vote.

        Where both are bad, both wait for a correction at the review desk; they are brought there first, so that no
        crash can come between.
        """
        self._who.must("judge")
        comparison = self._store.comparisons.get(comparison_id)
        if outcome == "both_bad" and comparison.outcome is None:
            for side in SIDES:
                _at_the_desk(self._store, comparison, side)
        return self._store.comparisons.vote(comparison_id, outcome, self._who.name, seconds)

    def fix(self, comparison_id: str) -> str:
        """Bring the reply that was preferred before the review desk; returns its id there. Raises UserError where none
        was.
        """
        self._who.must("judge")
        comparison = self._store.comparisons.get(comparison_id)
        if comparison.outcome not in SIDES:
            raise UserError("No side was called better.", "A vote for left or right.", "Vote first.")
        return _at_the_desk(self._store, comparison, comparison.outcome)

    def tally(self) -> dict[str, int]:
        """Votes so far: `tuned`, `base`, `tie`, `both_bad`."""
        self._who.must("look")
        counted = {"tuned": 0, "base": 0, "tie": 0, "both_bad": 0}
        for comparison in self._store.comparisons.voted():
            sides = {"left": comparison.left.provenance.adapter, "right": comparison.right.provenance.adapter}
            outcome = comparison.outcome or "tie"
            counted[("tuned" if sides[outcome] else "base") if outcome in sides else outcome] += 1
        return counted

    def last(self) -> Comparison | None:
        """The comparison voted on last."""
        self._who.must("look")
        voted = self._store.comparisons.voted()
        return voted[-1] if voted else None


def _at_the_desk(store: Store, comparison: Comparison, side: Side) -> str:
    """A side's reply as a conversation that waits for review, however often this is done; returns its id."""
    source, external_id = "compare", f"{comparison.id}-{side}"
    answer = comparison.left if side == "left" else comparison.right
    reply = (Message(role="assistant", text=answer.text), answer.provenance)
    messages = [*((message, None) for message in comparison.prompt), reply]
    store.conversations.import_one(source, external_id, comparison.prompt[-1].text, None, messages)
    return store.conversations.of_external(source, external_id).turns[-1].id


def _drawn(identity: Provenance, sampling: Sampling, end: Chunk, seconds: float) -> Provenance:
    made = {"sampling": sampling, "seconds": seconds, "finish": end.finish, "attested": end.weights}
    return identity.model_copy(update=made)
