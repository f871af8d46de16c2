"""Charter: the house rules as people read them, changed as a text, with what a change would mean before it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from annotation.charter import Change, system_prompt, write_markdown, write_toml
from annotation.errors import Conflict, UserError
from annotation.store.charters import kept_meanwhile
from annotation.types import Axis, Charter, Clause, Trait
from studio.charter_examples import shipped
from studio.parts import shell
from studio.parts.diff import diff_html
from studio.parts.downloads import offered
from studio.parts.guard import by_person
from studio.parts.words import TONES, WORDS, ago, badge, count, empty, short, table
from studio.services import Services
from studio.services.rules import Stale, VersionCard

FORMS = (("Text (Markdown)", "md"), ("TOML", "toml"))
SEVERE = {"minor": "quiet", "major": "warn", "critical": "bad"}


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Charter")
    shell.title("Charter", "The house rules that every reply is judged by. Each change is a new version.")
    act = by_person(services, _Chamber)
    with gr.Tabs() as tabs:
        with gr.Tab("Rules", id="rules"):
            stale = gr.HTML(elem_id="ts-stale")
            ask = gr.Button(
                "Ask for them again", scale=0, min_width=200, size="sm", visible=False, elem_id="ts-ask-again"
            )
            rules = gr.HTML(elem_id="ts-rules")
        with gr.Tab("Change them", id="edit"):
            with gr.Row():
                form = gr.Radio(FORMS, value="md", label="Written as", min_width=280, elem_id="ts-form")
                example = gr.Dropdown(
                    [("–", None), *((_title(name), name) for name in shipped())],
                    value=None,
                    label="Start from an example",
                    min_width=280,
                    elem_id="ts-example",
                )
            with gr.Row():
                file = gr.UploadButton(
                    "Open a file (.md, .toml)",
                    file_types=[".md", ".toml"],
                    size="sm",
                    scale=0,
                    min_width=210,
                    elem_id="ts-charter-file",
                )
            text = gr.Code(
                language="markdown",
                label="The rules as text",
                lines=24,
                max_lines=34,
                elem_id="ts-charter-text",
                wrap_lines=True,
            )
            with gr.Row():
                check = gr.Button("See what it would change", scale=0, min_width=240, elem_id="ts-check")
                keep = gr.Button(
                    "Keep it as the new version",
                    variant="primary",
                    scale=0,
                    min_width=250,
                    visible=False,
                    elem_id="ts-keep",
                )
            again = gr.Checkbox(True, label="Ask again for every reply whose judgement no longer holds", visible=False)
            consequence = gr.HTML(elem_id="ts-consequence")
            # The version that the text was made from, 0 for none: on the page, so that it outlives a restart.
            base = gr.Number(precision=0, visible="hidden", label="Made from version", elem_id="ts-charter-base")
        with gr.Tab("Versions", id="versions"):
            with gr.Row():
                old = gr.Dropdown([], label="From version", min_width=300, elem_id="ts-old")
                new = gr.Dropdown([], label="To version", min_width=300, elem_id="ts-new")
            difference = gr.HTML(elem_id="ts-charter-difference")
            with gr.Row():
                files = [
                    gr.DownloadButton(f"The newest as {name}", size="sm", scale=0, min_width=220, visible=False)
                    for name in ("Markdown", "TOML")
                ]
        with gr.Tab("As instructions", id="prompt"):
            gr.HTML(
                '<p class="ts-muted">What a model is told, where it is given the rules instead of trained on them: the '
                "drafts on the review desk are written under it.</p>"
            )
            prompt = gr.HTML(elem_id="ts-prompt")

    screen = [rules, text, old, new, difference, *files, prompt, base]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    form.input(act(_Chamber.as_form), [text, form], [text, form, consequence], **quiet)
    example.input(act(_Chamber.example), [example, form], [text, consequence, keep, again], **quiet)
    file.upload(act(_Chamber.opened), file, [text, form, base, consequence, keep, again], **quiet)
    check.click(act(_Chamber.check), [text, form, base], [consequence, keep, again, base], **quiet)
    text.change(
        lambda: (gr.Button(visible=False), gr.Checkbox(visible=False)), None, [keep, again], queue=False, **quiet
    )
    kept = [consequence, keep, again, *screen, tabs]
    keep.click(act(_Chamber.keep), [text, form, again, base], kept, api_name=False).then(
        act(_Chamber.left_alone), None, [stale, ask], **quiet
    )
    ask.click(act(_Chamber.ask_again), None, [stale, ask], **quiet)
    gr.on([old.input, new.input], act(_Chamber.between), [old, new], difference, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Chamber.arrive), form, screen, **quiet)
        page.load(act(_Chamber.left_alone), None, [stale, ask], **quiet)


class _Chamber:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._charter = services.charter
        self._may_curate = services.who.may("curate")

    def arrive(self, form: str) -> list[Any]:
        now = self._charter.current()
        if now is None:
            why = "Start from an example under ‘Change them’, or open a file of your own."
            nothing = empty("No rules yet", why)
            return [nothing, "", gr.Dropdown([]), gr.Dropdown([]), "", *[gr.DownloadButton(visible=False)] * 2, "", 0]
        cards = self._charter.versions()
        choices = [(f"Version {card.version}, {card.author}, {ago(card.made_at)}", card.version) for card in cards]
        before = cards[1].version if len(cards) > 1 else now.version
        return [
            charter_html(now),
            # What was wording only in that version is not so in the next one by itself.
            write_as(now.model_copy(update={"wording_only": ()}), form),
            gr.Dropdown(choices, value=before),
            gr.Dropdown(choices, value=now.version),
            self.between(before, now.version),
            *(gr.DownloadButton(value=path, visible=True) for path in _files(now)),
            f'<div class="ts-diff">{escape(system_prompt(now))}</div>',
            now.version,
        ]

    def left_alone(self) -> list[Any]:
        """Answers that stopped to hold and were not asked for again, for curators."""
        found = self._charter.stale() if self._may_curate else Stale()
        if not found.answers:
            return ["", gr.Button(visible=False)]
        holds = "holds" if found.answers == 1 else "hold"
        said = f"{_so_many(found.answers, found.replies)} no longer {holds}: the rules have changed since."
        notice = f'<div class="ts-notice" role="status"><b>{escape(said)}</b></div>'
        return [notice + stale_html(found), gr.Button(visible=True)]

    def ask_again(self) -> list[Any]:
        number = count(self._charter.ask_stale_again(), "reply waits", "replies wait")
        where = "On Find they are under ‘Asked again’."
        return [f'<div class="ts-notice ts-good" role="status">{number} again. {where}</div>', gr.Button(visible=False)]

    def as_form(self, text: str, form: str) -> list[Any]:
        """The same rules, written the other way. What can't be read stays as it is, with the reason."""
        other = "md" if form == "toml" else "toml"
        if not text.strip():
            return [gr.Code(language=_language(form)), form, ""]
        try:
            return [gr.Code(write_as(self._charter.read(text, other), form), language=_language(form)), form, ""]
        except UserError as error:
            return [gr.skip(), other, _wrong(error)]

    def example(self, name: str | None, form: str) -> list[Any]:
        if not name:
            return [gr.skip()] * 4
        charter = self._charter.read(shipped()[name].read_text(encoding="utf-8"), "toml")
        return [write_as(charter, form), *_not_checked()]

    def opened(self, path: str) -> list[Any]:
        form = "toml" if path.lower().endswith(".toml") else "md"
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        return [gr.Code(text, language=_language(form)), form, self._stated(text, form), *_not_checked()]

    def _stated(self, text: str, form: str) -> Any:
        """The older version of ours that a file says it was made from."""
        try:
            charter, now = self._charter.read(text, form), self._charter.current()
        except UserError:
            return gr.skip()
        older = now is not None and "version" in charter.model_fields_set and charter.version < now.version
        return charter.version if older else gr.skip()

    def check(self, text: str, form: str, base: int) -> list[Any]:
        """What keeping the text would change, and before it what others kept since the version it was made from. Who
        has seen that may keep theirs all the same.
        """
        try:
            found = self._charter.consequence(self._charter.read(text, form))
        except UserError as error:  # stays beside the text while it is mended; a notice would be gone in a moment
            return [_wrong(error), gr.Button(visible=False), gr.Checkbox(visible=False), gr.skip()]
        cards = self._charter.versions()
        newest = cards[0].version if cards else 0
        if cards and not found.changes:
            said = '<div class="ts-notice" role="status">That says the same as the version in force.</div>'
            return [said, gr.Button(visible=False), gr.Checkbox(visible=False), newest]
        stale = (
            f"{_so_many(found.answers, found.replies)} would no longer hold."
            if found.answers
            else "Every earlier answer would still hold."
        )
        said = f'<div class="ts-notice" role="status"><b>{escape(stale)}</b></div>{changes_html(found.changes)}'
        said += stale_html(self._charter.stale(found.charter)) if self._may_curate else ""
        said = self._meanwhile(base, cards) + said
        return [said, gr.Button(visible=True), gr.Checkbox(visible=found.answers > 0), newest]

    def _meanwhile(self, base: int, cards: Sequence[VersionCard]) -> str:
        """That there is a newer version than the text was made from, and what it changed; '' if there is none."""
        if not cards or cards[0].version == base:
            return ""
        newest = cards[0]
        changed = changes_html(self._charter.between(base, newest.version)) if base else ""
        yours = '<p class="ts-muted">Keeping your text as it is would mean:</p>'
        return _wrong(kept_meanwhile(newest.author, newest.version)) + changed + yours

    def keep(self, text: str, form: str, again: bool, base: int) -> list[Any]:
        try:
            kept = self._charter.save(self._charter.read(text, form), again, base)
        except Conflict:
            *shown, newest = self.check(text, form, base)
            return [*shown, *[gr.skip()] * 8, newest, gr.skip()]
        said = f'<div class="ts-notice ts-good" role="status">Version {kept.version} is in force.</div>'
        return [
            said,
            gr.Button(visible=False),
            gr.Checkbox(visible=False),
            *self.arrive(form),
            gr.Tabs(selected="rules"),
        ]

    def between(self, old: int | None, new: int | None) -> str:
        if old is None or new is None:
            return ""
        changes = self._charter.between(old, new)
        return changes_html(changes) if changes else '<p class="ts-muted">No difference.</p>'


def _files(charter: Charter) -> Iterator[str]:
    """A version in both forms."""
    for form in ("md", "toml"):
        yield offered(f"charter-{charter.version}.{form}", write_as(charter, form))


def write_as(charter: Charter, form: str) -> str:
    """A charter as `md` or `toml`."""
    return write_toml(charter) if form == "toml" else write_markdown(charter)


def _language(form: str) -> Any:
    return "markdown" if form == "md" else None


def _title(name: str) -> str:
    return name.replace("-", " ").capitalize()


def _wrong(error: UserError) -> str:
    said = " ".join(part for part in (error.wanted, error.do) if part)
    lines = escape(error.found).replace("\n", "<br>")
    return f'<div class="ts-notice ts-bad" role="alert"><b>{lines}</b> {escape(said)}</div>'


def _not_checked() -> list[Any]:
    return ["", gr.Button(visible=False), gr.Checkbox(visible=False)]


def charter_html(charter: Charter) -> str:
    """The rules as people read them."""
    languages = f" · replies in {', '.join(charter.languages)}" if charter.languages else ""
    head = (
        f'<p class="ts-small ts-muted">{badge(f"version {charter.version}")}{escape(languages)}</p>'
        f'<h2 class="ts-h2">{escape(charter.name)}</h2><p class="ts-purpose">{escape(charter.purpose)}</p>'
    )
    parts = (
        ("Voice", "".join(_trait(rule) for rule in charter.voice)),
        ("Policy", "".join(_clause(rule) for rule in charter.policy)),
        ("Fairness", "".join(_axis(rule) for rule in charter.bias)),
    )
    body = "".join(f'<section><h2 class="ts-h2">{name}</h2>{rules}</section>' for name, rules in parts if rules)
    return f'<div class="ts-charter">{head}{body}</div>'


def _rule(rule: Trait | Clause | Axis, more: str, mark: str = "") -> str:
    return f"<article><h3><code>{escape(rule.id)}</code>{mark}</h3><p>{escape(rule.text)}</p>{more}</article>"


def _trait(rule: Trait) -> str:
    return _rule(
        rule,
        _quoted("Do", rule.dos, "good") + _quoted("Don’t", rule.donts, "bad") + _quoted("For example", rule.examples),
    )


def _clause(rule: Clause) -> str:
    return _rule(rule, _quoted("Breaks it", rule.violations, "bad"), badge(rule.severity, SEVERE[rule.severity]))


def _axis(rule: Axis) -> str:
    groups = f'<p class="ts-small ts-muted">Compares {escape(", ".join(rule.groups))}.</p>' if rule.groups else ""
    return _rule(rule, groups)


def _quoted(label: str, texts: Sequence[str], tone: str = "quiet") -> str:
    lines = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<div class="ts-quoted"><b class="ts-{tone}">{label}</b><ul>{lines}</ul></div>' if texts else ""


def _so_many(answers: int, replies: int) -> str:
    return f"{count(answers, 'answer')} about {count(replies, 'reply', 'replies')}"


def stale_html(found: Stale) -> str:
    """The answers that no longer hold, each with a link to its reply; '' if there is none."""
    if not found.first:
        return ""
    rows = [
        [
            f'<div style="min-width:230px"><a href="/review?reply={escape(one.reply_id)}">{escape(short(one.reply))}'
            "</a></div>",
            escape(one.reviewer),
            f"{badge(WORDS[one.question][one.value], TONES[one.value])} {escape(', '.join(one.clause_ids))}",
            f"version {one.made_under}",
        ]
        for one in found.first
    ]
    rest = found.answers - len(found.first)
    caption = f"The first {len(found.first)}; {rest:,} more" if rest else "All of them"
    return table(("Reply", "Who", "Answer", "Given under"), rows, caption)


def changes_html(changes: Sequence[Change]) -> str:
    """What changed, a sentence each, with the words that differ."""
    lines = []
    for change in changes:
        before, after = (_text(value) for value in (change.before, change.after))
        detail = f'<div class="ts-diff" dir="auto">{diff_html(before, after)}</div>' if before != after else ""
        lines.append(f"<li><p>{escape(change.sentence())}</p>{detail}</li>")
    return f'<ul class="ts-changes">{"".join(lines)}</ul>'


def _text(value: object) -> str:
    return "\n".join(str(part) for part in value) if isinstance(value, tuple | list) else str(value or "")
