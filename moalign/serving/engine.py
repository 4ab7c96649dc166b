"""Continuous batching with a row per sequence: one forward pass for all requests, whatever trade-off each asks for.

Between two steps new requests join and finished ones leave. A thread of its own runs the steps; what they bring is
delivered request by request.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch

from moalign.bank import AdapterBank
from moalign.errors import AdapterError, BusyError, ConfigError
from moalign.models import BaseModel
from moalign.serving.batch import Batch
from moalign.serving.lanes import Choice
from moalign.serving.limits import Limits
from moalign.serving.meter import Meter
from moalign.serving.plan import Plan
from moalign.serving.sampling import Piece, Sampling
from moalign.serving.slots import check_architecture

log = logging.getLogger(__name__)

Deliver = Callable[[list[Piece]], None]


class Ticket:
    """One request in the engine: a choice per text, and where their pieces go."""

    def __init__(self, plan: Plan, choices: list[Choice], deliver: Deliver, wake: Callable[[], None]):
        self.plan, self.choices, self.deliver = plan, choices, deliver
        self.waiting = deque(choices)  # those that have no slots yet
        self.open = set(choices)  # those that are not finished: each ends once, whatever fails
        self.pieces: list[Piece] = []  # of the step that is running
        self.arrived = time.monotonic()
        self.admitted: float | None = None  # when its first choice got slots
        self.begun = self.cancelled = False
        self._wake = wake

    def cancel(self) -> None:
        """Nobody reads on: the slots are free at the next step, and nothing more is delivered.

        A delivery that has begun in the engine's thread is not waited for.
        """
        self.cancelled = True
        self._wake()


class Engine:
    """Writes for many requests at once.

    `base` and `bank` (None where only the base is asked for) are the engine's alone from now on. Raises BaseModelError
    if sequences of this architecture cannot be batched in slots, or the base names no EOS token; and AdapterError for
    an adapter with NaN or infinity in it.
    """

    def __init__(self, base: BaseModel, bank: AdapterBank | None, limits: Limits, meter: Meter):
        check_architecture(base)
        if bank is not None:
            _check_finite(bank)
        self._batch = Batch(base, bank, limits)
        self._limits, self._meter = limits, meter
        self._queue: deque[Ticket] = deque()  # without a slot
        self._current: list[Ticket] = []  # with at least one
        self._owner: dict[Choice, Ticket] = {}
        self._wake = threading.Condition()
        self._stopping: float | None = None  # until when what is there may go on
        self._thread = threading.Thread(target=self._run, name="moalign-engine", daemon=True)
        self._seconds = 1.0  # that a request takes, a running mean

    def submit(self, prompt: list[int], plan: Plan, samplings: Sequence[Sampling], deliver: Deliver) -> Ticket:
        """Queue a request, with one sampling per choice. `deliver` is called in the engine's thread, once per step.

        Raises BusyError when as many requests wait as may, or the engine is stopping; ConfigError for a plan of more
        lanes than there are slots and for no choice; and DataError for a prompt that is empty, longer than `context`
        or of tokens that the model lacks.
        """
        if len(plan.rows) > self._limits.slots:
            raise ConfigError(
                f"a plan of {len(plan.rows)} lanes needs as many slots, and this server has {self._limits.slots}; "
                "start it with more slots, or ask for another policy"
            )
        self._refuse_if_busy()  # before the work of making choices, and again once it is done
        ticket = Ticket(plan, self._batch.choices(prompt, plan, samplings), deliver, self._notify)
        with self._wake:
            self._refuse_if_busy()
            self._queue.append(ticket)
            self._wake.notify()
        return ticket

    def _refuse_if_busy(self) -> None:
        if self._stopping is not None:
            raise BusyError("the server is stopping", 1.0)
        if len(self._queue) >= self._limits.queue:
            wait = self._seconds * len(self._queue) / self._limits.slots
            raise BusyError(f"{len(self._queue)} requests are waiting already", min(max(wait, 1.0), 60.0))

    def start(self) -> None:
        """Begin to run steps."""
        self._thread.start()

    def stop(self, drain_seconds: float) -> None:
        """Take no more requests, finish those that are there within so many seconds, and end."""
        until = time.monotonic() + drain_seconds
        with self._wake:
            self._stopping = until if self._stopping is None else min(until, self._stopping)
            if self._queue and self._thread.ident is None:  # it was never started, and yet they are to hear of it
                self._thread.start()
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def context(self) -> int:
        """Tokens of prompt and text together."""
        return self._batch.context

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Sequences in slots."""
        return len(self._batch)

    @property
    def ready(self) -> bool:
        """Whether requests are taken and served."""
        return self._thread.is_alive() and self._stopping is None

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    @torch.inference_mode()
    def _run(self) -> None:
        while self._wait_for_work():
            self._turn()

    def _turn(self) -> None:
        try:
            self._clear_out()
            self._admit()
            self._step()
        except Exception as error:  # those who are writing lose their texts, and the server goes on
            log.exception("a step failed")
            self._fail(f"the server could not finish this text ({type(error).__name__})")
        self._hand_out()

    def _wait_for_work(self) -> bool:
        with self._wake:
            while not (self._queue or self._current):
                if self._stopping is not None:
                    return False
                self._wake.wait()
        return True

    def _clear_out(self) -> None:
        """Free the slots of those who have gone, and end what has had its time."""
        now = time.monotonic()
        over = self._stopping is not None and now > self._stopping
        with self._wake:
            leaving = [
                ticket
                for ticket in [*self._current, *self._queue]
                if ticket.cancelled or over or now - ticket.arrived > self._limits.seconds
            ]
            for ticket in leaving:
                if ticket in self._queue:
                    self._queue.remove(ticket)
                    self._current.append(ticket)  # so that what it is told last is handed out
        for ticket in leaving:
            for choice in [each for each in ticket.choices if each in ticket.open]:
                piece = Piece(choice.number, choice.text.end(), "time", tokens=len(choice.written))
                self._ended(ticket, choice, piece)
            self._batch.release(ticket.choices)
            ticket.waiting.clear()

    def _admit(self) -> None:
        """Give slots to choices, strictly in the order in which they came."""
        while True:
            ticket = next((each for each in self._current if each.waiting), None)
            if ticket is None:
                with self._wake:
                    if not self._queue:
                        return
                    ticket = self._queue[0]
            choice = ticket.waiting[0]
            # The other choices of a prompt copy what the first has read, once it has.
            if len(choice.lanes) > self._batch.free or (choice.number and not ticket.begun):
                return
            ticket.waiting.popleft()
            if not choice.number:
                with self._wake:
                    self._queue.popleft()
                self._current.append(ticket)
                ticket.admitted = time.monotonic()
            self._owner[choice] = ticket
            self._meter.started(ticket.plan.policy, len(choice.prompt), self._batch.admit(choice))

    def _step(self) -> None:
        written = self._batch.step()
        for choice, piece in written:
            ticket = self._owner[choice]
            if not ticket.begun:
                ticket.begun = True
                self._meter.first_token(time.monotonic() - ticket.arrived)
            if piece.finish is None and piece.error is None:
                ticket.pieces.append(piece)
            else:
                self._ended(ticket, choice, piece)
        self._meter.step(len(self._batch), len(self._queue), self._limits.slots, len(written))

    def _ended(self, ticket: Ticket, choice: Choice, piece: Piece) -> None:
        now = time.monotonic()
        if ticket.admitted is not None:  # the time in the queue is what the mean is there to predict
            self._seconds += 0.1 * (now - ticket.admitted - self._seconds)
        self._owner.pop(choice, None)
        ticket.open.discard(choice)
        ticket.pieces.append(piece)
        reason = "cancelled" if ticket.cancelled else "error" if piece.error is not None else str(piece.finish)
        self._meter.finished(ticket.plan.policy, reason, now - ticket.arrived, piece.tokens)

    def _fail(self, message: str) -> None:
        """End all that has slots, in whatever state the step left it: what a choice ended with may be lost."""
        for ticket in self._current:
            for choice in [each for each in ticket.choices if each in ticket.open]:
                self._ended(ticket, choice, Piece(choice.number, "", error=message, tokens=len(choice.written)))
            ticket.waiting.clear()
        self._batch.clear()

    def _hand_out(self) -> None:
        for ticket in self._current:
            if ticket.pieces and not ticket.cancelled:
                try:
                    ticket.deliver(ticket.pieces)
                except Exception:  # whoever asked is gone, and the others are not to suffer
                    log.exception("pieces could not be delivered")
                    ticket.cancelled = True
            ticket.pieces = []
        self._current = [ticket for ticket in self._current if ticket.open]


def _check_finite(bank: AdapterBank) -> None:
    """Adapters lie side by side in one product, where 0 times NaN is NaN for the texts of all others too."""
    for module, layer in bank.layers.items():
        sound = (layer.A.isfinite().flatten(1).all(1) & layer.B.isfinite().flatten(1).all(1)).tolist()
        if not all(sound):
            raise AdapterError(
                f"adapter {bank.names[sound.index(False)]} holds NaN or infinity in layer {module!r}, which would "
                "reach every text of a batch; take it out of the run, or train it again"
            )
