"""A store of the first schema comes over whole, on SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from annotation.store import open_store
from annotation.store.open import _alembic, _engine
from annotation.store.search import Filter
from annotation.types import utc_now
from tests.fixtures.desk import ANA, BEN, ONE, deal, not_as_replayed

VALUES = {"approved": ("pass", "pass", "pass"), "partial": ("pass",), "unsure": ("pass", "unsure"), "failed": ("fail",)}
SAID = [*VALUES, "corrected", "skipped", "waiting"]


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a store of the first schema, with a reply for each thing that could be said about one."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    engine = _engine(url)
    if request.param == "postgresql":
        with engine.begin() as db:
            db.execute(sa.text("DROP SCHEMA public CASCADE"))
            db.execute(sa.text("CREATE SCHEMA public"))
    command.upgrade(_alembic(engine), "0001")
    with engine.begin() as db:
        _fill(db)
    engine.dispose()
    return url


def _fill(db: sa.Connection) -> None:
    tables = sa.MetaData()
    tables.reflect(db)

    def add(table: str, **row: Any) -> None:
        db.execute(tables.tables[table].insert().values({"made_at": utc_now()} | row))

    for name in SAID:
        conversation = {"id": f"c-{name}", "source": "chat", "title": "Old", "created_at": utc_now()}
        db.execute(tables.tables["conversations"].insert().values(conversation | {"head_id": name}))
        add("turns", id=f"asked-{name}", conversation_id=f"c-{name}", role="user", text="Where is my parcel?")
        state = name if name in ("skipped", "waiting") else "reviewed"
        turn = {
            "conversation_id": f"c-{name}",
            "parent_id": f"asked-{name}",
            "role": "assistant",
            "text": f"The {name} reply.",
        }
        add("turns", id=name, review_state=state, **turn)
        for question, value in zip(("voice", "policy", "bias"), VALUES.get(name, ()), strict=False):
            answer = {"question": question, "value": value, "clause_ids": ["no-promises"], "seconds": 12.5}
            act = {"id": f"{name}-{question}", "act_id": f"act-{name}", "reply_id": name}
            add("judgements", **act, **answer, charter_version=3, reviewer="ana", note="So it is.")
    texts = {"before": "The corrected reply.", "after": "Better.", "reasons": ["tone"]}
    act = {"id": "k", "act_id": "act-corrected", "reply_id": "corrected"}
    add("corrections", **act, **texts, author="ben", origin="review")
    add("skips", id="s", act_id="act-skipped", reply_id="skipped", reason="not ours", reviewer="ana")


def test_what_was_said_under_the_first_schema_is_all_there(old: str) -> None:
    store = open_store(old)
    states = {name: store.tasks.state_of(name) for name in SAID}
    outcomes = {name: states[name]["outcome"] for name in SAID}
    assert outcomes == {name: name for name in SAID} | {"skipped": None, "waiting": None}
    assert [states[name]["state"] for name in ("approved", "skipped", "waiting")] == ["done", "skipped", "open"]
    for name, values in VALUES.items():
        (act,) = store.reviews.history(name)
        assert (act.id, act.person, act.seconds) == (f"act-{name}", "ana", 12.5)
        assert sorted(one.value for one in act.judgements) == sorted(values)
        assert {(one.note, one.clause_ids, one.charter_version) for one in act.judgements} == {
            ("So it is.", ("no-promises",), 3)
        }
    (act,) = store.reviews.history("corrected")
    assert act.correction is not None
    assert (act.person, act.correction.after, act.correction.reasons) == ("ben", "Better.", ("tone",))
    assert store.reviews.standing("skipped").skipped == "not ours"
    assert not_as_replayed(store) == []
    store.close()


def test_old_replies_are_dealt_and_found_and_their_history_stays_fixed(old: str) -> None:
    store = open_store(old)
    assert deal(store, BEN).reply_id == "waiting"
    assert store.tasks.claim(ANA, ONE) is None
    assert [hit.reply_id for hit in store.search.find(Filter(text="unsure"))] == ["unsure"]
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), store.engine.begin() as db:
        db.execute(sa.text("DELETE FROM acts"))
    store.close()
