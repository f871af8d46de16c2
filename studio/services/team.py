"""Who works here, and how the work is dealt out."""

from __future__ import annotations

from annotation.errors import NotFound, UserError, refuse_nul
from annotation.people import Person, Role
from annotation.queue import QueueSettings
from annotation.store import Store
from annotation.store.tasks import Gold
from annotation.types import Question, Value
from studio.services.checks import outdated


class TeamService:
    """What the Team page and `tonesmith people` call, for one person."""

    def __init__(self, store: Store, who: Person) -> None:
        self._store = store
        self._who = who

    def people(self) -> list[Person]:
        """Everybody, by name."""
        self._who.must("look")
        return self._store.people.all()

    def add(self, name: str, role: Role, skills: tuple[str, ...] = (), password: str | None = None) -> Person:
        """Add somebody. Raises UserError, Conflict."""
        self._who.must("manage")
        refuse_nul(skills)
        return self._store.people.add(name, role, skills, password)

    def change(
        self, name: str, role: Role | None = None, skills: tuple[str, ...] | None = None, active: bool | None = None
    ) -> Person:
        """Change somebody. An account that is closed loses its keys, also if it is opened again.

        Raises NotFound, Conflict for the last admin.
        """
        self._who.must("manage")
        refuse_nul(skills)
        was_closed = active is not None and not self._store.people.get(name).active
        if was_closed:
            self._revoke_all(name)  # left over, if the studio ended in the middle of closing it
        person = self._store.people.change(name, role, skills, active)
        if not person.active:
            self._revoke_all(name)
        return person

    def _revoke_all(self, name: str) -> None:
        for key in self._store.keys.of(name):
            if key.revoked_at is None:
                self._store.keys.revoke(key.id, self._who.name)

    def link(self, name: str) -> str:
        """A token that signs `name` in, once, within half an hour."""
        self._who.must("manage")
        person = self._store.people.get(name)
        if not person.active:
            raise UserError(f"The account '{name}' is closed.", do="Open it first.")
        return self._store.people.open_session(name, "link")

    def set_password(self, name: str, password: str) -> None:
        """Give somebody a new password: oneself, or anybody if one manages people."""
        self._who.must("look" if name == self._who.name else "manage")
        self._store.people.set_password(name, password)

    # How work is dealt out

    def queues(self) -> list[QueueSettings]:
        """All queues, the main one first."""
        self._who.must("look")
        return self._store.tasks.queues()

    def change_queue(self, settings: QueueSettings) -> None:
        """Keep new settings of a queue."""
        self._who.must("curate")
        self._store.tasks.change_settings(settings, self._who.name)

    def golds(self) -> list[Gold]:
        """The hidden checks."""
        self._who.must("curate")
        return self._store.tasks.golds()

    def outdated_golds(self) -> dict[str, frozenset[Question]]:
        """For hidden checks made under house rules that changed since: the questions that do not count meanwhile.
        Making such a check once more confirms its answers.
        """
        self._who.must("curate")
        return outdated(self._store)

    def set_gold(self, reply_id: str, answers: dict[Question, Value]) -> None:
        """Make a reply a hidden check. Raises UserError without an answer, NotFound."""
        self._who.must("curate")
        if not answers:
            raise UserError("A hidden check needs its right answers.", do="Answer at least one question.")
        self._store.tasks.set_gold(reply_id, answers, self._who.name)

    def unset_gold(self, reply_id: str) -> None:
        """Make a hidden check an ordinary reply again. Raises NotFound if it is none."""
        self._who.must("curate")
        if reply_id not in {gold.reply_id for gold in self._store.tasks.golds()}:
            raise NotFound(f"'{reply_id}' is no hidden check.", do="Take the address of one from the list.")
        self._store.tasks.unset_gold(reply_id)
