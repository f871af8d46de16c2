"""The review desk: people, queue, leases and acts; full-text search."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    _people()
    _acts()
    _queue()
    _help()
    _batches()
    _judgements()
    _carry_over(postgresql)
    if postgresql:
        _postgresql()
    else:
        _sqlite()


def _numbered() -> list[sa.Column]:
    return [
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
    ]


def _keys(table: str, *references: str) -> list[sa.Constraint]:
    return [
        sa.PrimaryKeyConstraint("seq", name=op.f(f"pk_{table}")),
        sa.UniqueConstraint("id", name=op.f(f"uq_{table}_id")),
        *[
            sa.ForeignKeyConstraint([column], ["turns.id"], name=op.f(f"fk_{table}_{column}"))
            for column in references
        ],
    ]


def _moment(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, length: int, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.String(length=length), nullable=nullable)


def _people() -> None:
    op.create_table(
        "people",
        _text("name", 64),
        _text("role", 16),
        sa.Column("skills", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        _text("password_hash", 200, nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        _moment("locked_until", nullable=True),
        _moment("made_at"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_people")),
    )
    op.create_table(
        "sessions",
        _text("token_sha256", 64),
        _text("person", 64),
        _text("kind", 16),
        _moment("made_at"),
        _moment("expires_at"),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_sessions")),
        sa.ForeignKeyConstraint(["person"], ["people.name"], name=op.f("fk_sessions_person")),
    )
    op.create_index(op.f("ix_sessions_person"), "sessions", ["person"])


def _acts() -> None:
    op.create_table(
        "acts",
        *_numbered(),
        _text("reply_id", 64),
        _text("person", 200),
        _text("kind", 16),
        _text("route", 16),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        _moment("made_at"),
        *_keys("acts", "reply_id"),
    )
    op.create_index(op.f("ix_acts_reply_id"), "acts", ["reply_id"])
    op.create_index("ix_acts_person_seq", "acts", ["person", "seq"])


def _queue() -> None:
    op.create_table(
        "tasks",
        _text("reply_id", 64),
        sa.Column("position", sa.BigInteger(), nullable=False),
        _text("queue", 64),
        _text("assignee", 200),
        _text("skill", 64),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        _text("state", 16),
        _text("outcome", 16, nullable=True),
        sa.Column("agreement", sa.Float(), nullable=True),
        _text("flag_to", 200, nullable=True),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("reply_id", name=op.f("pk_tasks")),
        sa.UniqueConstraint("position", name=op.f("uq_tasks_position")),
        sa.ForeignKeyConstraint(["reply_id"], ["turns.id"], name=op.f("fk_tasks_reply_id")),
    )
    op.create_index("ix_tasks_lane", "tasks", ["queue", "state", "assignee", "skill", "rank"])
    op.create_index("ix_tasks_state_agreement", "tasks", ["state", "agreement"])
    op.create_index("ix_tasks_outcome", "tasks", ["outcome"])
    op.create_index("ix_tasks_flag_to", "tasks", ["flag_to"])
    op.create_table(
        "leases",
        *_numbered(),
        _text("reply_id", 64),
        _text("person", 200),
        _text("route", 16),
        _text("state", 16),
        _moment("made_at"),
        _moment("expires_at"),
        *_keys("leases", "reply_id"),
    )
    op.create_index("ix_leases_reply_id_person", "leases", ["reply_id", "person", "state"])
    op.create_index("ix_leases_person_state", "leases", ["person", "state", "seq"])
    op.create_index("ix_leases_state_expires_at", "leases", ["state", "expires_at"])
    held = sa.text("state = 'held'")
    op.create_index(
        "uq_leases_held", "leases", ["reply_id", "person"], unique=True, sqlite_where=held, postgresql_where=held
    )
    op.create_table(
        "cursors",
        _text("person", 200),
        _text("queue", 64),
        _text("skill", 64),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("person", "queue", "skill", name=op.f("pk_cursors")),
    )
    op.create_table(
        "deals",
        _text("person", 200),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("person", name=op.f("pk_deals")),
    )
    op.create_table(
        "queues",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        _text("name", 64),
        sa.Column("body", sa.JSON(), nullable=False),
        _text("author", 200),
        _moment("made_at"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_queues")),
    )
    op.create_index(op.f("ix_queues_name"), "queues", ["name"])
    op.create_table(
        "golds",
        _text("reply_id", 64),
        sa.Column("answers", sa.JSON(), nullable=False),
        _text("author", 200),
        _moment("made_at"),
        sa.PrimaryKeyConstraint("reply_id", name=op.f("pk_golds")),
        sa.ForeignKeyConstraint(["reply_id"], ["turns.id"], name=op.f("fk_golds_reply_id")),
    )


def _help() -> None:
    op.create_table(
        "suggestions",
        *_numbered(),
        _text("reply_id", 64),
        _text("question", 16),
        _text("value", 16),
        sa.Column("clause_ids", sa.JSON(), nullable=False),
        sa.Column("spans", sa.JSON(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        _text("author", 200),
        _moment("made_at"),
        *_keys("suggestions", "reply_id"),
    )
    op.create_index(op.f("ix_suggestions_reply_id"), "suggestions", ["reply_id"])
    op.create_table(
        "candidates",
        *_numbered(),
        _text("reply_id", 64),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        _text("author", 200),
        _moment("made_at"),
        *_keys("candidates", "reply_id"),
    )
    op.create_index(op.f("ix_candidates_reply_id"), "candidates", ["reply_id"])
    op.create_table(
        "saved_views",
        *_numbered(),
        _text("name", 100),
        _text("owner", 200),
        sa.Column("body", sa.JSON(), nullable=False),
        _moment("made_at"),
        *_keys("saved_views"),
        sa.UniqueConstraint("owner", "name", name=op.f("uq_saved_views_owner_name")),
    )


def _batches() -> None:
    op.create_table(
        "batches",
        *_numbered(),
        sa.Column("body", sa.JSON(), nullable=False),
        _text("author", 200),
        sa.Column("size", sa.Integer(), nullable=False),
        _moment("made_at"),
        _text("undone_by", 200, nullable=True),
        _moment("undone_at", nullable=True),
        *_keys("batches"),
    )
    op.create_table(
        "batch_items",
        _text("batch_id", 64),
        _text("reply_id", 64),
        _text("queue", 64),
        _text("assignee", 200),
        _text("skill", 64),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        _text("state", 16),
        sa.PrimaryKeyConstraint("batch_id", "reply_id", name=op.f("pk_batch_items")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_batch_items_batch_id")),
        sa.ForeignKeyConstraint(["reply_id"], ["turns.id"], name=op.f("fk_batch_items_reply_id")),
    )


def _judgements() -> None:
    op.add_column("judgements", _text("severity", 16, nullable=True))
    op.add_column("judgements", _text("kind", 32, nullable=True))
    op.add_column("judgements", sa.Column("spans", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("judgements", sa.Column("route", sa.String(length=16), nullable=False, server_default="queue"))


def _carry_over(postgresql: bool) -> None:
    """Acts, holds and tasks out of what the first schema kept."""
    op.execute(
        "INSERT INTO acts (id, reply_id, person, kind, route, body, seconds, made_at) "
        "SELECT act_id, MIN(reply_id), MIN(person), MIN(kind), MIN(route), MIN(body), MAX(seconds), MIN(made_at) "
        "FROM (SELECT act_id, reply_id, reviewer AS person, 'review' AS kind, 'queue' AS route, '{}' AS body, "
        "seconds, made_at FROM judgements "
        "UNION ALL SELECT act_id, reply_id, author, 'review', "
        "CASE origin WHEN 'starter' THEN 'import' WHEN 'import' THEN 'import' WHEN 'chat' THEN 'search' "
        "ELSE 'queue' END, '{}', NULL, made_at FROM corrections) AS said GROUP BY act_id ORDER BY MIN(made_at)"
        if not postgresql
        else "INSERT INTO acts (id, reply_id, person, kind, route, body, seconds, made_at) "
        "SELECT act_id, MIN(reply_id), MIN(person), MIN(kind), MIN(route), CAST('{}' AS JSON), MAX(seconds), "
        "MIN(made_at) FROM (SELECT act_id, reply_id, reviewer AS person, 'review' AS kind, 'queue' AS route, "
        "seconds, made_at FROM judgements "
        "UNION ALL SELECT act_id, reply_id, author, 'review', "
        "CASE origin WHEN 'starter' THEN 'import' WHEN 'import' THEN 'import' WHEN 'chat' THEN 'search' "
        "ELSE 'queue' END, CAST(NULL AS FLOAT), made_at FROM corrections) AS said GROUP BY act_id "
        "ORDER BY MIN(made_at)"
    )
    build = "json_build_object('text', reason)" if postgresql else "json_object('text', reason)"
    op.execute(
        "INSERT INTO acts (id, reply_id, person, kind, route, body, seconds, made_at) "
        f"SELECT act_id, reply_id, reviewer, 'skip', 'queue', {build}, NULL, made_at FROM skips ORDER BY seq"
    )
    op.execute(
        "INSERT INTO leases (id, reply_id, person, route, state, made_at, expires_at) "
        "SELECT id, reply_id, person, route, 'done', made_at, made_at FROM acts ORDER BY seq"
    )
    corrected = "EXISTS (SELECT 1 FROM corrections WHERE corrections.reply_id = turns.id)"
    said = "SELECT 1 FROM judgements WHERE judgements.reply_id = turns.id AND value"
    failed, unsure = f"EXISTS ({said} = 'fail')", f"EXISTS ({said} = 'unsure')"
    answered = "(SELECT COUNT(DISTINCT question) FROM judgements WHERE judgements.reply_id = turns.id) = 3"
    op.execute(
        "INSERT INTO tasks (reply_id, position, queue, assignee, skill, rank, overlap, done, state, outcome, stale) "
        "SELECT id, seq, 'main', '', '', seq, 1, CASE review_state WHEN 'reviewed' THEN 1 ELSE 0 END, "
        "CASE review_state WHEN 'waiting' THEN 'open' WHEN 'reviewed' THEN 'done' ELSE 'skipped' END, "
        f"CASE WHEN review_state <> 'reviewed' THEN NULL WHEN {corrected} THEN 'corrected' "
        f"WHEN {failed} THEN 'failed' WHEN {unsure} THEN 'unsure' WHEN {answered} THEN 'approved' ELSE 'partial' END, "
        f"{'false' if postgresql else '0'} "
        "FROM turns WHERE review_state IS NOT NULL"
    )
    op.drop_table("skips")
    op.drop_index("ix_turns_review_state_seq", table_name="turns")
    op.drop_column("turns", "review_state")


def _sqlite() -> None:
    for action in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER acts_no_{action.lower()} BEFORE {action} ON acts "
            "BEGIN SELECT RAISE(ABORT, 'acts is append-only'); END"
        )
    op.execute(
        "CREATE VIRTUAL TABLE turns_text USING fts5(text, content='turns', content_rowid='seq', "
        "tokenize='unicode61 remove_diacritics 2')"
    )
    op.execute("INSERT INTO turns_text (rowid, text) SELECT seq, text FROM turns")
    op.execute(
        "CREATE TRIGGER turns_text_insert AFTER INSERT ON turns "
        "BEGIN INSERT INTO turns_text (rowid, text) VALUES (new.seq, new.text); END"
    )


def _postgresql() -> None:
    op.execute(
        "CREATE TRIGGER acts_append_only BEFORE UPDATE OR DELETE ON acts "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    # A word of more than 2 kB can't be indexed, and a text of more than 1 MB can't either: cut both before.
    op.execute("CREATE INDEX ix_turns_text ON turns USING gin (to_tsvector('simple', left(text, 200000)))")
