"""Asking an engine from a test, and waiting for what it delivers."""

import threading
from collections.abc import Sequence

from moalign.serving.engine import Engine, Ticket
from moalign.serving.plan import Plan
from moalign.serving.sampling import Piece, Sampling


class Asked:
    """One request: submitted when made, its pieces as they come."""

    def __init__(self, engine: Engine, prompt: list[int], plan: Plan, *samplings: Sampling):
        self.pieces: list[Piece] = []
        self.done, self.begun = threading.Event(), threading.Event()
        self._open = len(samplings)
        self.ticket: Ticket = engine.submit(prompt, plan, samplings, self._take)

    def _take(self, pieces: Sequence[Piece]) -> None:
        self.pieces += pieces
        self._open -= sum(piece.finish is not None or piece.error is not None for piece in pieces)
        self.begun.set()
        if not self._open:
            self.done.set()

    def text(self, choice: int = 0) -> str:
        """The whole text of a choice, once all are finished."""
        assert self.done.wait(60), "no end within a minute"
        return "".join(piece.text for piece in self.pieces if piece.choice == choice)

    def finish(self, choice: int = 0) -> str | None:
        """How a choice ended."""
        assert self.done.wait(60), "no end within a minute"
        return next(piece.finish for piece in reversed(self.pieces) if piece.choice == choice)
