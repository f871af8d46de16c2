"""Settle: where reviewers differ, everybody's answers side by side; the curator decides, lowest agreement first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from annotation.acts import QUESTIONS, Standing
from annotation.store.reviews import Verdict
from annotation.types import Axis, Charter, Clause, Question, Trait, Value
from studio.parts import shell
from studio.parts.diff import diff_html
from studio.parts.guard import by_person
from studio.parts.words import NAMES, TONES, WORDS, badge, bubbles, empty, table
from studio.services import Services
from studio.services.settle import Dispute


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Review")
    shell.title("Settle", "Where reviewers differ, you decide. The widest differences come first.", "Settle")
    act = by_person(services, _Bench)
    nothing = gr.HTML()
    shown = gr.Textbox(visible="hidden", label="Item", elem_id="ts-settling")
    with gr.Row(visible=False) as item:
        with gr.Column(scale=7, min_width=320):
            conversation = gr.HTML(elem_id="ts-settle-item")
            answers = gr.HTML(elem_id="ts-answers")
        with gr.Column(scale=4, min_width=300):
            radios = [
                gr.Radio(
                    [(word, value) for value, word in WORDS[name].items()],
                    label=NAMES[name],
                    elem_id=f"ts-settle-{name}",
                )
                for name in QUESTIONS
            ]
            rules = gr.CheckboxGroup([], label="Rules at fault", elem_id="ts-settle-rules")
            correction = gr.Textbox(
                label="As it should have been",
                info="Leave it as it is if nothing is to be changed.",
                lines=4,
                max_lines=12,
            )
            note = gr.Textbox(label="Why (optional)", max_length=5000)
            with gr.Row():
                later = gr.Button("Not now", scale=0, min_width=120, elem_id="ts-later")
                settle = gr.Button("Settle and next", variant="primary", min_width=160, elem_id="ts-settle")
    screen = [nothing, item, shown, conversation, answers, *radios, rules, correction, note]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    settle.click(act(_Bench.settle), [shown, rules, correction, note, *radios], screen, **quiet)
    later.click(act(_Bench.later), shown, screen, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Bench.arrive), None, screen, **quiet)


class _Bench:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._settle = services.settle
        self._review = services.review
        self._may = services.who.may("curate")

    def arrive(self) -> list[Any]:
        if not self._may:
            why = "Reviewers don't see each other's answers, so that each judges for themselves."
            return self._blank(empty("Settling is for curators", why, "/review", "Go to Review"))
        return self._next([])

    def _next(self, before: Sequence[str]) -> list[Any]:
        """The first difference that is not among `before`, those that were looked at; from the start after the last."""
        waiting = self._settle.waiting()
        if not waiting:
            why = "A reply comes here when enough people have judged it and they don't agree."
            return self._blank(empty("Nobody differs", why, "/review", "Go to Review"))
        reply_id, agreement = next((one for one in waiting if one[0] not in before), waiting[0])
        return self._screen(self._settle.open(reply_id), agreement)

    def _up_to(self, reply_id: str) -> list[str]:
        ids = [one for one, _ in self._settle.waiting()]
        return ids[: ids.index(reply_id) + 1] if reply_id in ids else []

    def later(self, shown: str) -> list[Any]:
        """Leave this one as it is and go on."""
        return self._next(self._up_to(shown.split()[0]))

    def settle(self, shown: str, rules: list[str], correction: str, note: str, *values: Value | None) -> list[Any]:
        reply_id, opened = shown.split()
        charter = self._review.charter
        verdicts = tuple(
            Verdict(question=question, value=value, clause_ids=_cited(charter, question, value, rules), note=note)
            for question, value in zip(QUESTIONS, values, strict=True)
            if value
        )
        before = self._up_to(reply_id)
        self._settle.settle(reply_id, verdicts, correction, round(time.time() - float(opened), 1))
        gr.Info("Settled.", duration=3)
        return self._next(before)

    def _blank(self, text: str) -> list[Any]:
        return [gr.HTML(text, visible=True), gr.Row(visible=False), *[gr.skip()] * (7 + len(QUESTIONS) - 1)]

    def _screen(self, dispute: Dispute, agreement: float) -> list[Any]:
        resolved = dispute.resolved()
        reply = dispute.conversation.turns[-1]
        corrected = dispute.standing.corrections[-1].after if dispute.standing.corrections else reply.text
        charter = self._review.charter
        cited = sorted({clause for found in resolved.values() for clause in found.clause_ids})
        rules: list[Trait | Clause | Axis] = [*charter.voice, *charter.policy, *charter.bias]
        choices = [(rule.text, rule.id) for rule in rules if rule.id in cited]
        return [
            gr.HTML(visible=False),
            gr.Row(visible=True),
            f"{dispute.reply_id} {time.time():.1f}",
            bubbles(dispute.conversation.turns, reply.id),
            answers_html(dispute.standing, reply.text, agreement),
            *[resolved[name].value if name in resolved else None for name in QUESTIONS],
            gr.CheckboxGroup(choices, value=cited, visible=bool(choices)),
            corrected,
            "",
        ]


def _cited(charter: Charter, question: Question, value: Value, rules: list[str]) -> tuple[str, ...]:
    if value != "fail":
        return ()
    known = {rule.id for rule in getattr(charter, question)}
    return tuple(rule for rule in rules if rule in known)


def answers_html(standing: Standing, reply: str, agreement: float) -> str:
    """Everybody's answers in a table, and the rewrites under it."""
    rows = []
    for person, given in sorted(standing.answers.items()):
        cells = [f"<b>{escape(person)}</b>"]
        for question in QUESTIONS:
            judgement = given.get(question)
            if judgement is None:
                cells.append('<span class="ts-muted">–</span>')
                continue
            said = badge(WORDS[question][judgement.value], TONES[judgement.value])
            why = "<br>".join(escape(text) for text in (*judgement.clause_ids, judgement.note) if text)
            cells.append(said + (f'<div class="ts-small ts-muted">{why}</div>' if why else ""))
        rows.append(cells)
    rewrites = "".join(
        f'<div class="ts-who">{escape(one.author)} rewrote it</div><div class="ts-diff" dir="auto">'
        f"{diff_html(reply, one.after)}</div>"
        for one in standing.corrections
    )
    heads = ("Reviewer", *NAMES.values())
    return table(heads, rows, f"{round(100 * agreement)}% say the same on the question they differ on most.") + rewrites
