"""Datasets: make a version from what was judged; see what went in, and what was left out and why."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from annotation.provenance import in_one_word
from annotation.types import DatasetVersion
from annotation.versions import reasons
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.words import HOW, ago, badge, count, empty, table
from studio.services import Services
from studio.services.datasets import Preview

ROWS_SHOWN = 25
ORIGINS = {"approved": "approved as it was", "corrected": "corrected", "starter": "starter set"}
SHOWN = (
    ("Rows to learn from", "sft"),
    ("Pairs", "preference"),
    ("Kept back to check", "held_out"),
    ("Left out", "left_out"),
)
EMPTY_TAB = {
    "sft": "No rows.",
    "preference": "No pairs. Corrections and votes make them.",
    "held_out": "Nothing kept back: that starts at 20 rows.",
    "left_out": "Nothing was left out.",
}


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Datasets")
    shell.title("Datasets", "A version freezes what was judged so far, and never changes.")
    act = by_person(services, _Shelf)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            preview = gr.HTML(elem_id="ts-preview")
        with gr.Column(scale=3, min_width=280):
            note = gr.Textbox(label="What is new in it (optional)", max_length=200, elem_id="ts-note")
            make = gr.Button("Make a version", variant="primary", elem_id="ts-make")
    said = gr.HTML()
    chosen = gr.Dropdown([], label="Look into a version", elem_id="ts-version")
    card = gr.HTML(elem_id="ts-card")
    panes = []
    with gr.Tabs(visible=False) as tabs:
        for name, key in SHOWN:
            with gr.Tab(name):
                panes.append(gr.HTML(elem_id=f"ts-rows-{key}"))
    files = gr.Files(label="Files to take along", visible=False, height=150)

    inside = [card, tabs, *panes, files]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    make.click(act(_Shelf.make), note, [said, note, preview, chosen, *inside], api_name=False)
    chosen.input(act(_Shelf.look), chosen, inside, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Shelf.arrive), None, [preview, chosen, *inside], **quiet)


class _Shelf:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._datasets = services.datasets

    def arrive(self) -> list[Any]:
        versions = self._datasets.all()
        picked = versions[0].id if versions else None
        return [preview_html(self._datasets.preview()), _picker(versions, picked), *self.look(picked)]

    def make(self, note: str) -> list[Any]:
        version = self._datasets.make(note)
        said = (
            f'<div class="ts-notice ts-good" role="status">Version {version.number} is made: '
            f"{count(version.rows['sft'], 'row')} and {count(version.rows['preference'], 'pair')}. "
            '<a href="/training">Train on it</a></div>'
        )
        return [said, "", *self.arrive()]

    def look(self, version_id: str | None) -> list[Any]:
        if not version_id:
            nothing = empty(
                "No version yet", "Review a few replies, then press ‘Make a version’.", "/review", "Go to Review"
            )
            return [nothing, gr.Tabs(visible=False), *[""] * len(SHOWN), gr.Files(visible=False)]
        version = self._datasets.get(version_id)
        panes = [_rows_html(key, self._datasets.rows(version, key)) for _, key in SHOWN]
        folder = self._datasets.folder(version)
        files = [str(folder / f"{name}.jsonl") for name in ("sft", "preference", "unpaired", "held_out", "left_out")]
        return [_card(version), gr.Tabs(visible=True), *panes, gr.Files(files, visible=True)]


def _picker(versions: list[DatasetVersion], picked: str | None) -> Any:
    choices = [
        (f"Version {version.number} · {ago(version.made_at)} · {version.note or version.id}", version.id)
        for version in versions
    ]
    return gr.Dropdown(choices, value=picked, visible=bool(versions))


def preview_html(rows: Preview) -> str:
    """What a version made now would hold."""
    facts = (
        ("Rows to learn from", rows.sft),
        ("Preference pairs", rows.preference),
        ("Kept back to check", rows.held_out),
        ("Left out", rows.left_out),
    )
    about = "" if rows.exact else "about "
    cells = "".join(f"<div><dt>{name}</dt><dd>{about}{number:,}</dd></div>" for name, number in facts)
    hint = (
        f'<p class="ts-small ts-muted">{count(rows.starter, "row")} from the starter set that came with the demo.</p>'
        if rows.starter
        else ""
    )
    head = '<h2 class="ts-h2" style="margin-top:0">If you make one now</h2>'
    return f'<div class="ts-card">{head}<dl class="ts-facts">{cells}</dl>{hint}</div>'


def _card(version: DatasetVersion) -> str:
    parent = f" · follows {escape(version.parent_id)}" if version.parent_id else ""
    return (
        f'<p class="ts-small ts-muted">{badge(version.id)} made by {escape(version.author)}, '
        f"{version.made_at:%d %b %Y %H:%M} UTC"
        f"{parent} · charter version {version.charter_version}</p>"
    )


def _rows_html(key: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return f'<p class="ts-muted">{EMPTY_TAB[key]}</p>'
    more = f" The first {ROWS_SHOWN} are shown; the file has all." if len(rows) > ROWS_SHOWN else ""
    caption = f"{count(len(rows), 'row')}.{more}"
    if key == "left_out":
        why = "".join(f"<li>{number:,} × {escape(reason)}</li>" for reason, number in reasons(rows).items())
        shown = [[escape(_short(row["text"])), escape(row["reason"])] for row in rows[:ROWS_SHOWN]]
        return f"<ul>{why}</ul>{table(('What', 'Why'), shown, caption)}"
    if key == "preference":
        shown = [
            [escape(_short(row["prompt"][-1]["content"])), escape(_short(row["chosen"][0]["content"])),
             escape(_short(row["rejected"][0]["content"])), badge(row["source"])]
            for row in rows[:ROWS_SHOWN]
        ]  # fmt: skip
        return table(("Asked", "Better", "Worse", "From a"), shown, caption)
    shown = [
        [
            escape(_short(row["messages"][-2]["content"])),
            escape(_short(row["messages"][-1]["content"])),
            badge(ORIGINS[row["origin"]]) + _how(row),
        ]
        for row in rows[:ROWS_SHOWN]
    ]
    return table(("Asked", "Reply", "How"), shown, caption)


def _how(row: dict[str, Any]) -> str:
    """How the answers about a row came about; rows of older versions don't say."""
    how = in_one_word(row.get("settled") or {})
    return f'<div class="ts-small ts-muted">{HOW[how]}</div>' if how else ""


def _short(text: str, limit: int = 220) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
