"""Conversations as trees of turns: a retry or an edit adds a sibling, nothing is overwritten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from annotation.errors import NotFound
from annotation.queue import MAIN
from annotation.store.dealing import new_task, settings_of
from annotation.store.history import lead_back
from annotation.store.part import Part, new_id
from annotation.store.tables import conversations, tasks, turns
from annotation.types import Conversation, Message, Provenance, Role, Turn, utc_now

TITLE_LENGTH = 60
ITS = ("source", "external_id", "title", "language", "created_at")
"""What is kept of a conversation beside its id, its head and its turns."""
_THIS = turns.alias("this")
OF_TURN = (
    sa.select(turns, *(conversations.c[name].label(f"its_{name}") for name in ("head_id", *ITS)))
    .join(conversations, conversations.c.id == turns.c.conversation_id)
    .join(_THIS, _THIS.c.conversation_id == turns.c.conversation_id)
    .where(_THIS.c.id == sa.bindparam("turn"))
)
"""All turns of the conversation that a turn is of, each with what is kept of the conversation: one statement, since a
reviewer waits for it."""
TURNS_OF = sa.select(turns).where(turns.c.conversation_id == sa.bindparam("conversation"))


class Conversations(Part):
    """Add and read conversations and their turns."""

    def start(self, source: str, title: str = "New conversation", language: str | None = None) -> str:
        """Begin an empty conversation; returns its id."""
        conversation_id = new_id()
        with self._writer.begin() as db:
            db.execute(conversations.insert().values(_conversation_row(conversation_id, source, None, title, language)))
        return conversation_id

    def begin(self, source: str, turn: Turn) -> None:
        """Keep what a user says first as the beginning of a conversation, which it names."""
        row = _conversation_row(turn.conversation_id, source, None, shorten(turn.text), None)
        with self._writer.begin() as db:
            db.execute(conversations.insert().values(row | {"head_id": turn.id}))
            _add_turns(db, [turn], None)

    def add_turn(
        self,
        conversation_id: str,
        parent_id: str | None,
        role: Role,
        text: str,
        provenance: Provenance | None = None,
    ) -> Turn:
        """`add` a turn of now; returns it."""
        turn = new_turn(conversation_id, parent_id, role, text, provenance)
        self.add(turn)
        return turn

    def add(self, turn: Turn) -> None:
        """Keep one turn under its parent and make it the conversation's head; the first user turn names it.

        A reply waits for review, unless a person wrote it (its provenance says what it `corrects`).
        """
        its = conversations.c.id == turn.conversation_id
        change: dict[str, str] = {"head_id": turn.id}
        if turn.parent_id is None and turn.role == "user":
            change["title"] = shorten(turn.text)
        with self._writer.begin() as db:
            _add_turns(db, [turn], db.scalar(sa.select(conversations.c.language).where(its)))
            db.execute(conversations.update().where(its).values(change))

    def set_head(self, conversation_id: str, turn_id: str | None) -> None:
        """Continue the conversation from `turn_id` (the turns after it are kept, off the path)."""
        with self._writer.begin() as db:
            db.execute(conversations.update().where(conversations.c.id == conversation_id).values(head_id=turn_id))

    def import_one(
        self, source: str, external_id: str, title: str, language: str | None, messages: Sequence[ImportedMessage]
    ) -> bool:
        """Keep a whole conversation in one transaction; False if (source, external_id) is already there."""
        with self._writer.begin() as db:
            there = sa.select(conversations.c.id).where(
                conversations.c.source == source, conversations.c.external_id == external_id
            )
            if db.scalar(there):
                return False
            conversation_id, parent_id = new_id(), None
            made: list[Turn] = []
            for message, provenance in messages:
                turn = new_turn(conversation_id, parent_id, message.role, message.text, provenance)
                made.append(turn)
                parent_id = turn.id
            row = _conversation_row(conversation_id, source, external_id, shorten(title), language)
            db.execute(conversations.insert().values(row | {"head_id": parent_id}))
            _add_turns(db, made, language)
        return True

    def get(self, conversation_id: str) -> Conversation:
        """A conversation along the path to its head. Raises NotFound."""
        with self._engine.connect() as db:
            row = db.execute(sa.select(conversations).where(conversations.c.id == conversation_id)).mappings().first()
            if row is None:
                raise NotFound("That conversation is not here.", do="Start a new one, or pick one from the list.")
            kept = _turns_of(db, conversation_id)
        return _conversation(row, _walk(kept, row["head_id"]))

    def of_external(self, source: str, external_id: str) -> Conversation:
        """The conversation with this id at its source. Raises NotFound."""
        query = sa.select(conversations.c.id).where(
            conversations.c.source == source, conversations.c.external_id == external_id
        )
        with self._engine.connect() as db:
            conversation_id = db.scalar(query)
        if conversation_id is None:
            raise NotFound(f"There is no conversation {external_id} from {source}.")
        return self.get(conversation_id)

    def of_reply(self, reply_id: str) -> Conversation:
        """The conversation along the path to `reply_id`, the reply last. Raises NotFound."""
        return self.around(reply_id)[0]

    def around(self, reply_id: str) -> tuple[Conversation, tuple[Turn, ...]]:
        """The conversation up to `reply_id`, the reply last, and what was said after it on the present path. Raises
        NotFound.
        """
        with self._engine.connect() as db:
            return around(db, reply_id)

    def of_replies(self, reply_ids: Iterable[str]) -> dict[str, Conversation]:
        """`of_reply` for many replies in a handful of queries."""
        wanted, found = list(dict.fromkeys(reply_ids)), {}
        for start in range(0, len(wanted), 500):
            found.update(self._some_of_replies(wanted[start : start + 500]))
        return found

    def _some_of_replies(self, reply_ids: Sequence[str]) -> dict[str, Conversation]:
        with self._engine.connect() as db:
            owner = sa.select(turns.c.id, turns.c.conversation_id).where(turns.c.id.in_(reply_ids))
            owners = {row.id: row.conversation_id for row in db.execute(owner)}
            ids = set(owners.values())
            heads = {
                row["id"]: row
                for row in db.execute(sa.select(conversations).where(conversations.c.id.in_(ids))).mappings()
            }
            rows = db.execute(sa.select(turns).where(turns.c.conversation_id.in_(ids))).mappings()
            kept = {row["id"]: turn_of(row) for row in rows}
        return {
            reply_id: _conversation(heads[conversation_id], _walk(kept, reply_id))
            for reply_id, conversation_id in owners.items()
        }

    def recent(self, source: str, limit: int = 30) -> list[tuple[str, str]]:
        """(id, title) of the newest conversations of one source that have a turn, newest first."""
        query = (
            sa.select(conversations.c.id, conversations.c.title)
            .where(conversations.c.source == source, conversations.c.head_id.is_not(None))
            .order_by(conversations.c.seq.desc())
            .limit(limit)
        )
        with self._engine.connect() as db:
            return [(row.id, row.title) for row in db.execute(query)]

    def count(self) -> int:
        """Conversations that have at least one turn."""
        query = sa.select(sa.func.count()).select_from(conversations).where(conversations.c.head_id.is_not(None))
        with self._engine.connect() as db:
            return db.scalar(query) or 0

    def turn(self, turn_id: str) -> Turn:
        """One turn. Raises NotFound."""
        with self._engine.connect() as db:
            row = db.execute(sa.select(turns).where(turns.c.id == turn_id)).mappings().first()
        if row is None:
            raise NotFound(f"There is no turn {turn_id}.")
        return turn_of(row)


def new_turn(
    conversation_id: str, parent_id: str | None, role: Role, text: str, provenance: Provenance | None = None
) -> Turn:
    """A turn of now, with an id of its own; not kept yet."""
    return Turn(
        id=new_id(),
        conversation_id=conversation_id,
        parent_id=parent_id,
        role=role,
        text=text,
        made_at=utc_now(),
        provenance=provenance,
    )


def around(db: sa.Connection, reply_id: str) -> tuple[Conversation, tuple[Turn, ...]]:
    """`Conversations.around`, within a transaction."""
    rows = db.execute(OF_TURN, {"turn": reply_id}).mappings().all()
    if not rows:
        raise NotFound(f"There is no reply {reply_id}.")
    return along(rows, reply_id)


def along(rows: Sequence[sa.RowMapping], reply_id: str) -> tuple[Conversation, tuple[Turn, ...]]:
    """`around`, out of the rows of OF_TURN."""
    kept, its = {row["id"]: turn_of(row) for row in rows}, rows[0]
    whole = _walk(kept, its["its_head_id"])
    places = [place for place, turn in enumerate(whole) if turn.id == reply_id]
    after = whole[places[0] + 1 :] if places else ()
    fields = {name: its[f"its_{name}"] for name in ITS}
    return Conversation(id=its["conversation_id"], **fields, turns=_walk(kept, reply_id)), after


ImportedMessage = tuple[Message, Provenance | None]


def shorten(text: str) -> str:
    """A one-line title out of a message."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def turn_of(row: sa.RowMapping) -> Turn:
    """A row of `turns` as a Turn."""
    return Turn(
        id=row["id"],
        conversation_id=row["conversation_id"],
        parent_id=row["parent_id"],
        role=row["role"],
        text=row["text"],
        made_at=row["made_at"],
        provenance=Provenance.model_validate(row["provenance"]) if row["provenance"] else None,
    )


def _add_turns(db: sa.Connection, made: Sequence[Turn], language: str | None) -> None:
    """Keep turns, and queue the replies among them that there is something to judge in."""
    if not made:
        return
    rows = [
        turn.model_dump(exclude={"provenance"})
        | {"provenance": turn.provenance.model_dump(mode="json") if turn.provenance else None}
        for turn in made
    ]
    kept = db.execute(turns.insert().returning(turns.c.id, turns.c.seq), rows)
    places = {row.id: row.seq for row in kept}
    judged = [turn for turn in made if _can_be_judged(turn)]
    if judged:
        settings = settings_of(db, MAIN)
        db.execute(tasks.insert(), [new_task(settings, turn.id, places[turn.id], language) for turn in judged])
        lead_back(db, min(places[turn.id] for turn in made))  # somebody may be among what was put last


def _can_be_judged(turn: Turn) -> bool:
    """Not an empty reply, nor one that a person wrote."""
    by_person = turn.provenance is not None and turn.provenance.corrects is not None
    return turn.role == "assistant" and bool(turn.text.strip()) and not by_person


def _conversation_row(
    conversation_id: str, source: str, external_id: str | None, title: str, language: str | None
) -> dict[str, object]:
    return {
        "id": conversation_id,
        "source": source,
        "external_id": external_id,
        "title": title,
        "language": language,
        "created_at": utc_now(),
    }


def _conversation(row: sa.RowMapping, path: tuple[Turn, ...]) -> Conversation:
    return Conversation(id=row["id"], **{name: row[name] for name in ITS}, turns=path)


def _turns_of(db: sa.Connection, conversation_id: str) -> dict[str, Turn]:
    rows = db.execute(TURNS_OF, {"conversation": conversation_id}).mappings()
    return {row["id"]: turn_of(row) for row in rows}


def _walk(kept: dict[str, Turn], head_id: str | None) -> tuple[Turn, ...]:
    path: list[Turn] = []
    while head_id is not None:
        path.append(kept[head_id])
        head_id = kept[head_id].parent_id
    return tuple(reversed(path))
