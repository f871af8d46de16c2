"""Fifty reviewers at once for two minutes, and for two more, killed half-way with others in their place: is anything
lost, doubled, left behind, or judged by more people than it should be? On SQLite and on PostgreSQL."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import sqlalchemy as sa

from annotation.acts import COUNTED, QUESTIONS
from annotation.people import Person
from annotation.store import Store, open_store
from annotation.store.dealing import OVERBOOKED
from annotation.store.tables import acts, judgements, leases, tasks
from annotation.types import Message, utc_now
from benchmarks.crowd_at_work import LEASE, SETTINGS, THREADS, Diary, a_form, send, told
from benchmarks.judgement import postgresql
from benchmarks.replayed import not_as_replayed
from benchmarks.row import Row

PROCESSES = 5
SECONDS, REPLIES, CHECKS = 120.0, 20_000, 40
AFTER_A_KILL = "sent again after the kill"


def measure(folder: Path) -> list[Row]:
    """Two rows a database and way: no fault at all; and that what could go wrong was met."""
    rows = []
    for killed in (False, True):
        way = "killed" if killed else "whole"
        sqlite = open_store(f"sqlite:///{folder / f'crowd-{way}.db'}")
        url = f"sqlite:///{folder / f'crowd-{way}.db'}"
        rows += crowd(sqlite, url, folder / f"sqlite-{way}", SECONDS, "SQLite", killed)
        sqlite.close()
        (folder / f"crowd-{way}").mkdir()
        with postgresql(folder / f"crowd-{way}") as store:
            url = store.engine.url.render_as_string(hide_password=False)
            rows += crowd(store, url, folder / f"postgresql-{way}", SECONDS, "PostgreSQL", killed)
    return rows


def crowd(store: Store, url: str, folder: Path, seconds: float, name: str, killed: bool = True) -> list[Row]:
    """Let them work, `killed` half-way with others in their place or not, and count."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare(store, REPLIES)
    over, overbooked = threading.Event(), set[str]()
    watching = threading.Thread(target=watch, args=(store, over, overbooked))
    watching.start()
    if killed:
        run(url, folder, seconds / 2, half=1)
    run(url, folder, seconds / 2 if killed else seconds, half=2)
    found = met(store, folder)
    if not killed:
        del found[AFTER_A_KILL]
    time.sleep(LEASE + 0.5)
    left = come_later(store, Diary(folder / "late.diary"))
    over.set()
    watching.join()
    wrong = {"held beyond their overlap": len(overbooked), "left behind": len(left)} | faults(store, folder)
    saved = len({about for what, about in told(folder) if what == "saved"})
    what = f"{PROCESSES * THREADS} reviewers, {seconds:.0f} s, {'killed half-way, ' if killed else ''}{name}"
    worst, least = sum(wrong.values()), min(found.values())
    return [
        Row(what, f"{saved:,} saves; {_said(wrong)}", "no fault", float(worst), worst == 0),
        Row(f"{name}: what they met", _said(found), "each at least once", float(least), least > 0),
    ]


def _said(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in numbers.items())


def watch(store: Store, over: threading.Event, found: set[str]) -> None:
    """Twice a second until `over`: replies that more people hold or have judged than should."""
    while not over.wait(0.5):
        with store.engine.connect() as db:
            found.update(db.scalars(OVERBOOKED))


def prepare(store: Store, replies: int) -> None:
    """Replies to judge, two people each; some of them hidden checks."""
    store.tasks.change_settings(SETTINGS, "bench")
    for number in range(replies):
        said = [(Message(role="user", text=f"{number}?"), None), (Message(role="assistant", text="Yes."), None)]
        store.conversations.import_one("crowd", str(number), "crowd", "en", said)
    with store.engine.connect() as db:
        last = list(db.scalars(sa.select(tasks.c.reply_id).order_by(tasks.c.position.desc()).limit(CHECKS)))
    for reply_id in last:
        store.tasks.set_gold(reply_id, {"voice": "pass"}, "bench")


def run(url: str, folder: Path, seconds: float, half: int) -> None:
    """Start the processes; SIGKILL them at the end of the first half, let them finish in the second."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.crowd_at_work", url, str(folder), str(half), str(number), str(seconds)]
        )
        for number in range(PROCESSES)
    ]
    if half == 1:
        time.sleep(seconds)
    for process in running:
        if half == 1:
            process.send_signal(signal.SIGKILL)
    for process in running:
        process.wait()
    if half > 1 and any(process.returncode for process in running):
        raise RuntimeError("a reviewer's process failed")


def come_later(store: Store, diary: Diary) -> set[str]:
    """Two more people, after everybody has left, are dealt replies in the ordinary way until none is left that
    somebody had begun: whatever was walked away from must have come back by itself. Returns what has not.
    """
    plain = SETTINGS.model_copy(update={"gold_share": 0.0, "repeat_share": 0.0, "lease_minutes": 30})
    begun = waiting(store)
    for name in ("late-1", "late-2"):
        person, dice, left = Person(name=name), random.Random(name), begun & waiting(store)
        for _ in range(len(left) + 100):  # some that nobody had begun may come between
            hold = store.tasks.claim(person, plain) if left else None
            if hold is None:
                break
            send(store, a_form(hold, name, dice), diary)
            left.discard(hold.reply_id)
    return begun & waiting(store)


def waiting(store: Store) -> set[str]:
    """Replies that somebody was dealt and that still wait for somebody."""
    query = sa.select(tasks.c.reply_id).where(tasks.c.state.in_(("open", "full")))
    with store.engine.connect() as db:
        return set(db.scalars(query.where(tasks.c.reply_id.in_(sa.select(leases.c.reply_id)))))


def met(store: Store, folder: Path) -> dict[str, int]:
    """How often what this is about came up."""
    said = Counter(what for what, _ in told(folder))
    judges = _judges(store)
    with store.engine.connect() as db:
        ran_out = sa.or_(leases.c.state == "expired", leases.c.route == "late")
        gone = db.execute(sa.select(leases.c.reply_id, leases.c.person).where(ran_out)).all()
        routes = Counter(db.scalars(sa.select(acts.c.route).where(acts.c.kind == "review")))
    others = [judges[row.reply_id] for row in gone if row.person not in judges[row.reply_id]]
    return {
        "holds that ran out": len(gone),
        "of them judged by others instead": sum(len(people) >= SETTINGS.overlap for people in others),
        "told so when they came back": said["lost"],
        AFTER_A_KILL: said["again"],
        "hidden checks": routes["gold"],
        "repeats": routes["repeat"],
        "skips": said["skipped"],
    }


def faults(store: Store, folder: Path) -> dict[str, int]:
    """What went wrong, by kind."""
    said = told(folder)
    with store.engine.connect() as db:
        kept = set(db.scalars(sa.select(acts.c.id)))
        reviews = db.execute(
            sa.select(acts.c.reply_id, acts.c.person, acts.c.route).where(acts.c.kind == "review")
        ).all()
        given = sa.select(sa.func.count(judgements.c.seq)).select_from(acts)
        given = given.outerjoin(judgements, judgements.c.act_id == acts.c.id).where(acts.c.kind == "review")
        answers = list(db.scalars(given.group_by(acts.c.id)))
        run_out = sa.select(sa.func.count()).where(leases.c.state == "held", leases.c.expires_at < utc_now())
        still_held = db.scalar(run_out) or 0
    once = Counter((row.reply_id, row.person, "queue" if row.route in COUNTED else row.route) for row in reviews)
    return {
        "lost": sum(what in ("saved", "skipped") and about not in kept for what, about in said),
        "half saved": sum(number != len(QUESTIONS) for number in answers),
        "doubled": sum(number > 1 for number in once.values()) + sum(what == "twice" for what, _ in said),
        "judged beyond their overlap": sum(len(people) > SETTINGS.overlap for people in _judges(store).values()),
        "run out and still held": still_held,
        "not as replayed": len(not_as_replayed(store)),
        "errors": sum(what == "error" for what, _ in said),
    }


def _judges(store: Store) -> dict[str, set[str]]:
    """Who judged each reply, as far as it counts."""
    query = sa.select(acts.c.reply_id, acts.c.person).where(acts.c.kind == "review", acts.c.route.in_(COUNTED))
    judges: dict[str, set[str]] = defaultdict(set)
    with store.engine.connect() as db:
        for row in db.execute(query):
            judges[row.reply_id].add(row.person)
    return judges
