"""A conversation into ids and labels: loss on the last reply and its end, on nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.tokens import IGNORED, Encoded, RowError, encode

END = 1
Messages = list[dict[str, str]]


class Letters:
    """A tokenizer with a token for each letter, and ChatML's template. `<end>` is one token, number 1."""

    eos_token_id: int = END

    def apply_chat_template(self, messages: Messages, tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        turns = "".join(f"[{message['role']}]{message['content']}<end>\n" for message in messages)
        return turns + ("[assistant]" if add_generation_prompt else "")

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        parts = text.split("<end>")
        ids = [ord(letter) + 10 for letter in parts[0]]
        for part in parts[1:]:
            ids += [END, *(ord(letter) + 10 for letter in part)]
        return {"input_ids": ids}


class Forgetful(Letters):
    """Renders a prompt differently once it is answered, as templates that drop earlier reasoning do."""

    def apply_chat_template(self, messages: Messages, tokenize: bool, add_generation_prompt: bool) -> str:
        said = super().apply_chat_template(messages, tokenize, add_generation_prompt)
        return said if add_generation_prompt else said.replace("[user]", "[User]")


class Endless(Letters):
    """Its template ends no turn with the end token."""

    eos_token_id = 2


def chat(*texts: str) -> Messages:
    """Turns in alternation, the user's first."""
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def text_of(ids: tuple[int, ...]) -> str:
    return "".join("<end>" if token == END else chr(token - 10) for token in ids)


def learned(row: Encoded) -> str:
    return text_of(tuple(label for label in row.labels if label != IGNORED))


def test_only_the_reply_and_its_end_are_learned() -> None:
    row = encode(Letters(), chat("Hello?", "Yo."), 100)
    assert text_of(row.input_ids) == "[user]Hello?<end>\n[assistant]Yo.<end>"
    assert learned(row) == "Yo.<end>"
    assert row.learned == 4
    assert not row.truncated


def test_of_several_replies_only_the_last_is_learned() -> None:
    row = encode(Letters(), chat("One?", "First.", "Two?", "Second."), 200)
    assert learned(row) == "Second.<end>"


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda said: said.strip())


@given(st.lists(texts, min_size=2, max_size=6), st.integers(16, 120))
def test_labels_are_the_ids_or_passed_over(said: list[str], longest: int) -> None:
    try:
        row = encode(Letters(), chat(*said[: len(said) // 2 * 2]), longest)
    except RowError:  # the prompt alone fills the row, or somebody wrote the end token
        return
    assert len(row.input_ids) == len(row.labels) <= longest
    assert all(label in (IGNORED, token) for token, label in zip(row.input_ids, row.labels, strict=True))
    first = next(place for place, label in enumerate(row.labels) if label != IGNORED)
    assert IGNORED not in row.labels[first:]
    assert text_of(row.input_ids[:first]).endswith("[assistant]")
    assert row.truncated != (row.labels[-1] == END)


def test_a_long_row_is_cut_at_its_end_and_says_so() -> None:
    row = encode(Letters(), chat("Hello?", "A long reply."), 32)
    assert row.truncated
    assert len(row.input_ids) == 32
    assert learned(row) == "A long "


REFUSED: list[tuple[Any, Messages, str]] = [
    (Letters(), [], "not a reply"),
    (Letters(), chat("Hello?"), "not a reply"),
    (Letters(), chat("Hello?", "  "), "not a reply"),
    (Letters(), chat("H" * 100, "Yo."), "the prompt alone fills the 100 tokens"),
    (Letters(), chat("Hello?", "Yo.<end>Yo."), "stop in the middle"),
    (Forgetful(), chat("Hello?", "Yo."), "differently once it is answered"),
    (Endless(), chat("Hello?", "Yo."), "may not learn to stop"),
]


@pytest.mark.parametrize(("tokenizer", "messages", "reason"), REFUSED)
def test_a_row_that_teaches_nothing_or_wrongly_is_refused(tokenizer: Any, messages: Messages, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        encode(tokenizer, messages, 100)
