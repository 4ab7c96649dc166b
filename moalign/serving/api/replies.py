"""What the server answers, as its OpenAPI document says it; `shapes` and `catalog` write it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

Finish = Literal["stop", "length"]


class _Open(BaseModel):
    """Answers may grow fields, which clients pass over."""

    model_config = ConfigDict(extra="allow")


class Fault(_Open):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(_Open):
    """Any answer that is not 2xx."""

    error: Fault


class Usage(_Open):
    """Tokens; a prompt with several choices counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class PlanReply(_Open):
    """How the request was served: each lane's mixture, what it is predicted to attain, and the first choice's seed."""

    policy: str
    preference: dict[str, float] | None
    direction: dict[str, float] | None
    lanes: list[dict[str, JsonValue]]
    predicted: dict[str, JsonValue]
    source: str
    seed: int


class TopLogprob(_Open):
    """A token and its log-probability (natural; -9999 for none at all)."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(TopLogprob):
    """A token that was written, and the likeliest in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(_Open):
    """Of the tokens of a message."""

    content: list[ChatLogprob] | None
    refusal: None


class ChatMessage(_Open):
    """An answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Open):
    """One answer; `ended` is "time" where it was cut for time, which `finish_reason` calls a length."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish
    ended: Literal["time"] | None = None


class ChatReply(_Open):
    """An answered conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    moalign: PlanReply


class ChatDelta(_Open):
    """What a chunk adds to an answer: its role first, and then text."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(_Open):
    """One answer in a chunk; the last has a finish reason."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None
    ended: Literal["time"] | None = None


class ChatChunk(_Open):
    """An event of a streamed answer; the first has the plan. With include_usage, the last has the usage alone."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    moalign: PlanReply | None = None


class TextLogprobs(_Open):
    """Of the tokens of a text; offsets count characters from its beginning."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(_Open):
    """One continuation; `ended` as in a chat."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Finish
    ended: Literal["time"] | None = None


class TextReply(_Open):
    """Continued texts: the choices of the first prompt, then those of the next."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage
    moalign: PlanReply


class TextChunkChoice(_Open):
    """One continuation in a chunk; the last has a finish reason."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Finish | None
    ended: Literal["time"] | None = None


class TextChunk(_Open):
    """An event of a streamed continuation, as in a chat."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChunkChoice]
    usage: Usage | None = None
    moalign: PlanReply | None = None


class ModelCard(_Open):
    """A model by its name.

    `kind` is preference (mixed as asked), base or adapter. What was measured stands in the objectives' units.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: Literal["preference", "base", "adapter"]
    objectives: list[str] | None = None
    syntax: str | None = None
    policies: list[str] | None = None
    default_policy: str | None = None
    preference: dict[str, float] | None = None
    direction: dict[str, float] | None = None
    values: dict[str, float | None] | None = None
    standard_errors: dict[str, float | None] | None = None
    intervals: dict[str, list[float | None]] | None = None
    plan: dict[str, Any] | None = None


class ModelList(_Open):
    """Every name that a request may give as its model."""

    object: Literal["list"]
    data: list[ModelCard]


class State(_Open):
    """Whether the process lives, or takes requests."""

    status: Literal["ok"]
