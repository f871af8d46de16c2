"""Connections to PostgreSQL that rested, or that somebody on the server closed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from annotation.store import Store, open_store, postgres

OTHERS = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid()"
)


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    opened = open_store(postgres_url)
    yield opened
    opened.close()


def close_all_connections(url: str) -> None:
    """As a server that was started anew, or a firewall, would."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as db:
        db.execute(OTHERS)
    engine.dispose()


def test_a_rested_connection_that_was_closed_is_replaced(
    store: Store, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.tasks.counts()
    close_all_connections(postgres_url)
    monkeypatch.setattr(postgres, "REST_SECONDS", 0.0)
    assert store.tasks.counts() == before


def test_one_that_was_just_used_is_not_asked(store: Store, postgres_url: str) -> None:
    store.tasks.counts()
    close_all_connections(postgres_url)
    with pytest.raises(sa.exc.OperationalError):
        store.tasks.counts()
    store.tasks.counts()  # all of them are replaced after one failed
