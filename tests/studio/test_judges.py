"""Models as judges: asked in both orders, once, by the same weights; unseen by voters, never in people's figures."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from annotation.curate import curate, joined
from annotation.errors import Conflict, UserError
from annotation.experiments import BallotForm, Drawn, Experiment, plan
from annotation.judging import AskedJudge
from annotation.people import Person
from annotation.store import Store
from annotation.types import Chunk, Message, Provenance, Sampling, Weights
from serving.client import TooLong
from serving.scripted import ScriptedModel
from studio.parts.judged import judged_html
from studio.parts.results import results_html
from studio.services.judged import Judged, judged_of
from studio.services.judging import ELSEWHERE, JudgeRunner, JudgeService, Outside
from studio.services.results import results_of
from studio.services.standings import standings_of
from tests.studio.test_experiment_service import CURATOR, at, form, identify, store, until

ANA = Person(name="ana")
FEW, MANY = 6, 22
"""Questions of an experiment; 22 leave enough for all figures."""
ALL = 2 * FEW
"""Answers of a judge about a small one."""
__all__ = ["store"]


class Reader:
    """A judge that prefers a word wherever it stands, always the first, or that says something unreadable."""

    def __init__(self, likes: str = "Warm", first: bool = False, says: str = "") -> None:
        self.likes = likes
        self.first = first
        self.says = says
        self.weights: Weights | None = Weights(base_sha256="b" * 64)
        self.asked: list[str] = []
        self.most = 10_000
        self.refuses: UserError | None = None

    async def stream(self, messages: tuple[Message, ...], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        if self.refuses:
            raise self.refuses
        if len(self.asked) >= self.most:
            raise UserError("The engine broke off.")
        self.asked.append(messages[-1].text)
        assert sampling.json_schema
        questions = list(json.loads(sampling.json_schema)["properties"])
        one, other = re.findall(r"<(?:first|second)>\n(.*?)\n</", messages[-1].text, re.DOTALL)
        better = "first" if self.first or one.startswith(self.likes) else "second"
        assert other
        said = {name: {"reason": f"It greets <b>{self.likes}</b>.", "better": better} for name in questions}
        yield Chunk(text=self.says or json.dumps(said))
        yield Chunk(finish="stop", weights=self.weights)


def service(store: Store, who: Person = CURATOR, outside: Outside | None = None) -> JudgeService:
    return JudgeService(store, identify, lambda: [("Base model", "base")], outside, who)


def runner_of(store: Store, reader: Reader) -> JudgeRunner:
    return JudgeRunner(store, lambda judge: reader, identify)  # type: ignore[arg-type, return-value]


def experiment_of(store: Store, tmp_path: Path, questions: int) -> Experiment:
    """Base against tuned, all drawn: the base says Hello, the tuned one greets warmly."""
    prompts = "\n".join(f"Where is parcel {'x' * number}, please?" for number in range(1, questions + 1))
    made = at(store, tmp_path).start(form(prompts=prompts, criteria=("voice",), controls=False))
    for planned in plan(made.design):
        sides = [made.design.sides[place] for place in (planned.left, planned.right)]
        texts = [f"{'Warm greetings' if side.model == 'shop-1' else 'Hello'}! {planned.number}." for side in sides]
        left, right = (Drawn(text=text, provenance=side.provenance) for text, side in zip(texts, sides, strict=True))
        store.experiments.keep(made.id, planned, left, right)
    return made


@pytest.fixture
def experiment(store: Store, tmp_path: Path) -> Experiment:
    """A small one."""
    return experiment_of(store, tmp_path, FEW)


def judged(store: Store, reader: Reader, experiment: Experiment, model: str = "base") -> AskedJudge:
    asked = service(store).ask(experiment.id, model)
    runner = runner_of(store, reader)
    runner.start()
    until(lambda: len(store.judging.said(asked.id)) == 2 * len(experiment.design.prompts))
    runner.close()
    return asked


def broken_off(store: Store, experiment: Experiment) -> tuple[Reader, AskedJudge]:
    """A judge whose engine broke off after five answers."""
    reader = Reader()
    reader.most = 5
    asked = service(store).ask(experiment.id, "base")
    runner = runner_of(store, reader)
    runner.start()
    until(lambda: "broke off" in runner.trouble(asked.id))
    runner.close()
    return reader, asked


def vote(store: Store, tmp_path: Path, experiment: Experiment, pairs: int = FEW) -> None:
    """Ana prefers the warm ones, but for every fourth pair."""
    desk = at(store, tmp_path, ANA)
    for number in range(pairs):
        shown = desk.next(experiment.id)
        assert shown
        warm_left = shown.left.startswith("Warm")
        liked = "left" if warm_left != (number % 4 == 3) else "right"
        desk.vote(shown.pair_id, BallotForm(outcome=liked, criteria={"voice": liked}))


def figures(store: Store, tmp_path: Path, experiment: Experiment, asked: AskedJudge) -> Judged:
    ended, pairs, ballots = at(store, tmp_path).votes(experiment.id)
    (verdicts,) = [kept for judge, kept in service(store).verdicts(experiment.id) if judge.id == asked.id]
    return judged_of(ended, pairs, ballots, asked, verdicts)


def test_each_pair_is_judged_in_both_orders_and_kept_with_the_weights(store: Store, experiment: Experiment) -> None:
    reader = Reader()
    asked = judged(store, reader, experiment)
    verdicts = store.judging.verdicts(experiment.id)
    assert len(verdicts) == len(set(reader.asked)) == ALL
    by_id = {pair.id: pair for pair in store.experiments.pairs(experiment.id)}
    for one in verdicts:
        pair = by_id[one.pair_id]
        assert one.outcome() == one.outcome("voice") == ("left" if pair.left.text.startswith("Warm") else "right")
        assert one.provenance.attested == Weights(base_sha256="b" * 64)
        assert one.provenance.sampling is not None
        assert one.provenance.sampling.temperature == 0
    (progress,) = service(store).progress(experiment.id)
    assert (progress.asked, progress.answers, progress.of, progress.no_verdict) == (asked, ALL, ALL, 0)


def test_after_a_fault_and_a_restart_nothing_is_asked_twice(store: Store, experiment: Experiment) -> None:
    reader, asked = broken_off(store, experiment)
    assert len(store.judging.said(asked.id)) == 5
    reader.most = 10_000
    assert judged(store, reader, experiment) == asked
    assert len(reader.asked) == len(set(reader.asked)) == ALL


def test_a_judge_that_was_stopped_stays_so_over_a_restart(store: Store, experiment: Experiment) -> None:
    reader, other = Reader(), Reader()
    asked = service(store).ask(experiment.id, "base")
    tuned = service(store).ask(experiment.id, "shop-1")
    runner_of(store, reader).cancel(CURATOR, asked.id)
    after = JudgeRunner(
        store,
        lambda judge: reader if judge.model == "base" else other,  # type: ignore[arg-type, return-value]
        identify,
    )
    after.start()
    until(lambda: len(store.judging.said(tuned.id)) == ALL)
    assert (reader.asked, service(store).progress(experiment.id)[0].halted) == ([], True)
    after.resume(CURATOR, asked.id)
    until(lambda: len(store.judging.said(asked.id)) == ALL)
    after.close()


def test_what_cannot_be_read_is_counted_and_not_guessed(store: Store, tmp_path: Path, experiment: Experiment) -> None:
    asked = judged(store, Reader(says="The first one, I think."), experiment)
    (progress,) = service(store).progress(experiment.id)
    assert (progress.answers, progress.no_verdict) == (ALL, ALL)
    vote(store, tmp_path, experiment)
    at(store, tmp_path).end(experiment.id)
    found = figures(store, tmp_path, experiment, asked)
    assert found.no_verdict == ALL
    assert found.versus[0].lines[0].found.shared == 0
    assert found.pairs[0].answers[0].why_none == "Its answer could not be read."
    assert "12 of its 12 answers are no verdict" in judged_html([found])


def test_a_pair_that_is_too_long_for_the_judge_does_not_hold_it_up(
    store: Store, tmp_path: Path, experiment: Experiment
) -> None:
    reader = Reader()
    reader.refuses = TooLong("The conversation is too long for the model.")
    asked = judged(store, reader, experiment)
    vote(store, tmp_path, experiment, 1)
    at(store, tmp_path).end(experiment.id)
    assert "too long for it" in figures(store, tmp_path, experiment, asked).pairs[0].answers[0].why_none


def test_other_weights_than_those_it_began_with_do_not_go_on(store: Store, experiment: Experiment) -> None:
    reader, asked = broken_off(store, experiment)
    reader.most, reader.weights = 10_000, Weights(base_sha256="c" * 64)
    after = runner_of(store, reader)
    after.start()
    until(lambda: "other weights than before" in after.trouble(asked.id))
    after.close()
    elsewhere = JudgeRunner(store, lambda judge: reader, lambda model: Provenance(model="Another"))  # type: ignore[arg-type, return-value]
    elsewhere.start()
    until(lambda: "is not the model any more" in elsewhere.trouble(asked.id))
    elsewhere.close()
    assert len(store.judging.said(asked.id)) == 5


def test_nobody_sees_what_a_model_thinks_while_somebody_may_vote(
    store: Store, tmp_path: Path, experiment: Experiment
) -> None:
    desk = at(store, tmp_path, ANA)
    before = [desk.next(experiment.id), desk.standing(experiment.id)]
    judged(store, Reader(likes="Hello"), experiment)
    assert [desk.next(experiment.id), desk.standing(experiment.id)] == before
    for who in (ANA, CURATOR, Person(name="root", role="admin")):
        with pytest.raises(Conflict, match="when the experiment has ended"):
            service(store, who).verdicts(experiment.id)
    vote(store, tmp_path, experiment, 1)
    told = repr(at(store, tmp_path).votes(experiment.id, judge_no_more=True)) + repr(
        service(store).progress(experiment.id)
    )
    assert "It greets" not in told
    at(store, tmp_path).end(experiment.id)
    assert "It greets" in repr(service(store, ANA).verdicts(experiment.id))


def test_peoples_figures_are_the_same_to_the_last_digit(store: Store, tmp_path: Path, experiment: Experiment) -> None:
    vote(store, tmp_path, experiment)

    def of_people() -> tuple[object, ...]:
        votes = at(store, tmp_path).votes(experiment.id, judge_no_more=True)
        found, ranked = results_of(*votes), standings_of([votes])
        learned = joined(curate([], store.comparisons.voted(), 0.1, store.experiments.openings()))
        return found.model_dump_json(), results_html(found), ranked, learned, votes

    before = of_people()
    judged(store, Reader(likes="Hello"), experiment)
    judged(store, Reader(first=True), experiment, "shop-1")
    assert of_people() == before
    at(store, tmp_path).end(experiment.id)
    lines = [json.loads(line) for line in at(store, tmp_path).export(experiment.id)]
    assert len(lines[0]["judges"]) == 2
    assert {one["voter"] for line in lines[1:] for one in line["ballots"]} == {"ana"}
    assert sum(len(line["judged_by_models"]) for line in lines[1:]) == 2 * ALL


def test_a_judge_is_held_against_people(store: Store, tmp_path: Path) -> None:
    experiment = experiment_of(store, tmp_path, MANY)
    vote(store, tmp_path, experiment, 12)
    asked = judged(store, Reader(), experiment)
    at(store, tmp_path).end(experiment.id)
    found = figures(store, tmp_path, experiment, asked)
    (versus,) = found.versus
    overall, voice = versus.lines
    assert (overall.question, voice.question) == ("overall", "voice")
    assert (overall.found.shared, overall.found.same) == (12, 9)
    assert (overall.found.swap_consistency, overall.found.first_share) == (1.0, 0.5)
    assert overall.found.judge is not None
    assert (versus.one, overall.found.judge.value) == ("shop-1", 1.0)
    assert overall.found.predicted is not None
    assert (found.attested, found.is_side) == (True, True)
    html = judged_html([found])
    for said in (
        "What a model thinks",
        "9 of 12",
        "not a figure of people",
        "also wrote the replies of one side",
        "It greets &lt;b&gt;Warm&lt;/b&gt;.",
        "Always says “the first”",
    ):
        assert said in html, said
    assert "<b>Warm" not in html


def test_one_that_always_says_the_first_is_found_out(store: Store, tmp_path: Path, experiment: Experiment) -> None:
    vote(store, tmp_path, experiment)
    asked = judged(store, Reader(first=True), experiment)
    at(store, tmp_path).end(experiment.id)
    found = figures(store, tmp_path, experiment, asked)
    line = found.versus[0].lines[0]
    assert (line.found.swap_consistency, line.found.first_share) == (0.0, 1.0)
    assert line.found == line.control
    assert "It chose the reply it read first in 100% of its choices, whichever that was" in judged_html([found])


def test_a_server_elsewhere_judges_without_a_word_on_its_weights(
    store: Store, tmp_path: Path, experiment: Experiment
) -> None:
    with pytest.raises(UserError, match="No other server is set"):
        service(store).ask(experiment.id, ELSEWHERE)
    outside = Outside(url="https://api.example.org", model="large-1")
    there = service(store, outside=outside)
    assert there.choices()[-1] == ("large-1 at https://api.example.org", ELSEWHERE)
    asked = there.ask(experiment.id, ELSEWHERE)
    assert (asked.judge.name, asked.judge.elsewhere) == ("large-1", "https://api.example.org")
    reader = Reader()
    reader.weights = None
    runner = runner_of(store, reader)
    runner.start()
    until(lambda: len(store.judging.said(asked.id)) == ALL)
    runner.close()
    vote(store, tmp_path, experiment, 1)
    at(store, tmp_path).end(experiment.id)
    found = figures(store, tmp_path, experiment, asked)
    assert (found.attested, found.is_side) == (False, False)
    assert "does not say which weights" in judged_html([found])


def test_it_needs_a_charter(
    tmp_path: Path, store: Store, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(store.charters), "current", lambda self: None)
    with pytest.raises(UserError, match="no charter to judge by"):
        service(store).ask(experiment.id, "base")


def test_the_scripted_model_judges_in_the_form_it_is_asked_for(store: Store, experiment: Experiment) -> None:
    asked = service(store).ask(experiment.id, "base")
    runner = JudgeRunner(store, lambda judge: ScriptedModel(word_seconds=0), identify)
    runner.start()
    until(lambda: len(store.judging.said(asked.id)) == ALL)
    runner.close()
    assert all(one.opinion for one in store.judging.verdicts(experiment.id))
