"""A charter as an Argilla dataset, a reply as its record, a response as an act and back. Pure: nothing is sent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from annotation.acts import QUESTIONS
from annotation.charter import write_markdown
from annotation.errors import UserError
from annotation.queue import priority_of
from annotation.store.helpers import Candidate, Suggestion
from annotation.store.reviews import NOTE_LIMIT, ReviewAct, Verdict
from annotation.types import (
    BiasKind,
    Charter,
    Conversation,
    Correction,
    Frozen,
    Judgement,
    Question,
    Severity,
    Span,
    Value,
)

Json = dict[str, Any]
OPEN, OTHER, REPLY = "open", "_other", "reply"
"""Answers of ours that are no rule and no value: 'not answered', 'something else', and the reply among its drafts. A
rule's id can't start with an underscore."""
DRAFTS = 2
"""Drafts that stand beside the reply to be ranked."""
MOST_MESSAGES, MOST_CHARACTERS, MOST_GUIDELINES = 500, 20_000, 10_000
MOST_OPTION_TEXT, MOST_DESCRIPTION, MOST_RULES = 500, 1_000, 499
REST = "\n… the rest stands in the charter, in Tonesmith."
"""The last line of guidelines that are not the whole charter."""
EMPTY = "(no text)"
"""Stands for an empty message, which Argilla refuses."""
ASKED: dict[Question, str] = {
    "voice": "Is it in our voice?",
    "policy": "Does it keep to our policy?",
    "bias": "Is it free of bias?",
}
ANSWERS: tuple[tuple[Value, str], ...] = (
    ("pass", "Yes"),
    ("fail", "No"),
    ("unsure", "Not sure"),
    ("not_applicable", "Does not apply"),
)
SEVERITIES: tuple[tuple[Severity, str], ...] = (("minor", "Minor"), ("major", "Major"), ("critical", "Critical"))
KINDS: tuple[tuple[BiasKind, str], ...] = (
    ("stereotype", "A stereotype"),
    ("assumption", "An assumption"),
    ("unequal_help", "Unequal help"),
    ("disrespect", "Disrespect"),
    ("exclusion", "Exclusion"),
)
MORE: dict[Question, tuple[str, str, Sequence[tuple[str, str]]]] = {
    "policy": ("severity", "How bad is it?", SEVERITIES),
    "bias": ("kind", "What kind of bias?", KINDS),
}
"""What is asked beside a question where the answer is No: name, words, answers."""
OPTIONAL = ("ranking", "severity", "kind")
"""Questions that a dataset of ours may lack: it is from before they were asked."""
BROKEN: dict[Question, str] = {
    "voice": "Traits it misses",
    "policy": "Clauses it breaks",
    "bias": "Axes at fault",
}
METADATA = {
    "model": "terms",
    "adapter": "terms",
    "language": "terms",
    "source": "terms",
    "priority": "integer",
    "checks": "terms",
    **{f"{question}_score": "float" for question in QUESTIONS},
}
"""`checks` are those that find a fault, `…_score` how sure the surest of them is, 0 to 1."""


class Form(Frozen):
    """What a dataset consists of, as Argilla's API takes it."""

    guidelines: str
    min_submitted: int
    fields: tuple[Json, ...]
    questions: tuple[Json, ...]
    metadata: tuple[Json, ...]


class ReplyForDesk(Frozen):
    """A reply with all that Argilla shows of it."""

    conversation: Conversation
    """Up to the reply, which comes last."""
    rank: int
    suggestions: tuple[Suggestion, ...] = ()
    candidates: tuple[Candidate, ...] = ()


class Opinion(NamedTuple):
    """All that stands of what one person said about one reply."""

    judgements: Sequence[Judgement]
    correction: Correction | None = None
    ranking: Sequence[str] = ()
    """Texts, best first."""


# The dataset


def form_of(charter: Charter, overlap: int, with_drafts: bool) -> Form:
    """The dataset for `charter`; `with_drafts` asks to rank the reply among drafts.

    Raises UserError for a charter with more rules than Argilla takes.
    """
    fields = [
        _field("chat", "Conversation so far", {"type": "chat", "use_markdown": False}, required=False),
        _field(REPLY, "Reply to judge", {"type": "text", "use_markdown": False}, required=True),
    ]
    questions: list[Json] = []
    for question, rules in _rules(charter).items():
        questions.append(_question(question, ASKED[question], _one((*ANSWERS, (OPEN, "No answer"))), True))
        if rules:
            questions.append(_question(f"{question}_rules", BROKEN[question], _several(rules), False))
        if question in MORE:
            name, words, choices = MORE[question]
            questions.append(_question(name, words, _one(choices), False))
    where = {"type": "span", "field": REPLY, "options": [{"value": one, "text": one.title()} for one in QUESTIONS]}
    questions.append(_question("where", "Where it shows", where | {"allow_overlapping": True}, False))
    questions.append(_question("correction", "The reply as it should have been", {"type": "text"}, False))
    questions.append(_question("why", "Why, in a few words", {"type": "text"}, False))
    if with_drafts:
        names = {REPLY: "The reply", **{f"draft_{place}": f"Draft {place}" for place in range(1, DRAFTS + 1)}}
        fields += [
            _field(name, text, {"type": "text", "use_markdown": False}, required=False)
            for name, text in names.items()
            if name != REPLY
        ]
        ranked = {"type": "ranking", "options": [{"value": name, "text": text} for name, text in names.items()]}
        questions.append(_question("ranking", "Best first; put a draft that is not there last", ranked, False))
    return Form(
        guidelines=_guidelines(charter),
        min_submitted=overlap,
        fields=tuple(fields),
        questions=tuple(questions),
        metadata=tuple(
            {"name": name, "title": name.replace("_", " ").title(), "settings": {"type": kind}}
            for name, kind in METADATA.items()
        ),
    )


def dataset_name(charter: Charter, queue: str) -> str:
    """`<charter>-<queue>-v<version>`, without the queue for the main one."""
    parts = [_slug(charter.name) or "charter", *([] if queue == "main" else [_slug(queue)]), f"v{charter.version}"]
    return "-".join(parts)


def unlike(form: Form, questions: Sequence[Json], fields: Sequence[Json]) -> list[str]:
    """How what is there differs from `form` in ways that would lose or bend answers, in words."""
    found = []
    there = {one["name"]: one for one in questions}
    for wanted in form.questions:
        name = wanted["name"]
        if name not in there:
            found.append(f"the question '{name}' is missing")
        elif _essence(there[name]) != _essence(wanted):
            found.append(f"the question '{name}' is another one")
    names = {one["name"] for one in fields}
    found += [f"the field '{wanted['name']}' is missing" for wanted in form.fields if wanted["name"] not in names]
    return found


def wording(question: Json) -> Json:
    """In which words a question is asked, as Argilla lets them be changed; options in one order."""
    kind = question["settings"]["type"]
    if kind not in ("label_selection", "multi_label_selection", "span"):
        return {"title": question["title"]}
    options = [
        {name: option[name] for name in ("value", "text", "description") if option.get(name)}
        for option in question["settings"]["options"]
    ]
    return {"title": question["title"], "settings": {"type": kind, "options": options}}


def _essence(question: Json) -> Any:
    options = [str(option["value"]) for option in question["settings"].get("options", ())]
    return question["settings"]["type"], sorted(options)


def _rules(charter: Charter) -> dict[Question, Sequence[Any]]:
    return {"voice": charter.voice, "policy": charter.policy, "bias": charter.bias}


def _field(name: str, title: str, settings: Json, required: bool) -> Json:
    return {"name": name, "title": title, "required": required, "settings": settings}


def _question(name: str, title: str, settings: Json, required: bool) -> Json:
    return {"name": name, "title": title, "required": required, "settings": settings}


def _one(answers: Iterable[tuple[str, str]]) -> Json:
    return {"type": "label_selection", "options": [{"value": value, "text": text} for value, text in answers]}


def _several(rules: Sequence[Any]) -> Json:
    """Argilla wants two options at least, so there is always 'something else'."""
    if len(rules) > MOST_RULES:
        raise UserError(
            f"The charter has {len(rules)} rules of one kind.",
            f"At most {MOST_RULES}, for Argilla.",
            "Join some of them, or review in Tonesmith's own desk.",
        )
    options = [
        {"value": rule.id, "text": _cut(rule.text, MOST_OPTION_TEXT), "description": _cut(rule.text, MOST_DESCRIPTION)}
        for rule in rules
    ]
    return {"type": "multi_label_selection", "options": [*options, {"value": OTHER, "text": "Something else"}]}


def _guidelines(charter: Charter) -> str:
    """The whole charter, or where Argilla does not take so much the words of as many rules as it does, and REST."""
    opening = (
        f"Judge each reply of {charter.name} (charter version {charter.version}). Answer the three questions; where "
        "one does not apply or you would rather not say, there is an answer for that. Mark in the reply where a fault "
        "shows. If the reply should have been another one, write it into the correction.\n\n"
    )
    whole = opening + write_markdown(charter)
    if len(whole) <= MOST_GUIDELINES:
        return whole
    shortened, room = opening, MOST_GUIDELINES - len(REST)
    for rule in (rule for rules in _rules(charter).values() for rule in rules):
        line = f"- {rule.text}\n"
        if len(shortened) + len(line) > room:
            break
        shortened += line
    return shortened + REST


def is_shortened(charter: Charter) -> bool:
    """Whether Argilla's guidelines leave out some of the charter, which is longer than it takes."""
    return _guidelines(charter).endswith(REST)


# Records


def record_of(reply: ReplyForDesk, questions: Mapping[str, str], charter: Charter) -> Json:
    """The record of a reply; `questions` are those of the dataset, name → id. Its external id is the reply's.
    Of suggestions only the rules that `charter` has are sent: Argilla refuses others.

    Raises UserError if Argilla can't show it.
    """
    turns = reply.conversation.turns
    before = [{"role": turn.role, "content": turn.text or EMPTY} for turn in turns[:-1]]
    if len(before) > MOST_MESSAGES:
        raise UserError(
            f"The conversation has {len(before)} messages before the reply; Argilla shows at most {MOST_MESSAGES}.",
            do="Review it in Tonesmith's own desk, where it waits.",
        )
    longest = max((len(message["content"]) for message in before), default=0)
    if longest > MOST_CHARACTERS:
        raise UserError(
            f"A message has {longest:,} characters; Argilla takes at most {MOST_CHARACTERS:,}.",
            do="Review it in Tonesmith's own desk, where it waits.",
        )
    fields: Json = {REPLY: padded(turns[-1].text)}
    if before:
        fields["chat"] = before
    if "ranking" in questions:
        fields |= {f"draft_{place}": one.text for place, one in enumerate(reply.candidates[:DRAFTS], start=1)}
    return {
        "external_id": turns[-1].id,
        "fields": fields,
        "metadata": _metadata(reply),
        "suggestions": _suggestions(reply, questions, charter),
    }


def sha_of(record: Json) -> str:
    """What a record says, in 64 digits: the same for what we would send and for what Argilla gives back."""
    suggestions = sorted(
        (
            [one["question_id"], json.dumps(one["value"], sort_keys=True), one.get("agent"), one.get("score")]
            for one in record.get("suggestions") or ()
        ),
        key=str,
    )
    fields = {name: value for name, value in record["fields"].items() if value is not None}
    content = [fields, record.get("metadata") or {}, suggestions]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _metadata(reply: ReplyForDesk) -> Json:
    turn = reply.conversation.turns[-1]
    known: Json = {"source": reply.conversation.source, "priority": priority_of(reply.rank)}
    if turn.provenance:
        known |= {"model": turn.provenance.model, "adapter": turn.provenance.adapter or "none"}
    if reply.conversation.language:
        known["language"] = reply.conversation.language
    faults = [one for one in reply.suggestions if one.value == "fail"]
    if faults:
        known["checks"] = sorted({one.author for one in faults})
    for question in QUESTIONS:
        if scores := [one.score for one in faults if one.question == question and one.score is not None]:
            known[f"{question}_score"] = max(scores)
    return known


def _suggestions(reply: ReplyForDesk, questions: Mapping[str, str], charter: Charter) -> list[Json]:
    """One a question, Argilla takes no more: of the surest, then the newest author, with all that they find."""
    turn = reply.conversation.turns[-1]
    found: list[Json] = [{"question_id": questions["correction"], "value": turn.text}]
    if turn.provenance:
        found[0] |= _by(turn.provenance.adapter or turn.provenance.model)
    marks: list[Json] = []
    marked_by: dict[str, None] = {}
    for question, rules in _rules(charter).items():
        given = [one for one in reply.suggestions if one.question == question]
        if not given:
            continue
        best = max(enumerate(given), key=lambda pair: (pair[1].score or 0.0, pair[0]))[1]
        score = {} if best.score is None else {"score": best.score}
        found.append({"question_id": questions[question], "value": best.value} | _by(best.author) | score)
        alike = [one for one in given if (one.author, one.value) == (best.author, best.value)]
        named = {rule for one in alike for rule in one.clause_ids}
        if cited := [rule.id for rule in rules if rule.id in named]:
            found.append({"question_id": questions[f"{question}_rules"], "value": cited} | _by(best.author))
        if spans := [span for one in alike for span in one.spans]:
            marks += [_mark(turn.text, question, span) for span in spans]
            marked_by[best.author] = None
    if marks:
        found.append({"question_id": questions["where"], "value": marks} | _by(" ".join(marked_by)))
    return found


def _by(author: str) -> Json:
    """Who suggests it, in the letters that Argilla takes for a name. Without a name where none is left of it, as of one
    in Chinese: Argilla would refuse the whole record.
    """
    name = re.sub(r"[^a-zA-Z0-9-_:./\s]", "-", author, flags=re.ASCII)[:200]
    return {"type": "model"} | ({"agent": name} if re.search("[a-zA-Z0-9]", name) else {})


# Responses


def act_of(values: Mapping[str, Json], reply: ReplyForDesk, charter: Charter, person: str, **about: Any) -> ReviewAct:
    """A submitted response as an act. `about` are other fields of it: its id and its time."""
    given = {name: answer["value"] for name, answer in values.items()}
    why = str(given.get("why") or "").strip()[:NOTE_LIMIT]
    text = reply.conversation.turns[-1].text
    correction = str(given.get("correction") or "").strip()
    corrected = correction not in ("", text.strip())
    verdicts = [verdict for question in QUESTIONS if (verdict := _verdict(question, given, charter, text))]
    if why and not corrected and verdicts:
        noted = next((one for one in verdicts if one.value == "fail"), verdicts[0])
        verdicts = [one.model_copy(update={"note": why}) if one is noted else one for one in verdicts]
    return ReviewAct(
        reply_id=reply.conversation.turns[-1].id,
        reviewer=person,
        charter_version=charter.version,
        verdicts=tuple(verdicts),
        correction=correction or None,
        reasons=(why,) if why and corrected else (),
        ranking=_ranking(given.get("ranking") or (), reply),
        route="import",
        **about,
    )


def values_of(said: Opinion, reply: ReplyForDesk, questions: Iterable[str], charter: Charter) -> dict[str, Json]:
    """What a person said at our desk, as values of a response."""
    known, there = {rule.id for rules in _rules(charter).values() for rule in rules}, set(questions)
    text = reply.conversation.turns[-1].text
    given = {one.question: one for one in said.judgements}
    values: Json = {question: given[question].value if question in given else OPEN for question in QUESTIONS}
    for question, judgement in given.items():
        cited = [rule for rule in judgement.clause_ids if rule in known]
        if cited:
            values[f"{question}_rules"] = cited
        values |= {"severity": judgement.severity} if question == "policy" else {}
        values |= {"kind": judgement.kind} if question == "bias" else {}
    notes = [one.note for one in given.values() if one.note]
    if said.correction:
        values["correction"] = said.correction.after
        notes += said.correction.reasons
    values |= {
        "where": [_mark(text, one.question, span) for one in given.values() for span in one.spans],
        "why": " ".join(notes),
        "ranking": _ranks(said.ranking, reply),
    }
    return {name: {"value": value} for name, value in values.items() if value and name in there}


def same_values(one: Mapping[str, Json] | None, other: Mapping[str, Json] | None, text: str) -> bool:
    """Whether two responses say the same; an unchanged reply is no correction."""
    return _plain(one, text) == _plain(other, text)


def _plain(values: Mapping[str, Json] | None, text: str) -> dict[str, str]:
    plain = {}
    for name, answer in (values or {}).items():
        value = answer["value"]
        if name == "correction" and str(value).strip() in ("", text.strip()):
            continue
        if name in ("where", "ranking") or name.endswith("_rules"):
            value = sorted(value, key=str)
        if value not in (OPEN, "", []):
            plain[name] = json.dumps(value, sort_keys=True)
    return plain


def _verdict(question: Question, given: Mapping[str, Any], charter: Charter, text: str) -> Verdict | None:
    value = given.get(question, OPEN)
    known = {rule.id for rule in _rules(charter)[question]}
    cited = tuple(rule for rule in given.get(f"{question}_rules") or () if rule in known)
    marks = [mark for mark in given.get("where") or () if mark["label"] == question]
    places = sorted(_place(text, mark) for mark in marks)
    spans = tuple(Span(start=start, end=end) for start, end in places if start < end)
    if value not in get_args(Value):
        if not cited and not spans:
            return None
        value = "unsure"  # a rule or a place without an answer: something is wrong there, they did not say what
    more: Json = {}
    if value in ("fail", "unsure") and question in MORE:
        name = MORE[question][0]
        more[name] = given.get(name)
    return Verdict(question=question, value=value, clause_ids=cited, spans=spans, **more)


# Argilla's page counts a text in UTF-16 units, as browsers do, where we count code points: a character beyond the
# first 65,536, as most emoji are, is two there and one here.


def padded(text: str) -> str:
    """A reply as Argilla keeps it. Its server holds the page's places against the length in code points and would
    refuse a mark on the last words of a reply with emoji, so there is a space at the end for each of them.
    """
    return text + " " * (_units(text) - len(text))


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _mark(text: str, question: Question, span: Span) -> Json:
    """A place of ours, as Argilla's page shows it."""
    return {"label": question, "start": _units(text[: span.start]), "end": _units(text[: span.end])}


def _place(text: str, mark: Json) -> tuple[int, int]:
    """A place of Argilla's page in code points, within `text`; half a character counts as all of it."""
    raw = text.encode("utf-16-le", "surrogatepass")
    start = len(raw[: 2 * mark["start"]].decode("utf-16-le", "ignore"))
    end = len(raw[: 2 * mark["end"]].decode("utf-16-le", "replace"))
    return start, min(end, len(text))


def _ranking(ranked: Sequence[Json], reply: ReplyForDesk) -> tuple[str, ...]:
    texts = _ranked_texts(reply)
    in_order = sorted(ranked, key=lambda one: one.get("rank") or DRAFTS + 2)
    best_first = tuple(texts[one["value"]] for one in in_order if one["value"] in texts)
    return best_first if len(best_first) > 1 else ()


def _ranks(ranking: Sequence[str], reply: ReplyForDesk) -> list[Json]:
    """A ranking for Argilla, which wants every draft in it: none if ours leaves one out or has others."""
    texts = _ranked_texts(reply)
    if sorted(ranking) != sorted(texts.values()):
        return []
    names = [REPLY, *(f"draft_{place}" for place in range(1, DRAFTS + 1))]
    places = {text: place for place, text in enumerate(ranking, start=1)}
    return [{"value": name, "rank": places[texts[name]] if name in texts else len(names)} for name in names]


def _ranked_texts(reply: ReplyForDesk) -> dict[str, str]:
    drafts = {f"draft_{place}": one.text for place, one in enumerate(reply.candidates[:DRAFTS], start=1)}
    return {REPLY: reply.conversation.turns[-1].text} | drafts


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
