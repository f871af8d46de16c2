"""The engine's own tables, as its questions see them. What is in them is kept by triggers: see `schema`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Float, MetaData, String, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import TSVECTOR

_METADATA = MetaData()

RECORDS = Table(
    "argilla_search_records",
    _METADATA,
    Column("number", BigInteger, primary_key=True),
    Column("record_id", Uuid),
    Column("dataset_id", Uuid),
    Column("status", String),
    Column("external_id", String),
    Column("inserted_at", DateTime),
    Column("updated_at", DateTime),
)
"""One narrow row for each record, so that no answer has to read the records' texts."""
RESPONSES = Table(
    "argilla_search_responses",
    _METADATA,
    Column("record", BigInteger, primary_key=True),
    Column("user_id", Uuid, primary_key=True),
    Column("dataset_id", Uuid),
    Column("status", String),
)
SCOPES = Table(
    "argilla_search_scopes",
    _METADATA,
    Column("number", BigInteger, primary_key=True),
    Column("dataset_id", Uuid),
    Column("kind", String),
    Column("name", String),
)
"""What can be asked for in a dataset: `kind` is metadata, response, suggestion, score, agent or type; `name` that of
the metadata or the question."""
VALUES = Table(
    "argilla_search_values",
    _METADATA,
    Column("scope", BigInteger),
    Column("record", BigInteger),
    Column("user_id", Uuid),
    Column("number", Float),
    Column("text", Text),
)
"""One row for each value, several for a list; `number` is NULL where it is none, `user_id` but in a response."""
VECTORS = Table(
    "argilla_search_vectors",
    _METADATA,
    Column("number", BigInteger, primary_key=True),
    Column("vector_id", Uuid),
    Column("vector_settings_id", Uuid),
)
"""A vector gets a new number with each change, so whoever keeps a copy knows what is new."""
WORDS = Table(
    "argilla_search_words",
    _METADATA,
    Column("rowid", BigInteger, primary_key=True),
    Column("place", Text),
    Column("words", TSVECTOR),
)
"""Full text, several rows for a record: `rowid` is its number * SLOTS for all its texts, and one more for each field.
On SQLite it is an FTS5 table, whose texts are in a column `body`."""
SLOTS = 1024
"""More fields than that, and only a query over all of them sees the rest."""
