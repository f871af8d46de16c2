"""Curate: `curate`, `datasets`."""

from __future__ import annotations

import typer
from rich.table import Table

from studio.cli.context import AsJson, Home, out, print_json, services


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("curate")(curate)
    app.command("datasets")(datasets)


def curate(home: Home = None, note: str = "", as_json: AsJson = False) -> None:
    """Freeze what was judged so far as a dataset version."""
    from annotation.versions import reasons

    with services(home) as tonesmith:
        version = tonesmith.datasets.make(note)
        why = reasons(tonesmith.datasets.rows(version, "left_out"))
    if as_json:
        print_json(version.model_dump(mode="json") | {"left_out_because": why})
        return
    rows = version.rows
    out.print(f"{version.id}: {rows['sft']} rows, {rows['preference']} pairs, {rows['held_out']} kept back to check.")
    for reason, number in why.items():
        out.print(f"  left out {number} ×: {reason}", markup=False)


def datasets(home: Home = None, as_json: AsJson = False) -> None:
    """List the dataset versions, newest first."""
    with services(home) as tonesmith:
        versions = tonesmith.datasets.all()
    if as_json:
        print_json([version.model_dump(mode="json") for version in versions])
        return
    shown = Table("Version", "Rows", "Pairs", "Made", "By", "Note")
    for version in versions:
        made = f"{version.made_at:%Y-%m-%d %H:%M}"
        rows = (str(version.rows["sft"]), str(version.rows["preference"]))
        shown.add_row(version.id, *rows, made, version.author, version.note)
    out.print(shown)
