"""What a server does, counted: the Prometheus metrics behind /metrics."""

import threading
import time
from collections import deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_WINDOW = 10.0  # seconds over which tokens per second are counted
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


class Meter:
    """Counters of one server, in a registry of their own; safe to use from several threads.

    Policies, reasons, paths and statuses are the server's own words, so that nothing a request says becomes a label.
    `clock` gives seconds.

    >>> meter = Meter()
    >>> meter.step(running=3, waiting=1, slots=4, tokens=3)
    >>> b"moalign_tokens_total 3.0" in meter.exposition()
    True
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._recent: deque[tuple[float, int]] = deque()  # when a step ended, and its tokens
        self._begun = clock()
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._running = Gauge("moalign_running_sequences", "Sequences in slots now", registry=registry)
        self._waiting = Gauge("moalign_waiting_requests", "Requests without a slot now", registry=registry)
        self._slots = Gauge("moalign_slots", "Sequences that one step can hold", registry=registry)
        self._steps = Counter("moalign_steps", "Steps of the engine", registry=registry)
        self._occupancy = Histogram(
            "moalign_batch_occupancy", "Share of the slots in use, per step", buckets=_SHARES, registry=registry
        )
        self._tokens = Counter("moalign_tokens", "Tokens written", registry=registry)
        self._speed = Gauge("moalign_tokens_per_second", f"Over the last {_WINDOW:.0f} seconds", registry=registry)
        self._speed.set_function(self._tokens_per_second)
        self._prompt = Counter("moalign_prompt_tokens", "Tokens of prompts that were started", registry=registry)
        self._reused = Counter("moalign_reused_prompt_tokens", "Of these, not read again", registry=registry)
        self._started = Counter("moalign_plans", "Choices started, by policy", ["policy"], registry=registry)
        self._first = Histogram(
            "moalign_first_token_seconds", "From arrival to first token", buckets=_SECONDS, registry=registry
        )
        self._finished = Counter(
            "moalign_finished", "Choices ended, by policy and reason", ["policy", "reason"], registry=registry
        )
        self._length = Histogram(
            "moalign_seconds", "From arrival to last token, by policy", ["policy"], buckets=_SECONDS, registry=registry
        )
        self._written = Counter("moalign_written_tokens", "Tokens of ended choices", ["policy"], registry=registry)
        self._responses = Counter(
            "moalign_responses", "Answers over HTTP, by path and status", ["path", "status"], registry=registry
        )

    def step(self, running: int, waiting: int, slots: int, tokens: int) -> None:
        """After each step of the engine; `tokens` are those that it wrote."""
        self._running.set(running)
        self._waiting.set(waiting)
        self._slots.set(slots)
        self._steps.inc()
        self._occupancy.observe(running / slots if slots else 0.0)
        self._tokens.inc(tokens)
        with self._lock:
            self._recent.append((self._clock(), tokens))
            self._forget()

    def started(self, policy: str, prompt_tokens: int, reused_tokens: int) -> None:
        """A choice has got its slots; of its prompt so many tokens need not be read again."""
        self._started.labels(policy).inc()
        self._prompt.inc(prompt_tokens)
        self._reused.inc(reused_tokens)

    def first_token(self, seconds: float) -> None:
        """A request has its first token, so long after it came."""
        self._first.observe(seconds)

    def finished(self, policy: str, reason: str, seconds: float, tokens: int) -> None:
        """A choice has ended: stop, length, time, cancelled or error."""
        self._finished.labels(policy, reason).inc()
        self._length.labels(policy).observe(seconds)
        self._written.labels(policy).inc(tokens)

    def responded(self, path: str, status: int) -> None:
        """A request was answered; `path` is a route's pattern and not what was asked for."""
        self._responses.labels(path, str(status)).inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _tokens_per_second(self) -> float:
        with self._lock:
            self._forget()
            span = min(_WINDOW, self._clock() - self._begun)
            return sum(tokens for _, tokens in self._recent) / span if span > 0 else 0.0

    def _forget(self) -> None:
        while self._recent and self._recent[0][0] < self._clock() - _WINDOW:
            self._recent.popleft()
