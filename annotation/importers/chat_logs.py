"""Chat logs into conversations: OpenAI-style and ShareGPT JSON lines, and CSV with a prompt and a reply.

Every line is read on its own: a bad one is refused with its number and a reason, the good ones go in.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from annotation.errors import UserError
from annotation.store import Store
from annotation.store.conversations import ImportedMessage
from annotation.types import Frozen, Message, Provenance, Role

MESSAGE_LIMIT = 200_000
"""Longest message taken, in characters; a longer one is a file that went astray."""
SHAREGPT_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "system": "system",
}
PROMPT_COLUMNS = ("prompt", "question", "user", "instruction", "input")
REPLY_COLUMNS = ("reply", "response", "answer", "assistant", "completion", "output")


class Refused(Frozen):
    """A line that was not taken."""

    line: int
    reason: str


class ImportReport(Frozen):
    """What an import did: conversations added, those already there, and the lines refused."""

    added: int = 0
    already_there: int = 0
    refused: tuple[Refused, ...] = ()

    def sentence(self) -> str:
        """The report in words."""
        parts = [f"{self.added} conversation{'' if self.added == 1 else 's'} added"]
        if self.already_there:
            parts.append(f"{self.already_there} already here")
        if self.refused:
            parts.append(f"{len(self.refused)} line{'' if len(self.refused) == 1 else 's'} refused")
        return ", ".join(parts) + "."


def import_file(
    store: Store, path: Path, name: str | None = None, report: Callable[[float], None] = lambda share: None
) -> ImportReport:
    """Bring in a chat log (`.jsonl` or `.csv`); the same conversation a second time adds nothing.

    `name` stands for the file in the conversations' source. `report` is told the share done, 0 to 1.
    Raises UserError if the file as a whole can't be read.
    """
    text = _read(path)
    lines = list(_csv_lines(text) if path.suffix.lower() == ".csv" else _json_lines(text))
    if not lines:
        raise UserError(f"{path.name} is empty.", "One conversation a line.", "Check that it is the right file.")
    source = f"import:{name or path.name}"[:200]
    added = already = 0
    refused = []
    for done, (number, record) in enumerate(lines, start=1):
        try:
            messages = _messages(record)
        except _BadLine as error:
            refused.append(Refused(line=number, reason=str(error)))
            continue
        if store.conversations.import_one(
            source, _external_id(record, messages), _title(messages), _language(record), messages
        ):
            added += 1
        else:
            already += 1
        report(done / len(lines))
    return ImportReport(added=added, already_there=already, refused=tuple(refused))


class _BadLine(Exception):
    """Why one line is refused."""


def _read(path: Path) -> str:
    wanted = "A .jsonl file with one conversation a line, or a .csv file with a prompt and a reply column, in UTF-8."
    if path.suffix.lower() not in (".jsonl", ".ndjson", ".csv"):
        raise UserError(f"{path.name} is not a kind of file that can be imported.", wanted, "Save it as one of these.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.", wanted, "Check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 text.", wanted, "Save it as UTF-8 and try again.") from error


def _json_lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                yield number, _BadLine(f"not JSON: {error.msg} at character {error.colno}")


def _csv_lines(text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    prompt = next((columns[name] for name in PROMPT_COLUMNS if name in columns), None)
    reply = next((columns[name] for name in REPLY_COLUMNS if name in columns), None)
    if prompt is None or reply is None:
        raise UserError(
            f"The first line names these columns: {', '.join(columns) or 'none'}.",
            f"One of {', '.join(PROMPT_COLUMNS)} and one of {', '.join(REPLY_COLUMNS)}.",
            "Rename the columns and try again.",
        )
    start = 2
    for row in reader:
        messages = [{"role": "user", "content": row[prompt]}, {"role": "assistant", "content": row[reply]}]
        yield start, {"messages": messages, "id": row.get("id")}
        start = reader.line_num + 1


def _messages(record: Any) -> list[ImportedMessage]:
    if isinstance(record, _BadLine):
        raise record
    if not isinstance(record, dict):
        raise _BadLine("not an object with 'messages'")
    raw = record.get("messages", record.get("conversations", record.get("conversation")))
    if not isinstance(raw, list) or not raw:
        raise _BadLine("no 'messages' (or 'conversations') list in it")
    messages = [_message(position, entry, record) for position, entry in enumerate(raw, start=1)]
    roles = [message.role for message, _ in messages]
    if "user" not in roles:
        raise _BadLine("no message from a user")
    if "system" in roles[1:]:
        raise _BadLine("a system message after the first place")
    turns = [role for role in roles if role != "system"]
    if any(first == second for first, second in itertools.pairwise(turns)):
        raise _BadLine("two messages in a row by the same side")
    return messages


def _message(position: int, entry: Any, record: dict[str, Any]) -> ImportedMessage:
    if not isinstance(entry, dict):
        raise _BadLine(f"message {position} is not an object")
    role = SHAREGPT_ROLES.get(str(entry.get("role", entry.get("from", ""))).lower())
    text = entry.get("content", entry.get("value", entry.get("text")))
    if role is None:
        raise _BadLine(f"message {position} has the role {entry.get('role', entry.get('from'))!r}")
    if not isinstance(text, str) or not text.strip():
        raise _BadLine(f"message {position} has no text")
    if len(text) > MESSAGE_LIMIT:
        raise _BadLine(f"message {position} has {len(text):,} characters, the limit is {MESSAGE_LIMIT:,}")
    if "\x00" in text:
        raise _BadLine(f"message {position} has a NUL character")
    model = entry.get("model", record.get("model"))
    known = role == "assistant" and isinstance(model, str) and bool(model)
    return Message(role=role, text=text), Provenance(model=str(model)) if known else None


def _external_id(record: dict[str, Any], messages: list[ImportedMessage]) -> str:
    for key in ("id", "conversation_id", "external_id"):
        if record.get(key) not in (None, ""):
            return str(record[key])[:200]
    content = json.dumps([message.as_chat() for message, _ in messages], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def _title(messages: list[ImportedMessage]) -> str:
    return next(message.text for message, _ in messages if message.role == "user")


def _language(record: dict[str, Any]) -> str | None:
    language = record.get("language")
    return language[:35] if isinstance(language, str) and language else None
