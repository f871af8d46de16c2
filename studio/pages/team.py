"""Team: who works here with which role, how work is dealt out, and the hidden checks."""

from __future__ import annotations

import re
from html import escape
from typing import Any, Literal

import gradio as gr

from annotation.acts import QUESTIONS
from annotation.errors import UserError
from annotation.people import ROLES, Person
from annotation.queue import MAIN, QueueSettings
from annotation.types import Question, Value
from studio.parts import shell
from studio.parts.guard import by_person
from studio.parts.words import NAMES, WORDS, ago, badge, table
from studio.services import Services

ABOUT = {
    "viewer": "looks, and changes nothing",
    "reviewer": "chats, judges, corrects and votes",
    "curator": "also writes the charter, deals out work, settles, makes datasets and trains",
    "admin": "also decides who works here",
}

WHOLE_ADDRESS = """() => document.querySelectorAll('.ts-link[data-path]').forEach((link) => {
  link.textContent = window.location.origin + link.dataset.path;
})"""
"""A link to send needs the address at which this page was reached, which only the browser knows."""


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Team")
    shell.title("Team", "Who works here, and how the replies are dealt out.")
    act = by_person(services, _Office)
    people = gr.HTML(elem_id="ts-people")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            gr.HTML('<h2 class="ts-h2">Add or change somebody</h2>')
            name = gr.Textbox(label="Name", max_length=64, elem_id="ts-person")
            role = gr.Radio(
                [(f"{one.capitalize()}: {ABOUT[one]}", one) for one in ROLES],
                value="reviewer",
                label="Role",
                elem_id="ts-role",
            )
            skills = gr.Textbox(
                label="Skills", info="Separated by commas, for example: de, fr, lending", elem_id="ts-skills"
            )
            with gr.Row():
                add = gr.Button("Add", variant="primary", scale=0, min_width=80, elem_id="ts-add-person")
                change = gr.Button("Change", scale=0, min_width=96, elem_id="ts-change-person")
                close = gr.Button("Close the account", scale=0, min_width=196, elem_id="ts-close-person")
                link = gr.Button("Sign-in link", scale=0, min_width=124, elem_id="ts-link")
            said = gr.HTML(elem_id="ts-team-said")
        with gr.Column(min_width=320):
            gr.HTML('<h2 class="ts-h2">Your password</h2>')
            password = gr.Textbox(
                label="New password",
                type="password",
                info="At least 10 characters; three or four words make a good one",
                elem_id="ts-password",
            )
            with gr.Row():
                keep = gr.Button("Set it", scale=0, min_width=100, elem_id="ts-set-password")
    gr.HTML('<h2 class="ts-h2">How replies are dealt out</h2>')
    with gr.Row():
        queue = gr.Dropdown(
            [MAIN],
            value=MAIN,
            label="Queue",
            allow_custom_value=True,
            info="Type a new name for another one",
            min_width=300,
            elem_id="ts-queue",
        )
        overlap = gr.Slider(
            *(1, 9, 1),
            step=1,
            label="Reviewers for each reply",
            info="None sees what the others said",
            min_width=300,
            elem_id="ts-overlap",
        )
        second = gr.Slider(
            *(0, 50, 0),
            step=1,
            label="Second look, %",
            info="Replies that one more person judges unseen",
            min_width=300,
            elem_id="ts-second",
        )
    with gr.Row():
        gold = gr.Slider(
            *(0, 20, 0), step=1, label="Hidden checks, %", info="With a known answer, unannounced", min_width=300
        )
        repeat = gr.Slider(
            *(0, 20, 0),
            step=1,
            label="Repeats, %",
            info="Met a second time, to see if one agrees with oneself",
            min_width=300,
        )
        minutes = gr.Slider(
            *(1, 240, 30),
            step=1,
            label="Held for, minutes",
            info="Then an abandoned reply goes to others",
            min_width=300,
            elem_id="ts-minutes",
        )
    hints = gr.Checkbox(True, label="Show suggestions of checks and models to reviewers")
    by_language = gr.Checkbox(
        False, label="Give a reply only to people with its language among their skills", elem_id="ts-by-language"
    )
    with gr.Row():
        deal = gr.Button("Keep these settings", scale=0, min_width=200, elem_id="ts-keep-queue")
    gr.HTML('<h2 class="ts-h2">Hidden checks</h2>')
    golds = gr.HTML(elem_id="ts-golds")
    with gr.Row():
        reply = gr.Textbox(
            label="Reply",
            info="The address of a reply on the desk ends with it",
            min_width=280,
            elem_id="ts-gold-reply",
        )
        answers = [
            gr.Dropdown(
                [("Not part of it", ""), *((word, value) for value, word in WORDS[one].items())],
                value="",
                label=NAMES[one],
                elem_id=f"ts-gold-{one}",
            )
            for one in QUESTIONS
        ]
    with gr.Row():
        check = gr.Button("Make it a hidden check", scale=0, min_width=230, elem_id="ts-set-gold")
        uncheck = gr.Button("Make it an ordinary reply again", scale=0, min_width=310, elem_id="ts-unset-gold")

    settings = [queue, overlap, second, gold, repeat, minutes, hints, by_language]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    person = [name, role, skills]
    name.change(act(_Office.as_they_are), name, [role, skills], **quiet)
    add.click(act(_Office.add), person, [people, said], **quiet).then(None, js=WHOLE_ADDRESS)
    change.click(act(_Office.change), person, [people, said], **quiet)
    close.click(act(_Office.close), name, [people, said], **quiet)
    link.click(act(_Office.link), name, said, **quiet).then(None, js=WHOLE_ADDRESS)
    keep.click(act(_Office.set_password), password, password, **quiet)
    queue.input(act(_Office.show_queue), queue, settings[1:], **quiet)
    deal.click(act(_Office.keep_queue), settings, None, **quiet)
    check.click(act(_Office.set_gold), [reply, *answers], golds, **quiet)
    uncheck.click(act(_Office.unset_gold), reply, golds, **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Office.arrive), None, [people, queue, *settings[1:], golds], **quiet)


class _Office:
    """The page's handlers."""

    def __init__(self, services: Services) -> None:
        self._team = services.team
        self._who = services.who

    def arrive(self) -> list[Any]:
        names = [queue.name for queue in self._team.queues()]
        return [self._people(), gr.Dropdown(names), *self.show_queue(MAIN), self._golds()]

    def as_they_are(self, name: str) -> list[Any]:
        """The role and skills of whoever is named, so that a change keeps what nobody touched."""
        found = next((person for person in self._team.people() if person.name == name.strip()), None)
        return [found.role, ", ".join(found.skills)] if found else [gr.skip(), gr.skip()]

    def add(self, name: str, role: Any, skills: str) -> list[Any]:
        person = self._team.add(name.strip(), role, _listed(skills))
        return [self._people(), self._link_html(person.name, f"{person.name} is added.")]

    def change(self, name: str, role: Any, skills: str) -> list[Any]:
        self._team.change(name.strip(), role=role, skills=_listed(skills), active=True)
        return [self._people(), _good(f"{name.strip()} is changed.")]

    def close(self, name: str) -> list[Any]:
        self._team.change(name.strip(), active=False)
        return [self._people(), _good(f"{name.strip()}'s account is closed. What they said stays.")]

    def link(self, name: str) -> str:
        return self._link_html(name.strip(), "")

    def set_password(self, password: str) -> str:
        self._team.set_password(self._who.name, password)
        gr.Info("Your password is set. Sign in with it from now on, here too.", duration=8)
        return ""

    def show_queue(self, name: str) -> list[Any]:
        found = next((queue for queue in self._team.queues() if queue.name == name), QueueSettings())
        shares = (found.second_share, found.gold_share, found.repeat_share)
        return [
            found.overlap,
            *(round(100 * share) for share in shares),
            found.lease_minutes,
            found.suggestions,
            found.by_language,
        ]

    def keep_queue(self, name: str, overlap: float, second: float, gold: float, repeat: float, *rest: Any) -> None:
        minutes, hints, by_language = rest
        self._team.change_queue(
            QueueSettings(
                name=queue_name(name),
                overlap=int(overlap),
                second_share=second / 100,
                gold_share=gold / 100,
                repeat_share=repeat / 100,
                lease_minutes=minutes,
                suggestions=hints,
                by_language=by_language,
            )
        )
        gr.Info("Kept. Replies not yet done follow the new settings.", duration=5)

    def set_gold(self, reply: str, *values: Value | Literal[""]) -> str:
        answers = {question: value for question, value in zip(QUESTIONS, values, strict=True) if value}
        self._team.set_gold(_reply_id(reply), answers)
        return self._golds()

    def unset_gold(self, reply: str) -> str:
        self._team.unset_gold(_reply_id(reply))
        return self._golds()

    def _people(self) -> str:
        return people_html(self._team.people())

    def _link_html(self, name: str, said: str) -> str:
        path = f"/welcome/{self._team.link(name)}"
        return _good(
            f"{said} Send {name} this link; it signs them in, once, within half an hour.",
            f'<br><code class="ts-link" data-path="{escape(path)}">{escape(path)}</code>',
        )

    def _golds(self) -> str:
        if not self._who.may("curate"):
            return '<p class="ts-muted">Curators choose them.</p>'
        old = self._team.outdated_golds()
        rows = [
            [
                f'<a href="/review?reply={escape(gold.reply_id)}">{escape(gold.reply_id[:8])}</a>',
                ", ".join(badge(WORDS[question][value]) for question, value in gold.answers.items()),
                escape(gold.author),
                ago(gold.made_at),
                _doubt(old.get(gold.reply_id, frozenset())),
            ]
            for gold in self._team.golds()
        ]
        return (
            table(("Reply", "Right answers", "Chosen by", "When", "Still right?"), rows)
            if rows
            else '<p class="ts-muted">None yet.</p>'
        )


def people_html(people: list[Person]) -> str:
    """Everybody, in a table."""
    rows = [
        [
            f"<b>{escape(person.name)}</b>",
            badge(person.role) if person.active else badge("closed", "warn"),
            escape(", ".join(person.skills)) or "–",
        ]
        for person in people
    ]
    return table(("Name", "Role", "Skills"), rows)


def _doubt(questions: frozenset[Question]) -> str:
    """What to do about right answers whose rules changed."""
    if not questions:
        return "yes"
    named = " and ".join(NAMES[one] for one in QUESTIONS if one in questions)
    return badge(f"The rules of {named} changed: set it once more, or take it out. It doesn't count till then.", "warn")


def _good(text: str, more: str = "") -> str:
    return f'<div class="ts-notice ts-good" role="status">{escape(text.strip())}{more}</div>'


def queue_name(text: str) -> str:
    """What somebody typed as a queue's name. Raises UserError if it can't be one."""
    name = text.strip()
    if not re.fullmatch(r"[\w .-]{1,64}", name):
        raise UserError(f"'{name}' can't be a queue's name.", "Up to 64 letters, digits, spaces and . _ -")
    return name


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _reply_id(text: str) -> str:
    """A reply's id, out of the desk's address too."""
    return re.split(r"[&#\s]", text.strip().rpartition("reply=")[2])[0]
