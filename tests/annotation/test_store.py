"""The store on SQLite and on PostgreSQL: what is kept, kept once, and never changed."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from annotation.errors import Conflict, NotFound, UserError
from annotation.experiments import ArenaSide, BallotForm, Design, Drawn, plan
from annotation.judging import Judge
from annotation.store import Store, open_store
from annotation.store.aliases import AliasChange
from annotation.store.comparisons import Answer, VoteForm
from annotation.store.reviews import ReviewAct, Verdict
from annotation.store.tables import APPEND_ONLY, comparisons, metadata, votes
from annotation.types import Charter, Message, Provenance, Sampling, Trait, Turn, utc_now

MODEL = Provenance(
    model="m", adapter="a-1", weights_sha256="0" * 64, sampling=Sampling(seed=3), seconds=1.5, finish="stop"
)


def a_reply(store: Store, asked: str = "Where is my parcel?", said: str = "Dunno.") -> Turn:
    conversation = store.conversations.start("chat")
    question = store.conversations.add_turn(conversation, None, "user", asked)
    return store.conversations.add_turn(conversation, question.id, "assistant", said, MODEL)


def an_act(reply: Turn, **fields: object) -> ReviewAct:
    values: dict[str, object] = {
        "reply_id": reply.id,
        "reviewer": "ana",
        "charter_version": 1,
        "correction": "On its way.",
    }
    return ReviewAct.model_validate(values | fields)


def test_migrations_make_exactly_the_tables_the_code_uses(store: Store) -> None:
    with store.engine.connect() as db:
        # The full-text index is SQL of each database's own, outside what SQLAlchemy describes.
        ours = {"include_name": lambda name, *_: not (name or "").startswith(("turns_text", "ix_turns_text"))}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Skipped unsupported reflection of expression-based index")
            assert compare_metadata(MigrationContext.configure(db, opts=ours), metadata) == []


def test_a_turn_comes_back_as_it_went_in(store: Store) -> None:
    reply = a_reply(store)
    assert store.conversations.turn(reply.id) == reply
    assert store.conversations.get(reply.conversation_id).title == "Where is my parcel?"


def test_a_retry_keeps_the_old_reply_beside_the_new_one(store: Store) -> None:
    first = a_reply(store)
    second = store.conversations.add_turn(first.conversation_id, first.parent_id, "assistant", "On its way.")
    assert [turn.text for turn in store.conversations.get(first.conversation_id).turns] == [
        "Where is my parcel?",
        "On its way.",
    ]
    assert store.conversations.of_reply(first.id).turns[-1].text == "Dunno."
    assert set(store.conversations.of_replies([first.id, second.id])) == {first.id, second.id}


def test_one_act_is_kept_once_however_often_it_is_saved(store: Store) -> None:
    act = an_act(a_reply(store), verdicts=(Verdict(question="voice", value="fail", clause_ids=("warm",)),))
    assert [store.reviews.save(act) for _ in range(3)] == [True, False, False]
    (kept,) = store.reviews.history(act.reply_id)
    assert kept.correction is not None
    assert [one.clause_ids for one in kept.judgements] == [("warm",)]


def test_twenty_writers_at_once_lose_nothing(store: Store) -> None:
    replies = [a_reply(store, said=f"reply {number}") for number in range(20)]
    failures: list[Exception] = []

    def work(reply: Turn) -> None:
        try:
            for number in range(5):
                store.reviews.save(an_act(reply, correction=f"On its way, {number}."))
        except Exception as error:  # reported below, not swallowed
            failures.append(error)

    threads = [threading.Thread(target=work, args=(reply,)) for reply in replies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(len(store.reviews.history(reply.id)) for reply in replies) == 100


def test_the_database_itself_refuses_to_rewrite_history(store: Store) -> None:
    reply = a_reply(store)
    store.reviews.save(an_act(reply, verdicts=(Verdict(question="bias", value="pass"),)))
    store.reviews.skip("s1", reply.id, "ana", "tired")
    store.reviews.react(reply.id, "up", "ana")
    answer = Answer(text="x", provenance=MODEL)
    asked = (Message(role="user", text="q"),)
    store.comparisons.vote(store.comparisons.add(asked, [answer, answer], "ana"), VoteForm(outcome="tie"), "ana")
    sides = [ArenaSide(name=name, model=name, provenance=MODEL) for name in ("base", "a-1")]
    kept = store.experiments.add(Design(name="x", sides=tuple(sides), prompts=(asked,)), "ana")
    drawn = Drawn(text="x", provenance=MODEL)
    store.experiments.keep(kept.id, plan(kept.design)[0], drawn, drawn)
    store.experiments.cast(store.experiments.pairs(kept.id)[0].id, "ana", BallotForm(outcome="tie"))
    store.experiments.look(kept.id, "ana")
    store.experiments.end(kept.id, "ana", "enough")
    change = AliasChange(
        id="p1", alias="candidate", number=1, kind="promote", adapter=None, weights_sha256=None,
        reason="to begin", author="ana", made_at=utc_now(),
    )  # fmt: skip
    store.aliases.add(change)
    store.aliases.set_canary(0.1, "to begin", "ana")
    store.halts.say("x", True, "ana")
    judge = Judge(model="base", provenance=MODEL, rubric="Judge.", charter_version=1)
    its = store.judging.ask(kept.id, judge, "ana")
    store.judging.keep(store.experiments.pairs(kept.id)[0].id, its.id, "as_shown", "", None, "x", MODEL)
    store.people.add("ana", "admin")
    store.keys.revoke(store.keys.add("ana", "website", "ana")[0].id, "ana")
    for table in APPEND_ONLY:
        for statement in (f"UPDATE {table} SET id = 'x'", f"DELETE FROM {table}"):
            with pytest.raises(sa.exc.DBAPIError, match="append-only"), store.engine.begin() as db:
                db.execute(sa.text(statement))


def test_an_act_that_says_nothing_is_refused(store: Store) -> None:
    reply = a_reply(store)
    with pytest.raises(UserError, match="Nothing is marked"):
        store.reviews.save(an_act(reply, correction=" Dunno. "))
    assert store.tasks.counts()["waiting"] == 1


def test_judging_an_unknown_reply_or_a_customers_turn_is_refused(store: Store) -> None:
    reply = a_reply(store)
    for wrong in ("nowhere", reply.parent_id):
        with pytest.raises(NotFound):
            store.reviews.save(an_act(reply, reply_id=wrong))


def test_a_comparison_takes_one_vote(store: Store) -> None:
    answer = Answer(text="x", provenance=MODEL)
    comparison = store.comparisons.add([Message(role="user", text="q")], [answer, answer], "ana")
    assert store.comparisons.get(comparison).outcome is None
    with pytest.raises(Conflict, match="ana asked for these replies"):
        store.comparisons.vote(comparison, VoteForm(outcome="right"), "ben")
    with pytest.raises(Conflict, match="none in the third place"):
        store.comparisons.vote(comparison, VoteForm(outcome="left", criteria={"voice": "third"}), "ana")
    form = VoteForm(outcome="left", strength=2, criteria={"policy": "tie"}, tags=("unclear",), comment="Too long.")
    voted = store.comparisons.vote(comparison, form, "ana")
    assert (voted.outcome, voted.best, voted.vote) == ("left", "left", form)
    with pytest.raises(Conflict, match="already has its vote"):
        store.comparisons.vote(comparison, VoteForm(outcome="right"), "ana")
    assert [kept.outcome for kept in store.comparisons.voted()] == ["left"]


@pytest.mark.parametrize("first", [0, 1, 2])
def test_one_vote_reveals_a_whole_round(store: Store, first: int) -> None:
    """The same sides, gone on with: after a vote on any of them none is blind, whichever came first."""
    prompt, answers = [Message(role="user", text="q")], [Answer(text="x", provenance=MODEL)] * 2
    once, twice = ([one.model_copy(update={"earlier": ("x",) * turns}) for one in answers] for turns in (1, 2))
    begun = store.comparisons.add(prompt, answers, "ana")
    then = store.comparisons.add(prompt, once, "ana", ("more",), begun)
    last = store.comparisons.add(prompt, twice, "ana", ("more", "still more"), store.comparisons.get(then).round)
    other = store.comparisons.add(prompt, answers, "ana")
    assert not store.comparisons.revealed(begun)
    found = [begun, then, last]
    store.comparisons.vote(found.pop(first), VoteForm(outcome="left"), "ana")
    assert store.comparisons.revealed(begun)
    for one in found:
        with pytest.raises(Conflict, match=r"no longer blind.*Ask something new"):
            store.comparisons.vote(one, VoteForm(outcome="left"), "ana")
    store.comparisons.vote(other, VoteForm(outcome="left"), "ana")
    assert len(store.comparisons.voted()) == 2


def test_replies_that_broke_off_are_kept_and_take_no_vote(store: Store) -> None:
    whole = Answer(text="x", provenance=MODEL)
    broken = Answer(text="x y", provenance=MODEL.model_copy(update={"finish": "error"}))
    comparison = store.comparisons.add([Message(role="user", text="q")], [whole, broken], "ana")
    with pytest.raises(Conflict, match="broke off"):
        store.comparisons.vote(comparison, VoteForm(outcome="left"), "ana")
    assert store.comparisons.get(comparison).right.text == "x y"


def test_a_comparison_of_an_older_store_is_still_read(store: Store) -> None:
    answer = Answer(text="x", provenance=MODEL).model_dump(mode="json", include={"text", "provenance"})
    row = {"id": "c", "prompt": [{"role": "user", "text": "q"}], "left": answer, "right": answer, "author": "ana"}
    given = {"id": "v", "comparison_id": "c", "outcome": "right", "voter": "ben"}
    with store.engine.begin() as db:
        db.execute(comparisons.insert(), row | {"made_at": utc_now()})
        db.execute(votes.insert(), given | {"made_at": utc_now()})
    (old,) = store.comparisons.voted()
    assert (old.best, old.vote, old.more, old.later, old.asked) == ("right", None, (), (), "q")


def test_a_charter_gets_a_new_version_only_when_it_changes(store: Store) -> None:
    first = store.charters.add(Charter(name="Shop"), "ana")
    assert store.charters.add(Charter(name="Shop"), "ben").version == first.version == 1
    changed = Charter(name="Shop", voice=(Trait(id="warm", text="Be warm."),))
    assert store.charters.add(changed, "ana").version == 2
    assert store.charters.get(1).voice == ()
    with pytest.raises(NotFound):
        store.charters.get(9)


def test_nobody_writes_over_a_charter_they_have_not_seen(store: Store) -> None:
    store.charters.add(Charter(name="Shop"), "ana", based_on=0)
    bens = Charter(name="Shop", purpose="Ben's.")
    with pytest.raises(Conflict, match="ana kept version 1 while you were editing"):
        store.charters.add(bens, "ben", based_on=0)
    assert store.charters.add(bens, "ben", based_on=1).version == 2
    with pytest.raises(Conflict, match="ben kept version 2"):
        store.charters.add(Charter(name="Ana's shop"), "ana", based_on=1)
    assert store.charters.add(bens, "ana", based_on=1).version == 2  # the same is no difference
    assert store.charters.add(Charter(name="Ana's shop"), "ana").version == 3


def test_of_charters_kept_at_the_same_moment_one_wins_and_the_others_are_told(store: Store) -> None:
    start, told = threading.Barrier(6), list[Exception]()

    def keep(name: str) -> None:
        start.wait()
        try:
            store.charters.add(Charter(name=name), name, based_on=0)
        except Exception as error:  # looked at below
            told.append(error)

    threads = [threading.Thread(target=keep, args=(f"p{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (kept,) = store.charters.all()
    assert {str(error).split(" while")[0] for error in told} == {f"{kept.name} kept version 1"}
    assert [type(error) for error in told] == [Conflict] * 5


def test_thumbs_newest_counts(store: Store) -> None:
    reply = a_reply(store)
    store.reviews.react(reply.id, "up", "ana")
    store.reviews.react(reply.id, "down", "ana")
    assert store.reviews.thumbs([reply.id]) == {reply.id: "down"}


def test_an_older_sqlite_file_is_backed_up_before_it_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    open_store(url).close()
    with sa.create_engine(url).begin() as db:  # a store of a schema this code knows, but not its newest
        db.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    monkeypatch.setattr("annotation.store.open.command.upgrade", lambda config, target: None)
    monkeypatch.setattr("annotation.store.open.ScriptDirectory.walk_revisions", lambda self: [_Script("0000")])
    open_store(url).close()
    (backup,) = tmp_path.glob("store.before-*-0000.db")
    with sa.create_engine(f"sqlite:///{backup}").connect() as db:
        assert "judgements" in sa.inspect(db).get_table_names()


class _Script:
    def __init__(self, revision: str) -> None:
        self.revision = revision


def test_a_store_of_a_newer_tonesmith_is_refused_untouched(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    open_store(url).close()
    with sa.create_engine(url).begin() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match="newer Tonesmith"):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "not a database address"),
        ("mysql+nothere://x/y", "not a database address"),
        ("sqlite:////proc/nowhere/store.db", "can't|could not"),
    ],
)
def test_a_wrong_address_is_said_in_words(url: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_store(url)
