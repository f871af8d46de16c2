"""Argilla: for teams that would rather label there. What has gone over, what has come back, and what could not."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.words import badge, table
from studio.services import Services
from studio.services.argilla import ArgillaView, in_words

POLL_SECONDS = 3.0


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Review")
    shell.title("Argilla", "Who prefers Argilla labels there; both desks know what was said at the other.", "Argilla")
    act = by_person(services, _Bridge)
    state = gr.HTML(elem_id="ts-argilla")
    said = gr.HTML(elem_id="ts-argilla-said")
    with gr.Row(visible=False, elem_id="ts-argilla-work") as work:
        sync = gr.Button("Look for news now", variant="primary", min_width=150, elem_id="ts-argilla-sync")
        cancel = gr.Button("Cancel", min_width=100)
        retry = gr.Button("Try again what failed", min_width=170)
        compare = gr.Button("Compare everything", min_width=160, elem_id="ts-argilla-compare")
        leave = gr.Button("Leave Argilla", min_width=130)
    with gr.Column(visible=False) as begin:
        gr.HTML('<h2 class="ts-h2">Start one here</h2>')
        gr.HTML(
            '<p class="ts-muted">Installs the Argilla server into an environment of its own (about 560 MB), and makes '
            "an account for everybody who judges. It needs no container and no search server.</p>"
        )
        start = gr.Button("Start Argilla", variant="primary", elem_id="ts-argilla-up")
        gr.HTML('<h2 class="ts-h2">Or use one that runs already</h2>')
        with gr.Row(equal_height=True):
            url = gr.Textbox(label="Address", placeholder="https://argilla.example.org", scale=3)
            key = gr.Textbox(label="API key of an owner or an admin", type="password", scale=3)
            attach = gr.Button("Connect", scale=1, min_width=110)
    seen = gr.State("")
    screen = [state, work, begin, seen]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    start.click(act(_Bridge.up), None, [said, *screen], api_name=False)
    attach.click(act(_Bridge.attach), [url, key], [said, key, *screen], api_name=False)
    sync.click(act(_Bridge.sync), None, said, **quiet)
    cancel.click(act(_Bridge.cancel), None, said, **quiet)
    retry.click(act(_Bridge.retry), None, said, **quiet)
    compare.click(act(_Bridge.compare), None, [said, *screen], api_name=False)
    leave.click(act(_Bridge.leave), None, [said, *screen], api_name=False)
    gr.Timer(POLL_SECONDS).tick(act(_Bridge.follow), seen, screen, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Bridge.arrive), None, screen, **quiet)


class _Bridge:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._argilla = services.argilla
        self._who = services.who

    def arrive(self) -> list[Any]:
        view = self._argilla.view()
        may = self._who.may("curate")
        return [
            view_html(view),
            gr.Row(visible=view.connected and may),
            gr.Column(visible=self._who.may("manage") and (not view.connected or view.tone == "bad")),
            view.model_dump_json(),
        ]

    def follow(self, seen: str) -> list[Any]:
        """As `arrive`, but nothing is sent to the page where nothing moved."""
        return [gr.skip()] * 4 if self._argilla.view().model_dump_json() == seen else self.arrive()

    def up(self, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008 -- Gradio's way
        made = self._argilla.up(self._who, lambda line: progress(None, desc=line))
        rows = [[f"<b>{escape(name)}</b>", f"<code>{escape(word)}</code>"] for name, word in made.items()]
        words = table(("Name", "First password"), rows, "Give each their own; it is shown here once.") if rows else ""
        return [_good("Argilla is running.") + words, *self.arrive()]

    def attach(self, url: str, key: str) -> list[Any]:
        version = self._argilla.attach(self._who, url, key)
        return [_good(f"Connected to Argilla {version}."), "", *self.arrive()]

    def sync(self) -> str:
        self._argilla.sync_soon(self._who)
        return _good("Looking.")

    def cancel(self) -> str:
        self._argilla.cancel(self._who)
        return _good("Stopped where it was. What was done is kept.")

    def retry(self) -> str:
        return _good(f"{self._argilla.retry(self._who):,} are tried again.")

    def compare(self, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008 -- Gradio's way
        repairs = self._argilla.reconcile(
            self._who, lambda step: progress((step.done, step.total or None), desc=step.what.capitalize())
        )
        said = "Both desks were alike." if repairs.nothing else f"Put right: {in_words(repairs)}."
        return [_good(said), *self.arrive()]

    def leave(self) -> list[Any]:
        self._argilla.leave(self._who)
        return [_good("This project works without Argilla now. All that was said there is kept here."), *self.arrive()]


def view_html(view: ArgillaView) -> str:
    """Where things stand."""
    link = f'<a href="{escape(view.url, quote=True)}" target="_blank">Open Argilla</a>' if view.url else ""
    head = f"<p>{badge(view.label, view.tone)} {link}</p>"
    detail = f'<p class="ts-muted ts-small">{escape(view.detail)}</p>' if view.detail else ""
    share = view.progress.done / view.progress.total if view.progress and view.progress.total else None
    bar = f'<div class="ts-progress"><i style="width:{100 * share:.0f}%"></i></div>' if share is not None else ""
    rows = [
        [f"<b>{escape(one.name)}</b>", str(one.charter_version)]
        + [f"{number:,}" for number in (one.there, one.waiting, one.pulled, one.failed)]
        for one in view.datasets
    ]
    heads = ("Dataset", "Charter", "There", "To be sent", "Answers fetched", "Failed")
    datasets = table(heads, rows) if rows else ""
    failed = "".join(
        f'<li><a href="/review?reply={escape(reply)}">{escape(reply[:8])}</a>: {escape(reason)}</li>'
        for reply, reason in view.failures
    )
    failures = f'<h2 class="ts-h2">What could not go over</h2><ul>{failed}</ul>' if failed else ""
    return f'<div class="ts-card">{head}{detail}{bar}{datasets}{failures}</div>'


def _good(text: str) -> str:
    return f'<div class="ts-notice ts-good" role="status">{escape(text)}</div>'
