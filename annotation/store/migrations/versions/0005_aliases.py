"""Which adapter is the candidate and which one customers get, and how many of them get the candidate."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = ("alias_changes", "canary_changes")


def upgrade() -> None:
    _table(
        "alias_changes",
        _text("alias", 16),
        sa.Column("number", sa.Integer(), nullable=False),
        _text("kind", 16),
        sa.Column("adapter", sa.String(length=200)),
        sa.Column("weights_sha256", sa.String(length=64)),
        sa.UniqueConstraint("alias", "number", name=op.f("uq_alias_changes_alias_number")),
    )
    _table("canary_changes", sa.Column("share", sa.Float(), nullable=False), _text("salt", 64))
    sqlite = op.get_bind().dialect.name == "sqlite"
    for table in TABLES:
        if sqlite:
            for action in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                )
        else:
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            )


def _table(name: str, *own: sa.Column | sa.UniqueConstraint) -> None:
    op.create_table(
        name,
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        _text("id", 64),
        *own,
        sa.Column("reason", sa.Text(), nullable=False),
        _text("author", 200),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f(f"pk_{name}")),
        sa.UniqueConstraint("id", name=op.f(f"uq_{name}_id")),
    )


def _text(name: str, length: int) -> sa.Column:
    return sa.Column(name, sa.String(length=length), nullable=False)
