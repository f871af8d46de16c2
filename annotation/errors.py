"""Errors a person can fix. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

from collections.abc import Mapping


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


def refuse_nul(*given: object) -> None:
    """Raises UserError if a text among `given`, or inside of the mappings, lists and tuples there, has a NUL character:
    PostgreSQL takes none, and SQLite would cut the text there for some who read it.
    """
    for one in given:
        if isinstance(one, str) and "\0" in one:
            raise UserError(
                "The text has a NUL character, which can't be kept.",
                "Text without it.",
                "It is invisible and came with what was pasted or sent: take it out, or paste the text as plain text.",
            )
        if isinstance(one, Mapping):
            refuse_nul(*one.values())
        elif isinstance(one, list | tuple):
            refuse_nul(*one)
