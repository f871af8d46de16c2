"""Review: one reply at a time, three questions, a correction with its live difference; keyboard only if you like."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any, get_args

import gradio as gr

from annotation.store.reviews import Verdict
from annotation.types import Axis, Charter, Clause, Question, Trait, Value
from studio.parts import shell
from studio.parts.diff import diff_html
from studio.parts.guard import guarded
from studio.parts.words import ago, badge, bubbles, count, empty
from studio.services import Services
from studio.services.review import ReviewForm, ReviewItem
from studio.theme import STYLE

ASKED: dict[Question, tuple[str, list[tuple[str, Value]]]] = {
    "voice": ("Brand voice", [("On brand", "pass"), ("Off brand", "fail"), ("Not sure", "unsure")]),
    "policy": ("Policy", [("Within policy", "pass"), ("Breaks policy", "fail"), ("Not sure", "unsure")]),
    "bias": ("Bias", [("Fair", "pass"), ("Biased", "fail"), ("Not sure", "unsure")]),
}
FAULTS: dict[Question, str] = {"voice": "What is off?", "policy": "Which rule?", "bias": "About what?"}
KEYS = STYLE / "review.js"
HELP = (
    ("1 2 3", "Brand voice: on, off, not sure"),
    ("4 5 6", "Policy: within, breaks, not sure"),
    ("7 8 9", "Bias: fair, biased, not sure"),
    ("A", "All fine: on brand, within policy, fair"),
    ("E", "Edit the reply; Esc leaves the box"),
    ("Ctrl Enter", "Save and go on (⌘ Enter on a Mac)"),
    ("S", "Skip"),
    ("B", "Back to the one before"),
    ("?", "This list"),
)


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Review")
    shell.title("Review", "Is this reply on brand, within policy and fair? Put it right where it is not.")
    desk = _Desk(services)
    status = gr.HTML(elem_id="ts-status")
    done = gr.HTML(visible=False)
    # What is on screen, kept in the page itself: it outlives a restart of the studio, and two tabs don't share it.
    shown = gr.Textbox(visible="hidden", elem_id="ts-shown", label="Item")
    original = gr.Textbox(visible="hidden", elem_id="ts-original", label="Reply as it was")
    with gr.Row(visible=False) as item:
        with gr.Column(scale=7, min_width=320):
            conversation = gr.HTML(elem_id="ts-item")
            corrected = gr.Textbox(
                label="As it should have been",
                info="Edit it in place. Leave it as it is if the reply is fine.",
                lines=4,
                max_lines=14,
                elem_id="ts-corrected",
            )
            difference = gr.HTML(elem_id="ts-difference")
        with gr.Column(scale=4, min_width=300, elem_id="ts-questions"):
            answers, faults = _questions(desk.charter())
    with gr.Row(visible=False, elem_id="ts-actions") as actions:
        back = gr.Button("Back", min_width=80, scale=1, elem_id="ts-back")
        skip = gr.Button("Skip", min_width=80, scale=1, elem_id="ts-skip-item")
        save = gr.Button("Save and next", variant="primary", min_width=140, scale=4, elem_id="ts-save")
    bring_back = gr.Button("Bring back skipped replies", visible=False, elem_id="ts-bring-back")
    gr.HTML(_help_html(), js_on_load=KEYS.read_text(encoding="utf-8"))

    form = [shown, corrected, *answers, *faults]
    screen = [status, done, item, actions, shown, original, conversation, corrected, difference]
    screen += [*answers, *faults, bring_back]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    save.click(guarded(desk.save), form, screen, **quiet)
    skip.click(guarded(desk.skip), shown, screen, **quiet)
    back.click(guarded(desk.back), None, screen, **quiet)
    bring_back.click(guarded(desk.bring_back), None, screen, **quiet)
    # `change`, not `input`: a paste and a restored draft change the text too.
    corrected.change(live_difference, [original, corrected], difference, trigger_mode="always_last", **quiet)
    for answer, fault in zip(answers, faults, strict=True):
        answer.change(lambda value: gr.CheckboxGroup(visible=value == "fail"), answer, fault, queue=False, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(guarded(desk.arrive), None, screen, **quiet)


class _Desk:
    """The page's handlers. Each gives back the whole screen."""

    def __init__(self, services: Services) -> None:
        self._review = services.review
        self._charter = services.store.charters.current

    def charter(self) -> Charter:
        return self._charter() or Charter(name="No charter yet")

    def arrive(self) -> list[Any]:
        return self._screen(self._review.next())

    def save(self, shown: str, corrected: str, *rest: Any) -> list[Any]:
        """Keep what was answered, then show the next reply."""
        act_id, reply_id, opened = shown.split()
        answers, faults = rest[: len(ASKED)], rest[len(ASKED) :]
        verdicts = tuple(
            Verdict(question=question, value=value, clause_ids=tuple(at_fault) if value == "fail" else ())
            for question, value, at_fault in zip(ASKED, answers, faults, strict=True)
            if value
        )
        seconds = round(max(0.0, time.time() - float(opened)), 1)
        self._review.save(
            ReviewForm(act_id=act_id, reply_id=reply_id, verdicts=verdicts, corrected=corrected, seconds=seconds)
        )
        return self._screen(self._review.next(exclude=reply_id))

    def skip(self, shown: str) -> list[Any]:
        act_id, reply_id, _ = shown.split()
        self._review.skip(act_id, reply_id)
        return self._screen(self._review.next(exclude=reply_id))

    def back(self) -> list[Any]:
        before = self._review.back()
        if before is None:
            gr.Info("You have not reviewed anything yet.")
            return [gr.skip()] * (9 + 2 * len(ASKED) + 1)
        return self._screen(before)

    def bring_back(self) -> list[Any]:
        self._review.bring_back_skipped()
        return self._screen(self._review.next())

    def _screen(self, item: ReviewItem | None) -> list[Any]:
        counts = self._review.counts()
        status = _status(counts)
        skipped = gr.Button(visible=item is None and counts["skipped"] > 0)
        if item is None:
            rest: list[Any] = [gr.skip()] * (5 + 2 * len(ASKED))
            return [status, gr.HTML(_done(counts), visible=True), _visible(False), _visible(False), *rest, skipped]
        latest = item.said.latest()
        shown = f"{item.act_id} {item.reply.id} {time.time():.1f}"
        values = [latest[question].value if question in latest else None for question in ASKED]
        return [
            status + _said(item),
            gr.HTML(visible=False),
            _visible(True),
            _visible(True),
            shown,
            item.reply.text,
            bubbles(item.conversation.turns, item.reply.id) + _made_by(item),
            item.text_now,
            live_difference(item.reply.text, item.text_now),
            *values,
            *[
                gr.CheckboxGroup(value=list(latest[question].clause_ids) if question in latest else [], visible=fail)
                for question, fail in zip(ASKED, [value == "fail" for value in values], strict=True)
            ],
            skipped,
        ]


def live_difference(before: str, after: str) -> str:
    """What the correction changes, or a hint that it changes nothing."""
    if before.strip() == after.strip():
        return ""
    return f'<div class="ts-who">What changes</div><div class="ts-diff" dir="auto">{diff_html(before, after)}</div>'


def _questions(charter: Charter) -> tuple[list[gr.Radio], list[gr.CheckboxGroup]]:
    rules: dict[Question, Sequence[Trait | Clause | Axis]] = {
        "voice": charter.voice,
        "policy": charter.policy,
        "bias": charter.bias,
    }
    answers, faults = [], []
    for question in get_args(Question):
        name, choices = ASKED[question]
        with gr.Group():
            answers.append(gr.Radio(choices, label=name, elem_id=f"ts-{question}"))
            at_fault = [(rule.text, rule.id) for rule in rules[question]]
            faults.append(
                gr.CheckboxGroup(at_fault, label=FAULTS[question], visible=False, elem_id=f"ts-{question}-faults")
            )
    return answers, faults


def _visible(shown: bool) -> Any:
    return gr.Row(visible=shown)


def _status(counts: dict[str, int]) -> str:
    skipped = f" · {counts['skipped']:,} skipped" if counts["skipped"] else ""
    return (
        f'<p class="ts-muted ts-small" role="status"><b>{count(counts["waiting"], "reply", "replies")} waiting</b> · '
        f"{counts['reviewed']:,} reviewed{skipped} · <kbd>?</kbd> shows the keys</p>"
    )


def _said(item: ReviewItem) -> str:
    said = [(judgement.made_at, judgement.reviewer) for judgement in item.said.judgements]
    said += [(correction.made_at, correction.author) for correction in item.said.corrections]
    if not said:
        return ""
    when, who = max(said)
    said_when = f"Reviewed before by {escape(who)}, {ago(when)}. Saving adds a newer answer."
    return f'<div class="ts-notice">{said_when}</div>'


def _made_by(item: ReviewItem) -> str:
    made = item.reply.provenance
    if made is None:
        return ""
    adapter = badge(made.adapter) if made.adapter else badge("base model")
    return f'<p class="ts-small ts-muted">Written by {escape(made.model)} {adapter}</p>'


def _done(counts: dict[str, int]) -> str:
    if counts["reviewed"] or counts["skipped"]:
        return empty(
            "All caught up",
            "Every reply has been looked at. Make a dataset version of it.",
            "/datasets",
            "Go to Datasets",
        )
    return empty(
        "Nothing to review yet",
        "Chat with the model, or bring in a chat log on the Home page.",
        "/chat",
        "Start a chat",
    )


def _help_html() -> str:
    rows = "".join(
        f"<dt>{' '.join(f'<kbd>{key}</kbd>' for key in keys.split())}</dt><dd>{escape(what)}</dd>"
        for keys, what in HELP
    )
    return (
        '<dialog id="ts-help" aria-labelledby="ts-help-title"><h2 id="ts-help-title">Keys</h2>'
        f'<dl>{rows}</dl><form method="dialog"><button class="ts-button" autofocus>Close</button></form></dialog>'
    )
