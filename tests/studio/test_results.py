"""Ballots into figures: what counts, what only checks the voters, and how it reads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from annotation.experiments import ArenaSide, BallotForm, CastBallot, Design, Drawn, Experiment, Pair, plan
from annotation.types import Message, Outcome, Provenance, Question, Weights, utc_now
from studio.parts.results import headline, results_html
from studio.services.results import in_figures, results_of
from studio.settings import Prices

BASE, TUNED = Provenance(model="SmolLM2", finish="length"), Provenance(model="SmolLM2", adapter="shop-1", finish="stop")
VOTERS = [f"voter {number}" for number in range(12)]
MANY = [f"voter {number}" for number in range(16)]


def experiment(sides: int = 2, prompts: int = 20, criteria: tuple[Question, ...] = ()) -> Experiment:
    made = [
        ArenaSide(
            name="Base" if number == 0 else f"<shop> {number}", model=str(number), provenance=TUNED if number else BASE
        )
        for number in range(sides)
    ]
    asked = tuple((Message(role="user", text=f"Question {number}?"),) for number in range(prompts))
    design = Design(name="Tone", sides=tuple(made), prompts=asked, criteria=criteria, seed=1)
    return Experiment(id="x", design=design, sha256=design.sha256(), author="cat", made_at=utc_now())


def pairs_of(made: Experiment) -> list[Pair]:
    """Replies whose length says which side they are of: 10 letters more for each place."""

    def drawn(side: int, again: bool = False) -> Drawn:
        text = f"Reply {side} {'again ' if again else ''}" + "x" * 10 * side
        return Drawn(
            text=text, provenance=made.design.sides[side].provenance, prompt_tokens=10, completion_tokens=5 + side
        )

    return [
        Pair(
            id=f"p{planned.number}",
            planned=planned,
            left=drawn(planned.left),
            right=drawn(planned.right, planned.kind == "control"),
        )
        for planned in plan(made.design)
    ]


def for_side(pair: Pair, side: int) -> Outcome:
    return "left" if pair.planned.left == side else "right"


def cast(pair: Pair, voter: str, outcome: Outcome, **criteria: Outcome) -> CastBallot:
    form = BallotForm.model_validate({"outcome": outcome, "criteria": criteria})
    return CastBallot(id=f"{pair.id} {voter}", pair_id=pair.id, voter=voter, form=form, made_at=utc_now())


def everybody_for(
    made: Experiment, side: int, kinds: Sequence[str] = ("pair",), **criteria: Outcome
) -> list[CastBallot]:
    return [
        cast(pair, voter, for_side(pair, side), **criteria)
        for pair in pairs_of(made)
        for voter in VOTERS
        if pair.planned.kind in kinds and side in (pair.planned.left, pair.planned.right)
    ]


def test_the_later_side_is_seen_against_the_earlier_one() -> None:
    made = experiment()
    found = results_of(made, pairs_of(made), everybody_for(made, 1))
    (versus,) = found.versus
    assert (versus.one, versus.other) == ("<shop> 1", "Base")
    assert (versus.overall.wins, versus.overall.losses, versus.overall.win_rate) == (240, 0, 1.0)
    assert versus.overall.decided == "<shop> 1"
    assert (found.ballots, found.voters) == (240, 12)


def test_one_person_alone_decides_nothing() -> None:
    made = experiment(prompts=200)
    alone = [one for one in everybody_for(made, 1) if one.voter == VOTERS[0]]
    (versus,) = results_of(made, pairs_of(made), alone).versus
    assert versus.overall.decided is None
    assert "Too early" in headline(versus.overall, versus.one, versus.other)


def test_controls_and_repeats_enter_no_figure_but_the_checks() -> None:
    made = experiment()
    pairs = pairs_of(made)
    by_kind = {kind: [pair for pair in pairs if pair.planned.kind == kind] for kind in ("pair", "control", "repeat")}
    assert (len(by_kind["control"]), len(by_kind["repeat"])) == (2, 2)
    ballots = [cast(pair, "ana", for_side(pair, 1)) for pair in by_kind["pair"]]
    ballots += [cast(by_kind["control"][0], "ana", "tie"), cast(by_kind["control"][1], "ana", "left")]
    same, other = by_kind["repeat"]
    ballots += [cast(same, "ana", for_side(same, 1)), cast(other, "ana", for_side(other, 0)), cast(same, "ben", "tie")]
    found = results_of(made, pairs, ballots)
    assert found.versus[0].overall.wins == 20
    checks = found.checks
    assert (checks.controls, checks.controls_even, checks.repeats, checks.repeats_same) == (2, 1, 2, 1)
    assert (checks.longer_won, checks.length_decided) == (20, 20)


def test_a_criterion_counts_only_those_who_spoke_of_it() -> None:
    made = experiment(criteria=("voice", "policy"))
    pairs = pairs_of(made)
    ballots = [cast(pair, "ana", "tie", voice=for_side(pair, 1)) for pair in pairs if pair.planned.kind == "pair"]
    assert len(in_figures(made, pairs, ballots, "voice")) == 20
    assert in_figures(made, pairs, ballots, "policy") == []
    (versus,) = results_of(made, pairs, ballots).versus
    assert (versus.overall.ties, versus.criteria["voice"].wins) == (20, 20)
    assert versus.policy is not None
    assert not versus.policy.holds
    assert not versus.holds["policy"]


def test_never_worse_on_policy_is_held_against_the_margin() -> None:
    made = experiment(criteria=("policy",), prompts=60)
    pairs = pairs_of(made)
    ballots = [
        cast(pair, voter, "tie", policy="tie") for pair in pairs for voter in VOTERS if pair.planned.kind == "pair"
    ]
    (versus,) = results_of(made, pairs, ballots).versus
    assert versus.policy is not None
    assert versus.policy.holds


def test_what_a_side_costs_stands_beside_its_quality() -> None:
    made = experiment()
    slow = {0: 3.0, 1: 1.5}

    def timed(said: Drawn, side: int) -> Drawn:
        first = None if side else 0.25
        provenance = said.provenance.model_copy(update={"seconds": slow[side]})
        return said.model_copy(update={"provenance": provenance, "first_token": first, "prompt_tokens": 10 + 90 * side})

    pairs = [
        pair.model_copy(
            update={
                "left": timed(pair.left, pair.planned.left),
                "right": timed(pair.right, pair.planned.right),
            }
        )
        for pair in pairs_of(made)
    ]
    base, tuned = results_of(made, pairs, [], Prices(read=1.0, written=10.0)).costs
    assert (base.tokens, base.seconds, base.first_token) == (15, 3.0, 0.25)
    assert (tuned.tokens, tuned.seconds, tuned.first_token) == (106, 1.5, None)
    assert (base.price, tuned.price) == pytest.approx((60e-6, 160e-6))
    shown = results_html(results_of(made, pairs, [], Prices(read=1.0, written=10.0)))
    assert "0.06 for 1,000 replies, the cheapest" in shown
    assert "costs 7.1 × the cheapest" in shown
    assert "not measured" in shown
    plain = results_of(made, pairs, [])
    assert plain.costs[0].price is None
    assert "TONESMITH_PRICE_READ" in results_html(plain)
    assert Prices(read=1.0).of(10, 10) is None


def test_figures_are_split_by_what_the_questions_differ_in() -> None:
    made = experiment(prompts=24)
    asked = list(made.design.prompts)
    asked[1] = (Message(role="user", text="Hello"), Message(role="assistant", text="Hi"), asked[1][0])
    topics = [{"topic": "refunds"} if at < 12 else {"topic": f"rare {at}"} if at < 23 else {} for at in range(24)]
    design = made.design.model_copy(update={"prompts": tuple(asked), "labels": tuple(topics)})
    made = made.model_copy(update={"design": design})
    ballots = [
        cast(pair, voter, for_side(pair, 1) if pair.planned.prompt < 12 else "tie")
        for pair in pairs_of(made)
        for voter in MANY
        if pair.planned.kind == "pair"
    ]
    (versus,) = results_of(made, pairs_of(made), ballots).versus
    found = {(each.respect, each.value): each for each in versus.overall.slices}
    assert {respect for respect, _ in found} == {"topic", "turn"}  # all questions are short ones
    assert len([at for at in found if at[0] == "topic"]) == 8
    assert found["topic", "refunds"].stands is None  # twelve questions do not pass a bar ten times as high
    assert (found["topic", "others"].prompts, found["topic", "others"].stands) == (6, None)
    assert found["turn", "later in a conversation"].few
    shown = results_html(results_of(made, pairs_of(made), ballots))
    assert "By kind of question" in shown
    assert "too few to say" in shown
    assert "a bar 10 times as high" in shown


def test_more_than_two_sides_get_an_order() -> None:
    made = experiment(sides=3)
    ballots = everybody_for(made, 2) + [
        one for one in everybody_for(made, 1) if one.pair_id not in {other.pair_id for other in everybody_for(made, 2)}
    ]
    lost = [one.model_copy(update={"form": BallotForm(outcome="tie")}) for one in ballots[::5]]
    mixed = [one for place, one in enumerate(ballots) if place % 5] + lost
    found = results_of(made, pairs_of(made), mixed)
    assert len(found.versus) == 3
    assert [one.name for one in found.strengths] == ["<shop> 2", "<shop> 1", "Base"]
    assert "All of them in one order" in results_html(found)


def test_the_interval_for_one_look_knows_of_people_and_questions() -> None:
    made = experiment(prompts=30)
    ballots = [
        one if (place * 7 + len(one.voter)) % 3 else one.model_copy(update={"form": BallotForm(outcome="tie")})
        for place, one in enumerate(everybody_for(made, 1))
    ]
    found = results_of(made, pairs_of(made), ballots)
    clustered = found.versus[0].overall.clustered
    assert clustered is not None
    assert clustered.low is not None
    assert f"For one look alone: {clustered.low:.0%} to " in results_html(found)


def test_what_a_reply_costs_is_counted_once_for_each_reply() -> None:
    made = experiment()
    base, tuned = results_of(made, pairs_of(made), []).costs
    assert (base.name, base.completion_tokens, tuned.completion_tokens) == ("Base", 5, 6)
    assert base.cut_off == base.replies >= 20
    assert tuned.cut_off == 0


def test_a_side_whose_weights_the_engine_did_not_name_is_called_unconfirmed() -> None:
    made = experiment()
    first, *pairs = pairs_of(made)
    sworn = first.left.provenance.model_copy(update={"attested": Weights(base_sha256="b")})
    first = first.model_copy(update={"left": first.left.model_copy(update={"provenance": sworn})})
    found = results_of(made, [first, *pairs], [])
    side = found.costs[first.planned.left]
    assert (side.confirmed, sum(one.confirmed for one in found.costs)) == (1, 1)
    html = results_html(found)
    assert f"not confirmed by the engine for {side.replies - 1} of {side.replies}" in html
    assert html.count("not confirmed by the engine") == 2


@pytest.mark.parametrize("votes", [0, 1, 240])
def test_it_reads_as_text_whatever_the_votes(votes: int) -> None:
    made = experiment(criteria=("voice", "policy", "bias"))
    html = results_html(results_of(made, pairs_of(made), everybody_for(made, 1, voice="tie", policy="left")[:votes]))
    assert "&lt;shop&gt; 1 against Base" in html
    assert "<shop>" not in html
    assert "nan" not in html.lower()
    assert made.sha256[:12] in html
