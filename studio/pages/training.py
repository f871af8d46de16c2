"""Training: pick a version and a preset, start, watch it move, cancel; and which adapters the engine holds."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr
import pandas as pd

from annotation.errors import UserError
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.words import ago, badge, count, duration, empty, table
from studio.services import Services
from studio.services.engine_view import AdapterView
from studio.services.training import RunView
from training.types import RunResult

TONES = {"queued": "busy", "running": "busy", "succeeded": "good", "failed": "bad", "cancelled": "warn"}
POLL_SECONDS = 1.0
SMOOTH = 7
"""Steps in the moving mean beside the raw loss."""


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Training")
    shell.title("Training", "Teach the model what the reviewers decided. A run goes on when you close this page.")
    gym = _Gym(services)
    act = by_person(services, _Gym)
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            version = gr.Dropdown([], label="Learn from", elem_id="ts-train-version")
            preset = gr.Radio(gym.presets(), value=gym.first_preset(), label="How long", elem_id="ts-preset")
            about = gr.HTML(gym.about(gym.first_preset()))
            steps = gr.Textbox(
                label="End early, after so many steps",
                placeholder="All of them",
                info="A dozen are enough for a first try.",
                max_lines=1,
                elem_id="ts-steps",
            )
            start = gr.Button("Start training", variant="primary", elem_id="ts-start")
        with gr.Column(scale=8, min_width=320):
            run = gr.Dropdown([], label="Run", elem_id="ts-run")
            state = gr.HTML(elem_id="ts-run-state")
            loss = gr.LinePlot(
                pd.DataFrame({"step": [], "loss": [], "line": []}),
                x="step",
                y="loss",
                color="line",
                color_map={"loss": "#b3d6cb", f"mean of {SMOOTH}": "#256657"},
                x_title="Step",
                y_title="Loss",
                height=230,
                visible=False,
                show_label=False,
                label="Loss by step",
                elem_id="ts-loss",
            )
            with gr.Row():
                cancel = gr.Button("Cancel this run", visible=False, elem_id="ts-cancel")
                resume = gr.Button("Go on from the last checkpoint", visible=False, elem_id="ts-resume")
    gr.HTML(
        '<h2 class="ts-h2">Adapters</h2><p class="ts-muted ts-small">What the runs made. '
        "A loaded one can be chatted with and compared at once.</p>"
    )
    adapters = gr.HTML(elem_id="ts-adapters")
    with gr.Row(visible=False, equal_height=True) as shelf:
        adapter = gr.Dropdown([], label="Adapter", scale=4, elem_id="ts-adapter")
        load = gr.Button("Load", scale=1, min_width=110, elem_id="ts-load")
        unload = gr.Button("Unload", scale=1, min_width=110, elem_id="ts-unload")

    seen = gr.State("")
    live = [state, loss, cancel, resume, adapters, seen]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    preset.change(gym.about, preset, about, queue=False, **quiet)
    start.click(act(_Gym.start), [version, preset, steps], [run, *live], api_name=False)
    cancel.click(act(_Gym.cancel), run, live, **quiet)
    resume.click(act(_Gym.resume), run, live, **quiet)
    run.input(act(_Gym.watch), run, live, **quiet)
    load.click(act(_Gym.load), adapter, [adapters], api_name=False)
    unload.click(act(_Gym.unload), adapter, [adapters], api_name=False)
    adapters.change(act(_Gym.shelf), adapter, [adapter, shelf], **quiet)
    gr.Timer(POLL_SECONDS).tick(act(_Gym.follow), [run, seen], live, queue=False, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Gym.arrive), None, [version, run, *live], **quiet)


class _Gym:
    """The page's handlers. The state of a run is read from its folder each time, so nothing here can go stale."""

    def __init__(self, services: Services) -> None:
        self._training = services.training
        self._serving = services.serving
        self._who = services.who
        self._datasets = services.datasets

    def presets(self) -> list[tuple[str, str]]:
        return [(preset.title, preset.name) for preset in self._training.presets()]

    def first_preset(self) -> str:
        return self._training.presets()[0].name

    def about(self, name: str) -> str:
        preset = next(preset for preset in self._training.presets() if preset.name == name)
        return f'<p class="ts-small ts-muted">{escape(preset.about)}</p>'

    def arrive(self) -> list[Any]:
        versions = [
            (f"Version {version.number} · {count(version.rows['sft'], 'row')} · {ago(version.made_at)}", version.id)
            for version in self._datasets.all()
        ]
        runs = self._runs()
        newest = runs[0] if runs else None
        return [
            gr.Dropdown(versions, value=versions[0][1] if versions else None),
            gr.Dropdown(runs, value=newest, visible=bool(runs)),
            *self.watch(newest),
        ]

    def start(self, version_id: str | None, preset: str, steps: str) -> list[Any]:
        newest = next((version.id for version in self._datasets.all()), None)  # pressed before the list was there
        started = self._training.start(version_id or newest, preset, max_steps=steps_of(steps))
        return [gr.Dropdown(self._runs(), value=started, visible=True), *self.watch(started)]

    def cancel(self, run_id: str) -> list[Any]:
        self._training.cancel(run_id)
        return self.watch(run_id)

    def resume(self, run_id: str) -> list[Any]:
        self._training.resume(run_id)
        return self.watch(run_id)

    def load(self, name: str | None) -> str:
        self._serving.load(name or "", self._who)
        return adapters_html(self._serving.adapters())

    def unload(self, name: str | None) -> str:
        self._serving.unload(name or "", self._who)
        return adapters_html(self._serving.adapters())

    def shelf(self, chosen: str | None) -> list[Any]:
        """What can be loaded and unloaded; the choice stays where it can."""
        names = [view.name for view in self._serving.adapters()]
        kept = chosen if chosen in names else next(iter(names), None)
        return [gr.Dropdown(names, value=kept), gr.Row(visible=bool(names))]

    def watch(self, run_id: str | None) -> list[Any]:
        """The run as it stands."""
        adapters = adapters_html(self._serving.adapters())
        if not run_id:
            hidden = gr.Button(visible=False)
            nothing = empty(
                "No run yet", "Pick a dataset version and press ‘Start training’. The quick one takes a few minutes."
            )
            return [nothing, gr.LinePlot(visible=False), hidden, hidden, adapters, ""]
        view = self._training.view(run_id)
        frame = loss_frame(view)
        return [
            run_html(view),
            gr.LinePlot(frame, visible=len(frame) > 0),
            gr.Button(visible=view.state.status in ("queued", "running")),
            gr.Button(visible=view.can_resume),
            adapters,
            self._mark(view, adapters),
        ]

    def follow(self, run_id: str | None, seen: str) -> list[Any]:
        """As `watch`, but nothing is sent to the page where nothing moved."""
        adapters = adapters_html(self._serving.adapters())
        if run_id and self._mark(self._training.view(run_id), adapters) != seen:
            return self.watch(run_id)
        return [gr.skip()] * 4 + [adapters if not run_id else gr.skip(), gr.skip()]

    def _mark(self, view: RunView, adapters: str) -> str:
        return f"{view.state.model_dump_json()} {hash(adapters)}"

    def _runs(self) -> list[str]:
        return [view.id for view in self._training.all()]  # their state would grow old in a list; it stands below


def steps_of(text: str) -> int | None:
    """The number of steps that somebody wrote; None for none. Raises UserError for what is no such number."""
    text = text.strip()
    if text and not (text.isdecimal() and int(text)):
        raise UserError(f"'{text}' is no number of steps.", "A whole number from 1 on, or nothing.", "Put it right.")
    return int(text) if text else None


def loss_frame(view: RunView) -> pd.DataFrame:
    """The loss by step, raw and as a moving mean, one row a point."""
    points = pd.DataFrame([(point.step, point.loss) for point in view.metrics], columns=["step", "loss"])
    mean = points.assign(loss=points["loss"].rolling(SMOOTH, min_periods=1).mean(), line=f"mean of {SMOOTH}")
    return pd.concat([points.assign(line="loss"), mean])


def run_html(view: RunView) -> str:
    """A run in words and figures."""
    state = view.state
    share = state.step / state.of_steps if state.of_steps else 0.0
    facts = [
        ("Step", f"{state.step} of {state.of_steps}" if state.of_steps else "–"),
        ("Loss", f"{state.loss:.3f}" if state.loss is not None else "–"),
        ("Tokens a second", f"{state.tokens_per_second:,.0f}" if state.tokens_per_second else "–"),
        ("Time left", duration(state.eta_seconds) if state.status == "running" else "–"),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    message = f'<p role="status">{escape(state.message)}</p>' if state.message else ""
    proof = proof_html(state.result) if state.result else ""
    return (
        f'<div class="ts-card"><p>{badge(state.status, TONES[state.status])} '
        f'<span class="ts-small ts-muted">{escape(view.about)}</span></p>{message}'
        f'<div class="ts-progress" role="progressbar" aria-label="Steps done" aria-valuenow="{round(100 * share)}" '
        f'aria-valuemin="0" aria-valuemax="100"><i style="width:{100 * share:.1f}%"></i></div>'
        f'<dl class="ts-facts">{cells}</dl>{proof}</div>'
    )


def proof_html(result: RunResult) -> str:
    """What was really trained, so that 'succeeded' can be believed."""
    dropped = sum(result.rows_dropped.values())
    why = "; ".join(f"{number} × {reason}" for reason, number in result.rows_dropped.items())
    loss = (
        f" Loss went from {result.first_loss:.2f} to {result.last_loss:.2f}."
        if result.first_loss and result.last_loss
        else ""
    )
    return (
        f'<p class="ts-small ts-muted" id="ts-proof">{count(result.rows_in, "row")} in, '
        f"{result.rows_trained:,} trained, {result.rows_truncated:,} shortened, "
        f"{dropped:,} left out{f' ({escape(why)})' if why else ''}. "
        f"{result.tokens_with_loss:,} tokens were learned from, in {duration(result.seconds)}.{loss}</p>"
    )


def adapters_html(views: list[AdapterView]) -> str:
    """All adapters, the loaded ones marked."""
    if not views:
        return '<p class="ts-muted">None yet: the first run makes one.</p>'
    rows = [
        [
            f"<b>{escape(view.name)}</b>",
            badge("loaded", "good")
            if view.loaded
            else badge(view.problem or "not loaded", "bad" if view.problem else "quiet"),
            escape(view.dataset_id),
            escape(view.base_name),
            ago(view.created_at),
        ]
        for view in views
    ]
    return table(("Name", "State", "Learned from", "Base", "Made"), rows)
