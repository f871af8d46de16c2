"""Judgements into rows: the rules that say what a dataset version holds, and why the rest stays out. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

from pydantic import Field

from annotation.acts import QUESTIONS, Settled, Standing
from annotation.near import near, opening
from annotation.provenance import how_settled
from annotation.store.comparisons import Comparison
from annotation.types import Conversation, Frozen, Message, Preference, Question


@dataclass(frozen=True)
class Judged:
    """A reply that somebody did something about: where it stands, and the conversation up to it."""

    reply_id: str
    state: str
    """Where it stands in the queue, an `annotation.acts.TaskState`."""
    standing: Standing
    conversation: Conversation


class SftRow(Frozen):
    """A conversation whose last message is the reply to learn."""

    id: str
    reply_id: str
    conversation_id: str
    messages: tuple[Message, ...]
    origin: str
    """`approved`, `corrected` or `starter`."""
    settled: dict[Question, Settled] = Field(default_factory=dict)
    """How the answer to each question came about; none where nobody answered, as in a correction out of Chat."""


class LeftOut(Frozen):
    """Something people spoke about that gives no row, and why."""

    id: str
    what: str
    """`reply` or `comparison`."""
    reason: str
    text: str


class UnpairedRow(Frozen):
    """A reply known to be good or bad, without its counterpart (KTO's form)."""

    id: str
    conversation_id: str
    messages: tuple[Message, ...]
    good: bool


class Rows(Frozen):
    """What a dataset version would hold. `held_out` rows are SFT rows of conversations kept away from training."""

    sft: tuple[SftRow, ...] = ()
    preference: tuple[Preference, ...] = ()
    unpaired: tuple[UnpairedRow, ...] = ()
    held_out: tuple[SftRow, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def counts(self) -> dict[str, int]:
        """Rows a kind."""
        return {name: len(getattr(self, name)) for name in type(self).model_fields}


HOLD_OUT_FROM = 20

Row = TypeVar("Row", SftRow, Preference)


def curate(
    judged: Iterable[Sequence[Judged]],
    comparisons: Sequence[Comparison],
    held_out_share: float = 0.1,
    measured: Sequence[str] = (),
) -> Iterator[Rows]:
    """Turn all that was said into rows, a piece of `judged` at a time, so that memory does not grow with the store.

    A reply counts once enough people have seen it and no difference between them is open. A corrected one gives an SFT
    row and a pair (correction over reply); an uncorrected one that passes all three questions (or to which one does
    not apply) gives an SFT row; a ranking gives a pair for each two neighbours; a vote gives a pair. About
    `held_out_share` of the conversations (0 to 1, chosen by the hash of their first message, so it is stable from
    version to version and the same request never stands on both sides) go to `held_out` and give no pair and no
    unpaired row either, nor any request that was voted on: a vote always becomes a pair. `share_for` says from how
    many rows on anything is held out. What an experiment asked, or nearly so (`measured`, by opening), is always held
    out, and a vote about it is left out.
    """
    once = _Once()
    votes = _pairs_of_votes(comparisons, measured)
    voted = {opening(pair.prompt) for pair in votes if isinstance(pair, Preference)}

    @lru_cache(maxsize=1_000)  # asked of every row that a reply gives, and looking for what is near takes long
    def trains(request: str) -> bool:
        return not near(request, measured) and (request in voted or not _is_held_out(request, held_out_share))

    def kept(messages: Sequence[Message]) -> bool:
        return trains(opening(messages))

    for some in judged:
        yield _sorted_out(some, once, kept)
    pairs = [pair for pair in votes if isinstance(pair, Preference)]
    new, twice = once.pairs(pairs)
    left_out = [one for one in votes if isinstance(one, LeftOut)]
    yield Rows(preference=tuple(new), left_out=(*left_out, *twice))


def share_for(rows: int, share: float = 0.1) -> float:
    """The share to hold out of so many SFT rows: nothing of fewer than `HOLD_OUT_FROM`."""
    return share if rows >= HOLD_OUT_FROM else 0.0


def joined(pieces: Iterable[Rows]) -> Rows:
    """All pieces in one; for sets that fit in memory."""
    rows: dict[str, list[object]] = {name: [] for name in Rows.model_fields}
    for piece in pieces:
        for name in rows:
            rows[name] += getattr(piece, name)
    return Rows.model_validate({name: tuple(found) for name, found in rows.items()})


def _sorted_out(some: Sequence[Judged], once: _Once, kept: Callable[[Sequence[Message]], bool]) -> Rows:
    sft: list[SftRow] = []
    pairs: list[Preference] = []
    unpaired: list[UnpairedRow] = []
    left_out: list[LeftOut] = []
    for item in some:
        row = _sft_row(item)
        if isinstance(row, LeftOut):
            left_out.append(row)
        else:
            sft.append(row)
        if item.state == "done":
            pairs.extend(_pairs_of_correction(item))
            pairs.extend(_pairs_of_rankings(item))
            unpaired.extend(_unpaired(item))
    sft, twice = once.sft(sft)
    pairs, pairs_twice = once.pairs(pairs)
    return Rows(
        sft=tuple(row for row in sft if kept(row.messages)),
        preference=tuple(pair for pair in pairs if kept(pair.prompt)),
        unpaired=tuple(row for row in unpaired if kept(row.messages)),
        held_out=tuple(row for row in sft if not kept(row.messages)),
        left_out=(*left_out, *twice, *pairs_twice),
    )


def _is_held_out(request: str, share: float) -> bool:
    digest = hashlib.sha256(request.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def _sft_row(item: Judged) -> SftRow | LeftOut:
    reply = item.conversation.turns[-1]
    prompt = tuple(turn.as_message() for turn in item.conversation.turns[:-1])
    if reason := _why_not(item, prompt):
        return LeftOut(id=item.reply_id, what="reply", reason=reason, text=reply.text)
    if item.standing.corrections:
        newest = item.standing.corrections[-1]
        return _row(item, prompt, newest.after, "starter" if newest.origin == "starter" else "corrected")
    return _row(item, prompt, reply.text, "approved")


def _why_not(item: Judged, prompt: Sequence[Message]) -> str | None:
    """Why a reply gives no row to learn from, None if it gives one."""
    if not any(message.role == "user" for message in prompt):
        return "Nobody asked anything before this reply."
    waiting = {
        "gold": "Used as a hidden check, so never learned from.",
        "open": "Not yet seen by everybody who should, or asked anew.",
        "full": "Not yet seen by everybody who should, or asked anew.",
    }
    if item.state == "skipped":
        return f"Skipped: {item.standing.skipped or 'set aside'}."
    if item.state in waiting:
        return waiting[item.state]
    resolved = item.standing.resolved()
    differ = [question for question in QUESTIONS if question in resolved and resolved[question].value is None]
    if differ:
        return f"Reviewers differ on {_listed(differ)}, and nobody has settled it."
    if item.standing.corrections:
        return None
    for value, said in (
        ("fail", "Marked down on {}, and not corrected."),
        ("unsure", "The reviewer was unsure about {}."),
    ):
        if found := [question for question in QUESTIONS if question in resolved and resolved[question].value == value]:
            return said.format(_listed(found))
    missing = [question for question in QUESTIONS if question not in resolved]
    return f"Not yet judged on {_listed(missing)}." if missing else None


def _row(item: Judged, prompt: tuple[Message, ...], reply: str, origin: str) -> SftRow:
    return SftRow(
        id=f"sft-{item.reply_id}",
        reply_id=item.reply_id,
        conversation_id=item.conversation.id,
        messages=(*prompt, Message(role="assistant", text=reply)),
        origin=origin,
        settled=how_settled(item.standing),
    )


def _pairs_of_correction(item: Judged) -> list[Preference]:
    if not item.standing.corrections or len(item.conversation.turns) < 2:
        return []
    newest = item.standing.corrections[-1]
    return [
        Preference(
            id=newest.id,
            prompt=_prompt(item),
            chosen=newest.after,
            rejected=newest.before,
            source="correction",
            voter=newest.author,
        )
    ]


def _pairs_of_rankings(item: Judged) -> list[Preference]:
    """Each reply over the next one: pairs further apart would say the same again."""
    return [
        Preference(
            id=f"{act.id}-{place}",
            prompt=_prompt(item),
            chosen=better,
            rejected=worse,
            source="ranking",
            voter=act.person,
        )
        for act in item.standing.rankings
        for place, (better, worse) in enumerate(pairwise(act.body.ranking), start=1)
        if better.strip() != worse.strip()
    ]


def _prompt(item: Judged) -> tuple[Message, ...]:
    return tuple(turn.as_message() for turn in item.conversation.turns[:-1])


def _unpaired(item: Judged) -> list[UnpairedRow]:
    resolved = item.standing.resolved()
    values = {found.value for found in resolved.values()}
    good = len(resolved) == len(QUESTIONS) and values <= {"pass", "not_applicable"} and not item.standing.corrections
    if None in values or (not good and "fail" not in values):
        return []
    messages = tuple(turn.as_message() for turn in item.conversation.turns)
    return [UnpairedRow(id=f"kto-{item.reply_id}", conversation_id=item.conversation.id, messages=messages, good=good)]


def _pairs_of_votes(comparisons: Sequence[Comparison], measured: Sequence[str]) -> list[Preference | LeftOut]:
    """What votes give. Where two contradict each other about the same two replies, neither of their pairs counts."""
    found = [one for comparison in comparisons for one in _pairs_of_vote(comparison, measured)]
    said = {_as_said(one) for one in found if isinstance(one, Preference)}
    why = "Votes about these two replies contradict each other."
    return [
        LeftOut(id=one.id, what="comparison", reason=why, text=one.prompt[-1].text)
        if isinstance(one, Preference) and _as_said(one.swap()) in said
        else one
        for one in found
    ]


def _as_said(pair: Preference) -> tuple[str, str, str]:
    return str(_chat(pair.prompt)), pair.chosen.strip(), pair.rejected.strip()


def _pairs_of_vote(comparison: Comparison, measured: Sequence[str]) -> Sequence[Preference | LeftOut]:
    """The best reply over each other one that went on from the same words."""
    best, vote = comparison.best, comparison.vote
    reason = _no_pair(comparison, measured)
    if reason or best is None:
        return [LeftOut(id=comparison.id, what="comparison", reason=reason, text=comparison.asked)]
    preferred = comparison.answers[best]
    others = [answer for place, answer in comparison.answers.items() if place != best]
    return [
        Preference(
            id=comparison.id if len(others) == 1 else f"{comparison.id}-{number}",
            prompt=comparison.said_to(best),
            chosen=preferred.text,
            rejected=other.text,
            source="vote",
            voter=comparison.voter or "",
            strength=vote.strength if vote else 1,
        )
        for number, other in enumerate(others, start=1)
        if other.text.strip() != preferred.text.strip() and other.earlier == preferred.earlier
    ]


def _no_pair(comparison: Comparison, measured: Sequence[str]) -> str:
    """Why nothing can be learned from a vote, '' if something can."""
    best, vote = comparison.best, comparison.vote
    if near(opening(comparison.prompt), measured):
        return "An experiment asks this, so it is kept for measuring."
    if comparison.outcome == "tie":
        return "The vote was a tie: neither reply is better."
    if best is None:
        return "Both replies were called bad: neither should be learned."
    if vote and vote.criteria.get("policy", "tie") not in ("tie", best):
        return "The reply that was preferred keeps to the rules less well than another."
    if not all(answer.text.strip() for answer in comparison.answers.values()):
        return "One of the replies is empty."
    preferred = comparison.answers[best]
    alike = [answer for answer in comparison.answers.values() if answer.earlier == preferred.earlier]
    if len(alike) == 1:
        return "The replies go on from different words, so they make no pair."
    if len({answer.text.strip() for answer in alike}) == 1:
        return "Both replies say the same."
    return ""


class _Once:
    """Remembers what went in, by hash, so that the same row twice goes in once."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def sft(self, rows: Sequence[SftRow]) -> tuple[list[SftRow], list[LeftOut]]:
        said = "The same conversation and reply are already in."
        return self._new(rows, lambda row: _chat(row.messages), lambda row: row.messages[-1].text, said)

    def pairs(self, rows: Sequence[Preference]) -> tuple[list[Preference], list[LeftOut]]:
        return self._new(
            rows,
            lambda pair: [_chat(pair.prompt), pair.chosen, pair.rejected],
            lambda pair: pair.chosen,
            "The same pair is already in.",
        )

    def _new(
        self, rows: Sequence[Row], key: Callable[[Row], object], text: Callable[[Row], str], reason: str
    ) -> tuple[list[Row], list[LeftOut]]:
        kept: list[Row] = []
        twice: list[LeftOut] = []
        for row in rows:
            digest = hashlib.sha256(json.dumps(key(row)).encode()).digest()[:16]
            if digest in self._seen:
                twice.append(LeftOut(id=row.id, what="reply", reason=reason, text=text(row)))
            else:
                self._seen.add(digest)
                kept.append(row)
        return kept, twice


def _chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [message.as_chat() for message in messages]


def _listed(questions: Sequence[Question]) -> str:
    names = {"voice": "brand voice", "policy": "policy", "bias": "bias"}
    return " and ".join(names[question] for question in questions)
