"""An engine without a model: it says the prompt's last words back, a word per step, as the real one would deliver."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from moalign.errors import BusyError
from moalign.serving.meter import Meter
from moalign.serving.plan import Plan
from moalign.serving.sampling import Piece, Sampling, TokenLogprob


@dataclass(eq=False)
class StandInTicket:
    """A request, and how many words of each choice are said."""

    words: list[str]
    plan: Plan
    samplings: Sequence[Sampling]
    deliver: Callable[[list[Piece]], None]
    arrived: float = field(default_factory=time.monotonic)
    said: list[int] = field(default_factory=list)
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.said = [0] * len(self.samplings)

    def cancel(self) -> None:
        """Say no more."""
        self.cancelled = True


class StandInEngine:
    """Echoes the last words of the prompt; the word "fail" fails, and "forever" is said until it is stopped or cut.

    A choice says "#seed" first, so that seeds can be told apart. `room` requests may be there at once; `pause` seconds
    pass between two words.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, meter: Meter, context: int, room: int = 8, pause: float = 0.0
    ):
        self.context = context
        self.tickets: list[StandInTicket] = []
        self.seen: list[StandInTicket] = []
        self._tokenizer, self._meter, self._room, self.pause = tokenizer, meter, room, pause
        self._until: float | None = None
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def submit(
        self, prompt: list[int], plan: Plan, samplings: Sequence[Sampling], deliver: Callable[[list[Piece]], None]
    ) -> StandInTicket:
        """As the engine's."""
        text = str(self._tokenizer.decode(prompt, skip_special_tokens=True))
        ticket = StandInTicket(text.split()[-8:], plan, samplings, deliver)
        with self._wake:
            if self._until is not None:
                raise BusyError("the server is stopping", 1.0)
            if len(self.tickets) >= self._room:
                raise BusyError(f"{len(self.tickets)} requests are waiting already", 2.4)
            self.tickets.append(ticket)
            self.seen.append(ticket)
            self._wake.notify()
        self._meter.started(plan.policy, len(prompt), 0)
        return ticket

    @property
    def waiting(self) -> int:
        """None: every request is begun at once."""
        return 0

    @property
    def running(self) -> int:
        """Choices that are being said."""
        return sum(len(ticket.samplings) for ticket in self.tickets)

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._thread.is_alive() and self._until is None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, drain_seconds: float) -> None:
        """Finish what is there, within so many seconds."""
        with self._wake:
            self._until = time.monotonic() + drain_seconds
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self.tickets and self._until is None:
                    self._wake.wait()
                if not self.tickets:
                    return
                tickets = list(self.tickets)
            late = self._until is not None and time.monotonic() > self._until
            written = 0
            for ticket in tickets:
                pieces = [] if ticket.cancelled else self._step(ticket, late)
                written += len(pieces)
                if pieces:
                    ticket.deliver(pieces)
                if ticket.cancelled or max(ticket.said) < 0:
                    with self._wake:
                        self.tickets.remove(ticket)
            self._meter.step(self.running, 0, 4, written)
            time.sleep(self.pause)

    def _step(self, ticket: StandInTicket, late: bool) -> list[Piece]:
        """A word of each choice that is not finished, whose count then is -1."""
        pieces = []
        for choice, (said, sampling) in enumerate(zip(list(ticket.said), ticket.samplings, strict=True)):
            if said < 0:
                continue
            piece = self._word(choice, said, ticket, sampling, late)
            ticket.said[choice] = said + 1 if piece.finish is None and piece.error is None else -1
            if ticket.said[choice] < 0:
                reason = "error" if piece.error else str(piece.finish)
                self._meter.finished(ticket.plan.policy, reason, time.monotonic() - ticket.arrived, piece.tokens)
            pieces.append(piece)
        return pieces

    def _word(self, choice: int, said: int, ticket: StandInTicket, sampling: Sampling, late: bool) -> Piece:
        words = [f"#{sampling.seed}", *ticket.words]
        if late:
            return Piece(choice, "", finish="time", tokens=said)
        if said >= len(words) and words[-1] != "forever":
            return Piece(choice, "", finish="stop", tokens=said + 1)
        word = words[min(said, len(words) - 1)]
        if word == "fail":
            return Piece(choice, "", error="the server could not go on with this text", tokens=said)
        if word in sampling.stop:
            return Piece(choice, "", finish="stop", tokens=said + 1)
        text = (" " if said else "") + word
        finish = "length" if said + 1 >= sampling.max_tokens else None
        logprobs: tuple[TokenLogprob, ...] = ()
        if sampling.top_logprobs is not None:
            raw = text.encode()
            others = ((text, raw, -0.5), (" no", b" no", float("-inf")))
            logprobs = (TokenLogprob(text, raw, -0.5, others[: sampling.top_logprobs]),)
        return Piece(choice, text, finish, logprobs, said + 1)
