"""Train: `train`, `runs`, `cancel`, `resume`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from annotation.errors import UserError
from studio.cli.context import AsJson, Home, out, print_json, services

if TYPE_CHECKING:
    from studio.services import Services
    from studio.services.training import RunView

POLL_SECONDS = 1.0


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (train, runs, cancel, resume):
        app.command()(command)


def train(
    dataset: Annotated[str | None, typer.Argument(help="Dataset version; the newest if not given.")] = None,
    preset: Annotated[str, typer.Option(help="quick, standard or thorough")] = "quick",
    steps: Annotated[int | None, typer.Option(min=1, help="End after so many steps, for a first try.")] = None,
    home: Home = None,
    wait: Annotated[bool, typer.Option(help="Wait for the run and show how it goes.")] = True,
    as_json: AsJson = False,
) -> None:
    """Train on a dataset version. Ctrl-C leaves the run going; `tonesmith cancel` ends it."""
    with services(home) as tonesmith:
        tonesmith.serving.prepare_base()
        newest = next((version.id for version in tonesmith.datasets.all()), None)
        version = tonesmith.datasets.get(dataset).id if dataset else newest
        run_id = tonesmith.training.start(version, preset, max_steps=steps)
        _finish(tonesmith, run_id, wait, as_json)


def resume(run_id: str, home: Home = None, wait: bool = True, as_json: AsJson = False) -> None:
    """Go on with a run from its last checkpoint."""
    with services(home) as tonesmith:
        tonesmith.training.resume(run_id)
        _finish(tonesmith, run_id, wait, as_json)


def cancel(run_id: str, home: Home = None) -> None:
    """Stop a run; its checkpoints stay."""
    with services(home) as tonesmith:
        state = tonesmith.training.cancel(run_id)
    out.print(f"{run_id}: {state.status}.", markup=False)


def runs(home: Home = None, as_json: AsJson = False) -> None:
    """List the runs, newest first."""
    with services(home) as tonesmith:
        views = tonesmith.training.all()
    if as_json:
        print_json([_as_record(view) for view in views])
        return
    shown = Table("Run", "State", "Step", "Loss", "Adapter", "Message")
    for view in views:
        state = view.state
        loss = f"{state.loss:.3f}" if state.loss is not None else "–"
        shown.add_row(
            view.id, state.status, f"{state.step}/{state.of_steps}", loss, state.adapter or "–", state.message
        )
    out.print(shown)


def _finish(tonesmith: Services, run_id: str, wait: bool, as_json: bool) -> None:
    view = _follow(tonesmith, run_id, quiet=as_json) if wait else tonesmith.training.view(run_id)
    if as_json:
        print_json(_as_record(view))
    elif view.state.result:
        result = view.state.result
        out.print(
            f"{result.adapter}: {result.rows_trained} of {result.rows_in} rows trained, {result.rows_truncated} "
            f"shortened, {sum(result.rows_dropped.values())} left out, {result.tokens_with_loss} tokens learned from.",
            markup=False,
        )
    else:
        out.print(f"{run_id}: {view.state.status}.", markup=False)
    if view.state.status in ("failed", "cancelled"):
        raise UserError(view.state.message or f"The run was {view.state.status}.", do=f"`tonesmith resume {run_id}`.")


def _follow(tonesmith: Services, run_id: str, quiet: bool) -> RunView:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=quiet) as progress:
        task = progress.add_task(run_id, total=None)
        while (view := tonesmith.training.view(run_id)).state.status in ("queued", "running"):
            state = view.state
            loss = f"loss {state.loss:.3f}" if state.loss is not None else state.message or state.status
            progress.update(task, description=loss, completed=state.step, total=state.of_steps or None)
            time.sleep(POLL_SECONDS)
    return view


def _as_record(view: RunView) -> dict[str, object]:
    return {"run": view.id, "about": view.about, **view.state.model_dump(mode="json")}
