"""Argilla's REST API as the sync needs it, its failures in words.

Plain HTTP and not Argilla's SDK: the SDK builds a Python object for each record, pulls in pandas and datasets, and
can't send another person's response; the calls below are the ones its page and its SDK make.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from annotation.errors import NotFound, UserError

Json = dict[str, Any]
OLDEST = (2, 6)
"""First version with all that is used here: chat fields, and an overlap that can be changed."""
PAGE, REMOVED_AT_ONCE, WINDOW = 500, 100, 10_000
"""`WINDOW`: Elasticsearch refuses to page a search any further than this."""
TRIES, PAUSE_SECONDS, CONNECT_SECONDS = 3, 0.5, 10.0
ANSWERED: Json = {
    "type": "terms",
    "scope": {"entity": "response", "property": "status"},
    "values": ["submitted", "discarded", "draft"],
}


class Unreachable(UserError):
    """Nobody answers at Argilla's address."""


class Refused(UserError):
    """Argilla does not take what it was sent."""


class Argilla:
    """One Argilla server, spoken to with one key."""

    def __init__(self, url: str, api_key: str, workspace: str, seconds: float = 120, tries: int = TRIES) -> None:
        """`seconds` to wait for an answer, `tries` where the connection is lost. Raises UserError for an address or a
        key that can't be one.
        """
        self.url = url.rstrip("/")
        self.workspace = workspace
        self._tries = tries
        # Compressing costs the server more than it saves on a short way.
        headers = {"X-Argilla-Api-Key": api_key, "Accept-Encoding": "identity"}
        try:
            timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
            self._http = httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise _no_address(url, f": {error}") from error
        except UnicodeEncodeError as error:
            raise UserError(
                "The key has characters that no key of Argilla's has.", do="Copy it from 'My settings' in Argilla."
            ) from error
        if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
            raise _no_address(url)

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def check(self) -> str:
        """Its version. Raises Unreachable, and UserError for a version too old or a key that may not do this."""
        try:
            version = str(self._ask("GET", "/version").get("version", ""))
        except NotFound as error:
            raise self._not_argilla() from error
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers < OLDEST:
            raise UserError(
                f"The Argilla at {self.url} is version {version or 'unknown'}.",
                f"{'.'.join(map(str, OLDEST))} or newer.",
                "Upgrade it, or let Tonesmith start its own: `tonesmith argilla up`.",
            )
        me = self._ask("GET", "/me")
        if me["role"] not in ("owner", "admin"):
            raise UserError(
                f"The key for {self.url} belongs to {me['username']}, an {me['role']}.",
                "The key of an owner or an admin.",
                "Copy it from 'My settings' in Argilla while signed in as one.",
            )
        return version

    def workspace_id(self) -> str:
        """The workspace's id; makes it where the key may."""
        for one in self._ask("GET", "/me/workspaces")["items"]:
            if one["name"] == self.workspace:
                return str(one["id"])
        return str(self._ask("POST", "/workspaces", json={"name": self.workspace})["id"])

    def users(self, workspace_id: str) -> dict[str, str]:
        """User id → name, of everybody the key may see."""
        try:
            found = self._ask("GET", "/users")
        except UserError:  # an admin sees the people of the workspace only
            found = self._ask("GET", f"/workspaces/{workspace_id}/users")
        return {str(one["id"]): str(one["username"]) for one in found["items"]}

    # Datasets

    def dataset(self, dataset_id: str) -> Json:
        """Raises NotFound if it is gone."""
        return self._ask("GET", f"/datasets/{dataset_id}")

    def dataset_called(self, name: str, workspace_id: str) -> Json | None:
        """The dataset of this name, if there is one."""
        items = self._ask("GET", "/me/datasets", params={"workspace_id": workspace_id})["items"]
        return next((one for one in items if one["name"] == name), None)

    def create_dataset(self, about: Json) -> Json:
        """A draft, until it is published."""
        return self._ask("POST", "/datasets", json=about)

    def parts(self, dataset_id: str, kind: str) -> list[Json]:
        """Its `fields`, `questions` or `metadata-properties`."""
        prefix = "/me" if kind == "metadata-properties" else ""
        items: list[Json] = self._ask("GET", f"{prefix}/datasets/{dataset_id}/{kind}")["items"]
        return items

    def add_part(self, dataset_id: str, kind: str, about: Json) -> None:
        """Add a field, a question or a metadata property."""
        self._ask("POST", f"/datasets/{dataset_id}/{kind}", json=about)

    def publish(self, dataset_id: str) -> None:
        """Open a draft for records and people."""
        self._ask("PUT", f"/datasets/{dataset_id}/publish")

    def answers(self, dataset_id: str) -> Counter[tuple[str, str]]:
        """How many responses there are, by user name and status."""
        found: Counter[tuple[str, str]] = Counter()
        for one in self._ask("GET", f"/datasets/{dataset_id}/users/progress")["users"]:
            for by_status in (one.get("completed"), one.get("pending")):
                for status, number in (by_status or {}).items():
                    found[str(one["username"]), status] += number or 0
        return found

    def change_dataset(self, dataset_id: str, **about: Any) -> None:
        """Change what is given."""
        self._ask("PATCH", f"/datasets/{dataset_id}", json=about)

    def change_question(self, question_id: str, about: Json) -> None:
        """Change its title or its options' words; what it asks can't be changed."""
        self._ask("PATCH", f"/questions/{question_id}", json=about)

    # Records

    def put(self, dataset_id: str, records: Sequence[Json]) -> list[Json]:
        """Make or change records, at most 500, by their external ids. Raises Refused if one of them is not taken."""
        items: list[Json] = self._ask("PUT", f"/datasets/{dataset_id}/records/bulk", json={"items": list(records)})[
            "items"
        ]
        return items

    def replace_suggestions(self, record_id: str, suggestions: Sequence[Json]) -> None:
        """Give a record these suggestions and no others; `put` leaves those that are not given any more."""
        self._ask("PATCH", f"/records/{record_id}", json={"suggestions": list(suggestions)})

    def record(self, record_id: str) -> Json:
        """One record with its responses. Raises NotFound."""
        return self._ask("GET", f"/records/{record_id}")

    def remove(self, dataset_id: str, record_ids: Sequence[str]) -> None:
        """Delete records; those that are gone already do no harm."""
        for start in range(0, len(record_ids), REMOVED_AT_ONCE):
            some = ",".join(record_ids[start : start + REMOVED_AT_ONCE])
            self._ask("DELETE", f"/datasets/{dataset_id}/records", params={"ids": some})

    def records(self, dataset_id: str, include: str) -> Iterator[tuple[list[Json], int]]:
        """Pages of all records with what is to be included, and how many there are in all."""
        offset = 0
        while True:
            params = {"include": include.split(","), "offset": offset, "limit": PAGE}
            page = self._ask("GET", f"/datasets/{dataset_id}/records", params=params)
            yield page["items"], page["total"]
            offset += PAGE
            if offset >= page["total"]:
                return

    def answered(self, dataset_id: str) -> Iterator[tuple[list[Json], int]]:
        """Pages of the records that somebody has said or begun to say something about, with their responses, and how
        many there are.
        """
        body = {"query": {}, "filters": {"and": [ANSWERED]}, "sort": [_BY_AGE]}
        offset = 0
        while True:
            params = {"include": "responses", "offset": offset, "limit": PAGE}
            page = self._ask("POST", f"/datasets/{dataset_id}/records/search", params=params, json=body)
            if page["total"] > WINDOW:
                yield from self.records(dataset_id, "responses")
                return
            yield [item["record"] for item in page["items"]], page["total"]
            offset += PAGE
            if offset >= page["total"]:
                return

    # Webhooks

    def hooks(self) -> list[Json]:
        """All webhooks, other people's too, with their secrets. For an owner's key only."""
        items: list[Json] = self._ask("GET", "/webhooks")["items"]
        return items

    def add_hook(self, url: str, events: Sequence[str], description: str) -> Json:
        """Have `url` called at these events. Raises Refused if there are ten already."""
        return self._ask("POST", "/webhooks", json={"url": url, "events": list(events), "description": description})

    def ping_hook(self, hook_id: str) -> None:
        """Have it called now, by the server itself. Raises UserError if the server can't reach it."""
        self._ask("POST", f"/webhooks/{hook_id}/ping")

    def remove_hook(self, hook_id: str) -> None:
        """One that is gone already does no harm."""
        with contextlib.suppress(NotFound):
            self._ask("DELETE", f"/webhooks/{hook_id}")

    def _ask(self, method: str, path: str, **about: Any) -> Json:
        """One call. A lost connection is tried again: every call here may be made twice."""
        for attempt in range(self._tries):
            try:
                answer = self._http.request(method, path, **about)
                break
            except httpx.TransportError as error:
                if attempt == self._tries - 1:
                    raise Unreachable(
                        f"Argilla at {self.url} does not answer: {_cause(error)}.",
                        "A server that is up.",
                        "Start it (`tonesmith argilla up`), or check the address. What was synced so far is kept, and "
                        "the next sync goes on from there.",
                    ) from error
                time.sleep(PAUSE_SECONDS * (attempt + 1))
        if answer.is_error:
            raise self._said(answer)
        if not answer.content:
            return {}
        try:
            found: Json = answer.json()
        except ValueError as error:
            raise self._not_argilla() from error
        return found

    def _not_argilla(self) -> UserError:
        return UserError(f"What answers at {self.url} is not Argilla.", do="Check the address.")

    def _said(self, answer: httpx.Response) -> UserError:
        """An error as a sentence."""
        said = _message(answer)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            return UserError(
                f"Argilla at {self.url} does not know this key.",
                "The API key of one of its owners or admins.",
                "Copy it from 'My settings' in Argilla.",
            )
        if answer.status_code == httpx.codes.FORBIDDEN:
            return UserError(f"This key may not do that in Argilla: {said}", do="Use an owner's key.")
        if answer.status_code == httpx.codes.NOT_FOUND and not _is_json(answer):
            return self._not_argilla()  # what stands before it says so while Argilla itself is away
        if answer.status_code == httpx.codes.NOT_FOUND:
            return NotFound(f"Argilla does not have that any more: {said}")
        if answer.status_code in (httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.BAD_REQUEST, httpx.codes.CONFLICT):
            return Refused(f"Argilla refused it: {said}")
        return UserError(
            f"Argilla at {self.url} failed ({answer.status_code}): {said}",
            do="Look into its log; the next sync goes on from here.",
        )


def _no_address(url: str, why: str = "") -> UserError:
    found = f"'{url}' is no address{why}." if url else "There is no address yet."
    return UserError(found, "One as in a browser.", "Give it as https://argilla.example.org.")


def _cause(error: Exception) -> str:
    """Without the system's number for it."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)).rstrip(".") or type(error).__name__


_BY_AGE: Json = {"scope": {"entity": "record", "property": "inserted_at"}, "order": "asc"}


def _is_json(answer: httpx.Response) -> bool:
    return "json" in answer.headers.get("Content-Type", "")


def _message(answer: httpx.Response) -> str:
    try:
        detail = answer.json()
    except ValueError:
        return answer.text[:300]
    inner = detail.get("detail", detail) if isinstance(detail, dict) else detail
    if isinstance(inner, dict):
        inner = inner.get("params", inner)
        inner = inner.get("detail", inner.get("errors", inner)) if isinstance(inner, dict) else inner
    return str(inner)[:500]
