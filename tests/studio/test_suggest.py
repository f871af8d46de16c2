"""Suggestions of models: asked rule by rule, scored by how often they say the same, kept apart from judgements."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from annotation.errors import Conflict, UserError
from annotation.people import Forbidden, Person
from annotation.store import Store, open_store
from annotation.store.search import Filter
from annotation.types import Charter, Clause, Message
from serving.scripted import ScriptedModel
from studio.services.suggest import BatchView, SuggestBatch, SuggestService, consensus, rules_named

CURATOR = Person(name="cat", role="curator")
CHARTER = Charter(name="Shop", policy=(Clause(id="no-promises", text="No promises."), Clause(id="no", text="No.")))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    for number in range(3):
        messages = [(Message(role="user", text="Refund?"), None), (Message(role="assistant", text="Sure!"), None)]
        opened.conversations.import_one("t", str(number), "t", "en", messages)
    return opened


def suggest(store: Store, reply: str, who: Person = CURATOR, limit: int = 10) -> list[int]:
    async def run() -> list[int]:
        service = SuggestService(store, who, lambda: ScriptedModel([reply], word_seconds=0))
        return [step.done async for step in service.suggest(Filter(), "base", limit)]

    return asyncio.run(run())


def test_a_suggestion_has_rules_score_and_author_and_counts_for_nothing(store: Store) -> None:
    store.charters.add(CHARTER, "cat")
    assert suggest(store, "no-promises")[-1] == 3
    reply_id = store.search.find(Filter())[0].reply_id
    (found,) = store.helpers.suggestions(reply_id)
    assert (found.question, found.value, found.clause_ids) == ("policy", "fail", ("no-promises",))
    assert (found.score, found.author) == (1.0, "model:base")
    assert store.tasks.counts()["waiting"] == 3
    assert store.reviews.history(reply_id) == []


def test_an_interrupted_batch_goes_on_where_it_was(store: Store) -> None:
    store.charters.add(CHARTER, "cat")
    suggest(store, "none", limit=1)
    suggest(store, "no-promises")
    values = [store.helpers.suggestions(hit.reply_id)[0].value for hit in store.search.find(Filter())]
    assert values == ["pass", "fail", "fail"]


def test_it_needs_a_charter_and_a_curator(store: Store) -> None:
    with pytest.raises(UserError, match="no charter"):
        suggest(store, "none")
    with pytest.raises(Forbidden):
        suggest(store, "none", who=Person(name="ana"))


def ended(batch: SuggestBatch) -> BatchView:
    end = time.monotonic() + 10
    while batch.view().running:
        assert time.monotonic() < end
        time.sleep(0.01)
    return batch.view()


def test_a_batch_in_the_background_tells_how_far_it_is_and_goes_on_after_a_stop(store: Store) -> None:
    batch = SuggestBatch(store, lambda: ScriptedModel(["no-promises"], word_seconds=0.05))
    with pytest.raises(UserError, match="no charter"):
        batch.start(CURATOR, Filter(), "base", 10)
    store.charters.add(CHARTER, "cat")
    with pytest.raises(Forbidden):
        batch.start(Person(name="ana"), Filter(), "base", 10)
    batch.start(CURATOR, Filter(), "base", 10)
    with pytest.raises(Conflict, match="base is being asked"):
        batch.start(CURATOR, Filter(), "base", 10)
    batch.cancel(CURATOR)
    stopped = ended(batch)
    assert stopped.done < 3
    assert stopped.trouble == ""
    batch.start(CURATOR, Filter(), "base", 10)
    assert ended(batch) == BatchView(model="base", done=3, of=3)
    assert all(store.helpers.suggestions(hit.reply_id) for hit in store.search.find(Filter()))


def test_a_batch_without_an_engine_says_so(store: Store) -> None:
    def none() -> ScriptedModel:
        raise UserError("No engine runs.", do="Start one.")

    store.charters.add(CHARTER, "cat")
    batch = SuggestBatch(store, none)
    batch.start(CURATOR, Filter(), "base", 10)
    assert "No engine runs." in ended(batch).trouble


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("no-promises", ("no-promises",)),
        ("It breaks no-promises, no.", ("no-promises", "no")),
        ("None.", ()),
        ("Hm", None),
    ],
)
def test_rules_are_read_out_of_an_answer(answer: str, named: tuple[str, ...] | None) -> None:
    assert rules_named(answer, ["no-promises", "no"]) == named


def test_the_score_is_the_share_that_says_the_same() -> None:
    found = consensus("policy", [("a",), ("a",), None], "model:m")
    assert found is not None
    assert found.score == 0.67
    assert consensus("policy", [None, None], "model:m") is None
