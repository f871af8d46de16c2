"""Argilla: for teams that would rather label there. What has gone over, what has come back, and what could not."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.words import badge, table
from studio.services import Services
from studio.services.argilla_view import ArgillaView, in_words, left_in_words

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
        cancel = gr.Button("Cancel", min_width=100, elem_id="ts-argilla-cancel")
        retry = gr.Button("Try again what failed", min_width=170, elem_id="ts-argilla-retry")
        compare = gr.Button("Compare everything", min_width=160, elem_id="ts-argilla-compare")
        leave = gr.Button("Leave Argilla", min_width=130, elem_id="ts-argilla-leave")
        anyway = gr.Button("Leave without a last look", visible=False, min_width=190, elem_id="ts-argilla-anyway")
    with gr.Column(visible=False) as begin:
        gr.HTML('<h2 class="ts-h2">Start one here</h2>')
        gr.HTML(
            '<p class="ts-muted">Installs the Argilla server into an environment of its own (about 560 MB), and makes '
            "an account for everybody who judges. It needs no container and no search server.</p>"
        )
        start = gr.Button("Start Argilla", variant="primary", elem_id="ts-argilla-up")
        gr.HTML('<h2 class="ts-h2">Or use one that runs already</h2>')
        with gr.Row(equal_height=True):
            url = gr.Textbox(label="Address", placeholder="https://argilla.example.org", scale=3, min_width=260)
            key = gr.Textbox(label="API key of an owner or an admin", type="password", scale=3, min_width=260)
            attach = gr.Button("Connect", scale=1, min_width=110)
    seen = gr.State("")
    screen = [state, work, anyway, begin, seen]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    start.click(act(_Bridge.up), None, [said, *screen], api_name=False)
    attach.click(act(_Bridge.attach), [url, key], [said, key, *screen], api_name=False)
    sync.click(act(_Bridge.sync), None, said, **quiet)
    cancel.click(act(_Bridge.cancel), None, said, **quiet)
    retry.click(act(_Bridge.retry), None, said, **quiet)
    compare.click(act(_Bridge.compare), None, [said, *screen], api_name=False)
    leave.click(act(_Bridge.leave), None, [said, *screen], api_name=False)
    anyway.click(act(_Bridge.leave_anyway), None, [said, *screen], api_name=False)
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
        manages = self._who.may("manage")
        words = self._argilla.passwords(self._who) if manages and view.own and view.tone != "bad" else {}
        return [
            view_html(view, words),
            gr.Row(visible=view.connected and self._who.may("curate")),
            gr.Button(visible=view.tone == "bad" and manages),
            gr.Column(visible=manages and (not view.connected or view.tone == "bad")),
            view.model_dump_json(),
        ]

    def follow(self, seen: str) -> list[Any]:
        """As `arrive`, but nothing is sent to the page where nothing moved."""
        return [gr.skip()] * 5 if self._argilla.view().model_dump_json() == seen else self.arrive()

    def up(self, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008 -- Gradio's way
        self._argilla.up(self._who, lambda line: progress(None, desc=line))
        return [_good("Argilla is running."), *self.arrive()]

    def attach(self, url: str, key: str) -> list[Any]:
        version = self._argilla.attach(self._who, url, key)
        return [_good(f"Connected to Argilla {version}."), "", *self.arrive()]

    def sync(self) -> str:
        self._argilla.sync_soon(self._who)
        return _good("Looking.")

    def cancel(self) -> str:
        if not self._argilla.cancel(self._who):
            return _good("There is nothing under way.")
        return _good("Stopping. What was done is kept, and “Look for news now” goes on from there.")

    def retry(self) -> str:
        number = self._argilla.retry(self._who)
        return _good(f"Tried again: {number:,}." if number else "Nothing had failed.")

    def compare(self, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008 -- Gradio's way
        repairs = self._argilla.reconcile(
            self._who, lambda step: progress((step.done, step.total or None), desc=step.what.capitalize())
        )
        if repairs.cancelled:
            said = f"The comparison was {in_words(repairs)}."
        else:
            said = "Both desks were alike." if repairs.nothing else f"Put right: {in_words(repairs)}."
        return [_good(said), *self.arrive()]

    def leave(self) -> list[Any]:
        return [_good(left_in_words(self._argilla.leave(self._who))), *self.arrive()]

    def leave_anyway(self) -> list[Any]:
        return [_good(left_in_words(self._argilla.leave(self._who, anyway=True))), *self.arrive()]


def view_html(view: ArgillaView, words: Mapping[str, str]) -> str:
    """Where things stand; `words` are the first passwords in our own server, for who may see them."""
    link = f'<a href="{escape(view.url, quote=True)}" target="_blank">Open Argilla</a>' if view.url else ""
    head = f"<p>{badge(view.label, view.tone)} {link}</p>"
    detail = f'<p class="ts-muted ts-small">{escape(view.detail)}</p>' if view.detail else ""
    share = view.progress.done / view.progress.total if view.progress and view.progress.total else None
    bar = f'<div class="ts-progress"><i style="width:{100 * share:.0f}%"></i></div>' if share is not None else ""
    rows = [
        [f"<b>{escape(one.name)}</b>", str(one.charter_version)]
        + [f"{number:,}" for number in (one.there, one.waiting, one.pulled, one.begun, one.failed)]
        for one in view.datasets
    ]
    heads = ("Dataset", "Charter", "There", "To be sent", "Answers fetched", "Begun there", "Failed")
    datasets = table(heads, rows) if rows else ""
    failed = "".join(
        f'<li><a href="/review?reply={escape(reply)}">{escape(reply[:8])}</a>: {escape(reason)}</li>'
        for reply, reason in view.failures
    )
    failures = f'<h2 class="ts-h2">What could not go over</h2><ul>{failed}</ul>' if failed else ""
    return f'<div class="ts-card">{head}{detail}{bar}{datasets}{failures}{_begun(view)}{_first_words(words)}</div>'


def _begun(view: ArgillaView) -> str:
    if not view.begun:
        return ""
    rows = "".join(
        f'<li>{escape(person)}: <a href="/review?reply={escape(reply)}">{escape(reply[:8])}</a></li>'
        for person, reply in view.begun
    )
    about = "Nobody's answer yet. Whoever began it can go on there, or here, where it is filled in."
    return f'<h2 class="ts-h2">Begun there and not sent</h2><p class="ts-muted ts-small">{about}</p><ul>{rows}</ul>'


def _first_words(words: Mapping[str, str]) -> str:
    if not words:
        return ""
    rows = [[f"<b>{escape(name)}</b>", f"<code>{escape(word)}</code>"] for name, word in sorted(words.items())]
    listed = table(("Name", "First password"), rows, "Give each their own.")
    return f"<details><summary>First passwords in Argilla</summary>{listed}</details>"


def _good(text: str) -> str:
    return f'<div class="ts-notice ts-good" role="status">{escape(text)}</div>'
