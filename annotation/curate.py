"""Judgements into rows: the rules that say what a dataset version holds, and why the rest stays out. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar, get_args

from annotation.store.comparisons import Comparison
from annotation.store.reviews import Reviewed
from annotation.types import Conversation, Frozen, Message, Preference, Question

QUESTIONS: tuple[Question, ...] = get_args(Question)


class SftRow(Frozen):
    """A conversation whose last message is the reply to learn."""

    id: str
    reply_id: str
    conversation_id: str
    messages: tuple[Message, ...]
    origin: str
    """`approved`, `corrected` or `starter`."""


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
    reviewed: Sequence[Reviewed],
    conversation_of: Mapping[str, Conversation],
    comparisons: Sequence[Comparison],
    held_out_share: float = 0.1,
) -> Rows:
    """Turn all that was said into rows.

    A corrected reply gives an SFT row and a pair (correction over reply); an uncorrected reply that passes all three
    questions gives an SFT row; a vote gives a pair. The newest answer counts. About `held_out_share` of the
    conversations (0 to 1, chosen by the hash of their first message, so it is stable from version to version and the
    same request never stands on both sides) go to `held_out` and give no pair and no unpaired row either. Nothing is
    held out of fewer than `HOLD_OUT_FROM` rows, nor any request that was voted on: a vote always becomes a pair.
    """
    sft: list[SftRow] = []
    pairs: list[Preference] = []
    unpaired: list[UnpairedRow] = []
    left_out: list[LeftOut] = []
    for item in reviewed:
        conversation = conversation_of[item.reply_id]
        row = _sft_row(item, conversation)
        if isinstance(row, LeftOut):
            left_out.append(row)
        else:
            sft.append(row)
        pairs.extend(_pairs_of_corrections(item, conversation))
        unpaired.extend(_unpaired(item, conversation))
    for comparison in comparisons:
        pair = _pair_of_vote(comparison)
        if isinstance(pair, LeftOut):
            left_out.append(pair)
        else:
            pairs.append(pair)
    share = held_out_share if len(sft) >= HOLD_OUT_FROM else 0.0
    voted = {_opening(pair.prompt) for pair in pairs if pair.source == "vote"}
    return _split(sft, pairs, unpaired, left_out, lambda row: _opening(row) in voted or not _is_held_out(row, share))


def _split(
    sft: list[SftRow],
    pairs: list[Preference],
    unpaired: list[UnpairedRow],
    left_out: list[LeftOut],
    kept: Callable[[Sequence[Message]], bool],
) -> Rows:
    sft, twice = _once(sft, lambda row: row.messages, "The same conversation and reply are already in.")
    pairs, pairs_twice = _once(
        pairs, lambda pair: (pair.prompt, pair.chosen, pair.rejected), "The same pair is already in."
    )

    return Rows(
        sft=tuple(row for row in sft if kept(row.messages)),
        preference=tuple(pair for pair in pairs if kept(pair.prompt)),
        unpaired=tuple(row for row in unpaired if kept(row.messages)),
        held_out=tuple(row for row in sft if not kept(row.messages)),
        left_out=(*left_out, *twice, *pairs_twice),
    )


def _opening(messages: Sequence[Message]) -> str:
    """The first user message, case-folded and with plain spaces."""
    text = next((message.text for message in messages if message.role == "user"), "")
    return " ".join(text.casefold().split())


def _is_held_out(messages: Sequence[Message], share: float) -> bool:
    digest = hashlib.sha256(_opening(messages).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def _sft_row(item: Reviewed, conversation: Conversation) -> SftRow | LeftOut:
    reply = conversation.turns[-1]
    prompt = tuple(turn.as_message() for turn in conversation.turns[:-1])

    def left(reason: str) -> LeftOut:
        return LeftOut(id=item.reply_id, what="reply", reason=reason, text=reply.text)

    if not any(message.role == "user" for message in prompt):
        return left("Nobody asked anything before this reply.")
    if item.corrections:
        newest = item.corrections[-1]
        origin = "starter" if newest.origin == "starter" else "corrected"
        return _row(item, conversation, prompt, newest.after, origin)
    latest = item.latest()
    if not latest:
        return left(f"Skipped: {item.skipped}." if item.skipped else "Not judged.")
    failed = [question for question in QUESTIONS if question in latest and latest[question].value == "fail"]
    if failed:
        return left(f"Marked down on {_listed(failed)}, and not corrected.")
    unsure = [question for question in QUESTIONS if question in latest and latest[question].value == "unsure"]
    if unsure:
        return left(f"The reviewer was unsure about {_listed(unsure)}.")
    missing = [question for question in QUESTIONS if question not in latest]
    if missing:
        return left(f"Not yet judged on {_listed(missing)}.")
    return _row(item, conversation, prompt, reply.text, "approved")


def _row(item: Reviewed, conversation: Conversation, prompt: tuple[Message, ...], reply: str, origin: str) -> SftRow:
    return SftRow(
        id=f"sft-{item.reply_id}",
        reply_id=item.reply_id,
        conversation_id=conversation.id,
        messages=(*prompt, Message(role="assistant", text=reply)),
        origin=origin,
    )


def _pairs_of_corrections(item: Reviewed, conversation: Conversation) -> list[Preference]:
    if not item.corrections or len(conversation.turns) < 2:
        return []
    newest = item.corrections[-1]
    return [
        Preference(
            id=newest.id,
            prompt=tuple(turn.as_message() for turn in conversation.turns[:-1]),
            chosen=newest.after,
            rejected=newest.before,
            source="correction",
            voter=newest.author,
        )
    ]


def _unpaired(item: Reviewed, conversation: Conversation) -> list[UnpairedRow]:
    latest = item.latest()
    values = {judgement.value for judgement in latest.values()}
    good = len(latest) == len(QUESTIONS) and values == {"pass"} and not item.corrections
    if not good and "fail" not in values:
        return []
    messages = tuple(turn.as_message() for turn in conversation.turns)
    return [UnpairedRow(id=f"kto-{item.reply_id}", conversation_id=conversation.id, messages=messages, good=good)]


def _pair_of_vote(comparison: Comparison) -> Preference | LeftOut:
    reason = None
    if comparison.outcome == "tie":
        reason = "The vote was a tie: neither reply is better."
    elif comparison.outcome == "both_bad":
        reason = "Both replies were called bad: neither should be learned."
    elif comparison.left.text.strip() == comparison.right.text.strip():
        reason = "Both replies say the same."
    elif not (comparison.left.text.strip() and comparison.right.text.strip()):
        reason = "One of the replies is empty."
    if reason:
        return LeftOut(id=comparison.id, what="comparison", reason=reason, text=comparison.prompt[-1].text)
    pair = Preference(
        id=comparison.id,
        prompt=comparison.prompt,
        chosen=comparison.left.text,
        rejected=comparison.right.text,
        source="vote",
        voter=comparison.voter or "",
    )
    return pair if comparison.outcome == "left" else pair.swap()


def _once(rows: Iterable[Row], key: Callable[[Row], object], reason: str) -> tuple[list[Row], list[LeftOut]]:
    seen: set[object] = set()
    kept: list[Row] = []
    twice: list[LeftOut] = []
    for row in rows:
        if (content := key(row)) in seen:
            text = row.messages[-1].text if isinstance(row, SftRow) else row.chosen
            twice.append(LeftOut(id=row.id, what="reply", reason=reason, text=text))
        else:
            seen.add(content)
            kept.append(row)
    return kept, twice


def _listed(questions: Sequence[Question]) -> str:
    names = {"voice": "brand voice", "policy": "policy", "bias": "bias"}
    return " and ".join(names[question] for question in questions)
