"""The demo project: real requests, the base model's own replies, and a starter set of hand-written corrections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from annotation.charter import read_charter
from annotation.store import Store
from annotation.store.reviews import ReviewAct
from annotation.types import Message, Provenance, Turn

FOLDER = Path(__file__).parent / "demo"
SOURCE = "demo"
AUTHOR = "starter set"


def lines(name: str) -> list[dict[str, Any]]:
    """The records of one of the demo's `.jsonl` files."""
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def seed(store: Store) -> int:
    """Bring the demo into `store`; a second time adds nothing. Returns the number of conversations added.

    Every reply waits for review; only those with a starter correction are done. No label is made up.
    """
    if store.charters.current() is None:
        store.charters.add(read_charter(FOLDER / "charter.toml"), AUTHOR)
    added = 0
    corrections = {line["external_id"]: line for line in lines("corrections.jsonl")}
    for line in lines("conversations.jsonl"):
        external_id = line["external_id"]
        messages = [
            (Message(role=message["role"], text=message["text"]), _provenance(message)) for message in line["messages"]
        ]
        added += store.conversations.import_one(SOURCE, external_id, line["title"], "en", messages)
    for external_id, line in corrections.items():
        _correct(store, external_id, line)
    return added


def _provenance(message: dict[str, Any]) -> Provenance | None:
    made = message.get("provenance")
    return Provenance.model_validate(made) if made else None


def _correct(store: Store, external_id: str, line: dict[str, Any]) -> None:
    reply = _last_reply(store, external_id)
    act = ReviewAct(
        act_id=f"starter-{external_id}",  # the same act each time, so it is kept once
        reply_id=reply.id,
        reviewer=AUTHOR,
        charter_version=1,
        correction=line["after"],
        reasons=tuple(line.get("reasons", ())),
        origin="starter",
        route="import",
    )
    store.reviews.save(act)


def _last_reply(store: Store, external_id: str) -> Turn:
    return store.conversations.of_external(SOURCE, external_id).turns[-1]
