"""Argilla as a second desk: our own server or somebody else's, and what goes back and forth."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Literal

from pydantic import ValidationError

from annotation.argilla_client import Argilla
from annotation.argilla_server import WORKSPACE, ArgillaServer
from annotation.argilla_sync import ArgillaSync, DatasetProgress, Progress, Repairs, Summary
from annotation.errors import Conflict, UserError
from annotation.files import write_whole
from annotation.people import Person
from annotation.store import Store
from annotation.types import Frozen
from studio.settings import Settings

log = logging.getLogger("tonesmith.argilla")
EVERY_SECONDS = 20.0
"""Between two looks for new answers, while connected."""


class Connection(Frozen):
    """`argilla.json`: which Argilla this project works with."""

    url: str
    """'' for the server of our own."""
    api_key: str = ""


class ArgillaView(Frozen):
    """Where things stand with Argilla, for people."""

    connected: bool
    own: bool = False
    url: str = ""
    label: str
    detail: str = ""
    tone: Literal["good", "busy", "bad", "quiet"] = "quiet"
    datasets: tuple[DatasetProgress, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    """(reply, reason)."""
    progress: Progress | None = None
    """Of the sync under way."""
    last: str = ""
    """What the last sync did."""


class ArgillaService:
    """What the Argilla page and `tonesmith argilla` call. A sync runs in a thread of the studio: closing the page does
    not stop it, and a kill does no harm since the next one goes on from there.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._file = settings.home / "argilla.json"
        self._server = ArgillaServer(settings.home, settings.cache)
        self._one = Lock()
        self._stop, self._cancel, self._wake = Event(), Event(), Event()
        self._progress: Progress | None = None
        self._trouble: UserError | None = None
        self._last = ""
        self._thread: Thread | None = None

    # Connecting

    def up(self, by: Person, report: Callable[[str], None] = lambda line: None) -> dict[str, str]:
        """Start our own server, make accounts for everybody who judges, and work with it from now on; returns the first
        passwords of the new accounts. Raises UserError.
        """
        by.must("manage")
        self._server.ensure(report)
        made = self._server.add_people(self._store.people.all())
        self._keep(Connection(url=""))
        return made

    def attach(self, by: Person, url: str, api_key: str) -> str:
        """Work with an Argilla that runs elsewhere; returns its version. Raises UserError if it can't be used."""
        by.must("manage")
        client = Argilla(url.strip(), api_key.strip(), WORKSPACE)
        try:
            version = client.check()
        finally:
            client.close()
        self._keep(Connection(url=url.strip().rstrip("/"), api_key=api_key.strip()))
        return version

    def down(self, by: Person) -> None:
        """Stop our own server. What was judged there is here already, or comes at the next sync."""
        by.must("manage")
        self._server.stop()

    def leave(self, by: Person) -> Summary | None:
        """Fetch what is new one last time, then work without Argilla; everything that was said there is in our store.

        Raises UserError if Argilla does not answer: start it, or it would be left with answers nobody has.
        """
        by.must("manage")
        summary = self.sync(by) if self._connection() else None
        self._file.unlink(missing_ok=True)
        if (self._settings.home / "argilla").exists():
            self._server.stop()
        return summary

    def passwords(self, by: Person) -> dict[str, str]:
        """First passwords of the accounts we made in our own server."""
        by.must("manage")
        return dict(self._server.keys.people)

    # Syncing

    def sync(
        self,
        by: Person,
        report: Callable[[Progress], None] = lambda progress: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Summary:
        """Bring over what is new on either side, now. Raises UserError; Conflict if one is under way in this studio."""
        by.must("curate")
        return self._run(lambda one: one.sync(report, cancelled))

    def reconcile(self, by: Person, report: Callable[[Progress], None] = lambda progress: None) -> Repairs:
        """Compare everything with everything and put right what differs. Raises UserError."""
        by.must("curate")
        repairs = self._run(lambda one: one.reconcile(report))
        assert isinstance(repairs, Repairs)
        return repairs

    def retry(self, by: Person) -> int:
        """Let the next sync try again what failed; returns how much that is."""
        by.must("curate")
        client = self._client()
        try:
            number = ArgillaSync(self._store, client).retry()
        finally:
            client.close()
        self._wake.set()
        return number

    def sync_soon(self, by: Person | None = None) -> None:
        """Let the studio's own thread look now. Without a person: Argilla itself has told us of something new."""
        if by is not None:
            by.must("curate")
        self._wake.set()

    def cancel(self, by: Person) -> None:
        """Stop the sync under way; what it did is kept."""
        by.must("curate")
        self._cancel.set()

    def start(self) -> None:
        """In the studio: keep both sides alike, in the background, for as long as a connection is kept."""
        self._thread = Thread(target=self._follow, name="argilla", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the following; Argilla itself goes on."""
        self._stop.set()
        self._cancel.set()
        self._wake.set()
        if self._thread:
            self._thread.join(timeout=10)

    def _follow(self) -> None:
        while not self._stop.is_set():
            if self._connection() is not None:
                self._once()
            self._wake.wait(EVERY_SECONDS)
            self._wake.clear()

    def _once(self) -> None:
        def report(progress: Progress) -> None:
            self._progress = progress

        try:
            self._cancel.clear()
            summary = self._run(lambda one: one.sync(report, self._cancel.is_set))
            self._trouble = None
            self._last = in_words(summary) or self._last
        except Conflict:
            pass  # somebody is at it from a button
        except UserError as error:  # shown on the page; the next look may find it mended
            log.warning("%s", error)
            self._trouble = error
        finally:
            self._progress = None

    def _run(self, work: Callable[[ArgillaSync], Summary]) -> Summary:
        if not self._one.acquire(blocking=False):
            raise Conflict("A sync is under way already.", do="Wait for it, or cancel it.")
        try:
            client = self._client()
            try:
                return work(ArgillaSync(self._store, client))
            finally:
                client.close()
        finally:
            self._one.release()

    # Looking

    def view(self) -> ArgillaView:
        """Where things stand, without asking Argilla for more than its health."""
        connection = self._connection()
        if connection is None:
            return ArgillaView(
                connected=False, label="Argilla is not used", detail="Reviewers who prefer it can label there instead."
            )
        own = not connection.url
        url = self._server.url if own else connection.url
        if self._progress is not None:
            done = f"{self._progress.done:,} of {self._progress.total:,}" if self._progress.total else ""
            return self._view(own, url, f"{self._progress.what} {done}".strip().capitalize(), "", "busy")
        if self._trouble is not None:
            detail = " ".join(part for part in (self._trouble.wanted, self._trouble.do) if part)
            return self._view(own, url, self._trouble.found.rstrip("."), detail, "bad")
        if own and self._server.status().state != "ready":
            return self._view(own, url, "Argilla is not running", "Start it again: `tonesmith argilla up`.", "bad")
        return self._view(own, url, "Both desks are alike", self._last, "good")

    def _view(
        self, own: bool, url: str, label: str, detail: str, tone: Literal["good", "busy", "bad", "quiet"]
    ) -> ArgillaView:
        datasets: tuple[DatasetProgress, ...] = ()
        failures: tuple[tuple[str, str], ...] = ()
        if tone != "bad":
            client = self._client()
            try:
                sync = ArgillaSync(self._store, client)
                datasets, failures = tuple(sync.progress()), tuple(sync.failures())
            except UserError as error:
                label, detail, tone = error.found.rstrip("."), error.do, "bad"
            finally:
                client.close()
        return ArgillaView(
            connected=True, own=own, url=url, label=label, detail=detail, tone=tone, datasets=datasets,
            failures=failures, progress=self._progress, last=self._last,
        )  # fmt: skip

    def _client(self) -> Argilla:
        connection = self._connection()
        if connection is None:
            raise UserError(
                "This project is not connected to Argilla.",
                do="Start one here, `tonesmith argilla up`, or name one: `tonesmith argilla attach`.",
            )
        if connection.url:
            return Argilla(connection.url, connection.api_key, WORKSPACE)
        return Argilla(self._server.url, self._server.keys.api_key, WORKSPACE)

    def _connection(self) -> Connection | None:
        try:
            return Connection.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise UserError(f"{self._file} is damaged.", do="Connect to Argilla once more.") from error

    def _keep(self, connection: Connection) -> None:
        write_whole(self._file, connection.model_dump_json(), mode=0o600)  # the key is nobody else's business
        self._wake.set()


def in_words(summary: Summary) -> str:
    """What a sync did, in a sentence; empty for nothing."""
    counts = {
        "sent": summary.pushed,
        "taken out": summary.removed,
        "answers fetched": summary.pulled,
        "left to colleagues": summary.passed,
        "of our answers shown there": summary.shown,
        "not brought over": summary.failed,
    }
    said = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    return said + (" (cancelled)" if summary.cancelled else "")
