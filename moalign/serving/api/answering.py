"""From the engine's thread to the event loop: the pieces of a request, until it is finished or its client has gone."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from starlette.types import Receive

from moalign.errors import BusyError, DataError
from moalign.serving.api.asking import Ask
from moalign.serving.api.refusals import RefusedError, busy
from moalign.serving.api.service import Service, Submitted
from moalign.serving.sampling import Piece, TokenLogprob


@dataclass
class Written:
    """One choice as far as it is written."""

    text: str = ""
    finish: str | None = None
    tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Append what a step brought."""
        self.text += piece.text
        self.finish, self.tokens = piece.finish, piece.tokens
        self.logprobs += piece.logprobs


class Answer:
    """A request in the engine. Make it with `Answer.to`, and read `pieces` once.

    The choices of the first prompt are numbered first, then those of the next. When the client goes away its slots are
    freed, and `gone` is true.
    """

    def __init__(self, receive: Receive, choices: int):
        self.gone = False
        self.written = [Written() for _ in range(choices)]
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[list[Piece] | None] = asyncio.Queue()
        self._tickets: list[Submitted] = []
        # From the first moment: who goes before anything is read of the answer frees its slots too.
        self._watching = asyncio.create_task(self._watch())

    @classmethod
    def to(cls, ask: Ask, service: Service, receive: Receive) -> "Answer":
        """Submit every part. Raises RefusedError, 429 or 503, when one of them finds no room; then none is in."""
        answer, first = cls(receive, ask.choices), 0
        try:
            for ids, samplings in ask.parts:
                ticket = service.engine.submit(ids, ask.plan, samplings, answer._delivery(first))
                answer._tickets.append(ticket)
                first += len(samplings)
        except Exception as error:
            answer._watching.cancel()
            answer.cancel()
            if isinstance(error, BusyError):
                raise busy(error, stopping=not service.ready) from error
            if isinstance(error, DataError):  # a prompt that the model cannot read
                raise RefusedError(400, str(error), param="prompt", code="bad_prompt") from error
            raise
        return answer

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        """What each step brought, until every choice is finished or failed, or the client has gone."""
        unfinished = len(self.written)
        try:
            while unfinished and (pieces := await self._arrived.get()) is not None:
                for piece in pieces:
                    self.written[piece.choice].add(piece)
                    unfinished -= piece.finish is not None or piece.error is not None
                yield pieces
        finally:
            self._watching.cancel()
            if unfinished:
                self.cancel()

    async def whole(self) -> list[Written]:
        """All choices, finished; not so if the client has gone. Raises RefusedError (500) if one failed."""
        async with aclosing(self.pieces()) as batches:
            async for pieces in batches:
                check(pieces)
        return self.written

    def cancel(self) -> None:
        """Free the slots."""
        for ticket in self._tickets:
            ticket.cancel()

    def _delivery(self, first: int) -> Callable[[list[Piece]], None]:
        """For the engine's thread: one call into the loop per step."""

        def deliver(pieces: list[Piece]) -> None:
            moved = [replace(piece, choice=first + piece.choice) for piece in pieces] if first else list(pieces)
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, moved)

        return deliver

    async def _watch(self) -> None:
        """The body has been read, so that the next message can only be that the client has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.cancel()
        self._arrived.put_nowait(None)


def check(pieces: list[Piece]) -> None:
    """Raise RefusedError (500) if a choice failed."""
    for piece in pieces:
        if piece.error is not None:
            raise RefusedError(500, piece.error, code="engine_failed")
