"""The demo's data: whole, consistent, and free of labels nobody gave."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from annotation.charter import marked, marker_rate, read_charter
from annotation.experiments import names_in
from annotation.types import Charter, Message, Provenance
from studio.demo import make

DEMO = Path(make.__file__).parent


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DEMO / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def conversations() -> list[dict[str, Any]]:
    return rows("conversations.jsonl")


@pytest.fixture(scope="module")
def corrections() -> list[dict[str, Any]]:
    return rows("corrections.jsonl")


@pytest.fixture(scope="module")
def held_out() -> list[dict[str, Any]]:
    return rows("held_out.jsonl")


@pytest.fixture(scope="module")
def charter() -> Charter:
    return read_charter(DEMO / "charter.toml")


def said(conversation: dict[str, Any], role: str) -> list[str]:
    return [message["text"] for message in conversation["messages"] if message["role"] == role]


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_charter_has_voice_policy_and_bias(charter: Charter) -> None:
    assert [trait.id for trait in charter.voice if trait.marker] == ["greeting", "sign-off"]
    assert 5 <= len(charter.policy) <= 7
    assert 3 <= len(charter.bias) <= 4
    assert all(axis.groups for axis in charter.bias)


def test_fifty_conversations_a_trade_ten_with_two_customer_messages(conversations: list[dict[str, Any]]) -> None:
    assert Counter(row["trade"] for row in conversations) == dict.fromkeys(make.TRADES, 50)
    two = Counter(row["trade"] for row in conversations if len(said(row, "user")) == 2)
    assert two == dict.fromkeys(make.TRADES, 10)
    assert len({row["external_id"] for row in conversations}) == 300


def test_roles_take_turns_and_the_assistant_is_last(conversations: list[dict[str, Any]]) -> None:
    for row in conversations:
        roles = [Message(role=m["role"], text=m["text"]).role for m in row["messages"]]
        assert roles in (["user", "assistant"], ["user", "assistant"] * 2), row["external_id"]
        assert all(text == text.strip() and text for text in said(row, "user")), row["external_id"]
        assert 0 < len(row["title"]) <= 60


def test_every_reply_states_how_it_was_generated(conversations: list[dict[str, Any]]) -> None:
    seeds = []
    for row in conversations:
        replies = [m for m in row["messages"] if m["role"] == "assistant"]
        for turn, reply in enumerate(replies):
            assert reply["origin"] == "generated"
            provenance = Provenance.model_validate(reply["provenance"])
            assert provenance.model == make.MODEL
            assert provenance.adapter is None
            assert provenance.seconds is not None
            assert provenance.finish in ("stop", "length")
            assert provenance.sampling is not None
            assert (provenance.sampling.temperature, provenance.sampling.top_p) == (0.7, 0.95)
            assert provenance.sampling.seed == make.seed_of(row["external_id"], turn)
            seeds.append(provenance.sampling.seed)
    assert len(seeds) == len(set(seeds)) == 360


def test_no_reply_comes_with_a_judgement(conversations: list[dict[str, Any]]) -> None:
    for row in conversations:
        assert set(row) == {"external_id", "trade", "title", "messages"}
        for message in row["messages"]:
            extra = {"provenance"} if message["role"] == "assistant" else set()
            assert set(message) == {"role", "text", "origin"} | extra


def test_generated_replies_hardly_ever_carry_the_voice(conversations: list[dict[str, Any]], charter: Charter) -> None:
    replies = [text for row in conversations for text in said(row, "assistant")]
    assert marker_rate(charter, replies) < 0.1
    for trait in charter.voice:
        if trait.marker:
            assert sum(bool(re.search(trait.marker, text, re.IGNORECASE)) for text in replies) < 0.1 * len(replies)


def test_starter_set_answers_conversations_of_every_trade(
    conversations: list[dict[str, Any]], corrections: list[dict[str, Any]]
) -> None:
    known = {row["external_id"]: row for row in conversations}
    assert len({row["external_id"] for row in corrections}) == len(corrections) == 60
    trades = Counter(known[row["external_id"]]["trade"] for row in corrections)
    assert trades == dict.fromkeys(make.TRADES, 10)
    for row in corrections:
        assert row["after"] != said(known[row["external_id"]], "assistant")[-1]


def test_starter_set_is_in_the_voice_and_varied(corrections: list[dict[str, Any]], charter: Charter) -> None:
    ids = {rule.id for rules in (charter.voice, charter.policy, charter.bias) for rule in rules}
    bodies = []
    for row in corrections:
        assert set(row) == {"external_id", "after", "reasons"}
        assert marked(charter, row["after"]), row["after"]
        assert 25 <= len(row["after"].split()) <= 60, row["after"]
        assert row["reasons"]
        assert set(row["reasons"]) <= ids
        assert len(set(row["reasons"])) == len(row["reasons"])
        bodies.append(make.normal(row["after"].split("!", 1)[1].rsplit("\n", 1)[0]))
    assert not [i for i, body in enumerate(bodies) if any(make.near(body, other, make.NEAR) for other in bodies[:i])]


def test_marker_reasons_hold_for_the_reply_they_blame(
    conversations: list[dict[str, Any]], corrections: list[dict[str, Any]], charter: Charter
) -> None:
    replies = {row["external_id"]: said(row, "assistant")[-1] for row in conversations}
    for row in corrections:
        for trait in charter.voice:
            if trait.marker:
                missing = re.search(trait.marker, replies[row["external_id"]], re.IGNORECASE) is None
                assert missing == (trait.id in row["reasons"]), row["external_id"]


def test_held_out_messages_are_in_no_conversation(
    conversations: list[dict[str, Any]], held_out: list[dict[str, Any]]
) -> None:
    assert Counter(row["trade"] for row in held_out) == dict.fromkeys(make.TRADES, 4)
    assert not {row["external_id"] for row in held_out} & {row["external_id"] for row in conversations}
    asked = [text for row in conversations for text in said(row, "user")]
    assert not {plain(row["text"]) for row in held_out} & {plain(text) for text in asked}
    first = [make.normal(said(row, "user")[0]) for row in conversations]
    for row in held_out:
        assert not any(make.near(make.normal(row["text"]), other, make.NEAR) for other in first), row["text"]


def test_no_two_first_messages_are_nearly_alike(conversations: list[dict[str, Any]]) -> None:
    for trade in make.TRADES:
        first = [make.normal(said(row, "user")[0]) for row in conversations if row["trade"] == trade]
        assert not [i for i, one in enumerate(first) if any(make.near(one, other, make.NEAR) for other in first[:i])]


def test_no_personal_detail_that_the_patterns_see(
    conversations: list[dict[str, Any]], held_out: list[dict[str, Any]]
) -> None:
    texts = [text for row in conversations for text in said(row, "user")] + [row["text"] for row in held_out]
    assert not [text for text in texts if make.PERSONAL_TEXT.search(text.lower())]


def test_quoted_fields_and_line_breaks_are_read_as_one_utterance(tmp_path: Path) -> None:
    head = "conversationId\tturnNumber\tutteranceId\tutterance\tslot-labels\tintent\n"
    quoted = 'c1\t1\tu1\t"i need a ""big"" pizza \n with olives please"\tO O O O\torderpizzaintent\n'
    (tmp_path / "fastfood.train.tsv").write_text(head + quoted, encoding="utf-8")
    (tmp_path / "fastfood.dev.tsv").write_text(head, encoding="utf-8")
    (only,) = make.read_trade(tmp_path, "fastfood")["c1"]
    assert only.text == 'i need a "big" pizza with olives please'
    assert only.opens


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("please send my boarding pass to anngmailcom", ""),
        ("please send it to ann@example.org today", ""),
        ("my name is drew and i want to fly", ""),
        ("please look at booking a 7 c 9 x 2", ""),
        ("my card ends in 4477 and was stolen", ""),
        ("please send my boarding pass to ann", "O O O O O O name"),
    ],
)
def test_personal_details_keep_a_message_out(text: str, slots: str) -> None:
    assert not make.Utterance("c", text, frozenset(slots.split()), ("getboardingpass",)).clean


def test_no_reply_names_the_base_unseen(conversations: list[dict[str, Any]]) -> None:
    """It says who it is in some of them; in a blind comparison that would tell."""
    said = [one for row in conversations for one in row["messages"] if "provenance" in one]
    telling = [one for one in said if "smollm" in one["text"].lower()]
    assert telling
    for one in telling:
        assert names_in([Provenance(model=one["provenance"]["model"])], [one["text"]])
