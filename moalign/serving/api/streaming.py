"""An answer as server-sent events: a role, deltas, finish reasons, the usage if it was asked for, and [DONE]."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from moalign.serving.api.answering import Answer, check
from moalign.serving.api.refusals import RefusedError, encoded
from moalign.serving.api.shapes import Shape, usage
from moalign.serving.sampling import Piece

DONE = b"data: [DONE]\n\n"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # a proxy that collects a stream makes none of it


def event(body: Mapping[str, Any]) -> bytes:
    """One event.

    >>> event({"n": 1})
    b'data: {"n":1}\\n\\n'
    """
    return b"data: " + encoded(body) + b"\n\n"


async def events(
    answer: Answer, shape: Shape, head: Mapping[str, Any], plan: Mapping[str, Any], prompt_tokens: int, count: bool
) -> AsyncIterator[bytes]:
    """The events of an answer. The plan stands in the first one; with `count` a last one holds the usage.

    A choice that fails ends the stream with an error in OpenAI's shape: its status has long been sent. Nothing comes
    after the client has gone.
    """
    common = {**head, **({"usage": None} if count else {})}
    first = {"moalign": plan}
    offsets = [0] * len(answer.written)
    async with aclosing(answer.pieces()) as batches:
        if opening := shape.opening(len(answer.written)):
            for choice in opening:
                yield event({**common, "choices": [choice], **first})
                first = {}
        async for pieces in batches:
            try:
                check(pieces)
            except RefusedError as error:
                yield event(error.body) + DONE
                return
            chunks = [{**common, "choices": [choice]} for choice in _choices(pieces, shape, offsets)]
            if chunks:
                chunks[0] |= first
                first = {}
                yield b"".join(map(event, chunks))
    if answer.gone:
        return
    if count:
        yield event({**head, "choices": [], "usage": usage(prompt_tokens, answer.written)})
    yield DONE


def _choices(pieces: list[Piece], shape: Shape, offsets: list[int]) -> list[dict[str, Any]]:
    """What the pieces that say something add; `offsets` move on by the characters of their tokens."""
    found = []
    for piece in pieces:
        if piece.text or piece.logprobs or piece.finish is not None:
            found.append(shape.delta(piece, offsets[piece.choice]))
            offsets[piece.choice] += sum(len(each.token) for each in piece.logprobs)
    return found
