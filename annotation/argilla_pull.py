"""Bring answers from Argilla: each becomes an act of the person who gave it, with Argilla's time."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from annotation.acts import COUNTED, Act, ActBody, not_undone
from annotation.argilla_client import Argilla, Json
from annotation.argilla_datasets import ArgillaDatasets, Deleted
from annotation.argilla_form import Opinion, ReplyForDesk, act_of, same_values, values_of
from annotation.argilla_known import no_judge, opinion_of, replies_for_desk, response_row, standing_acts
from annotation.argilla_report import Run
from annotation.errors import UserError
from annotation.store import Store
from annotation.store.argilla import Mirror, MirrorResponse
from annotation.store.reviews import ReviewAct
from annotation.types import Charter

SAVED_AT_ONCE = 50
"""Acts a transaction: few enough that nobody who saves at our desk waits for long."""
READ_AT_MOST = 5
"""Times, by who leaves and has no next look: pages may shift while they are read."""


class ArgillaPull:
    """From one Argilla to one store."""

    def __init__(self, store: Store, argilla: Argilla, datasets: ArgillaDatasets, run: Run) -> None:
        self._store = store
        self._state = store.argilla
        self._argilla = argilla
        self._datasets = datasets
        self._run = run

    def new_answers(self, mirror: Mirror, *, needed: bool, whole: bool = False) -> None:
        """Keep every answer that is new there. Where nobody answered anything since, that is two short questions;
        with `whole` all is read even so, also in a dataset that was taken for lost and is there.

        A dataset that was deleted is lost; raises Deleted if it is `needed`. Raises UserError if people work there so
        much that the `whole` of it can't be read.
        """
        try:
            activity = str(self._datasets.there(mirror)["last_activity_at"])
        except Deleted:
            if needed:
                raise
            self._state.change_mirror(mirror.id, state="lost")
            return
        if mirror.state == "lost":
            self._state.change_mirror(mirror.id, state="live", cursor="")
        answers = self._argilla.answers(mirror.id)
        some_count_now = self._count_now(mirror)
        if not (whole or some_count_now) and self._cursor(mirror, activity, answers) == mirror.cursor:
            return
        if self._read_all(mirror, times=READ_AT_MOST if whole else 1):
            self._state.change_mirror(mirror.id, cursor=self._cursor(mirror, activity, answers))
        elif whole:
            raise UserError(
                f"So much is answered in '{mirror.name}' that it can't be read as a whole.",
                do="Ask people to pause there, and leave again.",
            )

    def _read_all(self, mirror: Mirror, times: int) -> bool:
        """Read every record with an answer, again where pages shifted while people work; whether all was seen."""
        return any(self._read(mirror) for _ in range(times))

    def _read(self, mirror: Mirror) -> bool:
        """Read every record with an answer once; whether all was seen."""
        charter = self._store.charters.get(mirror.charter_version)
        seen: set[str] = set()
        total = 0
        for records, total in self._argilla.answered(mirror.id):
            self._run.tell("fetching answers", len(seen), total)
            seen |= {record["id"] for record in records}
            self.some(mirror, charter, records)
        return len(seen) >= total

    def _cursor(self, mirror: Mirror, activity: str, answers: Counter[tuple[str, str]]) -> str:
        """Changes when somebody answers there, and not when we show answers of ours.

        Argilla's time of the last answer does not move for answers that a program writes with their records, so they
        are counted too: how many more there are of each person than we know of, as with records that are not ours.
        """
        known = self._state.said(mirror)
        more = sorted((*one, answers[one] - known[one]) for one in {*answers, *known} if answers[one] != known[one])
        return hashlib.sha256(json.dumps([activity, more]).encode()).hexdigest()[:40]

    def _count_now(self, mirror: Mirror) -> bool:
        """Whether answers were left uncounted of somebody who may judge by now; they are new again."""
        new = [
            one.model_copy(update={"updated_at": ""})
            for one in self._state.broken(mirror)
            if one.person in self._run.judges and one.reason == no_judge(one.person)
        ]
        self._state.keep_responses(new)
        return bool(new)

    def some(self, mirror: Mirror, charter: Charter, records: Sequence[Json]) -> None:
        """Keep what is new of the answers to these records, which come with their responses."""
        by_reply = {record["external_id"]: record for record in records if record.get("external_id")}
        known = self._state.responses(mirror, by_reply)
        fresh = [
            (reply_id, response)
            for reply_id, record in by_reply.items()
            for response in record.get("responses") or ()
            if not _is_known(known.get(response["id"]), response)
        ]
        if not fresh:
            return
        replies = replies_for_desk(self._store, list(dict.fromkeys(reply_id for reply_id, _ in fresh)))
        histories = self._state.histories(replies)
        fresh = [one for one in fresh if one[0] in replies]  # records made by hand are none of ours
        rows, acts = [], []
        for reply_id, response in fresh:
            person = self._run.users.get(response["user_id"], response["user_id"])
            history = histories.get(reply_id, [])
            before = known.get(response["id"])
            if self._is_nobodys(response, person, history):
                rows.append(self._not_counted(mirror, reply_id, response, person, before))
                continue
            if response["status"] != "submitted":
                self._take_back(response, person, history, before)
                act_id = self._pass_on(reply_id, response, person) if response["status"] == "discarded" else ""
                self._run.summary.begun += response["status"] == "draft"
                rows.append(response_row(mirror, reply_id, response, person, act_id, said=response["values"]))
                continue
            row, act = self._as_act(mirror, charter, replies[reply_id], response, person, history, before)
            rows.append(row)
            acts += [act] if act else []
        reasons = self._save(acts)
        rows = [
            row.model_copy(update={"act_id": "", "reason": reasons[row.act_id]}) if row.act_id in reasons else row
            for row in rows
        ]
        self._state.keep_responses(rows)

    def _is_nobodys(self, response: Json, person: str, history: Sequence[Act]) -> bool:
        """Said by somebody who may not judge here. A draft says nothing yet, unless it takes something back."""
        says = response["status"] != "draft" or person in standing_acts(history)
        return says and person not in self._run.judges

    def _not_counted(
        self, mirror: Mirror, reply_id: str, response: Json, person: str, before: MirrorResponse | None
    ) -> MirrorResponse:
        """What they say is kept, and what they said while they might judge counts as before."""
        self._run.summary.not_counted.add(person)
        self._run.summary.failed += 1
        act_id = before.act_id if before else ""
        row = response_row(mirror, reply_id, response, person, act_id, said=response["values"])
        return row.model_copy(update={"reason": no_judge(person)})

    def _as_act(
        self,
        mirror: Mirror,
        charter: Charter,
        reply: ReplyForDesk,
        response: Json,
        person: str,
        history: Sequence[Act],
        before: MirrorResponse | None,
    ) -> tuple[MirrorResponse, Any]:
        """What to know about a submitted response, and the act to keep; None if what it says is here already."""
        reply_id = reply.conversation.turns[-1].id
        act_id = _act_id(response)
        row = response_row(mirror, reply_id, response, person, act_id, said=response["values"])
        if any(act.id == act_id for act in history):
            return row, None
        text = reply.conversation.turns[-1].text
        standing = standing_acts(history).get(person)
        said = opinion_of(history, person, standing) if standing else None
        if (
            said
            and standing
            and same_values(values_of(said, reply, mirror.questions, charter), response["values"], text)
        ):
            return row.model_copy(update={"act_id": standing.id}), None
        act = act_of(response["values"], reply, charter, person, act_id=act_id, made_at=_moment(response["updated_at"]))
        if said and standing and before and standing.id == before.act_id and _takes_back(act, said, text):
            for one in _reviews_of(person, history):  # what they say now is all that they say
                self._undo(one, person, response)
        return row, act

    def _take_back(self, response: Json, person: str, history: Sequence[Act], before: MirrorResponse | None) -> None:
        """No answer there (any more): what they had submitted there before does not count here either."""
        standing = standing_acts(history).get(person)
        if standing and before and standing.id == before.act_id:
            self._undo(standing, person, response)

    def _pass_on(self, reply_id: str, response: Json, person: str) -> str:
        """Discarded: they leave it to a colleague. Returns the act's id."""
        act_id = _act_id(response)
        made_at = _moment(response["updated_at"])
        self._store.reviews.add("pass", reply_id, person, ActBody(), act_id, made_at)
        self._run.summary.passed += 1
        return act_id

    def _undo(self, act: Act, person: str, response: Json) -> None:
        undo_id = _act_id(response, f"undo:{act.id}")
        made_at = _moment(response["updated_at"])
        self._store.reviews.add("undo", act.reply_id, person, ActBody(undoes=act.id), undo_id, made_at)

    def _save(self, acts: Sequence[Any]) -> dict[str, str]:
        """Keep acts; returns act id → reason of those that could not be."""
        failed: list[UserError | None] = []
        for start in range(0, len(acts), SAVED_AT_ONCE):
            failed += self._store.reviews.save_all(acts[start : start + SAVED_AT_ONCE])
        reasons = {act.act_id: error.found for act, error in zip(acts, failed, strict=True) if error}
        self._run.summary.pulled += len(acts) - len(reasons)
        self._run.summary.failed += len(reasons)
        return reasons


def _takes_back(act: ReviewAct, said: Opinion, text: str) -> bool:
    """Whether something that a person had said is not among what they say now: an answer, a correction, a ranking."""
    answered = {one.question for one in act.verdicts}
    corrects = act.correction is not None and act.correction.strip() != text.strip()
    return (
        any(one.question not in answered for one in said.judgements)
        or (said.correction is not None and not corrects)
        or (bool(said.ranking) and not act.ranking)
    )


def _reviews_of(person: str, history: Sequence[Act]) -> list[Act]:
    """Their reviews that were not taken back."""
    live = not_undone(history)
    return [act for act in live if act.person == person and act.kind == "review" and act.route in COUNTED]


def _is_known(known: MirrorResponse | None, response: Json) -> bool:
    return known is not None and (known.updated_at, known.status) == (response["updated_at"], response["status"])


def _act_id(response: Json, what: str = "act") -> str:
    """Follows from the response and its time, so that pulling it twice keeps it once."""
    return uuid5(NAMESPACE_URL, f"argilla:{what}:{response['id']}:{response['updated_at']}").hex


def _moment(text: str) -> datetime:
    """Argilla's times are in UTC and do not say so."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
