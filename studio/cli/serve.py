"""Serve, promote and compare: `up`, `down`, `adapters`, `load`, `unload`, `promote`, `rollback`, `canary`, `aliases`,
`compare`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from annotation.errors import UserError
from annotation.types import Pick, Place
from studio.cli.context import AsJson, Home, out, print_json, services

if TYPE_CHECKING:
    from serving.memory import Parity

AliasName = Annotated[
    Literal["candidate", "production"], typer.Option("--as", help="candidate, or production: what customers get.")
]
Reason = Annotated[str, typer.Option(help="Why, for whoever looks back at this.")]
VOTES: dict[str, Pick] = {"l": "left", "r": "right", "t": "tie", "b": "both_bad"}
MORE_VOTES: dict[str, Place] = {"3": "third", "4": "fourth"}


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (up, down, adapters, load, unload, promote, rollback, canary, aliases, compare):
        app.command()(command)


def up(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", envvar="TONESMITH_HOST")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the page.", envvar="TONESMITH_PORT")] = None,
    engine: Annotated[str | None, typer.Option(help="vllm, or scripted (canned replies, no model).")] = None,
    engine_url: Annotated[str | None, typer.Option(help="Use a vLLM that runs already.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Engines side by side behind one address.")] = None,
    base_model: Annotated[
        str | None, typer.Option(help="The embedded default, a folder, or a Hugging Face id.")
    ] = None,
    demo: Annotated[bool, typer.Option(help="Fill an empty project with the demo's data first.")] = False,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
) -> None:
    """Start the page and the engine. Ctrl-C stops both; a training run goes on."""
    from studio.server import serve
    from studio.settings import read_settings

    settings = read_settings(
        home=home,
        host=host,
        port=port,
        engine=engine,
        engine_url=engine_url,
        replicas=replicas,
        base_model=base_model,
    )
    serve(settings, demo=demo, open_browser=open_browser)


def down(home: Home = None) -> None:
    """Stop the engine of this project, if one is running without a page."""
    with services(home) as tonesmith:
        was = tonesmith.serving.adopt(required=False)
        tonesmith.serving.close(stop_engine=True)
    out.print("The engine is stopped." if was else "No engine was running.")


def adapters(home: Home = None, as_json: AsJson = False) -> None:
    """List the adapters and which of them the engine holds."""
    with services(home) as tonesmith:
        tonesmith.serving.adopt(required=False)
        views, engine = tonesmith.serving.adapters(), tonesmith.serving.view()
    if as_json:
        print_json([view.model_dump(mode="json") for view in views])
        return
    shown = Table("Adapter", "State", "As trained", "Learned from", "Base", "Made")
    for view in views:
        made = f"{view.created_at:%Y-%m-%d %H:%M}"
        state = "loaded" if view.loaded else "not loaded"
        shown.add_row(view.name, state, as_trained(view.parity), view.dataset_id, view.base_name, made)
    out.print(shown)
    if not engine.adapters:
        out.print(f"{engine.label}. {engine.detail}", markup=False)


def as_trained(parity: Parity | None) -> str:
    """Whether an adapter is served as it was trained, and how far from it (nats a token)."""
    if parity is None:
        return "not measured"
    if not parity.same_prompt:
        return "no: other prompts"
    found = "no" if not parity.holds else "yes" if parity.told else "can't be told at this precision"
    return f"{found}: {parity.apart:.1g} apart"


def load(name: str, home: Home = None) -> None:
    """Load an adapter into the running engine, without a restart."""
    with services(home) as tonesmith:
        tonesmith.serving.adopt()
        tonesmith.serving.load(name, tonesmith.who)
    out.print(f"{name} is loaded.", markup=False)


def unload(name: str, home: Home = None) -> None:
    """Take an adapter out of the running engine."""
    with services(home) as tonesmith:
        tonesmith.serving.adopt()
        tonesmith.serving.unload(name, tonesmith.who)
    out.print(f"{name} is unloaded.", markup=False)


def promote(name: str, alias: AliasName, reason: Reason, home: Home = None) -> None:
    """Make an adapter (or `base` alone) the candidate, or what customers get; it is loaded first."""
    from studio.services.promotion import BASE_ALONE, SAID

    with services(home) as tonesmith:
        tonesmith.serving.adopt(required=name != "base")
        now = tonesmith.promotion.promote(alias, name, reason)
    out.print(f"{now.adapter or BASE_ALONE} is {SAID[alias]}.", markup=False)


def rollback(alias: AliasName, reason: Reason, home: Home = None) -> None:
    """Go back to the candidate, or to what customers got, before the last promotion."""
    from studio.services.promotion import BASE_ALONE, SAID

    with services(home) as tonesmith:
        tonesmith.serving.adopt(required=False)
        now = tonesmith.promotion.roll_back(alias, reason)
    gone = alias == "candidate" and now.change is None
    out.print("There is no candidate now." if gone else f"{now.adapter or BASE_ALONE} is {SAID[alias]}.", markup=False)


def canary(
    share: Annotated[float, typer.Argument(min=0, max=1, help="Of people, 0 to 1.")], reason: Reason, home: Home = None
) -> None:
    """Let a share of people get the candidate, always the same ones."""
    with services(home) as tonesmith:
        now = tonesmith.promotion.set_share(share, reason)
    out.print(f"{now.share:.0%} of people get the candidate.", markup=False)


def aliases(home: Home = None, as_json: AsJson = False) -> None:
    """Show the candidate and what customers get, and every change of them."""
    from studio.services.promotion import BASE_ALONE

    with services(home) as tonesmith:
        now, history = tonesmith.promotion.current(), tonesmith.promotion.history()
    if as_json:
        print_json(now.model_dump(mode="json") | {"history": [entry.model_dump(mode="json") for entry in history]})
        return
    out.print(f"What customers get: {now.production.adapter or BASE_ALONE}", markup=False)
    candidate = (now.candidate.adapter or BASE_ALONE) if now.candidate.change else "none"
    out.print(f"Candidate: {candidate}, for {now.share:.0%} of people", markup=False)
    shown = Table("When (UTC)", "What", "Reason", "By")
    for entry in history:
        shown.add_row(f"{entry.made_at:%Y-%m-%d %H:%M}", _plain(entry.what), _plain(entry.reason), entry.author)
    out.print(shown)


def compare(
    message: str,
    adapter: Annotated[
        list[str], typer.Option(help="Adapter to compare with the base; give several for up to four sides.")
    ],
    home: Home = None,
    vote: Annotated[
        Literal["left", "right", "third", "fourth", "tie", "both_bad"] | None,
        typer.Option(help="Vote at once, for a script."),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.7,
    as_json: AsJson = False,
) -> None:
    """Ask the base and one to three adapters the same, blind, and vote; the names come after the vote."""
    from annotation.store.comparisons import VoteForm
    from annotation.types import PLACES
    from studio.parts.reveal import not_blind
    from studio.services.compare import LiveRound, RoundForm, SideOf

    async def ask() -> LiveRound:
        sides = tuple(SideOf(model=model, temperature=temperature) for model in ("base", *adapter))
        live = [live async for live in tonesmith.compare.ask(message, RoundForm(sides=sides))][-1]
        if live.problem or not live.comparison_id:
            raise UserError(live.problem or "No replies came.")
        return live

    with services(home) as tonesmith:
        tonesmith.serving.adopt()
        live = asyncio.run(ask())
        places = PLACES[: len(live.texts)]
        if not as_json:
            for place, text in zip(places, live.texts, strict=True):
                out.print(f"[bold]{place.capitalize()}[/]\n{_plain(text)}\n")
        outcome = vote or _asked(places)
        voted = tonesmith.compare.vote(live.comparison_id or "", VoteForm(outcome=outcome))
    sides = {place: answer.provenance.asked_as for place, answer in voted.answers.items()}
    if as_json:
        texts = {f"{place}_text": answer.text for place, answer in voted.answers.items()}
        print_json({"comparison": voted.id, "outcome": outcome, **sides, **texts, "gives_away": voted.gives_away})
    else:
        who = ", ".join(f"{place} was {name}" for place, name in sides.items())
        out.print(f"Voted {outcome}. {who[0].upper()}{who[1:]}.", markup=False)
        if voted.gives_away:
            out.print(not_blind(voted), markup=False)


def _asked(places: Sequence[Place]) -> Pick:
    from rich.prompt import Prompt

    keys = VOTES | {key: pick for key, pick in MORE_VOTES.items() if pick in places}
    words = ", ".join(f"({key}) {pick.replace('_', ' ')}" for key, pick in keys.items())
    return keys[Prompt.ask(words, choices=list(keys))]


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
