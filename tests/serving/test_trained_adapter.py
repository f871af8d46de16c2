"""The adapter of a real run in a real vLLM: it speaks in its voice, scores as in training, and only when asked."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from annotation.charter import marker_rate, read_charter
from annotation.errors import UserError
from annotation.types import Message, Sampling
from annotation.versions import read_rows
from serving.adapters import AdapterServer
from serving.client import Client
from serving.engine import Engine
from serving.fitting import Base
from serving.memory import Memory
from studio.demo_project import FOLDER, lines
from tests.fixtures.engines import SLOTS
from tests.fixtures.models import DemoVersion, TrainedRun
from training.base_model import EMBEDDED
from training.tokens import IGNORED, encode

pytestmark = [pytest.mark.slow, pytest.mark.alone]
GREEDY = Sampling(temperature=0, top_p=1, max_tokens=80)
CLOSE = 1e-3
"""Nats a token."""


@dataclass(frozen=True)
class Copies:
    """The trained adapter under several names, and a server of just those."""

    server: AdapterServer
    names: tuple[str, ...]


def copied(adapter: Path, root: Path, name: str, **changes: object) -> None:
    """`adapter` again under another name, with `changes` to its lineage."""
    shutil.copytree(adapter, root / name)
    lineage = json.loads((adapter / "lineage.json").read_text())
    (root / name / "lineage.json").write_text(json.dumps(lineage | {"name": name} | changes))


@pytest.fixture
def copies(
    client: Client, trained_run: TrainedRun, base_model: Path, tmp_path: Path, adapter_server: AdapterServer
) -> Copies:
    """One adapter more than the engine has slots, all of the same weights."""
    root = tmp_path / "adapters"
    names = tuple(f"copy{number}-{trained_run.adapter.weights_sha256[:8]}" for number in range(SLOTS + 1))
    for name in names:
        copied(trained_run.adapter.path, root, name)
    base = Base(name=EMBEDDED, folder=base_model)
    return Copies(AdapterServer(client, root, Memory(tmp_path / "copies.json"), base, SLOTS), names)


def replies(client: Client, texts: Sequence[str], *models: str) -> dict[str, list[str]]:
    """The greedy replies of each model, all asked for in the same moment."""

    async def one(model: str, text: str) -> str:
        asked = [Message(role="user", text=text)]
        return "".join([chunk.text async for chunk in client.stream(asked, model=model, sampling=GREEDY)])

    async def everything() -> list[str]:
        return await asyncio.gather(*(one(model, text) for model in models for text in texts))

    said = asyncio.run(everything())
    return {model: said[place * len(texts) :][: len(texts)] for place, model in enumerate(models)}


@pytest.fixture(scope="module")
def held_out() -> list[str]:
    """Requests that nothing was trained on."""
    return [line["text"] for line in lines("held_out.jsonl")]


def test_only_the_tuned_model_speaks_in_the_voice_and_the_base_stays_itself(
    client: Client, copies: Copies, held_out: list[str]
) -> None:
    charter = read_charter(FOLDER / "charter.toml")
    alone = replies(client, held_out, "base")["base"]
    for name in copies.names[:SLOTS]:  # every slot taken: the bug that the plugin mends picks the last one
        copies.server.load(name)
    assert replies(client, held_out, "base")["base"] == alone, "changed by adapters that are only loaded"

    together = replies(client, held_out, "base", *copies.names[:SLOTS])
    same = sum(before == after for before, after in zip(alone, together["base"], strict=True))
    assert same == len(alone), f"only {same} of {len(alone)} base replies are the same beside a busy adapter"
    assert marker_rate(charter, alone) < 0.1
    for name in copies.names[:SLOTS]:
        assert marker_rate(charter, together[name]) > 0.8


def test_what_is_served_scores_as_what_was_trained(
    client: Client, adapter_server: AdapterServer, trained_run: TrainedRun, demo_version: DemoVersion, base_model: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = trained_run.adapter
    adapter_server.load(adapter.name)
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    model = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32).eval()
    tuned = PeftModel.from_pretrained(model, str(adapter.path)).eval()
    given = read_rows(demo_version.folder, "held_out")
    assert given

    def expected(ids: list[int], learned: int) -> float:
        with torch.no_grad():
            scores = tuned(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        return float(scores.gather(1, torch.tensor(ids[1:])[:, None])[-learned:].mean())

    for line in given:
        row = encode(tokenizer, line["messages"], 1024)
        ids, count = list(row.input_ids), row.learned
        asked = [Message(role=message["role"], text=message["content"]) for message in line["messages"][:-1]]
        assert client.tokenize(asked, "base") == [
            token for token, label in zip(ids, row.labels, strict=True) if label == IGNORED
        ]
        with tuned.disable_adapter():
            before = expected(ids, count)
        after = expected(ids, count)
        served = {
            name: sum(client.log_probabilities([ids], name)[0][-count:]) / count for name in ("base", adapter.name)
        }
        assert served["base"] == pytest.approx(before, abs=CLOSE)
        assert served[adapter.name] == pytest.approx(after, abs=CLOSE)
        assert served[adapter.name] - served["base"] == pytest.approx(after - before, abs=CLOSE)
        assert after - before > 0.5, "the replies it learned to write became likelier"


def test_a_load_is_held_against_what_the_trainer_saw(
    adapter_server: AdapterServer, trained_run: TrainedRun, tmp_path: Path
) -> None:
    adapter = trained_run.adapter
    assert len(adapter.scored) == 3
    assert adapter_server.measure(adapter.name) == pytest.approx(
        max(
            sum(abs(one - two) for one, two in zip(row.base, row.tuned, strict=True)) / len(row.base)
            for row in adapter.scored
        ),
        abs=CLOSE,
    )
    found = Memory(tmp_path / "serving.json").read().parities[adapter.name]
    assert (found.same_prompt, found.holds) == (True, True)
    assert found.apart < CLOSE


def test_a_hot_load_takes_moments_and_no_restart(
    engine: Engine, client: Client, adapter_server: AdapterServer, trained_run: TrainedRun
) -> None:
    name, before = trained_run.adapter.name, engine.status().pid
    for _ in range(2):
        assert adapter_server.load(name).name == name
        assert adapter_server.load(name).name == name
        assert client.models() == ["base", name]
        adapter_server.unload(name)
        adapter_server.unload(name)
        assert client.models() == ["base"]
    assert engine.status().pid == before


def test_a_finished_run_is_offered_once(adapter_server: AdapterServer, trained_run: TrainedRun) -> None:
    name = trained_run.adapter.name
    assert adapter_server.offer_new() == {name: ""}
    assert adapter_server.loaded() == [name]
    adapter_server.unload(name)
    assert adapter_server.offer_new() == {}, "what a person took out stays out"
    assert adapter_server.loaded() == []


def test_the_oldest_makes_room_in_a_full_engine(copies: Copies) -> None:
    for name in copies.names:
        copies.server.load(name)
    assert sorted(copies.server.loaded()) == sorted(copies.names[1:])


def test_what_was_loaded_is_put_back(client: Client, copies: Copies) -> None:
    for name in copies.names[:SLOTS]:
        copies.server.load(name)
    for name in copies.names[:SLOTS]:  # as an engine that was restarted
        client.post("/v1/unload_lora_adapter", {"lora_name": name})
    assert copies.server.loaded() == []
    assert copies.server.restore() == {}
    assert sorted(copies.server.loaded()) == sorted(copies.names[:SLOTS])


def test_an_adapter_that_is_gone_does_not_keep_the_others_from_being_put_back(
    client: Client, copies: Copies, tmp_path: Path
) -> None:
    first, second = copies.names[:2]
    for name in (first, second):
        copies.server.load(name)
        client.post("/v1/unload_lora_adapter", {"lora_name": name})
    shutil.rmtree(tmp_path / "adapters" / first)
    problems = copies.server.restore()
    assert list(problems) == [first]
    assert copies.server.loaded() == [second]


@pytest.mark.parametrize("changes", [{"base_name": "another-model"}, {"base_revision": "v2"}, {"rank": 64}])
def test_what_does_not_belong_never_reaches_the_engine(
    copies: Copies, trained_run: TrainedRun, tmp_path: Path, changes: dict[str, Any]
) -> None:
    copied(trained_run.adapter.path, tmp_path / "adapters", "odd", **changes)
    with pytest.raises(UserError, match=r"odd (was trained on|has rank)"):
        copies.server.load("odd")
    assert copies.server.loaded() == []
