"""The charter: its files, what changes between versions, the prompt it compiles to, and what its patterns suggest."""

from __future__ import annotations

from annotation.charter.changes import Change, Combination, compare, stale, stale_combinations
from annotation.charter.files import parse_markdown, parse_toml, read_charter, write_markdown, write_toml
from annotation.charter.patterns import Finding, marked, marker_rate, suggest
from annotation.charter.problems import pattern_fault, problems_of
from annotation.charter.prompt import system_prompt

__all__ = [
    "Change",
    "Combination",
    "Finding",
    "compare",
    "marked",
    "marker_rate",
    "parse_markdown",
    "parse_toml",
    "pattern_fault",
    "problems_of",
    "read_charter",
    "stale",
    "stale_combinations",
    "suggest",
    "system_prompt",
    "write_markdown",
    "write_toml",
]
