"""The charters that come with Tonesmith: sound, and with patterns that find what they should and no more."""

from __future__ import annotations

import pytest

from annotation.charter import (
    marked,
    parse_markdown,
    parse_toml,
    problems_of,
    read_charter,
    suggest,
    system_prompt,
    write_markdown,
    write_toml,
)
from annotation.charter.patterns import search
from annotation.types import Charter
from studio.charter_examples import FOLDER, shipped

EXAMPLES = {name: read_charter(path) for name, path in shipped().items()}

GOOD = {
    "shop": [
        "I can't promise a refund before I've looked at the order, but I can check it now.",
        "Nobody here will ever ask for your password or your PIN. Please don't send me your card number.",
        "I've sent a reset link. Once the new password is set, log in again.",
        "You don't need to contact the carrier, I'll do that.",
        "Please don't click the link in that email to see if it's real. It may be a scam.",
        "Just click the link in the email we sent you and choose a password.",
        "A manager always looks at these and will call you.",
        "What's your order number? And what's your name?",
        "Your refund depends on the membership. Would you give me your email address?",
    ],
    "bank": [
        "We'll never ask you to move your money to a safe account.",
        "I can't say whether that text was from us. Please don't follow its link.",
        "I can't advise you in chat, but I can explain how the two savers differ.",
        "I can't tell you whether you'll be approved; that depends on an application.",
        "Please enter your passcode in the app, never here. Please don't tell anyone your PIN.",
        "Please don't give me your date of birth here.",
        "We can't promise a rate: it can change.",
        "I'm sorry about that. I'd like to record this as a complaint. You should get a letter within eight weeks.",
        "You should call the number on the back of your card.",
    ],
    "public-service": [
        "The judge will rule on your case after the hearing. I can't say whether you would win.",
        "If your neighbor has filed a complaint, the office writes to you.",
        "Please don't send us your social security number here. The secure form asks for it.",
        "You must vote for no more than two people, and please vote no later than 8 p.m.",
        "We can't guarantee a date. We can't say when your application will be approved.",
        "If you qualify, some fees don't apply. You can apply online, by mail or in person.",
        "If you miss the date, you can't appeal any more, so please send it by Friday.",
        "You don't need to contact another office. We'll pass it on.",
        "The council decides in May. The fee for the form is on the permits page.",
        "You need to plead or ask for more time by the date on the letter. Legal aid can tell you what that means.",
    ],
}
"""Ordinary replies that come close to what a pattern looks for, and are fine."""


def test_three_are_shipped_with_where_they_come_from() -> None:
    assert list(shipped()) == ["bank", "public-service", "shop"]
    said = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(path.name in said for path in shipped().values())
    assert "Copyright (c) 2021 ASAPP Research" in said


@pytest.mark.parametrize("charter", EXAMPLES.values(), ids=EXAMPLES)
def test_it_is_whole(charter: Charter) -> None:
    assert problems_of(charter) == ()
    assert charter.purpose
    assert charter.languages
    assert 5 <= len(charter.voice) <= 7
    assert 7 <= len(charter.policy) <= 10
    assert 4 <= len(charter.bias) <= 5
    assert all(trait.dos and trait.donts and trait.examples for trait in charter.voice)
    assert all(clause.violations for clause in charter.policy)
    assert all(len(axis.groups) > 1 for axis in charter.bias)
    assert parse_toml(write_toml(charter), "it") == charter
    assert parse_markdown(write_markdown(charter), "it") == charter
    assert len(system_prompt(charter, limit_words=1000).split()) <= 1000


@pytest.mark.parametrize("charter", EXAMPLES.values(), ids=EXAMPLES)
def test_patterns_find_their_own_violations_and_no_good_reply(charter: Charter) -> None:
    for clause in charter.policy:
        if clause.pattern is not None:
            assert [text for text in clause.violations if not search(clause.pattern, text)] == []
    examples = [example for trait in charter.voice for example in trait.examples]
    assert [finding for example in examples for finding in suggest(charter, example)] == []
    assert all(marked(charter, example) for example in examples)


@pytest.mark.parametrize("name", EXAMPLES)
def test_patterns_leave_ordinary_replies_alone(name: str) -> None:
    dos = [do for trait in EXAMPLES[name].voice for do in trait.dos]
    found = [finding for reply in (*GOOD[name], *dos) for finding in suggest(EXAMPLES[name], reply)]
    assert [finding for finding in found if finding.question == "policy"] == []


@pytest.mark.parametrize("charter", EXAMPLES.values(), ids=EXAMPLES)
def test_no_pattern_takes_long(charter: Charter) -> None:
    patterns = [trait.marker for trait in charter.voice] + [clause.pattern for clause in charter.policy]
    for pattern in patterns:
        for text in (
            "a " * 5000,
            "\n" * 10_000,
            "please tell me your " * 500,
            "I promise manager form the office " * 300,
        ):
            if pattern is not None:
                search(pattern, text, 50)
