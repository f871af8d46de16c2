"""A line of the table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """`ratio` is measured over limit where less is better, and ours over the peer's where more is better."""

    what: str
    measured: str
    against: str
    ratio: float
    good: bool


def within(what: str, seconds: float, limit: float) -> Row:
    """A time that has a limit, both in seconds."""
    return Row(what, show(seconds), f"limit {show(limit)}", seconds / limit, seconds <= limit)


def show(seconds: float) -> str:
    """`3.2 s` or `12.5 ms`."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"
