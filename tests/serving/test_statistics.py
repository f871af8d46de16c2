"""Verdicts: golden values, honest under peeking, and the same whatever people and sides are called."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from math import exp, log

import evalica
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln, expit, logsumexp, xlogy

from annotation.types import Outcome
from serving.statistics import (
    Ballot,
    Verdict,
    e_bh,
    holm,
    judge_agreement,
    mcnemar,
    not_worse,
    strengths,
    verdict,
)
from serving.statistics.ballots import Floats
from serving.statistics.decisions import SHARES, _highest, _mixture, least_difference
from serving.statistics.leaderboard import _newman
from serving.statistics.sequential import (
    SPREADS,
    least_clusters,
    log_e,
    log_e_clusters,
    votes_left,
)

MIRROR: dict[Outcome, Outcome] = {"left": "right", "right": "left", "tie": "tie", "both_bad": "both_bad"}

OUTCOMES: tuple[Outcome, ...] = ("left", "right", "tie")


def cast(voter: object, outcome: Outcome, prompt: object = 0, left: str = "a", right: str = "b") -> Ballot:
    return Ballot(voter=str(voter), prompt=str(prompt), left=left, right=right, outcome=outcome)


def simulate(
    rng: np.random.Generator,
    voters: int,
    each: int,
    *,
    gap: float = 0.0,
    taste: float = 0.0,
    place: float = 0.0,
    length: float = 0.0,
    ties: float = 0.0,
    prompts: int = 40,
) -> list[Ballot]:
    """Votes on a and b: `gap`, `place` and `length` in logits, `taste` the sd between voters, in random order."""
    own = gap + taste * rng.standard_normal(voters)
    rows = []
    for voter in rng.permutation(np.repeat(np.arange(voters), each)):
        first, longer = rng.random() < 0.5, float(rng.normal())
        chance = expit((own[voter] if first else -own[voter]) + place + length * longer)
        outcome: Outcome = "tie" if rng.random() < ties else "left" if rng.random() < chance else "right"
        left, right = ("a", "b") if first else ("b", "a")
        ballot = cast(voter, outcome, rng.integers(prompts), left, right)
        rows.append(ballot.model_copy(update={"length_difference": longer}))
    return rows


def turned(ballot: Ballot) -> Ballot:
    """The same answer with the sides shown the other way round."""
    return ballot.model_copy(
        update={
            "left": ballot.right,
            "right": ballot.left,
            "outcome": MIRROR[ballot.outcome],
            "length_difference": -ballot.length_difference,
        }
    )


ballots = st.lists(
    st.builds(
        Ballot,
        voter=st.sampled_from("uvwxyz"),
        prompt=st.sampled_from("1234"),
        left=st.just("a"),
        right=st.just("b"),
        outcome=st.sampled_from(["left", "left", "right", "tie", "both_bad"]),
        length_difference=st.sampled_from([-0.5, 0.0, 0.25]),
        slices=st.sampled_from([{"language": ""}, {"language": "de"}]),
    ).flatmap(lambda ballot: st.sampled_from([ballot, turned(ballot)])),
    max_size=40,
)


@pytest.mark.parametrize(("chance", "votes"), [(0.6, 179), (0.7, 53)])
def test_the_mixture_stops_as_early_as_it_should(chance: float, votes: int) -> None:
    wins = np.random.default_rng(1).random((4000, 1500)) < chance
    over = log_e(wins.cumsum(axis=1), (~wins).cumsum(axis=1)) >= log(20)
    assert over.any(axis=1).mean() > 0.99
    assert np.median(over.argmax(axis=1) + 1) == pytest.approx(votes, abs=5)


def test_e_values_by_hand() -> None:
    assert float(log_e(0, 0)) == 0
    assert float(log_e(1, 0)) == pytest.approx(0)  # one vote says nothing
    assert exp(float(log_e(2, 0))) == pytest.approx(4 * (10 * 11) / (20 * 21))
    assert log_e_clusters([], []) == pytest.approx(0, abs=1e-9)
    assert log_e_clusters([1], [0]) == pytest.approx(0, abs=1e-9)
    assert least_clusters(0.05) == 5
    assert least_clusters(0.01) == 7


def test_evidence_of_few_people_has_a_ceiling() -> None:
    """However often they vote, v people who always vote for one side stay below 2^v."""
    for voters in (1, 2, 4, 6):
        assert log_e_clusters([500] * voters, [0] * voters) < voters * log(2)


def even_fit(won: Floats, lost: Floats, spread: float) -> float:
    """Log likelihood of the voters' counts where the sides are equal and tastes are spread by `spread`."""
    if np.isinf(spread):
        return float(-(won + lost).sum() * log(2))
    return float((betaln(spread / 2 + won, spread / 2 + lost) - betaln(spread / 2, spread / 2)).sum())


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4),
    st.sampled_from(SPREADS[:-1].tolist()),
)
@settings(max_examples=25, deadline=None)
def test_the_next_vote_is_never_a_bet_in_our_favour(counts: list[tuple[int, int]], spread: float) -> None:
    """Whatever the true spread of tastes: the ratio to that spread's own fit expects no gain from one more vote."""
    won, lost = np.array(counts, np.float64).T
    more = np.eye(won.size)[0]
    up = (spread / 2 + won[0]) / (spread + won[0] + lost[0])
    later = up * exp(log_e_clusters(won + more, lost)) + (1 - up) * exp(log_e_clusters(won, lost + more))
    best = max(even_fit(won, lost, at) for at in SPREADS)
    assert later <= exp(log_e_clusters(won, lost) + best - even_fit(won, lost, spread)) * (1 + 1e-9)


def test_a_clear_winner_is_found() -> None:
    rows = simulate(np.random.default_rng(5), 12, 40, gap=1.0, taste=0.3, ties=0.1)
    result = verdict(rows, "a", "b")
    assert (result.decided, result.advice, result.votes_left) == ("a", "can_stop", 0)
    assert result.e_value >= 20
    assert result.interval is not None
    assert result.interval[0] > 0.5


def test_one_enthusiast_decides_nothing() -> None:
    rows = [cast("ana", "left", at) for at in range(200)]
    result = verdict(rows, "a", "b")
    assert result.votes_e_value > 1e6
    assert result.e_value < 20
    assert (result.decided, result.advice, result.votes_left, result.drop_k) == (None, "keep_going", None, None)
    assert result.words[0] == "Only one person voted: this is one taste. A decision needs at least 5 people."
    crowd = rows + [cast(f"v{who}", "right", who) for who in range(10)]
    assert verdict(crowd, "a", "b").decided is None


def test_the_forecast_comes_true() -> None:
    people, asked = (np.full(8, 6.0), np.full(8, 4.0)), (np.full(16, 3.0), np.full(16, 2.0))
    more = votes_left(people, asked, 20)
    assert more is not None
    times = (more + 100) / 100
    many, much = round(8 * times) + 1, round(16 * times) + 1
    assert log_e_clusters([6] * many, [4] * many) >= log(20)
    assert log_e_clusters([3] * much, [2] * much) >= log(20)
    assert votes_left((np.full(8, 5.0), np.full(8, 5.0)), asked, 0) is None
    few = (np.full(4, 9.0), np.full(4, 1.0))
    assert votes_left(few, asked, 0) is votes_left(people, few, 0) is None


def test_few_questions_decide_nothing_however_many_judge_them() -> None:
    """Forty people on four questions, all for one side: what of the next four? Twelve questions do."""
    few = verdict([cast(who, "left", at) for who in range(40) for at in range(4)], "a", "b")
    assert few.votes_e_value > 1e6
    assert (few.decided, few.votes_left) == (None, None)
    assert few.words[:1] == [
        "All votes are on 4 questions: others may turn out differently. A decision needs at least 5."
    ]
    mixed = [cast(who, "left" if at < 7 else "right", at) for who in range(40) for at in range(9)]
    found = verdict(mixed, "a", "b")
    assert (found.votes_e_value > 20, found.decided) == (True, None)
    assert found.words[:1] == [
        "Counted vote by vote this would be decided, but it rests on too few questions: ask more."
    ]
    assert found.interval is not None
    assert found.interval[0] < 0.5 < found.interval[1]
    enough = verdict([cast(who, "left", at) for who in range(40) for at in range(12)], "a", "b")
    assert enough.decided == "a"


def test_counts_ties_slices_and_both_bad() -> None:
    rows = [cast("u", "left"), cast("v", "right", 1, "b", "a"), cast("w", "tie", 2), cast("x", "both_bad", 3)]
    rows += [cast("u", "right", 4).model_copy(update={"slices": {"language": "de"}}), cast("u", "left", 1, "a", "c")]
    result = verdict(rows, "a", "b")
    assert (result.wins, result.losses, result.ties, result.both_bad) == (2, 1, 1, 1)
    assert (result.voters, result.prompts, result.win_rate, result.drop_k) == (3, 4, 0.625, 2)
    assert [(at.respect, at.value, at.votes, at.win_rate, at.stands, at.few) for at in result.slices] == [
        ("language", "", 3, pytest.approx(5 / 6), None, True),
        ("language", "de", 1, 0.0, None, True),
    ]
    assert "Ties count half in the win rate, and not at all in the evidence." in result.words
    assert "1 vote for 'both bad' stand apart and count for no side." in result.words


def test_a_slice_stands_where_its_votes_carry_it_alone() -> None:
    """In German all are for a, elsewhere nobody leads; with many slices more people are needed for it."""

    def by(respects: int, people: int) -> Verdict:
        rows = [
            cast(who, "left" if at < 20 or (who + at) % 2 else "right", at).model_copy(
                update={"slices": {f"by {one}": "de" if at < 20 else str(at % 2) for one in range(respects)}}
            )
            for who in range(people)
            for at in range(40)
        ]
        return verdict(rows, "a", "b")

    german, *others = sorted(by(1, 14).slices, key=lambda each: each.value, reverse=True)
    assert (german.value, german.stands, german.few) == ("de", "a", False)
    assert [(each.stands, each.win_rate) for each in others] == [(None, 0.5), (None, 0.5)]
    assert by(1, 9).slices[-1].stands is None
    assert {(each.stands, each.few) for each in by(40, 9).slices} == {(None, True)}


def test_nothing_is_said_of_nothing() -> None:
    empty = verdict([], "a", "b")
    assert (empty.win_rate, empty.interval, empty.clustered, empty.position, empty.e_value) == (
        None,
        None,
        None,
        None,
        1,
    )
    assert empty.words == ["No vote yet says which side is better."]
    bad = verdict([cast("u", "both_bad")], "a", "b")
    assert bad.words == ["No vote yet says which side is better. 1 said that both are bad."]
    ties = verdict([cast(who, "tie", who) for who in range(6)], "a", "b")
    assert (ties.win_rate, ties.decided, ties.e_value, ties.drop_k) == (0.5, None, 1.0, None)
    assert "Every vote is a tie: there is nothing to decide on." in ties.words
    with pytest.raises(ValueError, match="two different sides"):
        verdict([], "a", "a")
    with pytest.raises(ValueError, match="alpha"):
        verdict([], "a", "b", alpha=1)


def near(first: float | None, second: float | None, slack: float = 1e-6) -> bool:
    return first is second is None or (first is not None and second is not None and abs(first - second) <= slack)


@given(ballots)
@settings(max_examples=25, deadline=None)
def test_swapping_the_sides_mirrors_everything(rows: list[Ballot]) -> None:
    here, there = verdict(rows, "a", "b"), verdict(rows, "b", "a")
    assert (here.wins, here.losses, here.ties) == (there.losses, there.wins, there.ties)
    assert (here.decided, here.votes_left, here.drop_k) == (there.decided, there.votes_left, there.drop_k)
    assert here.e_value == pytest.approx(there.e_value)
    assert near(here.win_rate, None if there.win_rate is None else 1 - there.win_rate)
    if here.interval and there.interval:
        assert here.interval == pytest.approx((1 - there.interval[1], 1 - there.interval[0]))
    for name in ("clustered", "length_controlled"):
        one, other = getattr(here, name), getattr(there, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert near(one.value, 1 - other.value)
            assert near(one.low, None if other.high is None else 1 - other.high, 0.011)
            assert near(one.p, other.p, 0.02)
    assert (here.position is None) == (there.position is None)
    if here.position and there.position:
        assert near(here.position.value, there.position.value)


@given(ballots, st.permutations("uvwxyz"), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_names_and_order_of_votes_change_nothing(rows: list[Ballot], names: list[str], random: object) -> None:
    called = dict(zip("uvwxyz", names, strict=True))
    renamed = [ballot.model_copy(update={"voter": called[ballot.voter]}) for ballot in rows]
    shuffled = random.sample(renamed, len(rows))  # type: ignore[attr-defined]
    assert same(verdict(rows, "a", "b"), verdict(shuffled, "a", "b"))


@given(ballots)
@settings(max_examples=25, deadline=None)
def test_showing_the_sides_the_other_way_round_changes_the_position_alone(rows: list[Ballot]) -> None:
    here, there = verdict(rows, "a", "b"), verdict([turned(ballot) for ballot in rows], "a", "b")
    assert same(here, there, ("position", "words"))
    assert (here.position is None) == (there.position is None)
    if here.position and there.position:
        assert near(here.position.value, 1 - there.position.value)
        assert near(here.position.p, there.position.p)


def same(here: Verdict, there: Verdict, but: tuple[str, ...] = ()) -> bool:
    """All fields but `but` are equal, numbers within rounding."""
    left, right = (flat(each.model_dump(exclude=set(but))) for each in (here, there))
    assert left == pytest.approx(right, abs=1e-6)
    return True


def flat(value: object, at: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {name: leaf for key, inner in value.items() for name, leaf in flat(inner, f"{at}.{key}").items()}
    if isinstance(value, list | tuple):
        return flat(dict(enumerate(value)), at)
    return {at: value}


def test_clustered_error_by_hand() -> None:
    """Eleven voters with one vote each and one prompt each: the plain error of a mean, with n − 1."""
    rows = [cast(who, "left" if who < 7 else "right", who) for who in range(11)]
    found = verdict(rows, "a", "b").clustered
    assert found is not None
    error = (7 / 11 * 4 / 11 / 10) ** 0.5
    assert (found.low, found.high) == pytest.approx((7 / 11 - 2.2281 * error, 7 / 11 + 2.2281 * error), abs=1e-4)


def test_place_and_length_are_told_apart_from_the_sides() -> None:
    result = verdict(simulate(np.random.default_rng(2), 30, 60, gap=0.4, place=0.5, length=0.6), "a", "b")
    assert result.position is not None
    assert result.position.p is not None
    assert result.position.value == pytest.approx(expit(0.5), abs=0.03)
    assert result.position.p < 0.01
    assert result.length_controlled is not None
    assert result.length_controlled.value == pytest.approx(expit(0.4), abs=0.03)
    assert "The side shown left wins more often than it should: people may vote by place." in result.words


def test_a_longer_reply_is_no_better_reply() -> None:
    """b's replies are longer and length alone wins: at equal length nobody leads."""
    rng = np.random.default_rng(6)
    rows = []
    for at in range(1500):
        longer = float(rng.normal(0.8, 0.6))  # b minus a
        first = rng.random() < 0.5
        outcome: Outcome = "left" if (rng.random() < expit(-longer)) == first else "right"
        row = cast(at % 25, outcome, at % 60, *(("a", "b") if first else ("b", "a")))
        rows.append(row.model_copy(update={"length_difference": -longer if first else longer}))
    result = verdict(rows, "a", "b")
    assert result.win_rate is not None
    assert result.win_rate < 0.4
    assert result.length_controlled is not None
    assert result.length_controlled.value == pytest.approx(0.5, abs=0.05)


def test_nothing_is_said_of_a_length_that_was_never_seen() -> None:
    """One side is always longer by about as much: at equal length, anything could be."""
    rng = np.random.default_rng(3)
    rows = [
        cast(at % 12, "left" if rng.random() < 0.7 else "right", at % 20, *(("a", "b") if at % 2 else ("b", "a")))
        for at in range(240)
    ]
    sided = [
        row.model_copy(update={"length_difference": (0.08 + 0.001 * rng.random()) * (1 if row.left == "a" else -1)})
        for row in rows
    ]
    found = verdict(sided, "a", "b")
    assert found.length_controlled is None
    assert found.words[-1] == "No figure at equal length: one side's replies are nearly always the longer ones."


def test_what_cannot_be_told_of_place_is_said() -> None:
    rows = [cast(at % 6, "left" if at % 3 else "right", at) for at in range(30)]
    result = verdict(rows, "a", "b")
    assert result.position is None
    assert result.words[-1] == "Whether the place matters can't be told: one side always stood on the same place."


def matches(rng: np.random.Generator, gap: float, votes: int, ties: float) -> list[Ballot]:
    """Four sides whose strengths are `gap` apart, with Newman's (Davidson's) ties."""
    rows = []
    for at in range(votes):
        one, other = (int(side) for side in rng.choice(4, 2, replace=False))
        win, lose = exp(gap * (one - other) / 2), exp(gap * (other - one) / 2)
        outcome: Outcome = rng.choice(["left", "right", "tie"], p=np.array([win, lose, ties]) / (win + lose + ties))
        rows.append(cast(at % 50, outcome, at % 97, f"s{one}", f"s{other}"))
    return rows


def test_newman_recovers_the_gap_that_half_ties_shrink() -> None:
    """Expected counts of a gap of .40 with 21% ties: counting a tie as half a win to each gives .314."""
    rows = [cast(at, "left", at) for at in range(1492)] + [cast(at, "right", at) for at in range(1000)]
    rows += [cast(at, "tie", at) for at in range(666)]
    first, second = strengths(rows)
    assert (first.name, second.name) == ("a", "b")
    assert first.strength is not None
    assert second.strength is not None
    assert first.strength - second.strength == pytest.approx(0.40, abs=0.005)
    assert log((1492 + 333) / (1000 + 333)) == pytest.approx(0.314, abs=0.001)


def test_strengths_of_four_sides() -> None:
    table = strengths(matches(np.random.default_rng(3), 0.4, 6000, 0.54))
    assert [row.name for row in table] == ["s3", "s2", "s1", "s0"]
    for row, truth in zip(table, (0.6, 0.2, -0.2, -0.6), strict=True):
        assert row.strength == pytest.approx(truth, abs=0.09)
        assert row.low is not None
        assert row.high is not None
        assert row.low < truth < row.high
        assert row.words == ""
    assert sum(row.votes for row in table) == 12_000


@pytest.mark.parametrize("ties", [0, 1, 40])
@pytest.mark.parametrize("votes", [80, 8_000])
def test_two_sides_are_as_far_apart_as_the_decided_votes_say(votes: int, ties: int) -> None:
    """In closed form, with no tie, with a rare one and with many."""
    won = votes * 5 // 8
    rows = [cast(at % 50, "left", at % 97) for at in range(won)]
    rows += [cast(at % 50, "right", at % 97) for at in range(votes - won)]
    rows += [cast(at, "tie", at) for at in range(ties)]
    first, second = strengths(rows)
    assert first.strength is not None
    assert second.strength is not None
    assert first.strength - second.strength == pytest.approx(log(5 / 3), abs=1e-6)


def test_a_chain_of_sides_without_ties_by_hand() -> None:
    """a beats b 24 : 48 and b beats c 8 : 64; a and c never met."""
    rows = [cast(at, "left", at) for at in range(24)] + [cast(at, "right", at) for at in range(48)]
    rows += [cast(at, "left", at, "b", "c") for at in range(8)] + [cast(at, "right", at, "b", "c") for at in range(64)]
    found = {row.name: row.strength or 0.0 for row in strengths(rows)}
    assert (found["b"] - found["a"], found["c"] - found["b"]) == pytest.approx((log(2), log(8)))


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(0, 30)), min_size=6, max_size=6))
@settings(max_examples=50, deadline=None)
def test_strengths_are_those_of_evalica_where_its_iteration_ends(games: list[tuple[int, int, int]]) -> None:
    """Four sides, each against each: wins, losses, ties."""
    who = (evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw)
    counted = [
        (one, other, kind, float(number))
        for (one, other), numbers in zip(combinations(range(4), 2), games, strict=True)
        for kind, number in enumerate(numbers)
        if number
    ]
    firsts, seconds, kinds, weights = zip(*counted, strict=True)
    theirs = evalica.newman(
        firsts, seconds, [who[kind] for kind in kinds], weights=list(weights), tolerance=1e-10, limit=5_000
    )
    ours = _newman(np.array([one[:3] for one in counted], np.int64), np.array(weights), np.arange(4))
    if theirs.iterations < 5_000:
        logs = np.log(theirs.scores.loc[list(range(4))].to_numpy())
        assert ours == pytest.approx(logs - logs.mean(), abs=1e-4)


@pytest.mark.parametrize("never", ["loses", "loses, and ties"])
def test_a_side_that_never_loses_has_no_number(never: str) -> None:
    """One that also ties looks beatable, but the likelihood goes on rising with its strength."""
    rows = [cast(at, "left", at) for at in range(3)]
    if never == "loses, and ties":
        rows += [cast(at, "tie", at) for at in range(3)]
    first, second = strengths(rows)
    assert (first.strength, second.strength) == (None, None)
    assert "never lost to the others" in first.words


def test_what_no_vote_joins_is_not_compared() -> None:
    rows = [cast(at, kind, at) for at in range(4) for kind in OUTCOMES]
    rows += [cast(0, "left", 0, "c", "d"), cast(1, "left", 1, "d", "e")]
    table = strengths(rows)
    assert [(row.name, row.group) for row in table] == [("c", 0), ("d", 0), ("e", 0), ("a", 1), ("b", 1)]
    assert table[0].strength is None
    assert table[0].words == (
        "The sides fall into 2 groups that no vote joins: compare only within a group. "
        "No strength: some sides never lost to the others, or never won, so no number fits."
    )
    assert table[3].strength == pytest.approx(0, abs=1e-4)
    assert strengths([]) == strengths([cast("u", "both_bad")]) == []


@given(st.lists(st.sampled_from([0.0, 0.004, 0.01, 0.0125, 0.02, 0.03, 0.05, 0.2, 1.0]), min_size=1, max_size=5))
def test_holm_is_the_closed_test(found: list[float]) -> None:
    """Without steps: one falls where Bonferroni's test rejects every set of hypotheses that it is in."""
    sets = [some for number in range(1, 6) for some in combinations(range(len(found)), number)]
    for at, falls in enumerate(holm({str(at): p for at, p in enumerate(found)}).values()):
        assert falls == all(min(found[one] for one in some) <= 0.05 / len(some) for some in sets if at in some)


def test_holm_and_e_bh() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": True, "b": False, "c": False}
    assert holm({}) == {}
    assert e_bh({"a": 100, "b": 30, "c": 1}) == {"a": True, "b": True, "c": False}
    assert e_bh({"a": 30, "b": 1, "c": 1}) == {"a": False, "b": False, "c": False}
    with pytest.raises(ValueError, match="p-value"):
        holm({"a": 1.2})
    with pytest.raises(ValueError, match="e-value"):
        e_bh({"a": float("nan")})


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60), st.sampled_from([-0.9, -0.3, -0.1, 0.0, 0.2]))
def test_the_highest_likelihood_is_the_highest(better: int, worse: int, ties: int, difference: float) -> None:
    """By trying every share."""
    share = np.linspace(max(0.0, difference), (1 + difference) / 2, 20_001)
    tried = xlogy(better, share) + xlogy(worse, np.maximum(share - difference, 0))
    tried += xlogy(ties, np.maximum(1 - 2 * share + difference, 0))
    assert _highest(better, worse, ties, difference) == pytest.approx(tried.max(), abs=1e-3)


def test_the_least_difference_by_hand() -> None:
    """All the same: the likelihood at a difference of −d is highest with d worse and none better, (1 − d)^n."""
    assert least_difference(0, 0, 0) == -1
    low = least_difference(0, 0, 100)
    mixed = [_mixture(np.array([0.0, 0.0, 100.0]), prior) for prior in SHARES]
    assert 100 * log(1 + low) == pytest.approx(logsumexp(mixed) - log(2) - log(20), abs=1e-6)
    assert least_difference(0, 0, 58) < -0.1 < least_difference(0, 0, 59)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60))
def test_the_least_difference_lies_below_the_one_seen(better: int, worse: int, ties: int) -> None:
    low = least_difference(better, worse, ties)
    assert -1 <= low <= (better - worse) / max(better + worse + ties, 1) + 1e-9
    assert low <= least_difference(better, worse, ties, 0.2)
    assert low <= least_difference(better + 1, worse, ties) + 1e-9


def test_not_worse_rests_on_people_and_not_on_votes_alone() -> None:
    """One of twelve people sees a fault in 20 of 40: four in a hundred votes, but what would the next twelve say?"""
    rows = [cast(voter, "right" if not voter and at < 20 else "tie", at) for voter in range(12) for at in range(40)]
    assert least_difference(0, 20, 460) > -0.1
    found = not_worse(rows, "a", "b", 0.1)
    assert not found.holds
    assert found.words == "Counted vote by vote, 480 votes would show it, but they rest on too few people or questions."
    spread = [cast(who, "both_bad" if (who + at) % 20 else "right", at) for who in range(12) for at in range(40)]
    assert not_worse(spread, "a", "b", 0.2).holds


def test_not_worse_is_said_where_it_is_so_and_not_by_a_few_alone() -> None:
    same = [cast(who, "tie", at) for who in range(6) for at in range(30)]
    found = not_worse(same, "a", "b", 0.1)
    assert (found.holds, found.difference) == (True, 0)
    assert found.words == "180 votes show that it is not worse by more than 10 points."
    few = "To show it takes at least 5 people and 5 questions."
    assert not_worse([cast(who % 4, "tie", who) for who in range(200)], "a", "b", 0.1).words == few
    assert not_worse([cast(who, "tie", who % 4) for who in range(200)], "a", "b", 0.1).words == few
    assert not_worse([], "a", "b", 0.1).words == "Nobody has voted on it yet."
    better = [cast(who, "left", at) for who in range(9) for at in range(20)]
    assert not_worse(better, "a", "b", 0.1).holds
    assert not not_worse(better, "b", "a", 0.1).holds
    assert "may still be worse by more than 10 points" in not_worse(same[::5], "a", "b", 0.1).words
    with pytest.raises(ValueError, match="margin"):
        not_worse(same, "a", "b", 1)


def test_mcnemar_by_hand() -> None:
    result = mcnemar(both=10, first_only=1, second_only=9, neither=3)
    assert result.p == pytest.approx(22 / 1024)
    assert mcnemar(5, 0, 0, 5).words == "No test: the sides never differ."
    assert mcnemar(5, 4, 4, 5).p == 1


def test_a_judge_adds_to_people_but_is_kept_apart() -> None:
    """A judge that favours a on every fourth prompt is corrected by the prompts that people answered."""
    rng = np.random.default_rng(12)
    truth = rng.random(1000) < 0.5
    said: list[Outcome] = ["left" if win else "right" for win in truth]
    judged: list[Outcome] = ["left" if win or rng.random() < 0.25 else "right" for win in truth]
    human = [cast("ana", outcome, at) for at, outcome in enumerate(said[:200])]
    judge = [cast("judge", outcome, at) for at, outcome in enumerate(judged)]
    result = judge_agreement(human, judge, "a", "b")
    assert result.shared == 200
    assert result.human is not None
    assert result.predicted is not None
    assert result.human.value == pytest.approx(truth[:200].mean())
    assert result.predicted.value == pytest.approx(truth.mean(), abs=0.05)
    assert width(result.predicted) < width(result.human)
    assert result.kappa is not None
    assert 0.6 < result.kappa.value < 0.9
    assert result.swap_consistency is None
    assert result.words == ["Swap consistency is unknown: the judge saw no pair both ways round."]


def width(estimate: object) -> float:
    return float(estimate.high - estimate.low)  # type: ignore[attr-defined]


def test_a_judge_that_follows_the_place_is_found_out() -> None:
    rows = [cast("j", "left", at) for at in range(5)] + [cast("j", "left", at, "b", "a") for at in range(5)]
    blind = judge_agreement([], rows, "a", "b")
    assert (blind.swap_consistency, blind.first_share) == (0, 1)
    assert (
        blind.by_place
        == "It chose the reply it read first in 100% of its choices, whichever that was: it did not judge."
    )
    mirrored = [row.model_copy(update={"outcome": "right"}) for row in rows]
    assert "read second in 100%" in judge_agreement([], mirrored, "a", "b").by_place
    assert judge_agreement([], rows[1:], "a", "b").by_place == ""  # nine choices are too few to say so
    firm = [cast("j", "left", at) for at in range(5)] + [cast("j", "right", at, "b", "a") for at in range(5)]
    found = judge_agreement([], firm, "a", "b")
    assert (found.swap_consistency, found.first_share, found.by_place) == (1, 0.5, "")
    assert found.words[0] == "Kappa is undefined: no prompt was answered by both."
    wavering = judge_agreement([], rows[:4] + firm[4:5] + rows[5:9] + firm[9:], "a", "b")
    assert wavering.swap_consistency == 0.2
    assert "did not judge" in wavering.by_place
    coin = judge_agreement([], rows[:3] + firm[3:5] + mirrored[5:6] + rows[6:8] + firm[8:], "a", "b")
    assert coin.swap_consistency == 0.6
    assert coin.by_place == ""


def test_nothing_heavy_loads_before_a_figure_is_asked_for() -> None:
    script = "import sys, serving.statistics; print(*{'scipy', 'statsmodels'}.intersection(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
