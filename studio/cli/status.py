"""`status`: where the loop stands."""

from __future__ import annotations

import typer

from studio.cli.context import AsJson, Home, out, print_json, services


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(status)


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Say where the loop stands, and the next thing to do."""
    with services(home) as tonesmith:
        tonesmith.serving.adopt(required=False)
        now, engine = tonesmith.overview(), tonesmith.serving.view()
        folder = tonesmith.settings.home
    step = now.next_step()
    if as_json:
        print_json(
            {
                "home": folder,
                "engine": engine.model_dump(),
                **now.model_dump(exclude={"last_vote"}),
                "next": step.model_dump(),
            }
        )
        return
    out.print(f"Project   {folder}", markup=False)
    out.print(f"Engine    {engine.label}. {engine.detail}", markup=False)
    out.print(f"Review    {now.waiting} waiting, {now.reviewed} reviewed, of {now.conversations} conversations")
    out.print(f"Datasets  {now.datasets}")
    out.print(f"Training  {now.runs} runs" + (f", {now.running} under way" if now.running else ""))
    out.print(f"Adapters  {now.adapters_loaded} loaded")
    out.print(f"Compare   {now.votes} votes: tuned {now.tuned_won}, base {now.base_won}")
    out.print(f"\nNext: {step.title}. {step.why}", markup=False)
