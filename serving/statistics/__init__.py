"""Honest figures from a handful of voters who look at them after every vote.

Pure functions over ballots. They need scipy or statsmodels, so a name's module is loaded when the name is
first asked for; import them where a figure is worked out, not at the top of a page.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.statistics.ballots import Ballot, Estimate
    from serving.statistics.decisions import NotWorse, Paired, e_bh, holm, mcnemar, not_worse
    from serving.statistics.judges import JudgeAgreement, judge_agreement
    from serving.statistics.leaderboard import Strength, strengths
    from serving.statistics.verdicts import SliceFigure, Verdict, verdict

__all__ = [
    "Ballot",
    "Estimate",
    "JudgeAgreement",
    "NotWorse",
    "Paired",
    "SliceFigure",
    "Strength",
    "Verdict",
    "e_bh",
    "holm",
    "judge_agreement",
    "mcnemar",
    "not_worse",
    "strengths",
    "verdict",
]
_HOMES = {
    "ballots": ("Ballot", "Estimate"),
    "decisions": ("NotWorse", "Paired", "e_bh", "holm", "mcnemar", "not_worse"),
    "judges": ("JudgeAgreement", "judge_agreement"),
    "leaderboard": ("Strength", "strengths"),
    "verdicts": ("SliceFigure", "Verdict", "verdict"),
}
"""No module is called as a name it exports: loading it would put the module where the name should be."""


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
