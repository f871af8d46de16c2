"""Experiments: set one up, draw its replies, judge its pairs blind, see what came out."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

from pydantic import Field

from annotation.charter import system_prompt
from annotation.errors import Conflict, NotFound, UserError, refuse_nul
from annotation.experiments import (
    MOST_SIDES,
    ArenaSide,
    BallotForm,
    CastBallot,
    Design,
    Drawn,
    Experiment,
    Pair,
    in_order_for,
    not_dealt,
    plan,
    prompts_of,
    why_not_dealt,
)
from annotation.near import near, opening
from annotation.people import Person
from annotation.store import Store
from annotation.types import Conversation, Frozen, Message, Provenance, Question, Sampling
from annotation.versions import read_rows
from studio.services.checked import must_count

Prompts = tuple[tuple[Message, ...], ...]
Labels = tuple[dict[str, str], ...]
"""What is known of each prompt."""


class SideForm(Frozen):
    """A side as it is asked for in the page."""

    model: str
    """`base`, or an adapter's name."""
    guide: bool = False
    """Whether the charter's instructions are put before each prompt."""
    own: str | None = None
    """Other instructions that are put there instead; None for none."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7


class ExperimentForm(Frozen):
    """An experiment as it is asked for in the page."""

    name: str
    sides: tuple[SideForm, ...]
    prompts: str = ""
    """One a line; '' for the requests that the newest dataset version kept away from training."""
    criteria: tuple[Question, ...] = ()
    votes_each: int = 1
    longest: int = 200
    """Of a reply, in tokens."""
    controls: bool = True


class Shown(Frozen):
    """A pair as the voter sees it: nothing here tells the sides apart."""

    pair_id: str
    prompt: tuple[Message, ...]
    left: str
    right: str
    criteria: tuple[Question, ...]
    done: int
    """Pairs this voter has judged."""
    of: int
    """Pairs there are for this voter now, the judged ones included."""


class Standing(Frozen):
    """How far an experiment has come, in numbers that tell nothing about who leads."""

    experiment: Experiment
    drawn: int
    planned: int
    not_dealt: dict[str, int]
    """Pairs that nobody is asked about, by reason."""
    ballots: int
    voters: int


class ExperimentService:
    """What the Arena page and `tonesmith experiment` call, for one person."""

    def __init__(
        self,
        store: Store,
        datasets: Path,
        identify: Callable[[str], Provenance],
        who: Person,
        *,
        sound: Callable[[str], None] = lambda model: None,
    ) -> None:
        self._store = store
        self._datasets = datasets
        self._identify = identify
        self._who = who
        self._sound = sound

    def start(self, form: ExperimentForm) -> Experiment:
        """Freeze an experiment. Its replies are drawn by `ExperimentRunner`.

        Raises UserError for sides that are the same, and for a prompt that a model has been trained on, by its line.
        """
        self._who.must("curate")
        refuse_nul(form.model_dump())
        name = form.name.strip() or _missing("The experiment has no name.", "Give it one, for example its question.")
        sides = self._sides(form)
        prompts, labels = self._prompts(form.prompts)
        design = Design(
            name=name,
            sides=sides,
            prompts=prompts,
            labels=labels,
            criteria=form.criteria,
            votes_each=form.votes_each,
            control_share=0.1 if form.controls else 0.0,
            repeat_share=0.1 if form.controls else 0.0,
            seed=secrets.randbits(31),  # nobody can work out beforehand which side stands left
        )
        return self._store.experiments.add(design, self._who.name)

    def all(self) -> list[Experiment]:
        """All experiments, newest first."""
        self._who.must("look")
        return self._store.experiments.all()

    def find(self, called: str) -> Experiment:
        """The one with this name, or whose id begins like this. Raises NotFound, and Conflict if it may be several."""
        self._who.must("look")
        there = self._store.experiments.all()
        found = [one for one in there if called in (one.design.name, one.id)]
        found = found or [one for one in there if called and one.id.startswith(called)]
        if not found:
            raise NotFound(
                f"There is no experiment '{called}'.", do="`tonesmith experiment list` names those there are."
            )
        if len(found) > 1:
            raise Conflict(f"{len(found)} experiments have an id that begins with '{called}'.", do="Give more of it.")
        return found[0]

    def standing(self, experiment_id: str) -> Standing:
        """How far it has come. Raises NotFound."""
        self._who.must("look")
        experiment = self._store.experiments.get(experiment_id)
        pairs = self._store.experiments.pairs(experiment_id)
        ballots = self._store.experiments.ballots(experiment_id)
        return Standing(
            experiment=experiment,
            drawn=len(pairs),
            planned=len(plan(experiment.design)),
            not_dealt=not_dealt(experiment.design, pairs),
            ballots=len(ballots),
            voters=len({one.voter for one in ballots}),
        )

    def next(self, experiment_id: str) -> Shown | None:
        """The next pair for this person, None when there is none (left, or yet), or they have seen the figures."""
        self._who.must("judge")
        experiment = self._store.experiments.get(experiment_id)
        if experiment.ended_at or self._store.experiments.looked(experiment_id, self._who.name):
            return None
        design = experiment.design
        votes = Counter[str]()
        mine = set()
        for one in self._store.experiments.ballots(experiment_id):
            votes[one.pair_id] += 1
            if one.voter == self._who.name:
                mine.add(one.pair_id)
        pairs = [pair for pair in self._store.experiments.pairs(experiment_id) if not why_not_dealt(design, pair)]
        first = {pair.planned.number: pair.id for pair in pairs}

        free = {pair.id for pair in pairs if pair.id not in mine and votes[pair.id] < design.votes_each}

        def comes(pair: Pair) -> bool:
            """Whoever did not judge a pair the first time has nothing to repeat."""
            again = pair.planned.repeats
            return pair.id in free and (again is None or first.get(again) in mine | free)

        mine_open = [pair for pair in pairs if comes(pair)]
        pair = next(in_order_for(self._who.name, mine_open, lambda pair_id: votes[pair_id]), None)
        if pair is None:
            return None
        return Shown(
            pair_id=pair.id,
            prompt=design.prompts[pair.planned.prompt],
            left=pair.left.text,
            right=pair.right.text,
            criteria=design.criteria,
            done=len(mine),
            of=len(mine) + len(mine_open),
        )

    def vote(self, pair_id: str, form: BallotForm) -> CastBallot:
        """Take this person's ballot. Raises Conflict for a second one, after the end, for somebody who has seen the
        figures, and where a side was seen not to be served as it was trained.

        Where both are bad, both wait for a correction at the review desk; they are brought there first, so that no
        crash can come between. What an experiment asks is kept for measuring, so no correction of it is trained on.
        """
        self._who.must("judge")
        refuse_nul(form.comment)
        experiment, pair = self._store.experiments.of_pair(pair_id)
        for said in (pair.left, pair.right):
            must_count(said.provenance, self._sound)
        kept, me = self._store.experiments, self._who.name
        counts = not (experiment.ended_at or kept.ballot(pair_id, me) or kept.looked(experiment.id, me))
        if form.outcome == "both_bad" and counts:
            for said in (pair.left, pair.right):
                _at_the_desk(self._store, experiment, pair, said)
        return self._store.experiments.cast(pair_id, self._who.name, form)

    def fix(self, pair_id: str) -> str:
        """Bring the reply that this person preferred before the review desk; returns its id there. Raises UserError
        where they preferred none.
        """
        self._who.must("judge")
        experiment, pair = self._store.experiments.of_pair(pair_id)
        mine = self._store.experiments.ballot(pair_id, self._who.name)
        if mine is None or mine.form.outcome not in ("left", "right"):
            raise UserError("You called neither reply better.", "A vote for one of them.", "Vote first.")
        better = pair.left if mine.form.outcome == "left" else pair.right
        return _at_the_desk(self._store, experiment, pair, better)

    def end(self, experiment_id: str, reason: str = "") -> Experiment:
        """No more ballots; from now on the sides may be named. Raises UserError while nobody has voted."""
        self._who.must("curate")
        if not self._store.experiments.ballots(experiment_id):
            raise UserError("Nobody has voted yet.", "At least one vote.", "Judge a few pairs first.")
        return self._store.experiments.end(experiment_id, self._who.name, reason.strip())

    def costs_judging(self, experiment_id: str) -> bool:
        """Whether seeing the figures now would end this person's judging in the experiment. Raises NotFound."""
        self._who.must("look")
        ended = self._store.experiments.get(experiment_id).ended_at is not None
        return not (ended or self._store.experiments.looked(experiment_id, self._who.name))

    def votes(self, experiment_id: str, judge_no_more: bool = False) -> tuple[Experiment, list[Pair], list[CastBallot]]:
        """All that the figures are made from. While the experiment is open they are for curators, who can't judge in it
        from then on: what each side's replies took, and where each vote went, would tell them who is who.

        Raises Conflict for others before the end, and for a curator who has not said `judge_no_more`, now or before.
        """
        self._who.must("look")
        experiment = self._store.experiments.get(experiment_id)
        if not experiment.ended_at and not self._who.may("curate"):
            raise Conflict(
                "The figures are shown when the experiment has ended.",
                do="Judge the pairs that are left; a curator ends it.",
            )
        if self.costs_judging(experiment_id):
            if not judge_no_more:
                raise Conflict(
                    "The figures of an open experiment tell who is who: whoever sees them can't judge in it any more.",
                    "A curator who leaves the judging to others.",
                    "Judge first what you want to judge, then ask with --judge-no-more.",
                )
            self._store.experiments.look(experiment_id, self._who.name)
        return experiment, self._store.experiments.pairs(experiment_id), self._store.experiments.ballots(experiment_id)

    def ended(self) -> list[tuple[Experiment, list[Pair], list[CastBallot]]]:
        """All that is known of every experiment that has ended, newest first."""
        self._who.must("look")
        return [self.votes(one.id) for one in self._store.experiments.all() if one.ended_at]

    def export(self, experiment_id: str) -> list[str]:
        """Lines of JSON: the design and its judges, then each pair with its ballots, and apart what models say.

        Raises Conflict before the end.
        """
        self._who.must("look")
        if not self._store.experiments.get(experiment_id).ended_at:
            raise Conflict("An experiment is exported when it has ended.", do="End it first.")
        experiment, pairs, ballots = self.votes(experiment_id)
        judges = [one.model_dump(mode="json") for one in self._store.judging.judges(experiment_id)]
        by_pair: dict[str, list[Any]] = {}
        for one in ballots:
            by_pair.setdefault(one.pair_id, []).append(one.model_dump(mode="json", exclude={"pair_id"}))
        judged: dict[str, list[Any]] = {}
        for said in self._store.judging.verdicts(experiment_id):
            line = said.model_dump(mode="json", exclude={"pair_id"}) | {"on_screen": said.outcome()}
            judged.setdefault(said.pair_id, []).append(line)
        first = {"experiment": experiment.model_dump(mode="json"), "judges": judges}
        lines = [json.dumps(first, ensure_ascii=False)]
        for pair in pairs:
            line = pair.model_dump(mode="json") | {"ballots": by_pair.get(pair.id, [])}
            line |= {"judged_by_models": judged.get(pair.id, [])}
            line |= {"not_dealt": why_not_dealt(experiment.design, pair)}
            lines.append(json.dumps(line, ensure_ascii=False))
        return lines

    def _sides(self, form: ExperimentForm) -> tuple[ArenaSide, ...]:
        asked = [one.model_copy(update={"own": one.own and one.own.strip()}) for one in form.sides]
        named = zip(_names(asked), asked, strict=True)
        sides = tuple(self._side(name, one, form.longest) for name, one in named)
        if len(sides) < 2:
            raise UserError("There is only one side.", "Two to four.", "Choose what to compare it with.")
        if len(sides) > MOST_SIDES:
            raise UserError(f"There are {len(sides)} sides.", f"Two to {MOST_SIDES}.", "Leave some out.")
        names = Counter(side.name for side in sides)
        if twice := [name for name, number in names.items() if number > 1]:
            raise UserError(
                f"'{twice[0]}' stands on two sides.",
                "Sides that differ.",
                "Change the model, the instructions or the variety of one.",
            )
        return sides

    def _side(self, name: str, form: SideForm, longest: int) -> ArenaSide:
        sampling = Sampling(temperature=form.temperature, max_tokens=longest)
        self._sound(form.model)
        made = self._identify(form.model)
        system = self._instructions(form)
        return ArenaSide(name=name, model=form.model, provenance=made, system=system, sampling=sampling)

    def _instructions(self, form: SideForm) -> str:
        if form.own is not None:
            return form.own or _missing("Your instructions are empty.", "Write them, or choose a side without.")
        return self._guide() if form.guide else ""

    def _guide(self) -> str:
        charter = self._store.charters.current()
        if charter is None:
            raise UserError("There is no charter to make a guide from.", do="Write one on the Charter page.")
        return system_prompt(charter)

    def _prompts(self, text: str) -> tuple[Prompts, Labels | None]:
        prompts, labels = prompts_of(text) if text.strip() else self._held_out()
        if not prompts:
            raise UserError(
                "There are no questions to ask.",
                "One a line; or a dataset version that held some requests back (from 20 rows on).",
                "Write some, as customers would ask.",
            )
        learned = self._learned()
        for number, prompt in enumerate(prompts, start=1):
            if found := near(opening(prompt), learned):
                where = f"Line {number}" if text.strip() else "A question"
                raise UserError(
                    f"{where} is something the model learned from: “{found[:80]}”.",
                    "Questions it was not trained on: else one measures what it knows by heart.",
                    "Take the line out, or ask it differently.",
                )
        return prompts, labels

    def _held_out(self) -> tuple[Prompts, Labels | None]:
        """Each with its conversation's language and source, as far as they are known."""
        newest = next(iter(self._store.datasets.all()), None)
        if newest is None or not newest.rows.get("held_out"):
            return (), None
        found: dict[str, tuple[tuple[Message, ...], str]] = {}
        for row in read_rows(self._datasets / newest.id, "held_out"):
            messages = tuple(Message(role=one["role"], text=one["content"]) for one in row["messages"][:-1])
            found.setdefault(opening(messages), (messages, row["reply_id"]))
        known = self._store.conversations.of_replies(reply_id for _, reply_id in found.values())
        labels = tuple(_labels(known.get(reply_id)) for _, reply_id in found.values())
        return tuple(messages for messages, _ in found.values()), labels if any(labels) else None

    def _learned(self) -> list[str]:
        """What all dataset versions hand to training, by their openings."""
        found: set[str] = set()
        for version in self._store.datasets.all():
            try:
                rows = read_rows(self._datasets / version.id, "sft")
            except NotFound:  # its files are gone: nothing is trained on it any more, but something may have been
                continue
            found |= {opening([Message(role=m["role"], text=m["content"]) for m in row["messages"]]) for row in rows}
        return sorted(found)


def _labels(conversation: Conversation | None) -> dict[str, str]:
    if conversation is None:
        return {}
    return {"source": conversation.source} | ({"language": conversation.language} if conversation.language else {})


def _names(sides: Sequence[SideForm]) -> list[str]:
    """What each side is called. Where several would be called the same, what they differ in stands in the name."""
    names = [_name(one) for one in sides]
    for told in (_variety, _words, lambda one: f" ({1 + sides.index(one)})"):
        for name in {name for name, number in Counter(names).items() if number > 1}:
            alike = [place for place, one in enumerate(names) if one == name]
            if len({told(sides[place]) for place in alike}) > 1:
                for place in alike:
                    names[place] += told(sides[place])
    return names


def _name(form: SideForm) -> str:
    name = "Base model" if form.model == "base" else form.model
    if form.own is not None:
        name += " with our instructions"
    elif form.guide:
        name += " with the guide"
    return name + (", no variety" if form.temperature == 0 else "")


def _variety(form: SideForm) -> str:
    return f", variety {form.temperature:g}"


def _words(form: SideForm) -> str:
    """How its own instructions begin."""
    return f" “{shorten(form.own, 24, placeholder='…')}”" if form.own else ""


def _at_the_desk(store: Store, experiment: Experiment, pair: Pair, said: Drawn) -> str:
    """A reply as a conversation that waits for review, however often and from however many pairs; returns its id.

    Nothing there tells which side it is of, since people may still be voting: no weights and no instructions. Its
    `external_id` is of what the replies share, the words.
    """
    prompt = experiment.design.prompts[pair.planned.prompt]
    words = json.dumps([[message.model_dump() for message in prompt], said.text]).encode()
    source, external_id = "experiment", f"{experiment.id}-{hashlib.sha256(words).hexdigest()[:16]}"
    messages = [*prompt, Message(role="assistant", text=said.text)]
    store.conversations.import_one(source, external_id, prompt[-1].text, None, [(one, None) for one in messages])
    return store.conversations.of_external(source, external_id).turns[-1].id


def _missing(found: str, do: str) -> str:
    raise UserError(found, do=do)
