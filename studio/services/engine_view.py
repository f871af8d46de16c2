"""What people are told of the engine and of its adapters."""

from __future__ import annotations

from datetime import datetime

from annotation.types import Frozen
from serving.engine import EngineStatus
from serving.memory import Parity


class EngineView(Frozen):
    """The engine's state in words."""

    label: str
    detail: str
    tone: str
    """`good`, `busy`, `bad` or `quiet`."""
    fraction: float = 1.0
    """Share of the way to ready, 0 to 1."""
    ready: bool = False
    adapters: bool = True
    """False for a server that takes none: it is there for comparing only."""


class AdapterView(Frozen):
    """An adapter of the registry, and whether the engine holds it."""

    name: str
    loaded: bool
    problem: str
    """Why it could not be loaded when it was new, or ''."""
    dataset_id: str
    base_name: str
    created_at: datetime
    weights_sha256: str
    last_used: datetime | None = None
    """When it was last loaded or asked for a reply; None if never."""
    effect: float | None = None
    """How far it moved fixed prompts from the base when it was loaded, in nats a token; None if not measured."""
    parity: Parity | None = None
    """Whether it is served as it was trained; None if not measured, or if its training left no account."""


def in_words(status: EngineStatus, gave_up: str = "") -> EngineView:
    """An engine's status for people."""
    if gave_up:
        return EngineView(label="Engine is off", detail=gave_up, tone="bad")
    if status.state == "ready" and not status.adapters:
        detail = (
            f"The server at {status.url} takes no adapters: its own models answer and can be compared, and what is "
            "trained here can't be loaded there."
        )
        return EngineView(label="For comparing only", detail=detail, tone="good", ready=True, adapters=False)
    if status.state == "ready":
        detail = f"Answers come from vLLM at {status.url}. {status.message}".strip()
        if status.attached:
            detail = (
                f"Answers come from somebody else's engine at {status.url}. It may not say whose weights answer, and "
                "takes adapters only if it is a vLLM that lets them be loaded: else it is for comparing with."
            )
        if not status.attests:
            detail = (
                f"Answers come from somebody else's engine at {status.url}. It runs without Tonesmith's plugin, where "
                "a base and an adapter that are asked together may mix. So the base is asked through an adapter that "
                "changes nothing, and stays itself. Adapters can't be held against their training there."
            )
        return EngineView(label="Engine ready", detail=detail, tone="good", ready=True)
    if status.state == "asleep":
        detail = "To leave the machine to training. Wakes when somebody asks."
        return EngineView(label="Asleep", detail=detail, tone="quiet")
    if status.state == "starting":
        detail = "The model can't answer yet. You can review and make datasets meanwhile."
        label = f"Warming up, {round(100 * status.fraction)}%"
        return EngineView(label=label, detail=f"{detail} Now: {status.phase}.", tone="busy", fraction=status.fraction)
    labels = {"crashed": "Engine is restarting", "unreachable": "Engine does not answer", "off": "Engine is off"}
    tone = "quiet" if status.state == "off" else "bad"
    return EngineView(label=labels[status.state], detail=status.message, tone=tone)
