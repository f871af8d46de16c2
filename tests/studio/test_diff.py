"""The word difference, for any text there is."""

from __future__ import annotations

from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from studio.parts.diff import diff_html, words_changed


@given(st.text(), st.text())
def test_without_the_added_it_is_before_and_without_the_removed_it_is_after(before: str, after: str) -> None:
    changes = words_changed(before, after)
    assert "".join(text for kind, text in changes if kind != "added") == before
    assert "".join(text for kind, text in changes if kind != "removed") == after


def test_whole_words_change() -> None:
    assert words_changed("The red car.", "The blue car.") == [
        ("same", "The "),
        ("removed", "red"),
        ("added", "blue"),
        ("same", " car."),
    ]


def test_markup_in_a_reply_is_text() -> None:
    html = diff_html("<script>x</script>", "<b>y</b>")
    assert "<script>" not in html
    assert "<b>" not in html
    assert "script" in unescape(html)


def test_a_long_text_of_many_words_survives_the_encoding() -> None:
    """More different words than there are characters before and after the surrogates, and characters from there."""
    before = " ".join(f"w{number}\U0001f642" for number in range(70_000))
    after = before.replace("w54000\U0001f642", "\ud7ff").replace("w56000", "\U0010ffff").replace("w69999", "ŵ")
    changes = words_changed(before, after)
    assert "".join(text for kind, text in changes if kind != "added") == before
    assert "".join(text for kind, text in changes if kind != "removed") == after
    assert [text for kind, text in changes if kind == "added"] == ["\ud7ff", "\U0010ffff", "ŵ"]
