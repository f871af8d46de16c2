"""The documents name only what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from studio.cli.app import app
from studio.settings import Settings

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "studio" / "demo" / "README.md"])


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param.read_text(encoding="utf-8"))


def test_every_command_exists(text: str) -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"tonesmith ([a-z][a-z-]+)\b(?! is| lets| trains)", code(text))) <= known


def test_every_make_target_exists(text: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", code(text))) <= targets


def test_every_setting_exists(text: str) -> None:
    known = {f"TONESMITH_{name.upper()}" for name in Settings.model_fields} | {"TONESMITH_CHROMIUM"}
    assert set(re.findall(r"TONESMITH_[A-Z_]+", text)) <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def code(text: str) -> str:
    """What stands in code blocks and between backticks."""
    return "\n".join([*re.findall(r"```.*?```", text, re.DOTALL), *re.findall(r"`[^`\n]+`", text)])
