"""What is in Argilla: datasets, records, responses."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "argilla_datasets",
        _text("id", 64),
        _text("workspace", 64),
        _text("queue", 64),
        sa.Column("charter_version", sa.Integer(), nullable=False),
        _text("name", 200),
        sa.Column("questions", sa.JSON(), nullable=False),
        _text("state", 16),
        _text("cursor", 40),
        sa.Column("acts_seq", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_argilla_datasets")),
    )
    op.create_table(
        "argilla_records",
        _text("dataset_id", 64),
        _text("reply_id", 64),
        _text("record_id", 64),
        _text("state", 16),
        _text("sha256", 64),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("suggested", sa.Integer(), nullable=False),
        sa.Column("drafted", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", "reply_id", name=op.f("pk_argilla_records")),
        *_references("argilla_records"),
    )
    op.create_index("ix_argilla_records_dataset_id_state", "argilla_records", ["dataset_id", "state"])
    op.create_table(
        "argilla_responses",
        _text("id", 64),
        _text("dataset_id", 64),
        _text("reply_id", 64),
        _text("person", 200),
        _text("status", 16),
        _text("updated_at", 40),
        _text("act_id", 64),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_argilla_responses")),
        *_references("argilla_responses"),
    )
    op.create_index("ix_argilla_responses_dataset_id_reply_id", "argilla_responses", ["dataset_id", "reply_id"])


def _text(name: str, length: int) -> sa.Column:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _references(table: str) -> list[sa.Constraint]:
    return [
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["argilla_datasets.id"], name=op.f(f"fk_{table}_dataset_id")
        ),
        sa.ForeignKeyConstraint(["reply_id"], ["turns.id"], name=op.f(f"fk_{table}_reply_id")),
    ]
