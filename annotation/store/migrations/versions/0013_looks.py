"""Who saw the figures of an open experiment judges in it no more."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "experiment_looks",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("experiment_id", sa.String(length=64), nullable=False),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_experiment_looks_experiment_id_experiments")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_experiment_looks")),
        sa.UniqueConstraint("id", name=op.f("uq_experiment_looks_id")),
        sa.UniqueConstraint("experiment_id", "author", name=op.f("uq_experiment_looks_experiment_id_author")),
    )
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER experiment_looks_no_{action.lower()} BEFORE {action} ON experiment_looks "
                "BEGIN SELECT RAISE(ABORT, 'experiment_looks is append-only'); END"
            )
    else:
        op.execute(
            "CREATE TRIGGER experiment_looks_append_only BEFORE UPDATE OR DELETE ON experiment_looks "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
