"""The probe after a load: what an adapter moves is measured, a base that moves is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotation.errors import UserError
from serving import probe
from serving.adapters import AdapterServer, Base
from serving.client import Client
from serving.memory import Memory
from tests.serving.conftest import SHAPES, FakeEngine, Peer, make_adapter, write_tensors


@pytest.fixture
def fake(peer: Peer) -> FakeEngine:
    peer.answer = engine = FakeEngine(peer)
    return engine


@pytest.fixture
def serving(tmp_path: Path, peer: Peer, fake: FakeEngine) -> AdapterServer:
    (tmp_path / "base").mkdir()
    write_tensors(tmp_path / "base" / "model.safetensors", SHAPES)
    make_adapter(tmp_path / "adapters", "a-0")
    base = Base(name="Small", folder=tmp_path / "base")
    return AdapterServer(Client(peer.url), tmp_path / "adapters", Memory(tmp_path / "serving.json"), base, 2)


@pytest.mark.parametrize("moves", [0.0, 0.25])
def test_the_effect_of_an_adapter_is_measured_and_remembered(
    serving: AdapterServer, fake: FakeEngine, tmp_path: Path, moves: float
) -> None:
    fake.moves["a-0"] = moves
    assert serving.measure("a-0") == pytest.approx(moves)
    assert Memory(tmp_path / "serving.json").read().effects == {"a-0": pytest.approx(moves)}
    assert fake.held == ["a-0"]


def test_a_base_that_changed_by_a_load_is_told(peer: Peer, fake: FakeEngine) -> None:
    before = probe.scores(Client(peer.url), "base")
    fake.moves["base"] = 2e-3
    with pytest.raises(UserError, match="Loading a-0 changed how the base model itself answers"):
        probe.effect(Client(peer.url), "a-0", before)
    assert probe.effect(Client(peer.url), "a-0", before, tolerance=probe.UNCHANGED_HALF) == pytest.approx(2e-3)
