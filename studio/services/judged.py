"""What a model thinks of an experiment, in figures of its own. Nothing here is ever part of people's figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from annotation.experiments import CastBallot, Experiment, Pair
from annotation.judging import ORDERS, AskedJudge, JudgeVerdict, Order, judged_pairs
from annotation.types import Frozen, Outcome, Question
from serving.statistics import Ballot, JudgeAgreement, judge_agreement
from studio.services.results import in_figures

AS_READ: dict[str, Outcome] = {"first": "left", "second": "right", "tie": "tie", "both_bad": "both_bad"}
"""In a judge's ballots the reply that it read first stands left."""


class JudgedLine(Frozen):
    """One question about two sides: the judge held against people, and beside it the control."""

    question: str
    """`overall`, or a criterion."""
    found: JudgeAgreement
    control: JudgeAgreement
    """What the same would come to for one that says 'the first' whatever it reads."""


class JudgedVersus(Frozen):
    """Two sides against each other, seen from `one` as in people's figures."""

    one: str
    other: str
    lines: tuple[JudgedLine, ...]


class ReadAnswer(Frozen):
    """A judge's answer about a pair to read: for each question the reason, and whom it prefers."""

    order: Order
    said: tuple[tuple[str, str, str], ...]
    """(question, reason, winner): a side's name, `tie` or `both_bad`. Empty without a verdict."""
    why_none: str
    """Why there is no verdict, '' if there is one."""


class ReadPair(Frozen):
    """A pair to read beside what the judge says about it."""

    asked: str
    replies: tuple[tuple[str, str], ...]
    """(side, text), left and right as people saw them."""
    votes: dict[str, int]
    """People's votes, by side, `tie` and `both_bad`."""
    answers: tuple[ReadAnswer, ...]


class Judged(Frozen):
    """One judge on one experiment."""

    asked: AskedJudge
    answers: int
    of: int
    no_verdict: int
    attested: bool
    """Whether the engine itself said which weights gave every answer."""
    is_side: bool
    """Whether the judge also wrote replies of one side."""
    versus: tuple[JudgedVersus, ...]
    pairs: tuple[ReadPair, ...]


def judged_of(
    experiment: Experiment,
    pairs: Sequence[Pair],
    ballots: Sequence[CastBallot],
    asked: AskedJudge,
    verdicts: Sequence[JudgeVerdict],
) -> Judged:
    """Work out all that is said about a judge."""
    design = experiment.design
    by_pair: dict[str, list[JudgeVerdict]] = {}
    for one in verdicts:
        by_pair.setdefault(one.pair_id, []).append(one)
    asked_about = judged_pairs(design, pairs)
    names = [side.name for side in design.sides]
    return Judged(
        asked=asked,
        answers=len(verdicts),
        of=len(ORDERS) * len(asked_about),
        no_verdict=sum(one.opinion is None for one in verdicts),
        attested=bool(verdicts) and all(one.provenance.attested for one in verdicts if one.opinion),
        is_side=any(_same_model(asked, side.model) for side in design.sides),
        versus=tuple(
            JudgedVersus(one=later, other=earlier, lines=_lines(experiment, pairs, ballots, verdicts, later, earlier))
            for earlier, later in combinations(names, 2)
        ),
        pairs=tuple(
            _to_read(experiment, pair, ballots, by_pair[pair.id]) for pair in asked_about if pair.id in by_pair
        ),
    )


def all_judged(
    experiment: Experiment,
    pairs: Sequence[Pair],
    ballots: Sequence[CastBallot],
    judges: Sequence[tuple[AskedJudge, Sequence[JudgeVerdict]]],
) -> list[Judged]:
    """The same for each judge that was asked."""
    return [judged_of(experiment, pairs, ballots, asked, verdicts) for asked, verdicts in judges]


def judge_ballots(
    experiment: Experiment, pairs: Sequence[Pair], verdicts: Sequence[JudgeVerdict], question: str = "overall"
) -> list[Ballot]:
    """A judge's verdicts as ballots, one for each order; the reply that it read first stands left."""
    names = [side.name for side in experiment.design.sides]
    by_id = {pair.id: pair for pair in pairs}
    found = []
    for one in verdicts:
        said, planned = one.said(question), by_id[one.pair_id].planned
        if said is None:
            continue
        first, second = names[planned.left], names[planned.right]
        if one.order == "changed_over":
            first, second = second, first
        outcome = AS_READ[said.better]
        found.append(Ballot(voter=one.judge_id, prompt=str(planned.prompt), left=first, right=second, outcome=outcome))
    return found


def _lines(
    experiment: Experiment,
    pairs: Sequence[Pair],
    ballots: Sequence[CastBallot],
    verdicts: Sequence[JudgeVerdict],
    one: str,
    other: str,
) -> tuple[JudgedLine, ...]:
    found = []
    criteria: tuple[Question | None, ...] = (None, *experiment.design.criteria)
    for criterion in criteria:
        human = in_figures(experiment, pairs, ballots, criterion)
        judge = judge_ballots(experiment, pairs, verdicts, criterion or "overall")
        always_first = [ballot.model_copy(update={"outcome": "left"}) for ballot in judge]
        alpha = experiment.design.alpha
        found.append(
            JudgedLine(
                question=criterion or "overall",
                found=judge_agreement(human, judge, one, other, alpha=alpha),
                control=judge_agreement(human, always_first, one, other, alpha=alpha),
            )
        )
    return tuple(found)


def _same_model(asked: AskedJudge, model: str) -> bool:
    return not asked.judge.elsewhere and asked.judge.model == model


def _to_read(
    experiment: Experiment, pair: Pair, ballots: Sequence[CastBallot], verdicts: Sequence[JudgeVerdict]
) -> ReadPair:
    left, right = (experiment.design.sides[place].name for place in (pair.planned.left, pair.planned.right))
    winners: dict[Outcome, str] = {"left": left, "right": right, "tie": "tie", "both_bad": "both_bad"}
    votes = Counter(winners[one.form.outcome] for one in ballots if one.pair_id == pair.id)
    answers = []
    for one in sorted(verdicts, key=lambda verdict: ORDERS.index(verdict.order)):
        outcomes = {name: one.outcome(name) for name in (one.opinion.said if one.opinion else ())}
        said = [
            (name, said.reason, winners[outcome])
            for name, outcome in outcomes.items()
            if outcome and (said := one.said(name))
        ]
        answers.append(ReadAnswer(order=one.order, said=tuple(said), why_none=_why_none(one)))
    return ReadPair(
        asked=experiment.design.prompts[pair.planned.prompt][-1].text,
        replies=((left, pair.left.text), (right, pair.right.text)),
        votes=dict(votes),
        answers=tuple(answers),
    )


def _why_none(verdict: JudgeVerdict) -> str:
    if verdict.opinion:
        return ""
    if verdict.provenance.finish == "length":
        return "Its answer was cut off."
    if verdict.provenance.finish == "error":
        return "The two replies and the rules together were too long for it."
    return "Its answer could not be read."
