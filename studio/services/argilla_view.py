"""What people are told of Argilla, and of what goes back and forth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from annotation.argilla_report import DatasetProgress, Progress, Repairs, Summary
from annotation.types import Frozen

Tone = Literal["good", "busy", "warn", "bad", "quiet"]


class ArgillaView(Frozen):
    """Where things stand with Argilla, for people."""

    connected: bool
    own: bool = False
    url: str = ""
    label: str
    detail: str = ""
    tone: Tone = "quiet"
    datasets: tuple[DatasetProgress, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    """(reply, reason)."""
    begun: tuple[tuple[str, str], ...] = ()
    """(person, reply) of what was begun there and not sent."""
    progress: Progress | None = None
    """Of the sync under way."""
    last: str = ""
    """What the last sync did."""
    told: str = ""
    """How this studio learns of answers; only the studio itself knows."""


def how_alike(datasets: Sequence[DatasetProgress]) -> tuple[str, Tone]:
    """Where all of them stand together."""
    failed, waiting = (sum(getattr(one, name) for one in datasets) for name in ("failed", "waiting"))
    if not datasets:
        return "Nothing has gone over yet", "quiet"
    if failed:
        return f"{failed:,} could not go over", "warn"
    return (f"{waiting:,} to be sent", "quiet") if waiting else ("Both desks are alike", "good")


def in_words(summary: Summary) -> str:
    """What a sync did, in a sentence; empty for nothing."""
    counts = {
        "sent": summary.pushed,
        "taken out": summary.removed,
        "answers fetched": summary.pulled,
        "left to colleagues": summary.passed,
        "begun there": summary.begun,
        "of our answers shown there": summary.shown,
        "not brought over": summary.failed,
    }
    if isinstance(summary, Repairs):
        counts |= {
            "found deleted there": summary.missing,
            "found altered there": summary.altered,
            "guidelines and questions found in other words": summary.reworded,
            "there that are not ours": summary.foreign,
            "answers no longer there, kept here": summary.gone,
            "datasets found deleted": len(summary.datasets),
        }
    parts = [f"{number:,} {what}" for what, number in counts.items() if number]
    if summary.without_account:
        parts.append(f"answers not shown there for want of an account: {', '.join(sorted(summary.without_account))}")
    if summary.not_counted:
        parts.append(f"not counted, of people who may not judge here: {', '.join(sorted(summary.not_counted))}")
    return ", ".join([*parts, *(["stopped before its end"] if summary.cancelled else [])])


def left_in_words(summary: Summary | None) -> str:
    """What leaving found, in sentences."""
    without = "This project works without Argilla now."
    if summary is None:
        return f"{without} Nobody could look there once more; all that had come from it is kept here."
    said = f" The last look: {in_words(summary)}." if in_words(summary) else ""
    return f"{without}{said} All that was said there is kept here."


def sentence(words: str) -> str:
    """With a capital and a full stop; empty for nothing."""
    return f"{words[0].upper()}{words[1:]}." if words else ""
