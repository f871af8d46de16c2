"""Fifty reviewers at once for two minutes, all of them killed half-way and started again: is anything lost, doubled, or
judged by more people than it should be? On SQLite and on PostgreSQL."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import sqlalchemy as sa

from annotation.acts import COUNTED, project
from annotation.people import Person
from annotation.queue import QueueSettings
from annotation.store import Store, open_store
from annotation.store.dealing import OVERBOOKED
from annotation.store.history import acts_of
from annotation.store.reviews import HoldLost, ReviewAct, Verdict
from annotation.store.tables import acts, leases, tasks
from annotation.types import Message
from benchmarks.judgement import postgresql
from benchmarks.row import Row

PROCESSES, THREADS = 5, 10
SECONDS, REPLIES = 120.0, 20_000
SETTINGS = QueueSettings(overlap=2, lease_minutes=0.1)


def measure(folder: Path) -> list[Row]:
    """One row a database; good if there is no fault at all."""
    sqlite = open_store(f"sqlite:///{folder / 'crowd.db'}")
    rows = [crowd(sqlite, f"sqlite:///{folder / 'crowd.db'}", folder / "sqlite", SECONDS, "SQLite")]
    sqlite.close()
    (folder / "crowd").mkdir()
    with postgresql(folder / "crowd") as store:
        url = store.engine.url.render_as_string(hide_password=False)
        rows.append(crowd(store, url, folder / "postgresql", SECONDS, "PostgreSQL"))
    return rows


def crowd(store: Store, url: str, folder: Path, seconds: float, name: str) -> Row:
    """Let them work, kill them half-way, let them go on, and count the faults."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare(store, REPLIES)
    over, overbooked = threading.Event(), set[str]()
    watching = threading.Thread(target=watch, args=(store, over, overbooked))
    watching.start()
    run(url, folder, seconds / 2, kill=True)
    run(url, folder, seconds / 2, kill=False)
    over.set()
    watching.join()
    time.sleep(60 * SETTINGS.lease_minutes + 0.5)
    store.tasks.free_expired()
    found = {"held beyond their overlap": len(overbooked)} | faults(store, folder)
    saved = sum(len(file.read_text().splitlines()) for file in folder.glob("*.acks"))
    said = ", ".join(f"{number} {what}" for what, number in found.items())
    worst = sum(found.values())
    what = f"{PROCESSES * THREADS} reviewers, {seconds:.0f} s, killed half-way, {name}"
    return Row(what, f"{saved:,} saves; {said}", "no fault", float(worst), worst == 0)


def watch(store: Store, over: threading.Event, found: set[str]) -> None:
    """Twice a second until `over`: replies that more people hold or have judged than should."""
    while not over.wait(0.5):
        with store.engine.connect() as db:
            found.update(db.scalars(OVERBOOKED))


def prepare(store: Store, replies: int) -> None:
    """Replies to judge, two people each."""
    store.tasks.change_settings(SETTINGS, "bench")
    for number in range(replies):
        said = [(Message(role="user", text=f"{number}?"), None), (Message(role="assistant", text="Yes."), None)]
        store.conversations.import_one("crowd", str(number), "crowd", "en", said)


def run(url: str, folder: Path, seconds: float, kill: bool) -> None:
    """Start the processes; SIGKILL them at the end, or let them finish."""
    running = [
        subprocess.Popen([sys.executable, "-m", "benchmarks.crowd", url, str(folder), str(number), str(seconds)])
        for number in range(PROCESSES)
    ]
    if kill:
        time.sleep(seconds)
    for process in running:
        if kill:
            process.send_signal(signal.SIGKILL)
        process.wait()
    if not kill and any(process.returncode for process in running):
        raise RuntimeError("a reviewer's process failed")


def faults(store: Store, folder: Path) -> dict[str, int]:
    """What went wrong, by kind."""
    said = [line for file in folder.glob("*.acks") for line in file.read_text().splitlines()]
    with store.engine.connect() as db:
        kept = Counter(db.scalars(sa.select(acts.c.id).where(acts.c.kind == "review")))
        judged = Counter(
            (row.reply_id, row.person)
            for row in db.execute(
                sa.select(acts.c.reply_id, acts.c.person).where(acts.c.kind == "review", acts.c.route.in_(COUNTED))
            )
        )
        held = Counter(db.scalars(sa.select(leases.c.reply_id).where(leases.c.state == "held")))
        rows = db.execute(sa.select(tasks.c.reply_id, tasks.c.state, tasks.c.done, tasks.c.overlap)).all()
        differs = 0
        for start in range(0, len(rows), 500):
            some = rows[start : start + 500]
            histories = acts_of(db, [row.reply_id for row in some])
            for row in some:
                now = project(histories.get(row.reply_id, ()), row.overlap, held[row.reply_id])
                differs += (now.state, now.done) != (row.state, row.done)
    people = Counter(reply_id for reply_id, _ in judged)
    return {
        "lost": sum(1 for act_id in said if kept[act_id] == 0),
        "doubled": sum(1 for number in kept.values() if number > 1)
        + sum(1 for number in judged.values() if number > 1),
        "judged beyond their overlap": sum(1 for number in people.values() if number > SETTINGS.overlap),
        "still held": sum(held.values()),
        "not as replayed": differs,
    }


def work(url: str, folder: Path, number: int, seconds: float) -> None:
    """Ten reviewers in one process: most save, some skip, some walk away from an open reply."""
    store = open_store(url)
    end = time.monotonic() + seconds

    def review(place: int) -> None:
        name = f"reviewer-{number}-{place}"
        person, dice = Person(name=name), random.Random(f"{name}-{time.time()}")
        with (folder / f"{name}.acks").open("a") as acknowledged:
            while time.monotonic() < end:
                hold = store.tasks.claim(person, SETTINGS)
                if hold is None or dice.random() < 0.05:
                    time.sleep(0.2)  # nothing left, or gone for a coffee with the reply open
                    continue
                if dice.random() < 0.05:
                    store.reviews.skip(hold.id, hold.reply_id, name, "other")
                    continue
                value = dice.choice(("pass", "fail"))
                verdicts = (Verdict.model_validate({"question": "voice", "value": value}),)
                act = ReviewAct(
                    act_id=hold.id, reply_id=hold.reply_id, reviewer=name, charter_version=1, verdicts=verdicts
                )
                try:
                    store.reviews.save(act)
                except HoldLost:  # too slow: told so, and nothing is kept
                    continue
                acknowledged.write(hold.id + "\n")
                acknowledged.flush()

    threads = [threading.Thread(target=review, args=(place,)) for place in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
