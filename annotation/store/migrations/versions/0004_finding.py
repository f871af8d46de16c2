"""Holds on a reply are found by their state, however many others are held; words without their accents (PostgreSQL)."""

import unicodedata

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_index("ix_leases_reply_id_person", "leases")
    op.create_index("ix_leases_reply_id_state", "leases", ["reply_id", "state", "person"])
    if op.get_bind().dialect.name == "postgresql":  # SQLite's index does without them from the start
        _without_accents()


def _without_accents() -> None:
    """The extension that does this is not installed everywhere."""
    letters, bare = _letters()
    op.execute(
        "CREATE FUNCTION without_accents(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS "
        f"$$ SELECT translate($1, '{letters}', '{bare}') $$"
    )
    op.execute("DROP INDEX ix_turns_text")
    op.execute(
        "CREATE INDEX ix_turns_text ON turns USING gin (to_tsvector('simple', without_accents(left(text, 200000))))"
    )


def _letters() -> tuple[str, str]:
    """Latin letters with a mark on them and the same without; after these the marks alone, which go away."""
    pairs = {}
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)):
        base = unicodedata.normalize("NFD", chr(code))[0]
        if base != chr(code) and base.isascii() and base.isalpha():
            pairs[chr(code)] = base
    marks = "".join(chr(code) for code in range(0x300, 0x370))
    return "".join(pairs) + marks, "".join(pairs.values())
