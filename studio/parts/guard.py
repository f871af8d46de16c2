"""The page's guard: whoever presses a button acts in their own name; what a person can fix is said in words, what they
can't is logged, and nothing entered is lost."""

from __future__ import annotations

import functools
import inspect
import logging
import typing
from collections.abc import AsyncIterator, Callable
from html import escape
from typing import Any

import gradio as gr

from annotation.errors import UserError
from studio.services import Services

log = logging.getLogger("tonesmith")
Handler = Callable[..., Any]
SECONDS = 12.0
"""How long a notice stays."""


def by_person(services: Services, page: Callable[[Services], Any]) -> Callable[[Handler], Handler]:
    """How a page's handlers are wired: `act = by_person(services, _Page)`, then `button.click(act(_Page.save), …)`.

    `page` is a class over Services whose methods are the handlers. At each event one is made in the name of whoever is
    signed in, so that services check that person's role. An error becomes a notice, and nothing on the page changes.
    """

    def act(method: Handler) -> Handler:
        hints = typing.get_type_hints(method)
        _, *rest = inspect.signature(method).parameters.values()

        def made(request: gr.Request) -> Any:
            return page(services.of(signed_in(services, request)))

        if inspect.isasyncgenfunction(method):

            async def streaming(request: gr.Request, *args: Any) -> AsyncIterator[Any]:
                try:
                    async for value in method(made(request), *args):
                        yield value
                except Exception as error:
                    _notify(error)
                    yield gr.skip()

            wrapped: Handler = streaming
        else:

            def plain(request: gr.Request, *args: Any) -> Any:
                try:
                    return method(made(request), *args)
                except Exception as error:
                    _notify(error)
                    return gr.skip()

            wrapped = plain
        # Gradio reads from the signature what to hand over, so say there what the method takes.
        request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
        functools.update_wrapper(wrapped, method)
        vars(wrapped).pop("__wrapped__")  # else Gradio would ask the method itself what it takes
        wrapped.__signature__ = inspect.Signature([request, *rest])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {**hints, "request": gr.Request}
        return wrapped

    return act


def signed_in(services: Services, request: gr.Request) -> Any:
    """Who sent this request. Raises UserError if they have signed out, or their account was closed."""
    name = request.username
    person = services.store.people.get(name) if name else None
    if person is None or not person.active:
        raise UserError("You are signed out.", do="Open /login in another tab, sign in, and press the button again.")
    return person


def _notify(error: Exception) -> None:
    """Show a notice. A raised gr.Error would put the word 'Error' over every part of the page it would have changed."""
    if isinstance(error, UserError):
        text = " ".join(part for part in (error.wanted, error.do) if part)
        found = escape(error.found).replace("\n", "<br>")
        gr.Warning(f"<b>{found}</b> {escape(text)}", duration=SECONDS)
        return
    log.error("a page's handler failed", exc_info=error)
    text = "What you entered is still here. Try once more; if it happens again, the studio's log has the details."
    gr.Warning(f"<b>Something went wrong on our side.</b> {text}", duration=SECONDS)
