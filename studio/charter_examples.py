"""The charters that come with Tonesmith, to start one's own from."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "charters"


def shipped() -> dict[str, Path]:
    """Name of each example (`bank`, `public-service`, `shop`), in that order, and its file for `read_charter`."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
