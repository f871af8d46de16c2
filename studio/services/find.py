"""Find replies, keep views, and change many at once."""

from __future__ import annotations

from annotation.errors import refuse_nul
from annotation.people import Person
from annotation.store import Store
from annotation.store.batches import Batch, Change
from annotation.store.search import Filter, Hit, View

MOST_CHECKS = 10_000
"""Hidden checks are chosen by hand, so there are never so many."""


class FindService:
    """What the Find page calls, for one person."""

    def __init__(self, store: Store, who: Person) -> None:
        self._store = store
        self._who = who

    def find(self, wanted: Filter, after: int = 0, limit: int = 25) -> list[Hit]:
        """A page of replies, in the order in which they came in. A hidden check looks like any other reply to
        reviewers: it waits until they have judged it. Curators see how the answers came about.
        """
        self._who.must("look")
        if self._who.may("curate"):
            return self._store.search.with_how(self._store.search.find(wanted, after, limit))
        allowed = self._allowed(wanted)
        met = {hit.reply_id for hit in self._checks(Filter(reviewer=self._who.name))}
        hits = [*self._store.search.find(allowed, after, limit), *self._checks_among(allowed, after, met)]
        return [_plain(hit, hit.reply_id in met) for hit in sorted(hits, key=lambda hit: hit.position)[:limit]]

    def count(self, wanted: Filter) -> int:
        """How many replies are like that."""
        self._who.must("look")
        if self._who.may("curate"):
            return self._store.search.count(wanted)
        allowed = self._allowed(wanted)
        met = {hit.reply_id for hit in self._checks(Filter(reviewer=self._who.name))}
        return self._store.search.count(allowed) + len(self._checks_among(allowed, 0, met))

    def choices(self) -> dict[str, list[str]]:
        """What there is to filter by."""
        self._who.must("look")
        return self._store.search.choices()

    def views(self) -> list[View]:
        """Everybody's views."""
        self._who.must("look")
        return self._store.search.views()

    def keep_view(self, name: str, wanted: Filter) -> View:
        """Keep a filter under a name."""
        self._who.must("judge")
        refuse_nul(name, wanted.model_dump())
        return self._store.search.keep_view(name, self._who.name, wanted)

    def drop_view(self, view_id: str) -> None:
        """Remove one's own view."""
        self._who.must("judge")
        self._store.search.drop_view(view_id, self._who.name)

    def preview(self, wanted: Filter, change: Change) -> int:
        """How many replies a change would touch."""
        self._who.must("curate")
        return self._store.batches.preview(wanted, change)

    def change(self, wanted: Filter, change: Change) -> Batch:
        """Make a change to all of them at once."""
        self._who.must("curate")
        refuse_nul(change.model_dump())
        if change.assignee:
            self._store.people.get(change.assignee)
        return self._store.batches.make(wanted, change, self._who.name)

    def take_back(self, batch_id: str) -> int:
        """Undo a change; returns how many replies it put back."""
        self._who.must("curate")
        return self._store.batches.undo(batch_id, self._who.name)

    def changes(self) -> list[Batch]:
        """The last changes, newest first."""
        self._who.must("look")
        return self._store.batches.recent()

    def _allowed(self, wanted: Filter) -> Filter:
        """What others answered is not for reviewers to filter by: they could judge by it."""
        hidden: dict[str, str | None] = {"outcome": None, "question": None, "value": None, "clause": None}
        hidden["reviewer"] = self._who.name if wanted.reviewer else None
        states = {"gold": None, "disputed": "reviewed", "done": "reviewed", "open": "waiting", "full": "waiting"}
        return wanted.model_copy(update={**hidden, "state": states.get(wanted.state or "", wanted.state)})

    def _checks(self, wanted: Filter, after: int = 0) -> list[Hit]:
        return self._store.search.find(wanted.model_copy(update={"state": "gold"}), after, MOST_CHECKS)

    def _checks_among(self, allowed: Filter, after: int, met: set[str]) -> list[Hit]:
        """The hidden checks that a filter by state would leave out, and so give away."""
        if allowed.state not in ("waiting", "reviewed"):
            return []
        return [hit for hit in self._checks(allowed, after) if (hit.reply_id in met) is (allowed.state == "reviewed")]


def _plain(hit: Hit, met: bool) -> Hit:
    """As a reviewer may see it; `met` for a hidden check that they have judged."""
    seen: dict[str, object] = {"outcome": None, "agreement": None}
    if hit.state == "gold":
        seen |= {"state": "done", "done": hit.overlap} if met else {"state": "open", "done": 0}
    elif hit.state == "disputed":
        seen["state"] = "done"
    return hit.model_copy(update=seen)
