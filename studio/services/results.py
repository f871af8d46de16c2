"""What came out of an experiment: ballots into figures, and the checks that say how far to trust them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from statistics import median

from annotation.experiments import CastBallot, Design, Drawn, Experiment, Pair, all_tokens, draws, not_dealt
from annotation.types import Frozen, Message, Outcome, Question
from serving.statistics import Ballot, NotWorse, Strength, Verdict, holm, not_worse, strengths, verdict
from studio.settings import Prices

FLIPPED: dict[Outcome, Outcome] = {"left": "right", "right": "left", "tie": "tie", "both_bad": "both_bad"}
SHORT = 12
"""Words up to which a question is a short one."""
MOST_VALUES = 8
"""Kinds of prompts that are told apart in one respect."""


class Versus(Frozen):
    """Two sides against each other. `one` is the later of the two in the design: by habit the tuned one."""

    one: str
    other: str
    overall: Verdict
    criteria: dict[Question, Verdict]
    holds: dict[Question, bool]
    """Criteria whose difference stands after Holm's correction for asking several."""
    policy: NotWorse | None
    """Whether `one` is not worse than `other` on policy; None where policy was not asked about."""


class Checks(Frozen):
    """Whether the voters could be trusted to tell."""

    controls: int
    """Ballots about a pair with the same side twice."""
    controls_even: int
    """Of those, the ones that called it even."""
    repeats: int
    """Ballots about a pair that the same person had judged before."""
    repeats_same: int
    """Of those, the ones that said the same as the first time."""
    longer_won: int
    """Of the decided ballots about replies of different length, those that preferred the longer one."""
    length_decided: int
    not_dealt: dict[str, int]
    """Pairs that nobody was asked about, by reason."""


class SideCost(Frozen):
    """What a side's replies took. Medians; None where the engine did not say."""

    name: str
    replies: int
    prompt_tokens: float | None
    """Its instructions and the conversation."""
    completion_tokens: float | None
    tokens: float | None
    """Read and written together, by reply."""
    first_token: float | None
    """Seconds; None where replies came whole, as they do from an engine that writes many at once."""
    seconds: float | None
    """To the last token, while many replies were written at once."""
    price: float | None
    """Of a reply, in the currency of the prices."""
    cut_off: int
    """Replies that ended at the token limit."""
    confirmed: int
    """Replies whose weights the engine itself named."""


class Results(Frozen):
    """All figures of one experiment."""

    experiment: Experiment
    ballots: int
    voters: int
    versus: tuple[Versus, ...]
    strengths: tuple[Strength, ...]
    """From best to worst; empty with two sides, where they would say nothing new."""
    checks: Checks
    costs: tuple[SideCost, ...]


def results_of(
    experiment: Experiment, pairs: Sequence[Pair], ballots: Sequence[CastBallot], prices: Prices | None = None
) -> Results:
    """Work all figures out. Controls and repeats are left out of everything but the checks on the voters."""
    names = [side.name for side in experiment.design.sides]
    overall = in_figures(experiment, pairs, ballots)
    criteria = {question: in_figures(experiment, pairs, ballots, question) for question in experiment.design.criteria}
    return Results(
        experiment=experiment,
        ballots=len(ballots),
        voters=len({one.voter for one in ballots}),
        versus=tuple(
            _versus(experiment.design, overall, criteria, one=later, other=earlier)
            for earlier, later in combinations(names, 2)
        ),
        strengths=tuple(strengths(overall)) if len(names) > 2 else (),
        checks=_checks(experiment, pairs, ballots),
        costs=tuple(_cost(experiment, pairs, place, prices or Prices()) for place in range(len(names))),
    )


def in_figures(
    experiment: Experiment, pairs: Sequence[Pair], ballots: Sequence[CastBallot], criterion: Question | None = None
) -> list[Ballot]:
    """The ballots that count, overall or on one criterion; those that do not speak of it are left out."""
    names = [side.name for side in experiment.design.sides]
    by_id = {pair.id: pair for pair in pairs if pair.planned.kind == "pair"}
    slices = _slices(experiment.design)
    found = []
    for one in ballots:
        pair = by_id.get(one.pair_id)
        outcome = one.form.outcome if criterion is None else one.form.criteria.get(criterion)
        if pair is None or outcome is None:
            continue
        found.append(
            Ballot(
                voter=one.voter,
                prompt=str(pair.planned.prompt),
                left=names[pair.planned.left],
                right=names[pair.planned.right],
                outcome=outcome,
                strength=one.form.strength,
                length_difference=(len(pair.left.text) - len(pair.right.text)) / 1000,
                slices=slices[pair.planned.prompt] if criterion is None else {},
            )
        )
    return found


def _slices(design: Design) -> list[dict[str, str]]:
    """What each prompt is, in every respect in which the prompts differ. Beyond `MOST_VALUES` kinds, the rarest are
    one.
    """
    labels = design.labels or ({},) * len(design.prompts)
    found = [_measured(prompt) | label for prompt, label in zip(design.prompts, labels, strict=True)]
    for respect in {respect for each in found for respect in each}:
        kinds = Counter(each.get(respect, "not said") for each in found)
        common = [kind for kind, _ in kinds.most_common(len(kinds) if len(kinds) <= MOST_VALUES else MOST_VALUES - 1)]
        for each in found:
            kind = each.get(respect, "not said")
            each[respect] = kind if kind in common else "others"
    return found


def _measured(prompt: Sequence[Message]) -> dict[str, str]:
    """What every prompt can be split by."""
    messages = sum(message.role == "user" for message in prompt)
    return {
        "length": f"up to {SHORT} words" if len(prompt[-1].text.split()) <= SHORT else f"over {SHORT} words",
        "turn": "first message" if messages == 1 else "later in a conversation",
    }


def _versus(
    design: Design, overall: Sequence[Ballot], by_criterion: Mapping[Question, Sequence[Ballot]], one: str, other: str
) -> Versus:
    criteria = {
        question: verdict(ballots, one, other, alpha=design.alpha) for question, ballots in by_criterion.items()
    }
    # A p-value from an e-value, by Markov's inequality: it stays good however often one looks.
    p_values: dict[str, float] = {question: min(1.0, 1 / found.e_value) for question, found in criteria.items()}
    holds = holm(p_values, design.alpha)
    policy = by_criterion.get("policy")
    return Versus(
        one=one,
        other=other,
        overall=verdict(overall, one, other, alpha=design.alpha),
        criteria=criteria,
        holds={question: holds[question] for question in criteria},
        policy=None if policy is None else not_worse(policy, one, other, design.margin, design.alpha),
    )


def _checks(experiment: Experiment, pairs: Sequence[Pair], ballots: Sequence[CastBallot]) -> Checks:
    by_id = {pair.id: pair for pair in pairs}
    by_number = {pair.planned.number: pair for pair in pairs}
    said = {(one.pair_id, one.voter): one.form.outcome for one in ballots}
    counted: Counter[str] = Counter()
    for one in ballots:
        pair, outcome = by_id[one.pair_id], one.form.outcome
        if pair.planned.kind == "control":
            counted["controls"] += 1
            counted["controls_even"] += outcome in ("tie", "both_bad")
        elif pair.planned.repeats is not None:
            first = said.get((by_number[pair.planned.repeats].id, one.voter))
            counted["repeats"] += first is not None
            counted["repeats_same"] += first is not None and FLIPPED[first] == outcome
        elif outcome in ("left", "right") and len(pair.left.text) != len(pair.right.text):
            counted["length_decided"] += 1
            counted["longer_won"] += (len(pair.left.text) > len(pair.right.text)) == (outcome == "left")
    names = ("controls", "controls_even", "repeats", "repeats_same", "longer_won", "length_decided")
    return Checks(**{name: counted[name] for name in names}, not_dealt=not_dealt(experiment.design, pairs))


def _cost(experiment: Experiment, pairs: Sequence[Pair], place: int, prices: Prices) -> SideCost:
    drawn = {
        draw: reply
        for pair in pairs
        for draw, reply in zip(draws(pair.planned), (pair.left, pair.right), strict=True)
        if draw.side == place
    }
    replies = list(drawn.values())

    def middle(of: Callable[[Drawn], float | None]) -> float | None:
        known = [value for reply in replies if (value := of(reply)) is not None]
        return float(median(known)) if known else None

    return SideCost(
        name=experiment.design.sides[place].name,
        replies=len(replies),
        prompt_tokens=middle(lambda reply: reply.prompt_tokens),
        completion_tokens=middle(lambda reply: reply.completion_tokens),
        tokens=middle(lambda reply: all_tokens(reply.prompt_tokens, reply.completion_tokens)),
        first_token=middle(lambda reply: reply.first_token),
        seconds=middle(lambda reply: reply.provenance.seconds),
        price=middle(lambda reply: prices.of(reply.prompt_tokens, reply.completion_tokens)),
        cut_off=sum(reply.finish == "length" for reply in replies),
        confirmed=sum(reply.provenance.attested is not None for reply in replies),
    )
