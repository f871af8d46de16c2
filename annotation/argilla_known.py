"""What both ways of a sync with Argilla know of our side: replies as they are shown there, and answers that stand."""

from __future__ import annotations

from collections.abc import Sequence

from annotation.acts import COUNTED, Act, not_undone, replay
from annotation.argilla_client import Json
from annotation.argilla_form import Opinion, ReplyForDesk
from annotation.store import Store
from annotation.store.argilla import Mirror, MirrorResponse


def replies_for_desk(store: Store, reply_ids: Sequence[str]) -> dict[str, ReplyForDesk]:
    """All that Argilla shows of these replies; those that are none of ours are left out."""
    conversations = store.conversations.of_replies(reply_ids)
    ranks = store.argilla.ranks(reply_ids)
    suggestions, candidates = store.argilla.helpers(reply_ids)
    return {
        reply_id: ReplyForDesk(
            conversation=conversation,
            rank=ranks[reply_id],
            suggestions=tuple(suggestions.get(reply_id, ())),
            candidates=tuple(candidates.get(reply_id, ())),
        )
        for reply_id, conversation in conversations.items()
        if reply_id in ranks
    }


def standing_acts(history: Sequence[Act]) -> dict[str, Act]:
    """The newest counted review of each person, as long as it stands."""
    standing: dict[str, Act] = {}
    for act in not_undone(history):
        if act.kind == "requeue" and act.body.of is None:
            standing.clear()
        elif act.kind == "requeue":
            standing.pop(act.body.of or "", None)
        elif act.kind == "review" and act.route in COUNTED:
            standing[act.person] = act
    return standing


def opinion_of(history: Sequence[Act], person: str, newest: Act) -> Opinion:
    """All that stands of a person's answers; `newest` alone if nothing stands."""
    standing = replay(history)
    answers = standing.answers.get(person)
    corrections = [one for one in standing.corrections if one.author == person]
    rankings = [one.body.ranking for one in standing.rankings if one.person == person]
    if answers is None and not corrections and not rankings:
        return Opinion(newest.judgements, newest.correction, newest.body.ranking)
    return Opinion(
        list((answers or {}).values()), corrections[-1] if corrections else None, rankings[-1] if rankings else ()
    )


def no_judge(person: str) -> str:
    """Why an answer of this person is kept and does not count."""
    return f"Kept, and not counted: {person} is nobody on the Team page who may judge."


def response_row(
    mirror: Mirror, reply_id: str, response: Json, person: str, act_id: str, said: Json | None = None
) -> MirrorResponse:
    """What to know of a response of Argilla: `act_id` is the act that says the same here, `said` its values."""
    return MirrorResponse(
        id=response["id"],
        dataset_id=mirror.id,
        reply_id=reply_id,
        person=person,
        status=response["status"],
        updated_at=response["updated_at"],
        act_id=act_id,
        said=said,
    )
