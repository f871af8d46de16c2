"""People and how far they agree: `people list|add|change|link|password`, `agreement`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from annotation.errors import UserError
from studio.cli.context import AsJson, Home, out, print_json, services

if TYPE_CHECKING:
    from annotation.people import Role

people_app = typer.Typer(help="Who works here, with which role.", no_args_is_help=True)
RoleName = Annotated[str, typer.Option(help="viewer, reviewer, curator or admin")]
Skills = Annotated[str | None, typer.Option(help="Separated by commas, for example: de,lending")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    people_app.command("list")(people)
    people_app.command("add")(add)
    people_app.command("change")(change)
    people_app.command("link")(link)
    people_app.command("password")(password)
    app.add_typer(people_app, name="people")
    app.command("agreement")(agreement)


def people(home: Home = None, as_json: AsJson = False) -> None:
    """List everybody."""
    with services(home) as tonesmith:
        found = tonesmith.team.people()
    if as_json:
        print_json([person.model_dump(mode="json") for person in found])
        return
    shown = Table("Name", "Role", "Skills")
    for person in found:
        shown.add_row(person.name, person.role if person.active else "closed", ", ".join(person.skills))
    out.print(shown)


def add(name: str, home: Home = None, role: RoleName = "reviewer", skills: Skills = None) -> None:
    """Add somebody; prints the path of a link that signs them in, once, within half an hour."""
    with services(home) as tonesmith:
        tonesmith.team.add(name, _role(role), _listed(skills))
        token = tonesmith.team.link(name)
    typer.echo(f"/welcome/{token}")


def change(
    name: str,
    home: Home = None,
    role: Annotated[str | None, typer.Option(help="viewer, reviewer, curator or admin")] = None,
    skills: Skills = None,
    close: Annotated[bool | None, typer.Option("--close/--open", help="Close the account, or open it again.")] = None,
) -> None:
    """Change somebody's role or skills, or close their account."""
    with services(home) as tonesmith:
        person = tonesmith.team.change(
            name,
            role=_role(role) if role else None,
            skills=_listed(skills) if skills is not None else None,
            active=None if close is None else not close,
        )
    state = person.role if person.active else "closed"
    out.print(f"{person.name}: {state}.", markup=False)


def link(name: str, home: Home = None) -> None:
    """Print the path of a link that signs somebody in, once, within half an hour."""
    with services(home) as tonesmith:
        token = tonesmith.team.link(name)
    typer.echo(f"/welcome/{token}")


def password(name: str, home: Home = None) -> None:
    """Ask for a new password, and set it."""
    given = typer.prompt("New password", hide_input=True, confirmation_prompt=True)
    with services(home) as tonesmith:
        tonesmith.team.set_password(name, given)
    out.print("Set.")


def agreement(home: Home = None, as_json: AsJson = False) -> None:
    """How far reviewers agree on each question."""
    from annotation.acts import QUESTIONS

    with services(home) as tonesmith:
        found = [tonesmith.quality.agreement(question) for question in QUESTIONS]
    figures = {one.question: {"alpha": one.alpha, "ac1": one.ac1, "raw": one.raw} for one in found}
    if as_json:
        print_json({question: {name: vars(one) for name, one in given.items()} for question, given in figures.items()})
        return
    shown = Table("Question", "Alpha", "AC1", "Say the same", "Replies")
    for question, given in figures.items():
        cells = [f"{one.value:.2f}" if one.value is not None else one.words for one in given.values()]
        shown.add_row(question, *cells, str(given["alpha"].units))
    out.print(shown)


def _role(name: str) -> Role:
    from annotation.people import ROLES

    if name not in ROLES:
        raise UserError(f"There is no role '{name}'.", f"One of {', '.join(ROLES)}.")
    return name


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
