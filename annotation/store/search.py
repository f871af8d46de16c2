"""Find replies: filters, full-text search (SQLite FTS5 or PostgreSQL), and views that are kept under a name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import Field

from annotation.acts import Outcome, Settled, TaskState, replay
from annotation.errors import Conflict, NotFound, UserError
from annotation.provenance import how_settled, in_one_word
from annotation.store.history import acts_of
from annotation.store.part import Part, new_id
from annotation.store.tables import conversations, judgements, saved_views, tasks, turns
from annotation.types import Frozen, Question, Value, utc_now

PAGE = 50
INDEXED_CHARACTERS = 200_000
"""Longer texts are searchable by their first so many characters on PostgreSQL."""


class Filter(Frozen):
    """Which replies. What is None or empty does not narrow; what is given must all be true."""

    text: Annotated[str, Field(max_length=200)] = ""
    """Words that the conversation must have, in any order; "in quotes" as a phrase, a trailing * for a beginning.
    Capitals and accents do not matter.
    """
    state: TaskState | Literal["waiting", "reviewed", "flagged", "stale"] | None = None
    outcome: Outcome | None = None
    question: Question | None = None
    value: Value | None = None
    """Any answer to `question` (or to any question) that anybody gave."""
    clause: str | None = None
    """A rule that somebody found broken."""
    reviewer: str | None = None
    source: str | None = None
    language: str | None = None
    model: str | None = None
    """Base model or adapter that wrote the reply."""
    assignee: str | None = None
    queue: str | None = None


class Hit(Frozen):
    """One reply that was found."""

    reply_id: str
    position: int
    """Place in the order in which replies came in; the next page starts after the last one's."""
    text: str
    title: str
    source: str
    language: str | None
    state: str
    outcome: str | None
    agreement: float | None
    assignee: str
    skill: str
    queue: str
    overlap: int
    done: int
    flagged: bool
    how: Settled | None = None
    """How its answers came about; None where that was not asked for, or nobody answered."""


class View(Frozen):
    """A filter under a name."""

    id: str
    name: str
    owner: str
    filter: Filter


class Search(Part):
    """Find replies, and keep views."""

    def find(self, wanted: Filter, after: int = 0, limit: int = PAGE) -> list[Hit]:
        """The replies after place `after`, in the order in which they came in. Raises UserError for odd words."""
        columns = (
            tasks.c.reply_id,
            tasks.c.position,
            sa.func.substr(turns.c.text, 1, 400).label("text"),
            conversations.c.title,
            conversations.c.source,
            conversations.c.language,
            *(
                tasks.c[name]
                for name in ("state", "outcome", "agreement", "assignee", "skill", "queue", "overlap", "done")
            ),
            tasks.c.flag_to.is_not(None).label("flagged"),
        )
        query = (
            sa.select(*columns)
            .join(turns, turns.c.id == tasks.c.reply_id)
            .join(conversations, conversations.c.id == turns.c.conversation_id)
            .where(*self._conditions(wanted), tasks.c.position > after)
            .order_by(tasks.c.position)
            .limit(limit)
        )
        with self._engine.connect() as db:
            return [Hit.model_validate(dict(row)) for row in db.execute(query).mappings()]

    def with_how(self, hits: Sequence[Hit]) -> list[Hit]:
        """The same with `how`, of those that are judged; at most some hundreds at once."""
        judged = [hit.reply_id for hit in hits if hit.outcome]
        with self._engine.connect() as db:
            said = acts_of(db, judged) if judged else {}
        how = {reply_id: in_one_word(how_settled(replay(history))) for reply_id, history in said.items()}
        return [hit.model_copy(update={"how": how.get(hit.reply_id)}) for hit in hits]

    def count(self, wanted: Filter) -> int:
        """How many replies there are like that."""
        query = sa.select(sa.func.count()).select_from(self.matching(wanted).subquery())
        with self._engine.connect() as db:
            return db.scalar(query) or 0

    def matching(self, wanted: Filter) -> sa.Select[Any]:
        """A query for the ids of the replies, to build others on."""
        query = sa.select(tasks.c.reply_id)
        if wanted.source or wanted.language or wanted.text or wanted.model:
            query = query.join(turns, turns.c.id == tasks.c.reply_id)
            query = query.join(conversations, conversations.c.id == turns.c.conversation_id)
        return query.where(*self._conditions(wanted))

    def choices(self) -> dict[str, list[str]]:
        """What there is to filter by: sources, languages, models, reviewers, assignees."""
        columns = {
            "source": conversations.c.source,
            "language": conversations.c.language,
            "reviewer": judgements.c.reviewer,
            "assignee": tasks.c.assignee,
            "queue": tasks.c.queue,
        }
        with self._engine.connect() as db:
            return {
                name: [value for value in db.scalars(sa.select(column).distinct().order_by(column)) if value]
                for name, column in columns.items()
            }

    def _conditions(self, wanted: Filter) -> list[sa.ColumnElement[bool]]:
        found = [
            tasks.c[name] == getattr(wanted, name) for name in ("outcome", "assignee", "queue") if getattr(wanted, name)
        ]
        found += [
            conversations.c[name] == getattr(wanted, name) for name in ("source", "language") if getattr(wanted, name)
        ]
        if wanted.state:
            found.append(_in_state(wanted.state))
        if wanted.model:
            found.append(
                sa.or_(
                    turns.c.provenance["adapter"].as_string() == wanted.model,
                    turns.c.provenance["model"].as_string() == wanted.model,
                )
            )
        if wanted.question or wanted.value or wanted.clause or wanted.reviewer:
            found.append(tasks.c.reply_id.in_(_judged(wanted)))
        if wanted.text.strip():
            found += [turns.c.conversation_id.in_(self._with_word(word)) for word in words_of(wanted.text)]
        return found

    def _with_word(self, word: str) -> sa.Select[Any]:
        """The conversations that have it in one of their turns."""
        if self._engine.dialect.name == "sqlite":
            hits = sa.text("SELECT rowid FROM turns_text WHERE turns_text MATCH :match")
            hits = hits.bindparams(sa.bindparam("match", _fts5(word), unique=True))
            return sa.select(turns.c.conversation_id).where(
                turns.c.seq.in_(hits.columns(sa.column("rowid", sa.Integer)))
            )
        simple: sa.ColumnElement[str] = sa.literal_column("'simple'")
        plain = sa.func.without_accents
        beginning = sa.func.left(turns.c.text, sa.literal_column(str(INDEXED_CHARACTERS)))
        vector = sa.func.to_tsvector(simple, plain(beginning))
        if word.endswith("*"):
            query = sa.func.to_tsquery(simple, plain(_beginning(word)))
        else:  # cut into words by the same rules as the text was: 9.99, ana@shop.example
            query = sa.func.phraseto_tsquery(simple, plain(word))
        return sa.select(turns.c.conversation_id).where(vector.op("@@")(query))

    # Views

    def views(self) -> list[View]:
        """Everybody's views, by name."""
        with self._engine.connect() as db:
            rows = db.execute(sa.select(saved_views).order_by(saved_views.c.name)).mappings()
            return [View(id=row["id"], name=row["name"], owner=row["owner"], filter=row["body"]) for row in rows]

    def keep_view(self, name: str, owner: str, wanted: Filter) -> View:
        """Keep a filter under a name. Raises UserError without a name, Conflict for one that is taken."""
        if not name.strip():
            raise UserError("The view has no name.", do="Give it one, then save it.")
        view = View(id=new_id(), name=name.strip()[:100], owner=owner, filter=wanted)
        row = {"id": view.id, "name": view.name, "owner": owner, "made_at": utc_now()}
        try:
            with self._writer.begin() as db:
                db.execute(saved_views.insert().values(row | {"body": wanted.model_dump(exclude_defaults=True)}))
        except sa.exc.IntegrityError as error:
            raise Conflict(f"You have a view called '{view.name}' already.", do="Choose another name.") from error
        return view

    def drop_view(self, view_id: str, owner: str) -> None:
        """Remove one of one's own views. Raises NotFound."""
        with self._writer.begin() as db:
            mine = saved_views.c.id == view_id, saved_views.c.owner == owner
            if not db.execute(saved_views.delete().where(*mine)).rowcount:
                raise NotFound("That view is not yours, or is gone.")


def words_of(text: str) -> list[str]:
    """The words and "phrases in quotes" to look for; a trailing * stays with its word. Raises UserError for none."""
    text = text.replace("\0", " ")  # neither database takes it
    found = [
        (phrase or word).strip() + ("*" if word.endswith("*") else "")
        for phrase, word in re.findall(r'"([^"]*)"|([^\s"]+)', text)
    ]
    kept = [word for word in (re.sub(r"\*{2,}$", "*", one) for one in found) if re.search(r"\w", word)]
    if not kept:
        raise UserError(f"There is no word to look for in '{text}'.", do="Type a word that the conversation has.")
    return kept


def _fts5(word: str) -> str:
    """Quoted, so that nothing in it is an operator; the star stays outside the quotes."""
    star = "*" if word.endswith("*") else ""
    return '"' + word.rstrip("*").replace('"', '""') + '"' + star


def _beginning(word: str) -> str:
    """The words of a phrase for to_tsquery, the last one's beginning only; quoted, so that nothing is an operator."""
    parts = [f"'{part}'" for part in re.sub(r"['\\]", " ", word.rstrip("*")).split()]
    return " <-> ".join(parts) + ":*"


def _in_state(state: str) -> sa.ColumnElement[bool]:
    groups: dict[str, Sequence[str]] = {"waiting": ("open", "full"), "reviewed": ("done", "disputed")}
    if state == "flagged":
        return tasks.c.flag_to.is_not(None)
    if state == "stale":
        return tasks.c.stale
    return tasks.c.state.in_(groups.get(state, (state,)))


def _judged(wanted: Filter) -> sa.Select[Any]:
    query = sa.select(judgements.c.reply_id)
    for name in ("question", "value", "reviewer"):
        if given := getattr(wanted, name):
            query = query.where(judgements.c[name] == given)
    if wanted.clause:
        cited = sa.cast(judgements.c.clause_ids, sa.Text)
        query = query.where(cited.contains(f'"{wanted.clause}"', autoescape=True))
    return query
