"""Argilla as a second desk: `argilla up|down|attach|status|sync|reconcile|retry|leave`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from studio.cli.context import AsJson, Home, out, print_json, services

S = TypeVar("S")

if TYPE_CHECKING:
    from collections.abc import Callable

    from annotation.argilla_report import Progress as Step
    from annotation.argilla_report import Summary
    from studio.services import Services

argilla_app = typer.Typer(help="Argilla as a second desk.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (up, down, attach, status, sync, reconcile, retry, leave):
        argilla_app.command()(command)
    app.add_typer(argilla_app, name="argilla")


def up(
    url: Annotated[str, typer.Option(help="Work with the Argilla that runs there instead, as `attach` does.")] = "",
    api_key: Annotated[
        str, typer.Option(help="Key of an owner or an admin, for --url.", envvar="ARGILLA_API_KEY")
    ] = "",
    port: Annotated[int, typer.Option(help="Where ours answers; 0 keeps to the one it has, or picks one.")] = 0,
    home: Home = None,
) -> None:
    """Start an Argilla server of our own (the first time it is installed), with an account for everybody who judges."""
    if url:
        attach(url, api_key, home)
        return
    with services(home) as tonesmith:
        made = tonesmith.argilla.up(tonesmith.who, lambda line: out.print(line, markup=False), port)
        url = tonesmith.argilla.view().url
    out.print(f"Argilla is at {url}.")
    for name, password in made.items():
        out.print(f"  {name}, first password: {password}", markup=False)


def down(home: Home = None) -> None:
    """Stop our own Argilla server."""
    with services(home) as tonesmith:
        tonesmith.argilla.down(tonesmith.who)
    out.print("Argilla is stopped. Its data stays.")


def attach(
    url: Annotated[str, typer.Option(help="Where it answers, for example https://argilla.example.org")],
    api_key: Annotated[str, typer.Option(help="Key of an owner or an admin.", envvar="ARGILLA_API_KEY")],
    home: Home = None,
) -> None:
    """Work with an Argilla that runs elsewhere."""
    with services(home) as tonesmith:
        version = tonesmith.argilla.attach(tonesmith.who, url, api_key)
    out.print(f"Connected to Argilla {version}.")


def status(home: Home = None, as_json: AsJson = False) -> None:
    """What is there, pulled, waiting and failed."""
    with services(home) as tonesmith:
        view = tonesmith.argilla.view()
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    out.print(f"{view.label}. {view.detail}".strip(), markup=False)
    shown = Table("Dataset", "There", "Waiting", "Pulled", "Begun there", "Failed")
    for one in view.datasets:
        numbers = (one.there, one.waiting, one.pulled, one.begun, one.failed)
        shown.add_row(one.name, *(str(number) for number in numbers))
    out.print(shown)
    for one in view.datasets:
        if one.shortened:
            out.print(f"  {one.name}: its guidelines are not the whole charter, which is too long.", markup=False)
    for reply, reason in view.failures:
        out.print(f"  {reply}: {reason}", markup=False)


def sync(home: Home = None) -> None:
    """Bring over what is new on either side. Ctrl-C stops; the same command goes on from there."""
    with services(home) as tonesmith:
        summary = _with_progress(lambda report: tonesmith.argilla.sync(tonesmith.who, report))
        _say(tonesmith, summary)


def reconcile(home: Home = None) -> None:
    """Compare everything with everything, and put right what differs."""
    with services(home) as tonesmith:
        repairs = _with_progress(lambda report: tonesmith.argilla.reconcile(tonesmith.who, report))
        _say(tonesmith, repairs)


def retry(home: Home = None) -> None:
    """Try again what could not be brought over."""
    with services(home) as tonesmith:
        tonesmith.argilla.retry(tonesmith.who)
        _say(tonesmith, _with_progress(lambda report: tonesmith.argilla.sync(tonesmith.who, report)))


def leave(
    anyway: Annotated[bool, typer.Option("--anyway", help="Also if Argilla does not answer any more.")] = False,
    home: Home = None,
) -> None:
    """Fetch what is new one last time, then work without Argilla. All that was said there is in our store. Ctrl-C stops
    it, and then Argilla is in use as before.
    """
    with services(home) as tonesmith:
        summary = _with_progress(lambda report: tonesmith.argilla.leave(tonesmith.who, anyway=anyway, report=report))
    from studio.services.argilla_view import left_in_words

    out.print(left_in_words(summary), markup=False)


def _with_progress(work: Callable[[Callable[[Step], None]], S]) -> S:
    from rich.progress import Progress

    with Progress(console=out, transient=True) as progress:
        task = progress.add_task("Looking", total=None)
        return work(
            lambda step: progress.update(
                task, description=step.what.capitalize(), completed=step.done, total=step.total or None
            )
        )


def _say(tonesmith: Services, summary: Summary) -> None:
    from studio.services.argilla_view import in_words

    said = in_words(summary)
    out.print(f"{said[0].upper()}{said[1:]}." if said else "Both desks were alike.", markup=False)
    failed = tonesmith.argilla.view().failures
    for reply, reason in failed:
        out.print(f"  {reply}: {reason}", markup=False)
