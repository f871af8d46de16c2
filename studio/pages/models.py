"""Models: what customers get, the candidate beside it, which adapters the engine holds, and how hard it works."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from serving.engine import BASE
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.words import ago, badge, count, empty, table
from studio.services import Services
from studio.services.engine_view import AdapterView
from studio.services.promotion import BASE_ALONE, NO_CANDIDATE, Current, Entry, Standing
from studio.services.workload import EngineLoad

POLL_SECONDS = 2.0
HISTORY_SHOWN = 20
TITLES = {"production": "What customers get", "candidate": "Candidate"}
NO_EFFECT = 1e-4
"""Nats a token: an adapter that moves the model by less does nothing."""


STATES = {
    "ready": ("ready", "good"),
    "starting": ("warming up", "busy"),
    "asleep": ("asleep", "quiet"),
    "off": ("off", "quiet"),
    "crashed": ("restarting", "bad"),
    "unreachable": ("does not answer", "bad"),
}


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Models")
    lead = "Try a candidate on a few people before it becomes what customers get."
    shell.title("Models", lead, "What is served", shell.MODELS)
    standing = gr.HTML(elem_id="ts-standing")
    with gr.Column(visible=False, elem_id="ts-change-models") as controls:
        gr.HTML('<h2 class="ts-h2">Change it</h2>')
        with gr.Row(equal_height=False):
            adapter = gr.Dropdown([], label="Adapter", scale=5, min_width=260, elem_id="ts-model-choice")
            reason = gr.Textbox(
                label="Reason",
                placeholder="For whoever looks back at this",
                max_length=500,
                scale=7,
                min_width=260,
                elem_id="ts-reason",
            )
        with gr.Row(elem_classes="ts-actions"):
            produce = _button("Make it what customers get", "ts-make-production", 272, variant="primary")
            propose = _button("Make it the candidate", "ts-make-candidate", 224)
            load = _button("Load", "ts-load-model", 84)
            unload = _button("Unload", "ts-unload-model", 104)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=260):
                share = gr.Slider(
                    0,
                    100,
                    0,
                    step=1,
                    label="People who get the candidate, in %",
                    info="The same person always gets the same one",
                    elem_id="ts-share",
                )
                divide = _button("Set the share", "ts-set-share", 144)
            with gr.Column(scale=7, min_width=260):
                gr.HTML(
                    '<p class="ts-small ts-muted">Something is wrong? What was there before takes over at once.</p>'
                )
                back = _button("Customers: go back to the one before", "ts-back-production", 340)
                drop = _button("Candidate: go back to the one before", "ts-back-candidate", 340)
        said = gr.HTML(elem_id="ts-models-said")
    gr.HTML('<h2 class="ts-h2">Adapters</h2>')
    shelf = gr.HTML(elem_id="ts-models")
    gr.HTML('<h2 class="ts-h2">The engine now</h2>')
    figures = gr.HTML(elem_id="ts-figures")
    with gr.Row(visible=False, elem_classes="ts-actions", elem_id="ts-rest") as rest:
        sleep = _button("Put it to sleep", "ts-sleep", 160)
        wake = _button("Wake it", "ts-wake", 112)
        gr.HTML(
            '<p class="ts-small ts-muted">Asleep, it leaves its memory to training, and wakes when somebody asks.</p>'
        )
    rested = gr.HTML(elem_id="ts-rested")
    gr.HTML('<h2 class="ts-h2">What was changed</h2>')
    history = gr.HTML(elem_id="ts-history")
    with gr.Accordion("The engine’s last lines", open=False, visible=False, elem_id="ts-log") as log:
        lines = gr.HTML()

    act = by_person(services, _Shelf)
    seen = gr.State([])
    live = [standing, shelf, figures, history, seen]
    done = [*live, reason, share, said]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    given = [adapter, reason]
    propose.click(act(_Shelf.propose), given, done, api_name=False)
    produce.click(act(_Shelf.produce), given, done, api_name=False)
    load.click(act(_Shelf.load), adapter, done, api_name=False)
    unload.click(act(_Shelf.unload), adapter, done, api_name=False)
    back.click(act(_Shelf.back), reason, done, api_name=False)
    drop.click(act(_Shelf.drop), reason, done, api_name=False)
    divide.click(act(_Shelf.divide), [share, reason], done, api_name=False)
    sleep.click(act(_Shelf.sleep), None, [*live, rested], api_name=False)
    wake.click(act(_Shelf.wake), None, [*live, rested], api_name=False)
    log.expand(act(_Shelf.lines), None, lines, **quiet)
    gr.Timer(POLL_SECONDS).tick(act(_Shelf.follow), seen, live, queue=False, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Shelf.arrive), None, [*live, controls, adapter, share, log, rest], **quiet)


def _button(text: str, elem_id: str, width: int, variant: Any = "secondary") -> gr.Button:
    return gr.Button(text, variant=variant, scale=0, min_width=width, elem_id=elem_id)


def _good(what: str) -> str:
    return f'<div class="ts-notice ts-good" role="status">{escape(what)}</div>'


class _Shelf:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._promotion = services.promotion
        self._serving = services.serving
        self._who = services.who

    def arrive(self) -> list[Any]:
        may = self._who.may("curate")
        names = [view.name for view in self._serving.adapters()]
        choices = [*names, (BASE_ALONE.capitalize(), BASE)]
        return [
            *self._shown(),
            gr.Column(visible=may),
            gr.Dropdown(choices, value=names[0] if names else BASE),
            round(100 * self._promotion.current().share),
            gr.Accordion(visible=may),
            gr.Row(visible=may and self._serving.ours),
        ]

    def follow(self, seen: list[str]) -> list[Any]:
        """What changed since it was last sent; the rest of the page stays as it is."""
        *now, marks = self._shown()
        return [gr.skip() if mark in seen else text for text, mark in zip(now, marks, strict=True)] + [
            gr.skip() if marks == seen else marks
        ]

    def propose(self, name: str | None, reason: str) -> list[Any]:
        self._promotion.promote("candidate", name or "", reason)
        return self._done(f"{_label(name)} is the candidate, for {self._promotion.current().share:.0%} of people.")

    def produce(self, name: str | None, reason: str) -> list[Any]:
        self._promotion.promote("production", name or "", reason)
        return self._done(f"{_label(name)} is what customers get.")

    def back(self, reason: str) -> list[Any]:
        now = self._promotion.roll_back("production", reason)
        return self._done(f"Gone back: {now.adapter or BASE_ALONE} is what customers get.")

    def drop(self, reason: str) -> list[Any]:
        now = self._promotion.roll_back("candidate", reason)
        return self._done(
            f"Gone back: {_pointed(now)} is the candidate." if now.change else "There is no candidate now."
        )

    def divide(self, percent: float, reason: str) -> list[Any]:
        self._promotion.set_share(percent / 100, reason)
        return self._done(f"{percent:.0f}% of people get the candidate.")

    def load(self, name: str | None) -> list[Any]:
        self._serving.load(name or "", self._who)
        return self._done(f"{name} is loaded.", keep_reason=True)

    def unload(self, name: str | None) -> list[Any]:
        self._serving.unload(name or "", self._who)
        return self._done(f"{name} is unloaded.", keep_reason=True)

    def sleep(self) -> list[Any]:
        self._serving.sleep(self._who)
        return [*self._shown(), _good("It is asleep. It wakes when somebody asks.")]

    def wake(self) -> list[Any]:
        self._serving.wake(self._who)
        return [*self._shown(), _good("It is on its way. Its state is at the top of the page.")]

    def lines(self) -> str:
        return log_html(self._serving.last_lines(self._who))

    def _done(self, what: str, keep_reason: bool = False) -> list[Any]:
        share = round(100 * self._promotion.current().share)
        return [*self._shown(), gr.skip() if keep_reason else "", share, _good(what)]

    def _shown(self) -> list[Any]:
        now = self._promotion.current()
        parts = [
            standing_html(now),
            shell.comparing_only(self._serving.view()) + shelf_html(self._serving.adapters(), now),
            figures_html(self._serving.loads(), self._serving.view().detail),
            history_html(self._promotion.history()),
        ]
        return [*parts, [str(hash(part)) for part in parts]]


def standing_html(now: Current) -> str:
    """What customers get, and the candidate, side by side."""
    given = 1 - now.share if now.candidate.change else 1.0
    cards = ((now.production, given), (now.candidate, now.share))
    return f'<div class="ts-pair">{"".join(_card(standing, share) for standing, share in cards)}</div>'


def _card(standing: Standing, share: float) -> str:
    change = standing.change
    about = f"Chosen {ago(change.made_at)} by {escape(change.author)}: “{escape(change.reason)}”." if change else ""
    if not change:
        about = "Nothing was chosen yet." if standing.alias == "production" else "Choose one below to try it on a few."
    before = f" Before it: {escape(standing.before)}." if standing.before and change else ""
    hashed = f" Weights <code>{change.weights_sha256[:12]}</code>." if change and change.weights_sha256 else ""
    people = "" if standing.alias == "candidate" and not change else badge(f"{share:.0%} of people", "quiet")
    return (
        f'<section class="ts-card" aria-label="{TITLES[standing.alias]}"><p class="ts-small ts-muted">'
        f"{TITLES[standing.alias]} {people}</p><h3>{escape(_pointed(standing))}</h3>"
        f'<p class="ts-small ts-muted">{about}{before}{hashed}</p></section>'
    )


def _pointed(standing: Standing) -> str:
    unset = standing.alias == "candidate" and not standing.change
    name = standing.adapter or (NO_CANDIDATE if unset else BASE_ALONE)
    return name if standing.adapter else name.capitalize()


def _label(name: str | None) -> str:
    return BASE_ALONE.capitalize() if name == BASE else name or ""


def shelf_html(views: list[AdapterView], now: Current) -> str:
    """All adapters: where each stands, when it was used, and what it does."""
    if not views:
        return empty("No adapter yet", "The first training run makes one.", "/training", "Go to Training")
    rows = [
        [
            f"<b>{escape(view.name)}</b>",
            _state(view, now),
            ago(view.last_used) if view.last_used else "never",
            _effect(view),
            _parity(view),
            escape(view.dataset_id),
            ago(view.created_at),
        ]
        for view in views
    ]
    return table(("Name", "State", "Last used", "Effect", "As trained", "Learned from", "Made"), rows, stack=True)


def _state(view: AdapterView, now: Current) -> str:
    badges = [badge("loaded", "good") if view.loaded else badge("not loaded", "bad" if view.problem else "quiet")]
    badges += [
        badge(TITLES[standing.alias].lower(), "warn" if standing.alias == "candidate" else "good")
        for standing in (now.production, now.candidate)
        if standing.adapter == view.name
    ]
    why = "" if view.loaded or not view.problem else f'<br><span class="ts-small">{escape(view.problem)}</span>'
    return f"<span>{' '.join(badges)}{why}</span>"


def _effect(view: AdapterView) -> str:
    if view.effect is None:
        return '<span class="ts-muted">not measured</span>'
    if view.effect < NO_EFFECT:
        return badge("none: it answers as the base does", "bad")
    return f'<span title="How far it moves three short prompts from the base, in nats a token">{view.effect:.2g}</span>'


def _parity(view: AdapterView) -> str:
    """Whether what is served is what was trained."""
    found = view.parity
    if found is None:
        return '<span class="ts-muted">not measured</span>'
    if not found.same_prompt:
        return badge("no: the engine words a request otherwise than its training did", "bad")
    if not found.holds:
        return badge(f"no: {found.apart:.2g} nats a token apart", "bad")
    why = f"Three short exchanges score as at the end of its training, to {found.apart:.1g} nats a token"
    if not found.told:
        why += "; but its training moved them too little to see, at this engine's precision, whether it is applied"
        return f'<span title="{why}">{badge("can’t be told at this precision", "warn")}</span>'
    return f'<span title="{why}">{badge("yes", "good")}</span>'


def figures_html(loads: list[EngineLoad], why_not: str) -> str:
    """How hard the engine works; of several, each in a row of its own."""
    if len(loads) > 1:
        return _replicas_html(loads)
    if not loads or loads[0].now is None:
        return f'<p class="ts-muted">There are no figures. {escape(why_not)}</p>'
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _facts(loads[0]))
    mended = f'<p class="ts-small ts-muted">It {escape(loads[0].mended)}.</p>' if loads[0].mended else ""
    return f'<div class="ts-card"><dl class="ts-facts">{cells}</dl></div>{mended}'


def _replicas_html(loads: list[EngineLoad]) -> str:
    """Each in a row; what was put right about one stands below, where a sentence has room."""
    heads = ("Replica", "Being answered", "Waiting", "Memory for text", "Read / s", "Written / s", "Adapters answering")
    rows = [_replica(number, load) for number, load in enumerate(loads, 1)]
    mended = [f"Replica {number} {load.mended}." for number, load in enumerate(loads, 1) if load.mended]
    told = "".join(f"<li>{escape(one)}</li>" for one in mended)
    return table(heads, rows, "Speeds are in tokens.", stack=True) + (
        f'<ul class="ts-small ts-muted" style="margin-top: 10px" aria-label="What was put right">{told}</ul>'
        if told
        else ""
    )


def _replica(number: int, load: EngineLoad) -> list[str]:
    label, tone = STATES[load.status.state]
    if load.status.state == "starting":
        label = f"warming up, {load.status.fraction:.0%}"
    *figures, answering, waiting = (value for _, value in _facts(load))
    if load.now and load.now.adapters_waiting:
        answering += f'<br><span class="ts-muted">waiting: {waiting}</span>'
    return [f"<span><b>{number}</b> {badge(label, tone)}</span>", *figures, f"<span>{answering}</span>"]


def _facts(load: EngineLoad) -> list[tuple[str, str]]:
    now, rates = load.now, load.rates
    return [
        ("Being answered", count(now.running, "request") if now else "–"),
        ("Waiting", count(now.waiting, "request") if now else "–"),
        ("Memory for text in use", f"{now.kv_cache:.0%}" if now else "–"),
        ("Tokens read / s", f"{rates.prompt:,.0f}" if rates else "–"),
        ("Tokens written / s", f"{rates.generation:,.0f}" if rates else "–"),
        ("Adapters answering", _answering(load)),
        ("Adapters waiting", (escape(", ".join(now.adapters_waiting)) or "none") if now else "–"),
    ]


def _answering(load: EngineLoad) -> str:
    """The adapters that are asked now, each with how many requests it has, where the engine says so."""
    if load.now is None:
        return "–"
    counts = {name: f"{name} ({number})" for name, number in load.under_way.items()}
    names = dict.fromkeys((*load.now.adapters_running, *counts))
    return escape(", ".join(counts.get(name, name) for name in names)) or "none"


def history_html(entries: list[Entry]) -> str:
    """Who changed what and why, newest first."""
    if not entries:
        return '<p class="ts-muted">Nothing was changed yet.</p>'
    rows = [
        [escape(entry.what), escape(entry.reason), escape(entry.author), f"{entry.made_at:%d %b %Y, %H:%M}"]
        for entry in entries[:HISTORY_SHOWN]
    ]
    more = len(entries) - HISTORY_SHOWN
    tail = f'<p class="ts-small ts-muted">… and {more} before; `tonesmith aliases` lists all.</p>' if more > 0 else ""
    return table(("What", "Reason", "By", "When (UTC)"), rows, stack=True) + tail


def log_html(lines: list[str]) -> str:
    """The engine's last lines, as text."""
    if not lines:
        return '<p class="ts-muted">There is no log: this engine was not started here.</p>'
    text = escape("\n".join(lines))
    return f'<pre class="ts-lines" tabindex="0" aria-label="The engine’s last lines">{text}</pre>'
