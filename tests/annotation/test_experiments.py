"""Experiments: planned the same way every time, kept for good, and never telling before the end."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from annotation.curate import curate, joined
from annotation.errors import Conflict, NotFound, UserError
from annotation.experiments import (
    ArenaSide,
    BallotForm,
    Design,
    Drawn,
    Pair,
    draws,
    in_order_for,
    names_in,
    plan,
    prompts_of,
    why_not_dealt,
)
from annotation.near import near
from annotation.store import Store
from annotation.store.comparisons import Answer, VoteForm
from annotation.types import Message, Provenance, Sampling

BASE = Provenance(model="SmolLM2")
TUNED = Provenance(model="SmolLM2", adapter="shop-1", weights_sha256="ab" * 32)


def design(prompts: int = 10, sides: int = 2, temperature: float = 0.7, **values: object) -> Design:
    made = [
        ArenaSide(
            name=f"side {number}",
            model="base" if number == 0 else f"shop-{number}",
            provenance=BASE if number == 0 else TUNED,
            sampling=Sampling(temperature=temperature),
        )
        for number in range(sides)
    ]
    asked = [[Message(role="user", text=f"Question number {number}?")] for number in range(prompts)]
    return Design(**{"name": "Tone", "sides": made, "prompts": asked, "seed": 3} | values)  # type: ignore[arg-type]


def pair(left: str, right: str, kind: str = "pair", **planned: object) -> Pair:
    where = {"number": 0, "kind": kind, "prompt": 0, "left": 0, "right": 1} | planned
    sides = {side: Drawn(text=text, provenance=BASE) for side, text in (("left", left), ("right", right))}
    return Pair.model_validate({"id": f"p{where['number']}", "planned": where, **sides})


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(2, 4), st.integers(0, 2**31 - 1))
def test_every_two_sides_meet_once_on_every_prompt(prompts: int, sides: int, seed: int) -> None:
    planned = plan(design(prompts, sides, seed=seed))
    met = Counter((one.prompt, *sorted((one.left, one.right))) for one in planned if one.kind == "pair")
    assert set(met.values()) == {1}
    assert len(met) == prompts * sides * (sides - 1) / 2
    assert [one.number for one in planned] == list(range(len(planned)))
    assert planned == plan(design(prompts, sides, seed=seed))


def test_sides_stand_left_and_right_about_equally_often() -> None:
    planned = [one for one in plan(design(1000)) if one.kind == "pair"]
    assert 440 < sum(one.left == 0 for one in planned) < 560


def test_controls_and_repeats_are_mixed_in() -> None:
    planned = plan(design(100))
    kinds = Counter(one.kind for one in planned)
    assert kinds == {"pair": 100, "control": 10, "repeat": 10}
    by_number = {one.number: one for one in planned}
    for one in planned:
        if one.kind == "control":
            assert one.left == one.right
            assert len(set(draws(one))) == 2  # two different replies of the same side
        if one.repeats is not None:
            first = by_number[one.repeats]
            assert (one.left, one.right, one.prompt) == (first.right, first.left, first.prompt)
            assert set(draws(one)) == set(draws(first))  # the very same replies


def test_a_side_that_always_says_the_same_is_no_control() -> None:
    assert all(one.kind != "control" for one in plan(design(100, temperature=0)))


def test_every_draw_has_its_own_seed_and_the_same_one_next_time() -> None:
    made = design(20, 3)
    asked = {draw for one in plan(made) for draw in draws(one)}
    seeds = {draw: draw.sampling(made).seed for draw in asked}
    assert len(set(seeds.values())) == len(asked)
    assert seeds == {draw: draw.sampling(made).seed for draw in asked}


def test_a_sides_instructions_replace_the_prompts_own() -> None:
    asked = [[Message(role="system", text="Be curt."), Message(role="user", text="Hello?")]]
    guided = design().sides[1].model_copy(update={"system": "Be warm."})
    made = design().model_copy(update={"prompts": tuple(map(tuple, asked)), "sides": (design().sides[0], guided)})
    plain, warm = (sorted(draws(plan(made)[0]), key=lambda draw: draw.side)[place].messages(made) for place in (0, 1))
    assert [message.text for message in plain] == ["Be curt.", "Hello?"]
    assert [message.text for message in warm] == ["Be warm.", "Hello?"]


def test_the_hash_is_of_everything_that_was_frozen() -> None:
    assert design().sha256() == design().sha256()
    changed = [design(votes_each=2), design(seed=4), design(temperature=0.1), design(prompts=9), design(name="Other")]
    assert len({design().sha256(), *(one.sha256() for one in changed)}) == 6


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"sides": (design().sides[0], design().sides[0])}, "same name"),
        ({"prompts": [[Message(role="assistant", text="Hi")]]}, "does not end"),
        ({"prompts": []}, "at least 1"),
    ],
)
def test_a_design_that_cannot_be_answered_is_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Design.model_validate(dict(design()) | wrong)


def test_what_would_tell_or_asks_nothing_is_not_dealt() -> None:
    made = design()
    assert why_not_dealt(made, pair("Hello there", "Good day")) == ""
    assert "same" in why_not_dealt(made, pair("Hello  there", "Hello there\n"))
    assert "nothing" in why_not_dealt(made, pair("  ", "Hello"))
    assert "shop-1" in why_not_dealt(made, pair("I am SHOP-1, the tuned one", "Hello"))
    assert why_not_dealt(made, pair("Our workshop-12 is open", "Hello")) == ""


@pytest.mark.parametrize(
    ("model", "text", "told"),
    [
        ("SmolLM2-135M-Instruct", "I am called smollm.", "SmolLM"),
        ("SmolLM2-135M-Instruct", "SmolLM2, at your service", "SmolLM2"),
        ("SmolLM2-135M-Instruct", "We have SmolLMs", ""),
        ("somebody/Qwen2.5-0.5B-Instruct", "I am QWEN, made elsewhere", "Qwen"),
        ("Phi-3-mini", "Your phi is large", ""),  # too short to mean the model
        ("7b-chat", "We have 7b of them", ""),
        ("Mistral-7B-Instruct-v0.3", "I am Mistral.", "Mistral"),
        ("gemma-2-2b-it", "My name is Gemma", "gemma"),
        ("support", "Our support is open", ""),  # a folder's name, and a word
        ("Support", "Support is open", ""),
        ("SHOP", "The shop is open", ""),
        ("support-v2", "Our support is open", ""),
        ("support-v2", "I am Support-v2", "support-v2"),
        ("ourSupport", "I am oursupport", "ourSupport"),
    ],
)
def test_a_models_family_tells_as_well_as_its_whole_name(model: str, text: str, told: str) -> None:
    assert names_in([Provenance(model=model, adapter="shop-1")], ["Our shop is open", text]) == told


@pytest.mark.parametrize(
    ("adapter", "told"),
    [("support", ""), ("shop-support", "shop-support"), ("support_2", "support_2"), ("sup.a", "sup.a")],
)
def test_an_adapter_that_is_called_by_a_word_is_not_told_by_it(adapter: str, told: str) -> None:
    made = [Provenance(model="models", adapter=adapter)]
    assert names_in(made, ["Ask our support.", "I am shop-support, support_2 or sup.a"]) == told


def test_each_voter_has_an_order_of_their_own_with_repeats_last() -> None:
    pairs = [pair("a", "b", number=number) for number in range(30)]
    pairs.append(pair("b", "a", "repeat", number=30, repeats=0))
    orders = {
        voter: [one.planned.number for one in in_order_for(voter, pairs, lambda _: 0)] for voter in ("ana", "ben")
    }
    assert orders["ana"] != orders["ben"]
    assert orders["ana"][-1] == orders["ben"][-1] == 30
    few = next(in_order_for("ana", pairs, lambda pair_id: 0 if pair_id == "p7" else 2))
    assert few.planned.number == 7


def test_prompts_come_one_a_line_and_once() -> None:
    asked, none = prompts_of("Where is my parcel?\n\n  Where  is my parcel? \nCan I pay later?\n")
    assert [prompt[0].text for prompt in asked] == ["Where is my parcel?", "Can I pay later?"]
    assert none is None
    asked, labels = prompts_of("Hello?\n# refunds and  returns\nMy money back?\nHello?\nBye?\n#1 where is it?")
    assert [prompt[0].text for prompt in asked] == ["Hello?", "My money back?", "Bye?", "#1 where is it?"]
    assert labels == (
        {},
        {"topic": "refunds and returns"},
        {"topic": "refunds and returns"},
        {"topic": "refunds and returns"},
    )
    with pytest.raises(UserError, match="Line 2 is 5,000 characters"):
        prompts_of("Hello\n" + "x" * 5000)


def test_a_design_is_kept_whole_under_a_name_of_its_own(store: Store) -> None:
    kept = store.experiments.add(design(), "ana")
    assert store.experiments.get(kept.id).design == design()
    assert kept.sha256 == store.experiments.get(kept.id).design.sha256()
    with pytest.raises(Conflict, match="called 'Tone' already"):
        store.experiments.add(design(prompts=3), "ana")
    with pytest.raises(NotFound):
        store.experiments.get("nowhere")


def a_pair(store: Store, made: Design | None = None) -> tuple[str, str]:
    """Id of an experiment and of its one pair."""
    kept = store.experiments.add(made or design(), "ana")
    replies = (Drawn(text="Hello", provenance=BASE), Drawn(text="Good day", provenance=TUNED))
    assert store.experiments.keep(kept.id, plan(kept.design)[0], *replies)
    assert not store.experiments.keep(kept.id, plan(kept.design)[0], *reversed(replies))
    (there,) = store.experiments.pairs(kept.id)
    assert (there.left.text, there.right.provenance.weights_sha256) == ("Hello", "ab" * 32)
    assert store.experiments.made(kept.id) == {0}
    return kept.id, there.id


def test_what_is_drawn_after_the_end_is_not_kept(store: Store) -> None:
    experiment, _ = a_pair(store, design(prompts=2))
    store.experiments.end(experiment, "ana", "")
    reply = Drawn(text="Hello", provenance=BASE)
    assert not store.experiments.keep(experiment, plan(design(prompts=2))[1], reply, reply)
    assert store.experiments.made(experiment) == {0}


def test_a_ballot_is_taken_once_and_not_after_the_end(store: Store) -> None:
    experiment, its_pair = a_pair(store)
    form = BallotForm(outcome="left", strength=2, criteria={"voice": "tie"}, tags=("off_voice",), comment="Curt")
    store.experiments.cast(its_pair, "ana", form)
    with pytest.raises(Conflict, match="already"):
        store.experiments.cast(its_pair, "ana", form)
    store.experiments.cast(its_pair, "ben", BallotForm(outcome="right"))
    with pytest.raises(NotFound):
        store.experiments.cast("nowhere", "ana", form)
    ended = store.experiments.end(experiment, "ana", "Enough")
    assert store.experiments.end(experiment, "ben", "Again") == ended
    with pytest.raises(Conflict, match="has ended"):
        store.experiments.cast(its_pair, "eve", form)
    assert [(one.voter, one.form.outcome) for one in store.experiments.ballots(experiment)] == [
        ("ana", "left"),
        ("ben", "right"),
    ]
    assert store.experiments.ballots(experiment)[0].form == form


def test_what_an_experiment_asks_is_never_learned_from(store: Store) -> None:
    store.experiments.add(design(prompts=3), "ana")
    asked = store.experiments.openings()
    assert asked == ["question number 0?", "question number 1?", "question number 2?"]
    replies = [Answer(text=text, provenance=BASE) for text in ("Good", "Bad")]
    for text in ("Question number 1?", "question  number 1 ?", "Something else"):
        kept = store.comparisons.add([Message(role="user", text=text)], replies, "ana")
        store.comparisons.vote(kept, VoteForm(outcome="left"), "ana")
    rows = joined(curate([], store.comparisons.voted(), 0.1, asked))
    assert [one.prompt[0].text for one in rows.preference] == ["Something else"]
    assert [one.reason for one in rows.left_out] == ["An experiment asks this, so it is kept for measuring."] * 2


def test_nearly_the_same_is_known_again() -> None:
    known = ["where is my parcel with the blue ribbon?", "can i pay later?"]
    assert near("where is my parcel with a blue ribbon?", known) == known[0]
    assert near("where is your shop?", known) == ""
    assert near("anything", []) == ""
