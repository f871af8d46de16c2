"""The services behind the page, on a scripted model: what is kept when things go wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any, cast
from unittest.mock import Mock

import pytest

from annotation.curate import joined
from annotation.errors import Conflict, NotFound, UserError
from annotation.people import Person
from annotation.store import Store, open_store
from annotation.store.comparisons import Comparisons, VoteForm
from annotation.store.reviews import Verdict
from annotation.types import Charter, ChatModel, Chunk, Conversation, Message, Provenance, Sampling, Turn, Weights
from annotation.versions import rows_in
from serving.client import not_held
from serving.memory import Memory
from serving.scripted import ScriptedModel
from studio.demo_project import lines, seed
from studio.parts.reveal import problem_html, reveal_html
from studio.services import open_services
from studio.services.chat import ChatService, LiveReply
from studio.services.checked import Checked
from studio.services.compare import CompareService, LiveRound, RoundForm, SideOf
from studio.services.review import ReviewForm, ReviewService
from studio.settings import Settings, read_settings

SAMPLING = Sampling(temperature=0)
ANA = Person(name="ana")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.charters.add(Charter(name="Shop"), "ana")
    return opened


def identify(model: str) -> Provenance:
    return Provenance(model="m", adapter=None if model == "base" else model)


def chat_with(store: Store, model: ScriptedModel) -> ChatService:
    return ChatService(store, lambda: model, identify, ANA, lambda: 1)


def quick(**faults: int | None) -> ScriptedModel:
    return ScriptedModel(["one two three four five"], word_seconds=0, **faults)  # type: ignore[arg-type]


def collect(stream: AsyncIterator[LiveReply]) -> list[LiveReply]:
    async def run() -> list[LiveReply]:
        return [live async for live in stream]

    return asyncio.run(run())


def texts(conversation: Conversation) -> list[str]:
    return [turn.text for turn in conversation.turns]


async def press_stop(stream: AsyncIterator[LiveReply]) -> None:
    """While the next piece is waited for."""
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_reply_grows_and_is_kept_with_its_origin(store: Store) -> None:
    lives = collect(chat_with(store, quick()).send(None, " Hello ", "a-1", SAMPLING))
    assert [live.text for live in lives][:3] == ["", "one ", "one two "]
    kept = store.conversations.get(lives[-1].conversation_id).turns[-1]
    assert kept == lives[-1].turn
    assert kept.provenance is not None
    assert (kept.provenance.adapter, kept.provenance.finish, kept.provenance.sampling) == ("a-1", "stop", SAMPLING)


class Attested(ScriptedModel):
    """Says on each piece that it is these weights."""

    def __init__(self, adapter_sha256: str | None) -> None:
        super().__init__(["one two"], word_seconds=0)
        self.weights = Weights(base_sha256="b", adapter_sha256=adapter_sha256)

    async def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        async for chunk in super().stream(messages, model=model, sampling=sampling):
            yield chunk.model_copy(update={"weights": self.weights})


def checked(tmp_path: Path, model: ScriptedModel, base: str | None = "b", silence: bool = True) -> ChatModel:
    def registered(name: str) -> Provenance:
        weights = "right" if name != "base" else None
        return Provenance(model="m", adapter=name, weights_sha256=weights, base_sha256=base)

    return Checked(model, Memory(tmp_path / "serving.json"), registered, silence)


def test_a_reply_is_kept_with_what_the_engine_said_of_its_weights(store: Store, tmp_path: Path) -> None:
    right = checked(tmp_path, Attested("right"))
    chat = ChatService(store, lambda: right, identify, ANA, lambda: 1)
    turn = collect(chat.send(None, "Hello", "a-1", SAMPLING))[-1].turn
    assert turn is not None
    assert turn.provenance is not None
    assert turn.provenance.attested == Weights(base_sha256="b", adapter_sha256="right")


@pytest.mark.parametrize(("asked", "answers"), [("a-1", "wrong"), ("a-1", None), ("base", "right")])
def test_nothing_of_an_answer_from_other_weights_is_shown_or_kept(
    store: Store, tmp_path: Path, asked: str, answers: str | None
) -> None:
    wrong = checked(tmp_path, Attested(answers))
    lives = collect(ChatService(store, lambda: wrong, identify, ANA, lambda: 1).send(None, "Hello", asked, SAMPLING))
    assert {(live.text, live.turn) for live in lives} == {("", None)}
    last = lives[-1]
    assert last.problem is not None
    assert f"{asked} is not what answered: the engine says it used" in last.problem


@pytest.mark.parametrize(
    ("model", "base", "silence", "problem"),
    [
        (Attested(None), "other", True, "The engine answers from a base model with the hash b"),
        (Attested(None), None, False, None),  # what lies here is not known, as with a server of somebody else's
        (quick(), "b", False, "The engine does not say which weights answered."),
        (quick(), "b", True, None),  # somebody else's server may be silent
    ],
)
def test_the_base_is_held_against_what_lies_here_and_only_others_may_be_silent(
    store: Store, tmp_path: Path, model: ScriptedModel, base: str | None, silence: bool, problem: str | None
) -> None:
    asked = checked(tmp_path, model, base, silence)
    last = collect(ChatService(store, lambda: asked, identify, ANA, lambda: 1).send(None, "Hello", "base", SAMPLING))[
        -1
    ]
    if problem is None:
        assert last.problem is None
        assert last.turn is not None
    else:
        assert (last.text, last.turn) == ("", None)
        assert problem in (last.problem or "")


def test_the_engine_is_asked_while_the_message_is_written_down_and_nothing_shows_before_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, begin = Event(), store.conversations.begin

    class Asked(ScriptedModel):
        def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
            asked.set()
            return super().stream(messages, model=model, sampling=sampling)

    def slow(source: str, turn: Turn) -> None:
        assert asked.wait(10), "the engine waits for the disk"
        sleep(0.1)  # in which the first words come
        begin(source, turn)

    monkeypatch.setattr(store.conversations, "begin", slow)
    chat = chat_with(store, Asked(["one two"], word_seconds=0))

    async def shown() -> None:
        async for live in chat.send(None, "Hello", "base", SAMPLING):
            assert texts(store.conversations.get(live.conversation_id))[0] == "Hello"

    asyncio.run(shown())


def test_what_can_not_be_written_down_is_not_answered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, turn: Turn) -> None:
        raise UserError("The disk is full.")

    monkeypatch.setattr(store.conversations, "begin", full)
    lives = []

    async def ask() -> None:
        async for live in chat_with(store, quick()).send(None, "Hello", "base", SAMPLING):
            lives.append(live)

    with pytest.raises(UserError, match="disk is full"):
        asyncio.run(ask())
    assert lives == []
    assert store.conversations.count() == 0


def test_who_stops_before_the_first_word_has_the_message(store: Store) -> None:
    chat = chat_with(store, quick(hang_after=0))

    async def stop() -> str:
        stream = chat.send(None, "Hello", "base", SAMPLING)
        live = await anext(stream)
        await press_stop(stream)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1, "nobody goes on asking"
        return live.conversation_id

    assert texts(store.conversations.get(asyncio.run(stop()))) == ["Hello"]


def test_who_leaves_in_the_middle_has_what_had_come(store: Store) -> None:
    chat = chat_with(store, quick())

    async def leave(pieces: int) -> str:
        stream = chat.send(None, "Hello", "base", SAMPLING)
        async with aclosing(cast(AsyncGenerator[LiveReply, None], stream)):
            for _ in range(1 + pieces):
                live = await anext(stream)
        assert len(asyncio.all_tasks()) == 1, "nobody goes on asking"
        return live.conversation_id

    assert texts(store.conversations.get(asyncio.run(leave(0)))) == ["Hello"]
    assert texts(store.conversations.get(asyncio.run(leave(2)))) == ["Hello", "one two "]


def test_an_edited_message_and_a_retry_stand_at_once(store: Store) -> None:
    chat = chat_with(store, quick())
    opened = collect(chat.send(None, "Hello", "base", SAMPLING))[-1].conversation_id
    stalled = chat_with(store, quick(hang_after=0))

    async def first(stream: AsyncIterator[LiveReply]) -> list[str]:
        await anext(stream)
        return texts(store.conversations.get(opened))

    assert asyncio.run(first(stalled.retry(opened, 1, "base", SAMPLING))) == ["Hello"]
    assert asyncio.run(first(stalled.edit(opened, 0, "Hello there", "base", SAMPLING))) == ["Hello there"]


def test_a_broken_reply_is_kept_as_far_as_it_came(store: Store) -> None:
    last = collect(chat_with(store, quick(fail_after=2)).send(None, "Hello", "base", SAMPLING))[-1]
    assert last.problem is not None
    assert last.turn is not None
    assert (last.turn.text, last.turn.provenance.finish if last.turn.provenance else None) == ("one two ", "error")


def test_a_stopped_reply_is_kept_as_far_as_it_came(store: Store) -> None:
    chat = chat_with(store, quick(hang_after=3))

    async def stop() -> str:
        stream = chat.send(None, "Hello", "base", SAMPLING)
        live = await anext(stream)
        while len(live.text.split()) < 3:
            live = await anext(stream)
        await press_stop(stream)
        return live.conversation_id

    kept = store.conversations.get(asyncio.run(stop())).turns[-1]
    assert kept.text == "one two three "
    assert kept.provenance is not None
    assert kept.provenance.finish == "stopped"


def test_an_unanswered_message_is_kept_and_asked_anew_beside_it(store: Store) -> None:
    chat = chat_with(store, quick(fail_after=0))
    opened = collect(chat.send(None, "Hello", "base", SAMPLING))[-1].conversation_id
    assert texts(store.conversations.get(opened)) == ["Hello"]
    collect(chat_with(store, quick()).send(opened, "Hello again", "base", SAMPLING))
    assert texts(store.conversations.get(opened)) == ["Hello again", "one two three four five"]


def test_an_unanswered_message_is_asked_again_by_sending_nothing(store: Store) -> None:
    opened = collect(chat_with(store, quick(fail_after=0)).send(None, "Hello", "base", SAMPLING))[-1].conversation_id
    chat = chat_with(store, quick())
    collect(chat.send(opened, " ", "base", SAMPLING))
    assert texts(store.conversations.get(opened)) == ["Hello", "one two three four five"]
    with pytest.raises(UserError, match="no message"):
        collect(chat.send(opened, " ", "base", SAMPLING))


@pytest.mark.parametrize(("message", "says"), [("  ", "no message"), ("x" * 20_001, "20,001 characters")])
def test_an_empty_or_overlong_message_is_refused(store: Store, message: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        collect(chat_with(store, quick()).send(None, message, "base", SAMPLING))
    assert store.conversations.count() == 0


def test_a_correction_takes_the_replys_place_and_the_model_goes_on_from_it(store: Store) -> None:
    chat = chat_with(store, quick())
    reply = collect(chat.send(None, "Hello", "base", SAMPLING))[-1].turn
    assert reply is not None
    shown = chat.correct("act", reply.id, "Hi there!")
    assert texts(chat.open(reply.conversation_id)) == ["Hello", "Hi there!"]
    again = chat.correct("act-2", shown.id, "Hi there, friend!")
    assert again.provenance is not None
    assert again.provenance.corrects == reply.id
    said = store.reviews.standing(reply.id).corrections
    assert [(one.before, one.after) for one in said] == [
        (reply.text, "Hi there!"),
        (reply.text, "Hi there, friend!"),
    ]
    assert store.tasks.counts()["waiting"] == 0
    for after, says in (("", "empty"), ("Hi there, friend!", "unchanged")):
        with pytest.raises(UserError, match=says):
            chat.correct("act-3", again.id, after)


def test_the_same_form_saved_twice_counts_once(store: Store) -> None:
    collect(chat_with(store, quick()).send(None, "Hello", "base", SAMPLING))
    desk = ReviewService(store, ANA, quick, identify)
    item = desk.next()
    assert item is not None
    form = ReviewForm(
        act_id=item.act_id,
        reply_id=item.reply.id,
        verdicts=(Verdict(question="voice", value="fail"),),
        corrected="Better.",
    )
    assert [desk.save(form), desk.save(form)] == [True, False]
    back = desk.back()
    assert back is not None
    assert back.text_now == "Better."
    # Looking at it again and only adding a judgement makes no second correction.
    again = form.model_copy(update={"act_id": back.act_id, "verdicts": (Verdict(question="bias", value="pass"),)})
    assert desk.save(again)
    assert len(store.reviews.standing(item.reply.id).corrections) == 1


def two(adapter: str = "a-1", **drawn: Any) -> RoundForm:
    return RoundForm(sides=(SideOf(model="base"), SideOf(model=adapter)), **drawn)


def run(lives: AsyncIterator[LiveRound]) -> list[LiveRound]:
    async def collect() -> list[LiveRound]:
        return [live async for live in lives]

    return asyncio.run(collect())


def asked(compare: CompareService, form: RoundForm | None = None) -> str:
    """The id of a comparison that can be voted on."""
    live = run(compare.ask("Hello", form or two()))[-1]
    assert (live.problem, live.comparison_id is None) == (None, False)
    return live.comparison_id or ""


class TwoVoices:
    """A model whose reply tells who spoke."""

    def __init__(self, fault: Callable[[str], int | None] = lambda model: None) -> None:
        self._fault = fault

    def stream(self, messages: object, *, model: str, sampling: Sampling) -> AsyncIterator[object]:
        script = ScriptedModel([f"I am {model}"], word_seconds=0, fail_after=self._fault(model))
        return script.stream([], model=model, sampling=sampling)


def comparing(store: Store, model: object, seed_: int = 0) -> CompareService:
    return CompareService(store, lambda: model, identify, ANA, random.Random(seed_))  # type: ignore[arg-type, return-value]


def test_sides_are_drawn_at_random_and_named_only_after_the_vote(store: Store) -> None:
    seen = set()
    for number in range(20):
        compare = comparing(store, TwoVoices(), number)
        last = run(compare.ask(f"Hello {number}", two()))[-1]
        voted = compare.vote(last.comparison_id or "", VoteForm(outcome="left"))
        names = (voted.left.provenance.adapter, voted.right.provenance.adapter)
        seen.add(names)
        assert last.texts[0] == f"I am {names[0] or 'base'}"
    assert seen == {("a-1", None), (None, "a-1")}
    tally = comparing(store, TwoVoices()).tally()
    assert tally["tuned"] + tally["base"] == 20
    assert min(tally["tuned"], tally["base"]) > 2


class Listening(TwoVoices):
    """Keeps what each side was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, list[str], Sampling]] = []

    def stream(self, messages: object, *, model: str, sampling: Sampling) -> AsyncIterator[object]:
        self.heard.append((model, [message.text for message in messages], sampling))  # type: ignore[attr-defined]
        script = ScriptedModel([f"I am {model}, {len(self.heard)}"], word_seconds=0)
        return script.stream([], model=model, sampling=sampling)


def test_four_sides_each_with_its_own_instructions_and_variety(store: Store) -> None:
    model = Listening()
    sides = (
        SideOf(model="base"),
        SideOf(model="base", instructions="own", own=" Be brief. "),
        SideOf(model="base", instructions="charter", temperature=0),
        SideOf(model="a-1", temperature=1.2),
    )
    compare = comparing(store, model)
    voted = compare.vote(asked(compare, RoundForm(sides=sides, longest=33, seed=7)), VoteForm(outcome="fourth"))
    told = {(name, texts[0], sampling.temperature) for name, texts, sampling in model.heard}
    assert {one for one in told if one[1] in ("Hello", "Be brief.")} == {
        ("base", "Hello", 0.7),
        ("base", "Be brief.", 0.7),
        ("a-1", "Hello", 1.2),
    }
    assert {(sampling.max_tokens, sampling.seed) for _, _, sampling in model.heard} == {(33, 7)}
    assert len(voted.answers) == 4
    assert voted.best == "fourth"
    assert {answer.system == "" for answer in voted.answers.values()} == {True, False}
    assert all(answer.completion_tokens for answer in voted.answers.values())


def test_each_side_goes_on_from_its_own_words_and_stays_where_it_stands(store: Store) -> None:
    model = Listening()
    compare = comparing(store, model)
    first = asked(compare)
    last = run(compare.go_on(first, " And then? "))[-1]
    assert last.asked == ("Hello", "And then?")
    assert {tuple(texts) for _, texts, _ in model.heard[2:]} == {
        ("Hello", answer.text, "And then?") for answer in store.comparisons.get(first).answers.values()
    }
    before = store.comparisons.get(first)
    voted = compare.vote(last.comparison_id or "", VoteForm(outcome="right"))
    assert [answer.provenance.adapter for answer in voted.answers.values()] == [
        answer.provenance.adapter for answer in before.answers.values()
    ]
    reply = compare.fix(voted.id)
    texts_there = [turn.text for turn in store.conversations.of_reply(reply).turns]
    assert texts_there == ["Hello", before.right.text, "And then?", voted.right.text]


def test_all_sides_go_on_from_the_same_stored_conversation(store: Store) -> None:
    said = ("Old rules.", "One?", "First.", "Two?", "Last.")
    roles = ("system", "user", "assistant", "user", "assistant")
    messages = [(Message(role=role, text=text), None) for role, text in zip(roles, said, strict=True)]  # type: ignore[arg-type]
    store.conversations.import_one("shop", "1", "One?", None, messages)
    system, one, first, second, last = store.conversations.of_external("shop", "1").turns
    model = Listening()
    compare = comparing(store, model)
    starts = compare.starts(first.id)  # wherever one points, the whole path is there to choose from
    assert [(start.turn, start.after, start.text) for start in starts] == [
        (one.id, system.id, "One?"),
        (second.id, first.id, "Two?"),
        (last.id, last.id, ""),
    ]
    sides = (SideOf(model="base"), SideOf(model="a-1", instructions="own", own="New rules."))
    live = run(compare.ask("Three?", RoundForm(sides=sides), after=last.id))[-1]
    heard = {name: texts for name, texts, _ in model.heard}
    assert heard["base"] == ["Old rules.", "One?", "First.", "Two?", "Last.", "Three?"]
    assert heard["a-1"] == ["New rules.", "One?", "First.", "Two?", "Last.", "Three?"]
    assert live.asked == ("Three?",)
    run(compare.go_on(live.comparison_id or "", "Four?"))
    assert model.heard[-1][1][-2] in live.texts
    kept = store.comparisons.get(live.comparison_id or "")
    assert [message.text for message in kept.said_to("left")] == heard["base"]
    with pytest.raises(UserError, match="no reply yet"):
        run(compare.ask("Three?", two(), after=one.id))
    with pytest.raises(NotFound):
        run(compare.ask("Three?", two(), after="nowhere"))


def test_no_side_goes_on_with_other_weights_than_it_began_with(store: Store) -> None:
    comparison = asked(comparing(store, TwoVoices()))

    def other(model: str) -> Provenance:
        return identify(model).model_copy(update={"base_sha256": "another"})

    later = CompareService(store, lambda: TwoVoices(), other, ANA)  # type: ignore[arg-type, return-value]
    for more in (later.go_on(comparison, "More?"), later.again(comparison)):
        with pytest.raises(Conflict, match="The models have changed since"):
            run(more)


def test_replies_are_drawn_again_with_another_seed(store: Store) -> None:
    model = Listening()
    compare = comparing(store, model)
    again = run(compare.again(asked(compare, two(seed=5))))[-1]
    assert [sampling.seed for _, _, sampling in model.heard] == [5, 5, 6, 6]
    assert again.comparison_id is not None
    compare.vote(again.comparison_id, VoteForm(outcome="tie"))
    for more in (compare.again(again.comparison_id), compare.go_on(again.comparison_id, "More?")):
        with pytest.raises(Conflict, match="no longer blind"):
            run(more)


@pytest.mark.parametrize("outcome", ["left", "both_bad"])
def test_once_the_names_are_out_nothing_more_is_blind_in_that_round(store: Store, outcome: str) -> None:
    compare = comparing(store, TwoVoices())
    form = VoteForm(outcome=outcome)  # type: ignore[arg-type]
    first = asked(compare)
    then = run(compare.go_on(first, "More?"))[-1].comparison_id or ""
    redrawn = run(compare.again(then))[-1].comparison_id or ""
    compare.vote(then, form)
    waiting = store.tasks.counts()["waiting"]
    for one in (first, redrawn):
        with pytest.raises(Conflict, match="no longer blind"):
            compare.vote(one, form)
        for more in (compare.go_on(one, "And?"), compare.again(one)):
            with pytest.raises(Conflict, match="no longer blind"):
                run(more)
    assert store.tasks.counts()["waiting"] == waiting


def test_replies_that_were_under_way_when_the_names_came_out_are_kept_and_take_no_vote(store: Store) -> None:
    compare = comparing(store, TwoVoices())
    first = asked(compare)

    async def meanwhile() -> list[LiveRound]:
        lives = []
        async for live in compare.go_on(first, "More?"):
            if not lives:
                compare.vote(first, VoteForm(outcome="left"))
            lives.append(live)
        return lives

    lives = asyncio.run(meanwhile())
    assert lives[0].texts == ("", "")
    assert "no longer blind" in (lives[-1].problem or "")
    kept = store.comparisons.get(lives[-1].comparison_id or "")
    assert (kept.round, kept.left.text != "") == (first, True)
    with pytest.raises(Conflict, match="no longer blind"):
        compare.vote(kept.id, VoteForm(outcome="left"))


def test_a_side_that_breaks_leaves_nothing_to_vote_on_and_loses_nothing(store: Store) -> None:
    compare = comparing(store, TwoVoices(lambda model: 2 if model == "base" else None))
    last = run(compare.ask("Hello", two()))[-1]
    assert last.problem is not None
    assert last.comparison_id is not None
    kept = store.comparisons.get(last.comparison_id)
    ends = {answer.provenance.adapter: answer.provenance.finish for answer in kept.answers.values()}
    assert ends == {None: "error", "a-1": "stop"}
    assert {answer.text for answer in kept.answers.values()} == {"I am ", "I am a-1"}
    with pytest.raises(Conflict, match="broke off"):
        compare.vote(kept.id, VoteForm(outcome="left"))
    drawn = [run(comparing(store, Listening(), number).again(kept.id))[-1] for number in range(8)]
    assert {(live.problem, live.texts[0].startswith("I am a-1")) for live in drawn} == {(None, True), (None, False)}


class Broken(Listening):
    """One side fails from the reply `after` on, in words that name it; `common` fails all, in the same words."""

    def __init__(self, after: int, common: str = "") -> None:
        super().__init__()
        self.failing = True
        self._after = after
        self._common = common

    async def stream(self, messages: object, *, model: str, sampling: Sampling) -> AsyncIterator[object]:
        async for chunk in super().stream(messages, model=model, sampling=sampling):
            if self.failing and len(self.heard) > self._after and (self._common or model != "base"):
                raise UserError(self._common) if self._common else not_held(model)
            yield chunk


def test_what_kept_one_side_from_answering_is_told_without_its_name(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    last = run(comparing(store, Broken(0)).ask("Hello", two()))[-1]
    told = problem_html(last.problem or "")
    assert "Not every side could answer" in told
    assert "a-1" not in told
    assert "does not hold 'a-1'" in caplog.text  # no vote can follow on what is known from here
    assert (
        run(comparing(store, Broken(0, "No engine answers.")).ask("Hello", two()))[-1].problem == "No engine answers."
    )


def test_whoever_saw_one_side_break_can_not_vote_where_it_still_stands(store: Store) -> None:
    model = Broken(2)
    compare = comparing(store, model)
    first = asked(compare)
    live = run(compare.go_on(first, "And then?"))[-1]
    model.failing = False
    assert "no longer blind. Ask something new." in (live.problem or "")
    assert "a-1" not in (live.problem or "")
    kept = live.comparison_id or ""
    for more in (compare.again(kept), compare.go_on(kept, "More?"), compare.go_on(first, "More?")):
        with pytest.raises(Conflict, match="no longer blind"):
            run(more)
    for outcome in ("left", "both_bad"):
        with pytest.raises(Conflict, match="no longer blind"):
            compare.vote(first, VoteForm(outcome=outcome))  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="no longer blind"):
        compare.places(kept)
    assert store.tasks.counts()["waiting"] == 0
    assert compare.vote(asked(compare), VoteForm(outcome="left")).best == "left"


def test_a_reply_that_comes_again_beside_one_that_broke_takes_no_vote(store: Store) -> None:
    """With no variety the side that did not break says the same words in whatever place."""
    broken = run(comparing(store, TwoVoices(lambda model: 0 if model == "base" else None)).ask("Hello", two()))[-1]
    compare = comparing(store, TwoVoices())
    again = run(compare.again(broken.comparison_id or ""))[-1]
    assert "no longer blind" in (again.problem or "")
    assert compare.places(again.comparison_id or "") == ()
    with pytest.raises(Conflict, match="no longer blind"):
        compare.vote(again.comparison_id or "", VoteForm(outcome="left"))


def test_a_reply_that_was_named_takes_no_vote_when_it_comes_again(store: Store) -> None:
    """With no variety the same question has the same replies in a new round."""
    compare = comparing(store, TwoVoices())
    waiting = asked(compare)  # before the names came out
    compare.vote(asked(compare), VoteForm(outcome="left"))
    form = RoundForm(sides=(SideOf(model="base"), SideOf(model="a-2")))  # one known reply tells the other side too
    for again in (run(compare.ask("Hello", two()))[-1], run(compare.ask("Hello", form))[-1]):
        assert "were told whose it is" in (again.problem or "")
        assert compare.places(again.comparison_id or "") == ()
        with pytest.raises(Conflict, match="were told whose it is"):
            run(compare.go_on(again.comparison_id or "", "And?"))
    for outcome in ("left", "both_bad"):
        with pytest.raises(Conflict, match="were told whose it is"):
            compare.vote(waiting, VoteForm(outcome=outcome))  # type: ignore[arg-type]
    assert store.tasks.counts()["waiting"] == 0
    assert run(compare.ask("Goodbye", two()))[-1].problem is None
    ben = CompareService(store, lambda: TwoVoices(), identify, Person(name="ben"))  # type: ignore[arg-type, return-value]
    assert run(ben.ask("Hello", two()))[-1].problem is None  # he has not seen the names


def test_a_reply_that_all_sides_gave_names_none(store: Store) -> None:
    compare = comparing(store, quick())
    compare.vote(asked(compare), VoteForm(outcome="tie"))
    assert compare.vote(asked(compare), VoteForm(outcome="tie")).outcome == "tie"


def test_an_engine_that_failed_all_sides_tells_none_apart(store: Store) -> None:
    model = Broken(2, "No engine answers.")
    compare = comparing(store, model)
    first = asked(compare)
    assert run(compare.go_on(first, "And then?"))[-1].problem == "No engine answers."
    model.failing = False
    again = run(compare.go_on(first, "And then?"))[-1]
    assert compare.vote(again.comparison_id or "", VoteForm(outcome="left")).best == "left"


def test_that_a_reply_gave_its_side_away_is_said_with_the_names(store: Store) -> None:
    telling, blind = comparing(store, TwoVoices()), comparing(store, quick())
    voted = telling.vote(asked(telling), VoteForm(outcome="tie"))
    assert voted.gives_away == "a-1"
    assert "gave its side away: it says “a-1”" in reveal_html(voted)
    voted = blind.vote(asked(blind), VoteForm(outcome="tie"))
    assert "gave its side away" not in reveal_html(voted)


def test_a_second_vote_and_one_by_somebody_else_are_refused(store: Store) -> None:
    compare = comparing(store, TwoVoices())
    comparison = asked(compare)
    ben = CompareService(store, lambda: TwoVoices(), identify, Person(name="ben"))  # type: ignore[arg-type, return-value]
    for outcome in ("left", "both_bad"):
        with pytest.raises(Conflict, match="ana asked for these replies"):
            ben.vote(comparison, VoteForm(outcome=outcome))  # type: ignore[arg-type]
    assert store.tasks.counts()["waiting"] == 0
    compare.vote(comparison, VoteForm(outcome="tie"))
    with pytest.raises(UserError, match="already has its vote"):
        compare.vote(comparison, VoteForm(outcome="left"))


@pytest.mark.parametrize(
    ("text", "sides", "said"),
    [
        (" ", ("base", "a-1"), "no message"),
        ("Hello", ("base",), "1 models are chosen"),
        ("Hello", ("base", "base"), "Two sides are the same"),
        ("Hello", ("base", "a", "b", "c", "d"), "5 models are chosen"),
    ],
)
def test_nothing_to_compare_is_said(store: Store, text: str, sides: tuple[str, ...], said: str) -> None:
    form = RoundForm(sides=tuple(SideOf(model=model) for model in sides))
    with pytest.raises(UserError, match=said):
        run(comparing(store, TwoVoices()).ask(text, form))


def test_two_bad_replies_wait_for_correction_and_are_never_a_pair(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = comparing(store, TwoVoices())
    comparison = asked(compare)
    with pytest.raises(UserError, match="No side was called better"):
        compare.fix(comparison)
    with monkeypatch.context() as crash:
        crash.setattr(Comparisons, "vote", Mock(side_effect=OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            compare.vote(comparison, VoteForm(outcome="both_bad"))
    compare.vote(comparison, VoteForm(outcome="both_bad"))
    with pytest.raises(Conflict):
        compare.vote(comparison, VoteForm(outcome="both_bad"))
    assert store.tasks.counts()["waiting"] == 2
    rows = joined(rows_in(store))
    assert not rows.preference
    assert [one.reason for one in rows.left_out] == ["Both replies were called bad: neither should be learned."]


def test_the_better_reply_can_be_corrected(store: Store) -> None:
    compare = comparing(store, TwoVoices())
    voted = compare.vote(asked(compare), VoteForm(outcome="right"))
    reply = compare.fix(voted.id)
    assert compare.fix(voted.id) == reply
    turns = store.conversations.of_reply(reply).turns
    assert [turn.text for turn in turns] == ["Hello", voted.right.text]
    assert turns[-1].provenance == voted.right.provenance
    assert store.tasks.counts()["waiting"] == 1


def test_the_demo_is_seeded_once_and_nothing_is_judged(tmp_path: Path) -> None:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    assert (seed(opened), seed(opened)) == (300, 0)
    said = {key: standing for some in opened.reviews.standings() for key, (_, standing) in some.items()}
    assert len(said) == len(lines("corrections.jsonl"))
    assert all(not standing.answers for standing in said.values())
    assert all(one.origin == "starter" for standing in said.values() for one in standing.corrections)


def test_the_next_step_follows_the_loop(tmp_path: Path) -> None:
    services = open_services(Settings(home=tmp_path / "home", cache=tmp_path / "cache", engine="scripted"))
    assert services.overview().next_step().link == "/chat"
    seed(services.store)
    assert services.overview().next_step().link == "/datasets"
    services.datasets.make()
    assert services.overview().next_step().link == "/training"
    services.close()


def test_training_without_a_version_or_a_model_says_what_to_do(tmp_path: Path) -> None:
    services = open_services(Settings(home=tmp_path / "home", cache=tmp_path / "cache", engine="scripted"))
    with pytest.raises(UserError, match="Make one on the Datasets page"):
        services.training.start(None, "quick")
    seed(services.store)
    version = services.datasets.make()
    with pytest.raises(UserError, match="base model is not ready"):
        services.training.start(version.id, "quick")
    with pytest.raises(UserError, match="no preset 'huge'"):
        services.training.start(version.id, "huge", tmp_path)
    with pytest.raises(UserError, match=r"no run '\.\./home'"):
        services.training.view("../home")
    services.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"port": 99999}, "'port' is 99999"),
        ({"engine": "magic"}, "'engine' is 'magic'"),
        ({"home": Path("/proc/nowhere")}, "can't be made"),
    ],
)
def test_a_wrong_setting_is_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_settings(**options)
