"""The charter as TOML, laid out to be edited by hand."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator

from annotation.charter.problems import PATTERNS, SECTIONS, Where, build
from annotation.errors import UserError
from annotation.types import Axis, Charter, Clause, Frozen, Trait

WIDTH = 116
"""Characters a line; a longer string goes over several."""

_HEADS = {
    "voice": "Voice",
    "policy": "Policy",
    "bias": "Fairness: what must not change how somebody is treated",
}
_FIRST = {"id": 0, "severity": 1}
_TOKEN = re.compile(
    r'''
    (?P<skip> \#[^\n]* | """(?:[^\\]|\\.)*?"""(?:"{1,2})? | \'\'\'.*?\'\'\'(?:'{1,2})?
              | "(?:[^"\\\n]|\\.)*" | '[^'\n]*' )
    | ^[ \t]*\[\[? [ \t]*(?P<table>[\w-]+)[ \t]* \]
    | ^[ \t]*(?P<key>[\w-]+)[ \t]*=
    ''',
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_GAP = re.compile(r"(?<=[^ ]) (?=[^ ])")


def parse_toml(text: str, name: str) -> Charter:
    """The charter in `text`, whose tables are the fields of `Charter`.

    Parameters
    ----------
    name: what to call the file in an error.

    Raises UserError that names the line and the rule of every problem, up to ten.
    """
    text = text.replace("\r\n", "\n")
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{name} is not readable as TOML: {error}.", do="Mend that line and try again.") from error
    return build(raw, name, _lines(text))


def write_toml(charter: Charter) -> str:
    """`charter` as TOML; `parse_toml` gives it back exactly."""
    head = [_field(field, getattr(charter, field)) for field in ("name", "version", "purpose")]
    head += [
        _field(field, getattr(charter, field)) for field in ("languages", "wording_only") if getattr(charter, field)
    ]
    parts = ["\n".join(line for line in head if line)]
    for section in SECTIONS:
        rules: tuple[Trait | Clause | Axis, ...] = getattr(charter, section)
        if rules:
            parts.append(f"# --- {_HEADS[section]} ".ljust(WIDTH, "-"))
        parts += [f"[[{section}]]\n{_table(rule)}" for rule in rules]
    return "\n\n".join(parts) + "\n"


def _lines(text: str) -> dict[Where, int]:
    """Where each table and each key of a readable TOML `text` begins."""
    lines: dict[Where, int] = {}
    counts: dict[str, int] = {}
    table: Where = ()
    for token in _TOKEN.finditer(text):
        number = text.count("\n", 0, token.start()) + 1
        if (section := token["table"]) is not None:
            counts[section] = counts.get(section, -1) + 1
            table = (section, counts[section])
            lines[table] = number
        elif token["key"] is not None:
            lines[(*table, token["key"])] = number
    return lines


def _table(rule: Frozen) -> str:
    fields = sorted(type(rule).model_fields, key=lambda field: _FIRST.get(field, len(_FIRST)))
    said = [(field, getattr(rule, field)) for field in fields]
    return "\n".join(_field(field, value) for field, value in said if value not in (None, ()))


def _field(field: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"{field} = {_array(value, len(field) + 3)}"
    if isinstance(value, str):
        return f"{field} = {_string(value, len(field) + 3, pattern=field in PATTERNS)}"
    return f"{field} = {value}"


def _array(items: tuple[str, ...], indent: int) -> str:
    short = f"[{', '.join(_one_line(item) for item in items)}]"
    if indent + len(short) <= WIDTH and not any("\n" in item for item in items):
        return short
    return "[\n" + "".join(f"  {_string(item, 3)},\n" for item in items) + "]"


def _string(text: str, indent: int, *, pattern: bool = False) -> str:
    short = _one_line(text)
    if pattern and _literal(text):
        return f"'''\n{text}'''"
    if pattern or ("\n" not in text and indent + len(short) <= WIDTH):
        return short
    return '"""\n' + "\n".join(_wrapped(line) for line in _escaped(text).split("\n")) + '"""'


def _literal(pattern: str) -> bool:
    """Whether a pattern of several lines can stand as it is between triple single quotes."""
    kept = all(line == line.rstrip() for line in pattern.split("\n")) and not any(map(_odd, pattern))
    return kept and "\n" in pattern and "'''" not in pattern and not pattern.endswith("'")


def _one_line(text: str) -> str:
    """A literal string where it saves escapes, a basic one otherwise."""
    plain = not any(_odd(character) or character in "'\n\t" for character in text)
    if plain and ('"' in text or "\\" in text):
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{_visible(escaped)}"'


def _escaped(text: str) -> str:
    """For between triple quotes. A space before a line's end is written out, since editors take it away."""
    escaped = re.sub(r'"(?="")|"\Z', r'\\"', text.replace("\\", "\\\\"))
    escaped = re.sub(r" (?=\n|\Z)", r"\\u0020", escaped)
    return _visible(escaped)


def _wrapped(line: str) -> str:
    """Break a long line where a `\\` takes the break away again."""
    return " \\\n".join(_packed(_GAP.split(line)))


def _packed(words: list[str]) -> Iterator[str]:
    packed = words[0]
    for word in words[1:]:
        if len(packed) + len(word) >= WIDTH:
            yield packed
            packed = word
        else:
            packed += f" {word}"
    yield packed


def _odd(character: str) -> bool:
    """Whether an editor or a TOML reader could change or hide `character`."""
    return unicodedata.category(character) in ("Cc", "Zl", "Zp") and character != "\n"


def _visible(text: str) -> str:
    return "".join(f"\\u{ord(character):04x}" if _odd(character) else character for character in text)
