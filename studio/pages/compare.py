"""Compare: the same words to two to four sides, blind; vote, then see who was who."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from annotation.acts import QUESTIONS
from annotation.errors import Conflict, UserError
from annotation.experiments import MOST_SIDES
from annotation.store.comparisons import VoteForm
from annotation.types import PLACES, Pick, Place, Strength, Tag, Turn
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.reveal import diff_of_all_html, problem_html, reveal_html, revealed, tally_html
from studio.parts.versus import (
    AMONG_MORE,
    ASKED,
    MORE_VOTES,
    STRENGTH_KEYS,
    STRENGTHS,
    TAGS,
    VOTES,
    answers_among,
    keys,
    keys_of,
    pane,
)
from studio.parts.words import bubbles, empty
from studio.services import Services
from studio.services.compare import LiveRound, RoundForm, SideOf

NOBODY = ""
"""The third and the fourth side, until somebody is chosen."""
INSTRUCTIONS = [("No instructions", "none"), ("The charter", "charter"), ("My own", "own")]
SETTINGS_OF_A_SIDE = 4
CAME = "() => new URLSearchParams(window.location.search).get('after') || ''"
"""Out of the address: the turn of a stored conversation to begin at."""
ALONE = (
    "Train an adapter first, or load one that is there: it can be compared the moment it is loaded. Meanwhile you can "
    "see what instructions do: tell one side the charter, under 'More models, instructions'."
)


@dataclass
class _Side:
    """What a side is chosen with."""

    model: gr.Dropdown
    instructions: gr.Dropdown
    own: gr.Textbox
    variety: gr.Slider

    def all(self) -> list[Any]:
        return [self.model, self.instructions, self.own, self.variety]


@dataclass
class _Stage:
    """What a round fills: the replies, and what can be said about them."""

    panes: list[gr.HTML]
    problem: gr.HTML
    votes: gr.Row
    buttons: list[tuple[gr.Button, Pick]]
    more: gr.Accordion
    criteria: list[gr.Radio]
    strength: gr.Radio
    tags: gr.CheckboxGroup
    comment: gr.Textbox
    on: gr.Row
    go_on: gr.Button
    again: gr.Button
    after: gr.HTML
    fix: gr.Button

    def outputs(self) -> list[Any]:
        """In the order of `_Ring.filled`."""
        form = [*self.criteria, self.strength, self.tags, self.comment]
        buttons = [button for button, _ in self.buttons]
        return [*self.panes, self.problem, self.votes, *buttons, self.more, *form, self.on, self.after, self.fix]


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Compare")
    lead = "Replies of two or more models to the same message. Judge them blind; the names come after your vote."
    shell.title("Compare", lead, "Ask both", shell.COMPARE)
    act = by_person(services, _Ring)
    nobody = gr.HTML(visible=False)
    with gr.Column(visible=False) as whole:  # until it is known who can be asked
        with gr.Column(visible=False, elem_id="ts-before") as before:
            with gr.Row(equal_height=True):
                place = gr.Dropdown([], label="Begin in this conversation", scale=4, elem_id="ts-begin")
                anew = gr.Button("Begin without it", scale=0, min_width=180, elem_id="ts-anew")
            history = gr.HTML(elem_id="ts-history")
        with gr.Row(equal_height=True):
            first = gr.Dropdown([], label="First model", scale=3, elem_id="ts-side-0")
            second = gr.Dropdown([], label="Against", scale=3, elem_id="ts-against")
            message = gr.Textbox(
                label="Message",
                placeholder="What a customer might ask",
                lines=1,
                max_lines=5,
                scale=7,
                elem_id="ts-ask",
            )
            ask = gr.Button("Ask", variant="primary", scale=1, min_width=110, elem_id="ts-ask-both")
        sides, longest, seed = _drawn([first, second])
        stage = _stage()
    # The page knows a comparison by its id alone; who is who stays on the server until the vote.
    shown = gr.Textbox(visible="hidden", label="Comparison")
    tally = gr.HTML(elem_id="ts-tally")
    desk = gr.Textbox(visible="hidden", label="At the desk")
    after = gr.Textbox(visible="hidden", label="Goes on from")
    came = gr.Textbox(visible="hidden", label="Came from")

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    chosen = [setting for side in sides for setting in side.all()]
    filled = [*stage.outputs(), shown, ask]
    # Only once the page knows which comparison it is, so that no vote can be pressed without.
    ready = {"fn": act(_Ring.ready), "inputs": shown, "outputs": [*stage.outputs()[len(PLACES) + 1 :], ask], **quiet}
    asking = [message, after, longest, seed, *chosen]
    gr.on([ask.click, message.submit], act(_Ring.ask), asking, filled, **quiet).then(**ready)
    stage.go_on.click(act(_Ring.go_on), [shown, message], filled, **quiet).then(**ready)
    stage.again.click(act(_Ring.again), shown, filled, **quiet).then(**ready)
    for button, outcome in stage.buttons:
        said = [shown, gr.State(outcome), stage.strength, stage.tags, stage.comment, *stage.criteria]
        button.click(act(_Ring.vote), said, [*stage.outputs(), tally], **quiet)
    there = "(where) => { if (where) window.location.href = where; }"
    stage.fix.click(act(_Ring.fix), shown, desk, **quiet).then(None, desk, None, js=there)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Ring.arrive), None, [nobody, whole, *(side.model for side in sides), tally], **quiet)
        begun = [before, place, history, message, after]
        page.load(act(_Ring.begin), came, begun, js=CAME, **quiet)
        place.input(act(_Ring.begin), place, begun, **quiet)
        anew.click(act(_Ring.anew), None, begun, **quiet)


def _drawn(first_two: list[gr.Dropdown]) -> tuple[list[_Side], gr.Slider, gr.Textbox]:
    """What each side is given, and how its replies are drawn."""
    sides = []
    with gr.Accordion("More models, instructions, and how replies are drawn", open=False, elem_id="ts-drawn"):
        with gr.Row():
            for number in range(MOST_SIDES):
                with gr.Column(min_width=240):
                    model = (
                        first_two[number]
                        if number < len(first_two)
                        else gr.Dropdown(
                            [], label=f"{('Third', 'Fourth')[number - 2]} model", elem_id=f"ts-side-{number}"
                        )
                    )
                    told = gr.Dropdown(
                        INSTRUCTIONS,
                        value="none",
                        label=f"What the {('first', 'second', 'third', 'fourth')[number]} is told beforehand",
                        elem_id=f"ts-told-{number}",
                    )
                    own = gr.Textbox(label="My instructions", lines=3, visible=False, elem_id=f"ts-own-{number}")
                    variety = gr.Slider(
                        0, 1.5, 0.7, step=0.1, label="Variety", info="0 gives the same reply every time"
                    )
                told.change(
                    lambda what: gr.Textbox(visible=what == "own"), told, own, show_progress="hidden", api_name=False
                )
                sides.append(_Side(model, told, own, variety))
        with gr.Row():
            longest = gr.Slider(32, 512, 200, step=8, label="Longest reply", info="in tokens, about ¾ of a word each")
            seed = gr.Textbox(
                "",
                label="Seed",
                info="A whole number draws the same replies again; nothing draws others each time",
                max_length=12,
                elem_id="ts-seed",
            )
    return sides, longest, seed


def _stage() -> _Stage:
    with gr.Row(equal_height=True, elem_id="ts-sides"):
        panes = [
            gr.HTML(pane(place), visible=number < 2, elem_id=f"ts-{place}", min_width=280)
            for number, place in enumerate(PLACES)
        ]
    problem = gr.HTML(elem_id="ts-problem")
    with gr.Accordion("Say more than which is better", open=False, visible=False, elem_id="ts-say-more") as more:
        with gr.Row():
            criteria = [
                gr.Radio(
                    answers_among(PLACES[:2]),
                    label=ASKED[question],
                    info=keys_of(question, PLACES[:2]),
                    elem_id=f"ts-asked-{question}",
                )
                for question in QUESTIONS
            ]
        with gr.Row():
            strength = gr.Radio(
                list(STRENGTHS), value=1, label="How much better?", info=STRENGTH_KEYS, elem_id="ts-strength"
            )
            tags = gr.CheckboxGroup(TAGS, label="What is wrong with the worse one?", elem_id="ts-tags")
        comment = gr.Textbox(label="Comment", max_length=2000, lines=2, elem_id="ts-comment")
    with gr.Row(visible=False, elem_id="ts-votes") as votes:
        buttons: list[tuple[gr.Button, Pick]] = [
            (gr.Button(f"{label}  ({key})", min_width=140, elem_id=f"ts-vote-{outcome}"), outcome)
            for label, outcome, key in (*VOTES, *MORE_VOTES)
        ]
    with gr.Row(visible=False, elem_id="ts-on") as on:
        go_on = gr.Button("Say the message to all", scale=0, min_width=260, elem_id="ts-go-on")
        again = gr.Button("Draw the replies again", scale=0, min_width=220, elem_id="ts-again")
    after = gr.HTML(elem_id="ts-after")
    fix = gr.Button("Correct the better one", scale=0, min_width=220, visible=False, elem_id="ts-fix")
    gr.HTML("", js_on_load=keys([*(f"asked-{question}" for question in QUESTIONS), "strength"]))
    return _Stage(panes, problem, votes, buttons, more, criteria, strength, tags, comment, on, go_on, again, after, fix)


class _Ring:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._compare = services.compare
        self._serving = services.serving

    def arrive(self) -> list[Any]:
        view, found = self._serving.view(), self._serving.choices()
        choices = [("Base model" if name == "base" and view.adapters else label, name) for label, name in found]
        note, lone = shell.comparing_only(view), len(choices) < 2
        if not view.ready:
            note = empty(view.label, f"{view.detail} Reload this page in a moment.")
        elif not note and lone:
            note = empty("Only the base model can answer yet", ALONE, "/training", "Go to Training")
        two = [gr.Dropdown(choices, value="base"), gr.Dropdown(choices, value=choices[min(1, len(choices) - 1)][1])]
        more = [gr.Dropdown([("Nobody", NOBODY), *choices], value=NOBODY) for _ in range(2, MOST_SIDES)]
        tally = tally_html(self._compare.tally())
        return [gr.HTML(note, visible=bool(note)), gr.Column(visible=view.ready), *two, *more, tally]

    def begin(self, turn_id: str | None) -> list[Any]:
        """What was said before, the same for all sides, and what was asked there."""
        if not turn_id:
            return [gr.skip()] * 5
        starts = self._compare.starts(turn_id)
        start = next((one for one in starts if one.turn == turn_id), starts[-1])
        choices = gr.Dropdown([(one.label, one.turn) for one in starts], value=start.turn)
        said = before_html(start.before)
        return [gr.Column(visible=True), choices, said, start.text, start.after]

    def anew(self) -> list[Any]:
        return [gr.Column(visible=False), gr.Dropdown([], value=None), "", gr.skip(), ""]

    async def ask(self, text: str, after: str, longest: float, seed: str, *chosen: Any) -> AsyncIterator[list[Any]]:
        each = [chosen[start : start + SETTINGS_OF_A_SIDE] for start in range(0, len(chosen), SETTINGS_OF_A_SIDE)]
        sides = tuple(
            SideOf(model=model, instructions=told, own=own if told == "own" else "", temperature=variety)
            for model, told, own, variety in each
            if model
        )
        form = RoundForm(sides=sides, longest=int(longest), seed=_number(seed))
        async for found in self._streamed(self._compare.ask(text, form, after)):
            yield found

    async def go_on(self, shown: str, text: str) -> AsyncIterator[list[Any]]:
        async for found in self._streamed(self._compare.go_on(_kept(shown)[0], text)):
            yield found

    async def again(self, shown: str) -> AsyncIterator[list[Any]]:
        async for found in self._streamed(self._compare.again(_kept(shown)[0])):
            yield found

    async def _streamed(self, lives: AsyncIterator[LiveRound]) -> AsyncIterator[list[Any]]:
        first = True
        async for live in lives:
            panes = _live_panes(live)
            skipped = [gr.skip()] * (len(filled(panes)) - len(panes))
            if live.comparison_id or live.problem:
                shown = f"{live.comparison_id} {time.time():.1f}" if live.comparison_id else ""
                problem = problem_html(live.problem) if live.problem else ""
                yield [*filled(panes, problem=problem), shown, gr.skip()]
            elif first:
                yield [*filled(panes), "", gr.Button(interactive=False)]
            else:
                yield [*panes, *skipped, gr.skip(), gr.skip()]
            first = False

    def ready(self, shown: str) -> list[Any]:
        """What can be said about the replies, and that something can be asked again."""
        try:
            places, on = (self._compare.places(_kept(shown)[0]), True) if shown else ((), False)
        except Conflict:  # no longer blind; the problem that stands there says why
            places, on = (), False
        return [*filled((), places=places, on=on)[1:], gr.Button(interactive=True)]

    def vote(
        self, shown: str, outcome: Pick, strength: Strength, tags: list[Tag], comment: str, *criteria: Pick | None
    ) -> list[Any]:
        comparison_id, since = _kept(shown)
        said = {question: given for question, given in zip(QUESTIONS, criteria, strict=True) if given}
        form = VoteForm(
            outcome=outcome,
            strength=strength,
            criteria=said,
            tags=tuple(tags),
            comment=comment,
            seconds=round(max(0.0, time.time() - since), 1),
        )
        comparison = self._compare.vote(comparison_id, form)
        panes = [*(gr.HTML(html) for html in revealed(comparison)), *_hidden(len(comparison.answers))]
        after = reveal_html(comparison) + diff_of_all_html(comparison)
        return [
            *filled(panes, after=after, fix=outcome in comparison.answers),
            tally_html(self._compare.tally()),
        ]

    def fix(self, shown: str) -> str:
        return f"/review?reply={self._compare.fix(_kept(shown)[0])}"


def before_html(before: Sequence[Turn]) -> str:
    """What all sides go on from."""
    if not before:
        return '<p class="ts-small ts-muted">This is the beginning: nothing was said before.</p>'
    lead = '<p class="ts-small ts-muted">All sides are given this, and answer your message below it.</p>'
    return f'{lead}<div class="ts-before" tabindex="0" role="group" aria-label="Said before">{bubbles(before)}</div>'


def filled(
    panes: Sequence[Any],
    *,
    problem: str = "",
    places: Sequence[Place] = (),
    on: bool = False,
    after: str = "",
    fix: bool = False,
) -> list[Any]:
    """What `_Stage.outputs` show. `places`: where there are replies to vote on; none while there is nothing to."""
    voting, many = bool(places), len(places) > 2
    buttons = [
        gr.Button(f"{AMONG_MORE[outcome] if many else label}  ({key})", visible=True) for label, outcome, key in VOTES
    ]
    buttons += [gr.Button(visible=outcome in places) for _, outcome, _ in MORE_VOTES]
    among = places or PLACES[:2]
    radios = [gr.Radio(answers_among(among), value=None, info=keys_of(one, among)) for one in QUESTIONS]
    return [
        *panes,
        problem,
        gr.Row(visible=voting),
        *buttons,
        gr.Accordion(visible=voting, open=False),
        *radios,
        gr.Radio(value=1),
        [],
        "",
        gr.Row(visible=on),
        after,
        gr.Button(visible=fix),
    ]


def _kept(shown: str) -> tuple[str, float]:
    """The comparison on the page, and when it was whole, in seconds since the epoch."""
    if not shown:
        raise UserError("The replies are still coming.", do="Wait until the answers appear below them.")
    comparison_id, since = shown.split()
    return comparison_id, float(since)


def _number(seed: str) -> int | None:
    try:
        return int(seed) if seed.strip() else None
    except ValueError:
        raise UserError(f"The seed is '{seed}'.", "A whole number, or nothing.", "Correct it, or clear it.") from None


def _live_panes(live: LiveRound) -> list[Any]:
    count = len(live.texts)
    return [
        *(
            gr.HTML(
                pane(place, text, sides=count, before=list(zip(earlier, live.asked[1:], strict=False))), visible=True
            )
            for place, text, earlier in zip(PLACES, live.texts, live.earlier, strict=False)
        ),
        *_hidden(count),
    ]


def _hidden(after: int) -> list[Any]:
    return [gr.HTML(visible=False) for _ in PLACES[after:]]
