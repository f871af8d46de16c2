"""The charter as Markdown: a document a policy person would write, with nothing lost.

Text is written as plain paragraphs wherever reading them back gives the same text. Where it would not — odd spacing, a
line that looks like a heading — it goes into a fenced block, which is read letter by letter. What an editor could
change unseen, such as a space at a line's end, goes into a fenced block marked `json`, as a JSON string.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from annotation.charter.problems import RULES, SECTIONS, Problem, Raw, Where, build
from annotation.types import Axis, Charter, Clause, Question, Trait

_HEADS: dict[Question, str] = {"voice": "Voice", "policy": "Policy", "bias": "Fairness"}
_SECTIONS: dict[str, Question] = {
    "voice": "voice",
    "brand voice": "voice",
    "policy": "policy",
    "fairness": "bias",
    "bias": "bias",
}
_LABELS = {
    "dos": "Do",
    "donts": "Don't",
    "examples": "Examples",
    "violations": "Violations",
    "groups": "Groups",
    "marker": "Marker",
    "pattern": "Pattern",
}
_ALSO = {"dont": "donts", "don'ts": "donts", "example": "examples", "violation": "violations", "group": "groups"}
_FIELDS = {field: field for field in _LABELS} | {label.lower(): field for field, label in _LABELS.items()} | _ALSO
_VALUES = ("marker", "pattern")
"""Labels followed by one value in code marks; the others are followed by a list."""
_HEAD_ITEMS = {"version": "version", "languages": "languages", "only the wording changed": "wording_only"}

_HEADING = re.compile(r"^(#{1,6})(?:[ \t]+(.*?))?[ \t]*$")
_HEAD_ITEM = re.compile(rf"^[-*][ \t]+({'|'.join(_HEAD_ITEMS)}):[ \t]*(.*?)[ \t]*$", re.IGNORECASE)
_BOLD = re.compile(r"^\*\*([^*]+?)(:?)\*\*(:?)[ \t]*(.*?)[ \t]*$")
_PLAIN_LABEL = re.compile(r"^([A-Za-z'’]+):[ \t]*(.*?)[ \t]*$")
_FENCE = re.compile(r"^[ \t]*(?:[-*+][ \t]+)?(`{3,})([^`]*)$")
_BULLET = re.compile(r"^[-*+](?:[ \t]+|$)")
_LISTED = re.compile(r"^(?:[-*+]|\d+[.)])[ \t]")
_RULE = re.compile(r"^(.*?)(?:[ \t]*\(([^()]*)\))?$")
_CODE = re.compile(r"^(`+)(.*)\1$")


class _Line(NamedTuple):
    number: int
    text: str
    fenced: bool
    """Inside a fenced block, or its end."""


class _Block(NamedTuple):
    """What stands under one heading or label."""

    kind: str
    """`start`, `heading` or `label`."""
    level: int
    title: str
    rest: str
    """What follows a label on its line."""
    line: int
    body: list[_Line]


def parse_markdown(text: str, name: str) -> Charter:
    """The charter in the Markdown `text`.

    Parameters
    ----------
    name: what to call the file in an error.

    Raises UserError that names the line and the rule of every problem, up to ten.
    """
    reader = _Reader()
    for block in _blocks(reader.fenced(text.replace("\r\n", "\n").split("\n"))):
        reader.take(block)
    return build(reader.finished(), name, reader.lines, reader.problems)


def write_markdown(charter: Charter) -> str:
    """`charter` as a Markdown document; `parse_markdown` gives it back exactly."""
    head = [f"- Version: {charter.version}"]
    head += [f"- Languages: {', '.join(charter.languages)}"] * bool(charter.languages)
    head += [f"- Only the wording changed: {', '.join(charter.wording_only)}"] * bool(charter.wording_only)
    parts = [f"# {_title(charter.name)}", "\n".join(head)]
    parts += [_encoded(charter.purpose)] * bool(charter.purpose)
    for section in SECTIONS:
        rules: tuple[Trait | Clause | Axis, ...] = getattr(charter, section)
        parts += [f"## {_HEADS[section]}"] * bool(rules)
        parts += [part for rule in rules for part in _rule(rule)]
    return "\n\n".join(parts) + "\n"


class _Reader:
    """Puts blocks together into a raw charter, and collects what is wrong on the way."""

    def __init__(self) -> None:
        self.raw: Raw = {}
        self.lines: dict[Where, int] = {}
        self.problems: list[Problem] = []
        self.section: Question | None = None
        self.rule: dict[str, object] | None = None
        self.where: Where = ()

    def fenced(self, texts: list[str]) -> list[_Line]:
        """Number the lines, and mark those of fenced blocks. A fence that never ends is a problem, and no fence."""
        lines: list[_Line] = []
        ends = -1
        for index, text in enumerate(texts):
            fenced = index <= ends
            if not fenced and (opening := _FENCE.match(text)):
                ends = _close(texts, index, len(opening[1]))
                if ends < 0:
                    self.problem("the fenced block that starts here never ends", index + 1)
            lines.append(_Line(index + 1, text, fenced))
        return lines

    def problem(self, says: str, line: int) -> None:
        named = str(self.rule["id"]) if self.rule is not None else None
        self.problems.append(Problem(says=says, line=line, rule=named))

    def finished(self) -> Raw:
        if "name" not in self.raw:
            self.rule = None
            self.problem("the charter has no name; wanted '# Name' as its first heading", 1)
            self.raw["name"] = "none"
        return self.raw

    def take(self, block: _Block) -> None:
        if block.kind == "label":
            self.label(block)
        elif block.kind == "start":
            self.nothing(block, "the '# Name' heading")
        elif block.level == 1:
            self.head(block)
        elif block.level == 2:
            self.start_section(block)
        elif block.level == 3:
            self.start_rule(block)
        else:
            self.problem(f"'{'#' * block.level}' headings have no meaning here; rules are '### id'", block.line)

    def nothing(self, block: _Block, where: str) -> None:
        """Text here would be lost, so it is a problem."""
        line = next((line for line in block.body if line.text.strip()), None)
        if line is not None:
            between = "stands before" if block.kind == "start" else "stands straight under"
            self.problem(f"text {between} {where}, where it belongs to nothing", line.number)

    def head(self, block: _Block) -> None:
        if "name" in self.raw:
            self.problem(f"a second '# ' heading, '{block.title}'; a charter has one name", block.line)
            return
        self.raw["name"], self.lines[("name",)] = _untitled(block.title), block.line
        purpose = []
        for line in block.body:
            item = None if line.fenced else _HEAD_ITEM.match(line.text)
            if item is None:
                purpose.append(line)
            else:
                self.head_item(_HEAD_ITEMS[item[1].lower()], item[2], line.number)
        self.raw["purpose"] = self.text(purpose, block.line)

    def head_item(self, field: str, said: str, number: int) -> None:
        self.lines[(field,)] = number
        if field != "version":
            self.raw[field] = [part.strip() for part in said.split(",") if part.strip()]
        elif re.fullmatch(r"[0-9]{1,9}", said):
            self.raw[field] = int(said)
        else:
            self.problem(f"the version '{said}' is not a whole number", number)

    def start_section(self, block: _Block) -> None:
        self.rule = None
        self.section = _SECTIONS.get(block.title.lower())
        if self.section is None:
            heads = ", ".join(f"'## {head}'" for head in _HEADS.values())
            self.problem(f"the heading '## {block.title}' is unknown; wanted one of {heads}", block.line)
        else:
            self.raw.setdefault(self.section, [])
            self.nothing(block, f"'## {block.title}'; write a rule, '### id', first")

    def start_rule(self, block: _Block) -> None:
        match = _RULE.match(block.title)
        rule_id, severity = (match[1], match[2]) if match else (block.title, None)
        self.rule, self.where = {"id": rule_id}, ()
        rules = self.raw.get(self.section or "")
        if isinstance(rules, list):
            self.where = (self.section or "", len(rules))
            self.lines[self.where] = block.line
            rules.append(self.rule)
        elif not any(problem.says.startswith("the heading '##") for problem in self.problems):
            self.problem("a rule before the first section; wanted '## Voice', '## Policy' or '## Fairness'", block.line)
        if severity is not None and self.section != "policy":
            self.problem("only a rule of '## Policy' has a severity", block.line)
        elif severity is not None:
            self.rule["severity"] = severity.strip().lower()
        self.rule["text"] = self.text(block.body, block.line)

    def label(self, block: _Block) -> None:
        field = _field(block.title)
        if self.rule is None:
            self.problem(f"'{block.title}' stands outside a rule", block.line)
            return
        known = RULES[self.section].model_fields if self.section else dict(_LABELS)
        if field is None or field not in known:
            labels = ", ".join(label for name, label in _LABELS.items() if name in known)
            self.problem(f"the label '{block.title}' is unknown here; wanted one of {labels}", block.line)
            return
        self.lines.setdefault((*self.where, field), block.line)
        if field in _VALUES:
            self.value(field, block)
        else:
            said = self.rule.setdefault(field, [])
            assert isinstance(said, list)
            said += [block.rest] if block.rest else []
            said += [self.text(item, block.line) for item in self.items(block)]

    def value(self, field: str, block: _Block) -> None:
        assert self.rule is not None
        if field in self.rule:
            self.problem(f"a second {block.title}; a rule has one", block.line)
        self.rule[field] = _uncoded(block.rest) if block.rest else self.text(block.body, block.line)
        if block.rest:
            self.nothing(block, f"'{block.title}'")

    def items(self, block: _Block) -> Iterator[list[_Line]]:
        """The lines of each item of a list, without its bullet and its indent."""
        item: list[_Line] | None = None
        gap = True
        for line in block.body:
            blank = not line.text.strip(" \t")
            bullet = None if line.fenced else _BULLET.match(line.text)
            if bullet:
                if item is not None:
                    yield item
                item = [line._replace(text=line.text[bullet.end() :])]
            elif not blank and (item is None or (gap and not line.fenced and not line.text.startswith("  "))):
                self.problem(f"text in the list of '{block.title}' that is no entry; start it with '- '", line.number)
            elif item is not None:
                item.append(line._replace(text=line.text.removeprefix("  ")))
            gap = blank and not line.fenced
        if item is not None:
            yield item

    def text(self, lines: list[_Line], number: int) -> str:
        try:
            return _decoded([line.text for line in lines])
        except ValueError as error:
            first = next((line.number for line in lines if line.text.strip()), number)
            self.problem(str(error), first)
            return "unread"


def _close(texts: list[str], start: int, ticks: int) -> int:
    """Index of the line that ends the fenced block begun at `start`; -1 if none does."""
    ends = (at for at in range(start + 1, len(texts)) if re.fullmatch(rf"[ \t]*`{{{ticks},}}[ \t]*", texts[at]))
    return next(ends, -1)


def _blocks(lines: list[_Line]) -> Iterator[_Block]:
    block = _Block("start", 0, "", "", 1, [])
    for line in lines:
        begun = None if line.fenced else _begun(line)
        if begun is None:
            block.body.append(line)
        else:
            yield block
            block = begun
    yield block


def _begun(line: _Line) -> _Block | None:
    """The block that `line` begins, if it begins one."""
    if label := _label(line.text):
        return _Block("label", 0, label[0], label[1], line.number, [])
    if heading := _HEADING.match(line.text):
        return _Block("heading", len(heading[1]), heading[2] or "", "", line.number, [])
    return None


def _label(text: str) -> tuple[str, str] | None:
    """(label, rest of the line): `**Do**`, `**Do:**`, `Do:`, `#### Do`, ``**Marker:** `x` ``."""
    if bold := _BOLD.match(text):
        known, colon = _field(bold[1]), bold[2] or bold[3]
        return (bold[1].strip(), bold[4]) if not bold[4] or (known and (colon or known in _VALUES)) else None
    if (heading := _HEADING.match(text)) and len(heading[1]) == 4:
        return (heading[2] or "").rstrip(":"), ""
    if plain := _PLAIN_LABEL.match(text):
        known = _field(plain[1])
        if known and (not plain[2] or (known in _VALUES and plain[2].startswith("`"))):
            return plain[1], plain[2]
    return None


def _field(label: str) -> str | None:
    return _FIELDS.get(label.strip().lower().replace("’", "'"))


def _decoded(lines: list[str]) -> str:
    """The text that `lines` state. Raises ValueError in words for the author."""
    while lines and not lines[0].strip(" \t"):
        lines = lines[1:]
    while lines and not lines[-1].strip(" \t"):
        lines = lines[:-1]
    fences = [index for index, line in enumerate(lines) if _FENCE.match(line)]
    if not fences:
        return _paragraphs(lines)
    opening = _FENCE.match(lines[0])
    if opening is None or _close(lines, 0, len(opening[1])) != len(lines) - 1:
        raise ValueError("text stands beside a fenced block; put all of it into the block, or none")
    body = "\n".join(lines[1:-1])
    if opening[2].strip().lower() != "json":
        return body
    try:
        said = json.loads(body)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the json block can't be read: {error}") from error
    if not isinstance(said, str):
        raise ValueError("the json block is not a text in quotes")
    return said


def _paragraphs(lines: list[str]) -> str:
    r"""As Markdown reads it: a line's end is a space, an empty line a new paragraph, and a `\` keeps the line's end."""
    said, join = "", ""
    for line in (line.strip(" \t") for line in lines):
        if not line:
            join = "\n\n"
            continue
        if join != "\n\n" and _LISTED.match(line):
            join = "\n" if said else ""
        kept = line.endswith("\\")
        said += join + (line[:-1] if kept else line)
        join = "\n" if kept else " "
    return said + ("\\" if join == "\n" else "")


def _encoded(text: str) -> str:
    plain = _as_paragraphs(text)
    lines = plain.split("\n")
    marks: tuple[Callable[[str], object], ...] = (_HEADING.match, _HEAD_ITEM.match, _FENCE.match, _label)
    if not _hidden(text) and not any(mark(line) for line in lines for mark in marks) and _decoded(lines) == text:
        return plain
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])
    if not _hidden(text) and all(line == line.rstrip() for line in text.split("\n")):
        return f"{fence}text\n{text}\n{fence}"
    return f"{fence}json\n{_quoted(text)}\n{fence}"


def _as_paragraphs(text: str) -> str:
    lines = text.split("\n")
    ends = ["\\" if line and after and not _LISTED.match(after) else "" for line, after in itertools.pairwise(lines)]
    return "\n".join(line + end for line, end in zip(lines, [*ends, ""], strict=True))


def _hidden(text: str) -> bool:
    """Whether an editor could change or lose a character of `text` unseen."""
    return any(unicodedata.category(one) in ("Cc", "Zl", "Zp") for one in text if one not in "\n\t")


def _quoted(text: str) -> str:
    """A JSON string on one line, in which only what can be seen stands for itself."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in quoted)


def _title(name: str) -> str:
    odd = _hidden(name) or "\n" in name or name != name.strip() or name.startswith('"') or not name
    return _quoted(name) if odd else name


def _untitled(title: str) -> str:
    if title.startswith('"'):
        try:
            said = json.loads(title)
        except (json.JSONDecodeError, RecursionError):
            return title
        return said if isinstance(said, str) else title
    return title


def _rule(rule: Trait | Clause | Axis) -> Iterator[str]:
    yield f"### {rule.id} ({rule.severity})" if isinstance(rule, Clause) else f"### {rule.id}"
    yield _encoded(rule.text)
    for field, label in _LABELS.items():
        said: tuple[str, ...] | str | None = getattr(rule, field, None)
        if isinstance(said, str):
            yield from _coded(label, said)
        elif said:
            yield f"**{label}**"
            yield "\n".join(_item(item) for item in said)


def _item(text: str) -> str:
    first, *others = _encoded(text).split("\n")
    return "\n".join([f"- {first}".rstrip(" "), *(f"  {line}" if line else "" for line in others)])


def _coded(label: str, value: str) -> Iterator[str]:
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", value)), default=0) + 1)
    pad = " " if value.startswith(("`", " ")) or value.endswith(("`", " ")) else ""
    code = f"{ticks}{pad}{value}{pad}{ticks}"
    if "\n" not in value and not _hidden(value) and _uncoded(code) == value:
        yield f"**{label}:** {code}"
    else:
        yield f"**{label}**"
        yield _encoded(value)


def _uncoded(code: str) -> str:
    """What stands between code marks, by CommonMark's rule; `code` itself if it has none."""
    match = _CODE.match(code)
    if match is None:
        return code
    inside = match[2]
    padded = len(inside) > 2 and inside[0] == inside[-1] == " " and inside.strip(" ") != ""
    return inside[1:-1] if padded else inside
