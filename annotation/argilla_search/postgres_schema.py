"""The index on PostgreSQL: tsvector under GIN for words, plain tables for the rest; no extension is needed."""

from __future__ import annotations

import hashlib
import string

from sqlalchemy.ext.asyncio import AsyncConnection

from .tables import SLOTS

GAP = "zqgapqz"
"""Between two texts, and taken out again: it leaves a hole, so no phrase runs from one message into the next."""
PUNCTUATION = string.punctuation
"""Read as blanks, in texts and queries: PostgreSQL's parser would take a.b for a host and a/b for a file."""
BEGIN = ("BEGIN", "SELECT pg_advisory_xact_lock(7310471)")  # any number, as long as it is always this one
DROPS = (
    *(
        f"DROP FUNCTION IF EXISTS argilla_search_{name} CASCADE"
        for name in ("record", "response", "suggestion", "vector")
    ),
    "DROP FUNCTION IF EXISTS argilla_search_dataset CASCADE",
    *(
        f"DROP TABLE IF EXISTS argilla_search_{name} CASCADE"
        for name in ("records", "responses", "scopes", "values", "vectors", "words")
    ),
)
TABLES = (
    """CREATE TABLE argilla_search_records (
        number BIGSERIAL PRIMARY KEY, record_id UUID NOT NULL UNIQUE, dataset_id UUID NOT NULL, status VARCHAR,
        external_id VARCHAR, inserted_at TIMESTAMP, updated_at TIMESTAMP)""",
    """CREATE TABLE argilla_search_responses (
        record BIGINT NOT NULL, user_id UUID NOT NULL, dataset_id UUID NOT NULL, status VARCHAR,
        PRIMARY KEY (record, user_id))""",
    """CREATE TABLE argilla_search_scopes (
        number BIGSERIAL PRIMARY KEY, dataset_id UUID NOT NULL, kind VARCHAR NOT NULL, name VARCHAR NOT NULL,
        UNIQUE (dataset_id, kind, name))""",
    """CREATE TABLE argilla_search_values (
        scope BIGINT NOT NULL, record BIGINT NOT NULL, user_id UUID, number DOUBLE PRECISION, text TEXT)""",
    """CREATE TABLE argilla_search_vectors (
        number BIGSERIAL PRIMARY KEY, vector_id UUID NOT NULL UNIQUE, vector_settings_id UUID NOT NULL)""",
    "CREATE TABLE argilla_search_words (rowid BIGINT PRIMARY KEY, place TEXT NOT NULL, words TSVECTOR)",
    "CREATE INDEX argilla_search_status ON argilla_search_records (dataset_id, status)",
    "CREATE INDEX argilla_search_user ON argilla_search_responses (user_id, dataset_id, status)",
    # A hash: a text may be longer than a B-tree takes.
    "CREATE INDEX argilla_search_text ON argilla_search_values (scope, md5(text), record)",
    "CREATE INDEX argilla_search_number ON argilla_search_values (scope, number, record)",
    "CREATE INDEX argilla_search_record ON argilla_search_values (record, scope)",
    "CREATE INDEX argilla_search_settings ON argilla_search_vectors (vector_settings_id)",
    "CREATE INDEX argilla_search_place ON argilla_search_words (place)",
    "CREATE INDEX argilla_search_gin ON argilla_search_words USING gin (words)",
)
FUNCTIONS = (
    # A JSON column takes a NUL that JSONB and texts refuse: without this, the engine would refuse what Argilla takes.
    r"""CREATE OR REPLACE FUNCTION argilla_search_json(given JSON) RETURNS JSONB LANGUAGE plpgsql AS $$
    BEGIN
        RETURN given::JSONB;
    EXCEPTION WHEN untranslatable_character THEN
        RETURN regexp_replace(given::TEXT, '\\u0000', ' ', 'g')::JSONB;
    END $$""",
    f"""CREATE OR REPLACE FUNCTION argilla_search_vector_of(given TEXT) RETURNS TSVECTOR LANGUAGE plpgsql AS $$
    DECLARE plain TEXT := translate(lower(given), $p${PUNCTUATION}$p$, repeat(' ', {len(PUNCTUATION)}));
    BEGIN
        RETURN ts_delete(to_tsvector('simple', plain), '{GAP}');
    EXCEPTION WHEN program_limit_exceeded THEN  -- a megabyte of words: what is left out cannot be found
        RETURN ts_delete(to_tsvector('simple', left(plain, 200000)), '{GAP}');
    END $$""",
    f"""CREATE OR REPLACE FUNCTION argilla_search_put_words(of_number BIGINT, of_dataset UUID, given JSON)
    RETURNS VOID LANGUAGE plpgsql AS $$
    DECLARE inside JSONB := argilla_search_json(given);
    BEGIN
        DELETE FROM argilla_search_words
            WHERE rowid BETWEEN of_number * {SLOTS} AND of_number * {SLOTS} + {SLOTS - 1};
        INSERT INTO argilla_search_words (rowid, place, words)
        WITH texts AS (
            SELECT f.name, f.slot, f.fields, string_agg(part #>> '{{}}', ' {GAP} ') AS body
            FROM (
                SELECT name, row_number() OVER (ORDER BY inserted_at, id) AS slot, count(*) OVER () AS fields
                FROM fields WHERE dataset_id = of_dataset AND settings->>'type' <> 'image') AS f
            LEFT JOIN LATERAL jsonb_path_query(inside -> f.name, '$.** ? (@.type() == "string")') AS part ON TRUE
            GROUP BY f.name, f.slot, f.fields)
        SELECT of_number * {SLOTS}, replace(of_dataset::TEXT, '-', '') || 'x',
            coalesce(argilla_search_vector_of(string_agg(body, ' {GAP} ')), '') FROM texts
        UNION ALL
        SELECT of_number * {SLOTS} + slot,
            replace(of_dataset::TEXT, '-', '') || 'x' || encode(convert_to(name, 'UTF8'), 'hex'),
            coalesce(argilla_search_vector_of(body), '') FROM texts WHERE fields > 1 AND slot < {SLOTS};
    END $$""",
    """CREATE OR REPLACE FUNCTION argilla_search_put(
        of_dataset UUID, of_kind TEXT, of_name TEXT, of_record BIGINT, of_user UUID, given JSONB)
    RETURNS VOID LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO argilla_search_scopes (dataset_id, kind, name)
            SELECT of_dataset, of_kind, of_name WHERE NOT EXISTS (
                SELECT 1 FROM argilla_search_scopes
                WHERE dataset_id = of_dataset AND kind = of_kind AND name = of_name)
            ON CONFLICT DO NOTHING;
        INSERT INTO argilla_search_values (scope, record, user_id, number, text)
            SELECT s.number, of_record, of_user,
                CASE jsonb_typeof(item) WHEN 'number' THEN (item #>> '{}')::DOUBLE PRECISION END, item #>> '{}'
            FROM argilla_search_scopes AS s, jsonb_path_query(given, '$[*]') AS item
            WHERE s.dataset_id = of_dataset AND s.kind = of_kind AND s.name = of_name
                AND jsonb_typeof(item) IN ('string', 'number', 'boolean');
    END $$""",
    """CREATE OR REPLACE FUNCTION argilla_search_put_metadata(of_number BIGINT, of_dataset UUID, given JSON)
    RETURNS VOID LANGUAGE plpgsql AS $$
    DECLARE inside JSONB := argilla_search_json(given);
    BEGIN
        DELETE FROM argilla_search_values WHERE record = of_number
            AND scope IN (SELECT number FROM argilla_search_scopes WHERE dataset_id = of_dataset AND kind = 'metadata');
        IF jsonb_typeof(inside) = 'object' THEN
            PERFORM argilla_search_put(of_dataset, 'metadata', item.key, of_number, NULL, item.value)
                FROM jsonb_each(inside) AS item;
        END IF;
    END $$""",
    """CREATE OR REPLACE FUNCTION argilla_search_put_response(given RESPONSES) RETURNS VOID LANGUAGE plpgsql AS $$
    DECLARE
        row argilla_search_records;
        inside JSONB := argilla_search_json(given.values);
    BEGIN
        SELECT * INTO row FROM argilla_search_records WHERE record_id = given.record_id;
        DELETE FROM argilla_search_values WHERE record = row.number AND user_id = given.user_id;
        INSERT INTO argilla_search_responses (record, user_id, dataset_id, status)
            SELECT row.number, given.user_id, row.dataset_id, given.status::TEXT WHERE row.number IS NOT NULL
            ON CONFLICT (record, user_id) DO UPDATE SET status = EXCLUDED.status;
        PERFORM argilla_search_put(row.dataset_id, 'response', name, row.number, given.user_id,
                inside -> name -> 'value')
            FROM questions WHERE dataset_id = row.dataset_id AND inside ? name
                AND settings->>'type' IN ('rating', 'label_selection', 'multi_label_selection');
    END $$""",
    """CREATE OR REPLACE FUNCTION argilla_search_put_suggestion(given SUGGESTIONS) RETURNS VOID LANGUAGE plpgsql AS $$
    DECLARE
        row argilla_search_records;
        asked questions;
    BEGIN
        SELECT * INTO row FROM argilla_search_records WHERE record_id = given.record_id;
        SELECT * INTO asked FROM questions WHERE id = given.question_id;
        DELETE FROM argilla_search_values WHERE record = row.number AND user_id IS NULL AND scope IN (
            SELECT number FROM argilla_search_scopes WHERE dataset_id = row.dataset_id AND name = asked.name
                AND kind IN ('suggestion', 'score', 'agent', 'type'));
        IF asked.settings->>'type' IN ('rating', 'label_selection', 'multi_label_selection') THEN
            PERFORM argilla_search_put(row.dataset_id, 'suggestion', asked.name, row.number, NULL,
                argilla_search_json(given.value));
        END IF;
        PERFORM argilla_search_put(row.dataset_id, kind, asked.name, row.number, NULL, item)
            FROM (VALUES ('score', given.score::JSONB), ('agent', to_jsonb(given.agent)),
                ('type', to_jsonb(given.type::TEXT))) AS part (kind, item) WHERE item IS NOT NULL;
    END $$""",
    f"""CREATE OR REPLACE FUNCTION argilla_search_record() RETURNS TRIGGER LANGUAGE plpgsql AS $$
    DECLARE of_number BIGINT;
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO argilla_search_records (record_id, dataset_id, status, external_id, inserted_at, updated_at)
                VALUES (NEW.id, NEW.dataset_id, NEW.status::TEXT, NEW.external_id, NEW.inserted_at, NEW.updated_at)
                RETURNING number INTO of_number;
        ELSIF TG_OP = 'UPDATE' THEN
            UPDATE argilla_search_records SET status = NEW.status::TEXT, external_id = NEW.external_id,
                inserted_at = NEW.inserted_at, updated_at = NEW.updated_at WHERE record_id = NEW.id
                RETURNING number INTO of_number;
        ELSE
            DELETE FROM argilla_search_records WHERE record_id = OLD.id RETURNING number INTO of_number;
            DELETE FROM argilla_search_words
                WHERE rowid BETWEEN of_number * {SLOTS} AND of_number * {SLOTS} + {SLOTS - 1};
            DELETE FROM argilla_search_values WHERE record = of_number;
            DELETE FROM argilla_search_responses WHERE record = of_number;
            RETURN NULL;
        END IF;
        IF TG_OP = 'INSERT' OR NEW.fields::TEXT IS DISTINCT FROM OLD.fields::TEXT THEN
            PERFORM argilla_search_put_words(of_number, NEW.dataset_id, NEW.fields);
        END IF;
        IF TG_OP = 'INSERT' OR NEW.metadata::TEXT IS DISTINCT FROM OLD.metadata::TEXT THEN
            PERFORM argilla_search_put_metadata(of_number, NEW.dataset_id, NEW.metadata);
        END IF;
        RETURN NULL;
    END $$""",
    """CREATE OR REPLACE FUNCTION argilla_search_response() RETURNS TRIGGER LANGUAGE plpgsql AS $$
    DECLARE of_number BIGINT;
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            SELECT number INTO of_number FROM argilla_search_records WHERE record_id = OLD.record_id;
            DELETE FROM argilla_search_responses WHERE record = of_number AND user_id = OLD.user_id;
            DELETE FROM argilla_search_values WHERE record = of_number AND user_id = OLD.user_id;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            PERFORM argilla_search_put_response(NEW);
        END IF;
        RETURN NULL;
    END $$""",
    """CREATE OR REPLACE FUNCTION argilla_search_suggestion() RETURNS TRIGGER LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            DELETE FROM argilla_search_values AS v USING argilla_search_records AS r, argilla_search_scopes AS s,
                questions AS q
            WHERE r.record_id = OLD.record_id AND v.record = r.number AND v.user_id IS NULL AND s.number = v.scope
                AND q.id = OLD.question_id AND s.name = q.name AND s.kind IN ('suggestion', 'score', 'agent', 'type');
        END IF;
        IF TG_OP <> 'DELETE' THEN
            PERFORM argilla_search_put_suggestion(NEW);
        END IF;
        RETURN NULL;
    END $$""",
    """CREATE OR REPLACE FUNCTION argilla_search_vector() RETURNS TRIGGER LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            DELETE FROM argilla_search_vectors WHERE vector_id = OLD.id;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO argilla_search_vectors (vector_id, vector_settings_id) VALUES (NEW.id, NEW.vector_settings_id);
        END IF;
        RETURN NULL;
    END $$""",
    """CREATE OR REPLACE FUNCTION argilla_search_dataset() RETURNS TRIGGER LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM argilla_search_scopes WHERE dataset_id = OLD.id;
        RETURN NULL;
    END $$""",
)
TRIGGERS = {
    f"argilla_search_{table}": f"CREATE TRIGGER argilla_search_{table} AFTER {events} ON {table} "
    f"FOR EACH ROW EXECUTE FUNCTION argilla_search_{table[:-1]}()"
    for table, events in {
        "records": "INSERT OR UPDATE OR DELETE",
        "responses": "INSERT OR UPDATE OR DELETE",
        "suggestions": "INSERT OR UPDATE OR DELETE",
        "vectors": "INSERT OR UPDATE OR DELETE",
        "datasets": "DELETE",
    }.items()
}
MARK = hashlib.sha256("".join((*TABLES, *FUNCTIONS, *TRIGGERS.values())).encode()).hexdigest()
"""Kept as a comment in the database: which state of this file made it."""
BUILD = (*TABLES, *FUNCTIONS, *TRIGGERS.values(), f"COMMENT ON TABLE argilla_search_records IS '{MARK}'")
FILL = (
    """INSERT INTO argilla_search_records (record_id, dataset_id, status, external_id, inserted_at, updated_at)
        SELECT id, dataset_id, status::TEXT, external_id, inserted_at, updated_at FROM records
        ORDER BY inserted_at, id""",
    """SELECT count(argilla_search_put_words(r.number, r.dataset_id, records.fields)),
        count(argilla_search_put_metadata(r.number, r.dataset_id, records.metadata))
        FROM argilla_search_records AS r JOIN records ON records.id = r.record_id""",
    "SELECT count(argilla_search_put_response(responses)) FROM responses",
    "SELECT count(argilla_search_put_suggestion(suggestions)) FROM suggestions",
    """INSERT INTO argilla_search_vectors (vector_id, vector_settings_id)
        SELECT id, vector_settings_id FROM vectors ORDER BY inserted_at, id""",
    # The planner knows nothing of tables that were filled a moment ago.
    *(f"ANALYZE argilla_search_{name}" for name in ("records", "responses", "scopes", "values", "vectors", "words")),
)


async def is_whole(db: AsyncConnection) -> bool:
    """Whether it is as this file says, and no trigger is off."""
    made = await db.exec_driver_sql("SELECT obj_description(to_regclass('argilla_search_records'), 'pg_class')")
    if made.scalar() != MARK:
        return False
    found = await db.exec_driver_sql(
        "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'argilla\\_search\\_%' AND tgenabled <> 'D'"
    )
    return set(found.scalars()) == set(TRIGGERS)
