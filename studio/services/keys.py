"""Keys with which other programs call the models in a person's name."""

from __future__ import annotations

from annotation.errors import Conflict
from annotation.people import Person
from annotation.store import Store
from annotation.store.keys import ApiKey


class KeyService:
    """What the API page and `tonesmith keys` call, for one person."""

    def __init__(self, store: Store, who: Person) -> None:
        self._store = store
        self._who = who

    def all(self) -> list[ApiKey]:
        """One's own keys, newest first; everybody's, if one manages people."""
        self._who.must("look")
        return self._store.keys.all() if self._who.may("manage") else self._store.keys.of(self._who.name)

    def add(self, name: str, person: str | None = None) -> tuple[ApiKey, str]:
        """A new key, and the whole of it, which is told this once only.

        It acts in one's own name, or in `person`'s, if one manages people. Raises UserError for a name that is none,
        NotFound, and Conflict for a closed account and for too many keys.
        """
        self._who.must("judge")
        person = person or self._who.name
        if person != self._who.name:
            self._who.must("manage")
            if not self._store.people.get(person).active:
                raise Conflict(f"The account '{person}' is closed.", do="Open it first.")
        return self._store.keys.add(person, name, self._who.name)

    def revoke(self, key_id: str) -> ApiKey:
        """End a key, at once: one's own, or anybody's if one manages people. Raises NotFound."""
        self._who.must("look")
        if self._store.keys.get(key_id).person != self._who.name:
            self._who.must("manage")
        return self._store.keys.revoke(key_id, self._who.name)
