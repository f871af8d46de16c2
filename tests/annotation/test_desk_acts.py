"""History in, present state out: `replay` and `project`, and the real store held against them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.acts import QUESTIONS, Act, ActBody, ActKind, Outcome, Standing, project, replay
from annotation.errors import Conflict, UserError
from annotation.people import Person
from annotation.queue import QueueSettings
from annotation.store import Store, open_store
from annotation.store.batches import Change
from annotation.store.search import Filter
from annotation.types import Correction, Judgement, Question, Route, Value, utc_now
from tests.fixtures.desk import a_reply, an_act, expire, not_as_replayed, verdict

NUMBERS = count()
VALUES: tuple[Value, ...] = ("pass", "fail", "unsure", "not_applicable")
ROUTES: tuple[Route, ...] = ("queue", "search", "gold", "repeat", "adjudication", "late", "import")


def act(
    person: str = "ana",
    kind: ActKind = "review",
    route: Route = "queue",
    corrected: str | None = None,
    clauses: tuple[str, ...] = (),
    body: ActBody | None = None,
    **answers: Value,
) -> Act:
    """One act; `voice="pass"` and the like are its answers."""
    now, number = utc_now(), f"a{next(NUMBERS)}"
    return Act(
        id=number,
        reply_id="r",
        person=person,
        kind=kind,
        route=route,
        made_at=now,
        body=body or ActBody(),
        judgements=tuple(
            Judgement.model_validate(
                {
                    "id": f"{number}-{question}",
                    "reply_id": "r",
                    "question": question,
                    "value": value,
                    "clause_ids": clauses,
                    "charter_version": 1,
                    "reviewer": person,
                    "route": route,
                    "made_at": now,
                }
            )
            for question, value in answers.items()
        ),
        correction=None
        if corrected is None
        else Correction(id=number, reply_id="r", before="Dunno.", after=corrected, author=person, made_at=now),
    )


def undo(one: Act) -> Act:
    return act(one.person, "undo", body=ActBody(undoes=one.id))


def requeue(*questions: Question) -> Act:
    return act("cleo", "requeue", body=ActBody(questions=questions))


@pytest.mark.parametrize(
    ("acts", "value", "how"),
    [
        ([act("ana", voice="fail")], "fail", "single"),
        ([act("ana", voice="fail"), act("ben", voice="fail")], "fail", "unanimous"),
        ([act("ana", voice="fail"), act("ben", voice="pass")], None, "unresolved"),
        ([act("ana", voice="not_applicable"), act("ben", voice="not_applicable")], "not_applicable", "unanimous"),
        ([act("ana", voice="not_applicable"), act("ben", voice="pass")], None, "unresolved"),
        (
            [act("ana", voice="fail"), act("ben", voice="pass"), act("cleo", route="adjudication", voice="unsure")],
            "unsure",
            "adjudicated",
        ),
        ([act("ana", voice="fail"), act("ana", voice="pass")], "pass", "single"),
    ],
)
def test_one_answer_comes_out_of_several(acts: list[Act], value: Value | None, how: str) -> None:
    found = replay(acts).resolved()["voice"]
    assert (found.value, found.how) == (value, how)


def test_a_question_that_nobody_answered_has_no_answer() -> None:
    assert set(replay([act(voice="pass")]).resolved()) == {"voice"}


def test_all_cited_rules_are_kept_each_once_in_the_order_they_were_cited() -> None:
    acts = [act("ana", clauses=("b", "a"), voice="fail"), act("ben", clauses=("a", "c"), voice="fail")]
    assert replay(acts).resolved()["voice"].clause_ids == ("b", "a", "c")


@pytest.mark.parametrize("route", ["gold", "repeat", "late"])
def test_checks_repeats_and_extra_opinions_do_not_count(route: Route) -> None:
    standing = replay([act(route=route, corrected="On its way.", voice="fail")])
    assert standing == Standing()


def test_settling_does_not_take_a_place() -> None:
    standing = replay([act("cleo", route="adjudication", voice="fail")])
    assert standing.done_by == frozenset()
    assert standing.settled["voice"].value == "fail"


@pytest.mark.parametrize(
    ("acts", "outcome"),
    [
        ([act(voice="pass", policy="pass", bias="pass")], "approved"),
        ([act(voice="pass", policy="not_applicable", bias="pass")], "approved"),
        ([act(voice="pass", policy="pass")], "partial"),
        ([act(corrected="Better.", voice="fail")], "corrected"),
        ([act(voice="fail", policy="unsure")], "failed"),
        ([act(voice="pass", policy="unsure")], "unsure"),
        ([act("ana", corrected="Better.", voice="fail"), act("ben", voice="pass")], "disputed"),
        (
            [act("ana", voice="fail"), act("ben", voice="pass"), act("cleo", route="adjudication", voice="fail")],
            "failed",
        ),
    ],
)
def test_what_it_came_to_in_one_word(acts: list[Act], outcome: Outcome) -> None:
    assert replay(acts).outcome() == outcome


def test_agreement_is_that_of_the_question_with_the_most_dissent() -> None:
    acts = [act("ana", voice="pass", policy="pass"), act("ben", voice="pass", policy="fail"), act("cam", voice="fail")]
    assert replay(acts).agreement() == 0.5
    assert replay(acts[:1]).agreement() is None
    assert replay([act("ana", voice="pass"), act("ben", policy="pass")]).agreement() is None


def test_asking_again_clears_only_its_questions_and_needs_everybody_anew() -> None:
    acts = [
        act("ana", voice="fail", policy="pass"),
        act("ben", voice="pass", policy="pass"),
        act("cleo", route="adjudication", voice="fail", policy="fail"),
        requeue("voice"),
    ]
    standing = replay(acts)
    assert {person: set(given) for person, given in standing.answers.items()} == {"ana": {"policy"}, "ben": {"policy"}}
    assert set(standing.settled) == {"policy"}
    assert standing.done_by == frozenset()
    assert project(acts, 2, 0).state == "open"
    again = [*acts, act("ana", voice="pass"), act("ben", voice="pass")]
    assert replay(again).resolved()["voice"].how == "unanimous"
    assert project(again, 2, 0).done == 2


def test_what_was_asked_again_is_stale_until_enough_have_looked() -> None:
    acts = [act("ana", voice="fail"), requeue("voice")]
    assert [project(acts[:end], 1, 0).stale for end in (1, 2)] == [False, True]
    assert not project([*acts, act("ben", voice="pass")], 1, 0).stale


def test_a_skip_lasts_until_it_is_brought_back_judged_or_undone() -> None:
    skip = act("ana", "skip", body=ActBody(text="not a reply"))
    assert replay([skip]).skipped == "not a reply"
    assert replay([act("ana", "skip")]).skipped
    for back in (act("ben", "restore"), act("ben", voice="pass"), undo(skip)):
        assert replay([skip, back]).skipped is None
    for other in (act("ben", "comment"), act("ben", "pass"), act("ben", route="late", voice="pass")):
        assert replay([skip, other]).skipped == "not a reply"


def test_flags_stay_until_they_are_taken_down_and_the_newest_says_for_whom() -> None:
    first, second = act("ana", "flag", body=ActBody(to="ben")), act("ana", "flag")
    assert project([first], 1, 0).flag_to == "ben"
    assert project([first, second], 1, 0).flag_to == ""
    assert project([first, second, act("ben", "unflag")], 1, 0).flag_to is None
    assert replay([first, second]).flags == (first, second)


@pytest.mark.parametrize(
    ("acts", "overlap", "held", "state"),
    [
        ([], 1, 0, "open"),
        ([], 1, 1, "full"),
        ([], 2, 1, "open"),
        ([act("ana", voice="pass")], 2, 1, "full"),
        ([act("ana", voice="pass")], 1, 0, "done"),
        ([act("ana", voice="pass"), act("ben", voice="fail")], 2, 0, "disputed"),
        ([act("ana", voice="pass"), act("ben", voice="fail")], 3, 0, "open"),
        ([act("ana", voice="pass"), act("ana", voice="fail")], 2, 0, "open"),
        ([act("ana", "skip")], 1, 1, "skipped"),
    ],
)
def test_the_state_follows_from_answers_places_and_holds(acts: list[Act], overlap: int, held: int, state: str) -> None:
    assert project(acts, overlap, held).state == state
    assert project(acts, overlap, held, gold=True).state == "gold"


any_act = st.builds(
    lambda person, kind, route, questions, value, text: act(
        person,
        kind,
        route if kind == "review" else "queue",
        corrected=text if kind == "review" else None,
        body=ActBody(questions=tuple(questions)) if kind == "requeue" else None,
        **(dict.fromkeys(questions, value) if kind == "review" else {}),
    ),
    st.sampled_from(("ana", "ben", "cam")),
    st.sampled_from(("review", "review", "skip", "pass", "flag", "unflag", "comment", "requeue", "restore")),
    st.sampled_from(ROUTES),
    st.lists(st.sampled_from(QUESTIONS), min_size=1, unique=True),
    st.sampled_from(VALUES),
    st.none() | st.just("On its way."),
)


@given(st.lists(any_act, max_size=8), any_act)
def test_taking_the_last_act_back_gives_what_was_before(acts: list[Act], last: Act) -> None:
    assert replay([*acts, last, undo(last)]) == replay(acts)


@given(st.lists(any_act, min_size=1, max_size=8), st.integers(0, 7))
def test_an_act_that_was_taken_back_counts_as_never_done(acts: list[Act], place: int) -> None:
    gone = acts[place % len(acts)]
    assert replay([*acts, undo(gone)]) == replay([one for one in acts if one is not gone])


# The real store


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all examples; each works in a queue, with replies and with people of its own."""
    opened = open_store(f"sqlite:///{tmp_path_factory.mktemp('desk') / 'store.db'}")
    yield opened
    opened.close()


Verb = Literal[
    "deal", "save", "save late", "open", "settle", "skip", "pass", "undo", "ask again", "flag", "unflag", "comment",
    "bring back", "gold", "not gold", "expire", "release", "overlap", "set aside", "take back",
]  # fmt: skip
steps = st.lists(
    st.tuples(
        st.sampled_from(Verb.__args__),  # type: ignore[attr-defined]
        st.integers(0, 2),  # who
        st.integers(0, 1),  # which reply
        st.sampled_from(VALUES),
        st.sampled_from(QUESTIONS),
    ),
    max_size=25,
)


class Game:
    """People doing things to two replies, allowed or not."""

    def __init__(self, store: Store, overlap: int) -> None:
        number = next(NUMBERS)
        self.store = store
        self.queue = QueueSettings(name=f"q{number}", overlap=overlap)
        self.people = [Person(name=f"{name}-{number}", role="curator") for name in ("ana", "ben", "cam")]
        self.replies = [a_reply(store) for _ in range(2)]
        store.batches.make(Filter(queue="main"), Change(queue=self.queue.name, overlap=overlap), "cleo")
        self.holds: dict[str, tuple[str, str]] = {}
        self.batch: str | None = None

    def take(self, verb: Verb, who: int, which: int, value: Value, question: Question) -> None:
        store, person, reply = self.store, self.people[who], self.replies[which]
        hold_id, held = self.holds.get(person.name, ("", ""))
        form = an_act(held, person, verdicts=(verdict(value, question),), act_id=hold_id)
        match verb:
            case "deal" if hold := store.tasks.claim(person, self.queue):
                self.holds[person.name] = hold.id, hold.reply_id
            case "open" | "settle":
                hold = store.tasks.claim_one(person, reply, adjudicate=verb == "settle")
                self.holds[person.name] = hold.id, reply
            case "save" if held:
                store.reviews.save(form)
            case "save late" if held:
                store.reviews.save(form.model_copy(update={"route": "late"}))
            case "skip" if held:
                store.reviews.skip(hold_id, held, person.name, "why")
            case "pass" if held:
                store.reviews.add("pass", held, person.name, ActBody(), hold_id)
            case "release" if held:
                store.tasks.release(person.name, hold_id)
            case "undo":
                self.undo(person)
            case "ask again":
                store.reviews.requeue([reply], [question], person.name, "why")
            case "flag" | "unflag" | "comment":
                store.reviews.add(verb, reply, person.name, ActBody(text="look"))
            case "bring back":
                store.reviews.bring_back_skipped(person.name)
            case "gold":
                store.tasks.set_gold(reply, {question: value}, person.name)
            case "not gold":
                store.tasks.unset_gold(reply)
            case "expire":
                expire(store)
                store.tasks.free_expired()
            case "overlap":
                store.tasks.change_settings(self.queue.model_copy(update={"overlap": 1 + who}), person.name)
            case "set aside":
                change = Change(set_aside=True, overlap=1 + who if which else None)
                self.batch = store.batches.make(Filter(queue=self.queue.name), change, person.name).id
            case "take back" if self.batch:
                store.batches.undo(self.batch, person.name)

    def undo(self, person: Person) -> None:
        taken_back = self.store.reviews.undo(person.name)
        if taken_back is not None:
            history = self.store.reviews.history(taken_back.reply_id)
            without = [one for one in history[:-1] if one.id != taken_back.id]
            assert replay(history) == replay(without)


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(1, 3))
def test_the_history_replays_to_the_present_state(
    desk: Store, played: list[tuple[Verb, int, int, Value, Question]], overlap: int
) -> None:
    game = Game(desk, overlap)
    for step in played:
        try:
            game.take(*step)
        except (Conflict, UserError):  # not allowed just then
            continue
        assert not_as_replayed(desk, game.replies) == [], step
    for question in QUESTIONS:
        rows = {(row.reply_id, row.reviewer): row.value for row in desk.figures.answers(question)}
        standing = {
            (reply, person): answers[question].value
            for reply in game.replies
            for person, answers in desk.reviews.standing(reply).answers.items()
            if question in answers
        }
        assert {key: value for key, value in rows.items() if key[0] in game.replies} == standing
