"""Nearest vectors by cosine, from a copy of the database's vectors that is brought up to date before each answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

import numpy as np
from argilla_server.models import Vector, VectorSettings
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from .tables import RECORDS, VECTORS

BATCH = 1000
MOST_SETTINGS = 8
"""Copies kept in memory at a time, 4 bytes for each number."""
FEW = 2000
"""As many records as this are scored one by one; of more, the nearest are looked at first."""
Hit = tuple[UUID, float]


@dataclass(frozen=True)
class Vectors:
    """The vectors of one kind. Scores are Elasticsearch's: (1 + cosine) / 2, from 0 to 1 for the same direction."""

    marks: NDArray[np.int64]
    """For each row the number of its vector, which a change makes anew."""
    records: NDArray[np.int64]
    """For each row the number of its record."""
    units: NDArray[np.float32]

    _kept: ClassVar[dict[UUID, Vectors]] = {}
    _lock: ClassVar[asyncio.Lock] = asyncio.Lock()

    @classmethod
    async def of(cls, db: AsyncSession, settings: VectorSettings) -> Vectors:
        """The copy, as the database is now."""
        async with cls._lock:
            kept = cls._kept.pop(settings.id, None) or cls._none(settings.dimensions)
            cls._kept[settings.id] = await kept._refreshed(db, settings.id)  # the last asked for is the last to go
            while len(cls._kept) > MOST_SETTINGS:
                del cls._kept[next(iter(cls._kept))]
            return cls._kept[settings.id]

    @classmethod
    def _none(cls, dimensions: int) -> Vectors:
        nothing = np.empty(0, dtype=np.int64)
        return cls(nothing, nothing, np.empty((0, dimensions), dtype=np.float32))

    async def nearest(self, db: AsyncSession, vector: Sequence[float], among: Any, most: int) -> list[Hit]:
        """The best first; `among` selects the numbers of the records that count, None for all."""
        if len(vector) != self.units.shape[1]:
            return []
        scores = self._scores(vector)
        if among is not None:
            few = (await db.scalars(among.limit(FEW + 1))).all()
            if len(few) <= FEW:
                rows = np.flatnonzero(np.isin(self.records, np.asarray(few, dtype=np.int64)))
                return await self._hits(db, rows[_best(scores[rows], most)], scores)
        return await self._walk(db, scores, among, most)

    async def _walk(self, db: AsyncSession, scores: NDArray[np.float64], among: Any, most: int) -> list[Hit]:
        """Look at ever more of the nearest until enough of them count."""
        look = most if among is None else 4 * most
        while True:
            rows = _best(scores, look)
            if among is not None:
                numbers = [int(number) for number in self.records[rows]]
                counted: set[int] = set()
                for start in range(0, len(numbers), BATCH):
                    some = numbers[start : start + BATCH]
                    counted.update(await db.scalars(among.where(RECORDS.c.number.in_(some))))
                rows = rows[np.isin(self.records[rows], np.asarray(sorted(counted), dtype=np.int64))]
            if len(rows) >= most or look >= len(scores):
                return await self._hits(db, rows[:most], scores)
            look *= 4

    async def _hits(self, db: AsyncSession, rows: NDArray[np.int64], scores: NDArray[np.float64]) -> list[Hit]:
        numbers = [int(number) for number in self.records[rows]]
        found: dict[int, UUID] = {}
        for start in range(0, len(numbers), BATCH):
            some = RECORDS.c.number.in_(numbers[start : start + BATCH])
            found |= {row.number: row.record_id for row in await db.execute(select(RECORDS).where(some))}
        pairs = zip(numbers, rows, strict=True)
        return [(found[number], float(scores[row])) for number, row in pairs if number in found]

    def _scores(self, vector: Sequence[float]) -> NDArray[np.float64]:
        unit = _unit(np.asarray([vector], dtype=np.float64))[0].astype(np.float32)
        scores: NDArray[np.float64] = (1 + np.clip(self.units @ unit, -1, 1).astype(np.float64)) / 2
        return scores

    async def _refreshed(self, db: AsyncSession, settings: UUID) -> Vectors:
        """With what is new, without what is gone. Numbers may appear out of turn, so the sum of them is looked at."""
        of_settings = VECTORS.c.vector_settings_id == settings
        state = select(func.count(), func.sum(VECTORS.c.number), func.max(VECTORS.c.number)).where(of_settings)
        count, total, highest = (await db.execute(state)).one()
        here = (len(self.marks), int(self.marks.sum()), int(self.marks.max(initial=0)))
        if (count, int(total or 0), highest or 0) == here:
            return self
        numbers = np.asarray((await db.scalars(select(VECTORS.c.number).where(of_settings))).all(), dtype=np.int64)
        stays = np.isin(self.marks, numbers)
        parts = [Vectors(self.marks[stays], self.records[stays], self.units[stays])]
        new = [int(number) for number in np.setdiff1d(numbers, self.marks)]
        for start in range(0, len(new), BATCH):
            parts.append(await self._read(db, new[start : start + BATCH]))
        return Vectors(
            np.concatenate([part.marks for part in parts]),
            np.concatenate([part.records for part in parts]),
            np.concatenate([part.units for part in parts]),
        )

    async def _read(self, db: AsyncSession, numbers: Sequence[int]) -> Vectors:
        """These from the database; one of another length than it should have belongs to no record."""
        vectors = (
            select(VECTORS.c.number, RECORDS.c.number, Vector.value)
            .select_from(VECTORS)
            .join(Vector, Vector.id == VECTORS.c.vector_id)
            .join(RECORDS, RECORDS.c.record_id == Vector.record_id)
            .where(VECTORS.c.number.in_(numbers))
        )
        width = self.units.shape[1]
        marks, records, values = [], [], []
        for mark, record, value in await db.execute(vectors):
            fits = len(value) == width
            marks.append(mark)
            records.append(record if fits else -1)
            values.append(value if fits else [0.0] * width)
        rows = np.asarray(values, dtype=np.float64).reshape(len(values), width)
        return Vectors(np.asarray(marks, np.int64), np.asarray(records, np.int64), _unit(rows).astype(np.float32))


def _best(scores: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Places of the highest, highest first; of equals, the one that came first."""
    if len(scores) > most:
        few = np.argpartition(-scores, most - 1)[:most]
        few = np.flatnonzero(scores >= scores[few].min())
    else:
        few = np.arange(len(scores))
    best: NDArray[np.int64] = few[np.argsort(-scores[few], kind="stable")][:most]
    return best


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: NDArray[np.float64] = rows / np.where(lengths == 0, 1, lengths)
    return units
