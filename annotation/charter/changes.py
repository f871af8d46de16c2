"""What changed between two versions of a charter, and which judgements no longer hold because of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from annotation.charter.problems import SECTIONS
from annotation.types import Axis, Charter, Clause, Frozen, Question, Trait, Value

Rule = Trait | Clause | Axis
Said = str | tuple[str, ...] | None
Combination = tuple[Question, Value, tuple[str, ...], int]
"""(question, value, ids of the rules cited, charter version): all that decides whether a judgement still holds."""

MEANING: dict[Question, tuple[str, ...]] = {
    "voice": ("text", "dos", "donts"),
    "policy": ("text",),
    "bias": ("text", "groups"),
}
"""The fields that say what a rule asks for. Examples, violations and patterns only show it, and a severity says how bad
a break is, not whether it is one."""
HEAD = ("name", "purpose", "languages")

_SECTION_NAMES = {"head": "", "voice": "Voice", "policy": "Policy", "bias": "Fairness"}
_FIELD_NAMES = {"dos": "do's", "donts": "don'ts"}


class Change(Frozen):
    """One difference between two charters."""

    kind: Literal["added", "removed", "changed"]
    section: Literal["head", "voice", "policy", "bias"]
    rule_id: str | None = None
    """None for the head."""
    field: str | None = None
    """The field that changed; None where a whole rule was added or removed."""
    before: Said = None
    """The field as it was; the text of a removed rule."""
    after: Said = None
    """The field as it is; the text of a new rule."""

    @property
    def meaning(self) -> bool:
        """Whether this can make an earlier judgement wrong, unless it is marked as wording only."""
        return self.section != "head" and (self.field is None or self.field in MEANING[self.section])

    def sentence(self) -> str:
        """For people, for example `Policy, 'no-promises': severity was “minor”, now it is “major”.`"""
        if self.rule_id is None:
            return f"The charter's {self._what()}"
        rule = f"{_SECTION_NAMES[self.section]}, '{self.rule_id}'"
        if self.kind == "added":
            return f"{rule} is new: {self.after}"
        if self.kind == "removed":
            return f"{rule} was removed. It said: {self.before}"
        return f"{rule}: {self._what()}"

    def _what(self) -> str:
        name = _FIELD_NAMES.get(self.field or "", self.field)
        if isinstance(self.before, tuple) and isinstance(self.after, tuple):
            return f"{name} {_list_change(self.before, self.after)}."
        if not self.before:
            return f"{name} is new: “{self.after}”."
        if not self.after:
            return f"{name} was removed. It was “{self.before}”."
        return f"{name} was “{self.before}”, now it is “{self.after}”."


def compare(old: Charter, new: Charter) -> tuple[Change, ...]:
    """Every difference from `old` to `new`: the head first, then voice, policy and fairness, each in the new order.

    A rule that only moved within its section is no change; one that went to another section is removed and added.
    Version and `wording_only` belong to a version, not to the rules, and are not compared.
    """
    head = (
        Change(kind="changed", section="head", field=field, before=before, after=after)
        for field in HEAD
        if (before := getattr(old, field)) != (after := getattr(new, field))
    )
    return (*head, *(change for section in SECTIONS for change in _in_section(section, old, new)))


def stale(
    question: Question, value: Value, clause_ids: Sequence[str], made_under: int, history: Sequence[Charter]
) -> bool:
    """Whether a judgement no longer holds under the newest charter of `history`.

    A 'fail' that cites rules is stale if one of them was removed or changed its meaning. Any other judgement is stale
    if a rule of its question was added or changed its meaning; an 'unsure', and a 'fail' that cites nothing, also if
    one was removed. A change that a version lists in `wording_only` changes no meaning, and a rule that says again what
    it said at first counts as unchanged.

    Parameters
    ----------
    clause_ids: the rules it cites; ids that its own charter did not have are passed over.
    made_under: the charter version it was made under. A version that `history` does not have is taken as the newest one
        before it; older than all of `history`, the judgement is stale, since nobody can say what it was judged by.
    history: the versions of one charter, sorted by version.
    """
    if not history or made_under >= history[-1].version:
        return False
    return _falls(value, clause_ids, _Drift.between(question, made_under, history))


def stale_combinations(combinations: Iterable[Combination], history: Sequence[Charter]) -> set[Combination]:
    """Those of `combinations` that `stale` finds; each version is compared once a question."""
    drifts: dict[tuple[Question, int], _Drift | None] = {}
    found: set[Combination] = set()
    for combination in combinations:
        question, value, clause_ids, made_under = combination
        if not history or made_under >= history[-1].version:
            continue
        if (question, made_under) not in drifts:
            drifts[question, made_under] = _Drift.between(question, made_under, history)
        if _falls(value, clause_ids, drifts[question, made_under]):
            found.add(combination)
    return found


class _Drift(Frozen):
    """How the rules of one question moved from one version to the newest."""

    known: frozenset[str]
    """Ids at the start."""
    added: frozenset[str]
    removed: frozenset[str]
    changed: frozenset[str]
    """Ids at both ends whose meaning is another."""

    @classmethod
    def between(cls, question: Question, made_under: int, history: Sequence[Charter]) -> _Drift | None:
        """From version `made_under` to the last of `history`; None if `history` begins later than that."""
        begin = max((at for at, charter in enumerate(history) if charter.version <= made_under), default=None)
        if begin is None:
            return None
        chain = [_meanings(question, charter) for charter in history[begin:]]
        first, last = set(chain[0]), set(chain[-1])
        wording = [frozenset(charter.wording_only) for charter in history[begin:]]
        return cls(
            known=frozenset(first),
            added=frozenset(last - first),
            removed=frozenset(first - last),
            changed=frozenset(rule_id for rule_id in first & last if _moved(rule_id, chain, wording)),
        )


def _falls(value: Value, clause_ids: Sequence[str], drift: _Drift | None) -> bool:
    if drift is None:
        return True
    cited = drift.known.intersection(clause_ids)
    if value == "fail" and cited:
        return not cited.isdisjoint(drift.removed | drift.changed)
    return bool(drift.added or drift.changed or (drift.removed and value in ("fail", "unsure")))


def _meanings(question: Question, charter: Charter) -> dict[str, tuple[object, ...]]:
    rules: tuple[Rule, ...] = getattr(charter, question)
    return {rule.id: tuple(getattr(rule, field) for field in MEANING[question]) for rule in rules}


def _moved(rule_id: str, chain: list[dict[str, tuple[object, ...]]], wording: list[frozenset[str]]) -> bool:
    """Whether a rule at both ends of `chain` changed its meaning in a version that does not call it wording."""
    if chain[0][rule_id] == chain[-1][rule_id]:
        return False
    before = chain[0][rule_id]
    for meanings, wording_only in zip(chain[1:], wording[1:], strict=True):
        meaning = meanings.get(rule_id, before)
        if meaning != before and rule_id not in wording_only:
            return True
        before = meaning
    return False


def _in_section(section: Question, old: Charter, new: Charter) -> Iterator[Change]:
    olds: dict[str, Rule] = {rule.id: rule for rule in getattr(old, section)}
    news: dict[str, Rule] = {rule.id: rule for rule in getattr(new, section)}
    for rule_id, rule in news.items():
        if rule_id not in olds:
            yield Change(kind="added", section=section, rule_id=rule_id, after=rule.text)
        else:
            yield from _in_rule(section, olds[rule_id], rule)
    for rule_id, rule in olds.items():
        if rule_id not in news:
            yield Change(kind="removed", section=section, rule_id=rule_id, before=rule.text)


def _in_rule(section: Question, old: Rule, new: Rule) -> Iterator[Change]:
    for field in type(new).model_fields:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield Change(kind="changed", section=section, rule_id=new.id, field=field, before=before, after=after)


def _list_change(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    gone = [f"“{item}”" for item in before if item not in after]
    come = [f"“{item}”" for item in after if item not in before]
    parts = [f"gained {', '.join(come)}"] * bool(come) + [f"lost {', '.join(gone)}"] * bool(gone)
    return " and ".join(parts) or "are in another order"
