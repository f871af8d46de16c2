"""Review: one reply at a time, by keyboard if one likes. The desk is `studio/style/desk/`, over `studio.web.desk`."""

from __future__ import annotations

import gradio as gr

from studio.parts import shell
from studio.services import Services

DESK = '<div id="ts-desk" class="ts-desk" aria-busy="true"><p class="ts-muted">One moment …</p></div>'
START = "import('/ours/desk/main.js').then((desk) => desk.start(element));"


def build(services: Services) -> None:
    """Lay out the page."""
    shell.header(services, "Review")
    shell.title("Review", "Is this reply on brand, within policy and fair? Put it right where it is not.", "Judge")
    gr.HTML(DESK, js_on_load=START, elem_id="ts-review")
