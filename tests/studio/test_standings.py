"""One order of all models: what several experiments say together."""

from __future__ import annotations

import pytest

from annotation.experiments import ArenaSide, BallotForm, CastBallot, Design, Drawn, Experiment, Pair, plan
from annotation.types import Message, Outcome, Provenance, Sampling, utc_now
from serving.statistics import Ballot, leaderboard
from studio.parts.results import standings_html
from studio.services import standings
from studio.services.standings import Cast, standings_of

VOTERS = [f"voter {number}" for number in range(8)]


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are tested where they are made."""
    monkeypatch.setattr(leaderboard, "DRAWS", 20)


def side(name: str, **values: object) -> ArenaSide:
    made = (
        Provenance(model="Small", adapter=name, weights_sha256=name * 4)
        if name != "Base"
        else Provenance(model="Small")
    )
    return ArenaSide.model_validate({"name": name, "model": name, "provenance": made} | values)


def held(better: ArenaSide, worse: ArenaSide, about: str = "parcel", share: int = 3) -> Cast:
    """An ended experiment in which all but one of `share` votes prefer `better`."""
    asked = tuple((Message(role="user", text=f"Question {number} on a {about}?"),) for number in range(9))
    design = Design(name="x", sides=(worse, better), prompts=asked)
    made = Experiment(
        id=about, design=design, sha256=design.sha256(), author="cat", made_at=utc_now(), ended_at=utc_now()
    )
    pairs, ballots = [], []
    for planned in plan(design):
        left, right = (Drawn(text=f"{place}", provenance=worse.provenance) for place in (planned.left, planned.right))
        pairs.append(Pair(id=f"{about} {planned.number}", planned=planned, left=left, right=right))
        for number, voter in enumerate(VOTERS):
            wins = (planned.number + number) % share > 0
            outcome: Outcome = "left" if (design.sides[planned.left] == better) == wins else "right"
            form = BallotForm(outcome=outcome)
            ballots.append(
                CastBallot(
                    id=f"{pairs[-1].id} {voter}", pair_id=pairs[-1].id, voter=voter, form=form, made_at=utc_now()
                )
            )
    return made, pairs, ballots


def test_models_that_never_met_stand_in_one_order() -> None:
    base, first, second = side("Base"), side("first-1"), side("second-2")
    found = standings_of([held(first, base), held(second, first, "lamp", share=9)])
    assert [one.strength.name for one in found] == ["second-2", "first-1", "Base"]
    assert [one.experiments for one in found] == [1, 2, 1]
    # Nine prompts an experiment, eight voters; the controls and the repeats that are planned beside them do not count.
    assert [one.strength.votes for one in found] == [72, 144, 72]
    assert all(one.strength.low is not None for one in found)
    html = standings_html(found)
    assert html.index("second-2") < html.index("first-1") < html.index(">Base<")


def test_the_same_name_is_no_proof_and_the_same_model_is_one_whatever_it_is_called() -> None:
    guide, newer = side("Base", system="Be warm."), side("Base", system="Be brief.")
    longer = side("first-1").model_copy(update={"name": "First, long", "sampling": Sampling(max_tokens=900, seed=4)})
    found = standings_of([held(side("first-1"), guide), held(longer, newer, "lamp")])
    names = {one.strength.name for one in found}
    assert len(names) == len(found) == 3
    assert sum(name.startswith("Base (instructions ") for name in names) == 2
    lively = side("Base", sampling=Sampling(temperature=1.2))
    found = standings_of([held(side("first-1"), side("Base")), held(side("first-1"), lively, "lamp")])
    assert {"Base (variety 0.7, top p 0.95)", "Base (variety 1.2, top p 0.95)"} < {one.strength.name for one in found}


def test_a_prompt_that_two_experiments_asked_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Ballot] = []
    monkeypatch.setattr(standings, "strengths", lambda ballots: given.extend(ballots) or [])
    standings_of([held(side("first-1"), side("Base")), held(side("second-2"), side("Base"))])
    assert len(given) == 144
    assert len({one.prompt for one in given}) == 9


def test_without_votes_there_is_no_order() -> None:
    made, pairs, _ = held(side("first-1"), side("Base"))
    assert standings_of([]) == standings_of([(made, pairs, [])]) == ()
    assert "No votes to go by yet" in standings_html(())
