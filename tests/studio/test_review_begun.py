"""What somebody began to say in Argilla and has not sent is there when they open the reply at our desk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation.people import Person
from annotation.store import Store, open_store
from annotation.store.argilla import Mirror, MirrorResponse
from annotation.store.reviews import Verdict
from serving.scripted import ScriptedModel
from studio.services.review import ReviewForm, ReviewService
from tests.fixtures.argilla import MODEL, charter, fill

SAID = {
    "voice": {"value": "fail"},
    "voice_rules": {"value": ["warm", "_other"]},
    "where": {"value": [{"label": "voice", "start": 0, "end": 6}]},
    "correction": {"value": "Half a sen"},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """One reply, and a dataset of ours in Argilla."""
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.charters.add(charter(), "cat")
    fill(opened, 1)
    opened.argilla.add_mirror(
        Mirror(id="d", workspace="w", queue="main", charter_version=1, name="shop-v1", questions={})
    )
    yield opened
    opened.close()


def desk(store: Store, name: str) -> ReviewService:
    return ReviewService(store, Person(name=name), ScriptedModel, lambda name: MODEL)


def test_a_draft_is_filled_in_for_who_began_it_until_they_have_answered(store: Store) -> None:
    reply_id = store.conversations.of_external("log", "0").turns[-1].id
    draft = MirrorResponse(
        id="r", dataset_id="d", reply_id=reply_id, person="ana", status="draft", updated_at="2025-01-01", said=SAID
    )
    store.argilla.keep_responses([draft])
    assert store.argilla.begun() == [("ana", reply_id)]
    dealt = desk(store, "ben").next()
    assert dealt is not None
    assert (dealt.text_now, dealt.mine) == ("Parcel 0 is on its way, maybe.", {})
    desk(store, "ben").release(dealt.act_id)
    item = desk(store, "ana").open(reply_id)
    voice = item.mine["voice"]
    assert (item.text_now, list(item.mine)) == ("Half a sen", ["voice"])
    assert (voice.value, voice.clause_ids, [(one.start, one.end) for one in voice.spans]) == (
        "fail",
        ("warm",),
        [(0, 6)],
    )
    answers = (Verdict(question="voice", value="pass"),)
    assert desk(store, "ana").save(ReviewForm(act_id=item.act_id, reply_id=reply_id, verdicts=answers))
    again = desk(store, "ana").open(reply_id)
    assert ({name: one.value for name, one in again.mine.items()}, again.text_now) == (
        {"voice": "pass"},
        "Parcel 0 is on its way, maybe.",
    )
    # What was begun stays in the store, also when something else was sent over it.
    store.argilla.keep_responses(
        [draft.model_copy(update={"status": "submitted", "act_id": item.act_id, "said": None})]
    )
    assert store.argilla.begun() == []
    (mirror,) = store.argilla.mirrors("w")
    assert store.argilla.all_responses(mirror)["r"].said == SAID
