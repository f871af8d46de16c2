"""The shape of the house: imports run one way, and nothing heavy loads for the page or `--help`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("annotation", "training", "serving", "studio")
"""Each may import itself and those before it."""
HEAVY = ("torch", "transformers", "trl", "peft", "vllm", "datasets", "accelerate", "argilla")
CHILDREN = {
    "training/sft.py",
    "training/parity.py",
    "training/callbacks.py",
    "training/convert.py",
    "serving/vllm_plugin.py",
    "studio/demo/make.py",  # made the demo's data, once; nothing imports it
}
"""Files that run only in a process of their own."""


def modules() -> list[Path]:
    return [path for room in ORDER for path in sorted((ROOT / room).rglob("*.py")) if "migrations" not in path.parts]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    later = ORDER[ORDER.index(room) + 1 :]
    assert [name for name in imported(path) if name.split(".")[0] in later] == []


def test_only_the_child_processes_name_heavy_libraries() -> None:
    named = {
        str(path.relative_to(ROOT)) for path in modules() for name in imported(path) if name.split(".")[0] in HEAVY
    }
    assert named <= CHILDREN, named - CHILDREN


def loaded_by(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_page_loads_nothing_heavy() -> None:
    late = {"scipy", "statsmodels"}  # needed for figures alone, and seconds long
    assert loaded_by("import studio.app, studio.server, studio.services").isdisjoint({*HEAVY, *late})


def test_help_loads_neither_the_page_nor_the_store() -> None:
    assert loaded_by("import studio.__main__").isdisjoint({*HEAVY, "gradio", "sqlalchemy", "alembic", "pandas"})


def test_no_machine_path_or_registry_host_is_written_down() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    kinds = {".py", ".toml", ".sh", ".md", ".txt", ".yml", ".css", ".js", ""}
    texts = [ROOT / name for name in listed if name and Path(name).suffix in kinds and (ROOT / name).is_file()]
    signs = ("/work/" + "main", "/opt/" + "wheels", "files.python" + "hosted", "pypi" + ".org/simple")
    found = [(path.name, sign) for path in texts for sign in signs if sign in path.read_text(errors="replace")]
    assert found == []
