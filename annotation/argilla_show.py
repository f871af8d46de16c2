"""Show in Argilla what was judged at our desk, so that a reply done here is done there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from annotation.acts import Act
from annotation.argilla_client import Json
from annotation.argilla_form import values_of
from annotation.argilla_known import no_judge, opinion_of, replies_for_desk, response_row, standing_acts
from annotation.argilla_report import Run
from annotation.errors import UserError
from annotation.store import Store
from annotation.store.argilla import ABSENT, Mirror, MirrorResponse

Put = Callable[[Mirror, Sequence[Json]], Iterator[tuple[Json, Json | UserError]]]
"""Puts records there; each with what Argilla made of it."""


class Answer(NamedTuple):
    """One of ours that Argilla does not show as it is."""

    reply_id: str
    person: str
    user_id: str
    """Argilla's; '' for somebody without an account there."""
    status: Literal["submitted", "draft"]
    act: Act


class ArgillaShow:
    """From one store to one Argilla."""

    def __init__(self, store: Store, run: Run, put: Put) -> None:
        self._store = store
        self._state = store.argilla
        self._run = run
        self._put = put

    def some(self, mirror: Mirror, reply_ids: Sequence[str]) -> None:
        """Show the answers to these replies, whose records are there. Those that can't be shown stay owed."""
        histories = self._state.histories(reply_ids)
        if not histories:
            return
        known = self._state.responses(mirror, histories).values()
        answers = self._answers(histories, known)
        shown: list[MirrorResponse] = []
        owed = [_owed(mirror, one) for one in answers if not one.user_id]
        self._run.summary.without_account |= {one.person for one in answers if not one.user_id}
        for said, item in self._send(mirror, histories, [one for one in answers if one.user_id]):
            if isinstance(item, UserError):
                owed += [_owed(mirror, one, f"{one.person}'s answer is not shown. {item.found}") for one in said]
                self._run.summary.failed += len(said)
                continue
            by_user = {response["user_id"]: response for response in item.get("responses") or ()}
            shown += [response_row(mirror, one.reply_id, by_user[one.user_id], one.person, one.act.id) for one in said]
        self._state.keep_responses([*shown, *owed])
        still = {one.id for one in owed}
        self._state.forget_responses([one.id for one in known if one.status == "owed" and one.id not in still])
        self._run.summary.shown += len(shown)

    def _answers(self, histories: Mapping[str, Sequence[Act]], known: Iterable[MirrorResponse]) -> list[Answer]:
        """What Argilla does not show as it is: new answers are to be submitted there, and those that were taken back or
        are asked anew to be drafts, so that they can be given again.
        """
        there: dict[str, dict[str, MirrorResponse]] = {}
        for one in sorted(known, key=lambda one: one.status not in ABSENT):
            there.setdefault(one.reply_id, {})[one.person] = one
        ids = {name: user_id for user_id, name in self._run.users.items()}
        return [
            Answer(reply_id, person, ids.get(person, ""), status, act)
            for reply_id, history in histories.items()
            for person, status, act in _unlike(history, there.get(reply_id, {}))
        ]

    def _send(
        self, mirror: Mirror, histories: Mapping[str, Sequence[Act]], answers: Sequence[Answer]
    ) -> Iterator[tuple[Sequence[Answer], Json | UserError]]:
        """Answers with the record that Argilla made of them, or why it refused them."""
        by_reply: dict[str, list[Answer]] = {}
        for one in answers:
            by_reply.setdefault(one.reply_id, []).append(one)
        charter = self._store.charters.get(mirror.charter_version)
        items = []
        for reply_id, reply in replies_for_desk(self._store, list(by_reply)).items():
            responses = []
            for one in by_reply[reply_id]:
                opinion = opinion_of(histories[reply_id], one.person, one.act)
                values = values_of(opinion, reply, mirror.questions, charter)
                responses.append({"user_id": one.user_id, "status": one.status, "values": values})
            items.append({"external_id": reply_id, "responses": responses})
        for asked, item in self._put(mirror, items):
            said = by_reply[asked["external_id"]]
            if not isinstance(item, UserError) or len(said) == 1:
                yield said, item
                continue
            for one, response in zip(said, asked["responses"], strict=True):  # only one of them may be refused
                yield from (([one], made) for _, made in self._put(mirror, [asked | {"responses": [response]}]))


def _unlike(
    history: Sequence[Act], known: Mapping[str, MirrorResponse]
) -> Iterator[tuple[str, Literal["submitted", "draft"], Act]]:
    """(person, status that it should have there, act). What people say there who may not judge here is left alone."""
    standing, by_id = standing_acts(history), {act.id: act for act in history}
    alone = {person for person, there in known.items() if there.reason == no_judge(person)}
    for person, act in standing.items():
        there = known.get(person)
        alike = there is not None and there.act_id == act.id and there.status == "submitted"
        if not alike and person not in alone:
            yield person, "submitted", act
    for person, there in known.items():
        if person not in standing and person not in alone and there.status == "submitted" and there.act_id in by_id:
            yield person, "draft", by_id[there.act_id]


def _owed(mirror: Mirror, answer: Answer, reason: str = "") -> MirrorResponse:
    about = f"argilla:owed:{mirror.id}:{answer.reply_id}:{answer.person}"
    return MirrorResponse(
        id=uuid5(NAMESPACE_URL, about).hex,
        dataset_id=mirror.id,
        reply_id=answer.reply_id,
        person=answer.person,
        status="owed",
        updated_at="",
        reason=reason,
    )
