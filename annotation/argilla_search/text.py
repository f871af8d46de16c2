"""A text query as Argilla's page writes it: words that must all be there, "a phrase", start*, a|b, -not, (groups).

The language of Elasticsearch's simple_query_string with AND between words, less fuzziness (`~`), which is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlalchemy import and_, false, not_, or_
from sqlalchemy.sql.elements import ColumnElement

from .json_sql import JsonSql

_TOKEN = re.compile(r'"(?P<phrase>[^"]*)"?(?:~\d*)?|(?P<sign>[()|+-])|(?P<word>[^\s()|"]+)')
_WORD = re.compile(r"\w+(?:['’]\w+)*")

Contains = Callable[[str], ColumnElement[bool]]
"""The condition that a record holds a text with this regular expression."""


class TextQuery:
    """The query's condition, and the expressions it wants found (those it wants missing left out)."""

    def __init__(self, query: str, json: JsonSql, contains: Contains) -> None:
        self.wanted: list[str] = []
        self._json, self._contains = json, contains
        self._tokens = list(_TOKEN.finditer(query))
        self._at = 0
        self._negated = False
        parts = []
        while self._at < len(self._tokens):
            parts.append(self._any())
            self._at += 1  # a closing bracket that nothing opened
        self.condition = and_(*parts) if parts else false()

    def _sign(self) -> str | None:
        return self._tokens[self._at]["sign"] if self._at < len(self._tokens) else None

    def _any(self) -> ColumnElement[bool]:
        parts = [self._all()]
        while self._sign() == "|":
            self._at += 1
            parts.append(self._all())
        return or_(*parts)

    def _all(self) -> ColumnElement[bool]:
        parts = []
        while self._at < len(self._tokens) and self._sign() not in ("|", ")"):
            if (part := self._one()) is not None:
                parts.append(part)
        return and_(*parts) if parts else false()

    def _one(self) -> ColumnElement[bool] | None:
        token = self._tokens[self._at]
        self._at += 1
        if token["sign"] == "+":
            return None
        if token["sign"] == "-":
            return self._not()
        if token["sign"] == "(":
            part = self._any()
            self._at += 1
            return part
        if token["phrase"] is not None:
            return self._found(token["phrase"], phrase=True)
        return self._found(token["word"], phrase=False)

    def _not(self) -> ColumnElement[bool] | None:
        if self._at >= len(self._tokens) or self._sign() in ("|", ")"):
            return None
        self._negated = not self._negated
        part = self._one()
        self._negated = not self._negated
        return None if part is None else not_(part)

    def _found(self, text: str, *, phrase: bool) -> ColumnElement[bool] | None:
        words = _WORD.findall(text)
        if not words:
            return None
        end = "" if not phrase and text.endswith("*") else self._json.word_end
        patterns = [r"\W+".join(words)] if phrase else words
        ends = [self._json.word_end] * (len(patterns) - 1) + [end]
        patterns = [f"(?i){self._json.word_start}{one}{end}" for one, end in zip(patterns, ends, strict=True)]
        if not self._negated:
            self.wanted += patterns
        return and_(*(self._contains(pattern) for pattern in patterns))
