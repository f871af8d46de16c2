"""A text query as Argilla's page writes it: words that must all be there, "a phrase", start*, a|b, -not, (groups).

The language of Elasticsearch's simple_query_string with AND between words, less fuzziness (`~`), which is ignored.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from sqlalchemy import func
from sqlalchemy.sql.elements import ColumnElement

from .postgres_schema import PUNCTUATION

_TOKEN = re.compile(r'"(?P<phrase>[^"]*)"?(?:~\d*)?|(?P<sign>[()|+-])|(?P<word>[^\s()|"]+)')
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_FUZZY = re.compile(r"~\d*$")

T = TypeVar("T")


class Writer(Protocol[T]):
    """Writes a query down as one database wants it."""

    def words(self, text: str, *, start: bool) -> T:
        """The words one after the other; the last one need only begin so if `start`."""

    def both(self, parts: Sequence[T]) -> T: ...

    def either(self, parts: Sequence[T]) -> T: ...

    def without(self, part: T) -> T: ...


class Parser(Generic[T]):
    """Reads one query; no text is an error."""

    def __init__(self, query: str, writer: Writer[T]) -> None:
        self._writer = writer
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
            words = _WORD.findall(token["phrase"])
            return [self._writer.words(" ".join(words), start=False)] if words else []
        text = _FUZZY.sub("", token["word"])
        words = _WORD.findall(text)
        starts = [text.endswith("*") and place == len(words) - 1 for place in range(len(words))]
        return [self._writer.words(word, start=start) for word, start in zip(words, starts, strict=True)]

    def _not(self) -> list[T | None]:
        if self._at >= len(self._tokens) or self._sign() in ("|", ")"):
            return []
        before = len(self.alternatives)
        part = self._join(self._one())
        del self.alternatives[before:]
        return [] if part is None else [self._writer.without(part)]


class Fts5:
    """The language of MATCH. `place` is the token that every row asked about has: what `without` takes away from."""

    def __init__(self, place: str) -> None:
        self.everything = f'place : "{place}"'

    def words(self, text: str, *, start: bool) -> str:
        return f'body : "{text}"{" *" if start else ""}'

    def both(self, parts: Sequence[str]) -> str:
        return "(" + " AND ".join(parts) + ")"

    def either(self, parts: Sequence[str]) -> str:
        return "(" + " OR ".join(parts) + ")"

    def without(self, part: str) -> str:
        return f"({self.everything} NOT {part})"


class TsQuery:
    """A tsquery, put together by PostgreSQL from pieces that its own parser has read as it read the texts."""

    def words(self, text: str, *, start: bool) -> ColumnElement[str]:
        pieces = text.lower().translate(str.maketrans(PUNCTUATION, " " * len(PUNCTUATION))).split()
        if not start or not pieces:
            return func.phraseto_tsquery("simple", " ".join(pieces))
        return func.to_tsquery("simple", " <-> ".join([*pieces[:-1], pieces[-1] + ":*"]))

    def both(self, parts: Sequence[ColumnElement[str]]) -> ColumnElement[str]:
        return functools.reduce(func.tsquery_and, parts)

    def either(self, parts: Sequence[ColumnElement[str]]) -> ColumnElement[str]:
        return functools.reduce(func.tsquery_or, parts)

    def without(self, part: ColumnElement[str]) -> ColumnElement[str]:
        return func.tsquery_not(part)


def place_of(dataset: str, field: str | None) -> str:
    """The token of a dataset's rows: of all texts, or of one field. `dataset` is the id's 32 hex digits."""
    return f"{dataset}x{field.encode().hex() if field else ''}"
