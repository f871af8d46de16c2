"""The engine's memory: `engine sleep|wake|status`."""

from __future__ import annotations

import typer
from rich.table import Table

from studio.cli.context import AsJson, Home, out, print_json, services

engine_app = typer.Typer(help="Whether the engine has the machine's memory.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (sleep, wake, status):
        engine_app.command()(command)
    app.add_typer(engine_app, name="engine")


def sleep(home: Home = None) -> None:
    """Have the engine give its memory back, to leave the machine to training. It wakes when somebody asks."""
    with services(home) as tonesmith:
        tonesmith.serving.adopt()
        tonesmith.serving.sleep(tonesmith.who)
    out.print("The engine is asleep.")


def wake(home: Home = None) -> None:
    """Have it be there again, with its adapters; takes as long as a start."""
    with services(home) as tonesmith:
        tonesmith.serving.adopt(required=False)
        tonesmith.serving.wake(tonesmith.who)
        tonesmith.serving.wait_awake()
        names = [name for _, name in tonesmith.serving.choices()[1:]]
    out.print(f"The engine is awake{', with ' + ', '.join(names) if names else ''}.", markup=False)


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Say what the engine does, each replica in a row of its own."""
    with services(home) as tonesmith:
        tonesmith.serving.adopt(required=False)
        view, loads = tonesmith.serving.view(), tonesmith.serving.loads()
    if as_json:
        print_json(view.model_dump() | {"engines": [load.model_dump(mode="json") for load in loads]})
        return
    out.print(f"{view.label}. {view.detail}", markup=False)
    shown = Table("Engine", "State", "Being answered", "Waiting", "Cache in use", "Adapters answering")
    for number, load in enumerate(loads, 1):
        now = load.now
        figures = (now.running, now.waiting, f"{now.kv_cache:.0%}", ", ".join(now.adapters_running)) if now else "––––"
        shown.add_row(str(number), load.status.state, *(str(figure) for figure in figures))
    out.print(shown)
