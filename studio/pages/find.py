"""Find: search and filter replies, keep views, and change many at once with a look before and an undo after."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple, get_args

import gradio as gr

from annotation.acts import Outcome
from annotation.store.batches import Batch, Change
from annotation.store.search import Filter, Hit
from studio.pages.team import queue_name
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.words import HOW, NAMES, ago, badge, count, duration, empty, short, table
from studio.services import Services
from studio.services.suggest import BatchView

STATES = (
    ("Waiting", "waiting"), ("Reviewed", "reviewed"), ("Set aside", "skipped"), ("Reviewers differ", "disputed"),
    ("Flagged", "flagged"), ("Asked again", "stale"), ("Hidden check", "gold"),
)  # fmt: skip
SAID = {
    "open": "waiting",
    "full": "being judged",
    "done": "reviewed",
    "disputed": "reviewers differ",
    "skipped": "set aside",
    "gold": "hidden check",
}
VALUES = (("Fine", "pass"), ("At fault", "fail"), ("Not sure", "unsure"), ("Does not apply", "not_applicable"))
FIELDS = (
    "text",
    "state",
    "outcome",
    "question",
    "value",
    "clause",
    "reviewer",
    "source",
    "language",
    "model",
    "assignee",
    "queue",
)
PAGE = 25


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Review")
    shell.title("Find", "Search the conversations, open a reply, or change many at once.", "Find")
    act = by_person(services, _Shelf)
    with gr.Row():
        text = gr.Textbox(
            label="Words",
            info='All of them; "in quotes" as a phrase, refund* for a beginning',
            max_length=200,
            scale=5,
            min_width=300,
            elem_id="ts-words",
        )
        state = gr.Dropdown(
            [("Any", ""), *STATES], value="", label="Where it stands", scale=2, min_width=160, elem_id="ts-state"
        )
        view = gr.Dropdown([], label="Views", scale=2, min_width=160, elem_id="ts-view")
    with gr.Accordion("More filters", open=False):
        with gr.Row():
            outcome = gr.Dropdown(
                [("Any", ""), *((name.capitalize(), name) for name in get_args(Outcome))], value="", label="Came to"
            )
            question = gr.Dropdown(
                [("Any", ""), *((name, key) for key, name in NAMES.items())], value="", label="Question"
            )
            value = gr.Dropdown([("Any", ""), *VALUES], value="", label="Answer")
            clause = gr.Dropdown([("Any", "")], value="", label="Rule at fault")
        with gr.Row():
            reviewer = gr.Dropdown([("Anybody", "")], value="", label="Judged by")
            source = gr.Dropdown([("Any", "")], value="", label="Came from")
            language = gr.Dropdown([("Any", "")], value="", label="Language")
            model = gr.Textbox(label="Written by", info="A model or an adapter", max_length=200)
            assignee = gr.Dropdown([("Anybody", "")], value="", label="Kept for")
            queue = gr.Dropdown([("Any", "")], value="", label="Queue")
        name = gr.Textbox(label="Keep this as a view called", max_length=100, elem_id="ts-view-name")
        with gr.Row():
            keep = gr.Button("Keep the view", scale=0, min_width=150, elem_id="ts-keep-view")
            drop = gr.Button("Remove the chosen view", scale=0, min_width=250, elem_id="ts-drop-view")
    with gr.Row():
        look = gr.Button("Find", variant="primary", scale=0, min_width=120, elem_id="ts-find")
    found = gr.HTML(elem_id="ts-found")
    with gr.Row():
        first = gr.Button("From the start", size="sm", scale=0, visible=False, min_width=130, elem_id="ts-first")
        more = gr.Button("Next page", size="sm", scale=0, visible=False, min_width=130, elem_id="ts-more")
    after = gr.State(0)
    with gr.Accordion("Change all of them at once", open=False, visible=False, elem_id="ts-batch") as at_once:
        with gr.Row():
            give = gr.Dropdown([("As it is", ""), ("Everybody", "*")], value="", label="Keep for", elem_id="ts-give")
            skill = gr.Textbox(label="Ask for the skill", info="For example a language tag; a single - asks for none")
            priority = gr.Dropdown(
                [("As it is", ""), ("First", 2), ("Earlier", 1), ("Ordinary", 0), ("Later", -1)],
                value="",
                label="When",
                elem_id="ts-priority",
            )
            overlap = gr.Dropdown(
                [("As it is", ""), *((str(number), number) for number in range(1, 6))],
                value="",
                label="Reviewers each",
                info="More for those “Reviewed” deals them again, to others",
            )
            move = gr.Textbox(label="Move to the queue", max_length=64, elem_id="ts-move")
            aside = gr.Checkbox(label="Set them aside", elem_id="ts-aside")
        with gr.Row():
            preview = gr.Button("See what it would change", scale=0, min_width=240, elem_id="ts-preview-change")
            make = gr.Button(
                "Change them", variant="primary", scale=0, min_width=150, visible=False, elem_id="ts-make-change"
            )
        said = gr.HTML(elem_id="ts-change-said")
        past = gr.Dropdown([], label="Earlier changes", elem_id="ts-past")
        with gr.Row():
            undo = gr.Button("Take it back", scale=0, min_width=150, elem_id="ts-take-back")

    ask = _ask_a_model()

    form = [text, state, outcome, question, value, clause, reviewer, source, language, model, assignee, queue]
    change = [give, skill, priority, overlap, move, aside]
    page_of = [found, first, more, after]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    gr.on([look.click, text.submit, first.click], act(_Shelf.look), form, page_of, **quiet)
    more.click(act(_Shelf.more), [after, *form], page_of, **quiet)
    view.input(act(_Shelf.use_view), view, [*form, *page_of], **quiet)
    keep.click(act(_Shelf.keep_view), [name, *form], [view, name], **quiet)
    drop.click(act(_Shelf.drop_view), view, view, **quiet)
    preview.click(act(_Shelf.preview), [*form, *change], [said, make], **quiet)
    make.click(act(_Shelf.make), [*form, *change], [said, make, past, *page_of], **quiet)
    undo.click(act(_Shelf.undo), [past, *form], [said, past, *page_of], **quiet)
    ask.start.click(act(_Shelf.ask), [ask.model, ask.number, *form], ask.said, **quiet)
    ask.stop.click(act(_Shelf.stop_asking), None, ask.said, **quiet)
    ask.timer.tick(act(_Shelf.asking), ask.said, [ask.said, ask.stop], **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Shelf.for_curators), None, [at_once, ask.whole, ask.model, ask.timer], **quiet)
        choices = [view, clause, reviewer, source, language, assignee, queue, give, past]
        page.load(act(_Shelf.arrive), None, [*choices, *page_of], **quiet)


class _Ask(NamedTuple):
    """The components of "Let a model suggest answers"."""

    whole: gr.Accordion
    model: gr.Dropdown
    number: gr.Number
    start: gr.Button
    stop: gr.Button
    said: gr.HTML
    timer: gr.Timer


def _ask_a_model() -> _Ask:
    with gr.Accordion("Let a model suggest answers", open=False, visible=False, elem_id="ts-ask") as whole:
        gr.HTML(
            '<p class="ts-muted">The model is asked about each reply found above, rule by rule. Reviewers see what it '
            "says beside the reply, where their queue shows suggestions; it never counts as an answer.</p>"
        )
        with gr.Row():
            model = gr.Dropdown([], label="Model", elem_id="ts-ask-model")
            number = gr.Number(
                50, label="Replies at most", minimum=1, maximum=10_000, precision=0, elem_id="ts-ask-most"
            )
        with gr.Row():
            start = gr.Button("Ask", variant="primary", scale=0, min_width=120, elem_id="ts-ask-start")
            stop = gr.Button("Stop", scale=0, min_width=100, visible=False, elem_id="ts-ask-stop")
        said = gr.HTML(elem_id="ts-ask-said")
        return _Ask(whole, model, number, start, stop, said, gr.Timer(1, active=False))


class _Shelf:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._find = services.find
        self._charter = services.charter
        self._team = services.team
        self._may_curate = services.who.may("curate")
        self._services = services

    def arrive(self) -> list[Any]:
        there = self._find.choices()
        charter = self._charter.current()
        rules = [rule for part in (charter.voice, charter.policy, charter.bias) for rule in part] if charter else []
        anything = [("Any", "")]
        people = [(person.name, person.name) for person in self._team.people() if person.active]
        dropdowns = [
            self._views(""),
            gr.Dropdown([*anything, *((rule.id, rule.id) for rule in rules)]),
            *(
                gr.Dropdown([*anything, *((value, value) for value in there[name])])
                for name in ("reviewer", "source", "language", "assignee", "queue")
            ),
            gr.Dropdown([("As it is", ""), ("Everybody", "*"), *people]),
            self._past(),
        ]
        return [*dropdowns, *self._page(Filter(), 0)]

    def look(self, *form: Any) -> list[Any]:
        return self._page(_filter(form), 0)

    def more(self, after: int, *form: Any) -> list[Any]:
        return self._page(_filter(form), after)

    def use_view(self, view_id: str | None) -> list[Any]:
        view = next((view for view in self._find.views() if view.id == view_id), None)
        wanted = view.filter if view else Filter()
        return [*(getattr(wanted, name) or "" for name in FIELDS), *self._page(wanted, 0)]

    def keep_view(self, name: str, *form: Any) -> list[Any]:
        view = self._find.keep_view(name, _filter(form))
        return [self._views(view.id), ""]

    def drop_view(self, view_id: str | None) -> Any:
        self._find.drop_view(view_id or "")
        return self._views("")

    def preview(self, *values: Any) -> list[Any]:
        wanted, change = _filter(values[: len(FIELDS)]), _change(values[len(FIELDS) :])
        number = self._find.preview(wanted, change)
        if not change.sentence():
            return ['<p class="ts-muted">Choose what to do with them.</p>', gr.Button(visible=False)]
        which = "" if change.overlap and wanted.state in ("reviewed", "disputed") else "waiting "
        text = f"This would touch {count(number, which + 'reply', which + 'replies')}: {change.sentence()}."
        return [f'<div class="ts-notice" role="status">{escape(text)}</div>', gr.Button(visible=number > 0)]

    def make(self, *values: Any) -> list[Any]:
        wanted = _filter(values[: len(FIELDS)])
        batch = self._find.change(wanted, _change(values[len(FIELDS) :]))
        text = f"Done for {count(batch.size, 'reply', 'replies')}. It can be taken back below."
        said = f'<div class="ts-notice ts-good" role="status">{text}</div>'
        return [said, gr.Button(visible=False), self._past(), *self._page(wanted, 0)]

    def undo(self, batch_id: str | None, *form: Any) -> list[Any]:
        number = self._find.take_back(batch_id or "")
        said = f'<div class="ts-notice ts-good" role="status">Taken back for {count(number, "reply", "replies")}.</div>'
        return [said, self._past(), *self._page(_filter(form), 0)]

    def for_curators(self) -> list[Any]:
        """The page is laid out once for everybody: who may use these parts is seen when they come."""
        choices, may = self._services.serving.choices(), self._may_curate
        return [
            gr.Accordion(visible=may),
            gr.Accordion(visible=may),
            gr.Dropdown(choices, value=choices[0][1]),
            gr.Timer(active=may),
        ]

    def ask(self, model: str | None, number: float, *form: Any) -> str:
        batch = self._services.suggesting
        batch.start(self._services.who, _filter(form), model or "base", int(number))
        return asking_html(batch.view())

    def stop_asking(self) -> str:
        self._services.suggesting.cancel(self._services.who)
        return asking_html(self._services.suggesting.view())

    def asking(self, shown: str | None) -> list[Any]:
        """What changed since; nothing is sent to the page where nothing moved."""
        view = self._services.suggesting.view()
        said = asking_html(view)
        return [gr.skip(), gr.skip()] if said == (shown or "") else [said, gr.Button(visible=view.running)]

    def _views(self, chosen: str) -> Any:
        views = [(f"{view.name} ({view.owner})", view.id) for view in self._find.views()]
        return gr.Dropdown([("All replies", ""), *views], value=chosen)

    def _past(self) -> Any:
        undone = [batch for batch in self._find.changes() if batch.undone_at is None] if self._may_curate else []
        return gr.Dropdown([(_in_words(batch), batch.id) for batch in undone], value=undone[0].id if undone else None)

    def _page(self, wanted: Filter, after: int) -> list[Any]:
        hits = self._find.find(wanted, after, PAGE + 1)
        shown, rest = hits[:PAGE], hits[PAGE:]
        number = count(self._find.count(wanted), "reply", "replies")
        return [
            hits_html(shown, number),
            gr.Button(visible=after > 0),
            gr.Button(visible=bool(rest)),
            shown[-1].position if shown else 0,
        ]


def asking_html(view: BatchView) -> str:
    """How far a model has come with its suggestions; empty where none was asked."""
    if view.trouble:
        return f'<div class="ts-notice ts-bad" role="alert">{escape(view.trouble)}</div>'
    if not view.model:
        return ""
    done = f"{view.done:,} of {count(view.of, 'reply', 'replies')}"
    if not view.running:
        return f'<div class="ts-notice ts-good" role="status">{escape(view.model)} was asked about {done}.</div>'
    left = f", about {duration(view.eta_seconds)} left" if view.eta_seconds is not None else ""
    width = 100 * view.done / view.of if view.of else 0
    text = f"Asking {escape(view.model)}: {done}{left}"
    return f'<p role="status">{text}</p><div class="ts-progress"><i style="width:{width:.0f}%"></i></div>'


def _filter(form: Any) -> Filter:
    given = {name: value for name, value in zip(FIELDS, form, strict=True) if value not in (None, "")}
    return Filter.model_validate(given)


def _change(values: Any) -> Change:
    assignee, skill, priority, overlap, queue, aside = values
    return Change(
        assignee={"": None, "*": ""}.get(assignee, assignee),
        skill={"": None, "-": ""}.get(skill.strip(), skill.strip()),
        priority=None if priority == "" else priority,
        overlap=None if overlap == "" else overlap,
        queue=queue_name(queue) if queue.strip() else None,
        set_aside=True if aside else None,
    )


def _in_words(batch: Batch) -> str:
    return f"{ago(batch.made_at)}, {batch.author}: {batch.change.sentence()} ({count(batch.size, 'reply', 'replies')})"


def hits_html(hits: list[Hit], number: str) -> str:
    """The replies that were found, each with a link to the desk."""
    if not hits:
        return empty("Nothing is like that", "Take a filter away, or look for fewer words.")
    rows = [
        [
            '<div style="min-width:230px">'
            f'<a href="/review?reply={escape(hit.reply_id)}">{escape(short(hit.text))}</a>'
            f'<div class="ts-small ts-muted">{escape(hit.title)}</div></div>',
            badge(SAID[hit.state], {"disputed": "warn", "done": "good"}.get(hit.state, "quiet"))
            + (badge("flagged", "warn") if hit.flagged else ""),
            escape(hit.outcome or "–") + (f'<div class="ts-small ts-muted">{HOW[hit.how]}</div>' if hit.how else ""),
            f"{hit.done} of {hit.overlap}",
            escape(hit.assignee or "everybody") + (f" · {escape(hit.skill)}" if hit.skill else ""),
            escape(hit.source) + (f" · {escape(hit.language)}" if hit.language else ""),
        ]
        for hit in hits
    ]
    return table(("Reply", "Stands", "Came to", "Judged", "For", "From"), rows, number)
