"""Draw the replies of experiments, in a thread of the studio: closing the page does not stop it, a restart goes on."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from annotation.errors import UserError
from annotation.experiments import ArenaSide, Design, Draw, Drawn, Experiment, Pair, Planned, draws, plan
from annotation.people import Person
from annotation.store import Store
from annotation.types import ChatModel, Chunk, Frozen, Weights
from serving.engine import unwatched_at_once
from studio.services.background import Background


class DrawingView(Frozen):
    """Where the drawing stands."""

    experiment_id: str = ""
    """'' while there is nothing to draw."""
    done: int = 0
    of: int = 0
    eta_seconds: float | None = None
    trouble: str = ""
    """What keeps it from going on, '' if nothing does; it tries again by itself."""


class ExperimentRunner:
    """Draws whatever open experiments lack, oldest first. What is there is on disk, pair by pair.

    About `at_once()` replies are under way together: the engine batches them.
    """

    def __init__(
        self,
        store: Store,
        model: Callable[[], ChatModel],
        lock: Path | None = None,
        at_once: Callable[[], int] = lambda: unwatched_at_once(None),
    ) -> None:
        self._store = store
        self._model = model
        self._at_once = at_once
        self._thread = Background("drawing", self._work, self._failed, again=True, lock=lock)
        self._view = DrawingView()

    def start(self) -> None:
        """Begin, or look again: something may have been added."""
        self._thread.wake()

    def cancel(self, by: Person, experiment_id: str) -> None:
        """Draw no more for this experiment until `resume`, also after a restart; what is drawn stays and can be judged.

        Raises NotFound.
        """
        by.must("curate")
        self._store.halts.say(self._store.experiments.get(experiment_id).id, True, by.name)

    def resume(self, by: Person, experiment_id: str) -> None:
        """Go on drawing for it. Raises NotFound."""
        by.must("curate")
        self._store.halts.say(self._store.experiments.get(experiment_id).id, False, by.name)
        self.start()

    def halted(self, experiment_id: str) -> bool:
        """Whether `cancel` was the last word about it."""
        return self._store.halts.halted(experiment_id)

    def view(self) -> DrawingView:
        """Where it stands."""
        return self._view

    def close(self) -> None:
        """Stop, and wait a little for it."""
        self._thread.close()

    def _work(self) -> None:
        """Raises UserError while the engine is away; it is brought back, and then this goes on."""
        while not self._thread.stopping and (lacking := self._lacking()):
            asyncio.run(self._draw(*lacking))
        self._view = DrawingView()

    def _failed(self, trouble: str) -> None:
        self._view = self._view.model_copy(update={"trouble": trouble, "eta_seconds": None})

    def _lacking(self) -> tuple[Experiment, list[Planned]] | None:
        for experiment in reversed(self._store.experiments.all()):
            if experiment.ended_at is None and not self.halted(experiment.id):
                made = self._store.experiments.made(experiment.id)
                if missing := [one for one in plan(experiment.design) if one.number not in made]:
                    return experiment, missing
        return None

    def _rests(self, experiment_id: str) -> bool:
        """Whether no more is to be drawn for it now."""
        ended = self._store.experiments.get(experiment_id).ended_at is not None
        return ended or self._thread.stopping or self.halted(experiment_id)

    async def _draw(self, experiment: Experiment, missing: Sequence[Planned]) -> None:
        """Both replies of each pair. Raises the first UserError, after the pairs that were under way."""
        began, kept = time.monotonic(), self._store.experiments.pairs(experiment.id)
        before, of = len(kept), len(kept) + len(missing)
        replies = _Replies(self._model(), experiment.design, kept)
        troubles: list[UserError] = []
        done = 0

        async def one(planned: Planned) -> None:
            nonlocal done
            if troubles or self._rests(experiment.id):
                return
            try:
                left, right = await asyncio.gather(*(replies.of(draw) for draw in draws(planned)))
            except UserError as error:
                troubles.append(error)
                return
            await asyncio.to_thread(self._store.experiments.keep, experiment.id, planned, left, right)
            done += 1
            seconds = (time.monotonic() - began) / done * (len(missing) - done)
            self._view = DrawingView(experiment_id=experiment.id, done=before + done, of=of, eta_seconds=seconds)

        self._view = DrawingView(experiment_id=experiment.id, done=before, of=of)
        await some_at_once([functools.partial(one, planned) for planned in missing], self._at_once() // 2)
        if troubles:
            raise troubles[0]


class _Replies:
    """Each reply is asked for once, however many pairs show it; those that are kept already are not asked for again."""

    def __init__(self, model: ChatModel, design: Design, kept: Sequence[Pair]) -> None:
        self._model = model
        self._design = design
        self._kept = {
            draw: drawn
            for pair in kept
            for draw, drawn in zip(draws(pair.planned), (pair.left, pair.right), strict=True)
        }
        self._asked: dict[Draw, asyncio.Task[Drawn]] = {}

    async def of(self, draw: Draw) -> Drawn:
        """Raises UserError."""
        if draw in self._kept:
            return self._kept[draw]
        if draw not in self._asked:
            self._asked[draw] = asyncio.create_task(self._ask(draw))
        return await self._asked[draw]

    async def _ask(self, draw: Draw) -> Drawn:
        side, sampling = self._design.sides[draw.side], draw.sampling(self._design)
        began = time.monotonic()
        text, last, first = "", Chunk(), None
        async for chunk in self._model.stream(draw.messages(self._design), model=side.model, sampling=sampling):
            if chunk.text and not text and not chunk.finish:  # one that comes whole says nothing of its first token
                first = round(time.monotonic() - began, 3)
            text += chunk.text
            last = chunk if chunk.finish else last
        _must_be(side, last.weights)
        seconds = round(time.monotonic() - began, 3)
        made = {"sampling": sampling, "seconds": seconds, "finish": last.finish, "attested": last.weights}
        return Drawn(
            text=text,
            provenance=side.provenance.model_copy(update=made),
            prompt_tokens=last.prompt_tokens,
            completion_tokens=last.completion_tokens,
            first_token=first,
        )


def _must_be(side: ArenaSide, said: Weights | None) -> None:
    """Raise UserError if a side is not answered by the base model that was frozen; an adapter is held by its name."""
    if said is not None and side.provenance.base_sha256 not in (None, said.base_sha256):
        raise UserError(
            f"'{side.name}' was frozen with another base model than the engine has now.",
            "The base model as it was when the experiment began.",
            "Start the studio with that model again, or end the experiment.",
        )


async def some_at_once(jobs: Sequence[Callable[[], Awaitable[None]]], number: int) -> None:
    """In order, `number` under way together."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    await asyncio.gather(*(work() for _ in range(number)))
