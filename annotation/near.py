"""Whether a text is nearly one that is known: what was measured with must not be learned from, nor the other way."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz import fuzz, process

from annotation.types import Message

NEARLY = 92.0
"""Share of letters, in percent of both texts together, that two have in common in the same order (Indel ratio)."""


def opening(messages: Sequence[Message]) -> str:
    """The first user message, case-folded and with plain spaces: by it a request is known again."""
    text = next((message.text for message in messages if message.role == "user"), "")
    return " ".join(text.casefold().split())


def near(text: str, known: Sequence[str]) -> str:
    """The known text that is nearest, '' if none is nearer than `NEARLY`."""
    found = process.extractOne(text, known, scorer=fuzz.ratio, score_cutoff=NEARLY)
    return str(found[0]) if found else ""
