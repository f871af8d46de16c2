"""Comparisons of up to four sides over several turns, and all that a vote says."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for table, name in (("comparisons", "more"), ("comparisons", "later"), ("votes", "form")):
        op.add_column(table, sa.Column(name, sa.JSON(), nullable=True))
