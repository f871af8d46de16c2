"""Keys of other programs: `keys add|list|revoke`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from studio.cli.context import AsJson, Home, out, print_json, services

keys_app = typer.Typer(help="Keys with which other programs call the models.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    keys_app.command("add")(add)
    keys_app.command("list")(keys)
    keys_app.command("revoke")(revoke)
    app.add_typer(keys_app, name="keys")


def add(
    name: Annotated[str, typer.Argument(help="What it is for, for example: website.")],
    home: Home = None,
    person: Annotated[str | None, typer.Option(help="In whose name it acts; without, in yours.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    with services(home) as tonesmith:
        made, key = tonesmith.keys.add(name, person)
    if as_json:
        print_json(made.model_dump(mode="json") | {"key": key})
    else:
        typer.echo(key)


def keys(home: Home = None, as_json: AsJson = False) -> None:
    """List all keys, revoked ones included."""
    with services(home) as tonesmith:
        found = tonesmith.keys.all()
    if as_json:
        print_json([key.model_dump(mode="json") for key in found])
        return
    shown = Table("Id", "For", "In the name of", "Made (UTC)", "Last used (UTC)", "State")
    for key in found:
        used = f"{key.last_used:%Y-%m-%d %H:%M}" if key.last_used else "never"
        state = f"revoked by {key.revoked_by}" if key.revoked_at else "in force"
        shown.add_row(key.id, key.name.replace("[", r"\["), key.person, f"{key.made_at:%Y-%m-%d %H:%M}", used, state)
    out.print(shown)


def revoke(key_id: Annotated[str, typer.Argument(help="As `keys list` has it.")], home: Home = None) -> None:
    """End a key, at once and for good."""
    with services(home) as tonesmith:
        ended = tonesmith.keys.revoke(key_id)
    out.print(f"The key {ended.id} ({ended.name}) opens nothing any more.", markup=False)
