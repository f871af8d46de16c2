"""What a response in Argilla said, as it had it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("argilla_responses", sa.Column("said", sa.JSON(), nullable=True))
