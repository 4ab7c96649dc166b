"""What a request may say: OpenAI's fields, and three of our own.

Fields of OpenAI's that are not here are refused by name, unless they are given the value that changes nothing; a field
that nobody knows is refused with the near name. A field that is null counts as not given.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Token = Annotated[int, Field(ge=0, lt=1 << 31)]

# OpenAI's fields that are not supported: the values that change nothing, beside null, and what to do instead.
NEUTRAL: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), "tools cannot be called here"),
    "tool_choice": (("none", "auto"), "tools cannot be called here"),
    "parallel_tool_calls": ((True, False), "tools cannot be called here"),
    "functions": (([],), "functions cannot be called here"),
    "function_call": (("none", "auto"), "functions cannot be called here"),
    "tool_calls": (([],), "tools cannot be called here"),
    "tool_call_id": ((), "tools cannot be called here"),
    "response_format": (({"type": "text"},), "answers are free text"),
    "modalities": ((["text"],), "answers are text"),
    "audio": ((), "answers are text"),
    "refusal": ((), "messages are text"),
    "annotations": (([],), "messages are text"),
    "name": ((), "chat templates know roles and no names; say who speaks in the content"),
    "prediction": ((), "leave it out"),
    "logit_bias": (({},), "leave it out; weights say what is wanted"),
    "presence_penalty": ((0,), "leave it out; weights say what is wanted"),
    "frequency_penalty": ((0,), "leave it out; weights say what is wanted"),
    "reasoning_effort": (("none",), "leave it out"),
    "verbosity": (("medium",), "leave it out; weights say what is wanted"),
    "web_search_options": ((), "nothing is searched here"),
    "moderation": ((), "leave it out"),
    "store": ((False,), "nothing is stored here"),
    "service_tier": (("auto", "default"), "there is one tier"),
    "echo": ((False,), "the prompt is not repeated"),
    "suffix": (("",), "text is written after the prompt only"),
    "best_of": ((1,), "ask for n answers, and choose"),
}


class _Strict(BaseModel):
    """No guessing: true is no number, "1" is none either, and no field is ignored."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        kept = {}
        for name, value in given.items():
            if name in cls.model_fields:
                kept[name] = value
            elif name not in NEUTRAL:
                raise PydanticCustomError("unknown_field", "{field}", {"field": name})
            elif not _changes_nothing(name, value):
                reason = {"field": name, "why": NEUTRAL[name][1]}
                raise PydanticCustomError("unsupported_field", "{field} is not supported: {why}", reason)
        return kept


def _changes_nothing(name: str, value: Any) -> bool:
    """Whether an unsupported field has a value that may be left out; 1 is not true here, though Python says so."""
    return value is None or any(
        value == each and isinstance(value, bool) == isinstance(each, bool) for each in NEUTRAL[name][0]
    )


class TextPart(_Strict):
    """A piece of a message; the pieces are joined as they are."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """One turn of a conversation; `developer` is another word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]

    @property
    def text(self) -> str:
        """Its content in one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(_Strict):
    """What a stream says beside the text."""

    include_usage: bool | None = Field(None, description="a last chunk that counts the tokens")
    include_obfuscation: bool | None = Field(None, description="accepted and ignored: chunks are not padded here")


class _Request(_Strict):
    """What both kinds of requests may say."""

    model: str = Field(
        description="moalign (with weights; without: even ones), moalign@NAME=WEIGHT,NAME=WEIGHT, base, or the name of "
        "an adapter; GET /v1/models lists them"
    )
    weights: Annotated[dict[str, float], Field(min_length=1)] | None = Field(
        None,
        description="objective -> how much it counts; they need not sum to 1, and may be negative for policy direction",
    )
    policy: str | None = Field(
        None,
        description="how weights become a mixture: nearest, interpolate, soup, calibrated, direction or decode",
    )
    divergence: Literal["reverse_kl", "forward_kl", "jsd"] | None = Field(None, description="for policy decode")
    max_tokens: int | None = Field(None, ge=1, description="of one choice; otherwise as many as there is room for")
    temperature: float | None = Field(None, ge=0, le=2, description="0 takes the likeliest token; 1 if not given")
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, description="choices for each prompt; 1 if not given")
    seed: int | None = Field(None, ge=0, lt=1 << 63, description="same seed, same text; drawn if not given")
    stop: str | list[str] | None = Field(None, description="the text ends before the first of these")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="accepted and ignored")
    safety_identifier: str | None = Field(None, description="accepted and ignored")
    prompt_cache_key: str | None = Field(None, description="accepted and ignored")
    metadata: dict[str, str] | None = Field(None, description="accepted and ignored")

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> "_Request":
        if self.stream_options is not None and not self.stream:
            raise _fault("stream_options", "stream_options go with stream: true")
        return self

    @property
    def usage_chunk(self) -> bool:
        """Whether the stream ends with a chunk of token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class CompletionRequest(_Request):
    """POST /v1/completions: text or tokens to be continued."""

    prompt: str | list[str] | list[Token] | list[list[Token]] = Field(
        description="one text or several, as strings or as token ids of the base"
    )
    logprobs: int | None = Field(None, ge=0, le=20, description="log-probabilities of so many likeliest tokens")

    @property
    def top_logprobs_wanted(self) -> int | None:
        """As the engine is asked: None for no log-probabilities."""
        return self.logprobs


class ChatRequest(_Request):
    """POST /v1/chat/completions: a conversation to be answered."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20, description="goes with logprobs: true")

    @model_validator(mode="after")
    def _fields_agree(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise _fault("top_logprobs", "top_logprobs go with logprobs: true")
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise _fault(
                "max_completion_tokens",
                f"max_tokens is {self.max_tokens} and max_completion_tokens {self.max_completion_tokens}; give one",
            )
        return self

    @property
    def top_logprobs_wanted(self) -> int | None:
        """As the engine is asked: None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


def _fault(field: str, message: str) -> PydanticCustomError:
    # Braces would be read as places to fill in, so the text is filled in itself.
    return PydanticCustomError("fault", "{text}", {"text": message, "field": field})
