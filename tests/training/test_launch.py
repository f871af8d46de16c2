"""The surroundings of the processes that train and that make the base model ready."""

from __future__ import annotations

import os

import pytest

from training import base_model, launch


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an engine's libraries were preloaded: two OpenMPs in one process, and the trainer may stall or crash."""
    monkeypatch.setenv("LD_PRELOAD", "/nowhere/libiomp5.so")


@pytest.mark.usefixtures("preloaded")
def test_the_trainer_gets_none_of_the_engines_libraries() -> None:
    assert os.environ.keys() - launch._environment().keys() == {"LD_PRELOAD"}


@pytest.mark.usefixtures("preloaded")
def test_what_makes_the_base_model_ready_gets_none_either() -> None:
    assert base_model._run(["-c", "import os; print('LD_PRELOAD' in os.environ)"], "").strip() == "False"
