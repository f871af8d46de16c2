"""Signing in: what is refused, what a link may do, where one lands, and when a session ends."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from annotation.store import Store, open_store
from annotation.store.people import LINK, SESSION, TRIES
from annotation.store.tables import people, sessions
from annotation.types import utc_now
from studio.web.login import COOKIE, ToLogin, add_login, person_of

with warnings.catch_warnings():  # Starlette would rather have another client than the httpx we have
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

PASSWORD = "four quite plain words"
PAGE = {"accept": "text/html"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Passwords are hashed in no time here."""
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr("annotation.store.people.HASHER", quick)
    monkeypatch.setattr("annotation.store.people.NOBODY", quick.hash("nobody"))
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.people.add("boss", "admin")
    opened.people.add("ana", "reviewer", password=PASSWORD)
    yield opened
    opened.close()


def browser(store: Store, base: str = "http://studio.test") -> TestClient:
    """A browser in front of a small app; it does not follow redirects."""
    app = FastAPI()

    @app.get("/")
    @app.get("/review")
    def here(request: Request) -> PlainTextResponse:
        person = person_of(store, request)
        return PlainTextResponse(person.name if person else "nobody")

    add_login(app, store)
    app.add_middleware(ToLogin, store=store)
    return TestClient(app, base_url=base, follow_redirects=False, headers=PAGE)


@pytest.fixture
def visitor(store: Store) -> TestClient:
    return browser(store)


def enter(visitor: TestClient, password: str = PASSWORD, name: str = "ana", to: str = "/") -> tuple[int, str]:
    answer = visitor.post("/login", data={"name": name, "password": password, "to": to})
    return answer.status_code, answer.headers.get("location", answer.text)


def test_a_page_sends_strangers_to_the_login_and_back(visitor: TestClient) -> None:
    answer = visitor.get("/review?reply=7&a=b c")
    assert answer.status_code == 303
    login = visitor.get(answer.headers["location"])
    assert 'value="/review?reply=7&amp;a=b%20c"' in login.text
    assert enter(visitor, to="/review?reply=7&a=b%20c") == (303, "/review?reply=7&a=b%20c")
    assert visitor.get("/review").text == "ana"


def test_only_pages_send_to_the_login(visitor: TestClient) -> None:
    assert visitor.get("/review", headers={"accept": "application/json"}).text == "nobody"
    assert visitor.post("/review").status_code == 405


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ana", "wrong"),
        ("ana", ""),
        ("ana", PASSWORD + " "),
        ("nobody", PASSWORD),
        ("", PASSWORD),
        ("boss", ""),
        ("ANA", PASSWORD),
        ("' OR 1=1 --", PASSWORD),
    ],
)
def test_a_wrong_name_or_password_lets_nobody_in(visitor: TestClient, name: str, password: str) -> None:
    status, text = enter(visitor, password, name)
    assert status == 401
    assert "Name and password don&#x27;t match." in text
    assert COOKIE not in visitor.cookies


def test_what_was_typed_comes_back_as_text(visitor: TestClient) -> None:
    nasty = '"><script>alert(1)</script>'
    _, text = enter(visitor, "wrong", nasty, to=nasty)
    assert "<script>" not in text
    assert "<script>" not in visitor.get("/login", params={"to": nasty}).text


def test_too_much_is_refused_and_does_not_break(visitor: TestClient) -> None:
    assert enter(visitor, "x" * 100_000)[0] == 422
    assert enter(visitor, PASSWORD, "x" * 100_000)[0] == 422


def test_an_account_is_locked_after_five_wrong_passwords(visitor: TestClient, store: Store) -> None:
    for _ in range(TRIES):
        assert enter(visitor, "wrong")[0] == 401
    status, text = enter(visitor)
    assert (status, "too many wrong passwords" in text) == (401, True)
    with store.people._writer.begin() as db:
        db.execute(people.update().where(people.c.name == "ana").values(locked_until=utc_now()))
    assert enter(visitor) == (303, "/")


def test_a_right_password_forgets_the_wrong_ones(visitor: TestClient) -> None:
    for _ in range(3):
        for _ in range(TRIES - 1):
            enter(visitor, "wrong")
        assert enter(visitor)[0] == 303


def test_a_link_opens_a_locked_account(visitor: TestClient, store: Store) -> None:
    for _ in range(TRIES):
        enter(visitor, "wrong")
    assert visitor.get(f"/welcome/{store.people.open_session('ana', 'link')}").status_code == 303
    assert enter(visitor)[0] == 303


def test_a_sign_in_link_works_once(visitor: TestClient, store: Store) -> None:
    token = store.people.open_session("ana", "link")
    answer = visitor.get(f"/welcome/{token}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert visitor.get("/").text == "ana"
    assert visitor.get(f"/welcome/{token}").headers["location"] == "/"  # already in: no harm, and nothing new
    other = browser(store)
    used = other.get(f"/welcome/{token}")
    assert (used.status_code, "used before" in used.text) == (401, True)
    assert COOKIE not in other.cookies


def test_a_link_and_a_session_are_not_the_same_thing(visitor: TestClient, store: Store) -> None:
    link, session = store.people.open_session("ana", "link"), store.people.open_session("ana")
    visitor.cookies.set(COOKIE, link)
    assert visitor.get("/").status_code == 303
    assert browser(store).get(f"/welcome/{session}").status_code == 401
    assert browser(store).get("/welcome/nonsense").status_code == 401


@pytest.mark.parametrize(("kind", "lasts"), [("link", LINK), ("session", SESSION)])
def test_links_and_sessions_run_out(store: Store, kind: str, lasts: timedelta) -> None:
    token = store.people.open_session("ana", kind)  # type: ignore[arg-type]
    with store.people._writer.begin() as db:
        until = db.scalar(sa.select(sessions.c.expires_at))
        db.execute(sessions.update().values(expires_at=utc_now() - timedelta(seconds=1)))
    assert abs(until - utc_now() - lasts) < timedelta(minutes=1)
    visitor = browser(store)
    visitor.cookies.set(COOKIE, token)
    assert visitor.get("/").status_code == 303
    assert visitor.get(f"/welcome/{token}").status_code == 401


@pytest.mark.parametrize(
    "to",
    [
        "//evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "https://evil.test",
        "HTTPS:evil.test",
        "evil.test",
        "javascript:alert(1)",
        " //evil.test",
        "",
        "/\t/evil.test",
        "/\n/evil.test",
        "/\r\nSet-Cookie: a=b",
        "///evil.test",
        "/\t\\evil.test",
    ],
)
def test_one_never_lands_on_another_host(visitor: TestClient, to: str) -> None:
    answer = visitor.post("/login", data={"name": "ana", "password": PASSWORD, "to": to})
    landed = answer.headers["location"]
    assert answer.status_code == 303
    assert landed.startswith("/")
    assert not landed.startswith(("//", "/\\"))
    assert not set(landed) & set("\t\r\n\\")
    assert list(answer.cookies) == [COOKIE]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_cookie_is_for_the_browser_alone(store: Store, scheme: str) -> None:
    visitor = browser(store, f"{scheme}://studio.test")
    said = visitor.post("/login", data={"name": "ana", "password": PASSWORD}).headers["set-cookie"].lower()
    parts = {part.strip() for part in said.split(";")}
    assert {"httponly", "samesite=lax", "path=/", f"max-age={int(SESSION.total_seconds())}"} <= parts
    assert ("secure" in parts) is (scheme == "https")
    assert not any(part.startswith("domain") for part in parts)


def test_the_store_keeps_no_token_and_no_password(visitor: TestClient, store: Store) -> None:
    enter(visitor)
    token = visitor.cookies[COOKIE]
    with store.people._writer.begin() as db:
        rows = str([*db.execute(sa.select(sessions)).all(), *db.execute(sa.select(people)).all()])
    assert token not in rows
    assert PASSWORD not in rows


def test_signing_out_ends_the_session_everywhere_it_was_copied_to(visitor: TestClient, store: Store) -> None:
    enter(visitor)
    thief = browser(store)
    thief.cookies.set(COOKIE, visitor.cookies[COOKIE])
    assert thief.get("/").text == "ana"
    assert visitor.get("/logout").status_code == 405  # a picture on some page can't sign anybody out
    answer = visitor.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert COOKIE not in visitor.cookies
    assert thief.get("/").status_code == 303
    assert browser(store).post("/logout").status_code == 303  # nobody was signed in


def test_signing_in_twice_gives_two_sessions(visitor: TestClient, store: Store) -> None:
    other = browser(store)
    enter(visitor)
    enter(other)
    visitor.post("/logout")
    assert other.get("/").text == "ana"


def test_a_closed_account_is_out_at_once_and_stays_out(visitor: TestClient, store: Store) -> None:
    enter(visitor)
    link = store.people.open_session("ana", "link")
    store.people.change("ana", active=False)
    assert visitor.get("/").status_code == 303
    assert visitor.get(f"/welcome/{link}").status_code == 401
    status, text = enter(visitor)
    assert (status, "is closed" in text) == (401, True)
    assert "is closed" not in enter(visitor, "wrong")[1]  # only who has the password is told
    store.people.change("ana", active=True)
    assert visitor.get("/").status_code == 303  # what was closed does not open by itself
    assert enter(visitor)[0] == 303


def test_a_changed_password_ends_the_sessions(visitor: TestClient, store: Store) -> None:
    enter(visitor)
    link = store.people.open_session("ana", "link")
    store.people.set_password("ana", "some other plain words")
    assert visitor.get("/").status_code == 303
    assert visitor.get(f"/welcome/{link}").status_code == 401
    assert enter(visitor)[0] == 401
    assert enter(visitor, "some other plain words")[0] == 303


def test_a_changed_role_counts_from_the_next_request_on(visitor: TestClient, store: Store) -> None:
    enter(visitor)
    store.people.change("ana", role="viewer")
    person = store.people.of_session(visitor.cookies[COOKIE])
    assert person is not None
    assert person.role == "viewer"
