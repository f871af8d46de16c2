"""A judge: what it is told, how its answer is read, and that its verdicts are kept once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from annotation.experiments import plan
from annotation.judging import (
    ORDERS,
    AskedJudge,
    Judge,
    JudgeVerdict,
    Opinion,
    Order,
    Said,
    answer_form,
    judged_pairs,
    question_about,
    read_answer,
    rubric,
    sampling_for,
)
from annotation.store import Store
from annotation.types import Axis, Charter, Clause, Message, Provenance, Trait, utc_now
from tests.annotation.test_experiments import BASE, TUNED, a_pair, design, pair

CHARTER = Charter(
    name="Shop",
    purpose="We sell lamps.",
    voice=(Trait(id="warm", text="Greets\nwarmly."),),
    policy=(Clause(id="no-promises", text="No promises."),),
    bias=(Axis(id="age", text="Alike at any age."),),
)
JUDGE = Judge(
    model="base",
    provenance=BASE,
    rubric=rubric(CHARTER, ("voice",)),
    criteria=("voice",),
    charter_version=1,
)


def answer(overall: str, voice: str = "tie", **more: Any) -> str:
    said = {name: {"reason": "Because.", "better": better} for name, better in (("voice", voice), ("overall", overall))}
    return json.dumps(said | more)


def test_the_rubric_says_the_house_rules_and_the_questions_of_the_design() -> None:
    told = rubric(CHARTER, ("policy",))
    for rule in ("- Greets warmly.", "- No promises.", "- Alike at any age.", "We sell lamps."):
        assert rule in told
    assert '- "policy":' in told
    assert '- "overall":' in told
    assert '- "voice":' not in told


def test_it_is_shown_both_replies_in_either_order_and_no_names() -> None:
    made = design()
    its = pair("Good <left> {x}", "Hello right", prompt=2)
    texts = [question_about(JUDGE, made, its, order)[-1].text for order in ORDERS]
    for text in texts:
        assert "Customer: Question number 2?" in text
        assert not [name for name in ("shop-1", "SmolLM2", "side 0", "base") if name in text]
    assert texts[0].index("Good <left> {x}") < texts[0].index("Hello right")
    assert texts[1].index("Hello right") < texts[1].index("Good <left> {x}")
    assert question_about(JUDGE, made, its, "as_shown")[0] == Message(role="system", text=JUDGE.rubric)


def test_instructions_of_a_prompt_are_not_shown_as_people_do_not_see_them() -> None:
    asked = ((Message(role="system", text="Secret."), Message(role="user", text="Hello?")),)
    made = design().model_copy(update={"prompts": asked})
    assert "Secret." not in question_about(JUDGE, made, pair("a", "b"), "as_shown")[-1].text


def test_each_pair_and_order_has_a_seed_of_its_own_and_the_same_one_next_time() -> None:
    made = design()
    pairs = [pair("a", "b", number=number) for number in range(5)]
    seeds = [sampling_for(JUDGE, made, one, order).seed for one in pairs for order in ORDERS]
    assert len(set(seeds)) == 10
    assert seeds == [sampling_for(JUDGE, made, one, order).seed for one in pairs for order in ORDERS]
    sampling = sampling_for(JUDGE, made, pairs[0], "as_shown")
    assert (sampling.temperature, sampling.json_schema) == (0, json.dumps(answer_form(("voice",))))


def test_the_form_has_the_reason_before_the_verdict_and_the_whole_after_its_parts() -> None:
    form = answer_form(("voice", "policy"))
    assert list(form["properties"]) == ["voice", "policy", "overall"]
    for one in form["properties"].values():
        assert list(one["properties"]) == ["reason", "better"]
        assert one["properties"]["better"]["enum"] == ["first", "second", "tie", "both_bad"]


@pytest.mark.parametrize(
    ("said", "order", "outcome"),
    [
        ("first", "as_shown", "left"),
        ("second", "as_shown", "right"),
        ("first", "changed_over", "right"),
        ("second", "changed_over", "left"),
        ("tie", "changed_over", "tie"),
        ("both_bad", "as_shown", "both_bad"),
    ],
)
def test_first_and_second_are_brought_back_to_left_and_right(said: str, order: Order, outcome: str) -> None:
    opinion = read_answer(answer(said, voice="first"), ("voice",))
    verdict = JudgeVerdict(
        id="v", pair_id="p", judge_id="j", order=order, answer="", opinion=opinion, asked_sha256="",
        provenance=BASE, made_at=utc_now(),
    )  # fmt: skip
    assert verdict.outcome() == outcome
    assert verdict.outcome("voice") == ("left" if order == "as_shown" else "right")
    assert verdict.outcome("bias") is None


@pytest.mark.parametrize(
    "unclear",
    [
        "",
        "I prefer the first.",
        answer("first")[:-1],
        answer("left"),
        answer("first", bias={"reason": "", "better": "tie"}),
        json.dumps({"overall": {"reason": "Because.", "better": "first"}}),
        json.dumps({"overall": "first", "voice": "first"}),
        "[]",
        "[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_no_verdict(unclear: str) -> None:
    assert read_answer(unclear, ("voice",)) is None


def test_a_judges_hash_is_of_its_weights_its_words_and_its_questions() -> None:
    others = [
        {"provenance": TUNED},
        {"rubric": JUDGE.rubric + "!"},
        {"criteria": ()},
        {"elsewhere": "http://other"},
        {"charter_version": 2},
    ]
    hashes = {JUDGE.sha256(), *(JUDGE.model_copy(update=changed).sha256() for changed in others)}
    assert len(hashes) == len(others) + 1
    assert JUDGE.rubric_sha256() != JUDGE.model_copy(update={"rubric": "?"}).rubric_sha256()


def test_only_what_enters_peoples_figures_is_judged() -> None:
    made = design()
    there = [
        pair("a", "b", number=0),
        pair("a", "a", number=1),
        pair("", "b", number=2),
        pair("a", "b", "control", number=3),
        pair("b", "a", "repeat", number=4, repeats=0),
    ]
    assert [one.planned.number for one in judged_pairs(made, there)] == [0]


def asked_for(store: Store) -> tuple[AskedJudge, str]:
    experiment, its_pair = a_pair(store)
    return store.judging.ask(experiment, JUDGE, "cat"), its_pair


def test_a_judge_is_asked_for_once_and_answers_once_for_each_pair_and_order(store: Store) -> None:
    asked, its_pair = asked_for(store)
    assert store.judging.ask(asked.experiment_id, JUDGE, "ben") == asked
    other = store.judging.ask(asked.experiment_id, JUDGE.model_copy(update={"rubric": "Else."}), "ben")
    assert store.judging.judges(asked.experiment_id) == [asked, other]
    assert store.judging.get(asked.id).judge == JUDGE
    opinion = Opinion(said={"overall": Said(reason="Because.", better="first")})
    made = Provenance(model="SmolLM2", seconds=1.5)
    assert store.judging.keep(its_pair, asked.id, "as_shown", "{}", opinion, "ab", made)
    assert not store.judging.keep(its_pair, asked.id, "as_shown", "other", None, "cd", made)
    assert store.judging.keep(its_pair, asked.id, "changed_over", "what?", None, "ab", made)
    assert store.judging.keep(its_pair, other.id, "as_shown", "{}", opinion, "ab", made)
    first, second, _ = store.judging.verdicts(asked.experiment_id)
    assert (first.opinion, first.answer, first.provenance, second.opinion) == (opinion, "{}", made, None)
    assert store.judging.counts(asked.experiment_id) == {asked.id: (2, 1), other.id: (1, 0)}
    assert store.judging.said(asked.id) == {(its_pair, "as_shown"), (its_pair, "changed_over")}
    assert store.experiments.ballots(asked.experiment_id) == []


def test_the_plan_of_an_experiment_does_not_know_of_judges(store: Store) -> None:
    asked, _ = asked_for(store)
    kept = store.experiments.get(asked.experiment_id)
    assert (kept.sha256, plan(kept.design)) == (design().sha256(), plan(design()))
