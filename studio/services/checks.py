"""Hidden checks: which of their right answers were given under house rules that have changed since."""

from __future__ import annotations

from annotation.charter import stale
from annotation.store import Store
from annotation.store.tasks import Gold
from annotation.types import Question


def outdated(store: Store) -> dict[str, frozenset[Question]]:
    """For each hidden check that has some, the questions whose right answer no longer holds for sure.

    A right answer is taken as one under the charter that was in force when the check was made (the first one, if there
    was none yet); making it once more makes it hold again.
    """
    golds, history = store.tasks.golds(), store.charters.all()
    made = {card["version"]: card["made_at"] for card in store.charters.cards()}

    def under(gold: Gold) -> int:
        return max((version for version, at in made.items() if at <= gold.made_at), default=min(made, default=0))

    found = {
        gold.reply_id: frozenset(
            question for question, value in gold.answers.items() if stale(question, value, (), under(gold), history)
        )
        for gold in golds
    }
    return {reply_id: questions for reply_id, questions in found.items() if questions}
