"""What the commands share: the options every one takes, and the services behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:  # the services load the store's libraries; `--help` does not need them
    from studio.services import Services

out = Console(highlight=False)
Home = Annotated[Path | None, typer.Option(help="Folder of the project.", envvar="TONESMITH_HOME")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


@contextmanager
def services(home: Path | None, **options: object) -> Iterator[Services]:
    """Open the services of the project at `home`, and close them after; the engine is left as it is."""
    from studio.services import open_services
    from studio.settings import read_settings

    opened = open_services(read_settings(home=home, **options))
    try:
        yield opened
    finally:
        opened.close()


def print_json(value: Any) -> None:
    """One JSON value on standard output, nothing else."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))
