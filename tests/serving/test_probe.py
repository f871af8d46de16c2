"""The probe after a load: what an adapter moves is measured, a base that moves is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation.errors import UserError
from serving import probe
from serving.adapters import AdapterServer
from serving.client import Client
from serving.fitting import Base
from serving.memory import Memory
from tests.serving.conftest import SHAPES, FakeEngine, Peer, make_adapter, write_tensors
from training import registry
from training.types import Scored


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


def test_a_base_that_changed_by_a_load_is_told(serving: AdapterServer, fake: FakeEngine) -> None:
    fake.moves_on_load = {"base": 2e-3}
    with pytest.raises(UserError, match="Loading a-0 changed how the base model itself answers"):
        serving.measure("a-0")
    assert fake.held == []
    fake.moves.clear()
    assert serving.measure("a-0", probe.UNCHANGED_HALF) == pytest.approx(2e-3)


def test_a_base_that_changed_is_told_also_of_an_engine_of_ours(serving: AdapterServer, fake: FakeEngine) -> None:
    """There a load is measured later; what the base said before is remembered from the engine's start."""
    assert serving.restore() == {}
    fake.moves_on_load = {"base": 2e-3}
    serving.load("a-0")
    with pytest.raises(probe.Unsound, match="Loading a-0 changed how the base model itself answers"):
        serving.measure_again("a-0")
    assert fake.held == []


def test_what_people_rely_on_stays_in_though_it_is_unsound(
    serving: AdapterServer, fake: FakeEngine, tmp_path: Path
) -> None:
    serving._kept = lambda: {"a-0": "what customers get"}
    serving.load("a-0")
    scored(tmp_path / "adapters" / "a-0", tuned=-7.0)
    with pytest.raises(probe.Unsound):
        serving.measure_again("a-0")
    assert fake.held == ["a-0"]


def test_an_engine_that_words_requests_otherwise_is_told_before_the_load(
    serving: AdapterServer, fake: FakeEngine, peer: Peer, tmp_path: Path
) -> None:
    scored(tmp_path / "adapters" / "a-0", ids=(1, 2, 9, 4))
    with pytest.raises(probe.Unsound, match=r"worded otherwise than this engine words them.*chat template"):
        serving.load("a-0")
    assert not [path for path, body in peer.asked if "lora_name" in body]


def test_measuring_again_asks_the_base_once_and_is_no_use(serving: AdapterServer, peer: Peer, tmp_path: Path) -> None:
    serving.measure("a-0")
    used, asked = Memory(tmp_path / "serving.json").read().used, len(peer.asked)
    assert serving.measure_again("a-0") == pytest.approx(0)
    assert Memory(tmp_path / "serving.json").read().used == used
    scored = [body["model"] for path, body in peer.asked[asked:] if path == "/v1/completions"]
    assert scored == ["base", "a-0"]


def test_an_engine_that_tells_no_scores_still_loads(serving: AdapterServer, fake: FakeEngine) -> None:
    fake.silent = True
    assert serving.measure("a-0") is None
    assert fake.held == ["a-0"]


IDS = (1, 2, 3, 4)
"""The engine renders every request as the first three."""


def scored(folder: Path, base: float = -1.0, tuned: float = -1.5, ids: tuple[int, ...] = IDS) -> None:
    """Have the adapter in `folder` say how its trainer saw it."""
    one = Scored(asked="Hello", ids=ids, prompt=3, base=(base,) * 3, tuned=(tuned,) * 3)
    adapter = registry.read(folder).model_copy(update={"scored": (one,)})
    (folder / "lineage.json").write_text(adapter.model_dump_json())


@pytest.mark.parametrize(
    ("trained", "apart", "same", "holds"),
    [
        ({}, 0.0, True, True),
        ({"tuned": -1.6}, 0.1, True, False),
        ({"base": -1.2}, 0.2, True, False),
        ({"ids": (1, 2, 9, 4)}, 0.0, False, False),
    ],
)
def test_what_is_served_is_held_against_what_was_trained(
    serving: AdapterServer,
    fake: FakeEngine,
    tmp_path: Path,
    trained: dict[str, Any],
    apart: float,
    same: bool,
    holds: bool,
) -> None:
    fake.moves["a-0"] = -0.5
    serving.load("a-0")  # its account changes while it is in, so that it is the measurement that tells
    scored(tmp_path / "adapters" / "a-0", **trained)
    if holds:
        assert serving.measure_again("a-0") == pytest.approx(0.5)
    else:
        with pytest.raises(probe.Unsound, match="not served as it was trained" if same else "worded otherwise"):
            serving.measure_again("a-0")
    assert fake.held == (["a-0"] if holds else []), "what is not served as it was trained is taken out"
    found = Memory(tmp_path / "serving.json").read().parities["a-0"]
    assert (found.same_prompt, found.holds) == (same, holds)
    assert found.apart == pytest.approx(apart)


def account(size: float, noise: float, strength: float) -> tuple[probe.Parity, float]:
    """What is found of an adapter whose training moved three texts by `size` nats a token, on an engine that is off by
    `noise` and applies `strength` of it; and how far off its scores are.
    """
    dice = np.random.default_rng(4)

    def about(what: np.ndarray, off: float) -> list[np.ndarray]:
        return np.split(what + off * dice.standard_normal(90), 3)

    then = -dice.exponential(2.0, 90)
    change = size * dice.choice([-1.0, 1.0], 90)
    base, tuned = about(then, noise), about(then + strength * change, noise)
    asked = (base, tuned, about(then, 0), about(then + change, 0))
    scored = [
        Scored(asked="", ids=(0, *range(30)), prompt=1, base=tuple(one), tuned=tuple(other))
        for one, other in zip(*asked[2:], strict=True)
    ]
    found = probe.compared(scored, base, tuned, probe.UNCHANGED_HALF)
    return found, max(probe.apart(base, asked[2]), probe.apart(tuned, asked[3]))


@pytest.mark.parametrize(
    ("size", "noise", "strength", "holds", "told"),
    [
        (0.5, 0.01, 1.0, True, True),
        (0.5, 0.01, 0.0, False, True),
        (0.04, 0.01, 1.0, True, True),
        (0.04, 0.01, 0.0, False, True),  # within the tolerance, and not applied
        (0.04, 0.01, -1.0, False, True),
        (0.04, 0.0, 0.0, False, True),  # another adapter's name for the base
        (0.001, 0.02, 1.0, True, False),
        (0.001, 0.02, 0.0, True, False),
        (0.0, 0.01, 1.0, True, False),
        (0.001, 1e-6, 1.0, True, True),
    ],
)
def test_within_the_tolerance_an_adapter_must_still_be_seen_to_be_applied(
    size: float, noise: float, strength: float, holds: bool, told: bool
) -> None:
    found, off = account(size, noise, strength)
    assert (found.holds, found.told) == (holds, told)
    assert found.apart == pytest.approx(off)
    assert off <= probe.UNCHANGED_HALF or size == 0.5 or strength < 0


def test_an_adapter_that_is_left_out_is_taken_out_though_all_scores_are_within_the_tolerance(
    serving: AdapterServer, fake: FakeEngine, tmp_path: Path
) -> None:
    serving.load("a-0")
    scored(tmp_path / "adapters" / "a-0", tuned=-1.04)
    with pytest.raises(probe.Unsound, match="not served as it was trained"):
        serving.measure_again("a-0", probe.UNCHANGED_HALF)
    assert fake.held == []
    scored(tmp_path / "adapters" / "a-0", tuned=-1.0)
    serving.load("a-0")
    serving.measure_again("a-0", probe.UNCHANGED_HALF)
    found = Memory(tmp_path / "serving.json").read().parities["a-0"]
    assert (found.holds, found.told) == (True, False)


def test_an_adapter_without_its_trainers_account_has_no_parity(serving: AdapterServer, tmp_path: Path) -> None:
    serving.measure("a-0")
    assert Memory(tmp_path / "serving.json").read().parities == {}
