"""The tables, as SQLAlchemy Core sees them. The migrations make them; a test holds the two against each other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(sa.TypeDecorator[datetime]):
    """An aware UTC datetime. SQLite forgets the zone, so it is put back on the way out."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _numbered() -> list[sa.Column[Any]]:
    """Insertion order (`seq`) beside a stable public id."""
    return [
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
    ]


charters = sa.Table(
    "charters",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

conversations = sa.Table(
    "conversations",
    metadata,
    *_numbered(),
    sa.Column("source", sa.String(200), nullable=False),
    sa.Column("external_id", sa.String(200)),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("language", sa.String(35)),
    sa.Column("head_id", sa.String(64)),
    sa.Column("created_at", Moment, nullable=False),
    sa.UniqueConstraint("source", "external_id"),
)

turns = sa.Table(
    "turns",
    metadata,
    *_numbered(),
    sa.Column("conversation_id", sa.ForeignKey("conversations.id"), nullable=False, index=True),
    sa.Column("parent_id", sa.String(64)),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("provenance", sa.JSON(none_as_null=True)),
    # 'waiting', 'reviewed' or 'skipped' for a reply, NULL for anybody else's turn. Derived from the acts below and
    # written in the same transaction, so that the next item is one index look-up however much is already judged.
    sa.Column("review_state", sa.String(16)),
    sa.Column("made_at", Moment, nullable=False),
    sa.Index("ix_turns_review_state_seq", "review_state", "seq"),
)

judgements = sa.Table(
    "judgements",
    metadata,
    *_numbered(),
    sa.Column("act_id", sa.String(64), nullable=False),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), nullable=False, index=True),
    sa.Column("question", sa.String(16), nullable=False),
    sa.Column("value", sa.String(16), nullable=False),
    sa.Column("clause_ids", sa.JSON, nullable=False),
    sa.Column("charter_version", sa.Integer, nullable=False),
    sa.Column("reviewer", sa.String(200), nullable=False),
    sa.Column("seconds", sa.Float),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.UniqueConstraint("act_id", "question"),
)

corrections = sa.Table(
    "corrections",
    metadata,
    *_numbered(),
    sa.Column("act_id", sa.String(64), nullable=False, unique=True),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), nullable=False, index=True),
    sa.Column("before", sa.Text, nullable=False),
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("reasons", sa.JSON, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

skips = sa.Table(
    "skips",
    metadata,
    *_numbered(),
    sa.Column("act_id", sa.String(64), nullable=False, unique=True),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), nullable=False, index=True),
    sa.Column("reviewer", sa.String(200), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

reactions = sa.Table(
    "reactions",
    metadata,
    *_numbered(),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), nullable=False, index=True),
    sa.Column("value", sa.String(8), nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

dataset_versions = sa.Table(
    "dataset_versions",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

comparisons = sa.Table(
    "comparisons",
    metadata,
    *_numbered(),
    sa.Column("prompt", sa.JSON, nullable=False),
    sa.Column("left", sa.JSON, nullable=False),
    sa.Column("right", sa.JSON, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

votes = sa.Table(
    "votes",
    metadata,
    *_numbered(),
    sa.Column("comparison_id", sa.ForeignKey("comparisons.id"), nullable=False, unique=True),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("voter", sa.String(200), nullable=False),
    sa.Column("seconds", sa.Float),
    sa.Column("made_at", Moment, nullable=False),
)

APPEND_ONLY = ("judgements", "corrections", "skips", "reactions", "votes")
"""Tables whose rows the database itself refuses to change or delete."""
