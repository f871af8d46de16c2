"""The canary: a share of people, always the same ones, and more of them as it grows."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from serving.canary import pick, place

SHARES = st.floats(0, 1)
PEOPLE = [f"person-{number}" for number in range(4000)]


@given(st.text(), st.text(), SHARES, SHARES)
def test_raising_the_share_moves_people_to_the_candidate_and_nobody_away(
    user: str, salt: str, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert pick(user, salt, low) == pick(user, salt, low)
    if pick(user, salt, low) == "candidate":
        assert pick(user, salt, high) == "candidate"


@given(st.text(), st.text())
def test_nobody_at_none_and_everybody_at_all(user: str, salt: str) -> None:
    assert (pick(user, salt, 0.0), pick(user, salt, 1.0)) == ("production", "candidate")
    assert 0 <= place(user, salt) < 1


def test_places_are_spread_evenly() -> None:
    places = sorted(place(person, "salt") for person in PEOPLE)
    furthest = max(abs(found - (number + 0.5) / len(places)) for number, found in enumerate(places))
    assert furthest < 1.63 / math.sqrt(len(places))  # Kolmogorov's bound at 1%; the draw is fixed, so it never wavers


def test_the_share_of_people_is_the_share_that_was_set() -> None:
    for share in (0.01, 0.1, 0.5, 0.9):
        got = sum(pick(person, "salt", share) == "candidate" for person in PEOPLE)
        assert abs(got - share * len(PEOPLE)) < 4 * math.sqrt(share * (1 - share) * len(PEOPLE))


def test_another_salt_draws_all_places_anew() -> None:
    both = [pick(person, "a", 0.5) == pick(person, "b", 0.5) for person in PEOPLE]
    assert 0.45 < sum(both) / len(both) < 0.55


def test_name_and_salt_do_not_run_into_each_other() -> None:
    assert place("ab", "c") != place("b", "ca")
