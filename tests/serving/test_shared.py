"""An engine that two studios share: each gets its own weights, and neither takes out the other's without need."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotation.errors import UserError
from serving import stand_in
from serving.client import Client
from serving.fitting import Base, base_shapes, tensor_shapes
from serving.memory import Memory
from serving.shared import SharedAdapters
from tests.serving.conftest import SHAPES, FakeEngine, Peer, keep_lineage, make_adapter, write_tensors


@pytest.fixture
def fake(peer: Peer) -> FakeEngine:
    peer.answer = engine = FakeEngine(peer)
    return engine


@pytest.fixture
def base(tmp_path: Path) -> Base:
    (tmp_path / "base").mkdir()
    write_tensors(tmp_path / "base" / "model.safetensors", SHAPES)
    return Base(name="Small", folder=tmp_path / "base")


def studio(peer: Peer, home: Path, base: Base, *names: str, kept: dict[str, str] | None = None) -> SharedAdapters:
    """One of two, with adapters of these names and room for two in the engine."""
    for name in names:
        make_adapter(home / "adapters", name)
    memory = Memory(home / "serving.json")
    return SharedAdapters(Client(peer.url), home / "adapters", memory, base, 2, lambda: kept or {})


def test_what_another_studio_loaded_is_no_stray_and_makes_room_last(
    peer: Peer, fake: FakeEngine, tmp_path: Path, base: Base
) -> None:
    mine = studio(peer, tmp_path / "mine", base, "a-0", "b-0")
    other = studio(peer, tmp_path / "other", base, "x-0")
    other.load("x-0")
    for name in ("a-0", "b-0"):
        mine.load(name)
    assert sorted(fake.held) == ["b-0", "x-0"], "a made room, though x was used longest ago"
    assert mine.drift() is not None
    assert not mine.drift()
    assert (mine.loaded(), mine.at_hand()) == (["b-0"], ["a-0", "b-0"])
    mine.ensure_there("a-0")
    assert sorted(fake.held) == ["a-0", "x-0"]


def test_only_what_is_asked_for_takes_anothers_place_and_that_is_said(
    peer: Peer, fake: FakeEngine, tmp_path: Path, base: Base, caplog: pytest.LogCaptureFixture
) -> None:
    other = studio(peer, tmp_path / "other", base, "x-0", "y-0")
    for name in ("x-0", "y-0"):
        other.load(name)
    mine = studio(peer, tmp_path / "mine", base, "a-0")
    assert mine.offer_new() == {"a-0": ""}
    assert (fake.held, mine.loaded(), mine.at_hand()) == (["x-0", "y-0"], [], ["a-0"])
    mine.ensure_there("a-0")
    assert "x-0, which somebody else loaded at" in caplog.text
    assert fake.held == ["y-0", "a-0"]
    other.ensure_there("x-0")
    assert sorted(fake.held) == ["a-0", "x-0"], "and the other studio makes room among its own first"


def test_what_was_pushed_out_comes_back_by_itself_where_there_is_room(
    peer: Peer, fake: FakeEngine, tmp_path: Path, base: Base
) -> None:
    mine = studio(peer, tmp_path / "mine", base, "a-0", "b-0", kept={"b-0": "what customers get"})
    mine.load("a-0")
    mine.load("b-0")
    fake.held = ["x-0"]
    drift = mine.drift()
    assert drift is not None
    assert drift.lacks == ("b-0",), "room for one only, and people rely on this one"
    assert mine.repair(drift) == {}
    assert fake.held == ["x-0", "b-0"]
    fake.held = []
    assert mine.restore() == {}
    assert sorted(fake.held) == ["a-0", "b-0"]


def test_a_name_that_stands_for_other_weights_is_never_asked(
    peer: Peer, fake: FakeEngine, tmp_path: Path, base: Base
) -> None:
    mine, other = (studio(peer, tmp_path / name, base, "a-0") for name in ("mine", "other"))
    other.load("a-0")
    mine.ensure_there("a-0")  # the same weights from another folder are the same
    assert len([path for path, _ in peer.asked if path == "/v1/load_lora_adapter"]) == 1
    folder = tmp_path / "other" / "adapters" / "a-0"
    write_tensors(folder / "adapter_model.safetensors", {"x": [1, 1]})
    keep_lineage(folder, "Small", 4)
    with pytest.raises(UserError, match="The engine holds another adapter under the name a-0, from"):
        mine.ensure_there("a-0")


def test_a_stand_in_fits_the_base_and_belongs_to_nobody(
    peer: Peer, fake: FakeEngine, tmp_path: Path, base: Base
) -> None:
    folder = stand_in.make(tmp_path / "engine", base_shapes(base.folder))
    assert folder == stand_in.make(tmp_path / "engine", base_shapes(base.folder))
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    assert tensor_shapes(folder / "adapter_model.safetensors") == {
        f"{layer}.lora_A.weight": [1, 8],
        f"{layer}.lora_B.weight": [16, 1],
    }
    engine = Client(peer.url)
    assert stand_in.put_in(engine, folder) == stand_in.put_in(engine, folder) == folder.name
    assert fake.held == [folder.name]
    mine = studio(peer, tmp_path / "mine", base, "a-0", "b-0", "c-0")
    for name in ("a-0", "b-0", "c-0"):
        mine.load(name)
    assert fake.held == [folder.name, "b-0", "c-0"]


def test_where_the_stand_in_is_refused_the_base_is_asked_only_while_no_adapter_is_there(
    peer: Peer, fake: FakeEngine, tmp_path: Path, base: Base
) -> None:
    folder = stand_in.make(tmp_path / "engine", base_shapes(base.folder))
    fake.refuses = "no such folder"
    assert stand_in.put_in(Client(peer.url), folder) == ""
    fake.held = ["x-0"]
    with pytest.raises(UserError, match=r"may answer the base in an adapter's voice.*no such folder"):
        stand_in.put_in(Client(peer.url), folder)


def test_a_model_without_a_layer_to_fit_has_no_stand_in(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no layer that an adapter is known to fit"):
        stand_in.make(tmp_path, {"embed.weight": [4, 4]})
