"""The engine's own figures, out of vLLM's /metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator

from annotation.types import Frozen

LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ESCAPED = re.compile(r"\\(.)")


class Sample(Frozen):
    """One line of the Prometheus text format."""

    name: str
    labels: dict[str, str]
    value: float


class Figures(Frozen):
    """What the engine says of itself at one moment."""

    running: int
    """Requests being answered."""
    waiting: int
    """Requests that wait for room."""
    kv_cache: float
    """Share of the key-value cache that is taken, 0 to 1."""
    prompt_tokens: float
    """Read since its start."""
    generation_tokens: float
    """Written since its start."""
    adapters_running: tuple[str, ...] = ()
    """Adapters that are answering."""
    adapters_waiting: tuple[str, ...] = ()
    """Adapters with requests that wait."""
    at: float = 0.0
    """When it was asked, in seconds of a clock that only goes forward."""


class Rates(Frozen):
    """Tokens a second between two moments."""

    prompt: float
    generation: float


def samples(text: str) -> Iterator[Sample]:
    """The lines of a Prometheus text that hold a value; others are passed over."""
    for line in text.splitlines():
        found = LINE.match(line)
        if not found:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        labels = {name: ESCAPED.sub(_unescaped, said) for name, said in LABEL.findall(found[2] or "")}
        yield Sample(name=found[1], labels=labels, value=value)


def figures(text: str, at: float) -> Figures | None:
    """The figures in an answer of /metrics asked for at `at`; None if it is not vLLM's. Several engines add up."""
    found: dict[str, list[Sample]] = {}
    for sample in samples(text):
        found.setdefault(sample.name, []).append(sample)
    if "vllm:num_requests_running" not in found:
        return None

    def total(name: str) -> float:
        return sum(sample.value for sample in found.get(name, ()))

    caches = [sample.value for sample in found.get("vllm:kv_cache_usage_perc", ())]
    # A series for each combination that ever was; its value is when it was so.
    adapters = max(found.get("vllm:lora_requests_info", ()), key=lambda sample: sample.value, default=None)
    return Figures(
        running=int(total("vllm:num_requests_running")),
        waiting=int(total("vllm:num_requests_waiting")),
        kv_cache=max(caches, default=0.0),
        prompt_tokens=total("vllm:prompt_tokens_total"),
        generation_tokens=total("vllm:generation_tokens_total"),
        adapters_running=_names(adapters, "running_lora_adapters"),
        adapters_waiting=_names(adapters, "waiting_lora_adapters"),
        at=at,
    )


def rates(before: Figures | None, after: Figures) -> Rates | None:
    """Tokens a second from `before` to `after`; None with no time between them, or a restart, which counts anew."""
    if before is None or after.at <= before.at:
        return None
    seconds = after.at - before.at
    prompt, generation = after.prompt_tokens - before.prompt_tokens, after.generation_tokens - before.generation_tokens
    return Rates(prompt=prompt / seconds, generation=generation / seconds) if min(prompt, generation) >= 0 else None


def _names(sample: Sample | None, label: str) -> tuple[str, ...]:
    said = sample.labels.get(label, "") if sample else ""
    return tuple(sorted(name for name in said.split(",") if name))


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]
