"""Holds on a reply are found by their state, however many others are held."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_index("ix_leases_reply_id_person", "leases")
    op.create_index("ix_leases_reply_id_state", "leases", ["reply_id", "state", "person"])
