"""The page: all pages under one roof, behind the login, mounted on a web app."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.staticfiles import StaticFiles

from studio.pages import (
    argilla,
    charter,
    chat,
    compare,
    datasets,
    experiments,
    find,
    home,
    keys,
    models,
    quality,
    review,
    settle,
    team,
    training,
)
from studio.services import Services
from studio.theme import STYLE, theme
from studio.web.api import api_app
from studio.web.desk import add_desk
from studio.web.hooks import add_hooks
from studio.web.login import ToLogin, add_login, person_of

ROUTES: tuple[tuple[str, str, Callable[[Services], None]], ...] = (
    ("Chat", "/chat", chat.build),
    ("Review", "/review", review.build),
    ("Find", "/find", find.build),
    ("Settle", "/settle", settle.build),
    ("Agreement", "/agreement", quality.build),
    ("Argilla", "/argilla", argilla.build),
    ("Charter", "/charter", charter.build),
    ("Datasets", "/datasets", datasets.build),
    ("Training", "/training", training.build),
    ("Compare", "/compare", compare.build),
    ("Experiments", "/experiments", experiments.build),
    ("Models", "/models", models.build),
    ("API keys", "/keys", keys.build),
    ("Team", "/team", team.build),
)


def build_page(services: Services) -> gr.Blocks:
    """Lay out every page."""
    with gr.Blocks(title="Tonesmith", analytics_enabled=False) as page:
        home.build(services)
    for name, path, build in ROUTES:
        with page.route(name, path):
            build(services)
    return page


def web_app(services: Services) -> FastAPI:
    """The web app: the pages, the desk's JSON, the models for other programs at `/v1`, the login, and `/health` for
    whoever watches over it.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> dict[str, object]:
        return {"ok": True, "engine": services.serving.view().model_dump()}

    def who(request: Request) -> str | None:
        person = person_of(services.store, request)
        return person.name if person else None

    app.mount("/ours", StaticFiles(directory=STYLE))
    app.mount("/v1", api_app(services))
    add_login(app, services.store)
    add_desk(app, services)
    add_hooks(app, services.argilla)
    with warnings.catch_warnings():
        # Gradio warns that pages are not rendered on the server, also where it was told not to.
        warnings.filterwarnings("ignore", message="SSR mode is not supported")
        gr.mount_gradio_app(
            app,
            build_page(services).queue(default_concurrency_limit=16),
            path="/",
            auth_dependency=who,
            theme=theme(),
            css_paths=[STYLE / "tonesmith.css", STYLE / "desk.css"],
            allowed_paths=[str(services.settings.datasets)],
            footer_links=[],
            ssr_mode=False,
            show_error=True,
        )
    app.add_middleware(ToLogin, store=services.store)
    return app
