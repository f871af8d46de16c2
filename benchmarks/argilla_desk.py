"""What a reviewer waits for in Argilla, the peer of our desk: the next pending record, and saving a judgement."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks.argilla_server import running_argilla

RECORDS, BULK, ITEMS = 3_000, 500, 200
QUESTIONS = ("voice", "policy", "bias")
PENDING = [
    {"type": "terms", "scope": {"entity": entity, "property": "status"}, "values": ["pending"]}
    for entity in ("response", "record")
]
"""The filter of Argilla's page: nothing from this user yet, and not completed by others."""


def measure(folder: Path) -> dict[str, float]:
    """Seconds over 200 items of a dataset of 3,000 chats, by the calls that Argilla's page makes."""
    with running_argilla(folder / "argilla") as argilla, argilla.client() as client:
        dataset = _dataset(client)
        _fill(client, dataset)
        saves, nexts = [], []
        for number in range(ITEMS):
            clock = time.perf_counter()
            record = _next(client, dataset)
            nexts.append(time.perf_counter() - clock)
            clock = time.perf_counter()
            _save(client, record, number)
            saves.append(time.perf_counter() - clock)
        _check(client, dataset)
    return {
        "save_p95": _percentile(saves, 95),
        "next_p95": _percentile(nexts, 95),
        "save_p50": _percentile(saves, 50),
        "next_p50": _percentile(nexts, 50),
        "records": float(RECORDS),
    }


def _dataset(client: httpx.Client) -> str:
    """A dataset as one would set it up for judging replies; returns its id."""
    workspace = _answer(client.get("/me/workspaces"))["items"][0]["id"]
    dataset = str(_answer(client.post("/datasets", json={"name": "bench", "workspace_id": workspace}))["id"])
    parts: list[tuple[str, str, bool, dict[str, Any]]] = [("fields", "chat", True, {"type": "chat"})]
    options = [{"value": value, "text": value.title()} for value in ("pass", "fail")]
    parts += [("questions", name, True, {"type": "label_selection", "options": options}) for name in QUESTIONS]
    parts += [("questions", "correction", False, {"type": "text"})]
    for kind, name, required, settings in parts:
        part = {"name": name, "title": name.title(), "required": required, "settings": settings}
        _answer(client.post(f"/datasets/{dataset}/{kind}", json=part))
    _answer(client.put(f"/datasets/{dataset}/publish"))
    return dataset


def _fill(client: httpx.Client, dataset: str) -> None:
    """Every reply comes with itself as the suggestion to correct."""
    questions = _answer(client.get(f"/datasets/{dataset}/questions"))["items"]
    correction = next(question["id"] for question in questions if question["name"] == "correction")
    for start in range(0, RECORDS, BULK):
        items = []
        for number in range(start, start + BULK):
            reply = f"Parcel {number} is on its way."
            chat = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": reply}]
            suggestion = {"question_id": correction, "value": reply}
            items.append({"fields": {"chat": chat}, "external_id": str(number), "suggestions": [suggestion]})
        _answer(client.post(f"/datasets/{dataset}/records/bulk", json={"items": items}))


def _next(client: httpx.Client, dataset: str) -> str:
    """The id of the record that the page would show."""
    found = client.post(
        f"/me/datasets/{dataset}/records/search",
        params={"include": ["responses", "suggestions"], "offset": 0, "limit": 1},
        json={"query": {}, "filters": {"and": PENDING}},
    )
    return str(_answer(found)["items"][0]["record"]["id"])


def _save(client: httpx.Client, record: str, number: int) -> None:
    values = {name: {"value": "fail"} for name in QUESTIONS} | {"correction": {"value": f"Better {number}."}}
    _answer(client.post(f"/records/{record}/responses", json={"status": "submitted", "values": values}))


def _check(client: httpx.Client, dataset: str) -> None:
    """What was measured did happen."""
    progress = _answer(client.get(f"/datasets/{dataset}/progress"))
    if (progress["total"], progress["completed"]) != (RECORDS, ITEMS):
        raise RuntimeError(f"Argilla counts {progress['completed']} of {progress['total']} completed, not {ITEMS}")


def _answer(response: httpx.Response) -> Any:
    if response.is_error:
        raise RuntimeError(f"{response.request.url}: {response.status_code} {response.text[:500]}")
    return response.json()


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def main() -> None:
    """Measure and print."""
    out = Console()
    with tempfile.TemporaryDirectory(prefix="tonesmith-argilla-") as folder:
        for name, value in measure(Path(folder)).items():
            out.print(f"{name:>14} {value:.4f}" if value < 1000 else f"{name:>14} {value:.0f}")


if __name__ == "__main__":
    main()
