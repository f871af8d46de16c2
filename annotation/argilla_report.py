"""What a sync with Argilla says: how far it is, what it did, what it repaired, and where each dataset stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from annotation.argilla_client import Unreachable
from annotation.errors import UserError
from annotation.types import Frozen


class Progress(Frozen):
    """How far a sync is."""

    what: str
    done: int
    total: int
    """0 where nobody knows."""


@dataclass
class Summary:
    """What a sync did."""

    pushed: int = 0
    """Replies put into Argilla or changed there."""
    removed: int = 0
    """Records taken out, since nobody need look at them there any more."""
    pulled: int = 0
    """Responses kept here as judgements."""
    passed: int = 0
    """Responses that were discarded there: left to a colleague here."""
    begun: int = 0
    """Drafts there that are new or changed. They are kept here as they are, and are nobody's answer yet."""
    shown: int = 0
    """Answers of our desk shown there."""
    failed: int = 0
    """What could not be brought over this time; `failures` has the reasons."""
    without_account: set[str] = field(default_factory=set)
    """Who judged here and is not known there, so that Argilla does not show their answers."""
    not_counted: set[str] = field(default_factory=set)
    """Who answered there and may not judge here. Their answers are kept, and count once they may."""
    cancelled: bool = False


@dataclass
class Repairs(Summary):
    """What a full comparison found to differ, and put right."""

    missing: int = 0
    """Records that were deleted there by hand."""
    altered: int = 0
    """Records that said something else there."""
    reworded: int = 0
    """Guidelines and questions that were put in other words there by hand."""
    stale: int = 0
    """Records whose state (pending, completed) Argilla had not worked out, and is asked to work out anew; it does so
    by itself too, while its worker is at it.
    """
    foreign: int = 0
    """Records there that are none of ours; they are left alone."""
    gone: int = 0
    """Responses that are no longer there; what they said is kept here."""
    datasets: list[str] = field(default_factory=list)
    """Datasets that were deleted there, by name; what is still open was put into a new one."""

    @property
    def nothing(self) -> bool:
        """Whether both sides were alike, states of records too."""
        return self.nothing_moved and not self.stale

    @property
    def nothing_moved(self) -> bool:
        """Whether all was alike but for states that Argilla may be about to work out."""
        moved = self.pushed or self.removed or self.pulled or self.passed or self.begun or self.shown or self.failed
        return not (moved or self.missing or self.altered or self.reworded or self.gone or self.datasets)


class DatasetProgress(Frozen):
    """Where one dataset stands."""

    name: str
    charter_version: int
    there: int
    waiting: int
    pulled: int
    begun: int
    failed: int
    shortened: bool
    """Whether the guidelines there leave out some of the charter, for its length."""


Report = Callable[[Progress], None]
Asked = Callable[[], bool]


class Cancelled(Exception):
    """Somebody asked to stop; what was done is kept."""


@dataclass
class Run:
    """One sync on its way: what it did so far, and whom it tells."""

    summary: Summary = field(default_factory=Summary)
    report: Report = lambda progress: None
    cancelled: Asked = lambda: False
    users: dict[str, str] = field(default_factory=dict)
    """Names of the people in Argilla, by their id there."""
    judges: frozenset[str] = frozenset()
    """Who may judge here."""
    troubles: list[UserError] = field(default_factory=list)
    """What went wrong on the way while the rest went on."""

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """What goes wrong inside is said at the end. Where Argilla does not answer, nothing after it could go well."""
        try:
            yield
        except Unreachable:
            raise
        except UserError as error:
            self.troubles.append(error)

    def end(self) -> None:
        """Raises UserError with all that went wrong on the way."""
        met = list({str(one): one for one in self.troubles}.values())
        if len(met) == 1:
            raise met[0]
        if met:
            said = (" ".join(dict.fromkeys(getattr(one, part) for one in met)) for part in ("found", "wanted", "do"))
            raise UserError(*said)

    def tell(self, what: str, done: int, total: int) -> None:
        """Report, and end here if somebody asked to stop: raises Cancelled."""
        if self.cancelled():
            raise Cancelled
        self.report(Progress(what=what, done=done, total=total))
