"""The page's guard: what a person can fix is said in words, what they can't is logged, and nothing entered is lost."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import gradio as gr

from annotation.errors import UserError

log = logging.getLogger("tonesmith")
Handler = Callable[..., Any]


def guarded(handler: Handler) -> Handler:
    """Wrap a page's handler (a function or an async generator): errors become a notice, inputs stay as they are."""
    if inspect.isasyncgenfunction(handler):

        @functools.wraps(handler)
        async def streaming(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                async for value in handler(*args, **kwargs):
                    yield value
            except Exception as error:
                raise _notice(error) from error

        return streaming

    @functools.wraps(handler)
    def plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise _notice(error) from error

    return plain


def _notice(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, UserError):
        text = " ".join(part for part in (error.wanted, error.do) if part)
        return gr.Error(text or " ", title=error.found, duration=12, print_exception=False)
    log.error("a page's handler failed", exc_info=error)
    return gr.Error(
        "What you entered is still here. Try once more; if it happens again, the details are in the studio's log.",
        title="Something went wrong on our side.",
        duration=12,
        print_exception=False,
    )
