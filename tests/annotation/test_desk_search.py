"""Finding replies: words that people type, every filter, pages and views, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.acts import ActBody
from annotation.errors import Conflict, NotFound, UserError
from annotation.queue import QueueSettings
from annotation.store import Store
from annotation.store.batches import Change
from annotation.store.search import Filter, words_of
from annotation.types import Provenance
from tests.fixtures.desk import ANA, BEN, CURATOR, TWO, a_reply, an_act, an_empty_store, judge, replies, verdict


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from an_empty_store(request, tmp_path)


def found(store: Store, **wanted: object) -> list[str]:
    hits = [hit.reply_id for hit in store.search.find(Filter.model_validate(wanted))]
    assert store.search.count(Filter.model_validate(wanted)) == len(hits)
    return hits


# Words


SAID = (
    "Your parcel, e-mailed to ana@shop.example, costs 9.99 at 10:30; don't worry: C++ #42, order-123, 10-14 days, "
    "snake_case, shop.example/returns or O'Neil. Größe 😀 naïve"
)


THERE = r"""
parcel|PARCEL|costs parcel|"your parcel"|"don't worry"|parc*|"worry: c"*|e-mailed|ana@shop.example|9.99|10:30|don't|C++
#42|order-123|10-14|snake_case|shop.example/returns|O'Neil|größe|parcel 😀|parcel -|parcel *|parcel "|parcel ""
where parcel|9.9*|don't*
"""
NOT_THERE = 'parcels|"mailed e"|par|"parcel costs"|parcel nothing|arcel*|parcel NOT costs|9.98'
OPERATORS = "AND|OR NOT|NEAR(parcel costs)|parcel AND costs|text:parcel|parcel OR costs|NOT parcel|{parcel} costs"


def test_words_as_people_type_them_are_found(store: Store) -> None:
    reply = a_reply(store, SAID, asked="Where is it?")
    a_reply(store, "Nothing of that.", asked="Hm?")
    for text in THERE.replace("\n", "|").strip("|").split("|"):
        assert found(store, text=text) == [reply], text


def test_what_is_not_there_is_not_found(store: Store) -> None:
    a_reply(store, SAID)
    for text in NOT_THERE.split("|"):
        assert found(store, text=text) == [], text


def test_an_operator_is_a_word_like_any_other(store: Store) -> None:
    a_reply(store, "The cost of it.", asked="How much?")
    plain = a_reply(store, "The parcel costs a lot.", asked="How much?")
    odd = {text: a_reply(store, f"They wrote {text} there.", asked="How much?") for text in OPERATORS.split("|")}
    for text, reply in odd.items():
        hits = found(store, text=text)
        assert reply in hits, text
        assert plain not in hits or text == "{parcel} costs", text


def test_without_a_word_it_is_said_in_words(store: Store) -> None:
    for text in ("*", "-", "😀", '"', '""', "***", "()", "\x00", "' : & | ! <->"):
        with pytest.raises(UserError, match="no word"):
            found(store, text=text)


def test_blanks_do_not_narrow(store: Store) -> None:
    reply = a_reply(store)
    assert found(store, text="") == found(store, text="   ") == [reply]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(
        alphabet=st.sampled_from("ab *\"'\\-+:&|!()<>^~{}%_\x00\x1a;é汉ש😀½١") | st.characters(codec="utf-8"),
        max_size=30,
    )
)
def test_no_text_is_a_syntax_error_to_the_database(store: Store, text: str) -> None:
    with suppress(UserError):  # no word in it
        store.search.count(Filter(text=text))


def test_nothing_typed_is_run_as_sql(store: Store) -> None:
    reply = a_reply(store)
    for text in ("'; DROP TABLE turns; --", '" OR 1=1 --', "') OR ('1'='1", "x' | 'parcel"):
        for name in ("text", "clause", "reviewer", "source", "language", "model", "assignee", "queue"):
            assert found(store, **{name: text}) == []
    assert found(store, text="parcel") == [reply]


def test_other_scripts_are_found(store: Store) -> None:
    scripts = {
        "包裹在路上。": ("包裹在路上", "包裹*"),
        "החבילה בדרך אליך": ("בדרך",),
        "الطرد في الطريق": ("الطريق",),
        "Посылка в пути": ("ПОСЫЛКА",),
        "पार्सल रास्ते में है": ("रास्ते",),
    }
    for said, words in scripts.items():
        reply = a_reply(store, said, asked="?")
        for text in words:
            assert found(store, text=text) == [reply], text


def test_the_words_may_stand_in_different_turns_of_a_conversation(store: Store) -> None:
    reply = a_reply(store, "It is on its way.", asked="Where is my parcel?")
    a_reply(store, "On its way.", asked="And the letter?")
    assert found(store, text="parcel way") == [reply]
    assert found(store, text='"parcel it"') == []


def test_accents_do_not_matter(store: Store) -> None:
    reply = a_reply(store, "Sí, señor: Ångström, Việt Nam, cafe\u0301.", asked="?")
    for text in ("señor", "senor", "sen\u0303or", "SÍ", "si", "angstrom", "viet*", '"viet nam"', "café", "cafe"):
        assert found(store, text=text) == [reply], text
    assert found(store, text="sonar") == []


def test_new_turns_are_found_at_once(store: Store) -> None:
    reply = a_reply(store)
    assert found(store, text="umbrella") == []
    conversation = store.conversations.of_reply(reply).id
    store.conversations.add_turn(conversation, reply, "user", "What about the umbrella?")
    assert found(store, text="umbrella") == [reply]


def test_a_reply_of_100_kb_is_found_by_its_last_word(store: Store) -> None:
    long = " ".join(f"word{number}" for number in range(12_000)) + " zebra"
    assert len(long) > 100_000
    reply = a_reply(store, long)
    assert found(store, text="zebra") == [reply]
    (hit,) = store.search.find(Filter())
    assert len(hit.text) == 400


def test_a_reply_that_is_one_word_of_300_kb_is_kept_and_can_be_judged(store: Store) -> None:
    reply = a_reply(store, "x" * 300_000, asked="parcel?")
    assert found(store, text="parcel") == [reply]
    judge(store, ANA)


def test_words_and_phrases_are_told_apart() -> None:
    assert words_of('a "b c" d* "e"* -f') == ["a", "b c", "d*", "e", "-f"]
    assert words_of("un**") == ["un*"]


# Filters


def test_where_a_reply_stands_narrows(store: Store) -> None:
    names = ("fresh", "held", "done", "disputed", "skipped", "gold", "stale")
    ids = dict(zip(names, replies(store, len(names), TWO), strict=True))
    for who in (ANA, BEN):
        store.tasks.claim_one(who, ids["held"])
        for name in ("done", "disputed", "stale"):
            value = "fail" if (name, who) == ("disputed", BEN) else "pass"
            store.reviews.save(an_act(ids[name], who, store.tasks.claim_one(who, ids[name]), value))  # type: ignore[arg-type]
    store.reviews.skip("s", ids["skipped"], "ana", "why")
    store.tasks.set_gold(ids["gold"], {"voice": "pass"}, "cleo")
    store.reviews.requeue([ids["stale"]], ["voice"], "cleo", "why")
    store.reviews.add("flag", ids["done"], "ana", ActBody(text="look"))
    wanted = {
        "open": ["fresh", "stale"],
        "full": ["held"],
        "waiting": ["fresh", "held", "stale"],
        "done": ["done"],
        "disputed": ["disputed"],
        "reviewed": ["done", "disputed"],
        "skipped": ["skipped"],
        "gold": ["gold"],
        "stale": ["stale"],
        "flagged": ["done"],
    }
    assert {name: found(store, state=name) for name in wanted} == {
        name: [ids[one] for one in ones] for name, ones in wanted.items()
    }
    assert found(store, outcome="partial") == [ids["done"]]
    assert found(store, outcome="disputed") == [ids["disputed"]]
    assert [hit.flagged for hit in store.search.find(Filter(state="reviewed"))] == [True, False]


def test_what_people_answered_narrows_all_of_it_in_one_answer(store: Store) -> None:
    both, other, none = (a_reply(store) for _ in range(3))
    verdicts = (verdict("fail", "policy", clause_ids=("no-promises",)), verdict("pass", "voice"))
    store.reviews.save(an_act(both, ANA, verdicts=verdicts))
    store.reviews.save(an_act(other, BEN, value="fail"))
    assert found(store, value="fail") == [both, other]
    assert found(store, question="policy") == [both]
    assert found(store, question="voice", value="fail") == [other]
    assert found(store, clause="no-promises") == [both]
    assert found(store, clause="no-promises", question="voice") == []
    assert found(store, reviewer="ben") == [other]
    assert found(store, reviewer="ben", question="policy") == []
    assert none not in found(store, value="fail")


def test_a_rule_is_found_by_its_whole_name_only(store: Store) -> None:
    reply = a_reply(store)
    store.reviews.save(an_act(reply, ANA, verdicts=(verdict("fail", clause_ids=("no-promises", "b")),)))
    assert found(store, clause="no-promises") == found(store, clause="b") == [reply]
    for clause in ("%", "no_promises", "no-promise", "promises", "no-promises%", '"'):
        assert found(store, clause=clause) == [], clause


def test_where_a_reply_comes_from_and_who_it_is_for_narrow(store: Store) -> None:
    base = a_reply(store, source="demo", language="es", provenance=Provenance(model="base"))
    tuned = a_reply(store, provenance=Provenance(model="base", adapter="warm-1"))
    plain = a_reply(store)
    store.batches.make(Filter(source="demo"), Change(assignee="ana", queue="returns"), "cleo")
    assert found(store, source="demo") == found(store, language="es") == [base]
    assert found(store, model="base") == [base, tuned]
    assert found(store, model="warm-1") == [tuned]
    assert found(store, assignee="ana") == found(store, queue="returns") == [base]
    assert found(store, queue="main") == [tuned, plain]
    choices = store.search.choices()
    assert choices["source"] == ["chat", "demo"]
    assert (choices["language"], choices["assignee"]) == (["es"], ["ana"])
    assert choices["queue"] == ["main", "returns"]


def test_all_that_is_given_must_be_true(store: Store) -> None:
    spanish, _, _ = a_reply(store, language="es"), a_reply(store), a_reply(store, "Hola.", language="es")
    assert found(store, text="dunno", language="es", state="waiting") == [spanish]
    assert found(store, text="dunno", language="es", state="skipped") == []


def test_pages_follow_each_other_without_gap_or_double_while_new_ones_come_in(store: Store) -> None:
    ids = replies(store, 7)
    seen: list[str] = []
    after = 0
    while page := store.search.find(Filter(text="reply"), after, limit=3):
        seen += [hit.reply_id for hit in page]
        after = page[-1].position
        if len(seen) == 3:
            ids.append(a_reply(store, "Reply, late."))
    assert seen == ids


def test_a_hit_says_where_the_reply_stands(store: Store) -> None:
    store.tasks.change_settings(QueueSettings(overlap=2), "cleo")
    reply = a_reply(store, "On its way.", asked="Where is it?", language="en")
    judge(store, ANA, TWO)
    (hit,) = store.search.find(Filter())
    assert (hit.reply_id, hit.text, hit.title, hit.language) == (reply, "On its way.", "Where is it?", "en")
    assert (hit.state, hit.done, hit.overlap, hit.outcome, hit.flagged) == ("open", 1, 2, None, False)


def test_a_customers_turn_is_no_hit(store: Store) -> None:
    a_reply(store)
    with store.engine.connect() as db:
        assert db.scalar(sa.text("SELECT count(*) FROM turns")) == 2
    assert store.search.count(Filter()) == 1


# Views


def test_a_view_comes_back_as_it_was_kept(store: Store) -> None:
    wanted = Filter(text='"a b" c*', state="stale", question="voice", value="not_applicable")
    view = store.search.keep_view("  Mine ", "ana", wanted)
    assert store.search.views() == [view]
    assert (view.name, view.filter) == ("Mine", wanted)


def test_everybody_sees_all_views_and_drops_only_their_own(store: Store) -> None:
    hers = store.search.keep_view("Stale", "ana", Filter())
    his = store.search.keep_view("Stale", "ben", Filter())
    assert {view.owner for view in store.search.views()} == {"ana", "ben"}
    with pytest.raises(NotFound, match="not yours"):
        store.search.drop_view(hers.id, "ben")
    store.search.drop_view(his.id, "ben")
    assert store.search.views() == [hers]
    with pytest.raises(NotFound):
        store.search.drop_view(his.id, "ben")


def test_a_view_needs_a_name_of_its_own(store: Store) -> None:
    with pytest.raises(UserError, match="no name"):
        store.search.keep_view("  ", CURATOR.name, Filter())
    store.search.keep_view("Stale", "ana", Filter())
    with pytest.raises(Conflict, match="already"):
        store.search.keep_view("Stale", "ana", Filter(state="stale"))
