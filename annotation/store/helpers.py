"""What machines offer a reviewer: suggestions of checks and models, and drafts of better replies. Never judgements."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from annotation.charter import suggest
from annotation.store.part import Part, new_id
from annotation.store.tables import candidates, suggestions
from annotation.types import Charter, Frozen, Provenance, Question, Span, Value, utc_now

SUGGESTED, DRAFTED = (
    sa.select(table).where(table.c.reply_id == sa.bindparam("reply")).order_by(table.c.seq)
    for table in (suggestions, candidates)
)


class Suggestion(Frozen):
    """What a check or a model would say about a reply. Shown or hidden; it never counts as anybody's answer."""

    question: Question
    value: Value
    clause_ids: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    why: str = ""
    score: float | None = None
    """How sure its author is, 0 to 1; None where it can't say."""
    author: str
    """`check:<what>` or `model:<name>`."""


class Candidate(Frozen):
    """A reply that a model drafted to stand in for another one."""

    id: str
    text: str
    provenance: Provenance


class Helpers(Part):
    """Keep suggestions and drafts, and read them back."""

    def suggest(self, reply_id: str, author: str, given: Sequence[Suggestion]) -> None:
        """Replace what `author` suggested about a reply."""
        rows = [
            one.model_dump(mode="json") | {"id": new_id(), "reply_id": reply_id, "author": author, "made_at": utc_now()}
            for one in given
        ]
        with self._writer.begin() as db:
            db.execute(suggestions.delete().where(suggestions.c.reply_id == reply_id, suggestions.c.author == author))
            if rows:
                db.execute(suggestions.insert(), rows)

    def suggestions(self, reply_id: str) -> list[Suggestion]:
        """What is suggested about a reply."""
        with self._engine.connect() as db:
            return suggestions_of(db, reply_id)

    def add_candidate(self, reply_id: str, text: str, provenance: Provenance, author: str) -> Candidate:
        """Keep a draft; `author` is who asked for it."""
        candidate = Candidate(id=new_id(), text=text, provenance=provenance)
        row = candidate.model_dump(mode="json") | {"reply_id": reply_id, "author": author, "made_at": utc_now()}
        with self._writer.begin() as db:
            db.execute(candidates.insert().values(row))
        return candidate

    def candidates(self, reply_id: str) -> list[Candidate]:
        """The drafts for a reply, oldest first."""
        with self._engine.connect() as db:
            return candidates_of(db, reply_id)


def found_by_patterns(charter: Charter, reply: str) -> list[Suggestion]:
    """What the charter's own patterns find in a reply, one for each rule. Never kept: they follow from the charter."""
    return [
        Suggestion(
            question=one.question,
            value=one.value,
            clause_ids=(one.rule_id,),
            spans=one.spans,
            why=one.why,
            author="check:patterns",
        )
        for one in suggest(charter, reply)
    ]


def suggestions_of(db: sa.Connection, reply_id: str) -> list[Suggestion]:
    """What is suggested about a reply, within a transaction."""
    rows = db.execute(SUGGESTED, {"reply": reply_id}).mappings()
    return [Suggestion(**{key: row[key] for key in Suggestion.model_fields}) for row in rows]


def candidates_of(db: sa.Connection, reply_id: str) -> list[Candidate]:
    """The drafts for a reply, within a transaction."""
    rows = db.execute(DRAFTED, {"reply": reply_id}).mappings()
    return [Candidate(id=row["id"], text=row["text"], provenance=row["provenance"]) for row in rows]
