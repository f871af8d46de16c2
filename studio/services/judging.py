"""Models as judges of experiments: asked for by a curator, run in the background, shown apart from people's figures."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from annotation.errors import Conflict, UserError
from annotation.experiments import Design, Experiment, Pair, plan
from annotation.judging import (
    ORDERS,
    AskedJudge,
    Judge,
    JudgeVerdict,
    Order,
    asked_sha256,
    judged_pairs,
    question_about,
    read_answer,
    rubric,
    sampling_for,
)
from annotation.people import Person
from annotation.store import Store
from annotation.types import ChatModel, Chunk, Frozen, Provenance, Weights
from serving.client import TooLong
from serving.engine import unwatched_at_once
from studio.services.background import Background
from studio.services.drawing import some_at_once

ELSEWHERE = "elsewhere"
"""What the model at another server is called in choices."""


class Outside(Frozen):
    """Another OpenAI-compatible server whose model may judge."""

    url: str
    model: str


class JudgeProgress(Frozen):
    """How far a judge has come, in numbers that tell nothing about what it thinks."""

    asked: AskedJudge
    answers: int
    of: int
    """Two for each pair that is judged or yet to be drawn."""
    no_verdict: int
    """Answers that could not be read."""
    halted: bool


class JudgeService:
    """What the Experiments page and `tonesmith experiment judge` call, for one person."""

    def __init__(
        self,
        store: Store,
        identify: Callable[[str], Provenance],
        choices: Callable[[], list[tuple[str, str]]],
        outside: Outside | None,
        who: Person,
    ) -> None:
        self._store = store
        self._identify = identify
        self._choices = choices
        self._outside = outside
        self._who = who

    def choices(self) -> list[tuple[str, str]]:
        """(label, name) of the models that may judge."""
        self._who.must("curate")
        outside = self._outside
        there = [(f"{outside.model} at {outside.url}", ELSEWHERE)] if outside else []
        return [*self._choices(), *there]

    def ask(self, experiment_id: str, model: str) -> AskedJudge:
        """Freeze a judge for an experiment; `JudgeRunner` lets it judge. The same one again is the one that is there.

        Raises NotFound, and UserError without a charter or for a server that is not set.
        """
        self._who.must("curate")
        experiment = self._store.experiments.get(experiment_id)
        charter = self._store.charters.current()
        if charter is None:
            raise UserError("There is no charter to judge by.", do="Write one on the Charter page.")
        outside = self._outside if model == ELSEWHERE else None
        if model == ELSEWHERE and outside is None:
            raise UserError("No other server is set.", do="Set TONESMITH_JUDGE_URL and TONESMITH_JUDGE_MODEL.")
        judge = Judge(
            model=outside.model if outside else model,
            elsewhere=outside.url if outside else "",
            provenance=Provenance(model=outside.model) if outside else self._identify(model),
            rubric=rubric(charter, experiment.design.criteria),
            criteria=experiment.design.criteria,
            charter_version=charter.version,
        )
        return self._store.judging.ask(experiment.id, judge, self._who.name)

    def progress(self, experiment_id: str) -> list[JudgeProgress]:
        """How far the judges of an experiment have come, oldest first."""
        self._who.must("curate")
        experiment = self._store.experiments.get(experiment_id)
        pairs = self._store.experiments.pairs(experiment_id)
        drawn = sum(pair.planned.kind == "pair" for pair in pairs)
        planned = sum(one.kind == "pair" for one in plan(experiment.design))
        to_come = 0 if experiment.ended_at else planned - drawn
        of = len(ORDERS) * (len(judged_pairs(experiment.design, pairs)) + to_come)
        counts = self._store.judging.counts(experiment_id)
        found = []
        for asked in self._store.judging.judges(experiment_id):
            answers, unread = counts.get(asked.id, (0, 0))
            halted = self._store.halts.halted(asked.id)
            found.append(JudgeProgress(asked=asked, answers=answers, of=of, no_verdict=unread, halted=halted))
        return found

    def verdicts(self, experiment_id: str) -> list[tuple[AskedJudge, list[JudgeVerdict]]]:
        """What each judge said. Raises Conflict before the end: somebody may still vote, and would know."""
        self._who.must("look")
        if not self._store.experiments.get(experiment_id).ended_at:
            raise Conflict(
                "What a model thinks is shown when the experiment has ended.",
                do="End it first: whoever still votes should not know what a model thinks.",
            )
        kept = self._store.judging.verdicts(experiment_id)
        judges = self._store.judging.judges(experiment_id)
        return [(asked, [one for one in kept if one.judge_id == asked.id]) for asked in judges]


class JudgeRunner:
    """Lets judges judge what they have not yet, oldest first, in both orders. What is there is on disk, one by one.

    About `at_once()` answers are under way together: the engine batches them.
    """

    def __init__(
        self,
        store: Store,
        model: Callable[[Judge], ChatModel],
        identify: Callable[[str], Provenance],
        lock: Path | None = None,
        at_once: Callable[[], int] = lambda: unwatched_at_once(None),
    ) -> None:
        self._store = store
        self._model = model
        self._identify = identify
        self._at_once = at_once
        self._thread = Background("judging", self._work, self._failed, again=True, lock=lock)
        self._fault = ""
        self._troubles: dict[str, str] = {}
        self._left: dict[str, float] = {}
        self._through: set[str] = set()

    def start(self) -> None:
        """Begin, or look again: a judge may have been asked for, or more pairs may be drawn."""
        self._thread.wake()

    def cancel(self, by: Person, judge_id: str) -> None:
        """Ask this judge no more until `resume`; what it said stays. Raises NotFound."""
        by.must("curate")
        self._store.halts.say(self._store.judging.get(judge_id).id, True, by.name)

    def resume(self, by: Person, judge_id: str) -> None:
        """Let it go on. Raises NotFound."""
        by.must("curate")
        self._store.halts.say(self._store.judging.get(judge_id).id, False, by.name)
        self.start()

    def seconds_left(self, judge_id: str) -> float | None:
        """Until it is through, as far as can be told; None while it is not at work."""
        return self._left.get(judge_id)

    def trouble(self, judge_id: str) -> str:
        """What keeps it from going on, '' if nothing does; it is tried again by itself."""
        return self._troubles.get(judge_id, self._fault)

    def close(self) -> None:
        """Stop, and wait a little for it."""
        self._thread.close()

    def _failed(self, trouble: str) -> None:
        self._fault = trouble

    def _work(self) -> None:
        self._fault = ""
        for asked in self._store.judging.judges():
            if asked.id in self._through:
                continue
            try:
                asyncio.run(self._judge(asked))
                self._troubles.pop(asked.id, None)
            except UserError as error:  # this one has to wait; another may be at another server
                self._troubles[asked.id] = str(error)
            finally:
                self._left.pop(asked.id, None)

    def _rests(self, asked: AskedJudge) -> bool:
        return self._thread.stopping or self._store.halts.halted(asked.id)

    async def _judge(self, asked: AskedJudge) -> None:
        """Whatever this judge lacks. Raises the first UserError, after the answers that were under way."""
        experiment = self._store.experiments.get(asked.experiment_id)
        missing = self._missing(asked, experiment)
        if not missing and experiment.ended_at:  # and nothing will be added
            self._through.add(asked.id)
        if not missing or self._rests(asked):
            return
        self._must_be_the_same(asked.judge)
        one = _OneJudge(self._store, self._model(asked.judge), asked, experiment.design)
        troubles: list[UserError] = []
        began, done = time.monotonic(), 0

        async def answer(pair: Pair, order: Order) -> None:
            nonlocal done
            if troubles or self._rests(asked):
                return
            try:
                await one.answer(pair, order)
            except UserError as error:
                troubles.append(error)
                return
            done += 1
            self._left[asked.id] = (time.monotonic() - began) / done * (len(missing) - done)

        await some_at_once([functools.partial(answer, pair, order) for pair, order in missing], self._at_once())
        if troubles:
            raise troubles[0]

    def _missing(self, asked: AskedJudge, experiment: Experiment) -> list[tuple[Pair, Order]]:
        said = self._store.judging.said(asked.id)
        pairs: Sequence[Pair] = judged_pairs(experiment.design, self._store.experiments.pairs(experiment.id))
        return [(pair, order) for pair in pairs for order in ORDERS if (pair.id, order) not in said]

    def _must_be_the_same(self, judge: Judge) -> None:
        """Raises UserError if the name stands for other weights than when it was asked for."""
        if not judge.elsewhere and self._identify(judge.model) != judge.provenance:
            raise UserError(
                f"{judge.name} is not the model any more that was asked to judge.",
                "The very same weights for all of a judge's verdicts.",
                "Ask for a judge anew.",
            )


class _OneJudge:
    """Asks one judge and keeps what it says."""

    def __init__(self, store: Store, model: ChatModel, asked: AskedJudge, design: Design) -> None:
        self._store = store
        self._model = model
        self._asked = asked
        self._design = design
        kept = (one for one in store.judging.verdicts(asked.experiment_id) if one.judge_id == asked.id)
        self._attested: Weights | None = next((seen for one in kept if (seen := one.provenance.attested)), None)

    async def answer(self, pair: Pair, order: Order) -> None:
        """Raises UserError, and then nothing is kept. What does not fit into the model is kept as no verdict."""
        judge = self._asked.judge
        messages = question_about(judge, self._design, pair, order)
        sampling = sampling_for(judge, self._design, pair, order)
        began = time.monotonic()
        text, last = "", Chunk(finish="error")
        try:
            async for chunk in self._model.stream(messages, model=judge.model, sampling=sampling):
                text += chunk.text
                last = chunk if chunk.finish else last
        except TooLong:
            text = ""
        self._must_be_the_same(last.weights)
        seconds = round(time.monotonic() - began, 3)
        made = {"sampling": sampling, "seconds": seconds, "finish": last.finish, "attested": last.weights}
        provenance = judge.provenance.model_copy(update=made)
        opinion = read_answer(text, judge.criteria)
        about = (pair.id, self._asked.id, order, text, opinion, asked_sha256(messages), provenance)
        await asyncio.to_thread(self._store.judging.keep, *about)

    def _must_be_the_same(self, weights: Weights | None) -> None:
        if weights is None:
            return
        self._attested = self._attested or weights
        if weights != self._attested:
            raise UserError(
                f"The engine judges with other weights than before: {self._asked.judge.name} has changed.",
                "The very same weights for all of a judge's verdicts.",
                "Bring the model back that began, or ask for a judge on a new experiment.",
            )
