"""Settle: where reviewers differ, everybody's answers side by side; the curator decides, lowest agreement first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple, get_args

import gradio as gr

from annotation.acts import QUESTIONS, Standing
from annotation.store.reviews import Verdict
from annotation.types import BiasKind, Charter, Judgement, Question, Severity
from studio.parts import shell
from studio.parts.diff import diff_html
from studio.parts.guard import by_person
from studio.parts.words import HOW, NAMES, TONES, WORDS, badge, bubbles, empty, table
from studio.services import Services
from studio.services.review import RulesChanged
from studio.services.settle import Dispute

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the lightest to the heaviest."""
KINDS: dict[BiasKind, str] = {
    "stereotype": "Stereotype",
    "assumption": "Assumes something",
    "unequal_help": "Helps less",
    "disrespect": "Talks down",
    "exclusion": "Leaves somebody out",
}
ASKED = {"voice": "What is off?", "policy": "Which rule?", "bias": "About what?"}


class _Asked(NamedTuple):
    """The components in which a curator decides. `more` is how bad it is, or what kind of bias."""

    values: list[gr.Radio]
    rules: list[gr.CheckboxGroup]
    more: list[gr.Dropdown]


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
            asked = _questions()
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
    faults = [*asked.rules, *asked.more]
    screen = [nothing, item, shown, conversation, answers, *asked.values, *faults, correction, note]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    settle.click(act(_Bench.settle), [shown, correction, note, *asked.values, *faults], screen, **quiet)
    later.click(act(_Bench.later), shown, screen, **quiet)
    for value in asked.values:
        value.input(act(_Bench.ask), asked.values, faults, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Bench.arrive), None, screen, **quiet)


def _questions() -> _Asked:
    """An answer to each question, and below it what a bad one says more."""
    asked = _Asked([], [], [])
    for name in QUESTIONS:
        words = [(word, value) for value, word in WORDS[name].items()]
        asked.values.append(gr.Radio(words, label=NAMES[name], elem_id=f"ts-settle-{name}"))
        asked.rules.append(
            gr.CheckboxGroup([], label=ASKED[name], visible=False, elem_id=f"ts-settle-{name}-rules"),
        )
        if name == "policy":
            heavy = [("Not said", ""), *((one.capitalize(), one) for one in SEVERITIES)]
            asked.more.append(
                gr.Dropdown(heavy, value="", label="How bad?", visible=False, elem_id="ts-settle-severity")
            )
        if name == "bias":
            kinds = [("Not said", ""), *((word, kind) for kind, word in KINDS.items())]
            asked.more.append(gr.Dropdown(kinds, value="", label="What kind?", visible=False, elem_id="ts-settle-kind"))
    return asked


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
        return self._next()

    def _next(self, after: str | None = None) -> list[Any]:
        """The first difference, or the one that comes `after` a reply."""
        found = self._settle.next(after)
        if found is None:
            why = "A reply comes here when enough people have judged it and they don't agree."
            return self._blank(empty("Nobody differs", why, "/review", "Go to Review"))
        reply_id, agreement = found
        return self._screen(self._settle.open(reply_id), agreement)

    def later(self, shown: str) -> list[Any]:
        """Leave this one as it is and go on."""
        return self._next(shown.split()[0])

    def ask(self, *values: Any) -> list[Any]:
        """What is at fault is asked where something is; what was ticked stays."""
        bad = dict(zip(QUESTIONS, (value == "fail" for value in values), strict=True))
        rules = [gr.CheckboxGroup(visible=bad[name] and bool(_rules(self._review.charter, name))) for name in QUESTIONS]
        return [*rules, gr.Dropdown(visible=bad["policy"]), gr.Dropdown(visible=bad["bias"])]

    def settle(self, shown: str, correction: str, note: str, *decided: Any) -> list[Any]:
        """Decide. What reviewers agree on, and is left as it is, stays theirs."""
        reply_id, opened, version = shown.split()
        standing = self._settle.open(reply_id).standing
        given = [one for one in _verdicts(decided, note) if not _agreed(one, standing, self._review.charter)]
        took = round(time.time() - float(opened), 1)
        try:
            self._settle.settle(reply_id, tuple(given), correction, took, int(version))
        except RulesChanged as changed:
            gr.Warning(f"<b>{escape(changed.found)}</b> {escape(changed.do)}", duration=12)
            return self._anew(f"{reply_id} {opened}", decided)
        gr.Info("Settled.", duration=3)
        return self._next(reply_id)

    def _anew(self, shown: str, decided: Sequence[Any]) -> list[Any]:
        """The same item under the newest rules, with what was ticked among those that are left."""
        charter = self._review.charter
        fresh = []
        for name, ticked in zip(QUESTIONS, decided[len(QUESTIONS) : 2 * len(QUESTIONS)], strict=True):
            choices = _rules(charter, name)
            fresh.append(gr.CheckboxGroup(choices, value=_among(choices, ticked)))
        kept = [gr.skip()] * len(QUESTIONS)
        item = [gr.skip(), gr.skip(), f"{shown} {charter.version}", gr.skip(), gr.skip()]
        return [*item, *kept, *fresh, *[gr.skip()] * 4]

    def _blank(self, text: str) -> list[Any]:
        return [gr.HTML(text, visible=True), gr.Row(visible=False), *[gr.skip()] * (7 + 2 * len(QUESTIONS))]

    def _screen(self, dispute: Dispute, agreement: float) -> list[Any]:
        resolved = dispute.resolved()
        reply = dispute.conversation.turns[-1]
        corrected = dispute.standing.corrections[-1].after if dispute.standing.corrections else reply.text
        charter = self._review.charter
        values = [resolved[name].value if name in resolved else None for name in QUESTIONS]
        rules = []
        for name, value in zip(QUESTIONS, values, strict=True):
            choices = _rules(charter, name)
            cited = _among(choices, resolved[name].clause_ids if name in resolved else ())
            rules.append(gr.CheckboxGroup(choices, value=cited, visible=value == "fail" and bool(choices)))
        severity, kind = _severity(dispute.standing), _kind(dispute.standing)
        return [
            gr.HTML(visible=False),
            gr.Row(visible=True),
            f"{dispute.reply_id} {time.time():.1f} {charter.version}",
            bubbles(dispute.conversation.turns, reply.id),
            answers_html(dispute.standing, reply.text, agreement),
            *values,
            *rules,
            gr.Dropdown(value=severity, visible=values[1] == "fail"),
            gr.Dropdown(value=kind, visible=values[2] == "fail"),
            corrected,
            "",
        ]


def _rules(charter: Charter, question: Question) -> list[tuple[str, str]]:
    return [(rule.text, rule.id) for rule in getattr(charter, question)]


def _among(choices: Sequence[tuple[str, str]], ids: Sequence[str] | None) -> list[str]:
    """Those that the charter still has: Gradio refuses a form with any other one."""
    return [rule for _, rule in choices if rule in (ids or ())]


def _answers(standing: Standing, question: Question) -> list[Judgement]:
    return [given[question] for given in standing.answers.values() if question in given]


def _severity(standing: Standing) -> str:
    """The heaviest that a reviewer named."""
    named = [one.severity for one in _answers(standing, "policy") if one.severity]
    return max(named, key=SEVERITIES.index, default="")


def _kind(standing: Standing) -> str:
    return next((one.kind for one in _answers(standing, "bias") if one.kind), "")


def _verdicts(decided: Sequence[Any], note: str) -> list[Verdict]:
    """What the form says: three answers, the rules of each, severity and kind."""
    values, rules, (severity, kind) = decided[:3], decided[3:6], decided[6:]
    found = []
    for question, value, cited in zip(QUESTIONS, values, rules, strict=True):
        more: dict[str, Any] = {}
        if value == "fail":
            more = {"clause_ids": tuple(cited or ())}
            more |= {"severity": severity or None} if question == "policy" else {}
            more |= {"kind": kind or None} if question == "bias" else {}
        if value:
            found.append(Verdict(question=question, value=value, note=note, **more))
    return found


def _agreed(verdict: Verdict, standing: Standing, charter: Charter) -> bool:
    """Whether it says just what reviewers agree on already."""
    found = standing.resolved().get(verdict.question)
    if found is None or found.value != verdict.value:
        return False
    cited = _among(_rules(charter, verdict.question), found.clause_ids)
    severity = _severity(standing) if verdict.question == "policy" else ""
    kind = _kind(standing) if verdict.question == "bias" else ""
    said = set(verdict.clause_ids), verdict.severity or "", verdict.kind or ""
    return verdict.value != "fail" or said == (set(cited), severity, kind)


def answers_html(standing: Standing, reply: str, agreement: float) -> str:
    """Everybody's answers in a table, what they come to, and the rewrites under it."""
    rows = []
    for person, given in sorted(standing.answers.items()):
        cells = [f"<b>{escape(person)}</b>"]
        for question in QUESTIONS:
            judgement = given.get(question)
            if judgement is None:
                cells.append('<span class="ts-muted">–</span>')
                continue
            said = badge(WORDS[question][judgement.value], TONES[judgement.value])
            kind = KINDS[judgement.kind] if judgement.kind else ""
            more = (*judgement.clause_ids, judgement.severity or "", kind, judgement.note)
            why = "<br>".join(escape(text) for text in more if text)
            cells.append(said + (f'<div class="ts-small ts-muted">{why}</div>' if why else ""))
        rows.append(cells)
    resolved = standing.resolved()
    come_to = [HOW[resolved[name].how] if name in resolved else "nobody was asked" for name in QUESTIONS]
    rows.append(["Together", *(f'<span class="ts-small">{how}</span>' for how in come_to)])
    rewrites = "".join(
        f'<div class="ts-who">{escape(one.author)} rewrote it</div><div class="ts-diff" dir="auto">'
        f"{diff_html(reply, one.after)}</div>"
        for one in standing.corrections
    )
    heads = ("Reviewer", *NAMES.values())
    return table(heads, rows, f"{round(100 * agreement)}% say the same on the question they differ on most.") + rewrites
