"""Experiments: their designs, the pairs drawn for them, the ballots, and their ends."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = ("experiments", "experiment_pairs", "experiment_ends", "ballots")


def upgrade() -> None:
    _table("experiments", _text("name", 120), _json("design"), _text("sha256", 64), _text("author", 200), once=["name"])
    pair = (sa.Column("number", sa.Integer(), nullable=False), _json("planned"), _json("left"), _json("right"))
    _table("experiment_pairs", _of("experiment"), *pair, once=["experiment_id", "number"])
    reason = sa.Column("reason", sa.Text(), nullable=False)
    _table("experiment_ends", _of("experiment"), _text("author", 200), reason, once=["experiment_id"])
    _table("ballots", _of("pair"), _text("voter", 200), _json("form"), once=["pair_id", "voter"])
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


def _table(name: str, *columns: sa.Column, once: list[str]) -> None:
    references = {"experiment_id": "experiments.id", "pair_id": "experiment_pairs.id"}
    op.create_table(
        name,
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        _text("id", 64),
        *columns,
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.ForeignKeyConstraint([column.name], [target], name=op.f(f"fk_{name}_{column.name}"))
            for column in columns
            if (target := references.get(column.name))
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f(f"pk_{name}")),
        sa.UniqueConstraint("id", name=op.f(f"uq_{name}_id")),
        sa.UniqueConstraint(*once, name=op.f(f"uq_{name}_{'_'.join(once)}")),
    )


def _of(what: str) -> sa.Column:
    return _text(f"{what}_id", 64)


def _text(name: str, length: int) -> sa.Column:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _json(name: str) -> sa.Column:
    return sa.Column(name, sa.JSON(), nullable=False)
