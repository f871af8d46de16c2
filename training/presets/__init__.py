"""The shipped presets: TOML files written by hand, beside this file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from annotation.types import Frozen
from training.types import Recipe, SftConfig


class Preset(Frozen):
    """A named recipe, with words for people."""

    name: str
    order: int
    """Place in lists; the quickest first."""
    title: str
    about: str
    recipe: Recipe

    def config(self, **run: Any) -> SftConfig:
        """The recipe joined with what is particular to one run (fields of `SftConfig`)."""
        return SftConfig(preset=self.name, **self.recipe.model_dump(), **run)


def load_presets(folder: Path = Path(__file__).parent) -> list[Preset]:
    """All presets of `folder`, the quickest first. Raises pydantic's ValidationError for a file that is wrong."""
    files = [(path.stem, tomllib.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.toml")]
    return sorted((Preset(name=name, **fields) for name, fields in files), key=lambda preset: preset.order)
