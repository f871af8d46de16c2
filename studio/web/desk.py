"""The review desk's JSON: one call a key press. The page asks here directly, since a reviewer should not wait."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from annotation.errors import Conflict, NotFound, UserError
from annotation.people import Forbidden, Person
from annotation.queue import MAIN
from annotation.store.reviews import ASKED
from studio.parts.diff import words_changed
from studio.parts.words import HOW, NAMES, WORDS
from studio.services import Services
from studio.services.review import REASONS, SKIP_REASONS, ReviewForm, ReviewItem, Said
from studio.web.login import person_of

STATUS: tuple[tuple[type[UserError], int], ...] = ((Forbidden, 403), (NotFound, 404), (Conflict, 409), (UserError, 422))


class SignedOut(UserError):
    """Nobody is signed in."""


class Skip(BaseModel):
    """A reply to set aside, or to leave to a colleague."""

    act_id: str
    reply_id: str
    reason: str = "other"
    to_colleague: bool = False


class Note(BaseModel):
    """A comment, or a flag for somebody."""

    reply_id: str
    text: str = ""
    to: str | None = None


class Texts(BaseModel):
    """Two texts to compare."""

    before: str
    after: str


class DraftWish(BaseModel):
    """Which models should write another reply."""

    reply_id: str
    models: list[str]
    with_rules: bool = True


class Hold(BaseModel):
    """A hold to renew or give back."""

    act_id: str


def mine(request: Request) -> Services:
    """The services in the name of whoever sent the request. Raises SignedOut."""
    services: Services = request.app.state.services
    person = person_of(services.store, request)
    if person is None:
        raise SignedOut("You are signed out.", do="Sign in in another tab, then press the key again.")
    return services.of(person)


Mine = Annotated[Services, Depends(mine)]
router = APIRouter(prefix="/desk")


def add_desk(app: FastAPI, services: Services) -> None:
    """Add the desk's calls under `/desk`. Every error is `{found, wanted, do}` with a status that fits."""
    app.state.services = services
    app.add_exception_handler(UserError, _said)
    app.include_router(router)


def _said(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, UserError)
    status = 401 if isinstance(error, SignedOut) else next(code for kind, code in STATUS if isinstance(error, kind))
    return JSONResponse(_in_words(error), status_code=status)


def _in_words(error: UserError) -> dict[str, str]:
    return {"kind": type(error).__name__, "found": error.found, "wanted": error.wanted, "do": error.do}


@router.get("/start")
def start(us: Mine) -> dict[str, Any]:
    """What the desk needs once: the rules, who is here, what can be drafted with."""
    charter = us.review.charter
    return {
        "who": us.who.name,
        "may_judge": us.who.may("judge"),
        "may_curate": us.who.may("curate"),
        "charter": charter.model_dump(mode="json"),
        "reasons": REASONS,
        "skip_reasons": SKIP_REASONS,
        "people": [person.name for person in us.team.people() if person.active],
        "queues": us.review.queues(),
        "models": [{"label": label, "name": name} for label, name in us.serving.choices()],
    }


@router.get("/next")
def next_item(us: Mine, queue: str = MAIN, exclude: Annotated[list[str] | None, Query()] = None) -> dict[str, Any]:
    """The next reply for whoever asks, other than those they have open."""
    item = us.review.next(queue, exclude or ())
    return {"item": as_json(item, us.who)}


@router.get("/item/{reply_id}")
def one_item(us: Mine, reply_id: str) -> dict[str, Any]:
    return {"item": as_json(us.review.open(reply_id), us.who)}


@router.get("/look/{reply_id}")
def look(us: Mine, reply_id: str) -> dict[str, Any]:
    """One reply to read only."""
    return {"item": as_json(us.review.look(reply_id), us.who)}


@router.get("/back")
def back(us: Mine) -> dict[str, Any]:
    return {"item": as_json(us.review.back(), us.who)}


@router.get("/counts")
def counts(us: Mine) -> dict[str, int]:
    """Replies by where they stand, and how many are flagged for whoever asks."""
    return us.review.counts() | {"flagged": len(us.review.flagged())}


@router.get("/history/{reply_id}")
def history(us: Mine, reply_id: str) -> list[dict[str, Any]]:
    return [_line(line) for line in us.review.history(reply_id)]


@router.get("/stands/{reply_id}")
def stands(us: Mine, reply_id: str) -> list[dict[str, str]]:
    """What the answers came to, and how, for curators."""
    return [
        {"question": NAMES[name], "value": WORDS[name][one.value] if one.value else "Open", "how": HOW[one.how]}
        for name, one in us.review.stands(reply_id).items()
    ]


@router.get("/flagged")
def flagged(us: Mine) -> list[str]:
    return us.review.flagged()


@router.post("/diff")
def diff(us: Mine, texts: Texts) -> list[tuple[str, str]]:
    """The pieces that lead from one text to the other: `same`, `added` or `removed`."""
    us.who.must("look")
    return list(words_changed(texts.before, texts.after))


@router.post("/save")
def save(us: Mine, form: ReviewForm) -> dict[str, Any]:
    return {"saved": us.review.save(form)}


@router.post("/skip")
def skip(us: Mine, wish: Skip) -> dict[str, Any]:
    if wish.to_colleague:
        us.review.pass_on(wish.act_id, wish.reply_id)
    else:
        us.review.skip(wish.act_id, wish.reply_id, wish.reason)
    return {"ok": True}


@router.post("/undo")
def undo(us: Mine) -> dict[str, Any]:
    return {"item": as_json(us.review.undo(), us.who)}


@router.post("/bring-back")
def bring_back(us: Mine) -> dict[str, int]:
    return {"brought_back": us.review.bring_back_skipped()}


@router.post("/flag")
def flag(us: Mine, note: Note) -> dict[str, bool]:
    us.review.flag(note.reply_id, note.to, note.text)
    return {"ok": True}


@router.post("/unflag")
def unflag(us: Mine, note: Note) -> dict[str, bool]:
    us.review.unflag(note.reply_id)
    return {"ok": True}


@router.post("/comment")
def comment(us: Mine, note: Note) -> dict[str, Any]:
    return us.review.comment(note.reply_id, note.text).model_dump(mode="json")


@router.post("/renew")
def renew(us: Mine, hold: Hold) -> dict[str, bool]:
    return {"held": us.review.renew(hold.act_id)}


@router.post("/release")
def release(us: Mine, hold: Hold) -> dict[str, bool]:
    us.review.release(hold.act_id)
    return {"ok": True}


@router.post("/draft")
def draft(us: Mine, wish: DraftWish) -> StreamingResponse:
    """A JSON line a draft, as each is finished."""

    async def lines() -> AsyncIterator[str]:
        try:
            async for candidate in us.review.draft(wish.reply_id, wish.models, wish.with_rules):
                yield json.dumps(_candidate(candidate)) + "\n"
        except UserError as error:
            yield json.dumps(_in_words(error)) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def as_json(item: ReviewItem | None, who: Person) -> dict[str, Any] | None:
    """An item for the page. How it came up (queue, check, repeat) is not in it."""
    if item is None:
        return None
    conversation = item.conversation
    return {
        "act_id": item.act_id,
        "reply_id": item.reply.id,
        "title": conversation.title,
        "source": conversation.source,
        "language": conversation.language,
        "turns": [_turn(turn) for turn in conversation.turns],
        "after": [_turn(turn) for turn in item.after],
        "text_now": item.text_now,
        "mine": {question: judgement.model_dump(mode="json") for question, judgement in item.mine.items()},
        "suggestions": [one.model_dump(mode="json") for one in item.suggestions],
        "candidates": [_candidate(one) for one in item.candidates],
        "said": [line.model_dump(mode="json") for line in item.said],
        "asked": [{"question": one, "name": ASKED[one]} for one in item.asked],
        "who": who.name,
    }


def _line(said: Said) -> dict[str, Any]:
    changes = words_changed(said.before, said.after) if said.after else []
    return said.model_dump(mode="json", include={"who", "when", "kind", "text"}) | {"changes": changes}


def _turn(turn: Any) -> dict[str, Any]:
    made = turn.provenance
    by = (made.adapter or made.model) if made else None
    return {"id": turn.id, "role": turn.role, "text": turn.text, "by": by}


def _candidate(candidate: Any) -> dict[str, Any]:
    made = candidate.provenance
    return {"id": candidate.id, "text": candidate.text, "by": made.adapter or made.model}
