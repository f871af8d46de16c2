"""The store: the only SQL in the house. SQLite (WAL) by default, PostgreSQL by URL."""

from annotation.store.open import Store, open_store

__all__ = ["Store", "open_store"]
