"""Collect and review: `import`, `charter`, `demo-data`, `chat`, `review`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from annotation.errors import UserError
from annotation.queue import MAIN
from studio.cli.context import AsJson, Home, out, print_json, services

if TYPE_CHECKING:
    from annotation.store.reviews import Verdict
    from studio.services.review import ReviewItem

review_app = typer.Typer(help="Judge and correct replies.", no_args_is_help=True)
VALUES = {"pass", "fail", "unsure"}


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("import")(import_log)
    app.command("charter")(charter)
    app.command("demo-data")(demo_data)
    app.command("chat")(chat)
    app.command("suggest")(suggest)
    review_app.command("next")(review_next)
    review_app.command("save")(review_save)
    review_app.command("skip")(review_skip)
    app.add_typer(review_app, name="review")


def import_log(file: Path, home: Home = None, as_json: AsJson = False) -> None:
    """Bring in a chat log (.jsonl or .csv). Bad lines are refused by number; exit code 1 if any was."""
    from rich.progress import Progress

    from annotation.importers.chat_logs import import_file

    with services(home) as tonesmith, Progress(console=out, transient=True, disable=as_json) as progress:
        task = progress.add_task("Reading", total=1.0)
        report = import_file(tonesmith.store, file, report=lambda share: progress.update(task, completed=share))
    if as_json:
        print_json(report.model_dump())
    else:
        out.print(report.sentence())
        for refused in report.refused:
            out.print(f"  line {refused.line}: {refused.reason}", markup=False)
    if report.refused:
        raise typer.Exit(1)


def charter(file: Path, home: Home = None) -> None:
    """Keep a charter file (.md or .toml) as the newest version, unless somebody kept one after that the file names."""
    from annotation.charter import read_charter
    from annotation.errors import Conflict

    with services(home) as tonesmith:
        read = read_charter(file)
        # One's own versions are no surprise: whoever edits one file again and again need not count in it.
        news = [card for card in tonesmith.charter.versions() if card.author != tonesmith.who.name]
        stated = "version" in read.model_fields_set and any(card.version > read.version for card in news)
        try:
            kept = tonesmith.charter.save(read, based_on=read.version if stated else None)
        except Conflict as error:
            newest = tonesmith.charter.versions()[0].version
            todo = f"Put what version {newest} changed into {file}, write there that it is version {newest}, and "
            raise Conflict(error.found, f"A text made from version {newest}.", f"{todo}keep it again.") from error
    out.print(f"{kept.name}: version {kept.version}.", markup=False)


def demo_data(home: Home = None) -> None:
    """Fill the project with the demo's conversations and its starter set of corrections."""
    from studio.demo_project import seed

    with services(home) as tonesmith:
        added = seed(tonesmith.store)
    out.print(f"{added} conversations added." if added else "The demo's conversations are already here.")


def chat(
    message: str,
    home: Home = None,
    model: Annotated[
        str, typer.Option(help="`base`, a loaded adapter, `candidate`, or `production`: as customers get it.")
    ] = "base",
    conversation: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.7,
    as_json: AsJson = False,
) -> None:
    """Send one message to the running engine and stream the reply. It is kept for review."""
    from annotation.types import Sampling

    async def talk() -> dict[str, object]:
        shown, last = "", None
        async for last in tonesmith.chat.send(conversation, message, model, Sampling(temperature=temperature)):
            if not as_json:
                typer.echo(last.text[len(shown) :], nl=False)
                shown = last.text
        if last is None or last.problem:
            raise UserError(last.problem if last and last.problem else "No reply came.")
        turn = last.turn
        adapter = turn.provenance.adapter if turn and turn.provenance else None
        kept: dict[str, object] = {
            "conversation": last.conversation_id,
            "reply": turn.id if turn else None,
            "adapter": adapter,
        }
        return kept | {"text": last.text}

    with services(home) as tonesmith:
        tonesmith.serving.adopt()
        said = asyncio.run(talk())
    if as_json:
        print_json(said)
    else:
        typer.echo("")


def suggest(
    home: Home = None,
    model: Annotated[str, typer.Option(help="`base`, or the name of a loaded adapter.")] = "base",
    words: Annotated[str, typer.Option(help="Only conversations with these words.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
) -> None:
    """Let a model suggest answers about waiting replies. Ctrl-C stops; the same command goes on from there."""
    from rich.progress import Progress

    from annotation.store.search import Filter

    async def go() -> int:
        with Progress(console=out, transient=True) as progress:
            task = progress.add_task("Asking the model", total=None)
            done = 0
            async for step in tonesmith.suggest.suggest(Filter(state="waiting", text=words), model, limit):
                progress.update(task, completed=step.done, total=step.of)
                done = step.done
        return done

    with services(home) as tonesmith:
        tonesmith.serving.adopt()
        done = asyncio.run(go())
    out.print(f"{done} replies have suggestions of {model}.", markup=False)


def review_next(
    home: Home = None,
    queue: Annotated[str, typer.Option(help="Which queue to take it from.")] = MAIN,
    as_json: AsJson = False,
) -> None:
    """Show the next reply waiting for review."""
    with services(home) as tonesmith:
        item = tonesmith.review.next(queue)
        waiting = tonesmith.review.counts()["waiting"]
    if as_json:
        print_json({"waiting": waiting, "item": _as_record(item) if item else None})
    elif item is None:
        out.print("Nothing waits for review.")
    else:
        out.print(f"{waiting} waiting. This one is {item.reply.id}:\n")
        for turn in item.conversation.turns:
            out.print(f"{turn.role}: {turn.text}\n", markup=False)


def review_save(
    reply: Annotated[str, typer.Argument(help="Id of the reply, from `review next`.")],
    home: Home = None,
    voice: Annotated[str | None, typer.Option(help="pass, fail or unsure")] = None,
    policy: Annotated[str | None, typer.Option(help="pass, fail or unsure")] = None,
    bias: Annotated[str | None, typer.Option(help="pass, fail or unsure")] = None,
    correct: Annotated[str | None, typer.Option(help="The reply as it should have been.")] = None,
) -> None:
    """Judge a reply, correct it, or both."""
    from studio.services.review import ReviewForm

    answers = {"voice": voice, "policy": policy, "bias": bias}
    with services(home) as tonesmith:
        item = tonesmith.review.open(reply)
        form = ReviewForm(
            act_id=item.act_id, reply_id=reply, verdicts=_verdicts(answers), corrected=correct or item.reply.text
        )
        tonesmith.review.save(form)
        waiting = tonesmith.review.counts()["waiting"]
    out.print(f"Saved. {waiting} waiting.")


def review_skip(reply: str, home: Home = None, reason: str = "no reason given") -> None:
    """Set a reply aside."""
    with services(home) as tonesmith:
        item = tonesmith.review.open(reply)
        tonesmith.review.skip(item.act_id, reply, reason)
    out.print("Skipped.")


def _verdicts(answers: dict[str, str | None]) -> tuple[Verdict, ...]:
    from annotation.store.reviews import Verdict

    for question, value in answers.items():
        if value is not None and value not in VALUES:
            raise UserError(f"--{question} is '{value}'.", "One of pass, fail or unsure.")
    given = {question: value for question, value in answers.items() if value}
    return tuple(Verdict.model_validate({"question": question, "value": value}) for question, value in given.items())


def _as_record(item: ReviewItem) -> dict[str, object]:
    return {
        "reply": item.reply.id,
        "text": item.reply.text,
        "messages": [turn.as_message().as_chat() for turn in item.conversation.turns],
    }
