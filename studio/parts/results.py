"""An experiment's figures, for people who are no statisticians."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import exp
from typing import TYPE_CHECKING

from studio.parts.plots import intervals
from studio.parts.words import NAMES, badge, beside_cheapest, count, empty, listed, table

if TYPE_CHECKING:  # statsmodels takes seconds to import; the page is laid out without it
    from serving.statistics import Verdict
    from studio.services.results import Checks, Results, SideCost, Versus
    from studio.services.standings import Ranked


def results_html(results: Results) -> str:
    """All of it: the verdict first, then how sure, then what to know about it."""
    parts = [_versus(one) for one in results.versus]
    if results.strengths:
        rows = [(one.name, _chance(one.strength), _chance(one.low), _chance(one.high)) for one in results.strengths]
        said = dict.fromkeys(one.words for one in results.strengths if one.words)
        plot = intervals(rows, "Chance to be preferred to the average one")
        parts.append("<h3>All of them in one order</h3>" + plot + listed(list(said)))
    parts += [_checks(results.checks), _costs(results)]
    frozen = f"Frozen before the first vote as {results.experiment.sha256[:12]}."
    return "".join(parts) + f'<p class="ts-small ts-muted">{escape(frozen)}</p>'


def standings_html(ranked: Sequence[Ranked]) -> str:
    """Every model that was compared, best first; those that no vote joins stand apart."""
    if not ranked:
        return empty("No votes to go by yet", "Every experiment that has ended counts here.")
    rows = [
        [
            str(place),
            escape(one.strength.name),
            _share(one.strength.strength),
            _from_to(one.strength.low, one.strength.high),
            f"{one.strength.votes:,}",
            str(one.experiments),
        ]
        for place, one in enumerate(ranked, start=1)
    ]
    heads = ("Place", "Model", "Against the average one", "95% of the time", "Votes", "Experiments")
    drawn = [
        (one.strength.name, _chance(one.strength.strength), _chance(one.strength.low), _chance(one.strength.high))
        for one in ranked
    ]
    said = [
        "Votes of people in all experiments that have ended; a prompt that two of them asked counts as one.",
        "For one look at the votes. Where bars overlap, the order may be chance: let the two meet in an experiment.",
        *dict.fromkeys(one.strength.words for one in ranked if one.strength.words),
    ]
    plot = intervals(drawn, "Chance to be preferred to the average model, where a vote is no tie")
    return plot + table(heads, rows) + listed(said)


def _share(strength: float | None) -> str:
    chance = _chance(strength)
    return "none" if chance is None else f"{chance:.0%}"


def _from_to(low: float | None, high: float | None) -> str:
    return "no interval" if low is None or high is None else f"{_share(low)} to {_share(high)}"


def headline(found: Verdict, one: str, other: str) -> str:
    """The verdict in a sentence."""
    votes = found.wins + found.losses + found.ties + found.both_bad
    if not votes:
        return "Nobody has voted on these two yet."
    if found.decided:
        loser = other if found.decided == one else one
        return f"{found.decided} is preferred over {loser}. You can stop."
    more = f" About {found.votes_left:,} more votes could settle it." if found.votes_left else ""
    return f"Too early to say: keep going.{more}"


def _versus(versus: Versus) -> str:
    found, one, other = versus.overall, versus.one, versus.other
    tone = "ts-good" if found.decided else ""
    head = f"<h3>{escape(one)} against {escape(other)}</h3>"
    said = f'<div class="ts-notice {tone}" role="status"><b>{escape(headline(found, one, other))}</b></div>'
    rows = [("Overall", found.win_rate, *_ends(found))]
    rows += [(NAMES[name], each.win_rate, *_ends(each)) for name, each in versus.criteria.items()]
    plot = intervals(rows, f"Share of votes for {one}, ties counted half; the bar is where the truth may lie")
    counts = table(
        ("", f"For {one}", f"For {other}", "Same", "Both bad", "Verdict"),
        [_row("Overall", found, str(found.both_bad), found.decided or "open")]
        + [
            _row(NAMES[name], each, str(each.both_bad), (versus.holds[name] and each.decided) or "open")
            for name, each in versus.criteria.items()
        ],
        stack=True,
    )
    return head + said + plot + counts + _notes(versus) + _slices(versus)


def _slices(versus: Versus) -> str:
    """The same votes by kind of question; '' where the questions are all of one kind."""
    slices = versus.overall.slices
    if not slices:
        return ""
    rows = [
        [
            escape(f"{each.respect.capitalize()}: {each.value}"),
            f"{each.win_rate:.0%}",
            "{:.0%} to {:.0%}".format(*each.interval),
            f"{each.wins}, {each.losses}, {each.ties}",
            f"{count(each.voters, 'person', 'people')}, {count(each.prompts, 'question')}",
            "too few to say" if each.few else escape(each.stands or "open"),
        ]
        for each in slices
    ]
    heads = ("Kind", f"Share for {versus.one}", "It may lie at", "For, against, same", "By", "Verdict")
    note = (
        f"Looking at {len(slices)} kinds finds some difference by chance. So each has to pass a bar {len(slices)} "
        "times as high as the votes together, and the ranges are wider; “open” is no sign that the kinds are alike."
    )
    return "<h4>By kind of question</h4>" + table(heads, rows, stack=True) + listed([note])


def _ends(found: Verdict) -> tuple[float | None, float | None]:
    return found.interval or (None, None)


def _row(name: str, found: Verdict, both_bad: str, said: str) -> list[str]:
    return [escape(name), str(found.wins), str(found.losses), str(found.ties), both_bad, escape(said)]


def _notes(versus: Versus) -> str:
    found = versus.overall
    notes = list(found.words)
    if found.clustered and found.clustered.low is not None and found.clustered.high is not None:
        low, high = f"{found.clustered.low:.0%}", f"{found.clustered.high:.0%}"
        notes.append(
            f"For one look alone: {low} to {high} of the votes for {versus.one}, with votes of one person, and "
            "votes on one question, going together."
        )
    if found.position:
        notes.append(f"Between equals, the left one is chosen {found.position.value:.0%} of the time.")
    if found.length_controlled:
        equal = found.length_controlled
        may = "" if equal.low is None or equal.high is None else f" ({equal.low:.0%} to {equal.high:.0%})"
        notes.append(f"At the same length, {versus.one} would have {equal.value:.0%} of the votes{may}.")
    if found.drop_k is not None:
        notes.append(f"Without {count(found.drop_k, 'vote')} the other one would lead.")
    if versus.policy:
        notes.append(policy_words(versus))
    return listed(notes)


def policy_words(versus: Versus) -> str:
    """Whether the one side keeps to the rules no less well, in words; '' where that was not asked."""
    if versus.policy is None:
        return ""
    held = "is not worse" if versus.policy.holds else "is not yet shown to be no worse"
    said = f"On policy, {versus.one} {held} than {versus.other}. {versus.policy.words}"
    return f"{said} This may be read after every vote."


def _chance(strength: float | None) -> float | None:
    """From logits to the share of decided votes against the average side."""
    return None if strength is None else 1 / (1 + exp(-strength))


def _checks(checks: Checks) -> str:
    rows = []
    if checks.controls:
        rows.append(("The same model twice", f"called even {checks.controls_even} of {checks.controls} times"))
    if checks.repeats:
        rows.append(("The same pair again", f"judged the same {checks.repeats_same} of {checks.repeats} times"))
    if checks.length_decided:
        rows.append(("The longer reply", f"preferred {checks.longer_won} of {checks.length_decided} times"))
    rows += [(f"Left aside: {reason}", count(number, "pair")) for reason, number in checks.not_dealt.items()]
    if not rows:
        return ""
    cells = [[escape(what), escape(said)] for what, said in rows]
    return "<h3>How far the votes can be trusted</h3>" + table(("Check", "What came of it"), cells)


def _costs(results: Results) -> str:
    least = min((one.tokens for one in results.costs if one.tokens), default=None)
    cells = [[_side(one), *_cost(one, least)] for one in results.costs]
    heads = ("Side", "Replies", "Tokens read", "Tokens written", "First token", "Seconds", "Cost", "Weights")
    notes = ["Of a reply, in the middle: half of them took more. What a side is told beforehand is read each time."]
    if any(one.seconds is not None for one in results.costs):
        notes.append("Seconds are to the last token while many replies were written at once; one alone comes sooner.")
    if all(one.price is None for one in results.costs):
        notes.append("Cost counts every token alike, until TONESMITH_PRICE_READ and TONESMITH_PRICE_WRITTEN are set.")
    return "<h3>What a reply costs</h3>" + table(heads, cells, stack=True) + listed(notes)


def _side(one: SideCost) -> str:
    return escape(one.name) + (badge(f"{one.cut_off} cut off", "warn") if one.cut_off else "")


def _cost(one: SideCost, least: float | None) -> list[str]:
    cost = "not said" if one.tokens is None or least is None else beside_cheapest(one.tokens, least)
    if one.price is not None:
        cost = f"{1000 * one.price:,.2f} for 1,000 replies, {cost}"
    return [
        str(one.replies),
        _number(one.prompt_tokens),
        _number(one.completion_tokens),
        "not measured" if one.first_token is None else f"{one.first_token:.2f} s",
        "not said" if one.seconds is None else f"{one.seconds:.1f} s",
        cost,
        _confirmed(one),
    ]


def _confirmed(one: SideCost) -> str:
    """Whether the engine itself said whose weights gave a side's replies."""
    if one.confirmed == one.replies:
        return badge("confirmed by the engine") if one.replies else ""
    some = f" for {one.replies - one.confirmed} of {one.replies}" if one.confirmed else ""
    return badge(f"not confirmed by the engine{some}", "warn")


def _number(value: float | None) -> str:
    return "not said" if value is None else f"{value:,.0f}"
