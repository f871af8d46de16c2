"""What is wrong with a charter, all of it at once, in words its author can act on."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from annotation.errors import UserError
from annotation.types import Axis, Charter, Clause, Frozen, Question, Severity, Trait

SECTIONS: tuple[Question, ...] = get_args(Question)
RULES: dict[str, type[Trait] | type[Clause] | type[Axis]] = {"voice": Trait, "policy": Clause, "bias": Axis}
PATTERNS = ("marker", "pattern")
MOST = 10
"""Problems that one error lists; the rest are counted."""

Where = tuple[str | int, ...]
"""A place in a charter: `("policy", 0, "text")`, `("name",)`."""
Lines = Mapping[Where, int]
"""The line of a file, from 1, at which a place is written; places may be missing."""
Raw = dict[str, object]
"""A charter as it was read, before anything about it was checked."""

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")


class Problem(Frozen):
    """One thing to mend."""

    says: str
    """A clause without a full stop."""
    line: int | None = None
    """From 1; None where there is no file, or the line is not known."""
    rule: str | None = None
    """Id of the rule at fault, as it was written."""

    def sentence(self) -> str:
        """For example `Line 12, rule 'no-promises': its text is empty.`"""
        places = [f"line {self.line}"] if self.line else []
        places += [f"rule '{self.rule}'"] if self.rule else []
        said = f"{', '.join(places)}: {self.says}." if places else f"{self.says}."
        return said[0].upper() + said[1:]


def build(raw: Raw, name: str, lines: Lines, found: Sequence[Problem] = ()) -> Charter:
    """The charter that `raw` states.

    Parameters
    ----------
    name: what to call the file in an error.
    lines: where in the file each place stands.
    found: problems the reader already met.

    Raises UserError that lists every problem, up to `MOST`.
    """
    problems = [*found, *_of_content(raw, lines)]
    charter: Charter | None = None
    try:
        charter = Charter.model_validate(raw)
    except ValidationError as error:
        problems += [_translated(one, raw, lines) for one in error.errors()]
    if problems or charter is None:
        raise refusal(problems, name)
    return charter


def problems_of(charter: Charter) -> tuple[str, ...]:
    """What reading `charter` back from a file would refuse, a sentence each; empty for a sound one.

    For a charter that was put together on the page rather than read from a file.
    """
    return tuple(problem.sentence() for problem in _of_content(charter.model_dump(), {}))


def refusal(problems: Sequence[Problem], name: str) -> UserError:
    """One error for all `problems` of the file `name`, in the order of its lines."""
    sentences = [problem.sentence() for problem in sorted(problems, key=lambda problem: problem.line or 0)]
    if len(sentences) == 1:
        return UserError(f"{name} can't be read as a charter. {sentences[0]}", do="Mend it and try again.")
    left = len(sentences) - MOST
    shown = [*sentences[:MOST], *([f"And {left} more."] if left > 0 else [])]
    return UserError(
        f"{name} can't be read as a charter: {len(sentences)} things are wrong.\n- " + "\n- ".join(shown),
        do="Mend them and try again.",
    )


def pattern_fault(pattern: str) -> str | None:
    """Why `pattern` is not a regular expression; None if it is one."""
    try:
        with warnings.catch_warnings():
            # Python only warns of what a later version will read otherwise; a rule must not change its meaning so.
            warnings.simplefilter("error")
            re.compile(pattern, re.IGNORECASE)
    except (re.error, Warning, RecursionError, OverflowError) as error:
        return str(error).rstrip(".")
    return None


def _rules(raw: Raw) -> Iterator[tuple[Where, dict[str, object]]]:
    """Every rule of `raw` that is a table at all, with its place."""
    for section in SECTIONS:
        rules = raw.get(section)
        for number, rule in enumerate(rules if isinstance(rules, list | tuple) else ()):
            if isinstance(rule, dict):
                yield (section, number), rule


def _line(lines: Lines, where: Where) -> int | None:
    """The line of `where`, or of the nearest thing around it."""
    return next((lines[where[:end]] for end in range(len(where), 0, -1) if where[:end] in lines), None)


def _of_content(raw: Raw, lines: Lines) -> Iterator[Problem]:
    """What the types allow and a charter does not."""
    yield from _of_head(raw, lines)
    yield from _of_ids(raw, lines)
    for where, rule in _rules(raw):
        rule_id = rule.get("id")
        named = rule_id if isinstance(rule_id, str) else None
        for field, says in _of_rule(rule):
            yield Problem(says=says, line=_line(lines, (*where, field)), rule=named)


def _of_head(raw: Raw, lines: Lines) -> Iterator[Problem]:
    name = raw.get("name")
    if isinstance(name, str) and not name.strip():
        yield Problem(says="the charter's name is empty", line=_line(lines, ("name",)))
    for tag in _strings(raw.get("languages")):
        if not _LANGUAGE.fullmatch(tag):
            says = f"'{tag}' is not a language tag; wanted one such as 'en' or 'pt-BR'"
            yield Problem(says=says, line=_line(lines, ("languages",)))
    known = {rule.get("id") for _, rule in _rules(raw)}
    for rule_id in _strings(raw.get("wording_only")):
        if rule_id not in known:
            says = f"'{rule_id}' is listed as changed in wording only, and no rule here has that id"
            yield Problem(says=says, line=_line(lines, ("wording_only",)))


def _of_ids(raw: Raw, lines: Lines) -> Iterator[Problem]:
    first: dict[str, int | None] = {}
    for where, rule in _rules(raw):
        rule_id, line = rule.get("id"), _line(lines, (*where, "id"))
        if not isinstance(rule_id, str):
            continue
        if rule_id in first:
            before = f", first on line {first[rule_id]}" if first[rule_id] else ""
            yield Problem(
                says=f"uses the id '{rule_id}' twice{before}; judgements cite it, so each needs its own", line=line
            )
        first.setdefault(rule_id, line)


def _of_rule(rule: dict[str, object]) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it)."""
    text = rule.get("text")
    if isinstance(text, str) and not text.strip():
        yield "text", "its text is empty"
    for field, value in rule.items():
        if any(not item.strip() for item in _strings(value)):
            yield field, f"an entry of its {field} is empty"
        if field in PATTERNS and isinstance(value, str):
            if not value:
                yield field, f"its {field} is empty; leave it out instead"
            elif fault := pattern_fault(value):
                yield field, f"its {field} is not a regular expression: {fault}"


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []


def _translated(error: ErrorDetails, raw: Raw, lines: Lines) -> Problem:
    where: Where = error["loc"]
    rule = dict(_rules(raw)).get(where[:2], {})
    rule_id = rule.get("id")
    named = rule_id if isinstance(rule_id, str) and where[-1] != "id" else None
    return Problem(says=_said(error), line=_line(lines, where), rule=named)


def _said(error: ErrorDetails) -> str:
    where, given = error["loc"], str(error["input"])[:60]
    field = ".".join(str(part) for part in where)
    last = str(where[-1])
    match error["type"]:
        case "missing":
            return f"'{last}' is missing"
        case "extra_forbidden":
            known = RULES[str(where[0])] if len(where) == 3 else Charter
            return f"'{last}' is not a field here; wanted one of {', '.join(known.model_fields)}"
        case "literal_error":
            return f"the {last} '{given}' is unknown; wanted one of {', '.join(get_args(Severity))}"
        case "string_pattern_mismatch":
            return f"'{given}' can't be an id; wanted small letters, digits and hyphens, such as '{_as_id(given)}'"
        case _:
            return f"'{field}': {error['msg'][0].lower()}{error['msg'][1:]}"


def _as_id(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-") or "no-promises"
