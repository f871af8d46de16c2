"""Word differences, for people to read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Literal

from diff_match_patch import diff_match_patch

Change = Literal["same", "added", "removed"]
_WORD = re.compile(r"\w+|\s+|[^\w\s]", re.UNICODE)


def words_changed(before: str, after: str) -> list[tuple[Change, str]]:
    """The pieces that lead from `before` to `after`: without the added they join to `before`, without the removed to
    `after`.

    Compared word by word: each word stands for one character in Myers' algorithm, as diff-match-patch does for lines.
    """
    numbers: dict[str, int] = {}
    first, second = (_encode(_WORD.findall(text), numbers) for text in (before, after))
    words = list(numbers)
    kinds: dict[int, Change] = {0: "same", 1: "added", -1: "removed"}
    differ = diff_match_patch()
    changes = differ.diff_main(first, second, False)
    differ.diff_cleanupSemantic(changes)  # a lone word in common between two changes helps nobody
    return [(kinds[kind], "".join(words[_number(mark)] for mark in marks)) for kind, marks in changes]


_SURROGATES = range(0xD800, 0xE000)


def _encode(words: Sequence[str], numbers: dict[str, int]) -> str:
    marks = []
    for word in words:
        number = numbers.setdefault(word, len(numbers)) + 1
        marks.append(chr(number if number < _SURROGATES.start else number + len(_SURROGATES)))
    return "".join(marks)


def _number(mark: str) -> int:
    point = ord(mark)
    return (point if point < _SURROGATES.start else point - len(_SURROGATES)) - 1


def diff_html(before: str, after: str) -> str:
    """The difference as HTML: `<ins>` and `<del>`, everything escaped, line breaks kept by the style sheet."""
    tags = {"added": "ins", "removed": "del"}
    return "".join(
        escape(text) if kind == "same" else f"<{tags[kind]}>{escape(text)}</{tags[kind]}>"
        for kind, text in words_changed(before, after)
    )
