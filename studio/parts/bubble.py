"""Text for Gradio's chat bubbles, which take it for HTML: what would be read as markup is written so that it shows."""

from __future__ import annotations

import re


def shown(text: str) -> str:
    """`text` with each `<` that would begin a tag, and each `&` that would begin an entity, escaped; others stay, so
    that ordinary text looks the same in the bubble's edit box.
    """
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", text))


def typed(text: str) -> str:
    """What was meant by text out of a bubble's edit box: the reverse of `shown`."""
    return text.replace("&lt;", "<").replace("&amp;", "&")
