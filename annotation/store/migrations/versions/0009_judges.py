"""Models as judges of experiments, and what they said."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    _table("judges", _text("experiment_id", 64), _json("judge"), _text("sha256", 64), _text("author", 200))
    _table(
        "judge_verdicts",
        _text("pair_id", 64),
        _text("judge_id", 64),
        _text("order", 16),
        sa.Column("answer", sa.Text(), nullable=False),
        _json("opinion", nullable=True),
        _text("asked_sha256", 64),
        _json("provenance"),
    )
    sqlite = op.get_bind().dialect.name == "sqlite"
    for table in ("judges", "judge_verdicts"):
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


REFERENCES = {"experiment_id": "experiments.id", "pair_id": "experiment_pairs.id", "judge_id": "judges.id"}
ONCE = {"judges": ("experiment_id", "sha256"), "judge_verdicts": ("pair_id", "judge_id", "order")}


def _table(name: str, *columns: sa.Column) -> None:
    references = [(column.name, REFERENCES[column.name]) for column in columns if column.name in REFERENCES]
    op.create_table(
        name,
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        _text("id", 64),
        *columns,
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        *(sa.ForeignKeyConstraint([own], [target], name=op.f(f"fk_{name}_{own}")) for own, target in references),
        sa.PrimaryKeyConstraint("seq", name=op.f(f"pk_{name}")),
        sa.UniqueConstraint("id", name=op.f(f"uq_{name}_id")),
        sa.UniqueConstraint(*ONCE[name], name=op.f(f"uq_{name}_{'_'.join(ONCE[name])}")),
    )


def _text(name: str, length: int) -> sa.Column:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _json(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.JSON(), nullable=nullable)
