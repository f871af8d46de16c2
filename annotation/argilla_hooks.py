"""What Argilla tells us by itself: calls signed after the Standard Webhooks rules.

A call only says where to look: what is kept is read from Argilla afterwards. So a call that was lost, doubled, late or
out of order changes nothing but the moment at which an answer is here. Checking a signature is the few lines below,
so no package is needed for it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from threading import Lock
from uuid import UUID

from annotation.argilla_client import Argilla, Json
from annotation.errors import UserError

PATH = "/hooks/argilla"
EVENTS = ("response.created", "response.updated", "response.deleted", "dataset.deleted")
"""Not those of records: each of our own writes would come back as a call, and a record that is completed is told of by
its response."""
TOLERANCE_SECONDS = 300.0
"""How far a call's time may be from ours, either way."""
MOST_BYTES = 4_000_000
"""Longest call that is read. A longer one is refused, and its answer comes with the next look."""


class HookRefused(UserError):
    """A call that Argilla did not send to us, or not just now."""


class Hook:
    """One webhook of ours in one Argilla. Its secret is never written down: each start of the studio makes a new one,
    so no call of an earlier time can be played again.
    """

    def __init__(self, hook_id: str, url: str, secret: str, clock: Callable[[], float] = time.time) -> None:
        self.id = hook_id
        self.url = url
        self._secret = base64.b64decode(secret)
        self._clock = clock
        self._lock = Lock()
        self._heard: dict[str, float] = {}
        """Id of a call → its time, as long as it could be played again."""

    def hear(self, headers: Mapping[str, str], body: bytes) -> Json:
        """What a call says: `type` and `data`. Raises HookRefused if it is forged, old, doubled or not readable."""
        call, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        wanted = base64.b64encode(hmac.digest(self._secret, f"{call}.{stamp}.".encode() + body, hashlib.sha256))
        given = [one.removeprefix("v1,") for one in headers.get("webhook-signature", "").split() if one[:3] == "v1,"]
        if not any(hmac.compare_digest(wanted, one.encode()) for one in given):
            raise HookRefused("The call is not signed with the secret of this webhook.")
        self._remember(call, float(stamp))  # a number, since whoever knows the secret wrote it
        try:
            found = json.loads(body)
        except ValueError as error:
            raise HookRefused("The call is not JSON.") from error
        return found if isinstance(found, dict) else {}

    def _remember(self, call: str, stamp: float) -> None:
        now = self._clock()
        if abs(now - stamp) > TOLERANCE_SECONDS:
            raise HookRefused(f"The call is {abs(now - stamp):.0f} seconds off our clock.")
        with self._lock:
            self._heard = {one: at for one, at in self._heard.items() if at >= now - TOLERANCE_SECONDS}
            if call in self._heard:
                raise HookRefused("The call was heard before.")
            self._heard[call] = stamp


def register(argilla: Argilla, address: str, owner: str) -> Hook:
    """Have this Argilla call `address`, in place of every earlier webhook of `owner`, the store's name.

    Raises UserError if the key is not an owner's, or there are ten webhooks of others already.
    """
    forget(argilla, owner)
    url = f"{address.rstrip('/')}{PATH}"
    made = argilla.add_hook(url, EVENTS, _description(owner))
    forget(argilla, owner, but=made["id"])  # one more, if an answer was lost and the call made twice
    return Hook(made["id"], url, made["secret"])


def forget(argilla: Argilla, owner: str, but: str = "") -> int:
    """Remove the webhooks of `owner`; returns how many. Raises UserError if the key is not an owner's."""
    ours = [one["id"] for one in argilla.hooks() if one["description"] == _description(owner) and one["id"] != but]
    for hook_id in ours:
        argilla.remove_hook(hook_id)
    return len(ours)


def record_of_call(said: Json) -> str:
    """Id of the record that a call is about, '' if it is about none."""
    data = said.get("data")
    record = data.get("record") if isinstance(data, dict) else None
    try:
        return str(UUID(str(record.get("id")))) if isinstance(record, dict) else ""
    except ValueError:
        return ""


def _description(owner: str) -> str:
    return f"Tonesmith {owner}"
