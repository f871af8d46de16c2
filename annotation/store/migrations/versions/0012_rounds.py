"""Which comparisons belong together: those that go on from one another are revealed with the first vote on any."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("comparisons", sa.Column("root", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_comparisons_root"), "comparisons", ["root"])
