"""Text on its way into a chat bubble and out of its edit box."""

from __future__ import annotations

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from studio.parts.bubble import shown, typed

TEXT = st.text() | st.text(alphabet="&lt;amp<b>/#3 ")


@given(TEXT)
def test_what_goes_in_comes_out(text: str) -> None:
    assert typed(shown(text)) == text


@given(TEXT)
def test_nothing_is_left_that_a_browser_would_take_for_a_tag(text: str) -> None:
    assert re.search(r"<[a-zA-Z/!?]", shown(text)) is None


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("Juniper & Pine", "a < b", "5 > 3", "AT&T"):
        assert shown(text) == text
    assert unescape(shown("<b>&amp;</b>")) == "<b>&amp;</b>"
