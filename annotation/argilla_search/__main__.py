"""`python -m argilla_search …`: Argilla's command line (`database migrate`, `worker`), with the engine registered."""

from argilla_server.cli import app

from . import engine  # noqa: F401 -- registers itself; the worker's jobs ask for it by name

app()
