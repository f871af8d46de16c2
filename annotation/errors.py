"""Errors a person can fix. Everything else is a bug and keeps its traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right; the page and the command line show it without a traceback.

    Parameters
    ----------
    found: what was found, as a sentence.
    wanted: what was wanted instead, as a sentence; empty where the finding says it all.
    do: what to do next, as a sentence with the command or the button to use.
    """

    def __init__(self, found: str, wanted: str = "", do: str = "") -> None:
        self.found = found
        self.wanted = wanted
        self.do = do
        super().__init__(" ".join(part for part in (found, wanted, do) if part))


class NotFound(UserError):
    """An id that names nothing in the store or on disk."""


class Conflict(UserError):
    """The action was already taken, or somebody else took it first."""
