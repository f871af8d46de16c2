"""Experiments: many pairs drawn beforehand, judged blind by several people, and figures that stay honest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from annotation.acts import QUESTIONS
from annotation.experiments import MOST_SIDES, BallotForm
from annotation.types import PLACES, Outcome, Question, Tag
from studio.pages import judging
from studio.parts import shell
from studio.parts.downloads import offered
from studio.parts.guard import by_person
from studio.parts.judged import judged_html
from studio.parts.results import results_html, standings_html
from studio.parts.versus import ANSWERS, ASKED, STRENGTH_KEYS, STRENGTHS, TAGS, VOTES, keys, keys_of, pane
from studio.parts.words import badge, bubbles, count, duration, empty
from studio.services import Services
from studio.services.experiments import ExperimentForm, Shown, SideForm, Standing

EVERY_SECONDS = 2.0
NOBODY = ""
"""The third and the fourth side, until somebody is chosen."""
TOLD = [("No instructions", "none"), ("The guide, from the charter", "guide"), ("Our own", "own")]
"""What a model can be told before each question."""
SETTINGS_OF_A_SIDE, FEWEST_SIDES = 4, 2
PAIR_PARTS = 8 + len(QUESTIONS)
"""Components that a pair fills."""
COSTS = (
    '<div class="ts-notice" role="alert">These figures tell who is who: once you have seen them you can\'t judge '
    "in this experiment any more. Your votes so far stay.</div>"
)


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Compare")
    lead = "The same questions to two or more models, judged blind. The names come when the experiment ends."
    shell.title("Experiments", lead, "Experiments", shell.COMPARE)
    act = by_person(services, _Lab)
    chosen = gr.Dropdown([], label="Experiment", elem_id="ts-experiment")
    standing = gr.HTML(elem_id="ts-standing")
    with gr.Column(visible=False, elem_id="ts-voting") as stage:
        asked = gr.HTML(elem_id="ts-prompt")
        with gr.Row(equal_height=True, elem_id="ts-pair"):
            left = gr.HTML(pane("left"), elem_id="ts-left", min_width=280)
            right = gr.HTML(pane("right"), elem_id="ts-right", min_width=280)
        with gr.Row():
            criteria = [
                gr.Radio(
                    list(ANSWERS),
                    label=ASKED[question],
                    info=keys_of(question, PLACES[:2]),
                    visible=False,
                    elem_id=f"ts-asked-{question}",
                )
                for question in QUESTIONS
            ]
        with gr.Row(elem_id="ts-votes"):
            buttons = [
                (gr.Button(f"{label}  ({key})", min_width=140, elem_id=f"ts-vote-{outcome}"), outcome)
                for label, outcome, key in VOTES
            ]
        with gr.Accordion("Say more", open=False, elem_id="ts-say-more"):
            with gr.Row():
                strength = gr.Radio(
                    list(STRENGTHS), value=1, label="How much better?", info=STRENGTH_KEYS, elem_id="ts-strength"
                )
                tags = gr.CheckboxGroup(TAGS, label="What is wrong with the worse one?", elem_id="ts-tags")
            comment = gr.Textbox(label="Comment", max_length=2000, lines=2, elem_id="ts-comment")
        gr.HTML("", js_on_load=keys(["strength"]))
    shown = gr.Textbox(visible="hidden", label="Pair")
    fix = gr.Button("Correct the one I called better", scale=0, min_width=240, visible=False, elem_id="ts-fix")
    voted = gr.Textbox(visible="hidden", label="Pair before")
    desk = gr.Textbox(visible="hidden", label="At the desk")
    with gr.Row():
        look = gr.Button("Show the figures", scale=0, min_width=180, visible=False, elem_id="ts-figures-show")
        sure = gr.Button("Show them: I judge no more here", scale=0, min_width=240, visible=False, elem_id="ts-sure")
        export = gr.DownloadButton("Download everything", scale=0, min_width=200, visible=False, elem_id="ts-export")
    figures = gr.HTML(elem_id="ts-figures")
    with gr.Accordion("End it, and name the sides", open=False, visible=False, elem_id="ts-ending") as ending:
        reason = gr.Textbox(label="Why now?", max_length=500, elem_id="ts-end-reason")
        with gr.Row():
            end = gr.Button("End the experiment", variant="stop", scale=0, min_width=200, elem_id="ts-end")
            halt = gr.Button("Stop writing replies", scale=0, min_width=200, visible=False, elem_id="ts-halt")
    judges = judging.lay_out()
    new = _new_form()
    with gr.Accordion("All models in one order", open=False, visible=False, elem_id="ts-standings") as every:
        order = gr.HTML()
    timer = gr.Timer(EVERY_SECONDS, active=False)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    pair = [stage, asked, left, right, *criteria, shown, strength, tags, comment]
    around = [standing, look, export, ending, halt, timer]
    chosen.input(act(_Lab.choose), chosen, [*pair, *around, figures, fix, sure], **quiet)
    for button, outcome in buttons:
        vote = gr.State(outcome)
        said = [chosen, shown, vote, strength, tags, comment, *criteria]
        button.click(act(_Lab.vote), said, [*pair, *around, fix, voted], **quiet)
    there = "(where) => { if (where) window.location.href = where; }"
    fix.click(act(_Lab.fix), voted, desk, **quiet).then(None, desk, None, js=there)
    look.click(act(_Lab.look), chosen, [figures, sure], **quiet)
    sure.click(act(_Lab.look_and_judge_no_more), chosen, [*pair, *around, figures, sure], **quiet)
    end.click(act(_Lab.end), [chosen, reason], [*pair, *around, figures, every, sure], **quiet)
    every.expand(act(_Lab.standings), None, order, **quiet)
    halt.click(act(_Lab.halt_or_go_on), [chosen, shown], around, **quiet)
    sides = [setting for side in new.sides for setting in side]
    start = [new.name, new.questions, new.criteria, new.each, new.longest, new.controls, *sides]
    new.start.click(act(_Lab.start), start, [chosen, *pair, *around, figures, new.whole, sure], **quiet)
    timer.tick(act(_Lab.tick), [chosen, shown], [*pair, *around], **quiet)
    page = gr.context.Context.root_block
    judging.wire(services, judges, chosen, page, **quiet)
    if page is not None:
        page.load(
            act(_Lab.arrive),
            None,
            [chosen, *pair, *around, new.whole, *(side[0] for side in new.sides), every],
            **quiet,
        )


class _New:
    """The components of 'New experiment'."""

    whole: gr.Accordion
    name: gr.Textbox
    sides: list[tuple[gr.Dropdown, gr.Dropdown, gr.Textbox, gr.Slider]]
    """Each with its model, what it is told, its own instructions and its variety."""
    questions: gr.Textbox
    criteria: gr.CheckboxGroup
    each: gr.Slider
    longest: gr.Slider
    controls: gr.Checkbox
    start: gr.Button


def _new_form() -> _New:
    new = _New()
    with gr.Accordion("New experiment", open=False, visible=False, elem_id="ts-new-experiment") as new.whole:
        new.name = gr.Textbox(
            label="What do you want to know?",
            placeholder="Does the tuned model keep our tone on refunds?",
            max_length=120,
            elem_id="ts-x-name",
        )
        with gr.Row():
            new.sides = [_new_side(number) for number in range(MOST_SIDES)]
        new.questions = gr.Textbox(
            label="Questions, one a line",
            info="Left empty: the requests that the newest dataset kept away from training. "
            "A line “# refunds” gives those below it a topic.",
            lines=5,
            max_lines=15,
            elem_id="ts-x-questions",
        )
        new.criteria = gr.CheckboxGroup(
            [(ASKED[question], question) for question in QUESTIONS], label="Ask also", elem_id="ts-x-criteria"
        )
        with gr.Row():
            new.each = gr.Slider(1, 5, 1, step=1, label="People for each pair", elem_id="ts-x-each")
            new.longest = gr.Slider(
                16, 512, 200, step=8, label="Longest reply", info="in tokens, about ¾ of a word each"
            )
        new.controls = gr.Checkbox(
            True,
            label="Mix in checks on ourselves",
            info="Now and then the same model twice, or a pair again: they show how far votes can be trusted.",
        )
        new.start = gr.Button("Start", variant="primary", scale=0, min_width=140, elem_id="ts-x-start")
    return new


def _new_side(number: int) -> tuple[gr.Dropdown, gr.Dropdown, gr.Textbox, gr.Slider]:
    which = ("first", "second", "third", "fourth")[number]
    with gr.Column(min_width=240):
        model = gr.Dropdown([], label=f"{which.capitalize()} model", elem_id=f"ts-x-side-{number}")
        told = gr.Dropdown(TOLD, value="none", label=f"What the {which} is told", elem_id=f"ts-x-told-{number}")
        own = gr.Textbox(
            label=f"Instructions of the {which}", lines=3, max_lines=8, visible=False, elem_id=f"ts-x-own-{number}"
        )
        variety = gr.Slider(
            0,
            1.5,
            0.7,
            step=0.1,
            label=f"Variety of the {which}",
            info="0 gives the same reply every time",
            elem_id=f"ts-x-variety-{number}",
        )
    told.change(lambda what: gr.Textbox(visible=what == "own"), told, own, show_progress="hidden", api_name=False)
    return model, told, own, variety


class _Lab:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._experiments = services.experiments
        self._drawing = services.drawing
        self._curates = services.who.may("curate")

    def arrive(self) -> list[Any]:
        there = self._experiments.all()
        newest = next((one.id for one in there if not one.ended_at), there[0].id if there else None)
        models = self._services.serving.choices() if self._curates else []
        rest: list[Any] = [gr.Accordion(visible=self._curates, open=self._curates and not there)]
        for number in range(MOST_SIDES):
            nobody = [("Nobody", NOBODY)] if number >= FEWEST_SIDES else []
            first = models[min(number, len(models) - 1)][1] if models and not nobody else NOBODY
            rest.append(gr.Dropdown([*nobody, *models], value=first if models else None))
        rest.append(gr.Accordion(visible=any(one.ended_at for one in there)))
        return [self._list(newest), *self._all(newest), *rest]

    def choose(self, experiment_id: str | None) -> list[Any]:
        return [*self._all(experiment_id), "", gr.Button(visible=False), gr.Button(visible=False)]

    def start(
        self,
        name: str,
        questions: str,
        criteria: list[Question],
        each: float,
        longest: float,
        controls: bool,
        *chosen: Any,
    ) -> list[Any]:
        form = ExperimentForm(
            name=name,
            sides=_sides(chosen),
            prompts=questions,
            criteria=tuple(criteria),
            votes_each=int(each),
            longest=int(longest),
            controls=controls,
        )
        made = self._experiments.start(form)
        self._drawing.start()
        return [self._list(made.id), *self._all(made.id), "", gr.Accordion(open=False), gr.Button(visible=False)]

    def vote(
        self,
        experiment_id: str,
        shown: str,
        outcome: Outcome,
        strength: int,
        tags: list[Tag],
        comment: str,
        *criteria: Outcome | None,
    ) -> list[Any]:
        pair_id, since = shown.split()
        answers = {question: said for question, said in zip(QUESTIONS, criteria, strict=True) if said}
        seconds = round(max(0.0, time.time() - float(since)), 1)
        form = BallotForm.model_validate(
            {
                "outcome": outcome,
                "strength": strength,
                "criteria": answers,
                "tags": tuple(tags),
                "comment": comment.strip(),
                "seconds": seconds,
            }
        )
        self._experiments.vote(pair_id, form)
        return [*self._all(experiment_id), gr.Button(visible=outcome in ("left", "right")), pair_id]

    def fix(self, voted: str) -> str:
        return f"/review?reply={self._experiments.fix(voted)}"

    def tick(self, experiment_id: str | None, shown: str) -> list[Any]:
        """While replies are written: how far that is, and the first pair as soon as there is one."""
        if not shown:
            return self._all(experiment_id)
        return [*[gr.skip()] * PAIR_PARTS, *self._around(experiment_id, on_stage=True)]

    def look(self, experiment_id: str) -> list[Any]:
        """The figures, or first what seeing them costs."""
        costs = self._experiments.costs_judging(experiment_id)
        return [COSTS if costs else self._figures(experiment_id), gr.Button(visible=costs)]

    def look_and_judge_no_more(self, experiment_id: str) -> list[Any]:
        figures = self._figures(experiment_id, judge_no_more=True)
        return [*self._all(experiment_id), figures, gr.Button(visible=False)]

    def _figures(self, experiment_id: str, judge_no_more: bool = False) -> str:
        # statsmodels takes seconds to import; the page is laid out without it.
        from studio.services.judged import all_judged
        from studio.services.results import results_of

        votes = self._experiments.votes(experiment_id, judge_no_more)
        judges = self._services.judging.verdicts(experiment_id) if votes[0].ended_at else []
        return results_html(results_of(*votes, self._services.settings.prices)) + judged_html(
            all_judged(*votes, judges)
        )

    def end(self, experiment_id: str, reason: str) -> list[Any]:
        self._experiments.end(experiment_id, reason)
        every, sure = gr.Accordion(visible=True, open=False), gr.Button(visible=False)
        return [*self._all(experiment_id), self._figures(experiment_id), every, sure]

    def standings(self) -> str:
        # As for `_figures`.
        from studio.services.standings import standings_of

        return standings_html(standings_of(self._experiments.ended()))

    def halt_or_go_on(self, experiment_id: str, shown: str) -> list[Any]:
        if self._drawing.halted(experiment_id):
            self._drawing.resume(self._services.who, experiment_id)
        else:
            self._drawing.cancel(self._services.who, experiment_id)
        return self._around(experiment_id, on_stage=bool(shown))

    def _list(self, chosen: str | None) -> Any:
        there = self._experiments.all()
        choices = [(f"{one.design.name}{' (ended)' if one.ended_at else ''}", one.id) for one in there]
        return gr.Dropdown(choices, value=chosen, visible=bool(choices))

    def _all(self, experiment_id: str | None) -> list[Any]:
        """The next pair, and what stands around it."""
        shown = self._next(experiment_id)
        return [*self._pair(shown), *self._around(experiment_id, on_stage=shown is not None)]

    def _pair(self, shown: Shown | None) -> list[Any]:
        nothing = [gr.Radio(value=1), [], ""]
        if shown is None:
            radios = [gr.Radio(visible=False, value=None) for _ in QUESTIONS]
            return [gr.Column(visible=False), "", pane("left"), pane("right"), *radios, "", *nothing]
        radios = [gr.Radio(visible=question in shown.criteria, value=None) for question in QUESTIONS]
        return [
            gr.Column(visible=True),
            _asked_html(shown),
            pane("left", shown.left),
            pane("right", shown.right),
            *radios,
            f"{shown.pair_id} {time.time():.1f}",
            *nothing,
        ]

    def _next(self, experiment_id: str | None) -> Shown | None:
        if not experiment_id or not self._services.who.may("judge"):
            return None
        return self._experiments.next(experiment_id)

    def _around(self, experiment_id: str | None, on_stage: bool) -> list[Any]:
        """`on_stage` says whether there is a pair for this person to judge."""
        if not experiment_id:
            text = "A curator sets one up: which models, which questions." if not self._curates else "Set one up below."
            hidden = [gr.Button(visible=False), gr.DownloadButton(visible=False), gr.Accordion(visible=False)]
            return [empty("No experiment yet", text), *hidden, gr.Button(visible=False), gr.Timer(active=False)]
        standing = self._experiments.standing(experiment_id)
        ended = standing.experiment.ended_at is not None
        lacking = standing.drawn < standing.planned and not ended
        halted = self._drawing.halted(experiment_id)
        return [
            self._standing_html(standing, halted, on_stage),
            gr.Button(visible=ended or (self._curates and standing.ballots > 0)),
            gr.DownloadButton(value=self._file(experiment_id), visible=True)
            if ended
            else gr.DownloadButton(visible=False),
            gr.Accordion(visible=self._curates and not ended),
            gr.Button("Go on writing replies" if halted else "Stop writing replies", visible=lacking),
            gr.Timer(active=lacking and not halted),
        ]

    def _file(self, experiment_id: str) -> str:
        """All of an ended experiment, there before the button is pressed: it downloads what it has by then."""
        lines = self._experiments.export(experiment_id)
        return offered(f"experiment-{experiment_id[:8]}.jsonl", "\n".join(lines) + "\n")

    def _standing_html(self, standing: Standing, halted: bool, on_stage: bool) -> str:
        experiment = standing.experiment
        votes = f"{count(standing.ballots, 'vote')} by {count(standing.voters, 'person', 'people')}"
        if experiment.ended_at:
            why = f": {escape(experiment.reason)}" if experiment.reason else "."
            return f'<p role="status">{badge("ended")} {votes}. {escape(experiment.ended_by or "")} ended it{why}</p>'
        parts = [f"{votes}."]
        view = self._drawing.view()
        if standing.drawn < standing.planned:
            left = ""
            if view.experiment_id == experiment.id and view.eta_seconds is not None:
                left = f", about {duration(view.eta_seconds)} left"
            state = "Stopped at" if halted else "The models are writing:"
            parts.append(f"{state} {standing.drawn} of {count(standing.planned, 'pair')}{left}.")
        if self._services.who.may("judge") and not on_stage and standing.drawn:
            seen = not self._experiments.costs_judging(experiment.id)
            parts.append(
                "You have seen the figures, so what is left is for others to judge."
                if seen
                else "There is nothing left for you to judge here."
            )
        for reason, number in standing.not_dealt.items():
            parts.append(f"{count(number, 'pair')} left aside. {escape(reason)}")
        trouble = ""
        if view.trouble and standing.drawn < standing.planned and not halted:
            # The reason may name a side, and who judges should not know whose replies these are.
            why = view.trouble if self._curates else "Replies can't be written just now; a curator sees here why."
            trouble = f'<div class="ts-notice ts-bad" role="alert">{escape(why)} It goes on by itself.</div>'
        width = 100 * standing.drawn / standing.planned
        bar = f'<div class="ts-progress"><i style="width:{width:.0f}%"></i></div>' if width < 100 else ""
        return f'{trouble}<p role="status">{" ".join(parts)}</p>{bar}'


def _sides(chosen: Sequence[Any]) -> tuple[SideForm, ...]:
    """Those for whom a model is chosen, out of the settings of all."""
    each = [chosen[start : start + SETTINGS_OF_A_SIDE] for start in range(0, len(chosen), SETTINGS_OF_A_SIDE)]
    return tuple(
        SideForm(model=model, guide=told == "guide", own=own if told == "own" else None, temperature=variety)
        for model, told, own, variety in each
        if model
    )


def _asked_html(shown: Shown) -> str:
    place = f'<p class="ts-small ts-muted">Number {shown.done + 1} of {shown.of} for you</p>'
    return place + bubbles([message for message in shown.prompt if message.role != "system"])
