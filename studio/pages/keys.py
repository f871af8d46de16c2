"""API keys: call the model from one's own programs, and see and revoke the keys they hold."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from annotation.store.keys import NAME_LENGTH, PREFIX, ApiKey
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.words import ago, badge, table
from studio.services import Services

PLACE = "$API_KEY"
"""In the example, until there is a key to show."""
QUESTION = '{"model": "production", "messages": [{"role": "user", "content": "Where is my parcel?"}]}'
WHOLE_ADDRESS = """() => document.querySelectorAll('.ts-origin').forEach((place) => {
  place.textContent = window.location.origin;
})"""
"""Where this page was reached only the browser knows."""
COPY = """() => {
  const [shown, all, chosen] = [document.querySelector('#ts-example pre'), document.createRange(), getSelection()];
  all.selectNodeContents(shown);
  chosen.removeAllRanges();
  chosen.addRange(all);
  const done = document.execCommand('copy');  // also where the page has no https, unlike the newer way
  const button = document.querySelector('#ts-copy');
  button.textContent = done ? 'Copied' : 'Press Ctrl C';
  setTimeout(() => { button.textContent = 'Copy'; }, 2000);
}"""


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Models")
    lead = "Your own programs can ask the model too, in the way they would ask OpenAI."
    shell.title("API keys", lead, "API keys", shell.MODELS)
    with gr.Row(equal_height=False):
        with gr.Column(visible=False, scale=4, min_width=280) as controls:
            gr.HTML('<h2 class="ts-h2">A key for a program</h2>')
            name = gr.Textbox(
                label="What it is for",
                placeholder="for example: website",
                max_length=NAME_LENGTH,
                elem_id="ts-key-name",
            )
            person = gr.Dropdown(
                [], label="In whose name", info="It may do what they may", visible=False, elem_id="ts-key-person"
            )
            with gr.Row():
                make = gr.Button("Make a key", variant="primary", scale=0, min_width=140, elem_id="ts-make-key")
        with gr.Column(scale=7, min_width=280):
            gr.HTML('<h2 class="ts-h2">Ask the model</h2>')
            made = gr.HTML(elem_id="ts-key-made")
            example = gr.HTML(example_html(), elem_id="ts-example")
            with gr.Row():
                copy = gr.Button("Copy", scale=0, min_width=110, elem_id="ts-copy")
    gr.HTML('<h2 class="ts-h2">Keys</h2>')
    listed = gr.HTML(elem_id="ts-keys")
    with gr.Row(visible=False, equal_height=True) as ending:
        chosen = gr.Dropdown([], label="Key", scale=3, min_width=260, elem_id="ts-key")
        revoke = gr.Button("Revoke it", variant="stop", scale=0, min_width=120, elem_id="ts-revoke-key")

    act = by_person(services, _Ring)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    shown = [listed, ending, chosen]
    done = [*shown, made, example]
    gr.on([make.click, name.submit], act(_Ring.make), [name, person], [*done, name], **quiet).then(
        None, js=WHOLE_ADDRESS
    )
    revoke.click(act(_Ring.revoke), chosen, done, **quiet).then(None, js=WHOLE_ADDRESS)
    copy.click(None, js=COPY)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Ring.arrive), None, [*shown, controls, person], **quiet).then(None, js=WHOLE_ADDRESS)


class _Ring:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._keys = services.keys
        self._team = services.team
        self._who = services.who

    def arrive(self) -> list[Any]:
        everybody = self._who.may("manage")
        names = [person.name for person in self._team.people() if person.active] if everybody else []
        whose = gr.Dropdown(names, value=self._who.name if everybody else None, visible=everybody)
        return [*self._shown(), gr.Column(visible=self._who.may("judge")), whose]

    def make(self, name: str, person: str | None) -> list[Any]:
        made, key = self._keys.add(name, person)
        return [*self._shown(), made_html(made, key), example_html(key), ""]

    def revoke(self, key_id: str | None) -> list[Any]:
        ended = self._keys.revoke(key_id or "")
        said = f'<div class="ts-notice ts-good" role="status">{escape(ended.name)} opens nothing any more.</div>'
        return [*self._shown(), said, example_html()]

    def _shown(self) -> list[Any]:
        keys = self._keys.all()
        choices = [(f"{key.name} · {key.person} · {begin(key)}", key.id) for key in keys if not key.revoked_at]
        first = choices[0][1] if choices else None
        return [keys_html(keys), gr.Row(visible=bool(choices)), gr.Dropdown(choices, value=first)]


def begin(key: ApiKey) -> str:
    """What a key begins with, by which it is found in a program's settings."""
    return f"{PREFIX}-{key.id}-…"


def made_html(made: ApiKey, key: str) -> str:
    """A new key, the only time it is told."""
    return (
        f'<div class="ts-notice ts-good" role="status"><b>{escape(made.name)}</b> has a key, in the name of '
        f"{escape(made.person)}. Copy it now: it is not shown again.<br>"
        f'<code class="ts-link" id="ts-new-key">{escape(key)}</code></div>'
    )


def example_html(key: str = "") -> str:
    """A command that asks the model, with `key` in it, if there is one to show."""
    parts = (
        'curl <span class="ts-origin"></span>/v1/chat/completions',
        f'  -H "Authorization: Bearer {escape(key or PLACE)}"',
        '  -H "Content-Type: application/json"',
        f"  -d '{escape(QUESTION, quote=False)}'",
    )
    command = " \\\n".join(parts)
    return (
        f'<pre class="ts-lines ts-card" tabindex="0" aria-label="The command">{command}</pre>'
        '<p class="ts-small ts-muted">With OpenAI’s own libraries, <code>base_url</code> is <code>'
        '<span class="ts-origin"></span>/v1</code>. The model can be <code>production</code> (what customers get), '
        "<code>candidate</code>, <code>base</code>, or a loaded adapter’s name.</p>"
    )


def keys_html(keys: list[ApiKey]) -> str:
    """Keys with what became of them, those in force first."""
    if not keys:
        return '<p class="ts-muted">None yet.</p>'
    rows = [
        [
            f"<b>{escape(key.name)}</b>",
            escape(key.person),
            f"<code>{begin(key)}</code>",
            f"{ago(key.made_at)} by {escape(key.author)}",
            ago(key.last_used) if key.last_used else "never",
            badge(f"revoked {ago(key.revoked_at)} by {key.revoked_by}")
            if key.revoked_at
            else badge("in force", "good"),
        ]
        for key in sorted(keys, key=lambda key: key.revoked_at is not None)
    ]
    return table(("For", "In the name of", "Begins with", "Made", "Last used", "State"), rows, stack=True)
