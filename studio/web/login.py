"""Signing in: a cookie that stands for a session in the store, by password or by a link that works once."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from annotation.errors import UserError
from annotation.people import Person
from annotation.store import Store
from annotation.store.people import SESSION

COOKIE = "tonesmith-session"
OPEN = (
    "/login",
    "/welcome",
    "/health",
    "/desk",
    "/hooks",
    "/ours",
    "/v1",
    "/gradio_api",
    "/assets",
    "/static",
    "/theme.css",
    "/favicon",
)
"""Paths that do not send a visitor to the login page: they are for everybody, or answer 401 by themselves."""


def person_of(store: Store, request: Request) -> Person | None:
    """Who sent a request, None if nobody is signed in there."""
    return store.people.of_session(request.cookies.get(COOKIE))


class ToLogin:
    """Sends whoever opens a page without being signed in to the login page, and back after it."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and not scope["path"].startswith(OPEN):
            request = Request(scope)
            wants_page = "text/html" in request.headers.get("accept", "")
            if wants_page and person_of(self._store, request) is None:
                query = scope.get("query_string", b"").decode("latin-1")
                wanted = f"{scope['path']}?{query}" if query else scope["path"]
                answer = RedirectResponse(f"/login?to={quote(wanted)}", status_code=303)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def add_login(app: FastAPI, store: Store) -> None:
    """Add the login page, the sign-in links and signing out."""
    router = APIRouter()

    @router.get("/login", response_class=HTMLResponse)
    def form(to: str = "/") -> str:
        return login_html(to)

    @router.post("/login")
    def sign_in(
        request: Request,
        name: str = Form("", max_length=200),
        password: str = Form("", max_length=1000),
        to: str = Form("/"),
    ) -> Response:
        try:
            person = store.people.sign_in(name.strip(), password)
        except UserError as error:
            return HTMLResponse(login_html(to, name, error), status_code=401)
        return _enter(store, person, request, to)

    @router.get("/welcome/{token}")
    def welcome(request: Request, token: str) -> Response:
        try:
            person = store.people.use_link(token)
        except UserError as error:
            if person_of(store, request):  # the link again, in a browser it has already let in
                return RedirectResponse("/", status_code=303)
            return HTMLResponse(login_html("/", "", error), status_code=401)
        return _enter(store, person, request, "/")

    @router.post("/logout")
    def sign_out(request: Request) -> Response:
        store.people.close_session(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(COOKIE)
        return answer

    app.include_router(router)


def _enter(store: Store, person: Person, request: Request, to: str) -> Response:
    # Only ever to a page of ours: `//elsewhere` would be another host.
    inside = to if to.startswith("/") and not to.startswith(("//", "/\\")) else "/"
    answer = RedirectResponse(inside, status_code=303)
    answer.set_cookie(
        COOKIE,
        store.people.open_session(person.name),
        max_age=int(SESSION.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


def login_html(to: str, name: str = "", error: UserError | None = None) -> str:
    """The login page."""
    said = (
        f'<p class="said" role="alert"><b>{escape(error.found)}</b> {escape(error.do)}</p>' if error is not None else ""
    )
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in · Tonesmith</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/ours/login.css"></head>
<body><main><h1>Sign in to Tonesmith</h1>{said}
<form method="post" action="/login"><input type="hidden" name="to" value="{escape(to, quote=True)}">
<label for="name">Name</label><input id="name" name="name" autocomplete="username" maxlength="200" required autofocus
 value="{escape(name, quote=True)}">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" maxlength="1000"
 required>
<button>Sign in</button></form>
<p class="hint">No password yet? The address that <code>tonesmith up</code> prints signs you in, and an admin can send
you a link like it.</p></main></body></html>"""
