"""What all tests share: the base model, one real run, one real engine, a real studio and a real browser."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.fixtures.models", "tests.fixtures.engines", "tests.fixtures.studio", "tests.fixtures.argilla"]

SHARED = {"engine", "trained_run"}
"""Fixtures that take minutes and the whole machine; what uses them stays in one process."""
SHARING = (
    "tests/serving/test_real_replicas.py",  # with engines of its own
    "tests/serving/test_no_pane_lies.py",
    "tests/serving/test_real_engine.py",
    "tests/serving/test_sleeping.py",
    "tests/studio/test_real_api.py",
    "tests/studio/test_real_judge.py",
    "tests/serving/test_trained_adapter.py",
    "tests/training/test_real_runs.py",
    "tests/end_to_end/test_loop.py",  # with an engine and a run of its own
)
"""In this order: what trains comes last, when the other process is nearly done. A step waits for its slowest thread, so
beside other work it takes three times as long.
"""
FIRST = (*SHARING, "tests/annotation/test_argilla_sync.py", "tests/annotation/test_argilla_search.py")
"""What takes longest begins first, so that neither of two processes is left alone for long at the end."""


def file_of(nodeid: str) -> str:
    """The file a test is in, from the root."""
    return nodeid.split("::", 1)[0]


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process whole files, and all that share an engine to one."""

    def _split_scope(self, nodeid: str) -> str:
        return "shared" if file_of(nodeid) in SHARING else file_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """For `pytest -n 2`."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first, the longest before all."""

    def turn(item: pytest.Item) -> tuple[int, bool]:
        name = file_of(item.nodeid)
        return FIRST.index(name) if name in FIRST else len(FIRST), item.get_closest_marker("slow") is None

    slow = [item for item in items if item.get_closest_marker("slow")]
    sharing = {file_of(item.nodeid) for item in slow if SHARED & set(getattr(item, "fixturenames", ()))}
    if missing := sharing.difference(SHARING):
        raise pytest.UsageError(f"{missing} share an engine: name them in SHARING, or two would be started.")
    items.sort(key=turn)
