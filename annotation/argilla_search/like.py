"""Words that are like one that was asked for, as `word~1` wants them: the index' own words, a few letters apart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from .connections import DIALECT
from .text import Fuzzy

MOST_LIKE = 50
"""The nearest so many words count, as in Elasticsearch."""
ON_SQLITE = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS temp.argilla_search_vocabulary"
    " USING fts5vocab('main', 'argilla_search_words', 'row')",
    "SELECT term FROM temp.argilla_search_vocabulary",
)
ON_POSTGRESQL = ("SELECT DISTINCT unnest(tsvector_to_array(words)) FROM argilla_search_words WHERE place = :place",)


async def words_like(db: AsyncSession, wanted: Sequence[Fuzzy], place: str) -> dict[Fuzzy, list[str]]:
    """For each of them the words of the index that are so near, the nearest first. All words are gone through, so this
    is asked only where there is a `~`.
    """
    if not wanted:
        return {}
    *before, words = ON_POSTGRESQL if DIALECT == "postgresql" else ON_SQLITE
    for statement in before:
        await db.execute(text(statement))
    about = {"place": place} if ":place" in words else {}
    known = (await db.scalars(text(words), about)).all()
    return await asyncio.to_thread(lambda: {one: _nearest(one, known) for one in wanted})


def _nearest(wanted: Fuzzy, known: Iterable[str]) -> list[str]:
    word, most = wanted
    letters = set(word)
    near = [
        (apart, one)
        for one in known
        if abs(len(one) - len(word)) <= most
        and len(letters.symmetric_difference(one)) <= 2 * most
        and (apart := edits(word, one)) <= most
    ]
    return [one for _, one in sorted(near)[:MOST_LIKE]]


def edits(one: str, other: str) -> int:
    """How many letters have to be put in, left out, changed, or swapped with the next to get from one to the other."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, mine in enumerate(one, 1):
        row = [i]
        for j, theirs in enumerate(other, 1):
            best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (mine != theirs))
            if i > 1 and j > 1 and mine == other[j - 2] and one[i - 2] == theirs:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before, last = last, row
    return last[-1]
