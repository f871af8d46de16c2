"""Argilla's calls to this studio: its webhook is made once for each Argilla, heard, and removed at the end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Mapping
from threading import Event, Lock
from urllib.parse import urlsplit

from annotation import argilla_hooks
from annotation.argilla_client import Argilla
from annotation.argilla_hooks import Hook, HookRefused, record_of_call
from annotation.errors import UserError
from studio.settings import Settings

log = logging.getLogger("tonesmith.argilla")
TRIES = 5
PING_SECONDS = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Calls:
    """`client()` asks the Argilla that is connected to (UserError if there is none); `owner()` is the store's name."""

    def __init__(self, client: Callable[[], Argilla], owner: Callable[[], str], settings: Settings) -> None:
        self._client = client
        self._owner = owner
        self._settings = settings
        self._lock = Lock()
        self._hook: Hook | None = None
        self._made_for: Hashable = None
        """The connection for which a webhook was made, or given up."""
        self._tries = 0
        self._pinged = Event()
        self._told: set[str] = set()
        """Records that it has called about."""
        self.how_told = ""
        """How this studio learns of answers, for people."""

    def hear(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Take a call; False if it was about more than single records, so that all should be looked at. Raises
        HookRefused if Argilla did not send it just now.
        """
        hook = self._hook
        if hook is None:
            raise HookRefused("This studio waits for no calls.")
        said = hook.hear(headers, body)
        if said.get("type") == "ping":
            self._pinged.set()
        elif record := record_of_call(said):
            with self._lock:
                self._told.add(record)
        else:
            return False
        return True

    @property
    def waiting(self) -> bool:
        """Whether there are calls that nobody took."""
        return bool(self._told)

    def take(self) -> set[str]:
        """The records that it has called about, once."""
        with self._lock:
            told, self._told = self._told, set()
        return told

    def listen(self, connection: Hashable, url: str, every_seconds: float) -> bool:
        """Have the Argilla at `url` call us, once for each connection; False if that should be tried again soon. Where
        it can't, it is asked every so many seconds as before.
        """
        if connection == self._made_for:
            return True
        self._hook, self.how_told = None, f"Argilla is asked for answers every {every_seconds:.0f} seconds."
        address = self._address(url)
        self._tries += 1
        if address and self._tries <= TRIES:
            try:
                self._register(address)
            except UserError as error:
                log.info("no webhook: %s", error)
                self.forget()
                return False
            self.how_told = "Argilla calls when somebody answers."
        self._made_for, self._tries = connection, 0
        return True

    def _register(self, address: str) -> None:
        """Make the webhook and see that a call arrives. Raises UserError if not."""
        with contextlib.closing(self._client()) as client:
            self._pinged.clear()
            self._hook = argilla_hooks.register(client, address, self._owner())
            client.ping_hook(self._hook.id)
        if not self._pinged.wait(PING_SECONDS):
            raise UserError(f"Argilla's calls do not arrive at {address}.", do="Set TONESMITH_PUBLIC_URL.")

    def _address(self, argilla_url: str) -> str:
        """Where that Argilla reaches this studio, '' if nobody said so."""
        if self._settings.public_url or urlsplit(argilla_url).hostname not in LOOPBACK:
            return self._settings.public_url or ""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._settings.host, self._settings.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._settings.port}"

    def lapse(self) -> None:
        """Wait for no calls any more; where there is no Argilla, there is no webhook to remove."""
        self._hook, self._made_for = None, None

    def afresh(self) -> None:
        """Another Argilla: try as often again."""
        self._tries = 0

    def forget(self) -> None:
        """Remove our webhooks, also those of a studio that was killed. Where Argilla can't be asked they stay: their
        calls are refused, and the next start removes them.
        """
        self.lapse()
        with contextlib.suppress(UserError), contextlib.closing(self._client()) as client:
            argilla_hooks.forget(client, self._owner())
