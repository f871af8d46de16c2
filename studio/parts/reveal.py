"""What is shown of a comparison once its vote is in."""

from __future__ import annotations

from html import escape

from annotation.experiments import all_tokens
from annotation.store.comparisons import Answer, Comparison
from annotation.types import Provenance
from studio.parts.diff import diff_html
from studio.parts.versus import name_of, pane
from studio.parts.words import badge, beside_cheapest, count, sworn


def revealed(comparison: Comparison) -> list[str]:
    """The panes with names and figures."""
    sides = len(comparison.answers)
    least = min(filter(None, map(_tokens, comparison.answers.values())), default=None)
    return [
        pane(
            place,
            answer.text,
            _who(answer),
            comparison.outcome == place,
            sides=sides,
            before=list(zip(answer.earlier, comparison.later, strict=True)),
            below=_figures(answer, least),
        )
        for place, answer in comparison.answers.items()
    ]


def _who(answer: Answer) -> str:
    made = answer.provenance
    parts = [badge(made.adapter, "good") if made.adapter else badge(made.model if made.elsewhere else "base model")]
    if answer.system:
        parts.append(f'<span title="{escape(answer.system)}">{badge("with instructions")}</span>')
    return f'<span class="ts-badges">{" ".join((*parts, sworn(made)))}</span>'


def _tokens(answer: Answer) -> int | None:
    return all_tokens(answer.prompt_tokens, answer.completion_tokens)


def _figures(answer: Answer, least: int | None) -> str:
    """Tokens, seconds, and what it costs beside the cheapest one."""
    said, tokens = [], _tokens(answer)
    if tokens is not None and least:
        said.append(f"read {count(answer.prompt_tokens or 0, 'token')}, wrote {answer.completion_tokens:,}")
        said.append(beside_cheapest(tokens, least))
    if answer.provenance.seconds is not None:
        said.append(f"{answer.provenance.seconds:.1f} s")
    return f'<p class="ts-small ts-muted ts-figures">{" · ".join(said)}</p>' if said else ""


def reveal_html(comparison: Comparison) -> str:
    """What the vote said, and what becomes of it."""
    best = comparison.answers[comparison.best] if comparison.best else None
    every = "both" if len(comparison.answers) == 2 else "all"
    if best is not None:
        what = f"You preferred {_named(best.provenance)}."
        then = "It goes into the next dataset version as the better one of a pair."
        if any(answer.earlier != best.earlier for answer in comparison.answers.values()):
            then = (
                "The replies went on from different words, so they make no pair. You can still correct the better one."
            )
    elif comparison.outcome == "tie":
        what, then = "You called it even.", "A tie makes no pair."
    else:
        what = f"You called {every} bad."
        then = f"None is learned from. {every.capitalize()} wait for a correction at the review desk."
    if comparison.gives_away:
        then += f" {not_blind(comparison)}"
    return f'<div class="ts-notice ts-good" role="status"><b>{escape(what)}</b> {escape(then)}</div>'


def not_blind(comparison: Comparison) -> str:
    """That a reply told who it is, before the names were out."""
    return f"A reply gave its side away: it says “{comparison.gives_away}”, so this vote may not have been blind."


def _named(made: Provenance) -> str:
    if made.adapter:
        return f"the tuned model, {made.adapter}"
    return f"{made.model}, of the server at {made.elsewhere}" if made.elsewhere else "the base model"


def diff_of_all_html(comparison: Comparison) -> str:
    """Word differences of each other reply from the one that stands first."""
    (first, one), *others = comparison.answers.items()
    sides = len(comparison.answers)
    parts = [
        f"<p><b>From {name_of(first, sides).lower()} to {name_of(place, sides).lower()}</b></p>"
        f'<div class="ts-diff" dir="auto">{diff_html(one.text, other.text)}</div>'
        for place, other in others
    ]
    return f'<details id="ts-differs"><summary>What differs, word by word</summary>{"".join(parts)}</details>'


def problem_html(problem: str) -> str:
    """Why there is nothing to vote on."""
    return f'<div class="ts-notice ts-bad" role="alert">{escape(problem)}</div>'


def tally_html(tally: dict[str, int]) -> str:
    """The votes so far, in figures without a verdict: a handful of votes proves nothing."""
    votes = sum(tally.values())
    if not votes:
        return '<p class="ts-small ts-muted">No votes yet.</p>'
    others = f"a model of another server {tally['elsewhere']} ×, " if tally["elsewhere"] else ""
    return (
        f'<p class="ts-small ts-muted">{count(votes, "vote")} so far: the tuned model was preferred '
        f"{tally['tuned']} ×, the base {tally['base']} ×, {others}about the same {tally['tie']} ×, "
        f"both bad {tally['both_bad']} ×.</p>"
    )
