"""Experiments: `experiment new|list|status|next|vote|stop|resume|judge|end|results|export`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from pydantic import ValidationError
from rich.table import Table

from annotation.errors import UserError
from annotation.files import write_whole
from annotation.types import Outcome, Question
from studio.cli.context import AsJson, Home, out, print_json, services

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from annotation.experiments import BallotForm, Experiment
    from studio.services import Services
    from studio.services.experiments import Shown, SideForm
    from studio.services.judged import Judged
    from studio.services.judging import JudgeProgress
    from studio.services.results import Results

experiment_app = typer.Typer(
    help="Compare models on many questions, blind, with figures one can believe.", no_args_is_help=True
)
Which = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Its name, or the beginning of its id.")]
POLL_SECONDS = 0.5
KEYS: dict[str, Outcome] = {"1": "left", "2": "tie", "3": "both_bad", "4": "right"}
SIDE_WORDS = (
    "base, or an adapter; after it may stand 'guide' (the charter's instructions come before each question), "
    "'temperature=0.3', and last 'instructions=FILE' for others, as in --side 'base temperature=0.3 guide'"
)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (new, status, vote, stop, resume, judge, end, results, export):
        experiment_app.command()(command)
    experiment_app.command("list")(list_all)
    experiment_app.command("next")(next_pair)
    app.add_typer(experiment_app, name="experiment")


def new(
    name: Annotated[str, typer.Argument(help="What you want to know.")],
    side: Annotated[list[str], typer.Option(help=f"What to compare, two to four times: {SIDE_WORDS}.")],
    questions: Annotated[
        Path | None,
        typer.Option(help="File with one question a line; without it, what the newest dataset held back."),
    ] = None,
    ask: Annotated[list[str] | None, typer.Option(help="Ask also about voice, policy or bias; give several.")] = None,
    votes_each: Annotated[int, typer.Option(min=1, max=20, help="People for each pair.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Of sides that name none.")] = 0.7,
    longest: Annotated[int, typer.Option(min=1, max=4096, help="Longest reply, in tokens.")] = 200,
    controls: Annotated[bool, typer.Option(help="Mix in checks on the voters.")] = True,
    wait: Annotated[bool, typer.Option(help="Draw the replies now; else a running studio does.")] = True,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Freeze an experiment and draw its replies. Ctrl-C leaves it; a running studio goes on from there."""
    from studio.services.experiments import ExperimentForm

    with services(home) as tonesmith:
        tonesmith.serving.adopt(required=wait)
        form = ExperimentForm(
            name=name,
            sides=tuple(_side(one, temperature) for one in side),
            prompts=_read(questions) if questions else "",
            criteria=_criteria(ask or []),
            votes_each=votes_each,
            longest=longest,
            controls=controls,
        )
        made = tonesmith.experiments.start(form)
        if wait:
            _draw(tonesmith, made, quiet=as_json)
        _say_status(tonesmith, made, as_json)


def list_all(home: Home = None, as_json: AsJson = False) -> None:
    """List the experiments, newest first."""
    with services(home) as tonesmith:
        there = tonesmith.experiments.all()
    if as_json:
        print_json([_record(one) for one in there])
        return
    shown = Table("Id", "Question", "Sides", "Pairs of", "By", "State")
    for one in there:
        sides = ", ".join(side.name for side in one.design.sides)
        state = "ended" if one.ended_at else "open"
        about = (_plain(one.design.name), _plain(sides), f"{len(one.design.prompts)} questions", one.author, state)
        shown.add_row(one.id[:8], *about)
    out.print(shown)


def status(experiment: Which, home: Home = None, as_json: AsJson = False) -> None:
    """How far an experiment has come, without telling who leads."""
    with services(home) as tonesmith:
        _say_status(tonesmith, tonesmith.experiments.find(experiment), as_json)


def next_pair(experiment: Which, home: Home = None, as_json: AsJson = False) -> None:
    """Show the next pair for you to judge, without naming its sides."""
    with services(home) as tonesmith:
        shown = tonesmith.experiments.next(tonesmith.experiments.find(experiment).id)
    if as_json:
        print_json(shown.model_dump(mode="json") if shown else None)
    elif shown is None:
        out.print("There is nothing left for you to judge here.")
    else:
        _show(shown)


def vote(
    experiment: Which,
    pair: Annotated[str | None, typer.Option(help="Judge this pair at once, for a script; from `next --json`.")] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="What you say of --pair.")] = None,
    comment: Annotated[str, typer.Option(help="Why, with --pair.")] = "",
    home: Home = None,
) -> None:
    """Judge pairs blind: 1 left, 2 the same, 3 both bad, 4 right. q leaves; each vote is saved as it is given."""
    from annotation.experiments import BallotForm

    if (pair is None) != (outcome is None):
        raise UserError("--pair and --outcome go together.", do="Give both, or neither to be asked pair by pair.")
    with services(home) as tonesmith:
        found = tonesmith.experiments.find(experiment)
        if pair and outcome:
            tonesmith.experiments.vote(pair, BallotForm(outcome=outcome, comment=comment))
            out.print("Saved.")
            return
        judged = 0
        while (shown := tonesmith.experiments.next(found.id)) and (form := _asked(shown)):
            tonesmith.experiments.vote(shown.pair_id, form)
            judged += 1
    rest = "" if shown else " There is nothing left for you to judge here."
    out.print(f"{judged} judged.{rest}")


def stop(experiment: Which, home: Home = None) -> None:
    """Draw no more replies for an experiment, and let no model judge it, until `resume`."""
    with services(home) as tonesmith:
        found = tonesmith.experiments.find(experiment)
        tonesmith.drawing.cancel(tonesmith.who, found.id)
        for one in tonesmith.judging.progress(found.id):
            tonesmith.judge_runner.cancel(tonesmith.who, one.asked.id)
    out.print("Stopped. What is there stays.")


def resume(experiment: Which, home: Home = None, as_json: AsJson = False) -> None:
    """Go on drawing replies and judging. Ctrl-C leaves it; a running studio goes on from there."""
    with services(home) as tonesmith:
        tonesmith.serving.adopt()
        found = tonesmith.experiments.find(experiment)
        tonesmith.drawing.resume(tonesmith.who, found.id)
        _draw(tonesmith, found, quiet=as_json)
        for one in tonesmith.judging.progress(found.id):
            tonesmith.judge_runner.resume(tonesmith.who, one.asked.id)
            _judge(tonesmith, found, one.asked.id, quiet=as_json)
        _say_status(tonesmith, found, as_json)


def judge(
    experiment: Which,
    model: Annotated[
        str, typer.Option(help="`base`, a loaded adapter, or `elsewhere` for the model at TONESMITH_JUDGE_URL.")
    ] = "base",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let a model judge each pair in both orders, apart from people. The same command goes on where it was."""
    with services(home) as tonesmith:
        tonesmith.serving.adopt(required=model != "elsewhere")
        found = tonesmith.experiments.find(experiment)
        asked = tonesmith.judging.ask(found.id, model)
        tonesmith.judge_runner.resume(tonesmith.who, asked.id)
        done = _judge(tonesmith, found, asked.id, quiet=as_json)
    if as_json:
        print_json(_judge_record(done))
        return
    out.print(f"{asked.judge.name}: {done.answers} answers, {done.no_verdict} without a verdict.", markup=False)
    if not found.ended_at:
        out.print("What it thinks is shown when the experiment has ended.")


def end(experiment: Which, reason: Annotated[str, typer.Option(help="Why now.")] = "", home: Home = None) -> None:
    """Take no more votes; from now on the sides may be named."""
    with services(home) as tonesmith:
        ended = tonesmith.experiments.end(tonesmith.experiments.find(experiment).id, reason)
    out.print(f"{ended.design.name}: ended by {ended.ended_by}.", markup=False)


def results(
    experiment: Which,
    judge_no_more: Annotated[
        bool,
        typer.Option(
            "--judge-no-more", help="Before the end: show them, though you can't judge in this experiment from then on."
        ),
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The figures, and after the end, apart from them, what models think."""
    from studio.services.judged import all_judged
    from studio.services.results import results_of

    with services(home) as tonesmith:
        votes = tonesmith.experiments.votes(tonesmith.experiments.find(experiment).id, judge_no_more)
        judges = tonesmith.judging.verdicts(votes[0].id) if votes[0].ended_at else []
        prices = tonesmith.settings.prices
    found, judged = results_of(*votes, prices), all_judged(*votes, judges)
    if as_json:
        people = found.model_dump(mode="json", exclude={"experiment"})
        models = [{"judge": one.asked.judge.name} | one.model_dump(mode="json", exclude={"pairs"}) for one in judged]
        print_json({"experiment": _record(found.experiment), "people": people, "models": models})
        return
    _say_results(found)
    for one in judged:
        _say_judged(one)


def export(
    experiment: Which,
    to: Annotated[Path | None, typer.Option(help="File to write; without it, standard output.")] = None,
    home: Home = None,
) -> None:
    """All of an experiment that has ended, as lines of JSON."""
    with services(home) as tonesmith:
        lines = tonesmith.experiments.export(tonesmith.experiments.find(experiment).id)
    text = "\n".join(lines) + "\n"
    if to is None:
        typer.echo(text, nl=False)
        return
    try:
        write_whole(to, text)
    except OSError as error:
        raise UserError(f"{to} can't be written: {error.strerror}.", do="Choose another file with --to.") from error
    out.print(f"{len(lines)} lines in {to}.", markup=False)


def _side(said: str, temperature: float) -> SideForm:
    """A side out of its words: SIDE_WORDS says which."""
    from studio.services.experiments import SideForm

    before, own, file = said.partition(" instructions=")
    model, *words = before.split() or [""]
    given: dict[str, object] = {"model": model, "temperature": temperature}
    for word in words:
        key, _, value = word.partition("=")
        if word == "guide":
            given["guide"] = True
        elif key == "temperature" and value:
            given["temperature"] = value
        else:
            raise UserError(f"--side is '{said}'.", f"{SIDE_WORDS}.", f"Take '{word}' out.")
    if own and "guide" in given:
        raise UserError(f"--side is '{said}'.", "'guide' or 'instructions=FILE'.", "Take one of them out.")
    if own:
        given["own"] = _read(Path(file), "A text file with the instructions.")
    try:
        return SideForm.model_validate(given)
    except ValidationError as error:
        raise UserError(f"--side is '{said}'.", "A temperature from 0 to 2.") from error


def _criteria(asked: Sequence[str]) -> tuple[Question, ...]:
    known: tuple[Question, ...] = get_args(Question)
    if unknown := [one for one in asked if one not in known]:
        raise UserError(f"--ask is '{unknown[0]}'.", f"One of {', '.join(known)}.")
    return tuple(one for one in known if one in asked)


def _read(path: Path, wanted: str = "A text file with one question a line.") -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}.", wanted) from error


def _draw(tonesmith: Services, experiment: Experiment, quiet: bool) -> None:
    """Draw what is lacking, here or in a studio that does already."""
    tonesmith.drawing.start()

    def step() -> tuple[int, int]:
        standing = tonesmith.experiments.standing(experiment.id)
        over = standing.experiment.ended_at or tonesmith.drawing.halted(experiment.id)
        return standing.drawn, standing.drawn if over else standing.planned

    _follow("Drawing replies", step, lambda: tonesmith.drawing.view().trouble, quiet)


def _judge(tonesmith: Services, experiment: Experiment, judge_id: str, quiet: bool) -> JudgeProgress:
    """Judge what is lacking, here or in a studio that does already."""
    runner = tonesmith.judge_runner

    def progress() -> JudgeProgress:
        return next(one for one in tonesmith.judging.progress(experiment.id) if one.asked.id == judge_id)

    def step() -> tuple[int, int]:
        one = progress()
        return one.answers, one.answers if one.halted else one.of

    _follow("Judging", step, lambda: runner.trouble(judge_id), quiet)
    return progress()


def _follow(what: str, step: Callable[[], tuple[int, int]], trouble: Callable[[], str], quiet: bool) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=quiet) as progress:
        task = progress.add_task(what, total=None)
        while True:
            done, of = step()
            progress.update(task, completed=done, total=of)
            if done >= of:
                return
            if found := trouble():
                raise UserError(found, do=f"{done} of {of} are kept; `tonesmith experiment resume` goes on from there.")
            time.sleep(POLL_SECONDS)


def _say_status(tonesmith: Services, experiment: Experiment, as_json: bool) -> None:
    from studio.parts.words import count

    standing = tonesmith.experiments.standing(experiment.id)
    judges = tonesmith.judging.progress(experiment.id)
    halted = tonesmith.drawing.halted(experiment.id)
    if as_json:
        figures = standing.model_dump(mode="json", exclude={"experiment"})
        models = [_judge_record(one) for one in judges]
        print_json(_record(standing.experiment) | figures | {"stopped": halted, "judges": models})
        return
    out.print(f"{experiment.design.name}  ({experiment.id[:8]})", markup=False)
    state = "ended" if standing.experiment.ended_at else "stopped" if halted else "open"
    out.print(f"State     {state}, {standing.drawn} of {standing.planned} pairs drawn")
    out.print(f"Votes     {standing.ballots} by {count(standing.voters, 'person', 'people')}")
    for reason, number in standing.not_dealt.items():
        out.print(f"Aside     {count(number, 'pair')}: {reason}", markup=False)
    for one in judges:
        stopped = ", stopped" if one.halted and one.answers < one.of else ""
        said = f"{one.answers} of {one.of} answers, {one.no_verdict} without a verdict{stopped}"
        out.print(f"Judge     {one.asked.judge.name}: {said}", markup=False)


def _show(shown: Shown) -> None:
    out.print(f"[bold]Number {shown.done + 1} of {shown.of} for you[/]")
    for message in shown.prompt:
        if message.role != "system":
            out.print(f"{'Customer' if message.role == 'user' else 'Reply'}: {_plain(message.text)}")
    out.print(f"\n[bold]Left[/]\n{_plain(shown.left)}\n\n[bold]Right[/]\n{_plain(shown.right)}\n")


def _asked(shown: Shown) -> BallotForm | None:
    """What somebody at the terminal says about a pair, None if they leave."""
    from rich.prompt import Prompt

    from annotation.experiments import BallotForm
    from studio.parts.versus import ASKED

    _show(shown)
    began = time.monotonic()
    words = "(1) left is better, (2) about the same, (3) both are bad, (4) right is better, (q) leave"
    key = Prompt.ask(words, choices=[*KEYS, "q"], show_choices=False)
    if key == "q":
        return None
    criteria: dict[Question, Outcome] = {}
    for question in shown.criteria:
        said = Prompt.ask(
            f"{ASKED[question]} (1 2 3 4, or Enter)",
            choices=[*KEYS, ""],
            show_choices=False,
            default="",
            show_default=False,
        )
        if said:
            criteria[question] = KEYS[said]
    return BallotForm(outcome=KEYS[key], criteria=criteria, seconds=round(time.monotonic() - began, 1))


def _say_results(found: Results) -> None:
    from studio.parts.results import headline
    from studio.parts.words import NAMES

    for versus in found.versus:
        out.print(f"[bold]{_plain(versus.one)} against {_plain(versus.other)}[/]")
        out.print(headline(versus.overall, versus.one, versus.other), markup=False)
        heads = (f"For {_plain(versus.one)}", f"For {_plain(versus.other)}", "Same", "Both bad", "Share", "Interval")
        shown = Table("", *heads)
        lines = {"Overall": versus.overall} | {NAMES[name]: one for name, one in versus.criteria.items()}
        for name, one in lines.items():
            counts = [str(number) for number in (one.wins, one.losses, one.ties, one.both_bad)]
            share = "–" if one.win_rate is None else f"{one.win_rate:.2f}"
            shown.add_row(
                name, *counts, share, "–" if one.interval is None else "{:.2f} to {:.2f}".format(*one.interval)
            )
        out.print(shown)


def _say_judged(judged: Judged) -> None:
    from studio.parts.judged import HEADS, headline, rows_of

    name = _plain(judged.asked.judge.name)
    out.print(f"\n[bold]What a model thinks: {name}[/]  (not counted above)")
    out.print(f"{judged.answers} of {judged.of} answers, {judged.no_verdict} without a verdict")
    for versus in judged.versus:
        out.print(headline(versus.lines[0].found), markup=False)
        shown = Table("", *HEADS, f"Its share for {_plain(versus.one)}")
        for cells in rows_of(versus):
            shown.add_row(*(_plain(cell) for cell in cells))
        out.print(shown)


def _record(experiment: Experiment) -> dict[str, object]:
    return {
        "id": experiment.id,
        "name": experiment.design.name,
        "sides": [side.name for side in experiment.design.sides],
        "questions": len(experiment.design.prompts),
        "sha256": experiment.sha256,
        **experiment.model_dump(mode="json", include={"author", "made_at", "ended_at", "ended_by", "reason"}),
    }


def _judge_record(one: JudgeProgress) -> dict[str, object]:
    judge = one.asked.judge
    about = {"judge": one.asked.id, "model": judge.name, "elsewhere": judge.elsewhere, "sha256": one.asked.sha256}
    return about | one.model_dump(mode="json", exclude={"asked"})


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
