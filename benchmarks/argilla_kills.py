"""10,000 replies there and 10,000 answers back while everything is killed in turn: what is lost or doubled, or says
something else.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from annotation.argilla_client import Argilla
from annotation.argilla_report import Progress
from annotation.argilla_server import PARTS, WORKSPACE, ArgillaServer, Part
from annotation.argilla_sync import ArgillaSync
from annotation.errors import UserError
from annotation.people import Person
from annotation.store import Store, open_store
from benchmarks.argilla_server import running_argilla
from benchmarks.argilla_sync import REPLIES, answer_all, answer_to, filled_store, records_there
from benchmarks.row import Row

STATES_SECONDS = 60.0
PUSH, PULL = "sending replies", "fetching answers"


def measure(folder: Path, replies: int = REPLIES) -> list[Row]:
    """Two lines: our process and each part of the server killed at other places of the push, and of the pull."""
    folder = folder / "argilla-kills"
    store = filled_store(folder, replies)
    with running_argilla(folder) as server:
        server.add_people([Person(name="ana")])
        client = Argilla(server.url, server.keys.api_key, WORKSPACE)
        syncing = ArgillaSync(store, client)
        kills = _through(folder, server, syncing, PUSH, replies)
        syncing.sync()
        records = records_there(server, syncing)[1]
        there = Counter(str(one["external_id"]) for one in records)
        ours = store.conversations.of_replies(there)
        other = sum(one["fields"]["reply"] != ours[one["external_id"]].turns[-1].text for one in records)
        rows = [_row(f"push {replies:,} replies, {kills} kills -9", there, replies, other)]
        answer_all(server, syncing)
        kills = _through(folder, server, syncing, PULL, replies)
        syncing.sync()
        _compare(syncing)
        acts = _acts(store)
        other = sum(not _says_the_same(store, reply_id) for reply_id in acts)
        rows.append(_row(f"pull {replies:,} answers, {kills} kills -9", acts, replies, other))
        client.close()
    store.close()
    return rows


def _through(folder: Path, server: ArgillaServer, syncing: ArgillaSync, step: str, replies: int) -> int:
    """Kill this process's child, then each part, each a sixth of the way further on; how many kills that made."""
    sixth = replies // (len(PARTS) + 3)
    _kill_us(folder, server, step, sixth)
    for number, part in enumerate(PARTS):
        if not _kill_part(server, syncing, part, step, sixth):
            raise RuntimeError(f"{step} was over before the {number + 1}. kill")
    return len(PARTS) + 1


def _kill_us(folder: Path, server: ArgillaServer, step: str, after: int) -> None:
    command = [sys.executable, "-m", "benchmarks.argilla_kills", str(folder), server.url, server.keys.api_key]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            what, _, done = line.rpartition(" ")
            if what == step and int(done) >= after:
                child.kill()
                return
    raise RuntimeError(f"{step} was over before it could be killed")


def _kill_part(server: ArgillaServer, syncing: ArgillaSync, part: Part, step: str, after: int) -> bool:
    """Kill a part once so many went over, with all that it started, since the worker's own children would go on without
    it, and bring it back; False if there was nothing left to go over.
    """
    killed: list[psutil.Process] = []

    def kill(progress: Progress) -> None:
        if progress.what == step and progress.done >= after and not killed:
            process = psutil.Process(server.status().parts[part])
            killed.extend([process, *process.children(recursive=True)])
            for one in killed:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()

    try:
        syncing.sync(kill, lambda: bool(killed))  # the rest is for the next kill
    except UserError:
        if not killed:
            raise
    if killed:
        psutil.wait_procs(killed, timeout=10)
        server.ensure()
    return bool(killed)


def _compare(syncing: ArgillaSync) -> None:
    """A comparison must find nothing to do. Only states of records may be Argilla's worker's to work out yet, and in a
    minute it has. Raises RuntimeError otherwise.
    """
    end = time.monotonic() + STATES_SECONDS
    while not (repairs := syncing.reconcile()).nothing:
        if not repairs.nothing_moved or time.monotonic() > end:
            raise RuntimeError(f"the two sides differed: {repairs}")
        time.sleep(1)


def _acts(store: Store) -> Counter[str]:
    """How many acts each reply has."""
    answered = [one.reply_id for one in store.figures.answers("voice")]
    return Counter({reply_id: len(store.reviews.history(reply_id)) for reply_id in answered})


def _says_the_same(store: Store, reply_id: str) -> bool:
    """Whether all that is kept of a reply's answers is what was said in Argilla."""
    said = []
    for act in store.reviews.history(reply_id):
        values: dict[str, str] = {one.question: one.value for one in act.judgements}
        said.append(values | {"correction": act.correction.after if act.correction else ""})
    return all(one == answer_to(reply_id) for one in said)


def _row(what: str, found: Counter[str], wanted: int, other: int) -> Row:
    lost, doubled = wanted - len(found), found.total() - len(found)
    said = f"{lost} lost, {doubled} doubled, {other} with other words"
    return Row(f"Argilla sync: {what}", said, "none", len(found) / wanted, not (lost or doubled or other))


def main() -> None:
    """The child that is killed: a sync that says how far it is."""
    folder, url, key = sys.argv[1:]
    store = open_store(f"sqlite:///{Path(folder) / 'store.db'}")

    def tell(progress: Progress) -> None:
        sys.stdout.write(f"{progress.what} {progress.done}\n")
        sys.stdout.flush()

    ArgillaSync(store, Argilla(url, key, WORKSPACE)).sync(tell)


if __name__ == "__main__":
    main()
