"""Small drawings as SVG: readable without a mouse, and by a screen reader."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, ROW, LEFT, RIGHT = 640, 34, 210, 60
LONGEST = 27
"""Letters of a name that fit before the line; the whole of it stands in its title."""


def intervals(rows: Sequence[tuple[str, float | None, float | None, float | None]], caption: str) -> str:
    """One line a row: (name, value, low, high), all from 0 to 1; a row without a value has its name alone."""
    span = WIDTH - LEFT - RIGHT
    height = ROW * len(rows) + 30

    def at(value: float) -> float:
        return LEFT + span * min(1.0, max(0.0, value))

    grid = "".join(
        f'<line x1="{at(tick):.0f}" x2="{at(tick):.0f}" y1="6" y2="{height - 22}" class="ts-grid"/>'
        f'<text x="{at(tick):.0f}" y="{height - 6}" text-anchor="middle" class="ts-tick">{tick:g}</text>'
        for tick in (0, 0.2, 0.4, 0.6, 0.8, 1)
    )
    marks = []
    for number, (name, value, low, high) in enumerate(rows):
        y = ROW * number + 22
        marks.append(f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end">{_fitting(name)}</text>')
        if value is None:
            marks.append(f'<text x="{LEFT + 8}" y="{y + 4}" class="ts-tick">undefined</text>')
            continue
        if low is not None and high is not None:
            marks.append(f'<line x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{y}" y2="{y}" class="ts-whisker"/>')
        marks.append(f'<circle cx="{at(value):.1f}" cy="{y}" r="5.5" class="ts-dot"/>')
        marks.append(f'<text x="{WIDTH - RIGHT + 14}" y="{y + 4}">{value:.2f}</text>')
    label = escape(caption, quote=True)
    return (
        f'<figure class="ts-plot"><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
        f"{grid}{''.join(marks)}</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _fitting(name: str) -> str:
    if len(name) <= LONGEST:
        return escape(name)
    return f"<title>{escape(name)}</title>{escape(name[: LONGEST - 1].rstrip())}…"
