"""What other programs may ask of a model: the fields of OpenAI's API that change how a reply is drawn, and no others.

vLLM takes many more. Some of them read files or addresses (pictures in a message), run code (`chat_template`), go
before others (`priority`), or lift the limits here; so what is not named here is refused, and the engine is asked with
what was understood, never with what was sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from annotation.errors import UserError
from annotation.types import Frozen

MOST_BYTES = 1_000_000
"""Longest request."""
MOST_TOKENS = 4096
"""Longest reply that can be asked for; without a wish it ends where the model's context does."""
MOST_REPLIES = 8
"""To one request."""
SCHEMA_BYTES = 20_000

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@:/+-]{1,200}$")]
Short = Annotated[str, StringConstraints(min_length=1, max_length=200)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class Misasked(UserError):
    """A request that can't be taken; `param` names the field at fault, '' if it is none in particular."""

    def __init__(self, found: str, wanted: str = "", do: str = "", param: str = "") -> None:
        super().__init__(found, wanted, do)
        self.param = param


class Text(Frozen):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Said(Frozen):
    """A message. A reply as a client library keeps it, with its empty fields, can be sent back as it is."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[Text, ...]
    name: Annotated[str, Field(max_length=64)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: Any) -> Any:
        return {key: one for key, one in value.items() if one not in (None, [])} if isinstance(value, dict) else value


class StreamOptions(Frozen):
    """What a stream tells besides the words."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class JsonSchema(Frozen):
    """The form that a reply is held to."""

    name: Short
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None

    @model_validator(mode="after")
    def _small_and_closed(self) -> JsonSchema:
        if len(json.dumps(self.schema_, ensure_ascii=False).encode()) > SCHEMA_BYTES:
            raise ValueError(f"a schema can have {SCHEMA_BYTES:,} bytes")
        if any(not str(where).startswith("#") for where in _references(self.schema_)):
            raise ValueError("a $ref can lead to places in the schema itself only")
        return self


class ResponseFormat(Frozen):
    """Plain text, any JSON object, or JSON of one form."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Drawing(Frozen):
    """How replies are drawn, as in OpenAI's API, and a few more of vLLM's."""

    model: ModelName
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_REPLIES)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Field(max_length=300)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Short | Annotated[tuple[Short, ...], Field(max_length=16)] | None = None
    response_format: ResponseFormat | None = None
    user: Annotated[str, Field(max_length=200)] | None = None
    """Who it is asked for. It says which side of a canary they are on, and is passed on to nobody."""

    def body(self, model: str) -> dict[str, Any]:
        """What the engine is asked; `model` as it knows it."""
        body = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"user"}) | {"model": model}
        if not self.stream:
            body.pop("stream_options", None)
        return body


class ChatAsked(Drawing):
    """`POST /v1/chat/completions`."""

    messages: Annotated[tuple[Said, ...], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class TextAsked(Drawing):
    """`POST /v1/completions`."""

    prompt: Annotated[str, Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


PATHS: dict[type[Drawing], str] = {ChatAsked: "/v1/chat/completions", TextAsked: "/v1/completions"}
"""Where the engine takes each. Nothing of the address that a program wrote goes to the engine."""


def read(kind: type[Drawing], content: bytes) -> Drawing:
    """A request out of its bytes. Raises Misasked."""
    try:
        value = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Misasked("The request is not JSON.", do="Send the body as JSON, in UTF-8.") from error
    if not isinstance(value, dict):
        raise Misasked("The request is no JSON object.", 'One as {"model": …, "messages": […]}.')
    try:
        return kind.model_validate({key: one for key, one in value.items() if one is not None})
    except ValidationError as error:
        raise _misasked(kind, error) from error


def _misasked(kind: type[Drawing], error: ValidationError) -> Misasked:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    param = where[0] if where else ""
    if first["type"] == "extra_forbidden":
        if len(where) > 1:
            return Misasked(
                f"'{where[-1]}' can't be sent in '{param}'.",
                do="Leave it out: text goes in, and nothing else.",
                param=param,
            )
        names = ", ".join(sorted(name for name in kind.model_fields))
        return Misasked(f"'{param}' is not taken here.", f"Some of: {names}.", "Leave it out.", param)
    if first["type"] == "missing":
        return Misasked(f"'{'.'.join(where)}' is missing.", do="Add it.", param=param)
    return Misasked(f"'{param}' can't be taken: {first['msg']}.", do="Put it right.", param=param)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _references(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict):
        yield from (schema[key] for key in ("$ref", "$dynamicRef", "$recursiveRef") if key in schema)
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from _references(part)
