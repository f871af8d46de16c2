"""People, their passwords and their sessions. Passwords are kept as Argon2 hashes, session tokens as SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Any, Literal

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from pydantic import ValidationError

from annotation.errors import Conflict, NotFound, UserError
from annotation.people import Person, Role
from annotation.store.part import Part
from annotation.store.tables import leases, people, sessions
from annotation.types import utc_now

TRIES = 5
LOCKED = timedelta(minutes=15)
SESSION = timedelta(days=14)
LINK = timedelta(minutes=30)
PASSWORD_LENGTH = range(10, 201)
HASHER = PasswordHasher()
# Checked where there is no such person, so that the time taken does not tell who works here.
NOBODY = HASHER.hash(secrets.token_hex())


class WrongPassword(UserError):
    """Name and password do not belong together, or the account is locked for a while."""


class People(Part):
    """Who works here, and who is signed in."""

    def all(self) -> list[Person]:
        """Everybody, those who left included, by name."""
        with self._engine.connect() as db:
            return [person_of(row) for row in db.execute(sa.select(people).order_by(people.c.name)).mappings()]

    def get(self, name: str) -> Person:
        """One person. Raises NotFound."""
        with self._engine.connect() as db:
            row = db.execute(sa.select(people).where(people.c.name == _findable(name))).mappings().first()
        if row is None:
            raise NotFound(f"Nobody here is called '{name}'.", do="The Team page lists everybody.")
        return person_of(row)

    def add(self, name: str, role: Role, skills: tuple[str, ...] = (), password: str | None = None) -> Person:
        """Add somebody. Without a password they come in by a sign-in link. Raises UserError, Conflict."""
        try:
            person = Person(name=name, role=role, skills=skills)
        except ValidationError as error:
            raise UserError(
                f"'{name}' can't be a name here.", "Up to 64 letters, digits and . _ - @, without spaces."
            ) from error
        row = person.model_dump(mode="json") | {"failures": 0, "made_at": utc_now()}
        row["password_hash"] = _hashed(password) if password is not None else None
        try:
            with self._writer.begin() as db:
                db.execute(people.insert().values(row))
        except sa.exc.IntegrityError as error:
            raise Conflict(f"Somebody is called '{name}' already.", do="Choose another name.") from error
        return person

    def change(
        self,
        name: str,
        role: Role | None = None,
        skills: tuple[str, ...] | None = None,
        active: bool | None = None,
    ) -> Person:
        """Change what is given; closing an account ends its sessions and gives back what it held.

        Raises NotFound, and Conflict if nobody would be left who can manage people.
        """
        given = {"role": role, "skills": list(skills) if skills is not None else None, "active": active}
        values = {key: value for key, value in given.items() if value is not None}
        admins = sa.select(people.c.name).where(people.c.role == "admin", people.c.active).order_by(people.c.name)
        with self._writer.begin() as db:
            before = db.scalars(admins.with_for_update()).all()  # locked: two admins could close each other's account
            changed = db.execute(people.update().where(people.c.name == name).values(values or {"name": name}))
            if not changed.rowcount:
                raise NotFound(f"Nobody here is called '{name}'.")
            if name in before and not db.scalars(admins).all():
                raise Conflict(f"{name} is the last admin.", "At least one.", "Make somebody else an admin first.")
            if active is False:
                db.execute(sessions.delete().where(sessions.c.person == name))
                held = leases.c.person == name, leases.c.state == "held"
                db.execute(leases.update().where(*held).values(expires_at=utc_now()))
        return self.get(name)

    # Passwords

    def set_password(self, name: str, password: str) -> None:
        """Give somebody a new password; ends their sessions. Raises NotFound, and UserError for a weak one."""
        hashed = _hashed(password)
        with self._writer.begin() as db:
            change = people.update().where(people.c.name == name)
            if not db.execute(change.values(password_hash=hashed, failures=0, locked_until=None)).rowcount:
                raise NotFound(f"Nobody here is called '{name}'.")
            db.execute(sessions.delete().where(sessions.c.person == name))

    def sign_in(self, name: str, password: str) -> Person:
        """The person, if the password is theirs. Raises WrongPassword; after five in a row the account is locked for a
        quarter of an hour, whatever the password.
        """
        row = self._count_try(_findable(name))
        if not _matches(row["password_hash"] if row else None, password) or row is None:
            raise WrongPassword("Name and password don't match.", do="Try again, or ask an admin for a sign-in link.")
        with self._writer.begin() as db:
            db.execute(people.update().where(people.c.name == name).values(failures=0, locked_until=None))
        if not row["active"]:
            raise WrongPassword(f"The account '{name}' is closed.", do="Ask an admin to open it again.")
        return person_of(row)

    def _count_try(self, name: str) -> sa.RowMapping | None:
        """Somebody's row, None where there is nobody of that name. Raises WrongPassword where the account is locked.

        The try counts as a wrong one before the password is looked at, or many at once would all be looked at.
        """
        with self._writer.begin() as db:
            row = db.execute(sa.select(people).where(people.c.name == name).with_for_update()).mappings().first()
            if row is None:
                _write_nothing(db)
                return None
            if row["locked_until"] and row["locked_until"] > utc_now():
                minutes = max(1, round((row["locked_until"] - utc_now()).total_seconds() / 60))
                raise WrongPassword(
                    "There were too many wrong passwords for this name.",
                    do=f"Wait {minutes} minutes, or ask an admin for a sign-in link.",
                )
            failures = row["failures"] + 1
            locked = utc_now() + LOCKED if failures >= TRIES else None
            values = {"failures": 0 if locked else failures, "locked_until": locked}
            db.execute(people.update().where(people.c.name == name).values(values))
        return row

    # Sessions

    def open_session(self, name: str, kind: Literal["session", "link"] = "session") -> str:
        """A fresh token for `name`: of a session (14 days), or of a sign-in link (30 minutes, works once)."""
        token = secrets.token_urlsafe(32)
        until = utc_now() + (LINK if kind == "link" else SESSION)
        row = {"token_sha256": _sha256(token), "person": name, "kind": kind, "made_at": utc_now(), "expires_at": until}
        with self._writer.begin() as db:
            db.execute(sessions.delete().where(sessions.c.expires_at < utc_now()))
            db.execute(sessions.insert().values(row))
        return token

    def of_session(self, token: str | None) -> Person | None:
        """Whose session this is; None for none, an ended one, or a closed account."""
        if not token:
            return None
        query = (
            sa.select(people)
            .join(sessions, sessions.c.person == people.c.name)
            .where(
                sessions.c.token_sha256 == _sha256(token),
                sessions.c.kind == "session",
                sessions.c.expires_at > utc_now(),
                people.c.active,
            )
        )
        with self._engine.connect() as db:
            row = db.execute(query).mappings().first()
        return person_of(row) if row else None

    def use_link(self, token: str) -> Person:
        """Whose sign-in link this is; it does not work a second time. Raises WrongPassword."""
        with self._writer.begin() as db:
            this = sessions.c.token_sha256 == _sha256(token), sessions.c.kind == "link"
            theirs = sa.select(sessions.c.person).join(people, people.c.name == sessions.c.person)
            name = db.scalar(theirs.where(*this, sessions.c.expires_at > utc_now(), people.c.active))
            if name is None or not db.execute(sessions.delete().where(*this)).rowcount:
                raise WrongPassword(
                    "This sign-in link was used before, or is too old.",
                    do="Get a new one: `tonesmith people link NAME`.",
                )
            db.execute(people.update().where(people.c.name == name).values(failures=0, locked_until=None))
        return self.get(name)

    def close_session(self, token: str) -> None:
        """Sign out."""
        with self._writer.begin() as db:
            db.execute(sessions.delete().where(sessions.c.token_sha256 == _sha256(token)))


def person_of(row: sa.RowMapping) -> Person:
    """Somebody, out of a row that has all columns of `people`."""
    values: dict[str, Any] = {key: row[key] for key in Person.model_fields}
    return Person(**values)


def _findable(name: str) -> str:
    """A name that the database can be asked for: nobody's has a NUL character, and PostgreSQL takes none."""
    return "" if "\0" in name else name


def _write_nothing(db: sa.Connection) -> None:
    """Let the end of the transaction wait for the disk as if a try had been counted. (SQLite does not write what stays
    as it was.)
    """
    nobody = {"name": secrets.token_hex(16), "role": "viewer", "skills": [], "active": False, "failures": 0}
    db.execute(people.insert().values(nobody | {"made_at": utc_now()}))
    db.execute(people.delete().where(people.c.name == nobody["name"]))


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _hashed(password: str) -> str:
    if len(password) not in PASSWORD_LENGTH:
        raise UserError(
            f"The password has {len(password)} characters.",
            f"{PASSWORD_LENGTH.start} to {PASSWORD_LENGTH.stop - 1}.",
            "Three or four words that only you would put together make a good one.",
        )
    return HASHER.hash(password)


def _matches(hashed: str | None, password: str) -> bool:
    try:
        return HASHER.verify(hashed or NOBODY, password) and hashed is not None
    except (Argon2Error, InvalidHashError):
        return False
