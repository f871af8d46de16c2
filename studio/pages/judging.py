"""The part of Experiments where a curator asks a model to judge. What it thinks comes with the figures, at the end."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple

import gradio as gr

from studio.parts.guard import by_person
from studio.parts.words import badge, count, duration
from studio.services import Services
from studio.services.judging import JudgeProgress

EVERY_SECONDS = 2.0
LEAD = (
    '<p class="ts-muted">The model reads the charter’s rules and judges each pair twice, the second time with the two '
    "replies changed over. It never counts as a vote. What it thinks is shown when the experiment has ended, apart "
    "from people’s figures, with how far it agrees with them.</p>"
)


class Parts(NamedTuple):
    """The components."""

    whole: gr.Accordion
    model: gr.Dropdown
    ask: gr.Button
    halt: gr.Button
    said: gr.HTML
    timer: gr.Timer


def lay_out() -> Parts:
    """Lay out the part, for curators; hidden until there is an experiment."""
    with gr.Accordion("Ask a model to judge", open=False, visible=False, elem_id="ts-judges") as whole:
        gr.HTML(LEAD)
        model = gr.Dropdown([], label="Model", elem_id="ts-judge-model")
        with gr.Row():
            ask = gr.Button("Ask it", scale=0, min_width=140, elem_id="ts-judge-ask")
            halt = gr.Button("Stop judging", scale=0, min_width=160, visible=False, elem_id="ts-judge-halt")
        said = gr.HTML(elem_id="ts-judge-said")
    return Parts(whole, model, ask, halt, said, gr.Timer(EVERY_SECONDS, active=False))


def wire(services: Services, parts: Parts, chosen: gr.Dropdown, page: Any, **quiet: Any) -> None:
    """Let it follow the experiment that is chosen."""
    act = by_person(services, _Judges)
    shown = [parts.whole, parts.said, parts.halt, parts.timer]
    chosen.change(act(_Judges.show), chosen, shown, **quiet)
    parts.ask.click(act(_Judges.ask), [chosen, parts.model], shown, **quiet)
    parts.halt.click(act(_Judges.halt_or_go_on), chosen, shown, **quiet)
    parts.timer.tick(act(_Judges.show), chosen, shown, **quiet)
    if page is not None:
        page.load(act(_Judges.arrive), None, parts.model, **quiet)


class _Judges:
    """The handlers."""

    def __init__(self, services: Services) -> None:
        self._judging = services.judging
        self._runner = services.judge_runner
        self._experiments = services.experiments
        self._who = services.who

    def arrive(self) -> Any:
        choices = self._judging.choices() if self._who.may("curate") else []
        return gr.Dropdown(choices, value=choices[0][1] if choices else None)

    def show(self, experiment_id: str | None) -> list[Any]:
        if not experiment_id or not self._who.may("curate"):
            return [gr.Accordion(visible=False), "", gr.Button(visible=False), gr.Timer(active=False)]
        there = self._judging.progress(experiment_id)
        open_ones = [one for one in there if one.answers < one.of]
        at_work = [one for one in open_ones if not one.halted]
        ended = self._experiments.standing(experiment_id).experiment.ended_at is not None
        return [
            gr.Accordion(visible=True),
            "".join(self._line(one, ended) for one in there),
            gr.Button("Stop judging" if at_work else "Go on judging", visible=bool(open_ones)),
            gr.Timer(active=bool(at_work)),
        ]

    def ask(self, experiment_id: str, model: str) -> list[Any]:
        asked = self._judging.ask(experiment_id, model)
        self._runner.resume(self._who, asked.id)
        return self.show(experiment_id)

    def halt_or_go_on(self, experiment_id: str) -> list[Any]:
        open_ones = [one for one in self._judging.progress(experiment_id) if one.answers < one.of]
        at_work = [one for one in open_ones if not one.halted]
        for one in at_work or open_ones:
            say = self._runner.cancel if at_work else self._runner.resume
            say(self._who, one.asked.id)
        return self.show(experiment_id)

    def _line(self, one: JudgeProgress, ended: bool) -> str:
        asked, through = one.asked, one.answers >= one.of
        state = badge("done", "good") if through else badge("stopped") if one.halted else badge("judging", "busy")
        parts = [f"{one.answers} of {count(one.of, 'answer')}"]
        left = self._runner.seconds_left(asked.id)
        if not through and not one.halted and left is not None:
            parts.append(f"about {duration(left)} left")
        if one.no_verdict:
            parts.append(f"{one.no_verdict} without a verdict")
        then = ""
        if through:
            then = " Press “Show the figures”." if ended else " Shown when the experiment has ended."
        trouble = self._runner.trouble(asked.id) if not through and not one.halted else ""
        notice = f'<div class="ts-notice ts-bad" role="alert">{escape(trouble)}</div>' if trouble else ""
        width = 100 * one.answers / one.of if one.of else 0
        bar = "" if through else f'<div class="ts-progress"><i style="width:{width:.0f}%"></i></div>'
        name = f"<b>{escape(asked.judge.name)}</b>"
        return f'{notice}<p role="status">{name} {state} {", ".join(parts)}.{then}</p>{bar}'
