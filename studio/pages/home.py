"""Home: where the loop stands, and the one next thing to do."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from annotation.importers.chat_logs import import_file
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.words import ago, count
from studio.services import Overview, Services

REFUSED_SHOWN = 20


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Home")
    shell.title(
        "Where the loop stands", "Talk with your model, put its replies right, train on that, and see who wins."
    )
    overview = gr.HTML(min_height=230, elem_id="ts-overview")
    with gr.Accordion("Bring in conversations", open=False, elem_id="ts-import"):
        gr.HTML(
            '<p class="ts-muted">A <b>.jsonl</b> file with one conversation a line (OpenAI or ShareGPT style), or a '
            "<b>.csv</b> with a prompt and a reply column. Lines that can’t be read are refused by number; "
            "the rest go in. Importing the same file twice adds nothing.</p>"
        )
        file = gr.File(label="Chat log", file_types=[".jsonl", ".ndjson", ".csv"], height=120)
        report = gr.HTML()

    act = by_person(services, _Hall)
    file.upload(act(_Hall.bring_in), file, [report, overview], api_name=False)
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_name": False}
    gr.Timer(5).tick(act(_Hall.look), None, overview, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Hall.look), None, overview, **quiet)


class _Hall:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def look(self) -> str:
        return overview_html(self._services.overview())

    def bring_in(self, path: str | None, progress: gr.Progress = gr.Progress()) -> tuple[str, str]:  # noqa: B008 -- Gradio's way
        if not path:
            return "", self.look()
        self._services.who.must("judge")
        done = import_file(self._services.store, Path(path), report=lambda share: progress(share, desc="Reading"))
        lines = "".join(
            f"<li>Line {refused.line}: {escape(refused.reason)}</li>" for refused in done.refused[:REFUSED_SHOWN]
        )
        more = len(done.refused) - REFUSED_SHOWN
        tail = f"<li>… and {more} more.</li>" if more > 0 else ""
        text = f'<div class="ts-notice" role="status"><b>{escape(done.sentence())}</b><ul>{lines}{tail}</ul></div>'
        return text, self.look()


def overview_html(now: Overview) -> str:
    """The next step and the five stations of the loop."""
    step = now.next_step()
    stations = (
        ("/chat", "Collect", now.conversations, "conversations"),
        ("/review", "Review", now.waiting, "replies waiting, " + f"{now.reviewed:,} done"),
        ("/datasets", "Curate", now.datasets, "dataset versions" if now.datasets != 1 else "dataset version"),
        ("/training", "Train", now.runs, _runs(now)),
        ("/compare", "Compare", now.votes, _votes(now)),
    )
    cells = "".join(
        f'<a href="{link}"><span class="ts-step">{name}</span><strong>{number:,}</strong>'
        f'<span class="ts-what">{escape(what)}</span></a>'
        for link, name, number, what in stations
    )
    return (
        '<div class="ts-next" role="region" aria-label="Next step">'
        f"<div><h2>{escape(step.title)}</h2><p>{escape(step.why)}</p></div>"
        f'<a class="ts-button" id="ts-next" href="{step.link}">{escape(step.action)}</a></div>'
        f'<div class="ts-loop">{cells}</div>'
    )


def _runs(now: Overview) -> str:
    word = "runs" if now.runs != 1 else "run"
    running = ", one under way" if now.running else ""
    return f"{word}{running}, {count(now.adapters_loaded, 'adapter')} loaded"


def _votes(now: Overview) -> str:
    if not now.votes:
        return "votes so far"
    last = f"; last {ago(now.last_vote.voted_at)}" if now.last_vote and now.last_vote.voted_at else ""
    return f"{'votes' if now.votes != 1 else 'vote'}: tuned won {now.tuned_won}, base {now.base_won}{last}"
