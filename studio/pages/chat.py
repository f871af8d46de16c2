"""Chat: talk to the base or an adapter; stop, retry, edit, thumbs, and 'correct this' on the bubble."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from html import escape
from typing import Any

import gradio as gr

from annotation.errors import UserError
from annotation.store.part import new_id
from annotation.store.reviews import Thumb
from annotation.types import Conversation, Sampling, Turn
from studio.parts import shell
from studio.parts.bubble import shown, typed
from studio.parts.diff import diff_html
from studio.parts.guard import by_person
from studio.parts.words import badge, sworn
from studio.services import Services
from studio.services.chat import LiveReply

THUMBS: dict[object, Thumb] = {"Like": "up", "Dislike": "down", True: "up", False: "down"}
PLACEHOLDER = (
    "<h3>Say something a customer might say</h3>"
    "<p>Every reply is kept. Where one is not right, press ‘Correct this’ and write what it should have said.</p>"
)
READING = '<p class="ts-small ts-muted" role="status">The first words are on their way…</p>'
Update = tuple[Any, ...]


def build(services: Services) -> None:
    """Lay out the page and wire it."""
    shell.header(services, "Chat")
    shell.title("Chat", "Talk with the model as a customer would, and correct it where it goes wrong.")
    open_id = gr.BrowserState("", storage_key="tonesmith-chat", secret="tonesmith-chat")
    with gr.Row(equal_height=True):
        model = gr.Dropdown(
            _answerers(services), value="base", label="Answered by", scale=3, min_width=220, elem_id="ts-model"
        )
        earlier = gr.Dropdown([], label="Earlier chats", scale=3, min_width=220, elem_id="ts-earlier")
        new = gr.Button("New chat", size="md", scale=1, min_width=120, elem_id="ts-new")
        compare = gr.Button("Compare from here", size="md", scale=1, min_width=170, elem_id="ts-compare-from")
    chatbot = gr.Chatbot(
        show_label=False,
        label="Conversation",
        height="max(320px, calc(100vh - 430px))",
        editable="all",
        buttons=["copy"],
        render_markdown=False,  # replies are text: markup in them is shown, never run
        placeholder=PLACEHOLDER,
        group_consecutive_messages=False,
        elem_id="ts-chat",
    )
    note = gr.HTML(elem_id="ts-chat-note")
    there = gr.Textbox(visible="hidden", label="Where it is compared")
    with gr.Row(equal_height=True):
        message = gr.Textbox(
            placeholder="Write a message, then press Enter",
            label="Message",
            show_label=False,
            lines=1,
            max_lines=6,
            scale=8,
            elem_id="ts-message",
        )
        send = gr.Button("Send", variant="primary", scale=1, min_width=96, elem_id="ts-send")
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=96, visible=False, elem_id="ts-stop")
    with gr.Accordion("How replies are drawn", open=False), gr.Row():
        temperature = gr.Slider(0, 1.5, 0.7, step=0.1, label="Variety", info="0 gives the same reply every time")
        length = gr.Slider(32, 512, 200, step=8, label="Longest reply", info="in tokens, about ¾ of a word each")

    act = by_person(services, _Talk)
    drawn = [model, temperature, length]
    outputs = [chatbot, message, open_id, earlier, note, send, stop]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    streams = [
        gr.on([message.submit, send.click], act(_Talk.send), [open_id, message, *drawn], outputs, **quiet),
        chatbot.retry(act(_Talk.retry), [open_id, *drawn], outputs, **quiet),
        chatbot.edit(act(_Talk.edit), [open_id, *drawn], outputs, **quiet),
    ]
    settle = act(_Talk.show)
    for stream in streams:  # also after an error: what is kept is what is shown
        stream.then(settle, open_id, [chatbot, send, stop], **quiet)
    stop.click(act(_Talk.stopped), open_id, [chatbot, send, stop, note], cancels=streams, **quiet)
    chatbot.like(act(_Talk.react), open_id, None, **quiet)
    new.click(lambda: ("", [], "", None), None, [open_id, chatbot, note, earlier], **quiet)
    go = "(where) => { if (where) window.location.href = where; }"
    compare.click(act(_Talk.compare), open_id, there, **quiet).then(None, there, None, js=go)
    earlier.input(act(_Talk.open), earlier, [open_id, chatbot, note], **quiet)
    page = gr.context.Context.root_block
    if page is not None:
        page.load(act(_Talk.arrive), open_id, [chatbot, earlier, model, open_id, note], **quiet)


class _Talk:
    """The page's handlers. A chat is known by its id, which the browser keeps, so a reload goes on where it was."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._chat = services.chat

    async def send(
        self, open_id: str, text: str, model: str, temperature: float, length: float
    ) -> AsyncIterator[Update]:
        sampling = Sampling(temperature=temperature, max_tokens=int(length))
        async for update in self._stream(self._chat.send(open_id or None, text, model, sampling), sent=True):
            yield update

    async def retry(
        self, data: gr.RetryData, open_id: str, model: str, temperature: float, length: float
    ) -> AsyncIterator[Update]:
        sampling = Sampling(temperature=temperature, max_tokens=int(length))
        async for update in self._stream(self._chat.retry(open_id, _place(data.index), model, sampling)):
            yield update

    async def edit(
        self, data: gr.EditData, open_id: str, model: str, temperature: float, length: float
    ) -> AsyncIterator[Update]:
        """A user's message changed: answer that. A reply changed: keep it as a correction."""
        place, after = _place(data.index), typed(_text(data.value))
        turn = self._chat.open(open_id).turns[place]
        if turn.role == "assistant":
            yield self._correct(turn, after)
            return
        sampling = Sampling(temperature=temperature, max_tokens=int(length))
        async for update in self._stream(self._chat.edit(open_id, place, after, model, sampling)):
            yield update

    def _correct(self, turn: Turn, after: str) -> Update:
        self._chat.correct(new_id(), turn.id, after)
        note = (
            '<div class="ts-notice ts-good" role="status">Correction saved, for the next dataset version.</div>'
            f'<div class="ts-diff" dir="auto">{diff_html(turn.text, after.strip())}</div>'
        )
        conversation = self._chat.open(turn.conversation_id)
        return _messages(conversation.turns), gr.skip(), gr.skip(), gr.skip(), note, *_idle()

    async def _stream(self, replies: AsyncIterator[LiveReply], sent: bool = False) -> AsyncIterator[Update]:
        before: list[dict[str, Any]] = []
        async for live in replies:
            if live.said:
                before = _messages(live.said)
                yield before, "" if sent else gr.skip(), live.conversation_id, gr.skip(), READING, *_busy()
                continue
            now = [*before, {"role": "assistant", "content": shown(live.text)}] if live.text else before
            yield now, gr.skip(), gr.skip(), gr.skip(), _problem(live), *_busy()
        if before:
            chats = [(title, key) for key, title in self._chat.recent()]
            conversation = self._chat.open(live.conversation_id)
            picked = gr.Dropdown(chats, value=conversation.id)
            note = _problem(live) + answered_html(conversation)
            yield _messages(conversation.turns), gr.skip(), gr.skip(), picked, note, *_idle()

    def show(self, open_id: str) -> Update:
        """The chat as it is kept, and the page at rest."""
        return (_messages(self._chat.open(open_id).turns) if open_id else [], *_idle())

    def stopped(self, open_id: str) -> Update:
        """As `show`, and no first words are on their way any more."""
        if not open_id:
            return [], *_idle(), ""
        _, messages, note = self.open(open_id)
        return messages, *_idle(), note

    def open(self, chosen: str | None) -> Update:
        if not chosen:
            return gr.skip(), gr.skip(), gr.skip()
        conversation = self._chat.open(chosen)
        return chosen, _messages(conversation.turns), answered_html(conversation)

    def compare(self, open_id: str) -> str:
        """Where the last message is asked again, of several models; another place can be chosen there."""
        turns = self._chat.open(open_id).turns if open_id else ()
        asked = next((turn for turn in reversed(turns) if turn.role == "user"), None)
        if asked is None:
            raise UserError("There is no message here to compare replies to.", do="Send one first, or open a chat.")
        return f"/compare?after={asked.id}"

    def arrive(self, open_id: str) -> Update:
        """The page was opened or reloaded."""
        chats = [(title, key) for key, title in self._chat.recent()]
        if open_id not in {key for _, key in chats}:
            open_id = ""
        conversation = self._chat.open(open_id) if open_id else None
        messages, note = (_messages(conversation.turns), answered_html(conversation)) if conversation else ([], "")
        picked = gr.Dropdown(chats, value=open_id or None)
        return messages, picked, gr.Dropdown(_answerers(self._services)), open_id, note

    def react(self, data: gr.LikeData, open_id: str) -> None:
        turn = self._chat.open(open_id).turns[_place(data.index)]
        self._chat.react(turn.id, THUMBS.get(data.liked, "none"))


def _messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": shown(turn.text)} for turn in turns]


def _answerers(services: Services) -> list[tuple[str, str]]:
    return [*services.promotion.choices(), *services.serving.choices()]


def _place(index: Any) -> int:
    return int(index[0] if isinstance(index, list | tuple) else index)


def _text(value: Any) -> str:
    """The edited text: Gradio hands over a string, or a list with one text piece."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return str(value[0].get("text", ""))
    if not isinstance(value, str):
        raise UserError("The edited message did not arrive as text.", do="Try again.")
    return value


def _problem(live: LiveReply) -> str:
    if not live.problem:
        return ""
    kept = " What had arrived is kept." if live.turn else " Your message waits: press Enter to ask it again."
    return f'<div class="ts-notice ts-bad" role="alert">{escape(live.problem)}{kept}</div>'


ENDED = {"error": badge("broke off", "bad"), "stopped": badge("stopped", "quiet"), "length": badge("cut short", "warn")}
"""How a reply ended that has no end of its own."""


def answered_html(conversation: Conversation) -> str:
    """Who gave the last reply, whether the engine itself says so, and whether there should have been more of it."""
    turn = next((turn for turn in reversed(conversation.turns) if turn.role == "assistant"), None)
    made = turn.provenance if turn else None
    if made is None or made.corrects:
        return ""
    by = badge(made.adapter, "good") if made.adapter else badge(f"base model, {made.model}")
    ended = ENDED.get(made.finish or "stop", "")
    said = f'<span class="ts-badges">{by} {sworn(made)} {ended}</span>'
    return f'<p class="ts-small ts-muted" id="ts-answered">The last reply came from {said}</p>'


def _busy() -> tuple[Any, Any]:
    return gr.Button(visible=False), gr.Button(visible=True)


def _idle() -> tuple[Any, Any]:
    return gr.Button(visible=True), gr.Button(visible=False)
