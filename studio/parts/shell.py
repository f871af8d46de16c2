"""What every page stands in: the header with the way round the loop, and the engine's state."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from studio.services import Services
from studio.services.engine_view import EngineView
from studio.theme import STYLE

PAGES = (
    ("Home", "/"),
    ("Chat", "/chat"),
    ("Review", "/review"),
    ("Charter", "/charter"),
    ("Datasets", "/datasets"),
    ("Training", "/training"),
    ("Compare", "/compare"),
    ("Models", "/models"),
    ("Team", "/team"),
)
REVIEW = (
    ("Judge", "/review"),
    ("Find", "/find"),
    ("Settle", "/settle"),
    ("Agreement", "/agreement"),
    ("Argilla", "/argilla"),
)
"""Pages that stand together under Review."""
COMPARE = (("Ask both", "/compare"), ("Experiments", "/experiments"))
"""And under Compare."""
MODELS = (("What is served", "/models"), ("API keys", "/keys"))
"""And under Models."""
GROUPS = {REVIEW: "Review pages", COMPARE: "Compare pages", MODELS: "Models pages"}
LOGO = (
    '<svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true"><path d="M12 2.5v11" stroke="currentColor" '
    'stroke-width="2.2" stroke-linecap="round"/><path d="M7 2.5v5a5 5 0 0 0 10 0v-5" fill="none" '
    'stroke="currentColor" stroke-width="2.2" stroke-linecap="round"/><circle cx="12" cy="19" r="2.6" '
    'fill="currentColor"/></svg>'
)
OUT = '<form method="post" action="/logout"><button class="ts-out">Sign out</button></form>'
POLL_SECONDS = 2.0


def header(services: Services, here: str) -> None:
    """Lay out the header of the page called `here`; the engine's state follows by itself."""
    gr.Navbar(visible=False)
    links = "".join(
        f'<a href="{path}"{" aria-current=page" if name == here else ""}>{name}</a>' for name, path in PAGES
    )
    with gr.Row(elem_id="ts-header"):
        gr.HTML(
            f'<a class="ts-skip" href="#ts-main">Skip to the page</a>'
            f'<a class="ts-brand" href="/" aria-label="Tonesmith, home">{LOGO}<span>Tonesmith</span></a>'
            f'<nav aria-label="Pages">{links}{OUT}</nav>',
            elem_id="ts-nav",
            js_on_load=(STYLE / "drafts.js").read_text(encoding="utf-8"),
        )
        # The page is laid out before there is an engine: what it says is asked for when somebody comes.
        pill = gr.HTML(engine_pill(EngineView(label="…", detail="", tone="quiet")), elem_id="ts-engine")
    shown = gr.State("")

    def refresh(last: str) -> tuple[object, object]:
        now = engine_pill(services.serving.view())
        return (gr.skip(), gr.skip()) if now == last else (now, now)

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_name": False}
    gr.Timer(POLL_SECONDS).tick(refresh, shown, [pill, shown], **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(refresh, shown, [pill, shown], **quiet)


def title(text: str, lead: str, tab: str = "", among: tuple[tuple[str, str], ...] = REVIEW) -> None:
    """The page's heading and the one sentence under it; `tab` is its place among pages that stand together, if it is
    one of them.
    """
    tabs = "".join(f'<a href="{path}"{" aria-current=page" if name == tab else ""}>{name}</a>' for name, path in among)
    nav = f'<nav class="ts-tabs" aria-label="{GROUPS[among]}">{tabs}</nav>' if tab else ""
    gr.HTML(f'<h1 id="ts-main" tabindex="-1">{escape(text)}</h1><p class="ts-lead">{escape(lead)}</p>{nav}')


def engine_pill(view: EngineView) -> str:
    """The engine's state in a few words, the details on hover and for screen readers."""
    bar = f'<i style="width:{round(100 * view.fraction)}%"></i>' if view.tone == "busy" else ""
    return (
        f'<div class="ts-pill ts-{view.tone}" role="status" title="{escape(view.detail, quote=True)}">'
        f"<b></b><span>{escape(view.label)}</span>{bar}</div>"
    )


def comparing_only(view: EngineView) -> str:
    """What a server is good for that takes no adapters; '' for others."""
    if view.adapters:
        return ""
    return f'<div class="ts-notice" role="note"><b>{escape(view.label)}.</b> {escape(view.detail)}</div>'
