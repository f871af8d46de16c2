"""The charter as a TOML file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pydantic import ValidationError

from annotation.errors import UserError
from annotation.types import Charter


def read_charter(path: Path) -> Charter:
    """Read a charter from a TOML file whose tables are the fields of `Charter`.

    Raises UserError that names the field at fault.
    """
    try:
        charter = Charter.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.", "A charter in TOML.", "Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable as TOML: {error}.", do="Mend that line and try again.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"In {path}, '{where}': {first['msg']}.", do="Mend it and try again.") from error
    _check(charter, path)
    return charter


def _check(charter: Charter, path: Path) -> None:
    ids = [rule.id for rules in (charter.voice, charter.policy, charter.bias) for rule in rules]
    twice = sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1})
    if twice:
        raise UserError(f"{path} uses the id '{twice[0]}' twice.", "One id a rule: judgements cite it.")
    for trait in charter.voice:
        try:
            re.compile(trait.marker or "")
        except re.error as error:
            raise UserError(
                f"The marker of trait '{trait.id}' in {path} is not a regular expression: {error}."
            ) from error


def marked(charter: Charter, reply: str) -> bool:
    """Whether `reply` carries every marker the charter's voice states. True if it states none."""
    return all(
        re.search(trait.marker, reply, re.IGNORECASE) is not None for trait in charter.voice if trait.marker is not None
    )


def marker_rate(charter: Charter, replies: list[str]) -> float:
    """Share of `replies`, 0 to 1, that carry every marker. Raises ValueError for no replies."""
    if not replies:
        raise ValueError("a rate over no replies is not a number")
    return sum(marked(charter, reply) for reply in replies) / len(replies)
