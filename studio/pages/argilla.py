"""Argilla: for teams that would rather label there. What has gone over, what has come back, and what could not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from html import escape
from typing import Any

import gradio as gr

from annotation.errors import UserError
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.words import ago, badge, duration, table
from studio.services import Services
from studio.services.argilla_errands import Outcome
from studio.services.argilla_view import ArgillaView

POLL_SECONDS = 2.0
FEW_SECONDS = 5.0
SCREEN = 11
"""Parts of the page that show where things stand."""
START = """<h2 class="ts-h2">Start one here</h2><p class="ts-muted">Installs the Argilla server into an environment of
its own (about 560 MB, once), and makes an account for everybody who judges. It needs no container and no search
server.</p>"""
START_AGAIN = '<h2 class="ts-h2">Start it again</h2><p class="ts-muted">What was said in it is kept.</p>'
LEAVING = """<div class="ts-card"><h2 class="ts-h2">Leave Argilla?</h2><p>What is new there is fetched one last time.
After that nothing goes over any more. What was said there stays here, and its datasets stay as they are.{key}</p></div>
"""
KEY_AGAIN = " To come back you need its address and a key again."


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Review")
    shell.title("Argilla", "Who prefers Argilla labels there; both desks know what was said at the other.", "Argilla")
    act = by_person(services, _Bridge)
    state = gr.HTML(elem_id="ts-argilla")
    with gr.Row(visible=False, elem_id="ts-argilla-work") as work:
        sync = gr.Button("Look for news now", variant="primary", scale=0, min_width=190, elem_id="ts-argilla-sync")
        cancel = gr.Button("Cancel", visible=False, scale=0, min_width=110, elem_id="ts-argilla-cancel")
        retry = gr.Button("Try again what failed", visible=False, scale=0, min_width=210, elem_id="ts-argilla-retry")
        compare = gr.Button("Compare everything", scale=0, min_width=200, elem_id="ts-argilla-compare")
        leave = gr.Button("Leave Argilla …", visible=False, scale=0, min_width=160, elem_id="ts-argilla-leave")
    with gr.Column(visible=False) as asked:
        about = gr.HTML()
        with gr.Row():
            surely = gr.Button("Leave", variant="stop", scale=0, min_width=110, elem_id="ts-argilla-surely")
            anyway = gr.Button("Leave without a last look", scale=0, min_width=230, elem_id="ts-argilla-anyway")
            stay = gr.Button("Stay", scale=0, min_width=110, elem_id="ts-argilla-stay")
    with gr.Column(visible=False) as begin:
        title = gr.HTML(START)
        with gr.Row():
            start = gr.Button("Start Argilla", variant="primary", scale=0, min_width=190, elem_id="ts-argilla-up")
        gr.HTML('<h2 class="ts-h2">Or use one that runs already</h2>')
        url = gr.Textbox(label="Address", placeholder="https://argilla.example.org", elem_id="ts-argilla-url")
        key = gr.Textbox(label="API key of an owner or an admin", type="password", elem_id="ts-argilla-key")
        told = gr.HTML(elem_id="ts-argilla-told")
        with gr.Row():
            attach = gr.Button("Connect", scale=0, min_width=130, elem_id="ts-argilla-connect")
    words = gr.HTML(elem_id="ts-argilla-words")
    seen = gr.State("")
    screen = [state, work, sync, cancel, retry, compare, leave, begin, title, words, seen]
    question = [asked, about, anyway]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    start.click(act(_Bridge.up), None, screen, **quiet)
    attach.click(act(_Bridge.attach), [url, key], [told, key, *screen], **quiet)
    sync.click(act(_Bridge.sync), None, screen, **quiet)
    cancel.click(act(_Bridge.cancel), None, screen, **quiet)
    retry.click(act(_Bridge.retry), None, screen, **quiet)
    compare.click(act(_Bridge.compare), None, screen, **quiet)
    leave.click(act(_Bridge.ask), None, question, **quiet)
    stay.click(act(_Bridge.stay), None, question, **quiet)
    surely.click(act(_Bridge.leave), None, [*question, *screen], **quiet)
    anyway.click(act(_Bridge.leave_anyway), None, [*question, *screen], **quiet)
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
        manages, bad = self._who.may("manage"), view.tone == "bad"
        words = self._argilla.passwords(self._who) if manages and view.own and not bad else {}
        asks = not view.connected or view.may_start or (bad and not view.own)
        return [
            view_html(view),
            gr.Row(visible=view.connected and self._who.may("curate")),
            gr.Button(visible=not view.down),
            gr.Button(visible=view.may_cancel),
            gr.Button(visible=bool(view.failures) and not view.down),
            gr.Button(visible=not view.down),
            gr.Button(visible=manages),
            gr.Column(visible=manages and asks and view.tone != "busy"),
            START_AGAIN if view.own else START,
            _first_words(words),
            view.model_dump_json(),
        ]

    def follow(self, seen: str) -> list[Any]:
        """As `arrive`, but nothing is sent to the page where nothing moved."""
        return [gr.skip()] * SCREEN if self._argilla.view().model_dump_json() == seen else self.arrive()

    def up(self) -> list[Any]:
        self._argilla.up_soon(self._who)
        return self.arrive()

    async def attach(self, url: str, key: str) -> AsyncIterator[list[Any]]:
        yield [_notice("Asking it …", "quiet"), *[gr.skip()] * (1 + SCREEN)]
        try:
            await asyncio.to_thread(self._argilla.attach, self._who, url, key)
        except UserError as error:
            said = " ".join(part for part in (error.found, error.wanted, error.do) if part)
            yield [_notice(said, "bad"), *[gr.skip()] * (1 + SCREEN)]
            return
        yield ["", "", *await asyncio.to_thread(self.arrive)]

    def sync(self) -> list[Any]:
        self._argilla.sync_soon(self._who)
        return self.arrive()

    def cancel(self) -> list[Any]:
        self._argilla.cancel(self._who)
        return self.arrive()

    def retry(self) -> list[Any]:
        self._argilla.retry(self._who)
        return self.arrive()

    def compare(self) -> list[Any]:
        self._argilla.reconcile_soon(self._who)
        return self.arrive()

    def ask(self) -> list[Any]:
        view = self._argilla.view()
        about = LEAVING.format(key="" if view.own else KEY_AGAIN)
        return [gr.Column(visible=True), about, gr.Button(visible=view.tone == "bad")]

    def stay(self) -> list[Any]:
        return [gr.Column(visible=False), "", gr.skip()]

    def leave(self) -> list[Any]:
        self._argilla.leave_soon(self._who)
        return [*self.stay(), *self.arrive()]

    def leave_anyway(self) -> list[Any]:
        self._argilla.leave_soon(self._who, anyway=True)
        return [*self.stay(), *self.arrive()]


def view_html(view: ArgillaView) -> str:
    """Where things stand, and how what was asked for last ended."""
    rows = [
        [f"<b>{escape(one.name)}</b>", str(one.charter_version)]
        + [f"{number:,}" for number in (one.there, one.waiting, one.pulled, one.begun, one.failed)]
        for one in view.datasets
    ]
    heads = ("Dataset", "Charter", "In Argilla", "To be sent", "Answers fetched", "Begun there", "Failed")
    datasets = (table(heads, rows, stack=True) if rows else "") + _shortened(view)
    failed = "".join(
        f'<li><a href="/review?reply={escape(reply)}">{escape(reply[:8])}</a>: {escape(reason)}</li>'
        for reply, reason in view.failures
    )
    failures = f'<h2 class="ts-h2">What could not go over</h2><ul>{failed}</ul>' if failed else ""
    return f'<div class="ts-card">{_standing(view)}{_outcome(view.outcome)}{datasets}{failures}{_begun(view)}</div>'


def _shortened(view: ArgillaView) -> str:
    if not (names := [escape(one.name) for one in view.datasets if one.shortened]):
        return ""
    about = "Argilla does not take all of the charter as guidelines. They end with a line that says so"
    return f'<p class="ts-muted ts-small">{about}: {", ".join(names)}.</p>'


def _standing(view: ArgillaView) -> str:
    link = (
        f'<a href="{escape(view.url, quote=True)}" target="_blank">Open&nbsp;Argilla</a>'
        if view.url and not view.down
        else ""
    )
    looked = f"Last look {ago(view.looked_at)}." if view.looked_at and view.tone != "busy" else ""
    detail = " ".join(part for part in (view.detail, looked) if part)
    about = f'<p class="ts-muted ts-small">{_coded(detail)}</p>' if detail else ""
    return f"<p>{badge(view.label, view.tone)} {link}</p>{about}{_bar(view)}"


def _bar(view: ArgillaView) -> str:
    """How far it is, where anybody knows."""
    if not view.progress or not view.progress.total:
        return ""
    share = f"{100 * min(1.0, view.progress.done / view.progress.total):.0f}"
    left = "" if view.seconds_left is None else f"About {duration(view.seconds_left)} left."
    left = "A few seconds left." if view.seconds_left is not None and view.seconds_left < FEW_SECONDS else left
    return (
        f'<div class="ts-progress" role="progressbar" aria-label="{escape(view.progress.what)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share}"><i style="width:{share}%"></i></div>'
        f'<p class="ts-muted ts-small">{left}</p>'
    )


def _outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    counts = "".join(f"<li>{escape(one)}</li>" for one in outcome.counts)
    listed = f"<ul>{counts}</ul>" if counts else ""
    look = "good" if outcome.well else "bad"
    when = f' <span class="ts-muted">{escape(ago(outcome.at).capitalize())}.</span>'
    return f'<div class="ts-notice ts-{look}" role="status">{_coded(outcome.text)}{when}{listed}</div>'


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


def _notice(text: str, tone: str) -> str:
    return f'<div class="ts-notice ts-{tone}" role="status">{_coded(text)}</div>'


def _coded(text: str) -> str:
    """Escaped, with commands in `backticks` as such."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))
