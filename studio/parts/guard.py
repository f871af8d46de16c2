"""The page's guard: what a person can fix is said in words, what they can't is logged, and nothing entered is lost."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from html import escape
from typing import Any

import gradio as gr

from annotation.errors import UserError

log = logging.getLogger("tonesmith")
Handler = Callable[..., Any]
SECONDS = 12.0
"""How long a notice stays."""


def guarded(handler: Handler) -> Handler:
    """Wrap a page's handler (a function or an async generator): an error becomes a notice, and nothing on the page
    changes, so what was entered is still there.
    """
    if inspect.isasyncgenfunction(handler):

        @functools.wraps(handler)
        async def streaming(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                async for value in handler(*args, **kwargs):
                    yield value
            except Exception as error:
                _notify(error)
                yield gr.skip()

        return streaming

    @functools.wraps(handler)
    def plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            _notify(error)
            return gr.skip()

    return plain


def _notify(error: Exception) -> None:
    """Show a notice. A raised gr.Error would put the word 'Error' over every part of the page it would have changed."""
    if isinstance(error, UserError):
        text = " ".join(part for part in (error.wanted, error.do) if part)
        gr.Warning(f"<b>{escape(error.found)}</b> {escape(text)}", duration=SECONDS)
        return
    log.error("a page's handler failed", exc_info=error)
    text = "What you entered is still here. Try once more; if it happens again, the studio's log has the details."
    gr.Warning(f"<b>Something went wrong on our side.</b> {text}", duration=SECONDS)
