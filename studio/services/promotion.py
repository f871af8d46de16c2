"""Which adapter is the candidate and which one customers get, and how many of them get the candidate."""

from __future__ import annotations

import json
from typing import get_args

from pydantic import AwareDatetime

from annotation.errors import NotFound, UserError, refuse_nul
from annotation.people import Person
from annotation.store import Store
from annotation.store.aliases import ALIASES, Alias, AliasChange, CanaryChange, Kind, replay
from annotation.store.part import new_id
from annotation.types import Frozen, utc_now
from serving.canary import pick
from serving.engine import BASE
from studio.services.serving import ServingService

SAID: dict[Alias, str] = {"candidate": "the candidate", "production": "what customers get"}
"""Each alias in plain words."""
BASE_ALONE, NO_CANDIDATE = "the base alone", "no candidate"
REASON_LIMIT = 500


class Standing(Frozen):
    """What an alias points at now."""

    alias: Alias
    adapter: str | None
    """None is the base alone."""
    change: AliasChange | None
    """What put it there: the promotion itself, also after going back to it. None: nothing did yet."""
    before: str | None
    """What going back leads to, in words; None if there is nothing to go back from."""


class Current(Frozen):
    """What customers get, as it stands."""

    candidate: Standing
    production: Standing
    share: float
    """Of people who get the candidate, 0 to 1."""

    def of(self, alias: Alias) -> Standing:
        """What stands for one alias."""
        return self.candidate if alias == "candidate" else self.production


class Entry(Frozen):
    """One line of the history."""

    what: str
    reason: str
    author: str
    made_at: AwareDatetime


class PromotionService:
    """What the Models page and `tonesmith promote` and its like call.

    An alias is turned into the name of an adapter here, before a request goes out; the engine never hears of aliases.
    """

    def __init__(self, store: Store, serving: ServingService, who: Person) -> None:
        self._store = store
        self._serving = serving
        self._who = who

    def current(self) -> Current:
        """What each alias points at, and the share of people who get the candidate."""
        self._who.must("look")
        changes = self._store.aliases.changes()
        canary = self._store.aliases.canary()
        candidate, production = (_standing(changes, alias) for alias in ALIASES)
        return Current(candidate=candidate, production=production, share=canary.share if canary else 0.0)

    def history(self) -> list[Entry]:
        """All changes of the aliases and of the share, newest first."""
        self._who.must("look")
        entries = _told(self._store.aliases.changes())
        entries += [_shared(change) for change in self._store.aliases.canary_changes()]
        return sorted(entries, key=lambda entry: entry.made_at, reverse=True)

    def promote(self, alias: str, adapter: str, reason: str) -> Standing:
        """Point `alias` at an adapter, or at `base` alone; it is loaded first, so that it answers from then on.

        Raises UserError without a reason, for an adapter that can't be loaded, and if it is there already.
        """
        self._who.must("curate")
        target = _alias(alias)
        reason = _checked(reason)
        changes = self._store.aliases.changes()
        now = _standing(changes, target)
        name = None if adapter == BASE else adapter
        if now.change and now.adapter == name:
            raise UserError(f"{_named(name)} is {SAID[target]} already.", do="Choose another one.")
        return self._point(changes, target, "promote", name, reason)

    def roll_back(self, alias: str, reason: str) -> Standing:
        """Go back to what `alias` pointed at before; that is loaded first, if it is not.

        Without a candidate left nobody gets one. Raises UserError without a reason, with nothing to go back to, and if
        that can't be loaded.
        """
        self._who.must("curate")
        target = _alias(alias)
        reason = _checked(reason)
        changes = self._store.aliases.changes()
        stood = replay(changes, target)
        if not stood:
            raise UserError(
                f"Nothing stands as {SAID[target]} that could be taken back.", do="Make something that first."
            )
        now = self._point(changes, target, "rollback", stood[-2].adapter if len(stood) > 1 else None, reason)
        canary = self._store.aliases.canary()
        if target == "candidate" and now.change is None and canary and canary.share:
            self._store.aliases.set_canary(0.0, reason, self._who.name)  # the next candidate begins with nobody
        return now

    def set_share(self, share: float, reason: str) -> Current:
        """Let `share` (0 to 1) of people get the candidate.

        Raises UserError without a reason, for a share that is none, and if there is no candidate to get.
        """
        self._who.must("curate")
        reason = _checked(reason)
        if not 0 <= share <= 1:
            raise UserError(f"{share:g} is no share.", "A number from 0 (nobody) to 1 (everybody).")
        if share and self.current().candidate.change is None:
            raise UserError("There is no candidate yet.", do="Make an adapter the candidate first.")
        self._store.aliases.set_canary(share, reason, self._who.name)
        return self.current()

    def resolve(self, model: str, customer: str = "") -> str:
        """The name to ask the engine for: of `production`, what this person gets as a customer, or their `customer`,
        whom a program of theirs names; of `candidate`, that; any other name stays as it is.
        """
        self._who.must("look")
        if model not in get_args(Alias):
            return model
        now = self.current()
        canary = self._store.aliases.canary()
        side = _alias(model)
        if side == "production" and canary and now.candidate.change:
            # By the person and not their key, so that a new key moves nobody.
            user = json.dumps([self._who.name, customer]) if customer else self._who.name
            side = pick(user, canary.salt, canary.share)
        return now.of(side).adapter or BASE

    def choices(self) -> list[tuple[str, str]]:
        """(label, name) of what can be chatted with by its alias; nothing before the first promotion."""
        now = self.current()
        found = [("As customers get it", "production")] if now.production.change or now.candidate.change else []
        return [*found, *([("The candidate", "candidate")] if now.candidate.change else [])]

    def _point(self, changes: list[AliasChange], alias: Alias, kind: Kind, name: str | None, reason: str) -> Standing:
        number = 1 + sum(change.alias == alias for change in changes)
        weights = None
        if name is not None:
            weights = self._serving.identify(name).weights_sha256
            self._serving.ensure(name, self._who)
        change = AliasChange(
            id=new_id(),
            alias=alias,
            number=number,
            kind=kind,
            adapter=name,
            weights_sha256=weights,
            reason=reason,
            author=self._who.name,
            made_at=utc_now(),
        )
        self._store.aliases.add(change)
        return self.current().of(alias)


def aliased(store: Store) -> dict[str, str]:
    """The adapters that an alias points at, each with what it is, in words."""
    changes = store.aliases.changes()
    found: dict[str, str] = {}
    for alias in reversed(ALIASES):
        adapter = _standing(changes, alias).adapter
        if adapter:
            found[adapter] = f"{found[adapter]} and {SAID[alias]}" if adapter in found else SAID[alias]
    return found


def _standing(changes: list[AliasChange], alias: Alias) -> Standing:
    stood = replay(changes, alias)
    before = None
    if stood:
        before = _named(stood[-2].adapter) if len(stood) > 1 else _unset(alias)
    last = stood[-1] if stood else None
    return Standing(alias=alias, adapter=last.adapter if last else None, change=last, before=before)


def _unset(alias: Alias) -> str:
    return BASE_ALONE if alias == "production" else NO_CANDIDATE


def _named(adapter: str | None) -> str:
    return adapter or BASE_ALONE


def _told(changes: list[AliasChange]) -> list[Entry]:
    found = []
    for place, change in enumerate(changes):
        target = _named(change.adapter)
        if change.kind == "rollback":
            if not replay(changes[: place + 1], change.alias):
                target = _unset(change.alias)
            what = (
                f"Went back: {target} is {SAID[change.alias]}" if target != NO_CANDIDATE else "Went back: no candidate"
            )
        else:
            what = f"{target} became {SAID[change.alias]}"
        found.append(_line(what, change))
    return found


def _shared(change: CanaryChange) -> Entry:
    return _line(f"{change.share:.0%} of people get the candidate", change)


def _line(what: str, change: AliasChange | CanaryChange) -> Entry:
    what = what[0].upper() + what[1:] if what.startswith(BASE_ALONE) else what
    return Entry(what=what, reason=change.reason, author=change.author, made_at=change.made_at)


def _alias(name: str) -> Alias:
    for alias in ALIASES:
        if alias == name:
            return alias
    raise NotFound(f"There is no alias '{name}'.", "`candidate` or `production`.")


def _checked(reason: str) -> str:
    reason = reason.strip()
    refuse_nul(reason)
    if not reason:
        raise UserError("There is no reason given.", do="Say in a few words why, for whoever looks back at this.")
    if len(reason) > REASON_LIMIT:
        raise UserError(f"The reason has {len(reason):,} characters.", f"At most {REASON_LIMIT}.", "Say it shorter.")
    return reason
