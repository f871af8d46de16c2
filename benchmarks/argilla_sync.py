"""The sync with Argilla at 10,000 replies and 10,000 responses, beside Argilla's own SDK doing the same writes."""

from __future__ import annotations

import hashlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

from annotation.argilla_client import Argilla, Json
from annotation.argilla_form import ANSWERS
from annotation.argilla_server import WORKSPACE, ArgillaServer
from annotation.argilla_sync import ArgillaSync
from annotation.people import Person
from annotation.store import Store, open_store
from annotation.types import Axis, Charter, Clause, Message, Provenance, Trait
from benchmarks.argilla_server import running_argilla
from benchmarks.row import Row, show

T = TypeVar("T")
REPLIES = 10_000
LEAST = 0.9
MODEL = Provenance(model="m", adapter="warm-1")
CHARTER = Charter(
    name="Bench",
    voice=(Trait(id="warm", text="Be warm."), Trait(id="short", text="Be short.")),
    policy=tuple(Clause(id=f"clause-{number}", text=f"Keep to rule {number}.") for number in range(8)),
    bias=(Axis(id="age", text="Treat all ages alike."),),
)
# The same dataset and records as ours; in a process of its own, so that imports count for the memory of their own side.
SDK = """
import sys, time, resource
import argilla as rg
url, key, name, start, end = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
client = rg.Argilla(api_url=url, api_key=key)
labels = ["pass", "fail", "unsure", "not_applicable", "open"]
kinds = ["stereotype", "assumption", "unequal_help", "disrespect", "exclusion"]
clauses = [f"clause-{number}" for number in range(8)] + ["_other"]
questions = [
    rg.LabelQuestion(name="voice", labels=labels),
    rg.MultiLabelQuestion(name="voice_rules", labels=["warm", "short", "_other"], required=False),
    rg.LabelQuestion(name="policy", labels=labels),
    rg.MultiLabelQuestion(name="policy_rules", labels=clauses, required=False),
    rg.LabelQuestion(name="severity", labels=["minor", "major", "critical"], required=False),
    rg.LabelQuestion(name="bias", labels=labels),
    rg.MultiLabelQuestion(name="bias_rules", labels=["age", "_other"], required=False),
    rg.LabelQuestion(name="kind", labels=kinds, required=False),
    rg.SpanQuestion(name="where", field="reply", labels=["voice", "policy", "bias"], required=False),
    rg.TextQuestion(name="correction", required=False),
    rg.TextQuestion(name="why", required=False),
]
names = ["model", "adapter", "language", "source", "checks"]
scores = [rg.FloatMetadataProperty(name=f"{one}_score") for one in ("voice", "policy", "bias")]
metadata = [rg.TermsMetadataProperty(name=one) for one in names] + scores
metadata.append(rg.IntegerMetadataProperty(name="priority"))
fields = [rg.ChatField(name="chat", required=False), rg.TextField(name="reply")]
settings = rg.Settings(fields=fields, questions=questions, metadata=metadata)
dataset = rg.Dataset(name=name, workspace="tonesmith", settings=settings, client=client)
dataset.create()
records = []
for number in range(start, end):
    reply = f"Parcel {number} is on its way."
    chat = [{"role": "user", "content": f"Where is parcel {number}?"}]
    about = {"model": "m", "adapter": "warm-1", "language": "en", "source": "log", "priority": 0}
    suggestions = [rg.Suggestion("correction", reply, agent="warm-1")]
    fields = {"chat": chat, "reply": reply}
    records.append(rg.Record(id=f"{number:032x}", fields=fields, metadata=about, suggestions=suggestions))
clock = time.perf_counter()
dataset.records.log(records)
print("took", time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure(folder: Path, replies: int = REPLIES) -> dict[str, float]:
    """Records, responses and megabytes a second or in all; the SDK goes before and after, half of it each time."""
    store = filled_store(folder, replies)
    with running_argilla(folder) as server:
        server.add_people([Person(name="ana")])
        client = Argilla(server.url, server.keys.api_key, WORKSPACE)
        syncing = ArgillaSync(store, client)
        sdk = [_sdk(server, "before", 0, replies // 2)]
        push, summary = _timed(syncing.sync)
        if summary.pushed != replies:
            raise RuntimeError(f"{summary.pushed} of {replies} were pushed")
        sdk.append(_sdk(server, "after", replies // 2, replies))
        idle, _ = _timed(syncing.sync)
        answer_all(server, syncing)
        pull, summary = _timed(syncing.sync)
        if summary.pulled != replies:
            raise RuntimeError(f"{summary.pulled} of {replies} were pulled")
        check, repairs = _timed(syncing.reconcile)
        if not repairs.nothing:
            raise RuntimeError(f"the two sides differed: {repairs}")
        if len(kept := [one.reply_id for one in store.figures.answers("voice")]) != replies or len({*kept}) != replies:
            raise RuntimeError(f"{len(kept)} answers are kept, of {len({*kept})} replies")
        client.close()
    store.close()
    ours, theirs = replies / push, replies / sum(seconds for seconds, _ in sdk)
    return {
        "replies": float(replies),
        "push_per_second": ours,
        "sdk_per_second": theirs,
        "ratio": ours / theirs,
        "nothing_new_seconds": idle,
        "pull_per_second": replies / pull,
        "reconcile_seconds": check,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "sdk_peak_mb": statistics.mean(memory for _, memory in sdk),
    }


def rows(folder: Path) -> list[Row]:
    """The same as lines of the table, measured in a process of its own, so that memory is this measurement's alone."""
    folder = folder / "argilla-sync"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.argilla_sync", str(REPLIES), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the sync could not be measured: {done.stderr[-2000:]}")
    found = {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}
    ours, theirs = found["push_per_second"], found["sdk_per_second"]
    memory, held = found["peak_mb"], found["sdk_peak_mb"]
    back, check = found["pull_per_second"], found["reconcile_seconds"]
    both = found["replies"] / theirs
    return [
        Row(
            f"Argilla sync: push {found['replies']:,.0f} replies",
            f"{ours:.0f} records/s",
            f"Argilla's SDK: {theirs:.0f} records/s",
            found["ratio"],
            found["ratio"] >= LEAST,
        ),
        Row(
            f"Argilla sync: fetch {found['replies']:,.0f} answers and keep them as judgements",
            f"{back:.0f} answers/s",
            f"Argilla's SDK, a push: {theirs:.0f} records/s",
            back / theirs,
            back >= LEAST * theirs,
        ),
        Row(
            f"Argilla sync: compare everything, {found['replies']:,.0f} replies and as many answers",
            show(check),
            f"the SDK's push of them: {show(both)}",
            check / both,
            check <= both,
        ),
        Row(
            f"Argilla sync: peak memory, {found['replies']:,.0f} replies there and their answers back",
            f"{memory:.0f} MB",
            f"Argilla's SDK, half of the push: {held:.0f} MB",
            memory / held,
            memory <= held,
        ),
    ]


def filled_store(folder: Path, replies: int) -> Store:
    """`store.db` in this folder, with so many conversations of one reply each."""
    folder.mkdir(parents=True, exist_ok=True)
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    store.charters.add(CHARTER, "bench")
    store.people.add("ana", "reviewer")
    for number in range(replies):
        asked = Message(role="user", text=f"Where is parcel {number}?")
        said = Message(role="assistant", text=f"Parcel {number} is on its way.")
        store.conversations.import_one("log", str(number), f"Parcel {number}", "en", [(asked, None), (said, MODEL)])
    return store


def _sdk(server: ArgillaServer, name: str, start: int, end: int) -> tuple[float, float]:
    """Seconds and megabytes for writing these records with the SDK."""
    command = [sys.executable, "-c", SDK, server.url, server.keys.api_key, name, str(start), str(end)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the SDK failed: {done.stderr[-2000:]}")
    _, seconds, kilobytes = next(line for line in done.stdout.splitlines() if line.startswith("took")).split()
    return float(seconds), float(kilobytes) / 1024


def records_there(server: ArgillaServer, syncing: ArgillaSync) -> tuple[str, list[Json]]:
    """Id of the newest dataset of ours, and all its records."""
    name = syncing.progress()[-1].name
    with server.client() as client:
        dataset = next(one["id"] for one in _json(client.get("/me/datasets"))["items"] if one["name"] == name)
        records: list[Json] = []
        while page := _json(client.get(f"/datasets/{dataset}/records?limit=1000&offset={len(records)}"))["items"]:
            records += page
    return dataset, records


def answer_all(server: ArgillaServer, syncing: ArgillaSync) -> None:
    """Ana answers everything, with `answer_to` each reply, in bulk."""
    dataset, records = records_there(server, syncing)
    with server.client() as client:
        ana = next(one["id"] for one in _json(client.get("/users"))["items"] if one["username"] == "ana")
        items = []
        for one in records:
            values = {name: {"value": value} for name, value in answer_to(one["external_id"]).items()}
            answer = {"user_id": ana, "status": "submitted", "values": values}
            items.append({"external_id": one["external_id"], "responses": [answer]})
        for start in range(0, len(items), 500):
            _json(client.put(f"/datasets/{dataset}/records/bulk", json={"items": items[start : start + 500]}))


def answer_to(reply_id: str) -> dict[str, str]:
    """Question → value, another for each reply, so that what is kept can be held against it."""
    place = int(hashlib.sha256(reply_id.encode()).hexdigest(), 16)
    named = ("voice", "policy", "bias")
    values = {name: ANSWERS[place // len(ANSWERS) ** number % len(ANSWERS)][0] for number, name in enumerate(named)}
    return values | {"correction": f"As it should be: {reply_id}."}


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    clock = time.perf_counter()
    found = work()
    return time.perf_counter() - clock, found


def _json(answer: httpx.Response) -> Json:
    if answer.is_error:
        raise RuntimeError(f"{answer.request.url}: {answer.status_code} {answer.text[:500]}")
    found: Json = answer.json()
    return found


def main() -> None:
    """Measure and print; a number on the command line is how many replies, a folder after it is where."""
    replies = int(sys.argv[1]) if len(sys.argv) > 1 else REPLIES
    with tempfile.TemporaryDirectory(prefix="tonesmith-argilla-") as folder:
        for name, value in measure(Path(sys.argv[2] if len(sys.argv) > 2 else folder), replies).items():
            sys.stdout.write(f"{name:>20} {value:.2f}\n")


if __name__ == "__main__":
    main()
