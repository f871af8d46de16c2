"""Compare: the same message to the base and to an adapter, blind; vote, then see who was who."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from html import escape
from typing import Any

import gradio as gr

from annotation.store.comparisons import Answer, Comparison
from annotation.types import Outcome, Provenance, Sampling
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.versus import KEYS, NAMES, VOTES, pane
from studio.parts.words import badge, count, empty
from studio.services import Services
from studio.services.compare import LivePair


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Compare")
    lead = "Two replies to the same message. Judge them blind; the names come after your vote."
    shell.title("Compare", lead, "Ask both", shell.COMPARE)
    act = by_person(services, _Ring)
    nobody = gr.HTML(visible=False)
    with gr.Column() as stage:
        with gr.Row(equal_height=True):
            adapter = gr.Dropdown([], label="Base model against", scale=3, elem_id="ts-against")
            message = gr.Textbox(
                label="Message",
                placeholder="What a customer might ask",
                lines=1,
                max_lines=5,
                scale=7,
                elem_id="ts-ask",
            )
            ask = gr.Button("Ask both", variant="primary", scale=1, min_width=110, elem_id="ts-ask-both")
        with gr.Row(equal_height=True):
            left = gr.HTML(side_html("left"), elem_id="ts-left")
            right = gr.HTML(side_html("right"), elem_id="ts-right")
        problem = gr.HTML()
        with gr.Row(visible=False, elem_id="ts-votes") as votes:
            buttons = [
                (gr.Button(f"{label}  ({key})", min_width=140, elem_id=f"ts-vote-{outcome}"), outcome)
                for label, outcome, key in VOTES
            ]
        after = gr.HTML(elem_id="ts-after")
        fix = gr.Button("Correct the better one", scale=0, min_width=220, visible=False, elem_id="ts-fix")
        gr.HTML("", js_on_load=KEYS)
        with gr.Accordion("How replies are drawn", open=False), gr.Row():
            temperature = gr.Slider(0, 1.5, 0.7, step=0.1, label="Variety", info="0 gives the same reply every time")
            length = gr.Slider(32, 512, 200, step=8, label="Longest reply", info="in tokens, about ¾ of a word each")
    # The page knows a comparison by its id alone; who is who stays on the server until the vote.
    shown = gr.Textbox(visible="hidden", label="Comparison")
    tally = gr.HTML(elem_id="ts-tally")
    desk = gr.Textbox(visible="hidden", label="At the desk")

    stream = [left, right, problem, votes, after, shown, ask, fix]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    asked = gr.on([ask.click, message.submit], act(_Ring.ask), [message, adapter, temperature, length], stream, **quiet)
    asked.then(lambda: gr.Button(interactive=True), None, ask, **quiet)
    for button, outcome in buttons:
        vote = gr.State(outcome)
        button.click(act(_Ring.vote), [shown, vote], [left, right, votes, after, tally, fix], **quiet)
    there = "(where) => { if (where) window.location.href = where; }"
    fix.click(act(_Ring.fix), shown, desk, **quiet).then(None, desk, None, js=there)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Ring.arrive), None, [nobody, stage, adapter, tally], **quiet)


class _Ring:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._compare = services.compare
        self._serving = services.serving

    def arrive(self) -> list[Any]:
        choices = [choice for choice in self._serving.choices() if choice[1] != "base"]
        waiting = gr.HTML(self._nobody(), visible=not choices)
        picked = gr.Dropdown(choices, value=choices[0][1] if choices else None)
        return [waiting, gr.Column(visible=bool(choices)), picked, tally_html(self._compare.tally())]

    def _nobody(self) -> str:
        view = self._serving.view()
        if not view.ready:
            return empty(view.label, f"{view.detail} Reload this page in a moment.")
        why = "Train an adapter first, or load one that is there. It can be compared the moment it is loaded."
        return empty("Nothing to compare with yet", why, "/training", "Go to Training")

    async def ask(self, text: str, adapter: str | None, temperature: float, length: float) -> AsyncIterator[list[Any]]:
        sampling = Sampling(temperature=temperature, max_tokens=int(length))
        hidden = gr.Row(visible=False)
        wait = gr.Button(interactive=False)
        first = True
        async for pair in self._compare.ask(text, adapter, sampling):
            if first:
                unnamed = ["", hidden, "", "", wait, gr.Button(visible=False)]
                yield [side_html("left", pair.left), side_html("right", pair.right), *unnamed]
                first = False
            if pair.comparison_id or pair.problem:
                yield self._finished(pair)
            else:
                skips = [gr.skip()] * 6
                yield [side_html("left", pair.left), side_html("right", pair.right), *skips]

    def _finished(self, pair: LivePair) -> list[Any]:
        problem = f'<div class="ts-notice ts-bad" role="alert">{escape(pair.problem)}</div>' if pair.problem else ""
        shown = f"{pair.comparison_id} {time.time():.1f}" if pair.comparison_id else ""
        return [
            side_html("left", pair.left),
            side_html("right", pair.right),
            problem,
            gr.Row(visible=bool(pair.comparison_id)),
            "",
            shown,
            gr.Button(interactive=True),
            gr.skip(),
        ]

    def vote(self, shown: str, outcome: Outcome) -> list[Any]:
        comparison_id, since = shown.split()
        comparison = self._compare.vote(comparison_id, outcome, round(max(0.0, time.time() - float(since)), 1))
        return [
            side_html("left", comparison.left.text, comparison.left, outcome == "left"),
            side_html("right", comparison.right.text, comparison.right, outcome == "right"),
            gr.Row(visible=False),
            reveal_html(comparison),
            tally_html(self._compare.tally()),
            gr.Button(visible=outcome in NAMES),
        ]

    def fix(self, shown: str) -> str:
        return f"/review?reply={self._compare.fix(shown.split()[0])}"


def side_html(side: str, text: str = "", answer: Answer | None = None, won: bool = False) -> str:
    """One pane. `answer` is given only after the vote, and names the weights."""
    if answer is None:
        return pane(side, text, "", won)
    made = answer.provenance
    who = badge(made.adapter, "good") if made.adapter else badge("base model")
    return pane(side, text, f"{who} {_sworn(made)}", won)


def _sworn(made: Provenance) -> str:
    """Whether the engine itself said so."""
    if made.attested is None:
        return badge("not confirmed by the engine", "warn")
    sha256 = made.attested.adapter_sha256 or made.attested.base_sha256
    return f'<span title="SHA-256 of the weights: {escape(sha256)}">{badge("confirmed by the engine")}</span>'


def reveal_html(comparison: Comparison) -> str:
    """What the vote said, and what becomes of it."""
    sides = {"left": comparison.left.provenance, "right": comparison.right.provenance}
    if comparison.outcome in sides:
        winner = sides[comparison.outcome].adapter
        what = f"You preferred {f'the tuned model, {winner}' if winner else 'the base model'}."
        then = "The pair goes into the next dataset version."
    elif comparison.outcome == "tie":
        what, then = "You called it even.", "A tie makes no pair."
    else:
        what, then = "You called both bad.", "Neither is learned from. Both wait for a correction at the review desk."
    return f'<div class="ts-notice ts-good" role="status"><b>{escape(what)}</b> {escape(then)}</div>'


def tally_html(tally: dict[str, int]) -> str:
    """The votes so far, in figures without a verdict: a handful of votes proves nothing."""
    votes = sum(tally.values())
    if not votes:
        return '<p class="ts-small ts-muted">No votes yet.</p>'
    return (
        f'<p class="ts-small ts-muted">{count(votes, "vote")} so far: the tuned model was preferred '
        f"{tally['tuned']} ×, the base {tally['base']} ×, about the same {tally['tie']} ×, "
        f"both bad {tally['both_bad']} ×.</p>"
    )
