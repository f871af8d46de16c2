"""The services behind the desk, over one store: nobody sees what others said, settling decides, and a new charter asks
again for exactly what it made doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from annotation.acts import QUESTIONS
from annotation.agreement import share
from annotation.curate import joined
from annotation.errors import Conflict, NotFound, UserError
from annotation.people import Person
from annotation.queue import QueueSettings
from annotation.store import Store, open_store
from annotation.store.batches import Change
from annotation.store.helpers import Suggestion
from annotation.store.reviews import ReviewAct, Verdict
from annotation.store.search import Filter
from annotation.types import Axis, Charter, Clause, Judgement, Message, Provenance, Question, Trait, Value
from annotation.versions import rows_in
from serving.scripted import ScriptedModel
from studio.pages.charter import _Chamber, write_as
from studio.pages.find import hits_html
from studio.pages.quality import reviewers_html
from studio.services.find import FindService
from studio.services.quality import QualityService
from studio.services.review import ReviewForm, ReviewItem, ReviewService, RulesChanged
from studio.services.rules import CharterService
from studio.services.settle import SettleService
from studio.services.team import TeamService
from studio.web.desk import as_json

ANA, BEN, EVE = (Person(name=name) for name in ("ana", "ben", "eve"))
CAT = Person(name="cat", role="curator")
DAN = Person(name="dan", role="curator")
ROOT = Person(name="root", role="admin")
REPLIES = 6
CHARTER = Charter(
    name="Shop",
    voice=(Trait(id="warm", text="Be warm."), Trait(id="short", text="Be short.")),
    policy=(Clause(id="no-promises", text="No promises."), Clause(id="no-prices", text="No prices.")),
    bias=(Axis(id="age", text="Age changes nothing."),),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Six replies, a charter, and everybody above."""
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.charters.add(CHARTER, "cat")
    for person in (ANA, BEN, EVE, CAT, DAN, ROOT):
        opened.people.add(person.name, person.role)
    for number in range(REPLIES):
        texts = [("user", f"Question {number}?"), ("assistant", f"Reply {number}, and it goes on.")]
        messages = [(Message(role=role, text=text), None) for role, text in texts]  # type: ignore[arg-type]
        opened.conversations.import_one("log", str(number), f"Title {number}", "en", messages)
    yield opened
    opened.close()


def desk(store: Store, who: Person) -> ReviewService:
    return ReviewService(store, who, ScriptedModel, lambda name: Provenance(model=name))


def replies(store: Store) -> list[str]:
    return [hit.reply_id for hit in store.search.find(Filter())]


def verdicts(*values: Value, clauses: tuple[str, ...] = ()) -> tuple[Verdict, ...]:
    """An answer to each question; `clauses` go with those that are at fault."""
    known = {question: {rule.id for rule in getattr(CHARTER, question)} for question in QUESTIONS}
    return tuple(
        Verdict(
            question=question,
            value=value,
            clause_ids=tuple(one for one in clauses if one in known[question]) if value == "fail" else (),
        )
        for question, value in zip(QUESTIONS, values, strict=False)
    )


FINE = verdicts("pass", "pass", "pass")


def judge(
    store: Store, who: Person, reply_id: str, given: tuple[Verdict, ...] = FINE, text: str = "", **more: Any
) -> ReviewItem:
    item = desk(store, who).open(reply_id)
    assert desk(store, who).save(
        ReviewForm(act_id=item.act_id, reply_id=reply_id, verdicts=given, corrected=text, **more)
    )
    return item


def overlap(store: Store, number: int, **more: Any) -> None:
    TeamService(store, CAT).change_queue(QueueSettings(overlap=number, **more))


def differ(store: Store, reply_id: str) -> None:
    """Ana finds the voice fine and a rule broken, Ben the other way round; both say fair."""
    overlap(store, 2)
    judge(store, ANA, reply_id, verdicts("pass", "fail", "pass", clauses=("no-promises",)), "Ana's reply.")
    judge(store, BEN, reply_id, verdicts("fail", "pass", "pass", clauses=("warm",)))


# Blind


def shape(value: Any) -> Any:
    """The keys of an item, all the way down, without what they hold."""
    if isinstance(value, dict):
        return {key: shape(inside) for key, inside in value.items()}
    return [shape(inside) for inside in value] if isinstance(value, list | tuple) else type(value)


def test_what_others_said_is_nowhere_in_an_item(store: Store) -> None:
    overlap(store, 3)
    reply_id = replies(store)[0]
    secret = Verdict(question="policy", value="fail", clause_ids=("no-promises",), note="secret note")
    judge(store, ANA, reply_id, (secret,), "secret rewrite", reasons=("unfair",))
    desk(store, ANA).skip("act-skip", replies(store)[1], "secret reason")
    for who in (BEN, EVE, Person(name="vic", role="viewer")):
        seen = [desk(store, who).look(reply_id), desk(store, who).history(reply_id)]
        seen.append(desk(store, who).history(replies(store)[1]))
        if who.may("judge"):
            seen.append(as_json(desk(store, who).open(reply_id), who))
        assert "secret" not in str(seen)
        assert "ana" not in str(seen)
        assert "no-promises" not in str(seen)
    assert "breaks policy (no-promises), “secret note”" in str(desk(store, CAT).history(reply_id))
    assert "secret note" in str(desk(store, ANA).history(reply_id))


def test_the_history_tells_a_curator_who_changed_what(store: Store) -> None:
    reply_id = replies(store)[0]
    fault = Verdict(question="policy", value="fail", clause_ids=("no-promises",), severity="major", note="why")
    bias = Verdict(question="bias", value="fail", kind="unequal_help")
    judge(store, ANA, reply_id, (fault, bias), "Reply 0, mended.")
    (line,) = desk(store, CAT).history(reply_id)
    assert (line.who, line.before, line.after) == ("ana", "Reply 0, and it goes on.", "Reply 0, mended.")
    assert line.text == "breaks policy (no-promises; major), “why”, biased (unequal help), rewrote it"
    judge(store, ANA, reply_id, FINE)
    assert [(one.before, one.after) for one in desk(store, ANA).history(reply_id)][1] == ("", "")
    assert desk(store, BEN).history(reply_id) == []


def test_what_was_said_to_everybody_is_seen_by_everybody(store: Store) -> None:
    reply_id = replies(store)[0]
    desk(store, ANA).comment(reply_id, "Is this ours?")
    desk(store, ANA).flag(reply_id, "ben", "have a look")
    assert [line.kind for line in desk(store, BEN).history(reply_id)] == ["comment", "flag"]
    assert desk(store, BEN).flagged() == [reply_id]
    assert desk(store, CAT).flagged() == []


def test_a_flag_that_was_taken_down_is_history(store: Store) -> None:
    reply_id = replies(store)[0]
    desk(store, ANA).flag(reply_id, None, "an old one")
    desk(store, ANA).comment(reply_id, "Is this ours?")
    desk(store, BEN).unflag(reply_id)
    desk(store, EVE).flag(reply_id, None, "a new one")

    def told(item: ReviewItem | None) -> list[str]:
        return [line.text for line in item.said] if item else []

    left = ["said: Is this ours?", "flagged it for a curator: a new one"]
    assert told(desk(store, CAT).look(reply_id)) == left
    assert told(desk(store, DAN).next()) == told(desk(store, DAN).open(reply_id)) == left
    assert [line.kind for line in desk(store, CAT).history(reply_id)] == ["flag", "comment", "unflag", "flag"]


def test_what_one_took_down_stays_down_where_the_reply_comes_once_more(store: Store) -> None:
    reply_id = replies(store)[0]
    desk(store, BEN).flag(reply_id, None, "an old one")
    desk(store, ANA).unflag(reply_id)
    judge(store, ANA, reply_id)
    store.tasks.claim_again(ANA, reply_id, "repeat")
    item = desk(store, ANA).next()
    assert item is not None
    assert (item.reply.id, item.said) == (reply_id, ())
    assert desk(store, ANA).look(reply_id).said == ()


def met(store: Store, who: Person) -> tuple[dict[str, Any], str] | None:
    """What the queue gives next, as the page sees it, and how it came up, as only the store knows."""
    item = desk(store, who).next()
    if item is None:
        return None
    seen = as_json(item, who)
    assert seen is not None
    assert desk(store, who).history(item.reply.id) == []
    desk(store, who).save(ReviewForm(act_id=item.act_id, reply_id=item.reply.id, verdicts=FINE))
    return seen, store.reviews.history(item.reply.id)[-1].route


def test_hidden_checks_and_repeats_look_like_any_other_reply(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotation.store.dealing.REPEAT_AFTER", 1)
    overlap(store, 1, gold_share=0.34, repeat_share=0.33)
    TeamService(store, CAT).set_gold(replies(store)[4], {"voice": "fail"})
    TeamService(store, CAT).set_gold(replies(store)[5], {"voice": "pass"})
    seen: dict[str, list[dict[str, Any]]] = {}
    while found := met(store, ANA):
        seen.setdefault(found[1], []).append(found[0])
    assert set(seen) == {"queue", "gold", "repeat"}
    shapes = {str(shape(item)) for items in seen.values() for item in items}
    assert len(shapes) == 1
    told = [str(item).lower() for items in seen.values() for item in items]
    assert not any(word in one for one in told for word in ("gold", "repeat", "route", "check"))
    assert all(item["mine"] == {} for items in seen.values() for item in items)


def test_a_hidden_check_is_found_like_any_other_reply(store: Store) -> None:
    plain, check, other = replies(store)[:3]
    TeamService(store, CAT).set_gold(check, {"voice": "fail"})
    TeamService(store, CAT).set_gold(other, {"voice": "fail"})
    judge(store, ANA, plain)
    judge(store, ANA, check)
    find = FindService(store, ANA)
    everywhere = {hit.reply_id: hit for hit in find.find(Filter())}
    told = {"reply_id", "position", "text", "title"}
    assert everywhere[check].model_dump(exclude=told) == everywhere[plain].model_dump(exclude=told)
    assert everywhere[other].model_dump(exclude=told) == everywhere[replies(store)[3]].model_dump(exclude=told)
    waiting, reviewed = ([hit.reply_id for hit in find.find(Filter(state=state))] for state in ("waiting", "reviewed"))  # type: ignore[arg-type]
    assert reviewed == [plain, check]
    assert waiting == replies(store)[2:]
    assert (find.count(Filter(state="waiting")), find.count(Filter(state="reviewed"))) == (REPLIES - 2, 2)
    page = find.find(Filter(state="waiting"), limit=2)
    assert [hit.reply_id for hit in page] == waiting[:2]
    assert [hit.reply_id for hit in find.find(Filter(state="waiting"), page[-1].position, 2)] == waiting[2:]
    assert find.find(Filter(state="gold")) == find.find(Filter())
    assert [hit.reply_id for hit in FindService(store, CAT).find(Filter(state="gold"))] == [check, other]


@pytest.mark.parametrize("kind", ["gold", "repeat"])
def test_looking_back_does_not_tell_a_hidden_check_or_a_repeat(
    store: Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotation.store.dealing.REPEAT_AFTER", 1)
    first = replies(store)[0]
    if kind == "gold":
        TeamService(store, CAT).set_gold(first, {"voice": "fail"})
        overlap(store, 1, gold_share=0.5, repeat_share=0)
    else:
        overlap(store, 1, repeat_share=0.5)
    while found := met(store, ANA):
        back = desk(store, ANA).back()
        assert back is not None
        assert set(back.mine) == set(QUESTIONS), found[1]
        desk(store, ANA).release(back.act_id)


def test_what_one_did_the_first_time_is_nowhere_while_a_repeat_is_held(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotation.store.dealing.REPEAT_AFTER", 1)
    monkeypatch.setattr("annotation.store.dealing.dealt", lambda *told: "repeat")
    first = replies(store)[0]
    overlap(store, 2, repeat_share=0.5)
    for who in (ANA, CAT):
        item = desk(store, who).next()
        assert item is not None
        assert item.reply.id == first
        desk(store, who).comment(first, f"A word of {who.name}.")
        form = ReviewForm(act_id=item.act_id, reply_id=first, verdicts=FINE, corrected=f"The first of {who.name}.")
        assert desk(store, who).save(form)
        again = desk(store, who).next()
        assert again is not None
        assert again.reply.id == first
        desk(store, who).comment(first, "Said now.")
        opened, looked = desk(store, who).open(first), desk(store, who).look(first)
        history = desk(store, who).history(first)
        assert f"of {who.name}" not in str([as_json(one, who) for one in (again, opened, looked)] + history)
        assert [line.text for line in history if line.who == who.name] == ["said: Said now."]
        # Once it is said anew it is to be seen, alone while one looks at it, and beside the first after that.
        bad = verdicts("fail", clauses=("warm",))
        assert desk(store, who).save(ReviewForm(act_id=again.act_id, reply_id=first, verdicts=bad))
        back = desk(store, who).back()
        assert back is not None
        assert ({one.value for one in back.mine.values()}, back.text_now) == ({"fail"}, again.reply.text)
        said = [line.text for line in desk(store, who).history(first) if line.who == who.name]
        assert said == ["said: Said now.", "off brand (warm)"]
        desk(store, who).release(back.act_id)
        assert f"The first of {who.name}." in str(desk(store, who).history(first))


# Any turn, empty ones, and what machines offer


TALK = ("Where is it?", "No idea.", "And now?", "Still none.", "Well?", "Wait.")


def a_talk(store: Store, *texts: str) -> list[str]:
    """Import a conversation, customer and model in turn; the ids of the model's turns."""
    roles = ("user", "assistant") * (len(texts) // 2)
    said = [(Message(role=role, text=text), None) for role, text in zip(roles, texts, strict=True)]  # type: ignore[arg-type]
    assert store.conversations.import_one("log", "talk", "Talk", "en", said)
    (conversation,) = [one for one, title in store.conversations.recent("log") if title == "Talk"]
    return [turn.id for turn in store.conversations.get(conversation).turns if turn.role == "assistant"]


def test_each_assistant_turn_of_an_import_is_judged_and_corrected_where_it_stands(store: Store) -> None:
    first, middle, last = a_talk(store, *TALK)
    assert {first, middle, last} <= set(replies(store))
    item = judge(store, ANA, middle, verdicts("fail", "pass", "pass", clauses=("warm",)), "It left today.")
    assert [turn.text for turn in item.conversation.turns] == list(TALK[:4])
    assert [turn.text for turn in item.after] == list(TALK[4:])
    rows = joined(rows_in(store))
    (row,) = [row for row in rows.sft if row.messages[0].text == TALK[0]]
    assert [message.text for message in row.messages] == [*TALK[:3], "It left today."]
    (pair,) = rows.preference
    assert ([message.text for message in pair.prompt], pair.chosen, pair.rejected) == (
        list(TALK[:3]),
        "It left today.",
        TALK[3],
    )
    assert {one: store.tasks.state_of(one)["state"] for one in (first, middle, last)} == {
        first: "open",
        middle: "done",
        last: "open",
    }


def test_ranked_replies_become_a_pair_for_each_two_neighbours(store: Store) -> None:
    reply_id = replies(store)[0]
    was = "Reply 0, and it goes on."
    judge(store, ANA, reply_id, (), ranking=("Best.", "Good.", was))
    pairs = joined(rows_in(store)).preference
    assert [(one.chosen, one.rejected, one.source) for one in pairs] == [
        ("Best.", "Good.", "ranking"),
        ("Good.", was, "ranking"),
    ]


def test_an_empty_reply_is_shown_where_it_stands_and_never_dealt(store: Store) -> None:
    conversation = store.conversations.start("chat")
    parent = None
    for role, text in (("user", "Hm?"), ("assistant", "  "), ("user", "Hello?"), ("assistant", "Hi.")):
        parent = store.conversations.add_turn(conversation, parent, role, text).id  # type: ignore[arg-type]
    turns = store.conversations.get(conversation).turns
    assert turns[3].id in replies(store)
    assert turns[1].id not in replies(store)
    assert [turn.text for turn in desk(store, ANA).open(turns[3].id).conversation.turns] == [
        "Hm?",
        "  ",
        "Hello?",
        "Hi.",
    ]
    for call in (desk(store, ANA).open, lambda one: desk(store, CAT).comment(one, "why is it empty?")):
        with pytest.raises(NotFound):
            call(turns[1].id)


@pytest.mark.parametrize("shown", [True, False])
def test_suggestions_are_shown_or_hidden_by_the_queue_and_never_count(store: Store, shown: bool) -> None:
    store.charters.add(
        CHARTER.model_copy(update={"policy": (CHARTER.policy[0].model_copy(update={"pattern": "goes"}),)}), "cat"
    )
    reply_id = replies(store)[0]
    model = Suggestion(question="voice", value="fail", clause_ids=("warm",), score=0.67, author="model:base")
    store.helpers.suggest(reply_id, "model:base", [model])
    TeamService(store, CAT).change_queue(QueueSettings(suggestions=shown))
    item = desk(store, ANA).next()
    assert item is not None
    assert item.reply.id == reply_id
    seen = {(one.author, one.score, one.clause_ids) for one in item.suggestions}
    both = {("check:patterns", None, ("no-promises",)), ("model:base", 0.67, ("warm",))}
    assert seen == (both if shown else set())
    assert store.reviews.history(reply_id) == []
    assert store.tasks.counts()["waiting"] == REPLIES
    assert QualityService(store, CAT).reviewers({}) == []


# Saving


def test_rules_that_changed_meanwhile_are_looked_at_first(store: Store) -> None:
    item = desk(store, ANA).open(replies(store)[0])
    form = ReviewForm(act_id=item.act_id, reply_id=item.reply.id, verdicts=FINE, charter_version=1)
    CharterService(store, CAT).save(CHARTER.model_copy(update={"purpose": "Another."}))
    with pytest.raises(RulesChanged, match="version 2 is in force"):
        desk(store, ANA).save(form)
    assert store.reviews.history(item.reply.id) == []
    assert desk(store, ANA).save(form.model_copy(update={"charter_version": 2}))
    assert store.reviews.history(item.reply.id)[0].judgements[0].charter_version == 2
    with pytest.raises(NotFound):
        desk(store, ANA).save(form.model_copy(update={"act_id": "b", "charter_version": 7}))


def test_only_rules_of_the_charter_in_force_can_be_cited(store: Store) -> None:
    item = desk(store, ANA).open(replies(store)[0])
    form = ReviewForm(act_id=item.act_id, reply_id=item.reply.id, verdicts=JUDGED["cites the clause"])
    CharterService(store, CAT).save(changed(policy=CHARTER.policy[1:]))
    misplaced = Verdict(question="voice", value="fail", clause_ids=("no-prices",))
    for given, unknown in ((form.verdicts, "'no-promises' is no rule of policy"), ((misplaced,), "'no-prices' is no")):
        with pytest.raises(UserError, match=unknown):
            desk(store, ANA).save(form.model_copy(update={"verdicts": given}))
    assert store.reviews.history(item.reply.id) == []
    assert desk(store, ANA).save(form.model_copy(update={"verdicts": JUDGED["cites another"]}))


def test_the_same_rules_in_a_new_version_are_no_reason_to_ask(store: Store) -> None:
    """Rules that changed and changed back say again what was on screen."""
    item = desk(store, ANA).open(replies(store)[0])
    rules = CharterService(store, CAT)
    assert rules.save(CHARTER).version == 1
    assert desk(store, ANA).save(
        ReviewForm(act_id=item.act_id, reply_id=item.reply.id, verdicts=FINE, charter_version=1)
    )


# Second thoughts


def said_first(store: Store, reply_id: str) -> str:
    return store.conversations.of_reply(reply_id).turns[-1].text


def learned(store: Store) -> list[tuple[str, str]]:
    """(origin, text) of each row to learn from."""
    return [(row.origin, row.messages[-1].text) for row in joined(rows_in(store)).sft]


def test_a_correction_that_its_author_puts_back_is_not_learned(store: Store) -> None:
    reply_id = replies(store)[0]
    first = said_first(store, reply_id)
    judge(store, ANA, reply_id, verdicts("fail", "pass", "pass", clauses=("warm",)), "Much warmer.")
    assert learned(store) == [("corrected", "Much warmer.")]
    assert desk(store, ANA).open(reply_id).text_now == "Much warmer."
    judge(store, ANA, reply_id, FINE, first)
    assert desk(store, ANA).open(reply_id).text_now == first
    assert learned(store) == [("approved", first)]
    assert joined(rows_in(store)).preference == ()
    judge(store, ANA, reply_id, FINE, "Much warmer.")  # and they come back to it
    assert learned(store) == [("corrected", "Much warmer.")]


def test_putting_it_back_is_enough_to_say(store: Store) -> None:
    reply_id = replies(store)[0]
    judge(store, ANA, reply_id, (), "Much warmer.")
    judge(store, ANA, reply_id, (), said_first(store, reply_id))
    assert store.reviews.standing(reply_id).corrections == ()
    with pytest.raises(UserError, match="Nothing is marked"):
        judge(store, ANA, reply_id, (), said_first(store, reply_id))


def test_one_persons_second_thoughts_leave_anothers_correction(store: Store) -> None:
    reply_id = replies(store)[0]
    overlap(store, 2)
    judge(store, ANA, reply_id, FINE, "Ana's reply.")
    judge(store, BEN, reply_id, FINE, "Ben's reply.")
    judge(store, BEN, reply_id, FINE, said_first(store, reply_id))
    assert [one.after for one in store.reviews.standing(reply_id).corrections] == ["Ana's reply."]


@pytest.mark.parametrize(("at_fault", "stands"), [("no-promises", False), ("warm", True)])
def test_a_correction_stands_as_long_as_a_reason_for_it_does(store: Store, at_fault: str, stands: bool) -> None:
    reply_id = replies(store)[0]
    voice, policy = ("pass", "fail") if at_fault == "no-promises" else ("fail", "pass")
    judge(store, ANA, reply_id, verdicts(voice, policy, "pass", clauses=(at_fault,)), "Better.")  # type: ignore[arg-type]
    store.reviews.requeue([reply_id], ["policy"], "cat", "the rule on promises changed")
    item = desk(store, BEN).next()
    assert item is not None
    assert item.reply.id == reply_id
    fine = verdicts("pass", "pass")[1:]
    desk(store, BEN).save(ReviewForm(act_id=item.act_id, reply_id=reply_id, verdicts=fine, corrected=item.text_now))
    first = said_first(store, reply_id)
    assert learned(store) == ([("corrected", "Better.")] if stands else [("approved", first)])


def test_whoever_is_asked_anew_finds_what_they_had_made_of_it(store: Store) -> None:
    reply_id = replies(store)[0]
    judge(store, ANA, reply_id, verdicts("pass", "fail", "pass", clauses=("no-promises",)), "Better.")
    store.reviews.requeue([reply_id], ["policy"], "cat", "the rule on promises changed")
    item = desk(store, ANA).next()
    assert item is not None
    assert (item.reply.id, item.text_now, item.mine) == (reply_id, "Better.", {})
    given = verdicts("pass", "fail", clauses=("no-prices",))[1:]
    desk(store, ANA).save(ReviewForm(act_id=item.act_id, reply_id=reply_id, verdicts=given, corrected=item.text_now))
    assert learned(store) == [("corrected", "Better.")]


def test_a_newer_ranking_takes_the_place_of_the_older(store: Store) -> None:
    reply_id = replies(store)[0]
    for ranking in (("One.", "Two."), ("Two.", "One.")):
        judge(store, ANA, reply_id, FINE, ranking=ranking)
    pairs = [(pair.chosen, pair.rejected) for pair in joined(rows_in(store)).preference]
    assert pairs == [("Two.", "One.")]


# Only what one was given


def test_a_save_that_nobody_was_given_goes_by_the_rules_of_the_queue(store: Store) -> None:
    free, full, check, kept = replies(store)[:4]
    judge(store, BEN, full)
    store.tasks.set_gold(check, {"voice": "fail"}, "cat")
    assert desk(store, ANA).save(ReviewForm(act_id="made-up-1", reply_id=free, verdicts=FINE))
    assert not desk(store, ANA).save(ReviewForm(act_id="made-up-1", reply_id=free, verdicts=FINE))
    with pytest.raises(Conflict, match="has the 1 reviewer it asks for"):
        desk(store, ANA).save(ReviewForm(act_id="made-up-2", reply_id=full, verdicts=verdicts("fail")))
    assert store.reviews.standing(full).done_by == {"ben"}
    assert desk(store, ANA).save(ReviewForm(act_id="made-up-3", reply_id=check, verdicts=FINE))
    assert store.reviews.history(check)[-1].route == "gold"
    assert store.tasks.state_of(check)["state"] == "gold"
    desk(store, ANA).skip("made-up-4", full)
    assert store.tasks.state_of(full)["state"] == "done"
    desk(store, ANA).skip("made-up-5", kept)
    assert store.tasks.state_of(kept)["state"] == "skipped"
    with pytest.raises(Conflict, match="was set aside"):
        desk(store, BEN).save(ReviewForm(act_id="made-up-6", reply_id=kept, verdicts=FINE))


# Settling


def test_a_difference_is_shown_with_both_answers_widest_first(store: Store) -> None:
    first, second = replies(store)[:2]
    overlap(store, 3)
    for who, value in ((ANA, "pass"), (BEN, "pass"), (EVE, "fail")):
        judge(store, who, first, verdicts(value))  # type: ignore[arg-type]
    for who, value in ((ANA, "pass"), (BEN, "unsure"), (EVE, "fail")):
        judge(store, who, second, verdicts(value))  # type: ignore[arg-type]
    settle = SettleService(store, CAT)
    assert settle.waiting() == [(second, pytest.approx(1 / 3)), (first, pytest.approx(2 / 3))]
    assert settle.count() == 2
    dispute = settle.open(second)
    assert {name: given["voice"].value for name, given in dispute.standing.answers.items()} == {
        "ana": "pass",
        "ben": "unsure",
        "eve": "fail",
    }
    assert dispute.resolved()["voice"].how == "unresolved"


def test_every_difference_is_reached_however_many_there_are(store: Store) -> None:
    overlap(store, 2)
    for number in range(60 - REPLIES):
        messages = [(Message(role=role, text=f"Said {number}"), None) for role in ("user", "assistant")]  # type: ignore[arg-type]
        store.conversations.import_one("more", str(number), "Title", "en", messages)
    found = store.search.find(Filter(), limit=100)
    for hit in found:
        judge(store, ANA, hit.reply_id, verdicts("pass"))
        judge(store, BEN, hit.reply_id, verdicts("fail"))
    settle, met, last = SettleService(store, CAT), list[str](), None
    for number in range(60):
        reply_id, _ = settle.next(last) or ("", 0)
        met.append(reply_id)
        if number % 7 == 0:  # what was just settled is no place to start over from
            settle.settle(reply_id, verdicts("pass"))
        last = reply_id
    assert met == [hit.reply_id for hit in found]
    assert settle.next(last) == (met[1], 0.5)  # round again, to the first that is left


def test_settling_decides_and_reaches_the_dataset(store: Store) -> None:
    reply_id = replies(store)[0]
    differ(store, reply_id)
    assert joined(rows_in(store)).sft == ()
    settle = SettleService(store, CAT)
    decided = verdicts("pass", "fail", clauses=("no-promises",))
    settle.settle(reply_id, decided, "The curator's reply.", 12.5)
    resolved = store.reviews.standing(reply_id).resolved()
    assert {question: (found.value, found.how) for question, found in resolved.items()} == {
        "voice": ("pass", "adjudicated"),
        "policy": ("fail", "adjudicated"),
        "bias": ("pass", "unanimous"),
    }
    assert resolved["policy"].clause_ids == ("no-promises",)
    assert (settle.waiting(), settle.count()) == ([], 0)
    rows = joined(rows_in(store))
    assert [row.messages[-1].text for row in rows.sft] == ["The curator's reply."]
    assert [(pair.chosen, pair.rejected) for pair in rows.preference][-1] == (
        "The curator's reply.",
        "Reply 0, and it goes on.",
    )
    assert "settled: on brand, breaks policy (no-promises), rewrote it" in [
        line.text for line in desk(store, DAN).history(reply_id)
    ]
    assert "settled" not in str(desk(store, ANA).history(reply_id))


def test_settled_as_fine_is_learned_as_it_is(store: Store) -> None:
    reply_id = replies(store)[0]
    overlap(store, 2)
    judge(store, ANA, reply_id, FINE)
    judge(store, BEN, reply_id, verdicts("fail", "pass", "pass", clauses=("warm",)))
    SettleService(store, CAT).settle(reply_id, verdicts("pass"), "Reply 0, and it goes on.")
    (row,) = joined(rows_in(store)).sft
    assert (row.origin, row.messages[-1].text) == ("approved", "Reply 0, and it goes on.")


def test_settled_as_it_was_undoes_what_others_made_of_it(store: Store) -> None:
    reply_id = replies(store)[0]
    differ(store, reply_id)  # Ana corrected it
    SettleService(store, CAT).settle(reply_id, verdicts("pass", "pass"), said_first(store, reply_id))
    rows = joined(rows_in(store))
    assert [(row.origin, row.messages[-1].text) for row in rows.sft] == [("approved", said_first(store, reply_id))]
    assert rows.preference == ()


def test_every_open_question_must_be_answered(store: Store) -> None:
    reply_id = replies(store)[0]
    differ(store, reply_id)
    with pytest.raises(UserError, match="difference on policy is still open"):
        SettleService(store, CAT).settle(reply_id, verdicts("pass"))
    with pytest.raises(UserError, match="policy and voice is still open"):
        SettleService(store, CAT).settle(reply_id, (), "A rewrite alone.")
    assert SettleService(store, CAT).count() == 1
    assert len(store.reviews.history(reply_id)) == 2
    # Nor is the reply kept from anybody by the attempt.
    SettleService(store, DAN).settle(reply_id, verdicts("pass", "pass"))


def test_a_second_settling_is_refused(store: Store) -> None:
    reply_id = replies(store)[0]
    differ(store, reply_id)
    SettleService(store, CAT).settle(reply_id, verdicts("pass", "pass"))
    for who in (CAT, DAN):
        with pytest.raises(Conflict, match="no open difference"):
            SettleService(store, who).settle(reply_id, verdicts("fail", "fail"))
    assert store.reviews.standing(reply_id).resolved()["voice"].value == "pass"
    with pytest.raises(Conflict, match="no open difference"):
        SettleService(store, CAT).settle(replies(store)[1], FINE)
    with pytest.raises(NotFound):
        SettleService(store, CAT).settle("nonsense", FINE)


def test_a_settling_that_is_taken_back_is_open_again(store: Store) -> None:
    reply_id = replies(store)[0]
    differ(store, reply_id)
    SettleService(store, CAT).settle(reply_id, verdicts("pass", "pass"))
    store.reviews.undo("cat")
    assert SettleService(store, CAT).count() == 1
    SettleService(store, CAT).settle(reply_id, verdicts("pass", "pass"))


def test_a_settling_cites_rules_that_are_there_under_the_charter_that_was_on_screen(store: Store) -> None:
    reply_id = replies(store)[0]
    differ(store, reply_id)
    settle = SettleService(store, CAT)
    with pytest.raises(UserError, match="'warm' is no rule of policy in version 1"):
        settle.settle(
            reply_id,
            (*verdicts("pass"), Verdict(question="policy", value="fail", clause_ids=("warm",))),
            charter_version=1,
        )
    store.charters.add(CHARTER.model_copy(update={"voice": (CHARTER.voice[1],)}), "cat")
    with pytest.raises(RulesChanged, match="version 2 is in force now"):
        settle.settle(reply_id, verdicts("fail", "pass", clauses=("warm",)), charter_version=1)
    with pytest.raises(UserError, match="'warm' is no rule of voice in version 2"):
        settle.settle(reply_id, verdicts("fail", "pass", clauses=("warm",)), charter_version=2)
    assert (settle.count(), len(store.reviews.history(reply_id))) == (1, 2)
    settle.settle(reply_id, verdicts("fail", "pass", clauses=("short",)), charter_version=2)
    assert {one.charter_version for one in store.reviews.history(reply_id)[-1].judgements} == {2}


def test_how_the_answers_came_about_is_told_to_curators(store: Store) -> None:
    one, two, three = replies(store)[:3]
    judge(store, ANA, three)
    differ(store, one)
    differ(store, two)
    SettleService(store, CAT).settle(two, verdicts("pass", "pass"))
    words = {question: found.how for question, found in desk(store, CAT).stands(two).items()}
    assert words == {"voice": "adjudicated", "policy": "adjudicated", "bias": "unanimous"}
    hows = [hit.how for hit in FindService(store, CAT).find(Filter())]
    assert hows == ["unresolved", "adjudicated", "single", None, None, None]
    assert {hit.how for hit in FindService(store, ANA).find(Filter())} == {None}
    assert "adjudicated" in hits_html(FindService(store, CAT).find(Filter()), "")


# A changed charter


def changed(**rules: Any) -> Charter:
    return CHARTER.model_copy(update=rules)


NEW_PROMISES = (Clause(id="no-promises", text="No promises, and no hints."), CHARTER.policy[1])
JUDGED: dict[str, tuple[Verdict, ...]] = {
    "cites the clause": verdicts("pass", "fail", "pass", clauses=("no-promises",)),
    "cites another": verdicts("pass", "fail", "pass", clauses=("no-prices",)),
    "cites both": verdicts("pass", "fail", "pass", clauses=("no-promises", "no-prices")),
    "cites nothing": verdicts("pass", "fail", "pass"),
    "fine": FINE,
    "voice alone": verdicts("fail", clauses=("warm",)),
}


def judged(store: Store) -> dict[str, str]:
    """A reply for each of the ways above: name → reply."""
    named = dict(zip(JUDGED, replies(store), strict=True))
    for name, reply_id in named.items():
        judge(store, ANA, reply_id, JUDGED[name])
    return named


@pytest.mark.parametrize(
    ("charter", "stale"),
    [
        (changed(policy=NEW_PROMISES), {"cites the clause", "cites both", "cites nothing", "fine"}),
        (changed(policy=NEW_PROMISES, wording_only=("no-promises",)), set()),
        (changed(policy=CHARTER.policy[1:]), {"cites the clause", "cites both", "cites nothing"}),
        (changed(policy=(*CHARTER.policy, Clause(id="new", text="New."))), {"cites nothing", "fine"}),
        (changed(purpose="Another purpose."), set()),
        (changed(policy=tuple(reversed(CHARTER.policy))), set()),
        (changed(voice=CHARTER.voice[1:]), {"voice alone"}),
        (
            changed(policy=NEW_PROMISES, voice=(Trait(id="warm", text="Be very warm."), CHARTER.voice[1])),
            set(JUDGED),
        ),
    ],
    ids=["changed", "wording", "removed", "added", "head", "order", "voice", "two questions"],
)
def test_exactly_the_stale_answers_are_asked_for_again(store: Store, charter: Charter, stale: set[str]) -> None:
    named = judged(store)
    service = CharterService(store, CAT)
    foreseen = service.consequence(charter)
    listed = service.stale(charter)
    assert store.tasks.counts()["waiting"] == 0  # a look changes nothing
    assert len(store.charters.all()) == 1
    service.save(charter)
    again = {name for name, reply_id in named.items() if store.tasks.state_of(reply_id)["state"] == "open"}
    assert again == stale
    assert foreseen.replies == len(stale)
    acts = [act for reply_id in named.values() for act in store.reviews.history(reply_id) if act.kind == "requeue"]
    assert foreseen.answers == sum(len(act.body.questions) for act in acts)
    assert len(acts) == len(stale)
    # Each answer was listed before, with who gave it under which version, and none is left over.
    asked = {(act.reply_id, question) for act in acts for question in act.body.questions}
    assert {(one.reply_id, one.question) for one in listed.first} == asked
    assert (len(listed.first), len({one.reply_id for one in listed.first})) == (listed.answers, listed.replies)
    for one in listed.first:
        given = {each.question: each for each in store.reviews.history(one.reply_id)[0].judgements}[one.question]
        assert (one.reviewer, one.value, one.clause_ids, one.made_under) == ("ana", given.value, given.clause_ids, 1)
        assert one.reply.startswith("Reply ")
    assert service.stale().answers == 0
    # Asked once more, or the same charter kept once more, and nothing comes twice.
    assert service.ask_stale_again() == 0
    assert service.save(charter).version == 2
    later = [act for reply_id in named.values() for act in store.reviews.history(reply_id) if act.kind == "requeue"]
    assert len(later) == len(acts)


def test_the_charter_page_shows_what_others_kept_and_goes_by_it_after(store: Store) -> None:
    mine = changed(purpose="Cat has it so.").model_copy(update={"version": 1})
    text, form = write_as(mine, "md"), "md"
    page = _Chamber(SimpleNamespace(charter=CharterService(store, CAT), who=CAT))  # type: ignore[arg-type]
    base = page.arrive(form)[-1]
    said, keep, _, base = page.check(text, form, base)
    assert (base, keep.visible, "while you were editing" in said) == (1, True, False)
    store.charters.add(changed(purpose="Dan has it so."), "dan")
    said, keep, _, *screen, base, _ = page.keep(text, form, True, base)
    assert "dan kept version 2 while you were editing." in said
    assert "<ins>Dan has it so.</ins>" in said
    assert (base, keep.visible) == (2, True)
    assert screen == [gr.skip()] * 8  # the text is as it was
    assert store.charters.all()[-1].purpose == "Dan has it so."
    assert page.keep(text, form, True, base)[-2] == 3
    assert store.charters.all()[-1].purpose == "Cat has it so."


def test_a_file_of_an_older_version_is_held_against_what_was_kept_since(store: Store, tmp_path: Path) -> None:
    page = _Chamber(SimpleNamespace(charter=CharterService(store, CAT), who=CAT))  # type: ignore[arg-type]
    store.charters.add(changed(purpose="Dan has it so."), "dan")
    file = tmp_path / "charter.md"
    for written, base in (("# Shop\n\n- Version: 1\n", 1), ("# Shop\n", gr.skip()), ("nothing", gr.skip())):
        file.write_text(written)
        assert page.opened(str(file))[2] == base


def test_only_the_question_at_stake_is_asked_again(store: Store) -> None:
    reply_id = replies(store)[0]
    judge(store, ANA, reply_id)
    CharterService(store, CAT).save(changed(policy=NEW_PROMISES))
    assert set(store.reviews.standing(reply_id).resolved()) == {"voice", "bias"}
    item = desk(store, ANA).next()
    assert item is not None
    assert item.reply.id == reply_id
    assert [line.text for line in item.said] == ["asked for policy again: the house rules changed (version 2)"]
    assert item.asked == ("policy",)
    left_open = ReviewForm(act_id=item.act_id, reply_id=reply_id, verdicts=verdicts("pass"), corrected="Better.")
    with pytest.raises(UserError, match="came back for policy, which has no answer yet"):
        desk(store, ANA).save(left_open)
    assert store.tasks.state_of(reply_id)["state"] == "full"  # Ana holds it still
    desk(store, ANA).save(ReviewForm(act_id=item.act_id, reply_id=reply_id, verdicts=verdicts("pass", "pass")[1:]))
    assert store.tasks.state_of(reply_id)["state"] == "done"
    assert CharterService(store, CAT).ask_stale_again() == 0


def test_only_whose_answer_is_stale_is_asked_again(store: Store) -> None:
    overlap(store, 2)
    both, voice, settled = replies(store)[:3]
    for reply_id in (both, voice):
        judge(store, ANA, reply_id, verdicts("pass", "fail", "pass", clauses=("no-promises",)), "Ana's reply.")
        judge(store, BEN, reply_id, verdicts("pass", "fail", "pass", clauses=("no-prices",)), "Ben's reply.")
    differ(store, settled)
    SettleService(store, CAT).settle(settled, verdicts("pass", "fail", clauses=("no-prices",)))
    service = CharterService(store, CAT)
    listed = service.stale(changed(policy=NEW_PROMISES)).first
    service.save(changed(policy=NEW_PROMISES))
    assert {(one.reply_id, one.reviewer) for one in listed} >= {(both, "ana"), (voice, "ana")}
    standing = store.reviews.standing(both)
    assert {name: set(given) for name, given in standing.answers.items()} == {
        "ana": {"voice", "bias"},
        "ben": set(QUESTIONS),
    }
    assert (standing.done_by, [one.author for one in standing.corrections]) == ({"ben"}, ["ben"])
    assert set(store.reviews.standing(settled).settled) == {"voice", "policy"}  # rests on a rule that stayed
    again = desk(store, ANA).next()
    assert again is not None
    assert (again.reply.id, again.asked) == (both, ("policy",))
    waiting = [item.reply.id for _ in range(REPLIES) if (item := desk(store, BEN).next())]
    assert both not in waiting
    assert voice not in waiting
    judge(store, ANA, both, verdicts("pass", "fail")[1:])
    assert store.tasks.state_of(both)["state"] == "done"


def test_a_second_look_at_what_is_judged_is_ordered_and_taken_back(store: Store) -> None:
    find, (reply_id, other, *_) = FindService(store, CAT), replies(store)
    for one in (reply_id, other):
        judge(store, ANA, one)
    twice = Change(overlap=2, assignee="ben")
    assert find.preview(Filter(state="reviewed"), Change(priority=1)) == 0
    assert find.preview(Filter(state="reviewed"), twice) == 2
    batch = find.change(Filter(state="reviewed"), twice)
    assert desk(store, ANA).next().reply.id not in (reply_id, other)  # type: ignore[union-attr]
    judge(store, BEN, reply_id, verdicts("fail", "pass", "pass"))
    assert store.tasks.state_of(reply_id)["state"] == "disputed"
    assert store.tasks.state_of(other)["state"] == "open"
    find.take_back(batch.id)
    assert [store.tasks.state_of(one)["state"] for one in (reply_id, other)] == ["disputed", "done"]


def test_skipping_a_repeat_leaves_what_was_judged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotation.store.dealing.REPEAT_AFTER", 1)
    monkeypatch.setattr("annotation.store.dealing.dealt", lambda *_: "repeat")
    overlap(store, 1, repeat_share=0.5)
    first = replies(store)[0]
    item = desk(store, ANA).next()
    assert item is not None
    desk(store, ANA).save(ReviewForm(act_id=item.act_id, reply_id=first, verdicts=FINE, corrected="Better."))
    again = desk(store, ANA).next()
    assert again is not None
    assert again.reply.id == first
    desk(store, ANA).skip(again.act_id, first, "broken")
    assert store.tasks.state_of(first)["outcome"] == "corrected"
    assert store.tasks.counts()["skipped"] == 0
    back = desk(store, ANA).undo()
    assert back is not None
    assert (back.reply.id, store.tasks.repeated_since("ana", first) is not None) == (first, True)


def test_a_flag_reaches_everybody_it_is_for_also_on_what_they_may_not_judge(store: Store) -> None:
    reply_id = replies(store)[0]
    judge(store, ANA, reply_id)
    desk(store, ANA).flag(reply_id, "ben", "look")
    desk(store, ANA).flag(reply_id, None, "or you")
    assert desk(store, BEN).flagged() == desk(store, CAT).flagged() == [reply_id]
    assert desk(store, EVE).flagged() == desk(store, ANA).flagged() == []
    with pytest.raises(Conflict, match="has the 1 reviewer it asks for"):
        desk(store, BEN).open(reply_id)
    assert desk(store, BEN).look(reply_id).said[0].text == "flagged it for ben: look"
    desk(store, BEN).unflag(reply_id)
    assert desk(store, BEN).flagged() == desk(store, CAT).flagged() == []
    desk(store, ANA).flag(reply_id, "eve", "and you")
    assert (desk(store, BEN).flagged(), desk(store, EVE).flagged()) == ([], [reply_id])


def test_every_queue_is_told_of_with_what_waits_in_it(store: Store) -> None:
    moved = replies(store)[:2]
    assert desk(store, ANA).queues() == {"main": REPLIES}
    FindService(store, CAT).change(Filter(text='"Question 0"'), Change(queue="legal"))
    assert desk(store, ANA).queues() == {"main": REPLIES - 1, "legal": 1}
    item = desk(store, ANA).next("legal")
    assert item is not None
    assert item.reply.id == moved[0]


def test_a_curator_who_judges_does_so_blind(store: Store) -> None:
    overlap(store, 2)
    reply_id = replies(store)[0]
    judge(store, ANA, reply_id, verdicts("fail", "pass", "pass"))
    assert "off brand" in str(desk(store, CAT).history(reply_id))
    item = desk(store, CAT).open(reply_id)
    assert (desk(store, CAT).history(reply_id), desk(store, CAT).stands(reply_id)) == ([], {})
    desk(store, CAT).save(ReviewForm(act_id=item.act_id, reply_id=reply_id, verdicts=FINE))
    assert {line.who for line in desk(store, CAT).history(reply_id)} == {"ana", "cat"}
    assert desk(store, CAT).stands(reply_id)["voice"].value is None


def test_a_check_made_under_other_rules_does_not_count_until_it_is_made_again(store: Store) -> None:
    check = replies(store)[0]
    team = TeamService(store, CAT)
    team.set_gold(check, {"voice": "fail", "policy": "pass"})
    judge(store, ANA, check, verdicts("fail", "fail", "pass"))
    judge(store, ANA, replies(store)[1])

    def right() -> float | None:
        (card,) = QualityService(store, CAT).reviewers({})
        return card.right.value

    assert (right(), team.outdated_golds()) == (0.5, {})
    CharterService(store, CAT).save(changed(policy=NEW_PROMISES), ask_again=False)
    assert team.outdated_golds() == {check: frozenset({"policy"})}
    assert right() == 1.0
    team.set_gold(check, {"voice": "fail", "policy": "fail"})
    assert (right(), team.outdated_golds()) == (1.0, {})


def test_stale_answers_left_alone_can_be_asked_for_later(store: Store) -> None:
    judged(store)
    service = CharterService(store, CAT)
    charter = changed(policy=NEW_PROMISES)
    foreseen = service.consequence(charter)
    service.save(charter, ask_again=False)
    assert store.tasks.counts()["waiting"] == 0
    left = service.stale(limit=3)
    assert (left.answers, left.replies, len(left.first)) == (foreseen.answers, foreseen.replies, 3)
    assert service.ask_stale_again() == foreseen.replies == 4
    assert service.stale().first == ()


def test_an_answer_taken_back_or_given_anew_is_not_stale(store: Store) -> None:
    first, second = replies(store)[:2]
    judge(store, ANA, first, JUDGED["cites the clause"])
    desk(store, ANA).undo()
    judge(store, ANA, first, JUDGED["cites another"])
    service = CharterService(store, CAT)
    assert service.consequence(changed(policy=NEW_PROMISES)).replies == 0
    assert second != first


def test_an_answer_that_its_author_replaced_is_not_stale(store: Store) -> None:
    reply_id = replies(store)[0]
    judge(store, ANA, reply_id, JUDGED["cites the clause"])
    judge(store, ANA, reply_id, JUDGED["cites another"])
    service = CharterService(store, CAT)
    assert service.consequence(changed(policy=NEW_PROMISES)).replies == 0
    service.save(changed(policy=NEW_PROMISES), ask_again=False)
    assert service.ask_stale_again() == 0


def test_a_settled_answer_can_become_stale_too(store: Store) -> None:
    reply_id = replies(store)[0]
    differ(store, reply_id)
    SettleService(store, CAT).settle(reply_id, verdicts("pass", "fail", clauses=("no-promises",)))
    CharterService(store, CAT).save(changed(policy=NEW_PROMISES))
    assert store.tasks.state_of(reply_id)["state"] == "open"
    assert "policy" not in store.reviews.standing(reply_id).resolved()
    assert store.reviews.standing(reply_id).resolved()["voice"].how == "adjudicated"


# Set aside


def test_a_reviewer_brings_back_what_people_skipped_and_a_curator_also_what_a_change_set_aside(store: Store) -> None:
    by_hand, of_batch = replies(store)[:2]
    item = desk(store, BEN).open(by_hand)
    desk(store, BEN).skip(item.act_id, by_hand)
    store.batches.make(Filter(text='"Question 1"'), Change(set_aside=True), "cat")
    states = [store.tasks.state_of(one)["state"] for one in (by_hand, of_batch)]
    assert states == ["skipped", "skipped"]
    assert desk(store, ANA).bring_back_skipped() == 1
    assert desk(store, ANA).bring_back_skipped() == 0
    states = [store.tasks.state_of(one)["state"] for one in (by_hand, of_batch)]
    assert states == ["open", "skipped"]
    assert desk(store, CAT).bring_back_skipped() == 1
    assert store.tasks.state_of(of_batch)["state"] == "open"
    # Skipped by hand after it came back: anybody's to bring back again.
    item = desk(store, BEN).open(of_batch)
    desk(store, BEN).skip(item.act_id, of_batch)
    assert desk(store, ANA).bring_back_skipped() == 1


# Figures


def test_agreement_on_a_case_worked_out_by_hand(store: Store) -> None:
    """Three replies that ana and ben judged, agreeing on two; a fourth that ana alone judged."""
    overlap(store, 2)
    ids = replies(store)
    for reply_id, ana, ben in zip(ids, ("pass", "pass", "fail"), ("pass", "fail", "fail"), strict=False):
        judge(store, ANA, reply_id, verdicts(ana), seconds=60)  # type: ignore[arg-type]
        judge(store, BEN, reply_id, verdicts(ben), seconds=60)  # type: ignore[arg-type]
    judge(store, ANA, ids[3], verdicts("unsure"), seconds=120)
    quality = QualityService(store, CAT)
    found = quality.agreement("voice")
    assert found.raw.value == pytest.approx(2 / 3)
    # Krippendorff: six answers, 3 pass and 3 fail. Observed disagreement 2/6; expected 2 · 3 · 3 / (6 · 5) = 18/30.
    assert found.alpha.value == pytest.approx(1 - (2 / 6) / (18 / 30))
    # Gwet, over four labels: shares of pass, fail and unsure over the four replies are 3/8, 3/8 and 1/4.
    chance = (2 * (3 / 8) * (5 / 8) + (1 / 4) * (3 / 4)) / 3
    assert found.ac1.value == pytest.approx((2 / 3 - chance) / (1 - chance))
    assert (found.alpha.units, found.alpha.raters) == (3, 2)
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.units) == ("ana", "ben", 3)
    assert [[cell.count for cell in row[:2]] for row in pair.cells[:2]] == [[1, 1], [0, 1]]
    assert pair.cells[0][1].examples == (ids[1],)
    assert quality.agreement("bias").alpha.value is None
    cards = {card.name: card for card in quality.reviewers({"voice": found})}
    assert (cards["ana"].items, cards["ben"].items) == (4, 3)
    assert cards["ben"].per_hour == pytest.approx(60)
    assert (cards["ben"].edit, cards["ben"].rushed, cards["ben"].consistent.value) == (None, 0, None)
    row = reviewers_html([cards["ben"]])
    assert "–" not in row
    assert "<td>0</td>" in row
    for words in (
        "nothing corrected",
        "Undefined: no item was answered twice.",
        "Undefined: no gold item was answered.",
    ):
        assert words in row


def test_checks_edits_and_haste_are_told_of_each_reviewer(store: Store) -> None:
    check, rushed, rewritten = replies(store)[:3]
    TeamService(store, CAT).set_gold(check, {"voice": "fail", "policy": "pass"})
    judge(store, ANA, check, verdicts("pass", "pass", "fail"), seconds=60)
    judge(store, ANA, rushed, FINE, seconds=0.1)
    judge(store, ANA, rewritten, (), "Reply 2, and it goes off.", seconds=60)
    (card,) = QualityService(store, CAT).reviewers({})
    assert (card.name, card.rushed, card.right.value, card.right.units) == ("ana", 1, 0.5, 1)
    assert card.edit == pytest.approx(1 / 6)  # a word of six


def test_the_questions_of_one_check_are_not_as_many_checks(store: Store) -> None:
    """Right in all three questions or wrong in all three: four checks tell no more than four answers do."""
    *checks, ordinary = replies(store)[:5]
    judge(store, ANA, ordinary)
    for place, reply_id in enumerate(checks):
        TeamService(store, CAT).set_gold(reply_id, {"voice": "pass", "policy": "pass", "bias": "pass"})
        judge(store, ANA, reply_id, FINE if place else verdicts("fail", "fail", "fail"), seconds=60)
    (card,) = QualityService(store, CAT).reviewers({})
    alone = share(3, 4, 1, "")
    assert (card.right.value, card.right.units) == (0.75, 4)
    assert (card.right.low, card.right.high) == pytest.approx((alone.low, alone.high))


def test_a_repeat_is_one_reply_in_all_its_questions(store: Store) -> None:
    first, second = replies(store)[:2]
    for reply_id, again in ((first, ("fail", "fail", "fail")), (second, ("pass", "pass", "pass"))):
        form = ReviewAct(reply_id=reply_id, reviewer="ana", charter_version=1, verdicts=FINE)
        store.reviews.save(form)
        anew = {"act_id": f"again-{reply_id}", "verdicts": verdicts(*again), "route": "repeat"}
        store.reviews.save(form.model_copy(update=anew))
    (card,) = QualityService(store, CAT).reviewers({})
    assert (card.consistent.value, card.consistent.units) == (0.5, 2)
    alone = share(1, 2, 1, "")
    assert (card.consistent.low, card.consistent.high) == pytest.approx((alone.low, alone.high))


def test_who_left_is_still_counted(store: Store) -> None:
    overlap(store, 2)
    first, second = replies(store)[:2]
    for reply_id in (first, second):
        judge(store, BEN, reply_id, FINE)
        judge(store, ANA, reply_id, verdicts("fail", "pass", "pass", clauses=("warm",)))
    before = QualityService(store, CAT).agreement("voice").raw
    TeamService(store, ROOT).change("ana", active=False)
    after = QualityService(store, CAT)
    assert after.agreement("voice").raw == before
    assert [card.name for card in after.reviewers({})] == ["ana", "ben"]
    assert SettleService(store, CAT).count() == 2
    assert "ana" in SettleService(store, CAT).open(first).standing.answers
    assert [hit.reply_id for hit in FindService(store, CAT).find(Filter(reviewer="ana"))] == [first, second]


def test_what_a_closed_account_held_goes_to_others(store: Store) -> None:
    item = desk(store, ANA).next()
    assert item is not None
    TeamService(store, ROOT).change("ana", active=False)
    for_ben = desk(store, BEN).next()
    assert for_ben is not None
    assert for_ben.reply.id == item.reply.id


# Find


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(outcome="failed"),
        Filter(outcome="disputed"),
        Filter(question="voice", value="fail"),
        Filter(value="fail"),
        Filter(clause="no-promises"),
        Filter(state="disputed"),
        Filter(state="gold"),
    ],
    ids=str,
)
def test_reviewers_cannot_search_by_what_others_answered(store: Store, wanted: Filter) -> None:
    differ(store, replies(store)[0])
    TeamService(store, CAT).set_gold(replies(store)[1], {"voice": "fail"})
    for who in (EVE, ANA):
        everything = FindService(store, who).find(Filter())
        found = FindService(store, who).find(wanted)
        assert found in (everything, FindService(store, who).find(Filter(state="reviewed")))
        assert FindService(store, who).count(wanted) == len(found)
        assert all((hit.outcome, hit.agreement) == (None, None) for hit in everything)
        assert {hit.state for hit in everything} <= {"open", "full", "done", "skipped"}


def test_a_reviewer_searches_by_their_own_judgements_alone(store: Store) -> None:
    overlap(store, 2)
    first, second = replies(store)[:2]
    judge(store, ANA, first)
    judge(store, BEN, second)
    assert [hit.reply_id for hit in FindService(store, ANA).find(Filter(reviewer="ben"))] == [first]
    assert [hit.reply_id for hit in FindService(store, CAT).find(Filter(reviewer="ben"))] == [second]
    kept = FindService(store, CAT).keep_view("Ben's", Filter(reviewer="ben", value="fail"))
    assert kept in FindService(store, ANA).views()
    with pytest.raises(NotFound, match="not yours"):
        FindService(store, ANA).drop_view(kept.id)


def test_a_batch_is_previewed_made_and_taken_back(store: Store) -> None:
    find = FindService(store, CAT)
    judge(store, ANA, replies(store)[0])
    TeamService(store, CAT).set_gold(replies(store)[1], {"voice": "fail"})
    change = Change(assignee="ben", priority=2, overlap=3)
    assert find.preview(Filter(), Change(priority=1)) == REPLIES - 2
    batch = find.change(Filter(), change)
    assert batch.size == REPLIES - 2
    with pytest.raises(NotFound):
        find.change(Filter(), Change(assignee="nobody"))
    judge(store, BEN, replies(store)[2])
    assert find.take_back(batch.id) == REPLIES - 2
    with pytest.raises(Conflict, match="taken back already"):
        find.take_back(batch.id)
    assert {hit.overlap for hit in find.find(Filter())} == {1}
    assert {hit.assignee for hit in find.find(Filter())} == {""}


@pytest.mark.parametrize("what", ["comment", "flag"])
def test_what_a_batch_set_aside_stays_aside(store: Store, what: str) -> None:
    FindService(store, CAT).change(Filter(), Change(set_aside=True))
    reply_id = replies(store)[0]
    if what == "comment":
        desk(store, ANA).comment(reply_id, "Why is this aside?")
    else:
        desk(store, ANA).flag(reply_id, None, "look")
    assert store.tasks.counts()["skipped"] == REPLIES


def test_a_hidden_check_needs_answers_and_ends_only_where_it_is_one(store: Store) -> None:
    team = TeamService(store, CAT)
    with pytest.raises(UserError, match="right answers"):
        team.set_gold(replies(store)[0], {})
    with pytest.raises(NotFound):
        team.set_gold("nonsense", {"voice": "pass"})
    for reply_id in (replies(store)[0], "nonsense"):
        with pytest.raises(NotFound, match="no hidden check"):
            team.unset_gold(reply_id)
    team.set_gold(replies(store)[0], {"voice": "pass"})
    team.unset_gold(replies(store)[0])
    assert team.golds() == []
    assert store.tasks.counts()["waiting"] == REPLIES


def test_a_question_is_a_question() -> None:
    """The names that this file's helpers zip over are those of the domain."""
    names: tuple[Question, ...] = ("voice", "policy", "bias")
    assert names == QUESTIONS
    assert Judgement.model_fields["question"].annotation == Question
