"""Adapters: what is refused before it reaches the engine, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from annotation.errors import NotFound, UserError
from serving.adapters import AdapterServer, Drift
from serving.client import Client
from serving.fitting import Base, check, misfit, tensor_shapes
from serving.memory import Memory
from tests.serving.conftest import SHAPES, FakeEngine, Peer, keep_lineage, make_adapter, running_peer, write_tensors
from training.weights import digest


@pytest.fixture
def base(tmp_path: Path) -> Base:
    folder = tmp_path / "base"
    folder.mkdir()
    write_tensors(folder / "model.safetensors", SHAPES)
    return Base(name="Small", folder=folder)


@pytest.fixture
def fake(peer: Peer) -> FakeEngine:
    peer.answer = engine = FakeEngine(peer)
    return engine


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def server(peer: Peer, tmp_path: Path, base: Base, room: int = 4) -> AdapterServer:
    return AdapterServer(
        Client(peer.url), tmp_path / "adapters", Memory(tmp_path / "engine" / "serving.json"), base, room
    )


# What is refused


def test_a_sound_adapter_passes(tmp_path: Path, base: Base) -> None:
    check(make_adapter(tmp_path), base)


def test_an_adapter_of_other_weights_under_the_same_name_is_refused(tmp_path: Path, base: Base) -> None:
    trained = make_adapter(tmp_path).model_copy(update={"base_sha256": digest(base.folder)})
    check(trained, base.model_copy(update={"sha256": digest(base.folder)}))
    with pytest.raises(UserError, match=r"was trained on other weights of Small \(hash [0-9a-f]{12}"):
        check(trained, base.model_copy(update={"sha256": "0" * 64}))


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, base: Base) -> None:
    with pytest.raises(UserError, match=r"was trained on Other.*served: Small"):
        check(make_adapter(tmp_path, base_name="Other"), base)


def test_an_adapter_of_another_revision_is_refused(tmp_path: Path, base: Base) -> None:
    with pytest.raises(UserError, match=r"was trained on Small.*served: Small at abc"):
        check(make_adapter(tmp_path), base.model_copy(update={"revision": "abc"}))


@pytest.mark.parametrize("settings", [{"rank": 64}, {"rank_pattern": {"q_proj": 64}}])
def test_too_high_a_rank_is_refused(tmp_path: Path, base: Base, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"has rank 64.*At most 32"):
        check(make_adapter(tmp_path, **settings), base)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"layer_replication": [[0, 1]]},
        {"alora_invocation_tokens": [1]},
        {"trainable_token_indices": [5]},
        {"init_lora_weights": "pissa_niter_4"},
        {"peft_type": "LOHA"},
    ],
)
def test_what_vllm_would_serve_wrongly_is_refused(tmp_path: Path, base: Base, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="A plain LoRA adapter"):
        check(make_adapter(tmp_path, **settings), base)


@pytest.mark.parametrize("settings", [{"use_rslora": True}, {"init_lora_weights": "gaussian"}, {"lora_dropout": 0.1}])
def test_what_vllm_serves_rightly_passes(tmp_path: Path, base: Base, settings: dict[str, Any]) -> None:
    check(make_adapter(tmp_path, **settings), base)


def test_changed_weights_are_refused(tmp_path: Path, base: Base) -> None:
    adapter = make_adapter(tmp_path)
    weights = adapter.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match="missing or damaged"):
        check(adapter, base)


@pytest.mark.parametrize("left", [0, 5, 100, -4])
def test_weights_that_are_cut_short_are_refused_even_if_the_lineage_agrees(
    tmp_path: Path, base: Base, left: int
) -> None:
    folder = make_adapter(tmp_path).path
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(UserError, match="missing or damaged"):
        check(keep_lineage(folder, "Small", 4), base)


def test_missing_weights_are_refused(tmp_path: Path, base: Base) -> None:
    adapter = make_adapter(tmp_path)
    (adapter.path / "adapter_model.safetensors").unlink()
    (adapter.path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match="missing or damaged"):
        check(adapter, base)


def test_a_broken_config_is_refused(tmp_path: Path, base: Base) -> None:
    adapter = make_adapter(tmp_path)
    (adapter.path / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match=r"no readable adapter_config\.json"):
        check(adapter, base)


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ({"model.layers.0.self_attn.q_proj.weight": [16, 9]}, "is 8 wide in the model, 9 in the adapter"),
        ({"model.layers.0.self_attn.q_proj.weight": [8, 8]}, "is 16 wide in the model, 8 in the adapter"),
        ({"model.layers.7.self_attn.q_proj.weight": [16, 8]}, "the model has no layer for"),
        ({}, "it has no weights"),
    ],
)
def test_an_adapter_that_only_claims_the_base_is_refused(
    tmp_path: Path, base: Base, shapes: dict[str, list[int]], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        check(make_adapter(tmp_path, base=shapes), base)


WORDS = {"model": {"vocab": {"a": 0, "b": 1}, "merges": ["a b"]}, "added_tokens": [{"id": 2, "content": "</s>"}]}
MERGES = {"model": {"vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}, "version": "1.0"} | {
    "added_tokens": [{"id": 2, "content": "</s>", "special": True}]
}
"""The same tokenizer as another release writes it."""


@pytest.mark.parametrize(
    ("file", "own", "what"),
    [
        ("tokenizer.json", json.dumps(WORDS | {"added_tokens": []}), "tokenizer"),
        ("tokenizer.json", json.dumps(WORDS | {"model": {"vocab": {"a": 1, "b": 0}, "merges": ["a b"]}}), "tokenizer"),
        ("tokenizer.json", json.dumps(MERGES), ""),
        ("chat_template.jinja", "{{ messages }}!", "chat template"),
        ("chat_template.jinja", "{{ messages }}\n", ""),
        ("tokenizer_config.json", json.dumps({"chat_template": "{{ messages }}!"}), "chat template"),
        ("tokenizer_config.json", json.dumps({"eos_token": "</s>"}), ""),
    ],
)
def test_another_tokenizer_or_template_than_the_bases_is_refused(
    tmp_path: Path, base: Base, file: str, own: str, what: str
) -> None:
    (base.folder / "tokenizer.json").write_text(json.dumps(WORDS))
    (base.folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    adapter = make_adapter(tmp_path)
    (adapter.path / file).write_text(own)
    if what:
        with pytest.raises(UserError, match=f"r1-0 has another {what} than Small.*the engine uses no other"):
            check(adapter, base)
    else:
        check(adapter, base)


def test_a_tensor_that_is_no_lora_matrix_is_a_misfit() -> None:
    assert misfit({"base_model.model.model.embed_tokens.weight": [9, 9]}, SHAPES)


def test_shapes_are_read_without_the_tensors(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", SHAPES)
    assert tensor_shapes(tmp_path / "x.safetensors") == SHAPES


# What is loaded


def test_load_list_unload(tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine) -> None:
    serving = server(peer, tmp_path, base)
    adapter = make_adapter(tmp_path / "adapters")
    serving.load(adapter.name)
    assert serving.loaded() == [adapter.name]
    assert Path(fake.paths[adapter.name]).is_absolute()
    serving.unload(adapter.name)
    assert serving.loaded() == []


def test_loading_twice_changes_nothing(tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine) -> None:
    serving = server(peer, tmp_path, base)
    make_adapter(tmp_path / "adapters")
    assert serving.load("r1-0") == serving.load("r1-0")
    assert fake.held == ["r1-0"]


def test_unloading_what_is_not_loaded_changes_nothing(tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine) -> None:
    server(peer, tmp_path, base).unload("r1-0")
    assert fake.held == []


def test_an_adapter_that_is_not_there_is_not_found(tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine) -> None:
    with pytest.raises(NotFound, match="There is no adapter 'x'"):
        server(peer, tmp_path, base).load("x")


def test_the_one_loaded_longest_ago_makes_room(tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine) -> None:
    serving = server(peer, tmp_path, base, room=2)
    for name in ("a-0", "b-0", "c-0"):
        make_adapter(tmp_path / "adapters", name)
    for name in ("a-0", "b-0", "a-0", "c-0"):  # a is asked for again, so b has waited longest
        serving.load(name)
    assert sorted(fake.held) == ["a-0", "c-0"]


def test_what_somebody_else_loaded_makes_room_first(tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine) -> None:
    serving = server(peer, tmp_path, base, room=2)
    for name in ("a-0", "b-0"):
        make_adapter(tmp_path / "adapters", name)
    serving.load("a-0")
    fake.held.append("stranger")
    serving.load("b-0")
    assert sorted(fake.held) == ["a-0", "b-0"]


def test_a_restarted_engine_gets_back_what_it_held(tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine) -> None:
    for name in ("a-0", "b-0", "c-0"):
        make_adapter(tmp_path / "adapters", name)
        server(peer, tmp_path, base).load(name)
    server(peer, tmp_path, base).unload("b-0")
    fake.held.clear()
    assert server(peer, tmp_path, base).restore() == {}
    assert fake.held == ["a-0", "c-0"]


def test_one_that_can_not_be_put_back_does_not_hold_up_the_others(
    tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine
) -> None:
    for name in ("a-0", "b-0"):
        server(peer, tmp_path, base).load(make_adapter(tmp_path / "adapters", name).name)
    fake.held.clear()
    (tmp_path / "adapters" / "a-0" / "adapter_model.safetensors").unlink()
    problems = server(peer, tmp_path, base).restore()
    assert list(problems) == ["a-0"]
    assert "missing or damaged" in problems["a-0"]
    assert fake.held == ["b-0"]


def test_a_new_adapter_is_offered_once(tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine) -> None:
    make_adapter(tmp_path / "adapters", "a-0")
    make_adapter(tmp_path / "adapters", "bad-0", base_name="Other")
    found = server(peer, tmp_path, base).offer_new()
    assert found["a-0"] == ""
    assert "was trained on Other" in found["bad-0"]
    server(peer, tmp_path, base).unload("a-0")
    assert server(peer, tmp_path, base).offer_new() == {}
    assert fake.held == []


def test_a_refusal_of_the_engine_is_not_remembered_as_loaded(
    tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine
) -> None:
    make_adapter(tmp_path / "adapters")
    fake.refuses = "The worker is out of memory."
    with pytest.raises(UserError, match="out of memory"):
        server(peer, tmp_path, base).load("r1-0")
    fake.refuses = ""
    assert server(peer, tmp_path, base).restore() == {}
    assert fake.held == []


def test_a_broken_memory_is_an_empty_one(tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "serving.json").write_text(json.dumps({"wanted": 7}))
    assert server(peer, tmp_path, base).restore() == {}


# Who makes room


@dataclass
class Shelf:
    """Adapters a-0 to d-0 and two places; time passes by a second with each load."""

    serving: AdapterServer
    memory: Memory
    clock: Clock
    kept: dict[str, str]

    def load(self, *names: str) -> None:
        for name in names:
            self.clock.seconds += 1
            self.serving.load(name)

    def note(self, name: str) -> None:
        self.clock.seconds += 1
        self.memory.note(name)


@pytest.fixture
def shelf(tmp_path: Path, base: Base, peer: Peer, fake: FakeEngine) -> Shelf:
    for name in ("a-0", "b-0", "c-0", "d-0"):
        make_adapter(tmp_path / "adapters", name)
    clock, kept = Clock(), {}  # type: ignore[var-annotated]
    memory = Memory(tmp_path / "serving.json", clock)
    serving = AdapterServer(Client(peer.url), tmp_path / "adapters", memory, base, 2, lambda: kept)
    return Shelf(serving, memory, clock, kept)


def test_the_one_used_longest_ago_makes_room(shelf: Shelf, fake: FakeEngine) -> None:
    shelf.load("a-0", "b-0")
    shelf.note("a-0")  # a was loaded first, and asked last
    shelf.load("c-0")
    assert sorted(fake.held) == ["a-0", "c-0"]


def test_a_use_outlives_a_restart_once_it_is_written(shelf: Shelf, fake: FakeEngine, tmp_path: Path) -> None:
    shelf.load("a-0", "b-0")
    shelf.note("a-0")
    assert shelf.memory.write_uses(at_once=True)
    assert Memory(tmp_path / "serving.json").read().used["a-0"] > Memory(tmp_path / "serving.json").read().used["b-0"]


def test_uses_are_written_once_a_minute_at_most(shelf: Shelf, tmp_path: Path) -> None:
    shelf.load("a-0")
    before = (tmp_path / "serving.json").stat().st_mtime_ns
    for _ in range(50):
        shelf.note("a-0")
        assert not shelf.memory.write_uses()
    assert (tmp_path / "serving.json").stat().st_mtime_ns == before
    shelf.clock.seconds += 60
    assert shelf.memory.write_uses()
    assert not shelf.memory.write_uses()
    assert Memory(tmp_path / "serving.json").read() == shelf.memory.read()


def test_what_people_rely_on_never_makes_room(shelf: Shelf, fake: FakeEngine) -> None:
    shelf.kept["a-0"] = "what customers get"
    shelf.load("a-0", "b-0", "c-0", "d-0")
    assert sorted(fake.held) == ["a-0", "d-0"]
    with pytest.raises(UserError, match="a-0 is what customers get"):
        shelf.serving.unload("a-0")
    assert sorted(fake.held) == ["a-0", "d-0"]


def test_with_all_places_kept_another_is_refused_and_nothing_moves(shelf: Shelf, fake: FakeEngine) -> None:
    shelf.kept.update({"a-0": "what customers get", "b-0": "the candidate"})
    shelf.load("a-0", "b-0")
    with pytest.raises(UserError, match=r"no room left: it holds a-0 \(what customers get\), b-0 \(the candidate\)"):
        shelf.load("c-0")
    found = shelf.serving.offer_new()
    assert set(found) == {"c-0", "d-0"}
    assert "no room left" in found["d-0"]
    assert sorted(fake.held) == ["a-0", "b-0"]


def test_a_restarted_engine_gets_back_first_what_people_rely_on(shelf: Shelf, fake: FakeEngine) -> None:
    shelf.load("a-0", "b-0")
    fake.held.clear()
    shelf.kept["c-0"] = "what customers get"  # promoted by somebody whose engine died before it was written down
    used = shelf.memory.read().used
    assert shelf.serving.restore() == {}
    assert "c-0" in fake.held
    assert shelf.memory.read().used == used


def test_two_at_once_do_not_forget_each_others_change(tmp_path: Path) -> None:
    memories = [Memory(tmp_path / "serving.json") for _ in range(4)]

    def offer(number: int) -> None:
        for turn in range(10):
            name = f"{number}-{turn}"
            memories[number].change(lambda held, name=name: held.model_copy(update={"offered": (*held.offered, name)}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(offer, range(4)))
    assert len(memories[0].read().offered) == 40


# Several engines, and what somebody does to one of them by hand


@pytest.fixture
def two(peer: Peer, fake: FakeEngine) -> Iterator[tuple[FakeEngine, FakeEngine]]:
    with running_peer() as other:
        other.answer = second = FakeEngine(other)
        yield fake, second


def side_by_side(two: tuple[FakeEngine, FakeEngine], tmp_path: Path, base: Base, room: int = 4) -> AdapterServer:
    engines = [Client(fake._peer.url) for fake in two]
    return AdapterServer(engines, tmp_path / "adapters", Memory(tmp_path / "engine" / "serving.json"), base, room)


def only(fake: FakeEngine, tmp_path: Path, base: Base) -> AdapterServer:
    return server(fake._peer, tmp_path, base)


def test_an_adapter_counts_as_loaded_once_all_engines_hold_it(
    two: tuple[FakeEngine, FakeEngine], tmp_path: Path, base: Base
) -> None:
    make_adapter(tmp_path / "adapters")
    both = side_by_side(two, tmp_path, base)
    two[0].held = ["r1-0"]
    assert both.loaded() == []
    both.load("r1-0")
    assert [fake.held for fake in two] == [["r1-0"], ["r1-0"]]
    assert both.loaded() == ["r1-0"]
    both.unload("r1-0")
    assert [fake.held for fake in two] == [[], []]


def test_of_several_engines_the_one_that_does_least_counts(
    two: tuple[FakeEngine, FakeEngine], tmp_path: Path, base: Base
) -> None:
    make_adapter(tmp_path / "adapters")
    two[0].moves["r1-0"], two[1].moves["r1-0"] = 0.5, 0.25
    assert side_by_side(two, tmp_path, base).measure("r1-0") == pytest.approx(0.25)


def test_what_is_refused_by_one_is_taken_out_of_the_other(
    two: tuple[FakeEngine, FakeEngine], tmp_path: Path, base: Base
) -> None:
    make_adapter(tmp_path / "adapters")
    two[1].refuses = "out of memory"
    with pytest.raises(UserError, match="out of memory"):
        side_by_side(two, tmp_path, base).load("r1-0")
    assert two[0].held == ["r1-0"]
    first = only(two[0], tmp_path, base)
    drift = first.drift()
    assert drift == Drift(foreign=("r1-0",))
    assert first.repair(drift) == {}
    assert two[0].held == []


def test_what_was_changed_by_hand_is_seen_put_right_and_told(
    two: tuple[FakeEngine, FakeEngine], tmp_path: Path, base: Base
) -> None:
    make_adapter(tmp_path / "adapters")
    side_by_side(two, tmp_path, base).load("r1-0")
    two[1].held = ["stranger"]
    assert only(two[0], tmp_path, base).drift() == Drift()
    second = only(two[1], tmp_path, base)
    drift = second.drift()
    assert drift == Drift(lacks=("r1-0",), foreign=("stranger",))
    problems = second.repair(drift)
    assert (problems, two[1].held) == ({}, ["r1-0"])
    assert drift.told(problems) == ("lacked r1-0; put back; held stranger, which it should not; taken out")


def test_a_guest_of_an_engine_that_is_alone_stays_while_there_is_room(
    fake: FakeEngine, peer: Peer, tmp_path: Path, base: Base
) -> None:
    make_adapter(tmp_path / "adapters")
    one = server(peer, tmp_path, base, room=2)
    one.load("r1-0")
    fake.held.append("guest")
    assert one.drift(guests=True) == Drift()
    assert one.drift() == Drift(foreign=("guest",))
    fake.held.append("second")
    assert one.drift(guests=True) == Drift(foreign=("guest",)), "one too many, so one of them goes"


def test_what_can_not_be_put_back_is_told_once_and_left(fake: FakeEngine, tmp_path: Path, base: Base) -> None:
    adapter = make_adapter(tmp_path / "adapters")
    one = only(fake, tmp_path, base)
    one.load("r1-0")
    fake.held.clear()
    (adapter.path / "adapter_model.safetensors").unlink()
    drift = one.drift()
    assert drift
    problems = one.repair(drift)
    assert "missing or damaged" in drift.told(problems)
    assert not one.drift(leave=problems)


def test_while_another_process_changes_what_is_held_nothing_is_drift(
    fake: FakeEngine, tmp_path: Path, base: Base
) -> None:
    one = only(fake, tmp_path, base)
    other = Memory(tmp_path / "engine" / "serving.json")
    with other.lock, other.lock:
        assert one.drift() is None
    assert one.drift() == Drift()
    with one._memory.lock:
        assert one.drift() == Drift(), "whoever has it may look"
