"""How a command ends: 0 done, 1 something to put right, 2 wrong use, 130 interrupted."""

from __future__ import annotations

import typer
from rich.console import Console

from annotation.errors import UserError

complaints = Console(stderr=True, highlight=False)


def run(app: typer.Typer) -> int:
    """Run the command line; a UserError is said in words, without a traceback."""
    try:
        app()
    except UserError as error:
        complaints.print(f"[bold red]{_plain(error.found)}[/]")
        for part in (error.wanted, error.do):
            if part:
                complaints.print(_plain(part))
        return 1
    except KeyboardInterrupt:
        complaints.print("Stopped.")
        return 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    return 0


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
