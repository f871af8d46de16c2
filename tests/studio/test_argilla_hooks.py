"""Argilla's own calls, from its worker to a studio that listens: fast when they come, harmless when they do not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from annotation import argilla_hooks
from annotation.argilla_hooks import EVENTS, MOST_BYTES, PATH
from annotation.argilla_server import ArgillaServer
from annotation.people import Person
from annotation.ports import any_free_port
from annotation.store import Store, open_store
from studio.services import argilla as argilla_service
from studio.services import argilla_calls
from studio.services.argilla import ArgillaService
from studio.services.argilla_view import in_words
from studio.settings import Settings
from studio.web.hooks import add_hooks
from tests.fixtures.argilla import ALL_GOOD, ClientOf, There, charter, fill, ok, team
from tests.fixtures.studio import wait_until

pytestmark = pytest.mark.slow
ADMIN = Person(name="root", role="admin")
SOON = 120.0
"""Seconds for a call to arrive: Argilla's worker asks its queue anew every few seconds, and looks take long on a busy
machine. By itself the studio of these tests would look after an hour.
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a charter and four replies."""
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.charters.add(charter(), "ana")
    team(opened)
    fill(opened, 4)
    yield opened
    opened.close()


@pytest.fixture
def there(store: Store, owner: httpx.Client, client_of: ClientOf) -> There:
    return There(store, owner, client_of)


class Listening:
    """A studio as far as Argilla sees it: the service, following, behind a web server that can be away."""

    def __init__(self, store: Store, home: Path, argilla: ArgillaServer) -> None:
        self.port = any_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.service = ArgillaService(store, Settings(home=home, port=self.port))
        self.service.attach(ADMIN, argilla.url, argilla.keys.api_key)
        app = FastAPI()
        add_hooks(app, self.service)
        self._web = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="warning"))
        self._thread = threading.Thread(target=self._web.run)

    def start(self) -> None:
        """Up as the real one: it follows before its page answers."""
        self.service.start()
        self._thread.start()
        wait_until(lambda: self.service.view().told, SOON, "the webhook to be tried")
        wait_until(lambda: self.service.view().told == "Argilla calls when somebody answers.", SOON, "the webhook")

    def stop(self) -> None:
        self.service.close()
        if self._thread.is_alive():
            self._web.should_exit = True
            self._thread.join()


@pytest.fixture
def studio(
    store: Store, tmp_path: Path, argilla: ArgillaServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Listening]:
    """It never looks by itself after its start."""
    monkeypatch.setattr(argilla_service, "EVERY_SECONDS", 3600.0)
    monkeypatch.setattr(argilla_service, "HOOK_PAUSE_SECONDS", 0.2)
    listening = Listening(store, tmp_path, argilla)
    yield listening
    listening.stop()


def replies(store: Store) -> list[str]:
    return [store.conversations.of_external("log", str(number)).turns[-1].id for number in range(4)]


def kinds(store: Store, reply_id: str) -> list[str]:
    return [act.kind for act in store.reviews.history(reply_id)]


def ours(owner: httpx.Client, store: Store) -> list[dict[str, Any]]:
    name = f"Tonesmith {store.argilla.identity()}"
    return [one for one in ok(owner.get("/webhooks"))["items"] if one["description"] == name]


def test_an_answer_is_here_within_seconds_though_nobody_looks(
    store: Store, studio: Listening, there: There, owner: httpx.Client
) -> None:
    studio.start()
    (hook,) = ours(owner, store)
    assert (hook["url"], set(hook["events"])) == (f"{studio.url}{PATH}", set(EVENTS))
    answered, discarded, *_ = replies(store)
    there.answer("ana", answered, **ALL_GOOD)
    wait_until(lambda: kinds(store, answered) == ["review"], SOON, "the answer")
    there.answer("ana", answered, **ALL_GOOD, correction="Today!")
    there.answer("ben", discarded, "discarded")
    wait_until(lambda: kinds(store, answered) == ["review", "review"], SOON, "the edit")
    wait_until(lambda: kinds(store, discarded) == ["pass"], SOON, "the discard")
    assert store.tasks.state_of(answered)["outcome"] == "corrected"
    ok(owner.delete(f"/datasets/{there.dataset()['id']}"))
    wait_until(lambda: "was deleted in Argilla" in studio.service.view().label, SOON, "the deletion to be said")
    assert studio.service.reconcile(ADMIN).datasets
    studio.stop()
    assert ours(owner, store) == []


def signed(secret: str, body: bytes, call: str = "msg_1", age: float = 0) -> dict[str, str]:
    """Headers after the Standard Webhooks specification."""
    stamp = str(int(time.time() - age))
    digest = hmac.new(base64.b64decode(secret), f"{call}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": call,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1a,other v1,{base64.b64encode(digest).decode()}",
    }


def test_only_what_argilla_signed_just_now_is_heard(
    store: Store, studio: Listening, there: There, owner: httpx.Client
) -> None:
    studio.start()
    secret = ours(owner, store)[0]["secret"]
    body = json.dumps({"type": "response.created", "data": {"record": {"id": "../../users"}}}).encode()

    def status(headers: dict[str, str], content: bytes = body) -> int:
        return httpx.post(f"{studio.url}{PATH}", headers=headers, content=content).status_code

    strangers = base64.b64encode(b"somebody else's").decode()
    assert status({}) == 401
    assert status(signed(strangers, body)) == 401
    assert status(signed(secret, body), body + b" ") == 401
    assert status(signed(secret, body) | {"webhook-id": "msg_2"}) == 401
    assert status(signed(secret, body, age=301)) == status(signed(secret, body, age=-302)) == 401
    assert status(signed(secret, body, age=301) | {"webhook-timestamp": str(int(time.time()))}) == 401
    assert status(signed(secret, b"no json", "msg_3"), b"no json") == 401
    assert status(signed(secret, body), b"x" * (MOST_BYTES + 1)) == 413
    good = signed(secret, body)
    assert status(good) == 204
    assert status(good) == 401  # the same again
    studio.service.close()
    assert status(signed(secret, body, "msg_4")) == 401  # nobody waits for calls any more
    assert all(kinds(store, reply) == [] for reply in replies(store))


def test_what_was_missed_while_the_studio_was_down_is_repaired_and_counted(
    store: Store, studio: Listening, there: There, owner: httpx.Client
) -> None:
    studio.service.sync(ADMIN)
    first, second, third, fourth = replies(store)
    for reply in (first, second, third):
        there.answer("ana", reply, **ALL_GOOD)
    there.answer("ana", first, **ALL_GOOD | {"voice": "fail"})
    there.answer("ben", fourth, "discarded")
    repairs = studio.service.reconcile(ADMIN)
    assert (repairs.pulled, repairs.passed, repairs.nothing) == (3, 1, False)
    assert in_words(repairs) == "3 answers fetched, 1 left to colleagues"
    before = [[act.id for act in store.reviews.history(reply)] for reply in replies(store)]
    studio.start()
    secret = ours(owner, store)[0]["secret"]
    records = there.records()
    # Late, twice over and in the wrong order: all of it is known.
    for number, reply in enumerate([fourth, first, third, second, first, first]):
        said = {"type": "response.updated", "data": {"record": {"id": records[reply]["id"]}}}
        body = json.dumps(said).encode()
        answer = httpx.post(f"{studio.url}{PATH}", content=body, headers=signed(secret, body, f"msg_{number}"))
        assert answer.status_code == 204
    there.answer("ben", second, **ALL_GOOD)
    wait_until(lambda: len(kinds(store, second)) == 2, SOON, "the answer that came after them")
    store_now = [[act.id for act in store.reviews.history(reply)] for reply in replies(store)]
    assert store_now[1][:1] == before[1]
    assert store_now[:1] + store_now[2:] == before[:1] + before[2:]
    assert studio.service.reconcile(ADMIN).nothing


def test_a_studio_that_was_killed_leaves_nothing_behind_and_others_keep_theirs(
    store: Store, studio: Listening, owner: httpx.Client, tmp_path: Path, argilla: ArgillaServer
) -> None:
    studio.start()
    (left,) = ours(owner, store)
    studio.service._calls._hook = None  # as if it had been killed here
    theirs = ok(owner.post("/webhooks", json={"url": "http://127.0.0.1:9/x", "events": ["record.deleted"]}))
    next_one = Listening(store, tmp_path, argilla)
    next_one.start()
    (hook,) = ours(owner, store)
    assert hook["id"] != left["id"]
    assert hook["url"].startswith(next_one.url)
    next_one.service.leave(ADMIN)
    assert ours(owner, store) == []
    assert theirs["id"] in {one["id"] for one in ok(owner.get("/webhooks"))["items"]}
    next_one.stop()
    ok(owner.delete(f"/webhooks/{theirs['id']}"))


@pytest.mark.parametrize("reason", ["ten of others", "nobody answers at our address"])
def test_without_a_webhook_argilla_is_asked(
    store: Store,
    studio: Listening,
    there: There,
    owner: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
) -> None:
    monkeypatch.setattr(argilla_service, "EVERY_SECONDS", 0.5)
    monkeypatch.setattr(argilla_service, "SHARE", 1)
    taken: list[str] = []
    if reason == "ten of others":
        about = {"url": "http://127.0.0.1:9/x", "events": ["record.deleted"]}
        taken += [ok(owner.post("/webhooks", json=about))["id"] for _ in range(10)]
    studio.service.start()  # without its web server
    wait_until(lambda: studio.service.view().told.startswith("Argilla is asked"), SOON, "the look without a webhook")
    wait_until(lambda: ours(owner, store) == [], SOON, "no webhook of ours")
    reply = replies(store)[0]
    there.answer("ana", reply, **ALL_GOOD)
    wait_until(lambda: kinds(store, reply) == ["review"], SOON, "the answer")
    for one in taken:
        ok(owner.delete(f"/webhooks/{one}"))


def test_waiting_for_a_webhook_in_vain_makes_no_longer_pauses_between_looks(
    studio: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(argilla_service, "SHARE", 1)
    monkeypatch.setattr(argilla_calls, "PING_SECONDS", 10.0)
    monkeypatch.setattr(studio.service, "_once", lambda: True)  # a look that took ten seconds would make for ten more
    monkeypatch.setattr(studio.service, "_rest", lambda seconds: rests.append(seconds) or time.sleep(0.1))
    strangers = http.server.HTTPServer(("127.0.0.1", studio.port), Polite)  # somebody else has our port
    serving = threading.Thread(target=strangers.serve_forever)
    serving.start()
    try:
        studio.service.start()
        wait_until(lambda: rests, SOON, "the webhook that was waited for in vain")
    finally:
        strangers.shutdown()
        serving.join()
        strangers.server_close()
    assert rests[0] < 10.0


class Polite(http.server.BaseHTTPRequestHandler):
    """Thanks for every call and does nothing with it."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_call_is_heard_once_however_the_clock_runs() -> None:
    now = [1_000_000.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731 -- a clock to be set
    secret = base64.b64encode(b"s" * 24).decode()
    hook = argilla_hooks.Hook("h", "u", secret, clock)

    def call(name: str, at: float) -> bool:
        body = b"{}"
        digest = hmac.new(b"s" * 24, f"{name}.{at:.0f}.".encode() + body, hashlib.sha256).digest()
        signature = f"v1,{base64.b64encode(digest).decode()}"
        headers = {"webhook-id": name, "webhook-timestamp": f"{at:.0f}", "webhook-signature": signature}
        try:
            hook.hear(headers, body)
        except argilla_hooks.HookRefused:
            return False
        return True

    assert call("a", now[0] + 299)  # from a clock ahead of ours
    for later in (1, 299, 598, 599):
        now[0] = 1_000_000.0 + later
        assert not call("a", 1_000_299)
    assert call("b", now[0])
    assert not call("a", 1_000_299)
