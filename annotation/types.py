"""The words of the domain. Every type is frozen: a change is a new value, and history is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, Protocol, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "stopped", "error"]
"""Why a reply ended: by itself, at the token limit, by the person's 'stop', or because the engine failed."""
Question = Literal["voice", "policy", "bias"]
Value = Literal["pass", "fail", "unsure", "not_applicable"]
"""`pass`: on voice / within policy / no bias. An unlabelled question is absent, never a value."""
Severity = Literal["minor", "major", "critical"]
BiasKind = Literal["stereotype", "assumption", "unequal_help", "disrespect", "exclusion"]
Route = Literal["queue", "search", "gold", "repeat", "adjudication", "late", "import"]
"""How a reply came before a person: dealt from the queue, found and claimed, a hidden check, the same reply a second
time, a disagreement to settle, a hold that had run out, or brought in from elsewhere."""
Outcome = Literal["left", "right", "tie", "both_bad"]
Place = Literal["left", "right", "third", "fourth"]
"""Where a reply stands among up to four; two stand left and right."""
PLACES: tuple[Place, ...] = get_args(Place)
Pick = Literal["left", "right", "third", "fourth", "tie", "both_bad"]
"""An Outcome among up to four: which is best, about the same, or all bad."""
Strength = Literal[1, 2, 3]
"""How much better: slightly, clearly, much."""
Tag = Literal["wrong", "off_voice", "unsafe", "unfair", "too_long", "unclear", "other"]


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


class Frozen(BaseModel):
    """Base of all domain types: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Frozen):
    """One message as a model sees it."""

    role: Role
    text: str

    def as_chat(self) -> dict[str, str]:
        """The OpenAI chat form: `{"role": …, "content": …}`."""
        return {"role": self.role, "content": self.text}


class Sampling(Frozen):
    """How a reply is drawn. Sent with every request, so that no server default can differ between two sides."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """0 is greedy: the same prompt gives the same reply."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 200
    """Longest reply, in tokens."""
    seed: int | None = None
    """None lets the engine draw one."""
    json_schema: str | None = None
    """The form that the reply must have, as a JSON schema; None for free text."""


class Weights(Frozen):
    """What an engine read when it loaded the weights it answers with, as it says itself."""

    base_sha256: str
    """Hash of the base model's weights."""
    adapter_sha256: str | None = None
    """Hash of the adapter's weights file; None for the base alone."""


class Provenance(Frozen):
    """Which weights gave a reply, and how."""

    model: str
    """Name of the base model, for example `SmolLM2-135M-Instruct`."""
    adapter: str | None = None
    """Immutable adapter name; None for the base alone."""
    weights_sha256: str | None = None
    """Hash of the adapter's weights file, by our registry; None for the base alone."""
    base_sha256: str | None = None
    """Hash of the base's weights, as they lie here; None for a server that is not ours."""
    attested: Weights | None = None
    """What the engine itself said; None where it does not say, as a server that is not ours."""
    elsewhere: str | None = None
    """Address of a server that is not ours and takes no adapters, whose `model` this is; None for all others."""
    sampling: Sampling | None = None
    seconds: float | None = None
    """From request to last token."""
    finish: Finish | None = None
    corrects: str | None = None
    """Id of the reply that a person rewrote into this one; None for what a model said."""

    @property
    def asked_as(self) -> str:
        """The name to ask for it again: an adapter's, a model's of another server, or `base`."""
        return self.adapter or (self.model if self.elsewhere else "base")


class Turn(Frozen):
    """One message as it is kept: part of a tree, so a retry or an edit adds a sibling and nothing is lost."""

    id: str
    conversation_id: str
    parent_id: str | None
    role: Role
    text: str
    made_at: AwareDatetime
    provenance: Provenance | None = None

    def as_message(self) -> Message:
        return Message(role=self.role, text=self.text)


class Conversation(Frozen):
    """A conversation along one path of its tree, from the first turn to the head."""

    id: str
    source: str
    """Where it came from: `chat`, `demo`, `import:<file name>` …"""
    external_id: str | None
    """Its id at the source; (source, external_id) is unique, so importing twice adds nothing."""
    title: str
    language: str | None
    """BCP 47 tag, None if not stated."""
    created_at: AwareDatetime
    turns: tuple[Turn, ...]


RuleId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
"""Stable over versions: small letters, digits and hyphens."""


class Trait(Frozen):
    """One trait of the brand voice."""

    id: RuleId
    text: str
    dos: tuple[str, ...] = ()
    donts: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    """Whole replies that have the trait."""
    marker: str | None = None
    """A regular expression (Python, case-insensitive, searched in the reply) that a reply with this trait matches;
    None where no pattern can tell."""


class Clause(Frozen):
    """One policy clause. Its id is stable over versions: judgements cite it."""

    id: RuleId
    text: str
    severity: Severity = "major"
    violations: tuple[str, ...] = ()
    """Replies, or pieces of one, that break it."""
    pattern: str | None = None
    """A regular expression (Python, case-insensitive) that finds a likely violation in a reply; None where no pattern
    can tell. What it finds is a suggestion, never a judgement."""


class Axis(Frozen):
    """One axis of bias: what must not change how somebody is treated."""

    id: RuleId
    text: str
    groups: tuple[str, ...] = ()
    """The groups it compares."""


class Charter(Frozen):
    """The house rules of one version."""

    name: str
    version: Annotated[int, Field(ge=1)] = 1
    purpose: str = ""
    languages: tuple[str, ...] = ()
    """BCP 47 tags of the languages a reply may be in; empty means any."""
    wording_only: tuple[RuleId, ...] = ()
    """Rules whose text this version changed without changing their meaning: judgements under them stay good."""
    voice: tuple[Trait, ...] = ()
    policy: tuple[Clause, ...] = ()
    bias: tuple[Axis, ...] = ()


class Span(Frozen):
    """A piece of a reply, in Unicode code points, `end` exclusive."""

    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=1)]


class Judgement(Frozen):
    """One answer to one question about one reply, by one reviewer, under one charter version. Append-only."""

    id: str
    reply_id: str
    """Id of the assistant's turn that was judged."""
    question: Question
    value: Value
    clause_ids: tuple[str, ...] = ()
    """Traits, clauses or axes at fault, ids of `charter_version`."""
    severity: Severity | None = None
    """Of a policy violation; None where nobody said."""
    kind: BiasKind | None = None
    """Of a bias; None where nobody said."""
    spans: tuple[Span, ...] = ()
    """Where in the reply it shows."""
    charter_version: int
    reviewer: str
    route: Route = "queue"
    seconds: float | None = None
    """How long the item was open."""
    note: str = ""
    made_at: AwareDatetime


class Correction(Frozen):
    """A reply as it should have been. One act yields an SFT row, a preference pair and its labels. Append-only."""

    id: str
    reply_id: str
    before: str
    after: str
    reasons: tuple[str, ...] = ()
    author: str
    origin: Literal["review", "chat", "starter", "import"] = "review"
    made_at: AwareDatetime


class Preference(Frozen):
    """Two replies to one prompt, and which is better."""

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: Literal["correction", "vote", "ranking"]
    voter: str
    strength: Strength = 1
    """How much better, where somebody said."""

    def swap(self) -> Preference:
        """The same pair the other way round: content and label move together."""
        return self.model_copy(update={"chosen": self.rejected, "rejected": self.chosen})


class DatasetVersion(Frozen):
    """An immutable dataset version. Its contents are files; this is its card."""

    id: str
    """`ds-<number>-<first 8 of sha256>`."""
    number: int
    parent_id: str | None
    note: str = ""
    rows: dict[str, int]
    """Rows a file: `sft`, `preference`, `held_out`, `left_out`."""
    charter_version: int
    sha256: str
    """Over the bytes of `sft.jsonl` and `preference.jsonl`, in that order."""
    author: str
    made_at: AwareDatetime


class Chunk(Frozen):
    """A piece of a streamed reply; the last one has `finish` and the token counts."""

    text: str = ""
    finish: Finish | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    weights: Weights | None = None
    """Whose words these are, on every piece; None where the engine does not say."""


class ChatModel(Protocol):
    """Anything that answers a conversation in pieces: vLLM, an attached server, the scripted model."""

    def stream(self, messages: Sequence[Message], *, model: str, sampling: Sampling) -> AsyncIterator[Chunk]:
        """Stream the reply to `messages` from `model` (`base` or an adapter's name).

        Raises UserError if the model is not there or the engine cannot answer.
        """
        ...
