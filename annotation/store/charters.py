"""Versions of the charter; a version never changes once it is written."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from annotation.errors import NotFound
from annotation.store.part import Part, Writer
from annotation.store.tables import charters
from annotation.types import Charter, utc_now

NEWEST = sa.select(sa.func.max(charters.c.version))


class Charters(Part):
    """Read and add charter versions."""

    def __init__(self, engine: sa.Engine, writer: Writer) -> None:
        super().__init__(engine, writer)
        # A version never changes, and every save asks for the newest one: read each once.
        self._known: dict[int, Charter] = {}
        self._newest: int | None = None

    def current(self) -> Charter | None:
        """The newest version, or None if there is none yet."""
        with self._engine.connect() as db:
            self._newest = db.scalar(NEWEST)
        return self.get(self._newest) if self._newest else None

    def last_seen(self) -> Charter | None:
        """What `current` gave last, None if it gave nothing yet: for who is told if there is a newer one."""
        return self.get(self._newest) if self._newest else None

    def get(self, version: int) -> Charter:
        """One version. Raises NotFound."""
        if version not in self._known:
            with self._engine.connect() as db:
                body = db.scalar(sa.select(charters.c.body).where(charters.c.version == version))
            if body is None:
                raise NotFound(f"There is no charter version {version}.")
            self._known[version] = Charter.model_validate(body)
        return self._known[version]

    def all(self) -> list[Charter]:
        """All versions, oldest first."""
        with self._engine.connect() as db:
            bodies = db.scalars(sa.select(charters.c.body).order_by(charters.c.version))
            return [Charter.model_validate(body) for body in bodies]

    def cards(self) -> list[dict[str, Any]]:
        """`version`, `name`, `author` and `made_at` of all versions, newest first."""
        with self._engine.connect() as db:
            rows = db.execute(sa.select(charters).order_by(charters.c.version.desc())).mappings()
            return [
                {"version": row["version"], "name": row["body"]["name"]}
                | {"author": row["author"], "made_at": row["made_at"]}
                for row in rows
            ]

    def add(self, charter: Charter, author: str) -> Charter:
        """Keep `charter` as the next version, unless the newest one says the same; returns it with its number."""
        newest = self.current()
        number = newest.version + 1 if newest else 1
        kept = charter.model_copy(update={"version": number})
        if newest and newest == charter.model_copy(update={"version": newest.version}):
            return newest
        with self._writer.begin() as db:
            row = {"version": number, "body": kept.model_dump(mode="json"), "author": author, "made_at": utc_now()}
            db.execute(charters.insert().values(row))
        return kept
