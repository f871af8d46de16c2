"""What other programs ask of the models, in the name of the person whose key they hold. Nothing of it is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import httpx

from annotation.errors import NotFound
from annotation.people import Person
from annotation.types import Frozen
from serving.api import PATHS, Drawing
from serving.engine import BASE
from studio.services.promotion import PromotionService
from studio.services.serving import ServingService


class Served(Frozen):
    """A model that can be asked for by name."""

    name: str
    parent: str | None
    """The model it stands on; None for the base."""
    made_at: datetime | None
    """When it was made, or chosen; None where that is not known."""


class ApiService:
    """What the studio's own OpenAI-compatible address calls."""

    def __init__(self, serving: ServingService, promotion: PromotionService, who: Person) -> None:
        self._serving = serving
        self._promotion = promotion
        self._who = who

    def models(self) -> list[Served]:
        """The base, what customers get, the candidate if there is one, and the loaded adapters, newest first."""
        self._who.must("look")
        now = self._promotion.current()
        named = [
            (standing.alias, standing.change.made_at if standing.change else None)
            for standing in (now.production, now.candidate)
            if standing.change or standing.alias == "production"
        ]
        loaded = [(view.name, view.created_at) for view in self._serving.adapters() if view.loaded]
        return [
            Served(name=BASE, parent=None, made_at=None),
            *(Served(name=name, parent=BASE, made_at=made_at) for name, made_at in (*named, *loaded)),
        ]

    def resolve(self, model: str, customer: str = "") -> str:
        """The name of what will answer, as `PromotionService.resolve` has it. Raises NotFound if it is to be the
        candidate and there is none.
        """
        self._who.must("judge")
        if model == "candidate" and self._promotion.current().candidate.change is None:
            raise NotFound("There is no candidate.", "`production`, `base`, or an adapter's name.")
        return self._promotion.resolve(model, customer)

    @asynccontextmanager
    async def answered(self, asked: Drawing, model: str) -> AsyncIterator[httpx.Response]:
        """The answer of `model` (as `resolve` gave it) as it begins to come; see `ServingService.answered`."""
        self._who.must("judge")
        async with self._serving.answered(PATHS[type(asked)], asked.body(model)) as response:
            yield response
