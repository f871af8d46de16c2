"""What a model thinks of an experiment, apart from people's figures, for people who are no statisticians."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from studio.parts.words import NAMES, badge, count, listed, table

if TYPE_CHECKING:  # numpy and scipy take seconds to import; the page is laid out without them
    from serving.statistics import Estimate, JudgeAgreement
    from studio.services.judged import Judged, JudgedVersus, ReadAnswer, ReadPair

MOST_TO_READ = 40
"""Pairs whose reasons are on the page; all are in the download."""
LABELS = {"overall": "Overall"} | {str(question): name for question, name in NAMES.items()}
HEADS = ("Same as people", "Beyond chance", "Same when changed over", "Chose what it read first")
ORDER_LABELS = {"as_shown": "Left read first", "changed_over": "Right read first"}
BEYOND = ((0.2, "hardly more than chance"), (0.4, "a little"), (0.6, "moderately"), (0.8, "well"), (1.01, "very well"))
"""Cohen's kappa in words, after Landis & Koch 1977."""


def judged_html(judges: Sequence[Judged]) -> str:
    """Everything about the judges of an experiment; '' if there are none."""
    if not judges:
        return ""
    lead = (
        "A model read the same pairs, each twice: once with the left reply first, once with the right one. This stands "
        "apart: none of it is counted in the figures above."
    )
    parts = "".join(_judge(one) for one in judges)
    return (
        '<section class="ts-judged" aria-labelledby="ts-judged-head"><h3 id="ts-judged-head">What a model thinks</h3>'
        f'<p class="ts-muted">{lead}</p>{parts}</section>'
    )


def headline(found: JudgeAgreement) -> str:
    """How far a judge can be gone by, in a sentence."""
    if found.by_place:
        return f"{found.by_place} Don't go by it."
    if not found.shared:
        return "No question was answered by both people and the model, so nothing is known of how good it is."
    agree = f"It favours the same as people on {found.same} of {count(found.shared, 'question')}"
    if found.kappa is None:
        return f"{agree}."
    return f"{agree}: {in_words(found.kappa.value)}, once chance is taken out."


def in_words(kappa: float) -> str:
    """An agreement beyond chance, in words."""
    said = next(words for limit, words in BEYOND if kappa < limit)
    return f"it agrees {said}" if kappa >= BEYOND[0][0] else said


def _judge(judged: Judged) -> str:
    judge = judged.asked.judge
    marks = badge("weights confirmed by the engine", "good") if judged.attested else ""
    head = f"<h4>{escape(judge.name)} {marks}</h4>"
    return head + "".join(_versus(judged, one) for one in judged.versus) + listed(_notes(judged)) + _to_read(judged)


def _versus(judged: Judged, versus: JudgedVersus) -> str:
    overall = versus.lines[0]
    tone = "ts-bad" if overall.found.by_place else ""
    between = f"<h5>{escape(versus.one)} against {escape(versus.other)}</h5>" if len(judged.versus) > 1 else ""
    said = f'<div class="ts-notice {tone}" role="status"><b>{escape(headline(overall.found))}</b></div>'
    rows = [[escape(cell) for cell in cells] for cells in rows_of(versus)]
    rows[-1][0] = f'<span class="ts-muted">{rows[-1][0]}</span>'
    heads = ("", *HEADS, f"Its share for {versus.one}")
    together = overall.found.predicted
    combined = (
        f"People's votes, filled in with the model's where nobody voted: {_ranged(together, '.0%')} for {versus.one}. "
        "This is an estimate by both, not a figure of people."
        if together
        else "No estimate from people and model together: it needs 10 questions that people judged, and 10 that only "
        "the model did."
    )
    return between + said + table(heads, rows) + f"<p>{escape(combined)}</p>"


def rows_of(versus: JudgedVersus) -> list[list[str]]:
    """A table's rows as text: one for each question, and last the control. Its heads are `HEADS` and the share."""
    found = [_cells(LABELS[line.question], line.found) for line in versus.lines]
    return [*found, _cells("Always says “the first”", versus.lines[0].control)]


def _cells(name: str, found: JudgeAgreement) -> list[str]:
    return [
        name,
        f"{found.same} of {found.shared}" if found.shared else "–",
        _ranged(found.kappa, ".2f"),
        "–" if found.swap_consistency is None else f"{found.swap_consistency:.0%}",
        "–" if found.first_share is None else f"{found.first_share:.0%}",
        _ranged(found.judge, ".0%"),
    ]


def _notes(judged: Judged) -> list[str]:
    judge = judged.asked.judge
    notes = [
        "“Beyond chance” is Cohen's kappa: 0 is what guessing gives, 1 is full agreement. In brackets: where it may "
        "lie.",
        "“Same when changed over”: how often it kept its winner when the two changed places. Tossing a coin keeps it "
        "about half of the time; the last line shows one that never reads.",
    ]
    if judged.answers < judged.of:
        notes.append(f"It has answered {judged.answers} of {judged.of} times.")
    if judged.no_verdict:
        verb = "is" if judged.no_verdict == 1 else "are"
        notes.append(f"{judged.no_verdict} of its {count(judged.answers, 'answer')} {verb} no verdict, and left out.")
    if judged.is_side:
        notes.append("This model also wrote the replies of one side; models tend to prefer their own words.")
    if judged.answers and not judged.attested:
        notes.append("The server it answers from does not say which weights gave the answers.")
    frozen = f"Judge {judged.asked.sha256[:12]}, rules and questions {judge.rubric_sha256()[:12]}"
    notes.append(f"{frozen}, from version {judge.charter_version} of the charter; asked for by {judged.asked.author}.")
    return notes


def _to_read(judged: Judged) -> str:
    shown = "".join(_pair(pair) for pair in judged.pairs[:MOST_TO_READ])
    more = len(judged.pairs) - MOST_TO_READ
    rest = f'<p class="ts-muted">{count(more, "more pair")} in the download.</p>' if more > 0 else ""
    summary = f"Read its reasons, pair by pair ({len(judged.pairs)})"
    return f'<details class="ts-details"><summary>{summary}</summary>{shown}{rest}</details>' if shown else ""


def _pair(pair: ReadPair) -> str:
    replies = "".join(
        f'<div><b>{escape(side)}</b><div class="ts-text" dir="auto">{escape(text)}</div></div>'
        for side, text in pair.replies
    )
    votes = ", ".join(f"{_winner(winner)}: {number}" for winner, number in pair.votes.items()) or "nobody voted"
    answers = "".join(_answer(one) for one in pair.answers)
    return (
        f'<article class="ts-judged-pair"><h5 dir="auto">{escape(pair.asked)}</h5>'
        f'<div class="ts-judged-replies">{replies}</div><dl class="ts-judged-said">{answers}'
        f"<dt>People</dt><dd>{escape(votes)}</dd></dl></article>"
    )


def _answer(answer: ReadAnswer) -> str:
    label = f"<dt>{ORDER_LABELS[answer.order]}</dt>"
    if answer.why_none:
        return f"{label}<dd>No verdict. {escape(answer.why_none)}</dd>"
    said = "".join(
        f"<p><b>{LABELS[question]}: {escape(_winner(winner))}.</b> {escape(reason)}</p>"
        for question, reason, winner in answer.said
    )
    return f'{label}<dd dir="auto">{said}</dd>'


def _winner(winner: str) -> str:
    return {"tie": "about the same", "both_bad": "both bad"}.get(winner, winner)


def _ranged(estimate: Estimate | None, form: str) -> str:
    """A figure with its interval, if it has one."""
    if estimate is None:
        return "–"
    value = format(estimate.value, form)
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({estimate.low:{form}} to {estimate.high:{form}})"
