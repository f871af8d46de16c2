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
    sa.Column("made_at", Moment, nullable=False),
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
    sa.Column("severity", sa.String(16)),
    sa.Column("kind", sa.String(32)),
    sa.Column("spans", sa.JSON, nullable=False, server_default="[]"),
    sa.Column("charter_version", sa.Integer, nullable=False),
    sa.Column("reviewer", sa.String(200), nullable=False),
    sa.Column("route", sa.String(16), nullable=False, server_default="queue"),
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

# Everything anybody did about a reply, in order. What a reply stands at now is replayed from these (`annotation.acts`).
acts = sa.Table(
    "acts",
    metadata,
    *_numbered(),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), nullable=False, index=True),
    sa.Column("person", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("route", sa.String(16), nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("seconds", sa.Float),
    sa.Column("made_at", Moment, nullable=False),
    sa.Index("ix_acts_person_seq", "person", "seq"),
)

# One row a reply that can be judged: where it stands in the queue. A projection of `acts`, written with them.
tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("reply_id", sa.ForeignKey("turns.id"), primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False, unique=True),
    sa.Column("queue", sa.String(64), nullable=False),
    sa.Column("assignee", sa.String(200), nullable=False),
    sa.Column("skill", sa.String(64), nullable=False),
    sa.Column("rank", sa.BigInteger, nullable=False),
    sa.Column("overlap", sa.Integer, nullable=False),
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16)),
    sa.Column("agreement", sa.Float),
    sa.Column("flag_to", sa.String(200)),
    sa.Column("stale", sa.Boolean, nullable=False),
    sa.Index("ix_tasks_lane", "queue", "state", "assignee", "skill", "rank"),
    sa.Index("ix_tasks_state_agreement", "state", "agreement"),
    sa.Index("ix_tasks_outcome", "outcome"),
    sa.Index("ix_tasks_flag_to", "flag_to"),
)

# Who holds a reply, or has dealt with it. The id of a hold is the id of the act that will end it.
leases = sa.Table(
    "leases",
    metadata,
    *_numbered(),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), nullable=False),
    sa.Column("person", sa.String(200), nullable=False),
    sa.Column("route", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, nullable=False),
    sa.Index("ix_leases_reply_id_state", "reply_id", "state", "person"),
    sa.Index("ix_leases_person_state", "person", "state", "seq"),
    sa.Index("ix_leases_state_expires_at", "state", "expires_at"),
    sa.Index(
        "uq_leases_held",
        "reply_id",
        "person",
        unique=True,
        sqlite_where=sa.text("state = 'held'"),
        postgresql_where=sa.text("state = 'held'"),
    ),
)

# How far each person has come in each lane of a queue, so that the next one is found without passing the old ones.
cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("person", sa.String(200), primary_key=True),
    sa.Column("queue", sa.String(64), primary_key=True),
    sa.Column("skill", sa.String(64), primary_key=True),
    sa.Column("rank", sa.BigInteger, nullable=False),
)

# How many replies each person was dealt so far.
deals = sa.Table(
    "deals",
    metadata,
    sa.Column("person", sa.String(200), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
)

queues = sa.Table(
    "queues",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(64), nullable=False, index=True),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

golds = sa.Table(
    "golds",
    metadata,
    sa.Column("reply_id", sa.ForeignKey("turns.id"), primary_key=True),
    sa.Column("answers", sa.JSON, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

suggestions = sa.Table(
    "suggestions",
    metadata,
    *_numbered(),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), nullable=False, index=True),
    sa.Column("question", sa.String(16), nullable=False),
    sa.Column("value", sa.String(16), nullable=False),
    sa.Column("clause_ids", sa.JSON, nullable=False),
    sa.Column("spans", sa.JSON, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("score", sa.Float),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

candidates = sa.Table(
    "candidates",
    metadata,
    *_numbered(),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), nullable=False, index=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("provenance", sa.JSON, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

saved_views = sa.Table(
    "saved_views",
    metadata,
    *_numbered(),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.UniqueConstraint("owner", "name"),
)

batches = sa.Table(
    "batches",
    metadata,
    *_numbered(),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.Column("undone_by", sa.String(200)),
    sa.Column("undone_at", Moment),
)

batch_items = sa.Table(
    "batch_items",
    metadata,
    sa.Column("batch_id", sa.ForeignKey("batches.id"), primary_key=True),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), primary_key=True),
    sa.Column("queue", sa.String(64), nullable=False),
    sa.Column("assignee", sa.String(200), nullable=False),
    sa.Column("skill", sa.String(64), nullable=False),
    sa.Column("rank", sa.BigInteger, nullable=False),
    sa.Column("overlap", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
)

people = sa.Table(
    "people",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("skills", sa.JSON, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("password_hash", sa.String(200)),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("locked_until", Moment),
    sa.Column("made_at", Moment, nullable=False),
)

# A session's cookie, or a sign-in link, is known here by its hash only.
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_sha256", sa.String(64), primary_key=True),
    sa.Column("person", sa.ForeignKey("people.name"), nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, nullable=False),
)

# Keys of other programs: each known here by the hash of its secret only, its end, and when it was used last.
api_keys = sa.Table(
    "api_keys",
    metadata,
    *_numbered(),
    sa.Column("person", sa.ForeignKey("people.name"), nullable=False, index=True),
    sa.Column("name", sa.String(60), nullable=False),
    sa.Column("secret_sha256", sa.String(64), nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

api_key_ends = sa.Table(
    "api_key_ends",
    metadata,
    *_numbered(),
    sa.Column("key_id", sa.ForeignKey("api_keys.id"), nullable=False, unique=True),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

api_key_uses = sa.Table(
    "api_key_uses",
    metadata,
    sa.Column("key_id", sa.ForeignKey("api_keys.id"), primary_key=True),
    sa.Column("used_at", Moment, nullable=False),
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
    sa.Column("more", sa.JSON(none_as_null=True)),
    sa.Column("later", sa.JSON(none_as_null=True)),
    sa.Column("root", sa.String(64), index=True),
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
    sa.Column("form", sa.JSON(none_as_null=True)),
)

# Our datasets in Argilla. `cursor` tells how the answers there stood when all were pulled last, `acts_seq` the last act
# here that was shown there.
argilla_datasets = sa.Table(
    "argilla_datasets",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("workspace", sa.String(64), nullable=False),
    sa.Column("queue", sa.String(64), nullable=False),
    sa.Column("charter_version", sa.Integer, nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("questions", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("cursor", sa.String(40), nullable=False),
    sa.Column("acts_seq", sa.Integer, nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

# What each reply's record in Argilla is known to say, or why there is none.
argilla_records = sa.Table(
    "argilla_records",
    metadata,
    sa.Column("dataset_id", sa.ForeignKey("argilla_datasets.id"), primary_key=True),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), primary_key=True),
    sa.Column("record_id", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("rank", sa.BigInteger, nullable=False),
    sa.Column("suggested", sa.Integer, nullable=False),
    sa.Column("drafted", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Index("ix_argilla_records_dataset_id_state", "dataset_id", "state"),
)

# The newest form of each response that was pulled or shown there, and the act here that says the same. `said` is what
# it said when it was pulled, as Argilla had it: drafts too, and what our acts have no place for.
argilla_responses = sa.Table(
    "argilla_responses",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("dataset_id", sa.ForeignKey("argilla_datasets.id"), nullable=False),
    sa.Column("reply_id", sa.ForeignKey("turns.id"), nullable=False),
    sa.Column("person", sa.String(200), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("updated_at", sa.String(40), nullable=False),
    sa.Column("act_id", sa.String(64), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("said", sa.JSON(none_as_null=True)),
    sa.Index("ix_argilla_responses_dataset_id_reply_id", "dataset_id", "reply_id"),
)

# What each alias was pointed at, change by change, and the share of people who get the candidate.
alias_changes = sa.Table(
    "alias_changes",
    metadata,
    *_numbered(),
    sa.Column("alias", sa.String(16), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("adapter", sa.String(200)),
    sa.Column("weights_sha256", sa.String(64)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.UniqueConstraint("alias", "number"),
)

canary_changes = sa.Table(
    "canary_changes",
    metadata,
    *_numbered(),
    sa.Column("share", sa.Float, nullable=False),
    sa.Column("salt", sa.String(64), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

# What is frozen before the first vote, the replies drawn for it, and what people said about them.
experiments = sa.Table(
    "experiments",
    metadata,
    *_numbered(),
    sa.Column("name", sa.String(120), nullable=False, unique=True),
    sa.Column("design", sa.JSON, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

experiment_pairs = sa.Table(
    "experiment_pairs",
    metadata,
    *_numbered(),
    sa.Column("experiment_id", sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("planned", sa.JSON, nullable=False),
    sa.Column("left", sa.JSON, nullable=False),
    sa.Column("right", sa.JSON, nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.UniqueConstraint("experiment_id", "number"),
)

experiment_ends = sa.Table(
    "experiment_ends",
    metadata,
    *_numbered(),
    sa.Column("experiment_id", sa.ForeignKey("experiments.id"), nullable=False, unique=True),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

# Who saw the figures of an experiment while it was open, from when on they may not judge in it.
experiment_looks = sa.Table(
    "experiment_looks",
    metadata,
    *_numbered(),
    sa.Column("experiment_id", sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.UniqueConstraint("experiment_id", "author"),
)

ballots = sa.Table(
    "ballots",
    metadata,
    *_numbered(),
    sa.Column("pair_id", sa.ForeignKey("experiment_pairs.id"), nullable=False),
    sa.Column("voter", sa.String(200), nullable=False),
    sa.Column("form", sa.JSON, nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.UniqueConstraint("pair_id", "voter"),
)

# Models that were asked to judge an experiment, and what they said: never among the ballots.
judges = sa.Table(
    "judges",
    metadata,
    *_numbered(),
    sa.Column("experiment_id", sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("judge", sa.JSON, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.UniqueConstraint("experiment_id", "sha256"),
)

judge_verdicts = sa.Table(
    "judge_verdicts",
    metadata,
    *_numbered(),
    sa.Column("pair_id", sa.ForeignKey("experiment_pairs.id"), nullable=False),
    sa.Column("judge_id", sa.ForeignKey("judges.id"), nullable=False),
    sa.Column("order", sa.String(16), nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("opinion", sa.JSON(none_as_null=True)),
    sa.Column("asked_sha256", sa.String(64), nullable=False),
    sa.Column("provenance", sa.JSON, nullable=False),
    sa.Column("made_at", Moment, nullable=False),
    sa.UniqueConstraint("pair_id", "judge_id", "order"),
)

# What somebody stopped, and what they let go on again; the newest word about a piece of work counts.
work_halts = sa.Table(
    "work_halts",
    metadata,
    *_numbered(),
    sa.Column("work", sa.String(64), nullable=False, index=True),
    sa.Column("halted", sa.Boolean, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("made_at", Moment, nullable=False),
)

APPEND_ONLY = (
    "acts",
    "judgements",
    "corrections",
    "reactions",
    "votes",
    "experiments",
    "experiment_pairs",
    "experiment_looks",
    "experiment_ends",
    "ballots",
    "alias_changes",
    "canary_changes",
    "work_halts",
    "judges",
    "judge_verdicts",
    "api_keys",
    "api_key_ends",
)
"""Tables whose rows the database itself refuses to change or delete."""
