"""The two forms of an answer, chat and plain completion, whole and in chunks, as OpenAI writes them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from moalign.serving.api.answering import Written
from moalign.serving.sampling import Piece, TokenLogprob

LEAST = -9999.0  # OpenAI's word for a log-probability of minus infinity


@dataclass(frozen=True)
class Shape:
    """One form. `opening` makes the choices of a first chunk (none: no such chunk), `whole` a finished choice.

    `delta` makes a choice of a chunk from a piece; the last argument is how many characters its tokens follow.
    """

    prefix: str
    name: str
    chunk_name: str
    opening: Callable[[int], list[dict[str, Any]]]
    whole: Callable[[int, Written], dict[str, Any]]
    delta: Callable[[Piece, int], dict[str, Any]]

    def head(self, model: str, fingerprint: str, chunk: bool) -> dict[str, Any]:
        """What every answer and every chunk of one begins with."""
        return {
            "id": f"{self.prefix}-{uuid4().hex}",
            "object": self.chunk_name if chunk else self.name,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }


def finish_of(finish: str | None) -> dict[str, Any]:
    """`finish_reason`, in OpenAI's words; that time was up is a length for them, and `ended` says it.

    >>> finish_of("time")
    {'finish_reason': 'length', 'ended': 'time'}
    """
    return {"finish_reason": "length", "ended": "time"} if finish == "time" else {"finish_reason": finish}


def usage(prompt_tokens: int, written: Sequence[Written]) -> dict[str, int]:
    """Tokens of the prompts, each counted once, and of all choices."""
    completion = sum(each.tokens for each in written)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
    }


def _finite(value: float) -> float:
    return value if value > LEAST else LEAST  # NaN too


def _chat_logprobs(logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    def entry(token: str, raw: bytes, value: float) -> dict[str, Any]:
        return {"token": token, "logprob": _finite(value), "bytes": list(raw)}

    content = [
        {**entry(each.token, each.token_bytes, each.logprob), "top_logprobs": [entry(*other) for other in each.top]}
        for each in logprobs
    ]
    return {"content": content, "refusal": None} if content else None


def _text_logprobs(logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any] | None:
    if not logprobs:
        return None
    places = [offset]
    for each in logprobs:
        places.append(places[-1] + len(each.token))
    return {
        "tokens": [each.token for each in logprobs],
        "token_logprobs": [_finite(each.logprob) for each in logprobs],
        "top_logprobs": [{token: _finite(value) for token, _, value in each.top} for each in logprobs],
        "text_offset": places[:-1],
    }


def _chat_choice(index: int, written: Written) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": written.text, "refusal": None},
        "logprobs": _chat_logprobs(written.logprobs),
        **finish_of(written.finish),
    }


def _chat_delta(piece: Piece, _offset: int) -> dict[str, Any]:
    return {
        "index": piece.choice,
        "delta": {"content": piece.text} if piece.text or piece.logprobs else {},
        "logprobs": _chat_logprobs(piece.logprobs),
        **finish_of(piece.finish),
    }


def _chat_opening(choices: int) -> list[dict[str, Any]]:
    return [
        {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        for index in range(choices)
    ]


def _text_choice(index: int, written: Written) -> dict[str, Any]:
    logprobs = _text_logprobs(written.logprobs, 0)
    return {"index": index, "text": written.text, "logprobs": logprobs, **finish_of(written.finish)}


def _text_delta(piece: Piece, offset: int) -> dict[str, Any]:
    logprobs = _text_logprobs(piece.logprobs, offset)
    return {"index": piece.choice, "text": piece.text, "logprobs": logprobs, **finish_of(piece.finish)}


CHAT = Shape("chatcmpl", "chat.completion", "chat.completion.chunk", _chat_opening, _chat_choice, _chat_delta)
TEXT = Shape("cmpl", "text_completion", "text_completion", lambda _: [], _text_choice, _text_delta)


def plan_of(described: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The `moalign` object: the plan, and the seed of the first choice."""
    return {**described, "seed": seed}
