"""Argilla as a second desk: our own server or somebody else's, and what goes back and forth."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from threading import Event, Lock, Thread
from typing import Any

from pydantic import ValidationError

from annotation.argilla_client import Argilla, Unreachable
from annotation.argilla_report import Asked, DatasetProgress, Progress, Repairs, Report, Summary
from annotation.argilla_server import WORKSPACE, ArgillaServer
from annotation.argilla_sync import ArgillaSync
from annotation.errors import Conflict, UserError
from annotation.files import write_whole
from annotation.people import Person
from annotation.store import Store
from annotation.types import Frozen, utc_now
from studio.services.argilla_calls import Calls
from studio.services.argilla_errands import Errands, Told
from studio.services.argilla_view import (
    ArgillaView,
    Pace,
    Tone,
    compared_in_words,
    counts_in_words,
    how_alike,
    in_words,
    left_in_words,
    sentence,
)
from studio.settings import Settings

log = logging.getLogger("tonesmith.argilla")
EVERY_SECONDS, SHARE, LONGEST_SECONDS = 20.0, 5, 120.0
"""Between two looks for new answers, while connected: `SHARE` times as long as the last one took, if that is more, but
not more than `LONGEST_SECONDS`."""
DEBOUNCE_SECONDS = 0.3
"""After a call of Argilla's, for those that come with it."""
HOOK_PAUSE_SECONDS = 2.0
"""Before a webhook that could not be made is tried again."""
HALTED = "argilla"
"""The name of the following among what people stop."""
LOOK_SECONDS = 5.0
"""How long the page waits for what it shows; a sync has more patience."""
TURN_SECONDS = 600.0
"""How long what somebody asked for on the page waits for a look that is under way."""
AWAY = {
    "starting": ("Argilla is starting", "It answers in a moment."),
    "silent": (
        "Argilla does not answer just now",
        "It may be busy: wait a moment. If it stays so, start it again: `tonesmith argilla up`, or below. What was "
        "said in it is kept.",
    ),
    "broken": (
        "Argilla is not running",
        "Start it again: `tonesmith argilla up`, or below. What was said in it is kept.",
    ),
}
"""What to say of a server of our own that can't be asked, and what to do."""
Work = Callable[[ArgillaSync, Report, Asked], Summary]


class Connection(Frozen):
    """`argilla.json`: which Argilla this project works with."""

    url: str
    """'' for the server of our own."""
    api_key: str = ""


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
        self._stop, self._cancel, self._wake, self._whole = Event(), Event(), Event(), Event()
        self._people: list[Person] | None = None
        """Who has an account in our own server, as far as this studio has seen to it."""
        self._calls = Calls(self._client, store.argilla.identity, settings)
        self._errands = Errands()
        self._progress: Progress | None = None
        self._pace = Pace()
        self._seconds_left: float | None = None
        self._known: tuple[tuple[DatasetProgress, ...], tuple[tuple[str, str], ...]] = ((), ())
        """Where the datasets stand, and what failed, as seen last."""
        self._trouble: UserError | None = None
        self._last = ""
        self._looked_at: datetime | None = None
        self._thread: Thread | None = None

    # Connecting

    def up(self, by: Person, report: Callable[[str], None] = lambda line: None, port: int = 0) -> dict[str, str]:
        """Start our own server, make accounts for everybody who judges, and work with it from now on; returns the first
        passwords of the new accounts. `port` 0 keeps to the one it has. Raises UserError.
        """
        by.must("manage")
        self._server = ArgillaServer(self._settings.home, self._settings.cache, port)
        self._server.ensure(report)
        made = self._server.add_people(self._store.people.all())
        self._go_on(by)
        self._move_to(Connection(url=""))
        return made

    def attach(self, by: Person, url: str, api_key: str) -> str:
        """Work with an Argilla that runs elsewhere; returns its version. Raises UserError if it can't be used."""
        by.must("manage")
        if not api_key.strip():
            raise UserError("There is no key yet.", "That of an owner or an admin, from 'My settings' in Argilla.")
        with contextlib.closing(Argilla(url.strip(), api_key.strip(), WORKSPACE, tries=1)) as client:
            try:
                version = client.check()
            except Unreachable as error:
                raise UserError(
                    error.found,
                    "The address of an Argilla that is up, as in a browser.",
                    "Check the address, and that this machine may reach it.",
                ) from error
        self._go_on(by)
        self._move_to(Connection(url=url.strip().rstrip("/"), api_key=api_key.strip()))
        return version

    def down(self, by: Person) -> None:
        """Stop our own server. What was judged there is here already, or comes at the next sync."""
        by.must("manage")
        self._server.stop()

    def leave(
        self,
        by: Person,
        *,
        anyway: bool = False,
        report: Report = lambda progress: None,
        cancelled: Asked = lambda: False,
        patience: float = 0,
    ) -> Summary | None:
        """Fetch what is new one last time, then work without Argilla; everything that was said there is in our store.
        Returns what came, None if nobody could look. Where it was stopped (`cancelled`, or `cancel`) nothing is left:
        what came in is kept, and the next call has only the rest to do.

        Raises UserError if Argilla does not answer: start it, or it would be left with answers nobody has; `anyway`
        leaves all the same. Conflict if a sync is under way for longer than `patience`.
        """
        by.must("manage")
        summary = self._last_look(anyway, report, cancelled, patience) if self._connection() else None
        if summary is not None and summary.cancelled:
            return summary
        self._calls.forget()
        self._file.unlink(missing_ok=True)
        if (self._settings.home / "argilla").exists():
            self._server.stop()
        return summary

    def _last_look(self, anyway: bool, report: Report, cancelled: Asked, patience: float) -> Summary | None:
        def work(one: ArgillaSync, tell: Report, stop: Asked) -> Summary:
            summary = one.pull(tell, lambda: cancelled() or stop())
            summary.cancelled |= cancelled()  # however late: whoever wants to stay stays
            return summary

        try:
            return self._run(work, report, patience)
        except Conflict:
            raise
        except UserError as error:
            if anyway:
                return None
            start = "Start it, and leave again." if isinstance(error, Unreachable) else error.do
            raise UserError(
                f"{error.found} So nobody can look whether there are answers that are not here yet.",
                error.wanted,
                f"{start} Or leave without a last look: `tonesmith argilla leave --anyway`.",
            ) from error

    def passwords(self, by: Person) -> dict[str, str]:
        """First passwords of the accounts we made in our own server."""
        by.must("manage")
        return dict(self._server.keys.people)

    # Syncing

    def sync(
        self,
        by: Person,
        report: Report = lambda progress: None,
        cancelled: Asked = lambda: False,
    ) -> Summary:
        """Bring over what is new on either side, now. Raises UserError; Conflict if one is under way in this studio."""
        by.must("curate")
        return self._run(lambda one, tell, stop: one.sync(tell, lambda: cancelled() or stop()), report)

    def reconcile(
        self,
        by: Person,
        report: Report = lambda progress: None,
        cancelled: Asked = lambda: False,
        patience: float = 0,
    ) -> Repairs:
        """Compare everything with everything and put right what differs; `cancel` stops it. Raises UserError; Conflict
        if a sync is under way for longer than `patience`, in seconds.
        """
        by.must("curate")
        repairs = self._run(
            lambda one, tell, stop: one.reconcile(tell, lambda: cancelled() or stop()), report, patience
        )
        assert isinstance(repairs, Repairs)
        if not repairs.cancelled:
            self._trouble = None
            self._go_on(by)
        return repairs

    def retry(self, by: Person) -> int:
        """Let the next sync try again what failed; returns how much that is."""
        by.must("curate")
        client = self._client()
        try:
            number = ArgillaSync(self._store, client).retry()
        finally:
            client.close()
        self._go_on(by)
        self._look_soon()
        return number

    def sync_soon(self, by: Person) -> None:
        """Let the studio's own thread look now, and go on looking if that was stopped."""
        by.must("curate")
        self._errands.forget()
        self._go_on(by)
        self._look_soon()

    # What takes long, asked for on the page: all return at once, `view` says the rest, and there is one at a time.

    def up_soon(self, by: Person) -> None:
        """As `up`, in the background."""
        by.must("manage")

        def work() -> Told:
            self.up(by, self._say)
            return "Argilla is running.", ()

        self._errands.begin("Starting Argilla", work, may_stop=False)

    def reconcile_soon(self, by: Person) -> None:
        """As `reconcile`, in the background; `cancel` stops it."""
        by.must("curate")

        def work() -> Told:
            repairs = self.reconcile(by, cancelled=self._errands.stopped.is_set, patience=TURN_SECONDS)
            return compared_in_words(repairs), () if repairs.cancelled else counts_in_words(repairs)

        self._errands.begin("Comparing", work)

    def leave_soon(self, by: Person, *, anyway: bool = False) -> None:
        """As `leave`, in the background; `cancel` stops it."""
        by.must("manage")

        def work() -> Told:
            stopped = self._errands.stopped.is_set
            return left_in_words(self.leave(by, anyway=anyway, cancelled=stopped, patience=TURN_SECONDS)), ()

        self._errands.begin("Leaving Argilla", work)

    def _say(self, line: str) -> None:
        self._errands.doing = line.rstrip(".")

    def hear(self, headers: Mapping[str, str], body: bytes) -> None:
        """A call of Argilla's webhook: what it is about is fetched at once. Raises HookRefused if Argilla did not send
        it just now.
        """
        if self._calls.hear(headers, body):
            self._wake.set()
        else:
            self._look_soon()

    def cancel(self, by: Person) -> bool:
        """Stop what is under way; what it did is kept, and it goes on when somebody asks for it. False if there was
        nothing to stop.
        """
        by.must("curate")
        stops = self._errands.stop()
        if not self._one.locked():
            return stops
        self._store.halts.say(HALTED, True, by.name)
        self._cancel.set()
        return True

    @property
    def _held(self) -> bool:
        """Somebody stopped it: no looks until somebody asks for one, also after a restart."""
        return self._store.halts.halted(HALTED)

    def _go_on(self, by: Person) -> None:
        if self._held:
            self._store.halts.say(HALTED, False, by.name)

    def start(self) -> None:
        """In the studio: keep both sides alike, in the background, for as long as a connection is kept."""
        self._thread = Thread(target=self._follow, name="argilla", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the following; Argilla itself goes on."""
        self._stop.set()
        self._cancel.set()
        self._look_soon()
        self._errands.close(seconds=10)
        if self._thread:
            self._thread.join(timeout=10)

    def _follow(self) -> None:
        while not self._stop.is_set():
            self._whole.clear()
            pause, took = EVERY_SECONDS, 0.0
            with self._in_words():
                connection = self._connection()
                if connection is None:
                    self._calls.lapse()
                elif not self._held:
                    begun = time.monotonic()
                    looked = self._once()
                    took = time.monotonic() - begun  # waiting for a webhook is no work for Argilla
                    if looked and not self._listen(connection):
                        pause = HOOK_PAUSE_SECONDS
            self._rest(max(pause, min(SHARE * took, LONGEST_SECONDS)))
        with self._in_words():
            self._calls.forget()

    def _rest(self, seconds: float) -> None:
        """Until the next look; meanwhile fetch what Argilla calls about."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stop.is_set() and not self._whole.is_set():
            if self._wake.wait(left):
                self._wake.clear()
                if self._calls.waiting and not self._whole.is_set():
                    self._stop.wait(DEBOUNCE_SECONDS)
                    self._fetch_told()

    def _look_soon(self) -> None:
        self._whole.set()
        self._wake.set()

    def _fetch_told(self) -> None:
        told = self._calls.take()
        with self._in_words():
            summary = self._run(lambda one, report, cancelled: one.fetch(told))
            self._last = in_words(summary) or self._last

    def _listen(self, connection: Connection) -> bool:
        return self._calls.listen(connection, connection.url or self._server.url, EVERY_SECONDS)

    def _once(self) -> bool:
        """A look at everything; whether it went well."""
        self._calls.take()  # all of it is read now
        with self._in_words():
            self._keep_accounts()
            summary = self._run(lambda one, report, cancelled: one.sync(report, cancelled))
            self._trouble = None
            self._last = in_words(summary) or self._last
            self._looked_at = self._looked_at if summary.cancelled else utc_now()
            return True
        return False

    def _keep_accounts(self) -> None:
        """In our own server, those who judge have an account, and those who do not (any more) are shut out."""
        connection, people = self._connection(), self._store.people.all()
        if connection is not None and not connection.url and people != self._people:
            self._server.add_people(people)
            self._people = people

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """Trouble is shown on the page; the next look may find it mended."""
        try:
            yield
        except Conflict:
            pass  # somebody is at it from a button
        except UserError as error:
            log.warning("%s", error)
            self._trouble = error
        except Exception as error:  # the looks go on: a database, for example, may be back at the next one
            log.exception("a look at Argilla failed")
            self._trouble = UserError(
                f"A look at Argilla failed ({type(error).__name__}).",
                do="It is tried again by itself; the studio's log has the details. What was synced so far is kept.",
            )

    def _run(self, work: Work, report: Report = lambda progress: None, patience: float = 0) -> Summary:
        """One at a time. Its progress is on the page, whoever asked for it."""
        if not self._one.acquire(timeout=patience):
            raise Conflict("A sync is under way already.", do="Wait for it, or cancel it.")

        def tell(progress: Progress) -> None:
            self._seconds_left = self._pace.seconds_left(progress)
            self._progress = progress
            report(progress)

        try:
            self._cancel.clear()
            client = self._client()
            try:
                return work(
                    ArgillaSync(self._store, client), tell, lambda: self._cancel.is_set() or self._stop.is_set()
                )
            finally:
                client.close()
        finally:
            self._progress = None
            self._one.release()

    # Looking

    def view(self) -> ArgillaView:
        """Where things stand, without asking Argilla for more than its health."""
        connection = self._connection()
        if connection is None:
            doing, not_used = self._errands.doing, "Reviewers who prefer it can label there instead."
            label, tone = (doing, "busy") if doing else ("Argilla is not used", "quiet")  # type: str, Tone
            return ArgillaView(
                connected=False, label=label, tone=tone, detail="" if doing else not_used, outcome=self._errands.outcome
            )
        own = not connection.url
        url = self._server.url if own else connection.url
        progress = self._progress
        if under_way := self._under_way(progress):
            return self._view(own, url, under_way, "", "busy", progress)
        if own and (away := self._away(url)):
            return away
        if self._trouble is not None:
            detail = " ".join(part for part in (self._trouble.wanted, self._trouble.do) if part)
            return self._view(own, url, self._trouble.found.rstrip("."), detail, "bad")
        known = " ".join(part for part in (sentence(self._last), self._calls.how_told) if part)
        if self._held:
            return self._view(own, url, "Stopped", f"{known} “Look for news now” goes on from there.".strip(), "quiet")
        return self._view(own, url, "Both desks are alike", known, "good")

    def _away(self, url: str) -> ArgillaView | None:
        """Where our own server can't be asked, how that is: it starts, it is busy or hangs, or parts of it ended."""
        state = self._server.status().state
        if state == "ready":
            return None
        label, detail = AWAY.get(state, AWAY["broken"])
        view = self._view(True, url, label, detail, "bad")  # which asks nothing of it
        if state == "starting":
            return view.model_copy(update={"tone": "busy"})
        return view.model_copy(update={"down": state != "silent", "may_start": True})

    def _under_way(self, progress: Progress | None) -> str:
        """What is being done, in words; '' for nothing."""
        if (self._cancel.is_set() and self._one.locked()) or (self._errands.doing and self._errands.stopped.is_set()):
            return "Stopping"
        if progress is not None:
            done = f"{progress.done:,} of {progress.total:,}" if progress.total else ""
            return f"{progress.what} {done}".strip().capitalize()
        looking = self._whole.is_set() and self._thread is not None and self._thread.is_alive()
        return self._errands.doing or ("Looking" if looking else "")

    def _view(
        self, own: bool, url: str, label: str, detail: str, tone: Tone, progress: Progress | None = None
    ) -> ArgillaView:
        """With the counts; where Argilla can't be asked, those that were known last."""
        if tone != "bad" and not (self._errands.doing and not self._errands.may_stop):  # it is only just starting
            try:
                with contextlib.closing(self._client(seconds=LOOK_SECONDS, tries=1)) as client:
                    sync = ArgillaSync(self._store, client)
                    self._known = tuple(sync.progress()), tuple(sync.failures())
                if tone == "good":
                    label, tone = how_alike(self._known[0])
            except UserError as error:
                if tone != "busy":
                    label, detail, tone = error.found.rstrip("."), error.do, "bad"
        datasets, failures = self._known
        return ArgillaView(
            connected=True, own=own, url=url, label=label, detail=detail, tone=tone, datasets=datasets,
            failures=failures, begun=tuple(self._store.argilla.begun()), progress=progress,
            seconds_left=self._seconds_left if progress else None, outcome=self._errands.outcome,
            may_cancel=progress is not None or bool(self._errands.doing and self._errands.may_stop),
            looked_at=self._looked_at, last=self._last, told=self._calls.how_told,
        )  # fmt: skip

    def _client(self, **how: Any) -> Argilla:
        connection = self._connection()
        if connection is None:
            raise UserError(
                "This project is not connected to Argilla.",
                do="Start one here, `tonesmith argilla up`, or name one: `tonesmith argilla attach`.",
            )
        if connection.url:
            return Argilla(connection.url, connection.api_key, WORKSPACE, **how)
        return Argilla(self._server.url, self._server.keys.api_key, WORKSPACE, **how)

    def _connection(self) -> Connection | None:
        try:
            return Connection.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise UserError(f"{self._file} is damaged.", do="Connect to Argilla once more.") from error

    def _move_to(self, connection: Connection) -> None:
        with contextlib.suppress(UserError):  # a damaged file is written anew
            before = self._connection()
            if before is not None and before.url != connection.url:
                self._calls.forget()
        write_whole(self._file, connection.model_dump_json(), mode=0o600)  # the key is nobody else's business
        self._calls.afresh()
        self._errands.forget()
        self._people, self._known, self._trouble = None, ((), ()), None
        self._look_soon()
