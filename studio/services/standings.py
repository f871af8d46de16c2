"""Every model that was ever compared, in one order: the votes of all experiments that have ended, taken together."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from annotation.experiments import ArenaSide, CastBallot, Experiment, Pair
from annotation.near import opening
from annotation.types import Frozen
from serving.statistics import Ballot, Strength, strengths
from studio.services.results import in_figures

Cast = tuple[Experiment, Sequence[Pair], Sequence[CastBallot]]
Identity = tuple[str, str, str, str, float, float]
"""What makes two sides of two experiments the same one: base, its hash, adapter, instructions, temperature, top_p."""
FACETS: tuple[Callable[[ArenaSide], str], ...] = (
    lambda side: side.provenance.model,
    lambda side: f"weights {(side.provenance.base_sha256 or 'unknown')[:6]}",
    lambda side: f"instructions {hashlib.sha256(side.system.encode()).hexdigest()[:6]}",
    lambda side: f"variety {side.sampling.temperature:g}, top p {side.sampling.top_p:g}",
)
"""What is said beside a name that stands for several sides, as far as they differ in it."""


class Ranked(Frozen):
    """A model's place among all others."""

    strength: Strength
    experiments: int
    """In how many it took part."""


def standings_of(ended: Sequence[Cast]) -> tuple[Ranked, ...]:
    """From best to worst. Controls and repeats are left out, and a prompt that two experiments asked counts as one."""
    sides = {_identity(side): side for experiment, _, _ in ended for side in experiment.design.sides}
    names = _names(sides)
    ballots: list[Ballot] = []
    part: Counter[str] = Counter()
    for experiment, pairs, cast in ended:
        called = {side.name: names[_identity(side)] for side in experiment.design.sides}
        asked = [opening(prompt) for prompt in experiment.design.prompts]
        part.update(set(called.values()))
        ballots += [
            ballot.model_copy(
                update={
                    "left": called[ballot.left],
                    "right": called[ballot.right],
                    "prompt": asked[int(ballot.prompt)],
                }
            )
            for ballot in in_figures(experiment, pairs, cast)
        ]
    return tuple(Ranked(strength=one, experiments=part[one.name]) for one in strengths(ballots))


def _identity(side: ArenaSide) -> Identity:
    """How long a reply may be, and its seed, make no other model of it."""
    made = side.provenance
    drawn = side.sampling
    return (
        made.model,
        made.base_sha256 or "",
        made.weights_sha256 or "",
        side.system,
        drawn.temperature,
        drawn.top_p,
    )


def _names(sides: Mapping[Identity, ArenaSide]) -> dict[Identity, str]:
    """A name for each; where several have the same, what they differ in stands beside it."""
    alike: dict[str, list[Identity]] = defaultdict(list)
    for identity, side in sides.items():
        alike[side.name].append(identity)
    names = {}
    for name, several in alike.items():
        telling = [facet for facet in FACETS if len({facet(sides[identity]) for identity in several}) > 1]
        for identity in several:
            beside = "; ".join(facet(sides[identity]) for facet in telling)
            names[identity] = f"{name} ({beside})" if beside else name
    return names
