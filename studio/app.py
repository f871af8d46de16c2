"""The page: all pages under one roof, mounted on a web app."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import gradio as gr
from fastapi import FastAPI

from studio.pages import chat, compare, datasets, home, review, training
from studio.services import Services
from studio.theme import STYLE, theme

ROUTES: tuple[tuple[str, str, Callable[[Services], None]], ...] = (
    ("Chat", "/chat", chat.build),
    ("Review", "/review", review.build),
    ("Datasets", "/datasets", datasets.build),
    ("Training", "/training", training.build),
    ("Compare", "/compare", compare.build),
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
    """The web app: the pages, and `/health` for whoever watches over it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> dict[str, object]:
        return {"ok": True, "engine": services.serving.view().model_dump()}

    with warnings.catch_warnings():
        # Gradio warns that pages are not rendered on the server, also where it was told not to.
        warnings.filterwarnings("ignore", message="SSR mode is not supported")
        gr.mount_gradio_app(
            app,
            build_page(services).queue(default_concurrency_limit=16),
            path="/",
            theme=theme(),
            css_paths=[STYLE / "tonesmith.css"],
            allowed_paths=[str(services.settings.datasets)],
            footer_links=[],
            ssr_mode=False,
            show_error=True,
        )
    return app
