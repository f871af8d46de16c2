"""Experiments: which sides are compared on which prompts and how, written down before the first vote. Pure."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from annotation.errors import UserError
from annotation.types import Finish, Frozen, Message, Outcome, Provenance, Question, Sampling, Strength, Tag

MOST_SIDES = 4
MOST_PROMPTS = 2_000
MOST_VOTES_EACH = 20
FAMILIES = frozenset(
    ("baichuan", "deepseek", "gemma", "internlm", "llama", "minicpm", "mistral", "mixtral", "olmo", "qwen", "smollm")
)
"""Families of models whose names look like words, and that customers and shops hardly speak of."""
PairKind = Literal["pair", "control", "repeat"]
"""Two sides; one side twice, where nobody should see a difference; a pair shown a second time, sides changed over."""


class ArenaSide(Frozen):
    """One of the things that are compared: weights, the instructions before the conversation, and the sampling."""

    name: Annotated[str, Field(min_length=1, max_length=160)]
    model: str
    """`base`, or an adapter's immutable name."""
    provenance: Provenance
    """Whose weights these are, with their hash."""
    system: str = ""
    """Put before the prompt as the system message; '' for none."""
    sampling: Sampling = Sampling()


class Design(Frozen):
    """All that must not change once somebody has voted. Raises ValueError for one that could not be answered."""

    name: Annotated[str, Field(min_length=1, max_length=120)]
    sides: Annotated[tuple[ArenaSide, ...], Field(min_length=2, max_length=MOST_SIDES)]
    prompts: Annotated[tuple[tuple[Message, ...], ...], Field(min_length=1, max_length=MOST_PROMPTS)]
    """Each ends with the user's message that is answered."""
    labels: tuple[dict[str, str], ...] | None = None
    """What is known of each prompt, for example `{"topic": "refunds", "language": "de"}`; the figures are split by it.
    None where nothing is."""
    criteria: tuple[Question, ...] = ()
    """What is asked beside 'which is better'."""
    votes_each: Annotated[int, Field(ge=1, le=MOST_VOTES_EACH)] = 1
    """How many people judge each pair."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Chance of naming a winner where there is none, however often one looks."""
    margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """By how much the share of worse replies may differ on policy and still count as not worse."""
    control_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Controls for each pair of two sides; none for a side at temperature 0, which would say the same twice."""
    repeat_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Pairs that come a second time."""
    seed: int = 0

    @model_validator(mode="after")
    def _answerable(self) -> Design:
        if len({side.name for side in self.sides}) < len(self.sides):
            raise ValueError("two sides have the same name")
        if any(not prompt or prompt[-1].role != "user" for prompt in self.prompts):
            raise ValueError("a prompt does not end with a message to answer")
        if self.labels is not None and len(self.labels) != len(self.prompts):
            raise ValueError("there are not as many labels as prompts")
        return self

    def sha256(self) -> str:
        """Of the design in canonical JSON: what was frozen can be proved later."""
        dumped = self.model_dump(mode="json", exclude_none=True)  # a field that comes later changes no hash
        body = json.dumps(dumped, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(body.encode()).hexdigest()


class Planned(Frozen):
    """A pair that the design asks for. `left` and `right` are places in `Design.sides`."""

    number: int
    kind: PairKind
    prompt: int
    """Place in `Design.prompts`."""
    left: int
    right: int
    repeats: int | None = None
    """Number of the pair that comes again."""


class Experiment(Frozen):
    """A design that is kept, and whether it has ended."""

    id: str
    design: Design
    sha256: str
    author: str
    made_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    ended_by: str | None = None
    reason: str = ""
    """Why it was ended."""


class Drawn(Frozen):
    """One side's reply to one prompt."""

    text: str
    provenance: Provenance
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token: float | None = None
    """Seconds from request to the first piece; None where the reply came whole."""

    @property
    def finish(self) -> Finish | None:
        return self.provenance.finish


class Pair(Frozen):
    """Two replies as they stand left and right. Who is who never leaves the server before the experiment has ended."""

    id: str
    planned: Planned
    left: Drawn
    right: Drawn


class BallotForm(Frozen):
    """What a person says about a pair."""

    outcome: Outcome
    strength: Strength = 1
    criteria: dict[Question, Outcome] = Field(default_factory=dict)
    """Answers to those of the design's criteria that the person spoke about; the others are absent."""
    tags: tuple[Tag, ...] = ()
    comment: Annotated[str, Field(max_length=2_000)] = ""
    seconds: float | None = None


class CastBallot(Frozen):
    """A ballot in the box. Append-only."""

    id: str
    pair_id: str
    voter: str
    form: BallotForm
    made_at: AwareDatetime


def plan(design: Design) -> tuple[Planned, ...]:
    """Every pair of the experiment, in the order they are drawn; the same design gives the same plan.

    Which side stands left is drawn for each pair. Repeats come after everything else, sides changed over, so that
    nobody remembers.
    """
    chance = random.Random(design.sha256())
    found: list[tuple[PairKind, int, int, int]] = []
    for prompt in range(len(design.prompts)):
        for both in combinations(range(len(design.sides)), 2):
            left, right = chance.sample(both, 2)
            found.append(("pair", prompt, left, right))
    free = [place for place, side in enumerate(design.sides) if side.sampling.temperature > 0]
    for _ in range(round(design.control_share * len(found)) if free else 0):
        side = chance.choice(free)
        found.append(("control", chance.randrange(len(design.prompts)), side, side))
    chance.shuffle(found)
    planned = [
        Planned(number=number, kind=kind, prompt=prompt, left=left, right=right)
        for number, (kind, prompt, left, right) in enumerate(found)
    ]
    once = [one for one in planned if one.kind == "pair"]
    again = chance.sample(once, round(design.repeat_share * len(once)))
    for number, one in enumerate(again, start=len(planned)):
        planned.append(
            Planned(number=number, kind="repeat", prompt=one.prompt, left=one.right, right=one.left, repeats=one.number)
        )
    return tuple(planned)


class Draw(Frozen):
    """A reply to be drawn. Pairs that need the same draw show the same reply."""

    prompt: int
    side: int
    again: bool = False
    """True for the second reply of a control."""

    def sampling(self, design: Design) -> Sampling:
        """The side's, with a seed of its own for each draw, so that it can be drawn again."""
        digest = hashlib.sha256(f"{design.seed} {self.prompt} {self.side} {self.again}".encode()).digest()
        return design.sides[self.side].sampling.model_copy(update={"seed": int.from_bytes(digest[:4], "big") >> 1})

    def messages(self, design: Design) -> tuple[Message, ...]:
        """The side's instructions, in place of the prompt's own if it has some, and the prompt."""
        prompt, system = design.prompts[self.prompt], design.sides[self.side].system
        if not system:
            return prompt
        return (Message(role="system", text=system), *(message for message in prompt if message.role != "system"))


def draws(planned: Planned) -> tuple[Draw, Draw]:
    """What stands left and right of a planned pair."""
    control = planned.kind == "control"
    return (
        Draw(prompt=planned.prompt, side=planned.left),
        Draw(prompt=planned.prompt, side=planned.right, again=control),
    )


def all_tokens(read: int | None, written: int | None) -> int | None:
    """What a reply took, read and written together; None where the engine did not say. Sides are compared by it."""
    return None if read is None or written is None else read + written


def why_not_dealt(design: Design, pair: Pair) -> str:
    """Why nobody is asked about a pair, '' if people are."""
    if not (pair.left.text.strip() and pair.right.text.strip()):
        return "One side said nothing."
    if pair.left.text.split() == pair.right.text.split():
        return "Both say the same."
    if leaked := names_in((side.provenance for side in design.sides), (pair.left.text, pair.right.text)):
        return f"A reply gives its side away: it says “{leaked}”."
    return ""


def not_dealt(design: Design, pairs: Sequence[Pair]) -> dict[str, int]:
    """How many pairs nobody is asked about, by reason."""
    return dict(Counter(reason for pair in pairs if (reason := why_not_dealt(design, pair))))


def names_in(made: Iterable[Provenance], texts: Iterable[str]) -> str:
    """A name by which one of these models could be told that stands in a text, '' if none does.

    Its whole name, its adapter's, or that of its family (`SmolLM` and `SmolLM2` of `SmolLM2-135M-Instruct`), as words
    of their own, in capitals or not. A name that could be an ordinary word tells nothing: people say `support` wherever
    the base model lies in a folder that is called so.
    """
    said = list(texts)
    names = {name for one in made for name in (one.adapter, one.model, *_families(one.model)) if name}
    for name in sorted(filter(_is_no_word, names), key=lambda name: (-len(name), name)):
        word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
        if any(word.search(text) for text in said):
            return name
    return ""


def _is_no_word(name: str) -> bool:
    """Whether a name is nothing one says by chance: with a digit, a sign or a capital inside, or a known family."""
    return name.lower() in FAMILIES or not name.isalpha() or not (name[1:].islower() or name.isupper())


def _families(model: str) -> set[str]:
    """What stands before the first dash, with its number and without; nothing shorter than four letters."""
    first = re.match(r"([A-Za-z]{4,})[A-Za-z0-9]*", model.rpartition("/")[2])
    return {first.group(), first.group().rstrip("0123456789")} if first else set()


def in_order_for(voter: str, pairs: Sequence[Pair], votes: Callable[[str], int]) -> Iterator[Pair]:
    """The pairs as this voter gets them: fewest votes first, in an order of their own, repeats at the end."""

    def place(pair: Pair) -> tuple[bool, int, bytes]:
        own = hashlib.sha256(f"{voter} {pair.id}".encode()).digest()
        return (pair.planned.kind == "repeat", votes(pair.id), own)

    yield from sorted(pairs, key=place)


def prompts_of(text: str) -> tuple[tuple[tuple[Message, ...], ...], tuple[dict[str, str], ...] | None]:
    """One prompt a line, and their labels; empty lines and lines twice are passed over.

    A line `# refunds` is no prompt: it gives those below it the topic 'refunds'. Raises UserError with a line's number.
    """
    topics: dict[str, str] = {}
    topic = ""
    for number, line in enumerate(text.splitlines(), start=1):
        said = " ".join(line.split())
        if len(said) > 4_000:
            raise UserError(
                f"Line {number} is {len(said):,} characters long.", "At most 4,000.", "Shorten it, or take it out."
            )
        if said.startswith("# "):
            topic = said[2:62].strip()
        elif said:
            topics.setdefault(said, topic)
    if len(topics) > MOST_PROMPTS:
        raise UserError(f"There are {len(topics):,} questions.", f"At most {MOST_PROMPTS:,}.", "Leave some out.")
    labels = tuple({"topic": topic} if topic else {} for topic in topics.values())
    return tuple((Message(role="user", text=line),) for line in topics), labels if any(labels) else None
