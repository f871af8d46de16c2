"""Versions of the charter; a version never changes once it is written."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from annotation.errors import Conflict, NotFound
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

    def add(self, charter: Charter, author: str, based_on: int | None = None) -> Charter:
        """Keep `charter` as the next version, unless the newest one says the same; returns it with its number.

        Parameters
        ----------
        based_on: the version it was made from, 0 where there was none yet; None where that is not known.

        Raises Conflict if there is a newer version than `based_on`, or somebody keeps one at the same moment.
        """
        newest = self.current()
        if newest and _same(newest, charter):
            return newest
        number = newest.version if newest else 0
        if based_on not in (None, number):
            raise kept_meanwhile(self._author(number), number)
        kept = charter.model_copy(update={"version": number + 1})
        row = {"version": kept.version, "body": kept.model_dump(mode="json"), "author": author, "made_at": utc_now()}
        try:
            with self._writer.begin() as db:
                db.execute(charters.insert().values(row))
        except sa.exc.IntegrityError as error:
            quicker = self.get(kept.version)
            if _same(quicker, charter):
                return quicker
            raise kept_meanwhile(self._author(kept.version), kept.version) from error
        return kept

    def _author(self, version: int) -> str:
        with self._engine.connect() as db:
            return db.scalar(sa.select(charters.c.author).where(charters.c.version == version)) or "Somebody"


def kept_meanwhile(author: str, version: int) -> Conflict:
    """What to say to whoever would write over a version that they have not seen."""
    return Conflict(
        f"{author} kept version {version} while you were editing.",
        do=f"Your text is still here. Look at what changed in version {version}, put it into your text, and keep it "
        "again.",
    )


def _same(kept: Charter, charter: Charter) -> bool:
    return kept == charter.model_copy(update={"version": kept.version})
