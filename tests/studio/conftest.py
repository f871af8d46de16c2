"""A small project on an engine that says what a test wants it to."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from annotation.store import open_store
from studio.cli.app import app
from studio.cli.errors import run
from studio.settings import Settings
from tests.serving.conftest import SHAPES, FakeEngine, Peer, make_adapter, running_peer, write_tensors

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process, on a project of its own; gives exit code, output and complaints."""
    monkeypatch.setenv("TONESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TONESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "400")

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tonesmith", *words])
        code = run(app)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as found:
        yield found


@pytest.fixture
def fake(peer: Peer) -> FakeEngine:
    peer.answer = engine = FakeEngine(peer)
    return engine


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables made, which takes half a second; a copy is as good."""
    path = tmp_path_factory.mktemp("store") / "tonesmith.db"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def settings(tmp_path: Path, peer: Peer, empty_store: Path) -> Settings:
    """A project with adapters a-0 to d-0 on an engine with three places."""
    folder = tmp_path / "Small"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_tensors(folder / "model.safetensors", SHAPES)
    for name in ("a-0", "b-0", "c-0", "d-0"):
        make_adapter(tmp_path / "home" / "adapters", name)
    shutil.copyfile(empty_store, tmp_path / "home" / empty_store.name)
    return Settings(
        home=tmp_path / "home",
        cache=tmp_path / "cache",
        base_model=str(folder),
        engine_url=peer.url,
        max_adapters=3,
        person="owner",
    )
