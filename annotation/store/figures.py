"""Judgements as rows for the figures: who answered what about which reply, and in what time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa

from annotation.acts import COUNTED
from annotation.store.part import Part
from annotation.store.tables import acts, corrections, golds, judgements, turns
from annotation.types import Question

FETCHED = 20_000
BEGINNING = 200
"""Characters by which people know a reply again."""


class Answer(NamedTuple):
    """One reviewer's answer to one question about one reply."""

    reply_id: str
    reviewer: str
    value: str
    clause_ids: list[str]
    seconds: float | None
    """How long the reply was open."""
    characters: int
    """Of the reply."""


class Figures(Part):
    """Read what agreement, competence and pace are worked out from. Everything comes in pieces, never all at once."""

    def answers(self, question: Question, routes: frozenset[str] = COUNTED) -> Iterator[Answer]:
        """The newest answer of each reviewer about each reply, a reply's answers together.

        Only what stands: nothing that was taken back, and nothing that was asked anew since.
        """
        query = (
            _standing(
                judgements.c.reply_id,
                judgements.c.reviewer,
                judgements.c.value,
                judgements.c.clause_ids,
                judgements.c.seconds,
                sa.func.length(turns.c.text),
                replaced_too=True,  # by what counts: somebody who settled a reply has judged it for themselves before
            )
            .join(turns, turns.c.id == judgements.c.reply_id)
            .where(judgements.c.question == question, judgements.c.route.in_(routes))
            .order_by(judgements.c.reply_id, judgements.c.seq)
        )
        newest: dict[str, Answer] = {}
        reply_id = None
        for row in self._rows(query):
            if row[0] != reply_id:
                yield from newest.values()
                newest, reply_id = {}, row[0]
            newest[row[1]] = Answer(*row)
        yield from newest.values()

    def repeats(self, question: Question) -> Iterator[tuple[str, str, str, str]]:
        """(reviewer, reply, first answer, answer at the repeat) of replies that came to somebody a second time."""
        again = judgements.alias()
        query = (
            sa.select(judgements.c.reviewer, judgements.c.value, again.c.value, judgements.c.reply_id)
            .join(
                again,
                sa.and_(
                    again.c.reply_id == judgements.c.reply_id,
                    again.c.reviewer == judgements.c.reviewer,
                    again.c.question == judgements.c.question,
                ),
            )
            .where(
                judgements.c.question == question,
                judgements.c.route == "queue",
                again.c.route == "repeat",
                judgements.c.act_id.not_in(_undone()),
                again.c.act_id.not_in(_undone()),
            )
            .order_by(judgements.c.seq.desc(), again.c.seq)  # the first answer against the newest repeat
        )
        newest = {(row[0], row[3]): (row[0], row[3], row[1], row[2]) for row in self._rows(query)}
        yield from newest.values()

    def checks(self, question: Question) -> Iterator[tuple[str, str, str, str]]:
        """(reviewer, reply, their answer, the right answer) of hidden checks."""
        query = (
            sa.select(judgements.c.reviewer, judgements.c.value, golds.c.answers, judgements.c.reply_id)
            .join(golds, golds.c.reply_id == judgements.c.reply_id)
            .where(
                judgements.c.question == question,
                judgements.c.route == "gold",
                judgements.c.act_id.not_in(_undone()),
            )
            .order_by(judgements.c.seq)
        )
        newest = {(row[0], row[3]): row for row in self._rows(query)}
        for row in newest.values():
            if question in row[2]:
                yield row[0], row[3], row[1], row[2][question]

    def paces(self) -> Iterator[tuple[str, str, float | None, int]]:
        """(reviewer, reply, seconds it was open, characters of the reply) of every review that stands."""
        query = (
            sa.select(acts.c.person, acts.c.reply_id, acts.c.seconds, sa.func.length(turns.c.text))
            .join(turns, turns.c.id == acts.c.reply_id)
            .where(acts.c.kind == "review", acts.c.route.in_(COUNTED - {"import"}), acts.c.id.not_in(_undone()))
        )
        for row in self._rows(query):
            yield row[0], row[1], row[2], row[3]

    def edits(self) -> Iterator[tuple[str, str, str]]:
        """(author, before, after) of every correction that stands."""
        query = sa.select(corrections.c.author, corrections.c.before, corrections.c.after).where(
            corrections.c.act_id.not_in(_undone())
        )
        for row in self._rows(query):
            yield row[0], row[1], row[2]

    def cited(self, before: int) -> list[tuple[Question, str, tuple[str, ...], int, int]]:
        """(question, value, clauses, charter version, how many) of the different answers that stand and were given
        under a charter before version `before`.
        """
        clauses = sa.cast(judgements.c.clause_ids, sa.Text)
        columns = (judgements.c.question, judgements.c.value, clauses, judgements.c.charter_version)
        query = _standing(*columns, sa.func.count()).where(judgements.c.charter_version < before).group_by(*columns)
        with self._engine.connect() as db:
            return [(row[0], row[1], tuple(json.loads(row[2])), row[3], row[4]) for row in db.execute(query)]

    def given_by(
        self, question: Question, value: str, clause_ids: tuple[str, ...], version: int
    ) -> list[tuple[str, str]]:
        """(reply, reviewer) of the standing answers that are exactly this."""
        columns = judgements.c.reply_id, judgements.c.reviewer
        query = _exactly(_standing(*columns), question, value, clause_ids, version)
        with self._engine.connect() as db:
            return [(row[0], row[1]) for row in db.execute(query.distinct())]

    def answers_with(
        self, question: Question, value: str, clause_ids: tuple[str, ...], version: int, limit: int
    ) -> list[tuple[str, str, str]]:
        """(reply, reviewer, beginning of the reply) of the first `limit` standing answers that are exactly this."""
        columns = (judgements.c.reply_id, judgements.c.reviewer, sa.func.substr(turns.c.text, 1, BEGINNING))
        query = _exactly(_standing(*columns), question, value, clause_ids, version)
        query = query.join(turns, turns.c.id == judgements.c.reply_id).order_by(judgements.c.seq).limit(limit)
        with self._engine.connect() as db:
            return [(row[0], row[1], row[2]) for row in db.execute(query)]

    def _rows(self, query: sa.Select[Any]) -> Iterator[Any]:
        with self._in_transactions.connect().execution_options(yield_per=FETCHED) as db:
            for part in db.execute(query).partitions():
                yield from part


def _exactly(
    query: sa.Select[Any], question: Question, value: str, clause_ids: tuple[str, ...], version: int
) -> sa.Select[Any]:
    return query.where(
        judgements.c.question == question,
        judgements.c.value == value,
        judgements.c.charter_version == version,
        sa.cast(judgements.c.clause_ids, sa.Text) == json.dumps(list(clause_ids)),
    )


def _undone() -> sa.Select[Any]:
    return sa.select(acts.c.body["undoes"].as_string()).where(acts.c.kind == "undo")


def _standing(*columns: Any, replaced_too: bool = False) -> sa.Select[Any]:
    """Answers that were not taken back, nor (without `replaced_too`) replaced by their author, and whose question was
    not asked anew since.
    """
    asked = acts.alias()
    given = acts.alias()
    anew = (
        sa.exists()
        .where(
            asked.c.reply_id == judgements.c.reply_id,
            asked.c.kind == "requeue",
            asked.c.seq > given.c.seq,
            asked.c.body["questions"].as_string().like(sa.literal('%"') + judgements.c.question + '"%'),
            sa.func.coalesce(asked.c.body["of"].as_string(), judgements.c.reviewer) == judgements.c.reviewer,
        )
        .correlate(judgements, given)
    )
    newer = judgements.alias()
    replaced = (
        sa.exists()
        .where(
            newer.c.reply_id == judgements.c.reply_id,
            newer.c.reviewer == judgements.c.reviewer,
            newer.c.question == judgements.c.question,
            newer.c.seq > judgements.c.seq,
            newer.c.route.in_((*COUNTED, "adjudication")),
            newer.c.act_id.not_in(_undone()),
        )
        .correlate(judgements)
    )
    return (
        sa.select(*columns)
        .join(given, given.c.id == judgements.c.act_id)
        .where(judgements.c.act_id.not_in(_undone()), ~anew, *(() if replaced_too else (~replaced,)))
    )
