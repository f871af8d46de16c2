"""What somebody stopped stays stopped over a restart."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "work_halts",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("work", sa.String(length=64), nullable=False),
        sa.Column("halted", sa.Boolean(), nullable=False),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_work_halts")),
        sa.UniqueConstraint("id", name=op.f("uq_work_halts_id")),
    )
    op.create_index(op.f("ix_work_halts_work"), "work_halts", ["work"])
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER work_halts_no_{action.lower()} BEFORE {action} ON work_halts "
                "BEGIN SELECT RAISE(ABORT, 'work_halts is append-only'); END"
            )
    else:
        op.execute(
            "CREATE TRIGGER work_halts_append_only BEFORE UPDATE OR DELETE ON work_halts "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
