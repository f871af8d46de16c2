"""A text query as Argilla's page writes it: words that must all be there, "a phrase", start*, a|b, -not, (groups),
like~1, "near each other"~5, and \\ before a sign that is meant as itself.

The language of Elasticsearch's simple_query_string with AND between words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, permutations
from typing import Generic, Protocol, TypeVar

from sqlalchemy import func
from sqlalchemy.sql.elements import ColumnElement

from .postgres_schema import PUNCTUATION

_TOKEN = re.compile(
    r'"(?P<phrase>(?:\\.|[^"\\])*)"?(?:~(?P<apart>\d{0,9})\d*)?|(?P<sign>[()|+-])'
    r'|(?P<word>(?:\\.|[^\s()|"\\])+)',
    re.DOTALL,
)
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_FUZZY = re.compile(r"(?<!\\)~(\d{0,9})\d*$")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
MOST_EDITS, MOST_APART = 2, 1_000
"""As Lucene, which also takes a `~` with no number for a 2; and more words apart than that is anywhere."""
MOST_WAYS = 300
"""In which words may stand near each other, on PostgreSQL; of more, it is enough that they are all there."""
Fuzzy = tuple[str, int]
"""A word, and how many edits one like it may be away."""
Likes = Mapping[Fuzzy, Sequence[str]]
"""The words of the index that are like it."""

T = TypeVar("T")


class Writer(Protocol[T]):
    """Writes a query down as one database wants it."""

    def words(self, text: str, *, start: bool) -> T:
        """The words one after the other; the last one need only begin so if `start`."""

    def near(self, words: Sequence[str], apart: int) -> T:
        """The words in any order, with at most `apart` others between them."""

    def both(self, parts: Sequence[T]) -> T: ...

    def either(self, parts: Sequence[T]) -> T: ...

    def without(self, part: T) -> T: ...


class Parser(Generic[T]):
    """Reads one query; no text is an error."""

    def __init__(self, query: str, writer: Writer[T], likes: Likes) -> None:
        self._writer = writer
        self._likes = likes
        self._tokens = list(_TOKEN.finditer(query))
        self._at = 0
        self.alternatives: list[T] = []
        """After `read`: all that a `|` stands beside, less what may not be there."""

    def read(self) -> T | None:
        """The whole of it, None where nothing can be asked for, which nothing answers."""
        parts = []
        while self._at < len(self._tokens):
            parts.append(self._any())
            self._at += 1  # a closing bracket that nothing opened
        return self._join(parts)

    def _join(self, parts: Sequence[T | None]) -> T | None:
        """All of them; a group in which nothing can be asked for is answered by nothing, so is what needs it."""
        known = [part for part in parts if part is not None]
        if not parts or len(known) < len(parts):
            return None
        return known[0] if len(known) == 1 else self._writer.both(known)

    def _sign(self) -> str | None:
        return self._tokens[self._at]["sign"] if self._at < len(self._tokens) else None

    def _any(self) -> T | None:
        parts = [self._all()]
        while self._sign() == "|":
            self._at += 1
            parts.append(self._all())
        known = [part for part in parts if part is not None]
        if len(known) < 2:
            return known[0] if known else None
        self.alternatives += known
        return self._writer.either(known)

    def _all(self) -> T | None:
        parts = []
        while self._at < len(self._tokens) and self._sign() not in ("|", ")"):
            parts += self._one()
        return self._join(parts)

    def _one(self) -> list[T | None]:
        token = self._tokens[self._at]
        self._at += 1
        if token["sign"] == "+":
            return []
        if token["sign"] == "-":
            return self._not()
        if token["sign"] == "(":
            part = self._any()
            self._at += 1
            return [part]
        if token["phrase"] is not None:
            return self._phrase(_WORD.findall(_ESCAPED.sub(r"\1", token["phrase"])), token["apart"])
        if like := _fuzzy(token["word"]):
            near = [self._writer.words(one, start=False) for one in self._likes.get(like) or like[:1]]
            return [near[0] if len(near) == 1 else self._writer.either(near)]
        text, starts = _plain(token["word"])
        words = _WORD.findall(text)
        last = len(words) - 1
        return [self._writer.words(word, start=starts and place == last) for place, word in enumerate(words)]

    def _phrase(self, words: list[str], apart: str | None) -> list[T | None]:
        most = 0 if apart is None else min(int(apart or MOST_EDITS), MOST_APART)
        if most and len(words) > 1:
            return [self._writer.near(words, most)]
        return [self._writer.words(" ".join(words), start=False)] if words else []

    def _not(self) -> list[T | None]:
        if self._at >= len(self._tokens) or self._sign() in ("|", ")"):
            return []
        before = len(self.alternatives)
        part = self._join(self._one())
        del self.alternatives[before:]
        return [] if part is None else [self._writer.without(part)]


def fuzzy_words(query: str) -> list[Fuzzy]:
    """Those that a query has, for somebody to look up what is like them."""
    return [like for token in _TOKEN.finditer(query) if token["word"] and (like := _fuzzy(token["word"]))]


def _fuzzy(word: str) -> Fuzzy | None:
    """None without a `~`, and for what is not one word or may not differ."""
    found = _FUZZY.search(word)
    if found is None:
        return None
    text, most = _plain(word)[0].lower(), min(int(found[1] or MOST_EDITS), MOST_EDITS)
    return (text, most) if most and text.isalnum() else None


def _plain(word: str) -> tuple[str, bool]:
    """Without what stands for something else, and whether it need only begin so."""
    text = _FUZZY.sub("", word)
    return _ESCAPED.sub(r"\1", text), text.endswith("*") and not text.endswith("\\*")


class Fts5:
    """The language of MATCH. `place` is the token that every row asked about has: what `without` takes away from."""

    def __init__(self, place: str) -> None:
        self.everything = f'place : "{place}"'

    def words(self, text: str, *, start: bool) -> str:
        return f'body : "{text}"{" *" if start else ""}'

    def near(self, words: Sequence[str], apart: int) -> str:
        """FTS5 counts the words between the first and the last one, so also those that are asked for."""
        quoted = " ".join(f'"{word}"' for word in words)
        return f"body : NEAR({quoted}, {apart + len(words) - 2})"

    def both(self, parts: Sequence[str]) -> str:
        return "(" + " AND ".join(parts) + ")"

    def either(self, parts: Sequence[str]) -> str:
        return "(" + " OR ".join(parts) + ")"

    def without(self, part: str) -> str:
        return f"({self.everything} NOT {part})"


class TsQuery:
    """A tsquery, put together by PostgreSQL from pieces that its own parser has read as it read the texts."""

    def words(self, text: str, *, start: bool) -> ColumnElement[str]:
        pieces = self._pieces(text)
        if not start or not pieces:
            return func.phraseto_tsquery("simple", " ".join(pieces))
        return func.to_tsquery("simple", " <-> ".join([*pieces[:-1], pieces[-1] + ":*"]))

    def near(self, words: Sequence[str], apart: int) -> ColumnElement[str]:
        """PostgreSQL knows distances only, so each way to stand near is asked for."""
        pieces = self._pieces(" ".join(words))
        ways = list(islice(_ways(pieces, apart), MOST_WAYS + 1))
        if len(ways) > MOST_WAYS:
            return func.to_tsquery("simple", " & ".join(pieces))
        return func.to_tsquery("simple", " | ".join(f"({way})" for way in ways))

    @staticmethod
    def _pieces(text: str) -> list[str]:
        return text.lower().translate(str.maketrans(PUNCTUATION, " " * len(PUNCTUATION))).split()

    def both(self, parts: Sequence[ColumnElement[str]]) -> ColumnElement[str]:
        return functools.reduce(func.tsquery_and, parts)

    def either(self, parts: Sequence[ColumnElement[str]]) -> ColumnElement[str]:
        return functools.reduce(func.tsquery_or, parts)

    def without(self, part: ColumnElement[str]) -> ColumnElement[str]:
        return func.tsquery_not(part)


def _ways(pieces: Sequence[str], apart: int) -> Iterator[str]:
    """Each order and distances in which words stand with at most so many others between them, as a tsquery."""
    for places in permutations(range(len(pieces) + apart), len(pieces)):
        if min(places) == 0:
            (first, before), *rest = sorted(zip(places, pieces, strict=True))
            way = before
            for place, piece in rest:
                way, first = f"{way} <{place - first}> {piece}", place
            yield way


def place_of(dataset: str, field: str | None) -> str:
    """The token of a dataset's rows: of all texts, or of one field. `dataset` is the id's 32 hex digits."""
    return f"{dataset}x{field.encode().hex() if field else ''}"
