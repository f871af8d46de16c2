"""Experiments as the page uses them: set up, drawn, judged blind, ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
import sqlalchemy as sa

from annotation.curate import joined
from annotation.errors import Conflict, NotFound, UserError
from annotation.experiments import BallotForm, Experiment, plan
from annotation.people import Forbidden, Person
from annotation.store import Store, open_store
from annotation.store.experiments import Experiments
from annotation.store.reviews import ReviewAct, Verdict
from annotation.store.search import Filter
from annotation.types import Charter, Chunk, Clause, Message, Provenance, Sampling, Weights
from annotation.versions import freeze, rows_in
from serving.scripted import ScriptedModel
from studio.services.drawing import ExperimentRunner
from studio.services.experiments import ExperimentForm, ExperimentService, SideForm

CURATOR = Person(name="cat", role="curator")
BASE, TUNED = SideForm(model="base"), SideForm(model="shop-1")
QUESTIONS = "\n".join(f"Where is parcel {word}?" for word in ("Aachen", "Bergamo", "Coimbra", "Dortmund", "Évora"))


class Voices:
    """Answers so that one can tell who was asked what; it may fail or wait."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int | None]] = []
        self.fault: str = ""
        self.wait: Callable[[], bool] = lambda: False
        self.busy = self.most = 0

    async def stream(self, messages: tuple[Message, ...], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        if self.fault:
            raise UserError(self.fault)
        self.asked.append((messages[-1].text, model, sampling.seed))
        voice = "Warm greetings" if model == "shop-1" else "Hello"
        script = ScriptedModel([f"{voice}! About “{messages[-1].text}” take {sampling.seed}."], word_seconds=0)
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0.02)
        async for chunk in script.stream(messages, model=model, sampling=sampling):
            yield chunk
        self.busy -= 1


def identify(model: str) -> Provenance:
    adapter = None if model == "base" else model
    return Provenance(model="SmolLM2", adapter=adapter, weights_sha256="ab" * 32 if adapter else None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.charters.add(Charter(name="Shop", policy=(Clause(id="no-promises", text="No promises."),)), "ana")
    yield opened
    opened.close()


@pytest.fixture
def voices() -> Voices:
    return Voices()


@pytest.fixture
def runner(store: Store, voices: Voices) -> Iterator[ExperimentRunner]:
    made = ExperimentRunner(store, lambda: voices)  # type: ignore[arg-type, return-value]
    yield made
    made.close()


def at(store: Store, tmp_path: Path, who: Person = CURATOR) -> ExperimentService:
    return ExperimentService(store, tmp_path / "datasets", identify, who)


def form(**values: object) -> ExperimentForm:
    given: dict[str, object] = {"name": "Tone", "sides": (BASE, TUNED), "prompts": QUESTIONS}
    return ExperimentForm.model_validate(given | values)


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def drawn(store: Store, runner: ExperimentRunner, experiment: Experiment) -> None:
    runner.start()
    until(lambda: len(store.experiments.made(experiment.id)) == len(plan(experiment.design)))


def test_every_pair_is_drawn_by_the_weights_it_names(
    store: Store, tmp_path: Path, voices: Voices, runner: ExperimentRunner
) -> None:
    experiment = at(store, tmp_path).start(form())
    drawn(store, runner, experiment)
    for pair in store.experiments.pairs(experiment.id):
        for said in (pair.left, pair.right):
            assert said.text.startswith("Warm" if said.provenance.adapter else "Hello")
            assert said.provenance.weights_sha256 == ("ab" * 32 if said.provenance.adapter else None)
            assert said.provenance.sampling is not None
            assert said.finish == "stop"
            assert said.completion_tokens
    assert len(voices.asked) == len(set(voices.asked))  # nothing was asked for twice
    until(lambda: runner.view().experiment_id == "")


def test_a_pair_that_comes_again_shows_the_very_same_replies(
    store: Store, tmp_path: Path, runner: ExperimentRunner
) -> None:
    many = "\n".join(f"What about item {'x' * number}, then?" for number in range(1, 21))
    experiment = at(store, tmp_path).start(form(prompts=many))
    drawn(store, runner, experiment)
    pairs = {pair.planned.number: pair for pair in store.experiments.pairs(experiment.id)}
    again = [pair for pair in pairs.values() if pair.planned.repeats is not None]
    assert len(again) == 2
    for pair in again:
        first = pairs[pair.planned.repeats or 0]
        assert (pair.left.text, pair.right.text) == (first.right.text, first.left.text)


def test_as_many_replies_are_asked_for_together_as_the_engine_takes(
    store: Store, tmp_path: Path, voices: Voices
) -> None:
    runner = ExperimentRunner(store, lambda: voices, at_once=lambda: 6)  # type: ignore[arg-type, return-value]
    experiment = at(store, tmp_path).start(form(prompts="\n".join(f"What of {'x' * n}?" for n in range(1, 9))))
    try:
        drawn(store, runner, experiment)
    finally:
        runner.close()
    assert voices.most == 6


def test_a_fault_of_the_engine_is_said_and_drawing_goes_on_after_it(
    store: Store, tmp_path: Path, voices: Voices, runner: ExperimentRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.services.background.RETRY_SECONDS", 0.05)
    voices.fault = "The engine broke off."
    experiment = at(store, tmp_path).start(form())
    runner.start()
    until(lambda: "broke off" in runner.view().trouble)
    assert store.experiments.made(experiment.id) == set()
    voices.fault = ""
    until(lambda: len(store.experiments.made(experiment.id)) == len(plan(experiment.design)))


def test_a_frozen_side_is_not_answered_by_another_base(store: Store, tmp_path: Path) -> None:
    """The studio was started with another base model while the experiment was under way."""

    def frozen(model: str) -> Provenance:
        return identify(model).model_copy(update={"base_sha256": "then"})

    class Now(Voices):
        async def stream(
            self, messages: tuple[Message, ...], *, model: str, sampling: Sampling
        ) -> AsyncIterator[Chunk]:
            async for chunk in super().stream(messages, model=model, sampling=sampling):
                yield chunk.model_copy(update={"weights": Weights(base_sha256="now")})

    experiment = ExperimentService(store, tmp_path / "datasets", frozen, CURATOR).start(form())
    assert experiment.design.sides[0].provenance.base_sha256 == "then"
    runner = ExperimentRunner(store, lambda: Now())  # type: ignore[arg-type, return-value]
    runner.start()
    until(lambda: "was frozen with another base model" in runner.view().trouble)
    runner.close()
    assert store.experiments.made(experiment.id) == set()


def test_what_a_killed_studio_had_drawn_is_not_drawn_again(
    store: Store, tmp_path: Path, voices: Voices, runner: ExperimentRunner
) -> None:
    experiment = at(store, tmp_path).start(form(controls=False))
    planned = plan(experiment.design)
    other = ExperimentRunner(store, lambda: voices)  # type: ignore[arg-type, return-value]
    drawn(store, other, experiment)
    other.close()
    late = at(store, tmp_path).start(form(name="Second", controls=False))
    before = len(voices.asked)
    drawn(store, runner, late)
    assert len(voices.asked) - before == 2 * len(planned)
    assert len(store.experiments.pairs(experiment.id)) == len(planned)


def test_drawing_can_be_stopped_and_gone_on_with(
    store: Store, tmp_path: Path, runner: ExperimentRunner, voices: Voices
) -> None:
    experiment = at(store, tmp_path).start(form())
    runner.cancel(CURATOR, experiment.id)
    runner.start()
    time.sleep(0.3)
    assert store.experiments.made(experiment.id) == set()
    with pytest.raises(Forbidden):
        runner.resume(Person(name="ana"), experiment.id)
    runner.resume(CURATOR, experiment.id)
    drawn(store, runner, experiment)


def test_nothing_more_is_drawn_once_it_has_ended(store: Store, tmp_path: Path, voices: Voices) -> None:
    experiment = at(store, tmp_path).start(form(prompts="\n".join(f"What of {'x' * n}?" for n in range(1, 21))))
    runner = ExperimentRunner(store, lambda: voices, at_once=lambda: 2)  # type: ignore[arg-type, return-value]
    runner.start()
    until(lambda: len(store.experiments.made(experiment.id)) >= 2)
    store.experiments.end(experiment.id, CURATOR.name, "seen enough")
    there = store.experiments.made(experiment.id)
    until(lambda: runner.view().experiment_id == "")
    runner.close()
    assert store.experiments.made(experiment.id) == there
    assert len(voices.asked) < 2 * len(plan(experiment.design))


def test_what_a_curator_stopped_stays_so_over_a_restart(store: Store, tmp_path: Path, voices: Voices) -> None:
    stopped, other = at(store, tmp_path).start(form()), at(store, tmp_path).start(form(name="Other", controls=False))
    before = ExperimentRunner(store, lambda: voices)  # type: ignore[arg-type, return-value]
    before.cancel(CURATOR, stopped.id)
    after = ExperimentRunner(store, lambda: voices)  # type: ignore[arg-type, return-value]
    drawn(store, after, other)
    until(lambda: after.view().experiment_id == "")
    assert after.halted(stopped.id)
    assert store.experiments.made(stopped.id) == set()
    after.resume(CURATOR, stopped.id)
    drawn(store, after, stopped)
    after.close()
    assert not before.halted(stopped.id)
    with pytest.raises(NotFound):
        after.cancel(CURATOR, "nowhere")


def test_a_voter_sees_texts_and_nothing_that_tells_the_sides(
    store: Store, tmp_path: Path, runner: ExperimentRunner
) -> None:
    experiment = at(store, tmp_path).start(form(criteria=("voice",)))
    drawn(store, runner, experiment)
    ana = at(store, tmp_path, Person(name="ana"))
    shown = ana.next(experiment.id)
    assert shown is not None
    told = shown.model_dump_json()
    for secret in ("shop-1", "base", "SmolLM2", "Tuned", "ab" * 32, "control", "repeat"):
        assert secret not in told
    assert shown.criteria == ("voice",)
    with pytest.raises(Conflict, match="when the experiment has ended"):
        ana.votes(experiment.id)


def test_whoever_sees_the_figures_of_an_open_experiment_knows_it_and_judges_no_more(
    store: Store, tmp_path: Path, runner: ExperimentRunner
) -> None:
    """Tokens and cut-off replies of each side would tell who is who, before the first vote as after it."""
    experiment = at(store, tmp_path).start(form(votes_each=2))
    drawn(store, runner, experiment)
    cat, dan = at(store, tmp_path), at(store, tmp_path, Person(name="dan", role="curator"))
    shown, open_for_dan = cat.next(experiment.id), dan.next(experiment.id)
    assert shown is not None
    assert open_for_dan is not None
    cat.vote(shown.pair_id, BallotForm(outcome="left"))
    for curator in (cat, dan):
        with pytest.raises(Conflict, match="can't judge in it any more"):
            curator.votes(experiment.id)
        assert curator.next(experiment.id) is not None
        assert curator.costs_judging(experiment.id)
    assert len(dan.votes(experiment.id, judge_no_more=True)[2]) == 1
    assert not dan.costs_judging(experiment.id)
    assert dan.votes(experiment.id)[2]  # the price is paid once
    assert dan.next(experiment.id) is None
    for outcome in ("left", "both_bad"):
        with pytest.raises(Conflict, match="You have seen the figures of this experiment, so you can't judge in it"):
            dan.vote(open_for_dan.pair_id, BallotForm(outcome=outcome))  # type: ignore[arg-type]
    assert store.tasks.counts()["waiting"] == 0
    assert cat.next(experiment.id) is not None
    dan.end(experiment.id)
    assert not cat.costs_judging(experiment.id)
    assert at(store, tmp_path, Person(name="ana")).votes(experiment.id)[2]


def test_who_saw_the_figures_is_on_disk_before_they_are_shown_and_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, cat = at(store, tmp_path).start(form()), at(store, tmp_path)
    with monkeypatch.context() as crash:
        crash.setattr(Experiments, "pairs", Mock(side_effect=OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            cat.votes(experiment.id, judge_no_more=True)
    assert store.experiments.looked(experiment.id, CURATOR.name)
    with store.engine.connect() as db, pytest.raises(sa.exc.DatabaseError, match="append-only"):
        db.execute(sa.text("DELETE FROM experiment_looks"))


def test_everybody_gets_each_pair_once_until_enough_have_judged_it(
    store: Store, tmp_path: Path, runner: ExperimentRunner
) -> None:
    experiment = at(store, tmp_path).start(form(votes_each=2))
    drawn(store, runner, experiment)
    judged: dict[str, list[str]] = {}
    for name in ("ana", "ben", "eve"):
        desk = at(store, tmp_path, Person(name=name))
        judged[name] = []
        while shown := desk.next(experiment.id):
            desk.vote(shown.pair_id, BallotForm(outcome="left" if "Warm" in shown.left else "right"))
            judged[name].append(shown.pair_id)
            assert shown.done == len(judged[name]) - 1
    assert len(set(judged["ana"])) == len(judged["ana"]) == len(plan(experiment.design))
    assert judged["eve"] == []


def test_two_votes_of_one_person_and_votes_after_the_end_are_refused(
    store: Store, tmp_path: Path, runner: ExperimentRunner
) -> None:
    experiment = at(store, tmp_path).start(form())
    with pytest.raises(UserError, match="Nobody has voted"):
        at(store, tmp_path).end(experiment.id)
    drawn(store, runner, experiment)
    ana = at(store, tmp_path, Person(name="ana"))
    shown = ana.next(experiment.id)
    assert shown is not None
    ana.vote(shown.pair_id, BallotForm(outcome="tie"))
    with pytest.raises(Conflict, match="already"):
        ana.vote(shown.pair_id, BallotForm(outcome="left"))
    with pytest.raises(Conflict, match="when it has ended"):
        at(store, tmp_path).export(experiment.id)
    at(store, tmp_path).end(experiment.id, " Enough ")
    assert ana.next(experiment.id) is None
    with pytest.raises(Conflict, match="has ended"):
        at(store, tmp_path, Person(name="ben")).vote(shown.pair_id, BallotForm(outcome="left"))
    lines = [json.loads(line) for line in ana.export(experiment.id)]
    assert lines[0]["experiment"]["reason"] == "Enough"
    assert len(lines) == 1 + len(plan(experiment.design))
    assert [one["voter"] for line in lines[1:] for one in line["ballots"]] == ["ana"]


def test_two_bad_replies_wait_for_correction_and_are_measured_with_never_learned(
    store: Store, tmp_path: Path, runner: ExperimentRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = at(store, tmp_path).start(form())
    drawn(store, runner, experiment)
    ana = at(store, tmp_path, Person(name="ana"))
    shown = ana.next(experiment.id)
    assert shown is not None
    bad = BallotForm(outcome="both_bad")
    with monkeypatch.context() as crash:
        crash.setattr(Experiments, "cast", Mock(side_effect=OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            ana.vote(shown.pair_id, bad)
    ana.vote(shown.pair_id, bad)
    with pytest.raises(Conflict, match="already"):
        ana.vote(shown.pair_id, bad)
    at_desk = [store.conversations.of_reply(hit.reply_id) for hit in store.search.find(Filter())]
    assert store.tasks.counts()["waiting"] == len(at_desk) == 2
    assert {one.turns[-1].text for one in at_desk} == {shown.left, shown.right}
    told = "".join(one.model_dump_json() for one in at_desk)
    assert [word for word in ("shop-1", "SmolLM2", "ab" * 32) if word in told] == []

    with pytest.raises(UserError, match="neither reply better"):
        ana.fix(shown.pair_id)
    verdicts = tuple(Verdict(question=question, value="pass") for question in ("voice", "policy", "bias"))
    for one in at_desk:
        act = ReviewAct(
            reply_id=one.turns[-1].id, reviewer="ben", charter_version=1, verdicts=verdicts, correction="Here it is."
        )
        store.reviews.save(act)
    rows = joined(rows_in(store))
    assert (rows.sft, rows.preference, rows.unpaired) == ((), (), ())
    assert {row.messages[-1].text for row in rows.held_out} == {"Here it is."}


def test_the_reply_that_was_called_better_can_be_corrected_and_stays_blind(
    store: Store, tmp_path: Path, runner: ExperimentRunner
) -> None:
    experiment = at(store, tmp_path).start(form())
    drawn(store, runner, experiment)
    ana = at(store, tmp_path, Person(name="ana"))
    shown = ana.next(experiment.id)
    assert shown is not None
    with pytest.raises(UserError, match="Vote first"):
        ana.fix(shown.pair_id)
    ana.vote(shown.pair_id, BallotForm(outcome="right"))
    reply = ana.fix(shown.pair_id)
    assert ana.fix(shown.pair_id) == reply
    turns = store.conversations.of_reply(reply).turns
    assert [turn.text for turn in turns] == [shown.prompt[-1].text, shown.right]
    assert turns[-1].provenance is None
    with pytest.raises(UserError, match="neither reply better"):
        at(store, tmp_path, Person(name="ben")).fix(shown.pair_id)


def test_after_the_end_nothing_more_is_brought_to_the_desk(
    store: Store, tmp_path: Path, runner: ExperimentRunner
) -> None:
    experiment = at(store, tmp_path).start(form())
    drawn(store, runner, experiment)
    pair = store.experiments.pairs(experiment.id)[0]
    store.experiments.end(experiment.id, CURATOR.name, "")
    with pytest.raises(Conflict, match="has ended"):
        at(store, tmp_path).vote(pair.id, BallotForm(outcome="both_bad"))
    assert store.tasks.counts()["waiting"] == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "  "}, "has no name"),
        ({"sides": (BASE,)}, "only one side"),
        ({"sides": (BASE, TUNED, *(SideForm(model=f"shop-{number}") for number in (2, 3, 4)))}, "There are 5 sides"),
        ({"sides": (BASE, BASE)}, "'Base model' stands on two sides"),
        (
            {"sides": (SideForm(model="base", own="Be."), BASE, SideForm(model="base", own="Be. "))},
            "stands on two sides",
        ),
        ({"sides": (BASE, SideForm(model="base", own=" "))}, "Your instructions are empty"),
        ({"prompts": " \n"}, "no questions"),
    ],
)
def test_a_wrong_form_is_refused_in_words(store: Store, tmp_path: Path, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        at(store, tmp_path).start(form(**wrong))
    assert store.experiments.all() == []


def test_what_the_model_learned_from_is_refused_by_its_line(store: Store, tmp_path: Path) -> None:
    conversation = store.conversations.start("chat")
    asked = store.conversations.add_turn(conversation, None, "user", "Where is parcel Coimbra, please?")
    reply = store.conversations.add_turn(conversation, asked.id, "assistant", "Here.", identify("base"))
    verdicts = tuple(Verdict(question=question, value="pass") for question in ("voice", "policy", "bias"))
    store.reviews.save(
        ReviewAct(reply_id=reply.id, reviewer="ana", charter_version=1, verdicts=verdicts, correction="Here.")
    )
    freeze(store, tmp_path / "datasets", rows_in(store), 1, "ana")
    with pytest.raises(UserError, match="Line 2 is something the model learned from"):
        at(store, tmp_path).start(form(prompts="Where is parcel Aachen?\nWhere is parcel Coimbra please?"))


BRIEF = "Answer in one short sentence, and "


@pytest.mark.parametrize(
    ("sides", "names"),
    [
        ([{"temperature": 0.3}, {"temperature": 0.9}], ["Base model, variety 0.3", "Base model, variety 0.9"]),
        ([{"temperature": 0}, {"temperature": 0.9}], ["Base model, no variety", "Base model"]),
        (
            [{"own": "Be brief."}, {"own": "Be warm."}, {}],
            [
                "Base model with our instructions “Be brief.”",
                "Base model with our instructions “Be warm.”",
                "Base model",
            ],
        ),
        (
            [{"own": "Be brief."}, {"own": "Be warm.", "temperature": 0.2}, {"own": "Be sad.", "temperature": 0.2}],
            [
                "Base model with our instructions, variety 0.7",
                "Base model with our instructions, variety 0.2 “Be warm.”",
                "Base model with our instructions, variety 0.2 “Be sad.”",
            ],
        ),
        (
            [{"own": f"{BRIEF}warmly."}, {"own": f"{BRIEF}coldly."}],
            ["Base model with our instructions (1)", "Base model with our instructions (2)"],
        ),
        (
            [{"guide": True, "temperature": 0.3}, {"guide": True, "temperature": 1}],
            ["Base model with the guide, variety 0.3", "Base model with the guide, variety 1"],
        ),
    ],
)
def test_two_sides_of_one_model_can_be_told_apart(
    store: Store, tmp_path: Path, sides: list[dict[str, object]], names: list[str]
) -> None:
    asked = tuple(SideForm.model_validate({"model": "base"} | one) for one in sides)
    made = at(store, tmp_path).start(form(sides=asked)).design.sides
    assert [side.name for side in made] == names
    assert [side.sampling.temperature for side in made] == [one.temperature for one in asked]
    assert [side.system for side in made if not any(one.guide for one in asked)] == [
        one.own or "" for one in asked if not one.guide
    ]


def test_the_guide_is_a_side_of_its_own(store: Store, tmp_path: Path) -> None:
    brief = SideForm(model="base", own=" Be brief. ")
    told = at(store, tmp_path).start(form(name="Brief?", sides=(BASE, brief)))
    assert [(side.name, side.system) for side in told.design.sides] == [
        ("Base model", ""),
        ("Base model with our instructions", "Be brief."),
    ]
    guided = SideForm(model="base", guide=True)
    experiment = at(store, tmp_path).start(form(sides=(BASE, guided, TUNED)))
    assert [side.name for side in experiment.design.sides] == ["Base model", "Base model with the guide", "shop-1"]
    assert "No promises." in experiment.design.sides[1].system
