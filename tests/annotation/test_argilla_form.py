"""Places in a text: ours in code points, those of Argilla's page in UTF-16 units."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from annotation.argilla_form import _mark, _place, padded
from annotation.types import Span

TEXT = st.text(alphabet=st.sampled_from("aé語👋🏽\n 🎉"), min_size=1, max_size=20)


@given(TEXT, st.data())
def test_a_place_is_the_same_after_a_way_there_and_back(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    span = Span(start=start, end=data.draw(st.integers(start + 1, len(text))))
    mark = _mark(text, "voice", span)
    assert _place(text, mark) == (span.start, span.end)
    assert text.encode("utf-16-le")[2 * mark["start"] : 2 * mark["end"]].decode("utf-16-le") == text[start : span.end]
    assert mark["end"] <= len(padded(text))  # what Argilla's server asks of it
    assert padded(text).rstrip(" ") == text.rstrip(" ")


def test_half_a_character_counts_as_all_of_it() -> None:
    text = "a👋b"
    assert _place(text, {"start": 2, "end": 3}) == (1, 2)
    assert _place(text, {"start": 0, "end": 2}) == (0, 2)
    assert _place(text, {"start": 3, "end": 9}) == (2, 3)
