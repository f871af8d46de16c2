"""Agreement: how far reviewers agree, where they part, and how each of them judges."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from annotation.acts import QUESTIONS
from annotation.agreement import Figure, Pair
from annotation.types import Question
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.plots import intervals
from studio.parts.words import NAMES, WORDS, count, empty, table
from studio.services import Services
from studio.services.quality import LABELS, Agreement, ReviewerCard

ABOUT = (
    "<p class='ts-muted ts-small'>Alpha is agreement beyond chance: 1 is perfect, 0 is what guessing would give; from "
    "0.8 on, people read the rules the same way. AC1 is steadier where one answer is rare. The line is the range the "
    "figure is good for, at 95%. Rushed answers, closed faster than the reply can be read, weigh half in ‘reliable’."
    "</p>"
)


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Review")
    shell.title(
        "Agreement",
        "Do reviewers read the rules the same way? Where not, the rules need work, or people do.",
        "Agreement",
    )
    act = by_person(services, _Scales)
    with gr.Row():
        work = gr.Button("Work it out again", size="sm", scale=0, min_width=160, elem_id="ts-work-out")
    figures = gr.HTML(elem_id="ts-figures")
    quiet: dict[str, Any] = {"api_name": False}
    work.click(act(_Scales.figures), None, figures, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Scales.figures), None, figures, **quiet)


class _Scales:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._quality = services.quality
        self._may = services.who.may("curate")

    def figures(self) -> str:
        if not self._may:
            return empty("These figures are for curators", "They name who answered what.", "/review", "Go to Review")
        found: dict[Question, Agreement] = {name: self._quality.agreement(name) for name in QUESTIONS}
        if not any(one.alpha.raters or one.pairs or one.raw.units for one in found.values()):
            why = (
                "Agreement needs replies that two people have judged. Set ‘Reviewers for each reply’ on the Team page."
            )
            nothing = empty("Nobody has judged the same reply yet", why, "/team", "Go to Team")
            return nothing + reviewers_html(self._quality.reviewers(found))
        plot = intervals(
            [(f"{NAMES[name]}: alpha", one.alpha.value, one.alpha.low, one.alpha.high) for name, one in found.items()]
            + [(f"{NAMES[name]}: AC1", one.ac1.value, one.ac1.low, one.ac1.high) for name, one in found.items()],
            "Agreement on each question, with its 95% interval",
        )
        parts = [plot, ABOUT, _questions(found), reviewers_html(self._quality.reviewers(found))]
        parts += [_details(one) for one in found.values()]
        return "".join(parts)


def _questions(found: dict[Question, Agreement]) -> str:
    rows = [
        [
            f"<b>{NAMES[name]}</b>",
            said(one.alpha),
            said(one.ac1),
            said(one.raw, percent=True),
            f"{one.alpha.units:,}",
            str(one.alpha.raters),
        ]
        for name, one in found.items()
    ]
    return table(("Question", "Alpha", "AC1", "Say the same", "Replies", "Reviewers"), rows)


def said(figure: Figure, percent: bool = False) -> str:
    """A figure with its interval, or the words for why there is none."""
    if figure.value is None:
        return f'<span class="ts-muted">{escape(figure.words)}</span>'

    def shown(value: float) -> str:
        return f"{100 * value:.0f}%" if percent else f"{value:.2f}"

    around = (
        f' <span class="ts-muted ts-small">{shown(figure.low)} to {shown(figure.high)}</span>'
        if figure.low is not None and figure.high is not None
        else ""
    )
    caution = (
        f'<div class="ts-small ts-muted" style="min-width:150px">{escape(figure.words)}</div>' if figure.words else ""
    )
    return f"<b>{shown(figure.value)}</b>{around}{caution}"


def reviewers_html(cards: Sequence[ReviewerCard]) -> str:
    """How each person judges."""
    if not cards:
        return ""
    rows = [
        [
            f"<b>{escape(card.name)}</b>",
            f"{card.items:,}",
            f"{card.per_hour:.0f}" if card.per_hour else _quiet("no times known"),
            f"{card.rushed:,}",
            f"{100 * card.edit:.0f}%" if card.edit is not None else _quiet("nothing corrected"),
            said(card.consistent, percent=True),
            said(card.right, percent=True),
            _reliable(card),
        ]
        for card in cards
    ]
    heads = (
        "Reviewer",
        "Judged",
        "An hour",
        "Rushed",
        "Changes of a reply",
        "Agrees with oneself",
        "Hidden checks right",
        "Reliable",
    )
    return f'<h2 class="ts-h2">Reviewers</h2>{table(heads, rows)}'


def _reliable(card: ReviewerCard) -> str:
    known = [f"{NAMES[name]} {100 * value:.0f}%" for name, value in card.competence.items() if value is not None]
    return f'<div style="min-width:150px">{" · ".join(known)}</div>' if known else _quiet("not known")


def _quiet(words: str) -> str:
    """Why there is no figure."""
    return f'<span class="ts-muted">{words}</span>'


def _details(found: Agreement) -> str:
    parts = [_clauses(found), *(_pair(pair, found.question) for pair in found.pairs)]
    caution = f'<p class="ts-small ts-muted">{escape(found.caution)}</p>' if found.caution else ""
    inside = "".join(part for part in parts if part)
    if not inside:
        return ""
    title = f"{NAMES[found.question]}: rules and pairs of reviewers"
    return f'<details class="ts-details"><summary>{title}</summary>{caution}{inside}</details>'


def _clauses(found: Agreement) -> str:
    rows = [
        [
            f"<code>{escape(one.clause)}</code>",
            f"{one.cited:,} of {one.units:,}",
            f"{one.cited_by_all:,}",
            said(one.alpha),
            said(one.ac1),
        ]
        for one in found.clauses
        if one.cited
    ]
    return table(("Rule", "Cited by somebody", "By everybody", "Alpha", "AC1"), rows) if rows else ""


def _pair(pair: Pair, question: Question) -> str:
    words = [WORDS[question][label] for label in LABELS]  # type: ignore[index]
    rows = []
    for row, cells in enumerate(pair.cells):
        if not any(cell.count for cell in cells):
            continue
        shown = [f"<b>{escape(words[row])}</b>"]
        for cell in cells:
            links = " ".join(
                f'<a href="/review?reply={escape(unit)}">{n}</a>' for n, unit in enumerate(cell.examples, 1)
            )
            shown.append(f'{cell.count:,} <span class="ts-small">{links}</span>' if cell.count else "–")
        rows.append(shown)
    common = count(pair.units, "reply", "replies")
    caption = f"{pair.first} (down) and {pair.second} (across), {common} in common; the small numbers open examples"
    figures = f"<p>Say the same: {said(pair.raw, percent=True)} · kappa {said(pair.kappa)}</p>"
    return figures + table(("", *words), rows, caption)
