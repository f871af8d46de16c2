"""Patterns in a charter: which replies carry the voice's markers, and where a reply may break a rule.

Patterns come from people, and some take for ever on an unlucky reply. The `regex` library stops one after `SECONDS`;
where it is not installed Python's own `re` searches, which can't be stopped, so there a shorter piece is looked at.
"""

from __future__ import annotations

import importlib
import logging
import re
import time
from functools import lru_cache
from typing import Any, Literal

from annotation.errors import UserError
from annotation.types import Charter, Frozen, Question, Span

LONGEST = 20_000
"""Code points of a reply that `suggest` looks at."""
LONGEST_UNTIMED = 4_000
"""The same, where nothing can stop a search."""
SECONDS = 0.5
"""Longest search for one pattern in one reply."""
MOST_SPANS = 50
"""Most places that one finding names."""

_log = logging.getLogger(__name__)


class Finding(Frozen):
    """What a pattern suggests about a reply. A suggestion, never a judgement."""

    question: Question
    value: Literal["fail"] = "fail"
    rule_id: str
    spans: tuple[Span, ...] = ()
    """Where it shows, in order; empty where something is missing."""
    why: str
    """A sentence for the reviewer."""


class TooSlow(Exception):
    """A search that was stopped."""


def suggest(charter: Charter, reply: str) -> list[Finding]:
    """What the charter's patterns find in `reply`: at most one finding a rule, in the order of the charter.

    A marker that is missing gives a finding without spans; a clause's pattern gives one with a span for each match.
    Only the first `LONGEST` code points are looked at, and a marker is not looked for in a reply longer than that. A
    pattern that takes too long finds nothing, and is logged.
    """
    longest = LONGEST if _library() is not None else LONGEST_UNTIMED
    found = []
    for trait in charter.voice:
        if trait.marker is not None and len(reply) <= longest and _tried(trait.id, trait.marker, reply, 1) == []:
            why = f"The wording that '{trait.id}' asks for is not there: {trait.text}"
            found.append(Finding(question="voice", rule_id=trait.id, why=why))
    for clause in charter.policy:
        matches = _tried(clause.id, clause.pattern, reply[:longest], MOST_SPANS) if clause.pattern is not None else []
        spans = tuple(Span(start=start, end=end) for start, end in matches or () if end > start)
        if spans:
            why = f"“{reply[spans[0].start : spans[0].end]}” may break '{clause.id}': {clause.text}"
            found.append(Finding(question="policy", rule_id=clause.id, spans=spans, why=why))
    return found


def marked(charter: Charter, reply: str) -> bool:
    """Whether `reply` carries every marker the charter's voice states. True if it states none.

    Raises UserError if a marker takes too long to look for.
    """
    return all(_has(trait.id, trait.marker, reply) for trait in charter.voice if trait.marker is not None)


def marker_rate(charter: Charter, replies: list[str]) -> float:
    """Share of `replies`, 0 to 1, that carry every marker.

    Raises ValueError for no replies, and UserError if a marker takes too long to look for.
    """
    if not replies:
        raise ValueError("a rate over no replies is not a number")
    return sum(marked(charter, reply) for reply in replies) / len(replies)


def search(pattern: str, text: str, most: int = 1) -> list[tuple[int, int]]:
    """The first `most` matches of `pattern` in `text`, as (start, end) in code points, upper and lower case alike.

    Raises TooSlow after about `SECONDS`, and re.error if `pattern` is no regular expression.
    """
    compiled, timed = _compiled(pattern)
    until = time.monotonic() + SECONDS
    found: list[tuple[int, int]] = []
    try:
        for match in compiled.finditer(text, **({"timeout": SECONDS} if timed else {})):
            found.append(match.span())
            if len(found) == most:
                break
            if time.monotonic() > until:
                raise TooSlow(pattern)
    except TimeoutError as error:
        raise TooSlow(pattern) from error
    return found


def _tried(rule_id: str, pattern: str, text: str, most: int) -> list[tuple[int, int]] | None:
    """Matches of a rule's pattern; None if that took too long."""
    try:
        return search(pattern, text, most)
    except TooSlow:
        _log.warning("The pattern of rule '%s' takes longer than %s s on a reply of %d.", rule_id, SECONDS, len(text))
        return None


def _has(rule_id: str, marker: str, reply: str) -> bool:
    try:
        return bool(search(marker, reply))
    except TooSlow as error:
        raise UserError(
            f"The marker of '{rule_id}' takes longer than {SECONDS} s on one reply.",
            "A pattern that can be looked for in no time.",
            "Write it without a repeat inside a repeat, such as (a+)+.",
        ) from error


@lru_cache(maxsize=1)
def _library() -> Any:
    """The `regex` library, or None. Loaded late: the page and the command line start without it."""
    try:
        return importlib.import_module("regex")
    except ImportError:
        return None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> tuple[Any, bool]:
    """The compiled pattern, and whether a search with it can be stopped."""
    library = _library()
    if library is not None:
        try:
            return library.compile(pattern, library.IGNORECASE | library.VERSION0), True
        except library.error:  # a few of Python's patterns mean something else there, such as `{e<=1}`
            pass
    return re.compile(pattern, re.IGNORECASE), False
