"""Nearest vectors by cosine, batch by batch, from the vectors that the database holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

Hit = tuple[UUID, float]


class Nearest:
    """The best so far. Scores are Elasticsearch's: (1 + cosine) / 2, from 0 (opposite) to 1 (the same direction)."""

    def __init__(self, vector: Sequence[float], keep: int) -> None:
        self._vector = _unit(np.asarray([vector], dtype=np.float64))[0]
        self._keep = keep
        self.hits: list[Hit] = []

    def add(self, ids: Sequence[UUID], vectors: Sequence[Any]) -> None:
        """One batch; vectors of another length than the query's are passed over."""
        fitting = [(one, vector) for one, vector in zip(ids, vectors, strict=True) if len(vector) == len(self._vector)]
        if not fitting:
            return
        cosines = _unit(np.asarray([vector for _, vector in fitting], dtype=np.float64)) @ self._vector
        scores = (1 + np.clip(cosines, -1, 1)) / 2
        self.hits += [(one, float(score)) for (one, _), score in zip(fitting, scores, strict=True)]
        self.hits.sort(key=lambda hit: -hit[1])
        del self.hits[self._keep :]


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: NDArray[np.float64] = rows / np.where(lengths == 0, 1, lengths)
    return units
