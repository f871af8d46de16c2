"""Replies side by side and the answers to 'which is better', shared by Compare and Experiments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import get_args

from annotation.types import Outcome, Pick, Place, Question, Tag

VOTES: tuple[tuple[str, Outcome, str], ...] = (
    ("Left is better", "left", "1"),
    ("About the same", "tie", "2"),
    ("Both are bad", "both_bad", "3"),
    ("Right is better", "right", "4"),
)
MORE_VOTES: tuple[tuple[str, Pick, str], ...] = (("Third is best", "third", "5"), ("Fourth is best", "fourth", "6"))
AMONG_MORE: dict[Pick, str] = {
    "left": "First is best",
    "tie": "About the same",
    "both_bad": "All are bad",
    "right": "Second is best",
}
"""What VOTES say where there are more than two."""
NAMES: dict[Place, str] = {"left": "Left", "right": "Right", "third": "Third", "fourth": "Fourth"}
NAMES_AMONG_MORE: dict[Place, str] = NAMES | {"left": "First", "right": "Second"}
ASKED: dict[Question, str] = {
    "voice": "Whose tone is more like us?",
    "policy": "Which keeps to the rules better?",
    "bias": "Which treats people more fairly?",
}
ANSWERS: tuple[tuple[str, str], ...] = (("Left", "left"), ("Same", "tie"), ("Right", "right"), ("Both bad", "both_bad"))
STRENGTHS = (("slightly", 1), ("clearly", 2), ("much", 3))
TAGS = [(tag.replace("_", " "), tag) for tag in get_args(Tag)]
PLACE_KEYS: dict[Question, str] = {"voice": "qwerty", "policy": "asdfgh", "bias": "zxcvbn"}
"""A key for each answer to a question, in the order of keys 1 to 6: left, same, both bad, right, third, fourth."""
IN_ORDER: tuple[Pick, ...] = tuple(pick for _, pick, _ in (*VOTES, *MORE_VOTES))
STRENGTH_KEYS = "Keys: " + ", ".join(f"{number + 6} {said}" for said, number in STRENGTHS)
_KEYS = """
const fields = %(fields)s;
const folded = %(folded)s;
const wanted = {};
let opened = -1e9;
const typing = 'textarea, input:not([type=radio]):not([type=checkbox])';
const press = (event) => {
  if (!document.body.contains(element)) { document.removeEventListener('keydown', press); return; }
  if (event.target.matches?.(typing) || event.ctrlKey || event.metaKey || event.altKey) return;
  const vote = { 1: 'left', 2: 'tie', 3: 'both_bad', 4: 'right', 5: 'third', 6: 'fourth' }[event.key];
  if (vote) document.querySelector(`#ts-vote-${vote}`)?.click();
  const field = fields[event.key.toLowerCase()];
  if (field) { wanted[field[0]] = field[1]; choose(...field, 30); }
};
const choose = (field, value, tries) => {
  if (wanted[field] !== value) return;
  const whole = document.querySelector(`#ts-${field}`);
  if (whole?.offsetParent) {
    const one = [...whole.querySelectorAll('input')].find((one) => one.value === value);
    if (!one?.checked) one?.click();
    // What has just been unfolded may be drawn once more, as it was.
    if (performance.now() - opened < 1000 && tries) setTimeout(() => choose(field, value, tries - 1), 100);
    return;
  }
  const fold = document.querySelector('#ts-say-more > button');
  if (!folded.includes(field) || !fold?.offsetParent || !tries) return;
  if (performance.now() - opened > 1000) {
    opened = performance.now();
    fold.click();
  }
  requestAnimationFrame(() => choose(field, value, tries - 1));
};
document.addEventListener('keydown', press);
"""


def keys(folded: Sequence[str]) -> str:
    """A script: keys 1 to 6 press the buttons `ts-vote-…`, letters answer the questions `ts-asked-…`, 7 to 9 say how
    much better (`ts-strength`), except while somebody types. What is `folded` lies in `ts-say-more`, which is opened.
    """
    fields: dict[str, tuple[str, str]] = {
        key: (f"asked-{question}", pick)
        for question, letters in PLACE_KEYS.items()
        for key, pick in zip(letters, IN_ORDER, strict=True)
    }
    fields |= {str(number + 6): ("strength", str(number)) for _, number in STRENGTHS}
    return _KEYS % {"fields": json.dumps(fields), "folded": json.dumps(list(folded))}


def keys_of(question: Question, places: Sequence[Place]) -> str:
    """Which key gives which answer to a question about so many replies, in words."""
    said = {pick: label.lower() for label, pick in answers_among(places)}
    there = [(key, said[pick]) for key, pick in zip(PLACE_KEYS[question], IN_ORDER, strict=True) if pick in said]
    return "Keys: " + ", ".join(f"{key} {label}" for key, label in there)


def answers_among(places: Sequence[Place]) -> list[tuple[str, str]]:
    """The choices of a question about so many replies."""
    if len(places) == 2:
        return list(ANSWERS)
    return [*((NAMES_AMONG_MORE[place], place) for place in places), ("Same", "tie"), ("All bad", "both_bad")]


def name_of(place: Place, sides: int) -> str:
    """`Left`, or `First` among more than two."""
    return (NAMES if sides == 2 else NAMES_AMONG_MORE)[place]


def pane(
    side: Place,
    text: str = "",
    who: str = "",
    won: bool = False,
    *,
    sides: int = 2,
    before: Sequence[tuple[str, str]] = (),
    below: str = "",
) -> str:
    """One pane. `who` and `below` are HTML and may tell who it is: never before the vote. `before`: what this side
    said earlier and what it was asked next, oldest first.
    """
    name = name_of(side, sides)
    said = f'<div class="ts-text" dir="auto">{escape(text)}</div>' if text else '<div class="ts-wait">…</div>'
    earlier = "".join(
        f'<div class="ts-text ts-earlier" dir="auto">{escape(reply)}</div>'
        f'<div class="ts-then" dir="auto"><span class="ts-muted">You:</span> {escape(asked)}</div>'
        for reply, asked in before
    )
    return (
        f'<section class="ts-side{" ts-won" if won else ""}" aria-label="{name} reply">'
        f"<h3>{name}{who}</h3>{earlier}{said}{below}</section>"
    )
