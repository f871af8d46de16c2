"""The charter as a file: TOML for those who keep it beside code, Markdown for those who write policy."""

from __future__ import annotations

from pathlib import Path

from annotation.charter.markdown_form import parse_markdown, write_markdown
from annotation.charter.toml_form import parse_toml, write_toml
from annotation.errors import UserError
from annotation.types import Charter

__all__ = ["parse_markdown", "parse_toml", "read_charter", "write_markdown", "write_toml"]

MOST_BYTES = 2_000_000
"""Far above any house rules that people read; a larger file is something else."""


def read_charter(path: Path) -> Charter:
    """Read a charter from a `.toml` or a `.md` file.

    Raises UserError if it is not there or is no text, or with the line and the rule of every problem, up to ten.
    """
    parse = {".toml": parse_toml, ".md": parse_markdown, ".markdown": parse_markdown}.get(path.suffix.lower())
    if parse is None:
        raise UserError(f"{path} is neither TOML nor Markdown.", "A charter in a .toml or a .md file.")
    return parse(_text(path), str(path))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} is larger than {MOST_BYTES // 1_000_000} MB.", "A charter people can read.")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.", "A charter in TOML or Markdown.", "Check the path.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}.", do="Check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}.", do="Save it as UTF-8 and try again.") from error
