"""How far the judgements can be trusted: agreement, and each reviewer's consistency and pace."""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass
from statistics import median

import numpy as np

from annotation.acts import QUESTIONS
from annotation.agreement import (
    Citation,
    ClauseAgreement,
    Figure,
    Pair,
    Table,
    gwet_ac1,
    krippendorff_alpha,
    per_clause,
    per_pair,
    raw_agreement,
)
from annotation.competence import (
    RUSHED_WEIGHT,
    dawid_skene,
    edit_distance,
    gold_accuracy,
    items_per_hour,
    rushed,
    self_consistency,
)
from annotation.people import Person
from annotation.store import Store
from annotation.types import Charter, Question
from studio.services.checks import outdated

LABELS = ("pass", "fail", "unsure", "not_applicable")
CHARACTERS_A_WORD = 6
"""With its blank; for the time a reply takes to read."""
SEED = 20260101
"""The same judgements always give the same intervals."""
ByReply = dict[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Agreement:
    """How far reviewers agree on one question."""

    question: Question
    alpha: Figure
    ac1: Figure
    raw: Figure
    pairs: tuple[Pair, ...]
    clauses: tuple[ClauseAgreement, ...]
    competence: dict[str, float | None]
    """Expected accuracy a reviewer, by Dawid & Skene; rushed answers weigh half."""
    caution: str
    """What to keep in mind about the competence, empty if nothing."""


@dataclass(frozen=True)
class ReviewerCard:
    """How one person judges."""

    name: str
    items: int
    per_hour: float | None
    rushed: int
    """Replies closed faster than they can be read."""
    edit: float | None
    """How much of a reply they change where they correct it: median, 0 to 1."""
    consistent: Figure
    right: Figure
    """On hidden checks."""
    competence: dict[Question, float | None]


class QualityService:
    """What the Agreement page and `tonesmith agreement` call, for one curator."""

    def __init__(self, store: Store, who: Person) -> None:
        self._store = store
        self._who = who

    def agreement(self, question: Question) -> Agreement:
        """Work out the figures of one question. Seconds for hundreds of thousands of answers."""
        self._who.must("curate")
        table, cited = self._table(question)
        rng = np.random.default_rng(SEED)
        consensus = dawid_skene(table)
        charter = self._store.charters.current()
        return Agreement(
            question=question,
            alpha=krippendorff_alpha(table, rng=rng),
            ac1=gwet_ac1(table, rng=rng),
            raw=raw_agreement(table, rng=rng),
            pairs=per_pair(table, rng=rng),
            clauses=per_clause(table, cited, _rules(charter, question), rng),
            competence=consensus.competence,
            caution=consensus.words,
        )

    def reviewers(self, agreements: dict[Question, Agreement]) -> list[ReviewerCard]:
        """Everybody who judged, by name; competence comes from `agreements`."""
        self._who.must("curate")
        seconds: dict[str, list[float]] = defaultdict(list)
        items: dict[str, int] = defaultdict(int)
        hasty: dict[str, int] = defaultdict(int)
        for reviewer, _, took, characters in self._store.figures.paces():
            items[reviewer] += 1
            hasty[reviewer] += rushed(took, characters // CHARACTERS_A_WORD)
            if took is not None:
                seconds[reviewer].append(took)
        edits: dict[str, list[float]] = defaultdict(list)
        for author, before, after in self._store.figures.edits():
            edits[author].append(edit_distance(before, after))
        repeats, checks = self._repeats_and_checks()
        return [
            ReviewerCard(
                name=name,
                items=items[name],
                per_hour=items_per_hour(seconds[name]),
                rushed=hasty[name],
                edit=median(edits[name]) if edits[name] else None,
                consistent=self_consistency(repeats[name].values()),
                right=gold_accuracy(checks[name].values()),
                competence={question: found.competence.get(name) for question, found in agreements.items()},
            )
            for name in sorted(items)
        ]

    def _repeats_and_checks(self) -> tuple[dict[str, ByReply], dict[str, ByReply]]:
        """For each reviewer, their two answers to a question or theirs and the right one, by reply."""
        repeats: dict[str, ByReply] = defaultdict(lambda: defaultdict(list))
        checks: dict[str, ByReply] = defaultdict(lambda: defaultdict(list))
        old = outdated(self._store)
        for question in QUESTIONS:
            for reviewer, reply_id, first, again in self._store.figures.repeats(question):
                repeats[reviewer][reply_id].append((first, again))
            for reviewer, reply_id, given, right in self._store.figures.checks(question):
                if question not in old.get(reply_id, ()):  # right by rules that are no longer in force
                    checks[reviewer][reply_id].append((given, right))
        return repeats, checks

    def _table(self, question: Question) -> tuple[Table, list[Citation]]:
        """The answers as numbers, read in a stream: some 20 bytes an answer stay in memory."""
        units: dict[str, int] = {}
        raters: dict[str, int] = {}
        unit, rater, value, weight = array("i"), array("i"), array("b"), array("f")
        cited: list[Citation] = []
        for answer in self._store.figures.answers(question):
            unit.append(units.setdefault(answer.reply_id, len(units)))
            rater.append(raters.setdefault(answer.reviewer, len(raters)))
            value.append(LABELS.index(answer.value))
            hasty = rushed(answer.seconds, answer.characters // CHARACTERS_A_WORD)
            weight.append(RUSHED_WEIGHT if hasty else 1.0)
            cited += [Citation(answer.reply_id, answer.reviewer, clause) for clause in answer.clause_ids]
        table = Table.from_codes(
            np.asarray(unit, np.int64),
            np.asarray(rater, np.int64),
            np.asarray(value, np.int64),
            units=tuple(units),
            raters=tuple(raters),
            labels=LABELS,
            weight=np.asarray(weight),
        )
        return table, cited


def _rules(charter: Charter | None, question: Question) -> tuple[str, ...]:
    return tuple(rule.id for rule in getattr(charter, question)) if charter else ()
