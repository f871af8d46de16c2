"""How long a reviewer waits: saving a judgement with a correction, and being handed the next reply."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from annotation.store import open_store
from annotation.store.reviews import Verdict
from annotation.types import Message
from benchmarks.row import Row, within
from studio.demo_project import seed
from studio.services.review import ReviewForm, ReviewService

CONVERSATIONS, SAVES = 20_000, 500
SAVE_LIMIT, NEXT_LIMIT = 0.010, 0.020


def measure(folder: Path) -> list[Row]:
    """95th percentile over 500 items, with 20,000 conversations in a SQLite store on disk."""
    store = open_store(f"sqlite:///{folder / 'judgement.db'}")
    seed(store)
    # Bulk rows straight into the tables would be quicker to make; going through the importer keeps them real.
    messages = [
        (Message(role="user", text="Where is it?"), None),
        (Message(role="assistant", text="On its way."), None),
    ]
    for number in range(CONVERSATIONS):
        store.conversations.import_one("bench", str(number), "Where is it?", "en", messages)
    desk = ReviewService(store, "bench")
    saves, nexts = [], []
    for number in range(SAVES):
        began = time.perf_counter()
        item = desk.next()
        nexts.append(time.perf_counter() - began)
        assert item is not None
        verdicts = tuple(Verdict(question=question, value="fail") for question in ("voice", "policy", "bias"))
        form = ReviewForm(act_id=item.act_id, reply_id=item.reply.id, verdicts=verdicts, corrected=f"Better {number}.")
        began = time.perf_counter()
        desk.save(form)
        saves.append(time.perf_counter() - began)
    store.close()
    return [
        within(f"save a judgement, p95 of {SAVES}", percentile(saves), SAVE_LIMIT),
        within(f"next reply, p95 of {SAVES}", percentile(nexts), NEXT_LIMIT),
    ]


def percentile(values: list[float]) -> float:
    """The 95th."""
    return statistics.quantiles(values, n=20)[-1]
