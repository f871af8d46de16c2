"""Configs of small runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.models import config_for, short_rows, write_version
from training.types import SftConfig


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., SftConfig]:
    """Makes the config of a run over `rows` (None: six short ones) of the model in folder `base`."""

    def make(rows: list[dict[str, Any]] | None = None, base: Path = Path("/no-model"), **changes: object) -> SftConfig:
        version = write_version(tmp_path / "datasets", short_rows() if rows is None else rows)
        return config_for(tmp_path, version, base, **changes)

    return make
