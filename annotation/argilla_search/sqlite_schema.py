"""The index on SQLite: FTS5 for words, plain tables for the rest, kept by triggers in Argilla's own transactions."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from .tables import SLOTS

GAP = " \ue000 "
"""Between two texts: a token of its own, so that no phrase runs from one message into the next."""
TEXT_FIELDS = "json_extract(settings, '$.type') <> 'image'"
QUESTIONS = "('rating', 'label_selection', 'multi_label_selection')"
"""Those whose answers Argilla filters and sorts by."""

TABLES = {
    "argilla_search_records": """CREATE TABLE argilla_search_records (
        number INTEGER PRIMARY KEY, record_id CHAR(32) NOT NULL UNIQUE, dataset_id CHAR(32) NOT NULL, status VARCHAR,
        external_id VARCHAR, inserted_at DATETIME, updated_at DATETIME)""",
    "argilla_search_responses": """CREATE TABLE argilla_search_responses (
        record INTEGER NOT NULL, user_id CHAR(32) NOT NULL, dataset_id CHAR(32) NOT NULL, status VARCHAR,
        PRIMARY KEY (record, user_id)) WITHOUT ROWID""",
    "argilla_search_scopes": """CREATE TABLE argilla_search_scopes (
        number INTEGER PRIMARY KEY, dataset_id CHAR(32) NOT NULL, kind VARCHAR NOT NULL, name VARCHAR NOT NULL,
        UNIQUE (dataset_id, kind, name))""",
    "argilla_search_values": """CREATE TABLE argilla_search_values (
        scope INTEGER NOT NULL, record INTEGER NOT NULL, user_id CHAR(32), number REAL, text TEXT)""",
    "argilla_search_vectors": """CREATE TABLE argilla_search_vectors (
        number INTEGER PRIMARY KEY AUTOINCREMENT, vector_id CHAR(32) NOT NULL UNIQUE,
        vector_settings_id CHAR(32) NOT NULL)""",
    "argilla_search_words": """CREATE VIRTUAL TABLE argilla_search_words USING fts5 (
        place, body, tokenize = "unicode61 remove_diacritics 0")""",
}
INDEXES = {
    name: f"CREATE INDEX {name} ON {columns}"
    for name, columns in {
        "argilla_search_status": "argilla_search_records (dataset_id, status)",
        "argilla_search_user": "argilla_search_responses (user_id, dataset_id, status)",
        "argilla_search_text": "argilla_search_values (scope, text, record, user_id)",
        "argilla_search_number": "argilla_search_values (scope, number, record, user_id)",
        "argilla_search_record": "argilla_search_values (record, scope, user_id, number, text)",
        "argilla_search_settings": "argilla_search_vectors (vector_settings_id)",
    }.items()
}

_OLD = "(SELECT number FROM argilla_search_records WHERE record_id = old.id)"
_OLD_OF = "(SELECT number FROM argilla_search_records WHERE record_id = old.record_id)"
_VALUE = """CASE item.type WHEN 'integer' THEN item.atom WHEN 'real' THEN item.atom END,
    CASE WHEN item.type IN ('true', 'false') THEN item.type ELSE CAST(item.atom AS TEXT) END"""


def _values(kind: str, names: str, items: str, record: str, user: str = "NULL") -> str:
    """Remember kind and name, then each value. `names` is a FROM clause that gives `n.name`, `items` what json_each
    is called with for such a name."""
    source = f"FROM argilla_search_records AS r, {names} AS n"
    return f"""
    INSERT INTO argilla_search_scopes (dataset_id, kind, name)
        SELECT DISTINCT r.dataset_id, '{kind}', n.name {source}
        WHERE r.record_id = {record} AND n.name IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM argilla_search_scopes AS s
            WHERE s.dataset_id = r.dataset_id AND s.kind = '{kind}' AND s.name = n.name);
    INSERT INTO argilla_search_values (scope, record, user_id, number, text)
        SELECT s.number, r.number, {user}, {_VALUE}
        {source}, argilla_search_scopes AS s, json_each({items}) AS item
        WHERE r.record_id = {record} AND s.dataset_id = r.dataset_id AND s.kind = '{kind}' AND s.name = n.name
            AND item.atom IS NOT NULL;"""


_WORDS = f"""
    INSERT INTO argilla_search_words (rowid, place, body)
        SELECT r.number * {SLOTS}, new.dataset_id || 'x', (
            SELECT group_concat(part.atom, '{GAP}')
            FROM fields AS f, json_tree(new.fields, '$."' || f.name || '"') AS part
            WHERE f.dataset_id = new.dataset_id AND {TEXT_FIELDS} AND part.type = 'text')
        FROM argilla_search_records AS r WHERE r.record_id = new.id;
    INSERT INTO argilla_search_words (rowid, place, body)
        SELECT r.number * {SLOTS} + f.slot, new.dataset_id || 'x' || lower(hex(f.name)), (
            SELECT group_concat(part.atom, '{GAP}') FROM json_tree(new.fields, '$."' || f.name || '"') AS part
            WHERE part.type = 'text')
        FROM argilla_search_records AS r, (
            SELECT name, row_number() OVER (ORDER BY inserted_at, id) AS slot, count(*) OVER () AS fields FROM fields
            WHERE dataset_id = new.dataset_id AND {TEXT_FIELDS}) AS f
        WHERE r.record_id = new.id AND f.fields > 1 AND f.slot < {SLOTS};"""
_FORGET_WORDS = f"""
    DELETE FROM argilla_search_words
        WHERE rowid BETWEEN {_OLD} * {SLOTS} AND {_OLD} * {SLOTS} + {SLOTS - 1};"""
_METADATA = _values(
    "metadata",
    "(SELECT key AS name FROM json_each(new.metadata))",
    """new.metadata, '$."' || n.name || '"'""",
    "new.id",
)
_FORGET_METADATA = f"""
    DELETE FROM argilla_search_values WHERE record = {_OLD}
        AND scope IN (SELECT number FROM argilla_search_scopes WHERE kind = 'metadata');"""
_RESPONSE = """
    INSERT INTO argilla_search_responses (record, user_id, dataset_id, status)
        SELECT number, new.user_id, dataset_id, new.status FROM argilla_search_records
        WHERE record_id = new.record_id;""" + _values(
    "response",
    f"""(SELECT q.name FROM records JOIN questions AS q ON q.dataset_id = records.dataset_id
            WHERE records.id = new.record_id AND json_extract(q.settings, '$.type') IN {QUESTIONS})""",
    """new."values", '$."' || n.name || '".value'""",
    "new.record_id",
    "new.user_id",
)
_FORGET_RESPONSE = f"""
    DELETE FROM argilla_search_responses WHERE record = {_OLD_OF} AND user_id = old.user_id;
    DELETE FROM argilla_search_values WHERE record = {_OLD_OF} AND user_id = old.user_id;"""
_ASKED = "(SELECT name FROM questions WHERE id = new.question_id)"
_CHOSEN = _ASKED.replace(")", f" AND json_extract(settings, '$.type') IN {QUESTIONS})")
_SUGGESTION = (
    _values("suggestion", _CHOSEN, "new.value", "new.record_id")
    + _values("score", _ASKED, "new.score", "new.record_id")
    + _values("agent", _ASKED, "json_quote(new.agent)", "new.record_id")
    + _values("type", _ASKED, "json_quote(new.type)", "new.record_id")
)
_FORGET_SUGGESTION = f"""
    DELETE FROM argilla_search_values WHERE record = {_OLD_OF} AND user_id IS NULL AND scope IN (
        SELECT s.number FROM argilla_search_scopes AS s JOIN questions AS q
        ON q.dataset_id = s.dataset_id AND q.name = s.name
        WHERE q.id = old.question_id AND s.kind IN ('suggestion', 'score', 'agent', 'type'));"""
_VECTOR = """
    INSERT INTO argilla_search_vectors (vector_id, vector_settings_id) VALUES (new.id, new.vector_settings_id);"""
_FORGET_VECTOR = """
    DELETE FROM argilla_search_vectors WHERE vector_id = old.id;"""
_ROW = """
    INSERT INTO argilla_search_records (record_id, dataset_id, status, external_id, inserted_at, updated_at)
        VALUES (new.id, new.dataset_id, new.status, new.external_id, new.inserted_at, new.updated_at);"""


def _trigger(name: str, event: str, table: str, *body: str) -> str:
    return f"CREATE TRIGGER {name} AFTER {event} ON {table} BEGIN{''.join(body)}\nEND"


TRIGGERS = {
    name: _trigger(name, *rest)
    for name, rest in {
        "argilla_search_records_in": ("INSERT", "records", _ROW, _WORDS, _METADATA),
        "argilla_search_records_fields": ("UPDATE OF fields", "records", _FORGET_WORDS, _WORDS),
        "argilla_search_records_metadata": ("UPDATE OF metadata", "records", _FORGET_METADATA, _METADATA),
        "argilla_search_records_rest": (
            "UPDATE OF status, external_id, inserted_at, updated_at",
            "records",
            """
    UPDATE argilla_search_records SET status = new.status, external_id = new.external_id,
        inserted_at = new.inserted_at, updated_at = new.updated_at WHERE record_id = new.id;""",
        ),
        "argilla_search_records_out": (
            "DELETE",
            "records",
            _FORGET_WORDS,
            f"""
    DELETE FROM argilla_search_values WHERE record = {_OLD};
    DELETE FROM argilla_search_responses WHERE record = {_OLD};
    DELETE FROM argilla_search_records WHERE record_id = old.id;""",
        ),
        "argilla_search_responses_in": ("INSERT", "responses", _RESPONSE),
        "argilla_search_responses_new": ("UPDATE", "responses", _FORGET_RESPONSE, _RESPONSE),
        "argilla_search_responses_out": ("DELETE", "responses", _FORGET_RESPONSE),
        "argilla_search_suggestions_in": ("INSERT", "suggestions", _SUGGESTION),
        "argilla_search_suggestions_new": ("UPDATE", "suggestions", _FORGET_SUGGESTION, _SUGGESTION),
        "argilla_search_suggestions_out": ("DELETE", "suggestions", _FORGET_SUGGESTION),
        "argilla_search_vectors_in": ("INSERT", "vectors", _VECTOR),
        "argilla_search_vectors_new": ("UPDATE", "vectors", _FORGET_VECTOR, _VECTOR),
        "argilla_search_vectors_out": ("DELETE", "vectors", _FORGET_VECTOR),
        "argilla_search_datasets_out": (
            "DELETE",
            "datasets",
            "\n    DELETE FROM argilla_search_scopes WHERE dataset_id = old.id;",
        ),
    }.items()
}
_EVERYTHING = TABLES | INDEXES | TRIGGERS
BEGIN = ("BEGIN IMMEDIATE",)
DROPS = (
    *(f"DROP TRIGGER IF EXISTS {name}" for name in TRIGGERS),
    *(f"DROP TABLE IF EXISTS {name}" for name in TABLES),
)
BUILD = tuple(_EVERYTHING.values())
FILL = (
    """INSERT INTO argilla_search_records (record_id, dataset_id, status, external_id, inserted_at, updated_at)
        SELECT id, dataset_id, status, external_id, inserted_at, updated_at FROM records ORDER BY inserted_at, id""",
    # The triggers do the rest: they must say the same as they would have said at the time.
    "UPDATE records SET fields = fields, metadata = metadata",
    'UPDATE responses SET "values" = "values"',
    "UPDATE suggestions SET value = value",
    "UPDATE vectors SET value = value",
)


async def is_whole(db: AsyncConnection) -> bool:
    """Whether all of it is there, word for word as here."""
    found = await db.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE name LIKE 'argilla\\_search\\_%' ESCAPE '\\'"
    )
    there = {row.name: row.sql for row in found}
    return all(there.get(name) == sql for name, sql in _EVERYTHING.items())
