"""All commands under one name."""

from __future__ import annotations

import typer

from studio.cli import argilla, collect, curate, engine, experiment, keys, serve, status, team, train

app = typer.Typer(
    name="tonesmith",
    help="Shape how your model talks: collect, review, curate, train, serve and compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (serve, engine, collect, curate, train, experiment, team, keys, argilla, status):
    module.add_to(app)
