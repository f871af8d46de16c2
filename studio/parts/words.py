"""Small pieces of text and HTML for people. Everything that came from outside is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from annotation.acts import Settled
from annotation.types import Message, Provenance, Question, Turn, Value, utc_now

NAMES: dict[Question, str] = {"voice": "Brand voice", "policy": "Policy", "bias": "Bias"}
"""What the three questions are called wherever people read of them."""
WORDS: dict[Question, dict[Value, str]] = {
    "voice": {"pass": "On brand", "fail": "Off brand", "unsure": "Not sure", "not_applicable": "Does not apply"},
    "policy": {
        "pass": "Within policy",
        "fail": "Breaks policy",
        "unsure": "Not sure",
        "not_applicable": "Does not apply",
    },
    "bias": {"pass": "Fair", "fail": "Biased", "unsure": "Not sure", "not_applicable": "Does not apply"},
}
TONES = {"pass": "good", "fail": "bad", "unsure": "warn", "not_applicable": "quiet"}
HOW: dict[Settled, str] = {
    "unanimous": "unanimous",
    "single": "one reviewer",
    "adjudicated": "adjudicated",
    "unresolved": "unresolved",
}
"""How an answer came about."""
SPEAKERS = {"user": "Customer", "assistant": "Model", "system": "Instructions"}


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 reply`, `2 replies`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float | None) -> str:
    """`45 s`, `3 min`, `1 h 20 min`; a dash if unknown."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def ago(moment: datetime) -> str:
    """`just now`, `5 min ago`, or the date."""
    seconds = (utc_now() - moment).total_seconds()
    if seconds < 60:
        return "just now"
    return f"{duration(seconds)} ago" if seconds < 86_400 else f"{moment:%d %b %Y}"


def short(text: str, limit: int = 140) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def empty(title: str, text: str, link: str = "", label: str = "") -> str:
    """An empty state that says what to do."""
    action = f'<a class="ts-button" href="{escape(link)}">{escape(label)}</a>' if link else ""
    return f'<div class="ts-empty"><h3>{escape(title)}</h3><p>{escape(text)}</p>{action}</div>'


def badge(text: str, tone: str = "quiet") -> str:
    """A small label; tone is `quiet`, `good`, `busy`, `warn` or `bad`."""
    return f'<span class="ts-badge ts-{tone}">{escape(text)}</span>'


def sworn(made: Provenance) -> str:
    """Whether the engine itself said whose weights gave a reply."""
    if made.attested is None:
        return badge("not confirmed by the engine", "warn")
    sha256 = made.attested.adapter_sha256 or made.attested.base_sha256
    return f'<span title="SHA-256 of the weights: {escape(sha256)}">{badge("confirmed by the engine")}</span>'


def bubbles(turns: Sequence[Turn | Message], focus: str | None = None) -> str:
    """A conversation as text, never as markup; the turn with id `focus` is the one in question."""
    parts = []
    for turn in turns:
        focused = " ts-focus" if isinstance(turn, Turn) and turn.id == focus else ""
        parts.append(
            f'<div class="ts-turn ts-{turn.role}{focused}"><div class="ts-who">{SPEAKERS[turn.role]}</div>'
            f'<div class="ts-said" dir="auto">{escape(turn.text)}</div></div>'
        )
    return f'<div class="ts-conversation">{"".join(parts)}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", stack: bool = False) -> str:
    """A plain table that scrolls sideways, by keyboard too, where it is wider than the page; its cells are HTML. With
    `stack` it does not scroll on a phone: there each row's cells stand one below the other, with their heads.
    """
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(f"<tr>{_cells(row, heads if stack else ())}</tr>" for row in rows)
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    label = escape(caption or ", ".join(filter(None, heads)))
    look = "ts-table ts-stack" if stack else "ts-table"
    return (
        f'<div class="ts-scroll" role="group" tabindex="0" aria-label="{label}"><table class="{look}">{said}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(row: Sequence[str], heads: Sequence[str]) -> str:
    if not heads:
        return "".join(f"<td>{cell}</td>" for cell in row)
    pairs = zip(heads, row, strict=True)
    return "".join(f'<td data-head="{escape(head)}">{cell}</td>' for head, cell in pairs)


def listed(notes: Sequence[str]) -> str:
    """Sentences one below the other; '' for none."""
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>" if notes else ""


def beside_cheapest(tokens: float, least: float) -> str:
    """What a reply costs beside the cheapest one, by the tokens read and written."""
    return "the cheapest" if tokens == least else f"costs {tokens / least:.1f} × the cheapest"
