"""Two replies side by side and the four answers to 'which is better', shared by Compare and Experiments."""

from __future__ import annotations

from html import escape

from annotation.types import Outcome

VOTES: tuple[tuple[str, Outcome, str], ...] = (
    ("Left is better", "left", "1"),
    ("About the same", "tie", "2"),
    ("Both are bad", "both_bad", "3"),
    ("Right is better", "right", "4"),
)
NAMES = {"left": "Left", "right": "Right"}
KEYS = """
const typing = 'textarea, input:not([type=radio]):not([type=checkbox])';
const press = (event) => {
  if (!document.body.contains(element)) { document.removeEventListener('keydown', press); return; }
  if (event.target.matches?.(typing) || event.ctrlKey || event.metaKey || event.altKey) return;
  const vote = { 1: 'left', 2: 'tie', 3: 'both_bad', 4: 'right' }[event.key];
  if (vote) document.querySelector(`#ts-vote-${vote}`)?.click();
};
document.addEventListener('keydown', press);
"""
"""Keys 1 to 4 press the buttons `ts-vote-…`, except while somebody types."""


def pane(side: str, text: str = "", who: str = "", won: bool = False) -> str:
    """One pane. `who` is HTML and names the weights: never before the vote."""
    said = f'<div class="ts-text" dir="auto">{escape(text)}</div>' if text else '<div class="ts-wait">…</div>'
    return (
        f'<section class="ts-side{" ts-won" if won else ""}" aria-label="{NAMES[side]} reply">'
        f"<h3>{NAMES[side]}{who}</h3>{said}</section>"
    )
