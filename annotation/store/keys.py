"""Keys with which other programs act in a person's name. Of a secret only its SHA-256 is kept; it is shown once."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import timedelta

import sqlalchemy as sa
from pydantic import AwareDatetime

from annotation.errors import Conflict, NotFound, UserError
from annotation.people import Person
from annotation.store.part import Part
from annotation.store.people import person_of
from annotation.store.tables import api_key_ends, api_key_uses, api_keys, people
from annotation.types import Frozen, utc_now

PREFIX = "tonesmith"
MOST = 20
"""Keys in force that one person can have."""
NAME_LENGTH = 60
USED_EVERY = timedelta(minutes=1)
"""A use is written down at most this often."""
SHAPE = re.compile(rf"{PREFIX}-([0-9a-f]{{12}})-([\w-]{{43}})", re.ASCII)
# Compared with where there is no such key, so that the time taken does not tell which there are.
NOTHING = hashlib.sha256(secrets.token_bytes()).hexdigest()


class ApiKey(Frozen):
    """A key as it is known here: all but its secret."""

    id: str
    """12 hex digits; a part of the key itself, so that it can be found again in a program's settings."""
    person: str
    """In whose name it acts."""
    name: str
    """What it is for."""
    author: str
    """Who made it."""
    made_at: AwareDatetime
    last_used: AwareDatetime | None = None
    """To the minute; None if never."""
    revoked_at: AwareDatetime | None = None
    revoked_by: str | None = None


class Keys(Part):
    """Make keys, end them, and find out whose one is."""

    def add(self, person: str, name: str, author: str) -> tuple[ApiKey, str]:
        """A new key in `person`'s name, and the whole of it, which nobody can ask for again.

        Raises NotFound, UserError for a name that is none, and Conflict for more than `MOST` keys.
        """
        name = _checked(name)
        secret = secrets.token_urlsafe(32)
        key_id = secrets.token_hex(6)
        row = {"id": key_id, "person": person, "name": name, "secret_sha256": _sha256(secret), "author": author}
        in_force = sa.select(sa.func.count()).select_from(_WITH_END).where(api_keys.c.person == person, _IN_FORCE)
        with self._writer.begin() as db:
            if db.scalar(sa.select(people.c.name).where(people.c.name == person).with_for_update()) is None:
                raise NotFound(
                    f"Nobody here is called '{person}'.", do=f"Add them first: `tonesmith people add {person}`."
                )
            if (db.scalar(in_force) or 0) >= MOST:
                raise Conflict(f"{person} has {MOST} keys already.", do="Revoke one that is no longer used.")
            db.execute(api_keys.insert().values(row | {"made_at": utc_now()}))
        return self.get(key_id), f"{PREFIX}-{key_id}-{secret}"

    def get(self, key_id: str) -> ApiKey:
        """One key. Raises NotFound."""
        found = self._listed(api_keys.c.id == key_id)
        if not found:
            raise NotFound(f"There is no key '{key_id}'.", do="`tonesmith keys list` lists them by their id.")
        return found[0]

    def all(self) -> list[ApiKey]:
        """Everybody's, revoked ones included, newest first."""
        return self._listed()

    def of(self, person: str) -> list[ApiKey]:
        """One person's, revoked ones included, newest first."""
        return self._listed(api_keys.c.person == person)

    def revoke(self, key_id: str, author: str) -> ApiKey:
        """End a key, at once and for good. Ending it again changes nothing. Raises NotFound."""
        self.get(key_id)
        row = {"id": secrets.token_hex(16), "key_id": key_id, "author": author, "made_at": utc_now()}
        try:
            with self._writer.begin() as db:
                db.execute(api_key_ends.insert().values(row))
        except sa.exc.IntegrityError:  # it was ended before
            pass
        return self.get(key_id)

    def person_of(self, key: str) -> Person | None:
        """In whose name `key` acts, as they stand now; None for a wrong or revoked one, or a closed account."""
        shape = SHAPE.fullmatch(key)
        if shape is None:
            return None
        with self._engine.connect() as db:
            row = db.execute(_HOLDER, {"key_id": shape[1]}).mappings().first()
        right = hmac.compare_digest(row["secret_sha256"] if row else NOTHING, _sha256(shape[2]))
        if row is None or not right:
            return None
        if row["used_at"] is None or utc_now() - row["used_at"] > USED_EVERY:
            self._note_use(shape[1])
        return person_of(row)

    def _note_use(self, key_id: str) -> None:
        with self._writer.begin(may_be_lost=True) as db:
            held = db.scalar(sa.select(api_keys.c.id).where(api_keys.c.id == key_id).with_for_update())
            changed = db.execute(api_key_uses.update().where(api_key_uses.c.key_id == held).values(used_at=utc_now()))
            if not changed.rowcount:
                db.execute(api_key_uses.insert().values(key_id=held, used_at=utc_now()))

    def _listed(self, *which: sa.ColumnElement[bool]) -> list[ApiKey]:
        query = _LISTED.where(*which).order_by(api_keys.c.seq.desc())
        with self._engine.connect() as db:
            return [ApiKey(**row) for row in db.execute(query).mappings()]


_WITH_END = api_keys.outerjoin(api_key_ends, api_key_ends.c.key_id == api_keys.c.id)
_IN_FORCE = api_key_ends.c.key_id.is_(None)
_LISTED = sa.select(
    *(api_keys.c[name] for name in ("id", "person", "name", "author", "made_at")),
    api_key_uses.c.used_at.label("last_used"),
    api_key_ends.c.made_at.label("revoked_at"),
    api_key_ends.c.author.label("revoked_by"),
).select_from(_WITH_END.outerjoin(api_key_uses, api_key_uses.c.key_id == api_keys.c.id))
_HOLDER = (
    sa.select(people, api_keys.c.secret_sha256, api_key_uses.c.used_at)
    .select_from(
        _WITH_END.join(people, people.c.name == api_keys.c.person).outerjoin(
            api_key_uses, api_key_uses.c.key_id == api_keys.c.id
        )
    )
    .where(api_keys.c.id == sa.bindparam("key_id"), _IN_FORCE, people.c.active)
)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _checked(name: str) -> str:
    name = name.strip()
    if not name:
        raise UserError("The key has no name.", do="Say what it is for, for example: website.")
    if len(name) > NAME_LENGTH or not name.isprintable():
        raise UserError("That can't be a key's name.", f"Up to {NAME_LENGTH} characters on one line.")
    return name
