"""What all tests share: the base model, one real run, one real engine, a real studio and a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["tests.fixtures.models", "tests.fixtures.engines", "tests.fixtures.studio", "tests.fixtures.argilla"]

TESTS = Path(__file__).parent
SHARED = {"engine", "trained_run"}
"""Fixtures that take minutes and half the machine: the files that use them stay in one process, one after the other."""
FIRST = ("shared", "annotation/test_argilla_sync.py", "annotation/test_argilla_search.py", "end_to_end/test_loop.py")
"""What takes longest begins first, so that neither of two processes is left alone for long at the end."""


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups at its own turn
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes share the tests file by file (`pytest -n 2 --dist loadgroup`), the slow ones first."""
    sharing = {item.path for item in items if SHARED & set(getattr(item, "fixturenames", ()))}

    def group(item: pytest.Item) -> str:
        return "shared" if item.path in sharing else item.path.relative_to(TESTS).as_posix()

    def turn(item: pytest.Item) -> tuple[int, bool]:
        name = group(item)
        return FIRST.index(name) if name in FIRST else len(FIRST), item.get_closest_marker("slow") is None

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=turn)
