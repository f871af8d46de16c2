"""The services behind the page, on a scripted model: what is kept when things go wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest

from annotation.curate import joined
from annotation.errors import Conflict, UserError
from annotation.people import Person
from annotation.store import Store, open_store
from annotation.store.comparisons import Comparisons
from annotation.store.reviews import Verdict
from annotation.types import Charter, ChatModel, Chunk, Conversation, Message, Provenance, Sampling, Weights
from annotation.versions import rows_in
from serving.memory import Memory
from serving.scripted import ScriptedModel
from studio.demo_project import lines, seed
from studio.services import open_services
from studio.services.chat import ChatService, LiveReply
from studio.services.compare import CompareService, LivePair
from studio.services.review import ReviewForm, ReviewService
from studio.services.serving import Checked
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


def test_a_reply_grows_and_is_kept_with_its_origin(store: Store) -> None:
    lives = collect(chat_with(store, quick()).send(None, " Hello ", "a-1", SAMPLING))
    assert [live.text for live in lives][:2] == ["one ", "one two "]
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


def checked(tmp_path: Path, model: Attested) -> ChatModel:
    def registered(name: str) -> Provenance:
        return Provenance(model="m", adapter=name, weights_sha256="right" if name != "base" else None)

    return Checked(model, Memory(tmp_path / "serving.json"), registered)


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
    (last,) = collect(ChatService(store, lambda: wrong, identify, ANA, lambda: 1).send(None, "Hello", asked, SAMPLING))
    assert (last.text, last.turn) == ("", None)
    assert last.problem is not None
    assert f"{asked} is not what answered: the engine says it used" in last.problem


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
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
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


def pairs(compare: CompareService, adapter: str = "a-1") -> list[LivePair]:
    async def run() -> list[LivePair]:
        return [pair async for pair in compare.ask("Hello", adapter, SAMPLING)]

    return asyncio.run(run())


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
        last = pairs(compare)[-1]
        assert last.comparison_id is not None
        voted = compare.vote(last.comparison_id, "left")
        names = (voted.left.provenance.adapter, voted.right.provenance.adapter)
        seen.add(names)
        assert last.left == f"I am {names[0] or 'base'}"
        assert voted.left.provenance.seconds == voted.right.provenance.seconds
    assert seen == {("a-1", None), (None, "a-1")}
    tally = comparing(store, TwoVoices()).tally()
    assert tally["tuned"] + tally["base"] == 20
    assert min(tally["tuned"], tally["base"]) > 2


def test_a_side_that_breaks_leaves_nothing_to_vote_on(store: Store) -> None:
    last = pairs(comparing(store, TwoVoices(lambda model: 2 if model == "base" else None)))[-1]
    assert last.comparison_id is None
    assert last.problem is not None
    assert "I am" in last.left + last.right


def test_a_second_vote_is_refused(store: Store) -> None:
    compare = comparing(store, TwoVoices())
    comparison = pairs(compare)[-1].comparison_id
    assert comparison is not None
    compare.vote(comparison, "tie")
    with pytest.raises(UserError, match="already has its vote"):
        compare.vote(comparison, "left")


@pytest.mark.parametrize(("text", "adapter", "said"), [(" ", "a-1", "no message"), ("Hello", None, "No adapter")])
def test_nothing_to_compare_is_said(store: Store, text: str, adapter: str | None, said: str) -> None:
    async def ask() -> None:
        async for _ in comparing(store, TwoVoices()).ask(text, adapter, SAMPLING):
            pass

    with pytest.raises(UserError, match=said):
        asyncio.run(ask())


def test_two_bad_replies_wait_for_correction_and_are_never_a_pair(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = comparing(store, TwoVoices())
    comparison = pairs(compare)[-1].comparison_id or ""
    with pytest.raises(UserError, match="No side was called better"):
        compare.fix(comparison)
    with monkeypatch.context() as crash:
        crash.setattr(Comparisons, "vote", Mock(side_effect=OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            compare.vote(comparison, "both_bad")
    compare.vote(comparison, "both_bad")
    with pytest.raises(Conflict):
        compare.vote(comparison, "both_bad")
    assert store.tasks.counts()["waiting"] == 2
    rows = joined(rows_in(store))
    assert not rows.preference
    assert [one.reason for one in rows.left_out] == ["Both replies were called bad: neither should be learned."]


def test_the_better_reply_can_be_corrected(store: Store) -> None:
    compare = comparing(store, TwoVoices())
    voted = compare.vote(pairs(compare)[-1].comparison_id or "", "right")
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
