"""Find replies, keep views, and change many at once."""

from __future__ import annotations

from annotation.people import Person
from annotation.store import Store
from annotation.store.batches import Batch, Change
from annotation.store.search import Filter, Hit, View


class FindService:
    """What the Find page calls, for one person."""

    def __init__(self, store: Store, who: Person) -> None:
        self._store = store
        self._who = who

    def find(self, wanted: Filter, after: int = 0, limit: int = 25) -> list[Hit]:
        """A page of replies, in the order in which they came in. A hidden check looks like any other reply to
        reviewers.
        """
        self._who.must("look")
        hits = self._store.search.find(self._allowed(wanted), after, limit)
        return hits if self._who.may("curate") else [_plain(hit) for hit in hits]

    def count(self, wanted: Filter) -> int:
        """How many replies are like that."""
        self._who.must("look")
        return self._store.search.count(self._allowed(wanted))

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
        return self._store.search.keep_view(name, self._who.name, wanted)

    def drop_view(self, view_id: str) -> None:
        """Remove one's own view."""
        self._who.must("judge")
        self._store.search.drop_view(view_id, self._who.name)

    def preview(self, wanted: Filter) -> int:
        """How many replies a change would touch."""
        self._who.must("curate")
        return self._store.batches.preview(wanted)

    def change(self, wanted: Filter, change: Change) -> Batch:
        """Make a change to all of them at once."""
        self._who.must("curate")
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
        if self._who.may("curate"):
            return wanted
        hidden: dict[str, str | None] = {"outcome": None, "question": None, "value": None, "clause": None}
        hidden["reviewer"] = self._who.name if wanted.reviewer else None
        state = None if wanted.state in ("gold", "disputed") else wanted.state
        return wanted.model_copy(update={**hidden, "state": state})


def _plain(hit: Hit) -> Hit:
    state = {"gold": "open", "disputed": "done"}.get(hit.state, hit.state)
    return hit.model_copy(update={"state": state, "outcome": None, "agreement": None})
