"""What people are told of Argilla, and of what goes back and forth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from annotation.argilla_report import DatasetProgress, Progress, Repairs, Summary
from annotation.types import Frozen
from studio.services.argilla_errands import Outcome

Tone = Literal["good", "busy", "warn", "bad", "quiet"]


class ArgillaView(Frozen):
    """Where things stand with Argilla, for people."""

    connected: bool
    own: bool = False
    down: bool = False
    """Our own server is not running."""
    may_start: bool = False
    """Whether to offer to start our own server again."""
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
    seconds_left: float | None = None
    """Of its present step, by how it went so far; None where nobody knows."""
    may_cancel: bool = False
    """Whether something is under way that can be stopped."""
    outcome: Outcome | None = None
    """How what was asked for last ended."""
    looked_at: datetime | None = None
    """When this studio last looked at everything."""
    last: str = ""
    """What the last sync did."""
    told: str = ""
    """How this studio learns of answers; only the studio itself knows."""


class Pace:
    """How long a step will take yet, by how fast it went since it began."""

    def __init__(self) -> None:
        self._what, self._began, self._first = "", 0.0, 0

    def seconds_left(self, progress: Progress) -> float | None:
        """None until some of it is done, and where nobody knows how much there is."""
        now = time.monotonic()
        if progress.what != self._what or progress.done < self._first:
            self._what, self._began, self._first = progress.what, now, progress.done
        done, left = progress.done - self._first, progress.total - progress.done
        return (now - self._began) / done * left if done and left > 0 else None


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
    return ", ".join(counts_in_words(summary))


def counts_in_words(summary: Summary) -> list[str]:
    """What a sync did, one by one."""
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
            "whose state Argilla is to work out anew": summary.stale,
            "there that are not ours": summary.foreign,
            "answers no longer there, kept here": summary.gone,
            "datasets found deleted": len(summary.datasets),
        }
    parts = [f"{number:,} {what}" for what, number in counts.items() if number]
    if summary.without_account:
        parts.append(f"answers not shown there for want of an account: {', '.join(sorted(summary.without_account))}")
    if summary.not_counted:
        parts.append(f"not counted, of people who may not judge here: {', '.join(sorted(summary.not_counted))}")
    return [*parts, *(["stopped before its end"] if summary.cancelled else [])]


def left_in_words(summary: Summary | None) -> str:
    """What leaving found, in sentences."""
    without = "This project works without Argilla now."
    if summary is None:
        return f"{without} Nobody could look there once more; all that had come from it is kept here."
    if summary.cancelled:
        return "Stopped. Argilla is in use as before, and what came in is kept; leaving goes on from there."
    said = f" The last look: {in_words(summary)}." if in_words(summary) else ""
    return f"{without}{said} All that was said there is kept here."


def compared_in_words(repairs: Repairs) -> str:
    """How a comparison ended, in a sentence; `counts_in_words` says what it found."""
    if repairs.cancelled:
        return "The comparison was stopped before its end. What it put right so far stays so."
    return "Both desks were compared, and they were alike." if repairs.nothing else "Both desks were compared."


def sentence(words: str) -> str:
    """With a capital and a full stop; empty for nothing."""
    return f"{words[0].upper()}{words[1:]}." if words else ""
