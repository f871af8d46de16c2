"""Ten reviewers in one process, as `benchmarks.crowd` starts them: they save, skip, load the page again, walk away and
come back, and write down what they were told."""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from annotation.acts import QUESTIONS
from annotation.people import Person
from annotation.queue import QueueSettings
from annotation.store import Store, open_store
from annotation.store.dealing import Hold
from annotation.store.reviews import HoldLost, ReviewAct, Verdict

THREADS = 10
SETTINGS = QueueSettings(overlap=2, lease_minutes=0.1, gold_share=0.05, repeat_share=0.05)
LEASE = 60 * SETTINGS.lease_minutes
"""In seconds."""
Told = Literal["begun", "saved", "skipped", "lost", "twice", "again", "error"]
"""`begun` has the whole form, before it is sent; `saved` and `skipped` were acknowledged; `lost` is a hold that went to
somebody else; `twice` is one form that was kept a second time; `again` was sent again after the kill."""


class Diary:
    """What one reviewer did and was told, a line each, at once in the file: it outlives a kill."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def note(self, what: Told, about: str) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{what}\t{about}\n")


def told(folder: Path, pattern: str = "*") -> list[tuple[str, str]]:
    """Every line of the diaries that match, a diary after the other."""
    lines = [line for file in sorted(folder.glob(f"{pattern}.diary")) for line in file.read_text().splitlines()]
    return [(what, about) for what, _, about in (line.partition("\t") for line in lines)]


def a_form(hold: Hold, name: str, dice: random.Random) -> ReviewAct:
    """All three questions answered, now and then with a correction."""
    return ReviewAct(
        act_id=hold.id,
        reply_id=hold.reply_id,
        reviewer=name,
        charter_version=1,
        verdicts=tuple(Verdict(question=question, value=dice.choice(("pass", "fail"))) for question in QUESTIONS),
        correction=f"Better: {hold.id}" if dice.random() < 0.1 else None,
    )


def send(store: Store, form: ReviewAct, diary: Diary, kept: bool = False) -> None:
    """Save; where the hold went to somebody else meanwhile, as the extra opinion that the desk offers. `kept`: it was
    acknowledged before, so that nothing may come of it.
    """
    diary.note("begun", form.model_dump_json())
    try:
        if store.reviews.save(form) and kept:
            diary.note("twice", form.act_id)
    except HoldLost:
        diary.note("lost", form.act_id)
        store.reviews.save(form.model_copy(update={"route": "late"}))
    diary.note("saved", form.act_id)


def send_again(store: Store, folder: Path, pattern: str, diary: Diary) -> None:
    """What browsers do after the restart: send each form anew whose save was not acknowledged, and each reviewer's
    last one, whose answer may have been lost on the way.
    """
    for file in sorted(folder.glob(f"{pattern}.diary")):
        said = told(folder, file.stem)
        acknowledged = {about for what, about in said if what == "saved"}
        forms = [ReviewAct.model_validate_json(about) for what, about in said if what == "begun"]
        for form in forms:
            if form.act_id not in acknowledged or form is forms[-1]:
                diary.note("again", form.act_id)
                send(store, form, diary, kept=form.act_id in acknowledged)


def review(store: Store, name: str, diary: Diary, end: float) -> None:
    """One reviewer until `end`, by the monotonic clock."""
    person, dice = Person(name=name), random.Random(name)
    while time.monotonic() < end:
        hold = store.tasks.claim(person, SETTINGS)
        chance = dice.random()
        if hold is None:
            time.sleep(0.2)
        elif chance < 0.03:
            continue  # the page is loaded again: the same reply
        elif chance < 0.04:
            time.sleep(LEASE * dice.uniform(1.1, 2))  # gone, and never looks at this one again
        elif chance < 0.08:
            store.reviews.skip(hold.id, hold.reply_id, name, "other")
            diary.note("skipped", hold.id)
        else:
            if chance < 0.10:
                time.sleep(LEASE * dice.choice((0.1, dice.uniform(1.1, 2))))  # a coffee, or lunch, with the reply open
            form = a_form(hold, name, dice)
            send(store, form, diary)
            if dice.random() < 0.05:  # a double click
                send(store, form, diary, kept=True)


def work(url: str, folder: Path, half: int, number: int, seconds: float) -> None:
    """Process `number` of the first or the second `half`; its reviewers are nobody that was there before."""
    store = open_store(url)
    end = time.monotonic() + seconds
    if half > 1:
        send_again(store, folder, f"reviewer-{half - 1}-{number}-*", Diary(folder / f"again-{half}-{number}.diary"))

    def one(place: int) -> None:
        name = f"reviewer-{half}-{number}-{place}"
        diary = Diary(folder / f"{name}.diary")
        try:
            review(store, name, diary, end)
        except Exception as error:  # counted
            diary.note("error", f"{type(error).__name__}: {error}".replace("\n", " ")[:500])

    threads = [threading.Thread(target=one, args=(place,)) for place in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
