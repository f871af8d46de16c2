"""A conversation into token ids and labels: what the trainer sees is what the server will see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from annotation.types import Frozen

IGNORED = -100
"""The label the loss passes over."""


class RowError(ValueError):
    """Why a row can't be learned from; its text is the reason that is counted."""


class Encoded(Frozen):
    """One row: `input_ids` and `labels` of the same length, in tokens."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """The id where the loss counts (the last reply and its end-of-turn), `IGNORED` elsewhere."""
    truncated: bool

    @property
    def learned(self) -> int:
        """Tokens the loss counts."""
        return sum(label != IGNORED for label in self.labels)


def encode(tokenizer: Any, messages: Sequence[dict[str, str]], max_length: int) -> Encoded:
    """Tokenise a conversation whose last message is the reply to learn.

    The ids are those of the chat template for the prompt as the server renders it (with the opening of the reply),
    followed by the reply and its end of turn. A row longer than `max_length` tokens is cut at its end.
    Raises RowError if there is nothing to learn, or if the template renders the prompt differently once the reply
    is there (the model would then be taught on a prompt it never meets).
    """
    if not messages or messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise RowError("the last message is not a reply with text")
    prompt = render(tokenizer, messages[:-1], add_generation_prompt=True)
    whole = render(tokenizer, messages, add_generation_prompt=False)
    if not whole.startswith(prompt):
        raise RowError("the chat template renders the prompt differently once it is answered")
    prompt_ids = ids_of(tokenizer, prompt)
    reply_ids = ids_of(tokenizer, whole[len(prompt) :])
    end = tokenizer.eos_token_id
    if end not in reply_ids:
        raise RowError("the chat template does not end a reply with the model's end token, so it may not learn to stop")
    # What the template puts after the end token (a line break, often) is never generated: leave it out.
    reply_ids = reply_ids[: len(reply_ids) - reply_ids[::-1].index(end)]
    if end in reply_ids[:-1]:
        raise RowError("the reply itself contains the model's end token, so it would learn to stop in the middle")
    ids = (*prompt_ids, *reply_ids)
    labels = (*[IGNORED] * len(prompt_ids), *reply_ids)
    if len(prompt_ids) >= max_length:
        raise RowError(f"the prompt alone fills the {max_length} tokens a row may have")
    return Encoded(input_ids=ids[:max_length], labels=labels[:max_length], truncated=len(ids) > max_length)


def render(tokenizer: Any, messages: Sequence[dict[str, str]], add_generation_prompt: bool) -> str:
    """The chat template's text for `messages`."""
    return str(
        tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt)
    )


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Token ids of rendered text; the template has put in all special tokens already."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
