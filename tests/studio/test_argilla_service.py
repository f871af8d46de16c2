"""What the page and the commands say and do about Argilla, against the real server: stop, leave, how things stand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy.exc import OperationalError

from annotation import argilla_client, argilla_push
from annotation.argilla_pull import ArgillaPull
from annotation.argilla_push import ArgillaPush
from annotation.argilla_report import Progress
from annotation.argilla_server import ArgillaServer
from annotation.argilla_sync import ArgillaSync
from annotation.errors import UserError
from annotation.people import Person
from annotation.store import Store, open_store
from annotation.types import Message
from serving.scripted import ScriptedModel
from studio.services import argilla as argilla_service
from studio.services.argilla import ArgillaService, Connection
from studio.services.argilla_view import Pace, in_words, left_in_words
from studio.services.review import ReviewService
from studio.settings import Settings
from tests.fixtures.argilla import ALL_GOOD, MODEL, ClientOf, There, charter, fill, ok, team, write_over
from tests.fixtures.studio import wait_until
from tests.studio.conftest import Call

pytestmark = pytest.mark.slow
ADMIN = Person(name="root", role="admin")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.charters.add(charter(), "ana")
    team(opened)
    yield opened
    opened.close()


@pytest.fixture
def there(store: Store, owner: httpx.Client, client_of: ClientOf) -> There:
    return There(store, owner, client_of)


@pytest.fixture
def service(store: Store, tmp_path: Path, argilla: ArgillaServer) -> Iterator[ArgillaService]:
    """As in a studio that nobody can call."""
    made = ArgillaService(store, Settings(home=tmp_path))
    made.attach(ADMIN, argilla.url, argilla.keys.api_key)
    yield made
    made.close()


def at_call(monkeypatch: pytest.MonkeyPatch, part: type, name: str, number: int, does: Callable[[], Any]) -> None:
    """At the `number`th call of this step of a sync, something else happens first."""
    step, calls = getattr(part, name), iter(range(1, 1000))

    def made(*given: Any) -> Any:
        if next(calls) == number:
            does()
        return step(*given)

    monkeypatch.setattr(part, name, made)


def test_leaving_brings_everything_along_and_sends_nothing(
    store: Store, service: ArgillaService, there: There, argilla: ArgillaServer
) -> None:
    answered, discarded, begun = fill(store, 3)
    service.sync(ADMIN)
    fill(store, 1, "later")
    there.answer("ana", answered, **ALL_GOOD | {"voice": "fail"}, voice_rules=["warm", "_other"], correction="Today!")
    there.answer("ana", discarded, "discarded", voice="fail")
    there.answer("ana", begun, "draft", voice="unsure", correction="Half a sen")
    records = there.records()
    summary = service.leave(ADMIN)
    assert summary is not None
    assert (summary.pulled, summary.passed, summary.begun, summary.pushed) == (1, 1, 1, 0)
    assert "1 answers fetched, 1 left to colleagues, 1 begun there" in left_in_words(summary)
    assert [act.kind for one in (answered, discarded) for act in store.reviews.history(one)] == ["review", "pass"]
    (mirror,) = store.argilla.mirrors(there._workspace())
    kept = {one.id: one.said for one in store.argilla.all_responses(mirror).values()}
    assert kept == {one["id"]: one["values"] for record in records.values() for one in record["responses"]}
    assert len(kept) == 3
    assert set(there.records()) == set(records)
    assert not service.view().connected
    ben, ana = (ReviewService(store, Person(name=name), ScriptedModel, lambda name: MODEL) for name in ("ben", "ana"))
    blank = ben.open(begun)
    assert (blank.text_now, blank.mine) == ("Parcel 2 is on its way, maybe.", {})
    ben.release(blank.act_id)
    mine = ana.open(begun)  # she goes on here
    assert (mine.text_now, {name: one.value for name, one in mine.mine.items()}) == ("Half a sen", {"voice": "unsure"})
    service.attach(ADMIN, argilla.url, argilla.keys.api_key)  # and back
    assert in_words(service.sync(ADMIN)) == "1 sent"
    assert [act.kind for act in store.reviews.history(answered)] == ["review"]


def test_leaving_keeps_what_a_program_wrote_over_an_answer_and_what_is_in_a_dataset_taken_for_lost(
    store: Store, service: ArgillaService, there: There, owner: httpx.Client
) -> None:
    first, second = fill(store, 2)
    service.sync(ADMIN)
    response = there.answer("ana", first, **ALL_GOOD)
    service.sync(ADMIN)
    (mirror,) = store.argilla.mirrors(there._workspace())
    write_over(owner, mirror.id, first, response["user_id"], voice="fail")
    there.answer("ana", second, **ALL_GOOD)
    store.argilla.change_mirror(mirror.id, state="lost")
    summary = service.leave(ADMIN)
    assert "2 answers fetched. All that was said there is kept here." in left_in_words(summary)
    assert [store.reviews.history(one)[-1].judgements[0].value for one in (first, second)] == ["fail", "pass"]


def test_an_argilla_that_is_gone_can_be_left_all_the_same(
    store: Store, service: ArgillaService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_client, "PAUSE_SECONDS", 0.01)
    service._file.write_text(Connection(url="http://127.0.0.1:9", api_key="k").model_dump_json())
    assert (service.view().tone, service.view().connected) == ("bad", True)
    with pytest.raises(UserError, match="does not answer") as said:
        service.leave(ADMIN)
    assert "--anyway" in said.value.do
    assert service.view().connected
    assert service.leave(ADMIN, anyway=True) is None
    assert not service.view().connected


def test_leaving_shows_how_far_it_is_can_be_stopped_and_goes_on_from_there(
    store: Store, service: ArgillaService, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_client, "PAGE", 5)
    replies = fill(store, 15)
    service.sync(ADMIN)
    for reply_id in replies:
        there.answer("ana", reply_id, **ALL_GOOD)
    seen: list[tuple[str, bool]] = []
    at_call(monkeypatch, ArgillaPull, "some", 2, lambda: service.cancel(ADMIN))
    at_call(monkeypatch, ArgillaPull, "some", 2, lambda: seen.append((service.view().label, service.view().may_cancel)))
    service.leave_soon(ADMIN)
    outcome = wait_until(lambda: service.view().outcome, 30, "the stop")
    assert seen == [("Fetching answers 5 of 15", True)]
    assert (outcome.well, "Argilla is in use as before" in outcome.text) == (True, True)
    assert (service.view().connected, service.view().label) == (True, "Stopped")
    assert sum(len(store.reviews.history(one)) for one in replies) == 10
    service.leave_soon(ADMIN)
    outcome = wait_until(lambda: service.view().outcome, 30, "the end")
    assert "The last look: 5 answers fetched." in outcome.text
    assert not service.view().connected
    assert [len(store.reviews.history(one)) for one in replies] == [1] * 15


def test_whoever_changes_their_mind_while_leaving_waits_stays(store: Store, service: ArgillaService) -> None:
    with service._one:  # a look that takes its time
        service.leave_soon(ADMIN)
        assert service.view().label == "Leaving Argilla"
        with pytest.raises(UserError, match="Leaving Argilla is under way already"):
            service.reconcile_soon(ADMIN)
        service.cancel(ADMIN)
        assert service.view().label == "Stopping"
    wait_until(lambda: service.view().outcome, 30, "the stop")
    assert service.view().connected


def test_a_comparison_says_one_by_one_what_it_put_right(
    store: Store, service: ArgillaService, there: There, owner: httpx.Client
) -> None:
    fill(store, 3)
    service.sync(ADMIN)
    record = next(iter(there.records().values()))
    ok(owner.delete(f"/datasets/{there.dataset()['id']}/records", params={"ids": record["id"]}))
    service.reconcile_soon(ADMIN)
    outcome = wait_until(lambda: service.view().outcome, 30, "the comparison")
    assert (outcome.text, outcome.counts) == ("Both desks were compared.", ("1 sent", "1 found deleted there"))
    service.reconcile_soon(ADMIN)
    assert "they were alike" in wait_until(lambda: service.view().outcome, 30, "the comparison").text


def test_what_goes_wrong_in_the_background_is_said(
    store: Store, service: ArgillaService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_client, "PAUSE_SECONDS", 0.01)
    service._file.write_text(Connection(url="http://127.0.0.1:9", api_key="k").model_dump_json())
    service.leave_soon(ADMIN)
    outcome = wait_until(lambda: service.view().outcome, 30, "the refusal")
    assert (outcome.well, "--anyway" in outcome.text) == (False, True)
    service.leave_soon(ADMIN, anyway=True)
    wait_until(lambda: not service.view().connected, 30, "the end")

    def broken(*given: Any) -> str:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(ArgillaServer, "ensure", broken)
    service.up_soon(ADMIN)
    outcome = wait_until(lambda: service.view().outcome, 30, "the fault")
    assert (outcome.well, "the studio's log has the details" in outcome.text) == (False, True)


def test_how_long_it_will_take_yet_follows_from_how_it_went() -> None:
    pace, now = Pace(), [100.0]
    with pytest.MonkeyPatch.context() as context:
        context.setattr("studio.services.argilla_view.time.monotonic", lambda: now[0])
        assert pace.seconds_left(Progress(what="sending replies", done=500, total=1_000)) is None
        now[0] += 10
        assert pace.seconds_left(Progress(what="sending replies", done=600, total=1_000)) == 40
        assert pace.seconds_left(Progress(what="comparing", done=0, total=1_000)) is None  # a step of its own
        now[0] += 1
        assert pace.seconds_left(Progress(what="comparing", done=500, total=1_000)) == 1
        assert pace.seconds_left(Progress(what="comparing", done=500, total=0)) is None


def test_what_is_wrong_with_an_address_or_a_key_is_said_before_anything_is_kept(
    store: Store, tmp_path: Path, argilla: ArgillaServer
) -> None:
    service = ArgillaService(store, Settings(home=tmp_path))
    for url, key, says in (
        ("", "k", "There is no address yet. One as in a browser."),
        ("argilla.example.org", "k", "'argilla.example.org' is no address."),
        ("ftp://argilla.example.org", "k", "'ftp://argilla.example.org' is no address."),
        ("http://127.0.0.1:9", "k", "does not answer: Connection refused. The address of an Argilla that is up"),
        (argilla.url, " ", "There is no key yet. That of an owner or an admin"),
        (argilla.url, "not-the-key", "does not know this key"),
    ):
        with pytest.raises(UserError) as said:
            service.attach(ADMIN, url, key)
        assert says in str(said.value)
        assert "argilla up" not in str(said.value)
        assert not service.view().connected


def test_what_is_stopped_stays_so_until_somebody_asks_and_goes_on_from_there(
    store: Store, service: ArgillaService, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_push, "AT_ONCE", 5)
    monkeypatch.setattr(argilla_service, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(argilla_service, "SHARE", 0)
    replies = fill(store, 20)
    assert not service.cancel(ADMIN)  # nothing is under way
    at_call(monkeypatch, ArgillaPush, "_send", 2, lambda: service.cancel(ADMIN))
    service.start()
    wait_until(lambda: service.view().label == "Stopped", 30, "the stop")
    assert "stopped before its end" in service.view().detail.lower()
    assert service.view().datasets[0].there == 10
    service.close()
    again = ArgillaService(store, service._settings)  # a restart
    again.start()
    time.sleep(0.5)  # ten looks would have been due
    assert (again.view().label, again.view().datasets[0].there) == ("Stopped", 10)
    again.sync_soon(ADMIN)
    wait_until(lambda: again.view().label == "Both desks are alike", 30, "the rest")
    again.close()
    assert set(there.records()) == set(replies)


def test_a_fault_that_nobody_foresaw_is_shown_and_the_looks_go_on(
    store: Store, service: ArgillaService, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_service, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(argilla_service, "SHARE", 0)
    (reply_id,) = fill(store, 1)
    away = Event()
    away.set()

    def restarted(*given: Any) -> str:
        if away.is_set():
            raise OperationalError("SELECT 1", {}, Exception("the database system is shutting down"))
        return connect(*given)

    connect = ArgillaSync._connect
    monkeypatch.setattr(ArgillaSync, "_connect", restarted)
    service.start()
    wait_until(lambda: service.view().label == "A look at Argilla failed (OperationalError)", 30, "the trouble")
    assert service.view().tone == "bad"
    away.clear()
    wait_until(lambda: service.view().label == "Both desks are alike", 30, "the next look")
    assert set(there.records()) == {reply_id}


def test_a_comparison_can_be_stopped_too(
    store: Store, service: ArgillaService, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_client, "PAGE", 5)
    fill(store, 15)
    service.sync(ADMIN)
    seen: list[str] = []
    at_call(monkeypatch, ArgillaSync, "_compare_some", 2, lambda: service.cancel(ADMIN))
    at_call(monkeypatch, ArgillaSync, "_compare_some", 2, lambda: seen.append(service.view().label))
    repairs = service.reconcile(ADMIN)
    assert repairs.cancelled
    assert in_words(repairs) == "stopped before its end"
    assert seen == ["Comparing 5 of 15"]
    assert service.reconcile(ADMIN).nothing


def test_our_own_server_that_starts_is_busy_or_ended_is_said_to_be_so(
    store: Store, tmp_path: Path, argilla: ArgillaServer
) -> None:
    service = ArgillaService(store, Settings(home=argilla.home.parent))
    service._file.write_text(Connection(url="").model_dump_json())
    pid = argilla.status().parts["server"]
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        view = service.view()
        assert view.label == "Argilla does not answer just now"
        assert "wait a moment. If it stays so, start it again" in view.detail
        assert (view.tone, view.down, view.may_start) == ("bad", False, True)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: service.view().tone != "bad", 30, "its answer")
    process = psutil.Process(pid)
    process.kill()
    process.wait(timeout=5)
    view = service.view()
    assert view.label == "Argilla is not running"
    assert (view.tone, view.down, view.may_start, view.detail[:14]) == ("bad", True, True, "Start it again")
    with ThreadPoolExecutor(1) as beside:  # as `tonesmith argilla up` does
        started = beside.submit(argilla.ensure)
        view = wait_until(lambda: one if (one := service.view()).tone == "busy" else None, 60, "the start")
        assert (view.label, view.down, view.may_start) == ("Argilla is starting", False, False)
        assert started.result() == ("server",)
    assert service.view().tone != "bad"
    service._file.unlink()
    service.close()


def test_how_things_stand_is_said_as_it_is(store: Store, service: ArgillaService, there: There) -> None:
    assert service.view().label == "Nothing has gone over yet"
    fill(store, 2)
    service.sync(ADMIN)
    assert service.view().label == "Both desks are alike"
    fill(store, 1, "later")
    assert service.view().label == "1 to be sent"
    asked = [(Message(role="user", text="x" * 20_001), None), (Message(role="assistant", text="y"), MODEL)]
    store.conversations.import_one("wide", "0", "w", None, asked)
    service.sync(ADMIN)
    assert (service.view().label, service.view().tone) == ("1 could not go over", "warn")
    assert "20,001 characters" in service.view().failures[0][1]
    assert service.retry(ADMIN) == 1
    reviewer = Person(name="rob")
    for refused in (service.cancel, service.retry, service.sync, service.reconcile, service.leave, service.sync_soon):
        with pytest.raises(UserError):
            refused(reviewer)


@pytest.fixture
def project(call: Call, tmp_path: Path) -> Path:
    """A project for the command line, with a charter and three replies, one of which is too long for Argilla."""
    (tmp_path / "home").mkdir()
    kept = open_store(f"sqlite:///{tmp_path / 'home' / 'tonesmith.db'}")
    kept.charters.add(charter(), "ana")
    fill(kept, 2)
    asked = [(Message(role="user", text="x" * 20_001), None), (Message(role="assistant", text="y"), MODEL)]
    kept.conversations.import_one("wide", "0", "w", None, asked)
    kept.close()
    return tmp_path / "home"


def test_an_argilla_that_runs_elsewhere_from_the_command_line(
    call: Call, project: Path, argilla: ArgillaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call("argilla", "up", "--url", argilla.url, "--api-key", argilla.keys.api_key)
    assert (code, "Connected to Argilla 2." in out) == (0, True)
    code, out, _ = call("argilla", "sync")
    assert code == 0
    assert "2 sent" in out
    assert "20,001 characters" in out
    code, out, _ = call("argilla", "retry")
    assert code == 0
    assert "20,001 characters" in out  # it is as long as before
    code, out, _ = call("argilla", "status")
    assert "could not go over" in out
    assert call("argilla", "leave")[0] == 0
    monkeypatch.setenv("ARGILLA_API_KEY", argilla.keys.api_key)
    assert call("argilla", "up", "--url", argilla.url)[0] == 0


def test_what_is_wrong_with_an_address_or_a_key_is_said_on_the_command_line(
    call: Call, project: Path, argilla: ArgillaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_client, "PAUSE_SECONDS", 0.01)
    for url, key, says in (
        (argilla.url, "not-the-key", "key"),
        ("http://127.0.0.1:9", argilla.keys.api_key, "does not answer"),
        (f"{argilla.url}/nowhere", argilla.keys.api_key, "Argilla"),
    ):
        code, out, err = call("argilla", "up", "--url", url, "--api-key", key)
        assert (code, says in err) == (1, True), (url, out, err)
        assert not (project / "argilla.json").exists()
    code, _, err = call("argilla", "sync")
    assert code == 1
    assert "argilla up" in err
