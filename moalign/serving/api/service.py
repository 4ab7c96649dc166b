"""What the routes of one server share."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from moalign.models import BaseModel
from moalign.runs import Run
from moalign.serving.limits import Limits
from moalign.serving.meter import Meter
from moalign.serving.plan import Plan, Planner
from moalign.serving.sampling import Piece, Sampling

T = TypeVar("T")


@runtime_checkable
class Submitted(Protocol):
    """A request that an engine has taken."""

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        ...


@runtime_checkable
class Writer(Protocol):
    """What answers: the engine, or a stand-in that tests put in its place."""

    @property
    def ready(self) -> bool:
        """Whether requests are taken and served."""
        ...

    @property
    def context(self) -> int:
        """Tokens of prompt and text together."""
        ...

    def submit(
        self, prompt: list[int], plan: Plan, samplings: Sequence[Sampling], deliver: Callable[[list[Piece]], None]
    ) -> Submitted:
        """Queue a request. Raises BusyError when there is no room."""
        ...

    def start(self) -> None:
        """Begin to write."""
        ...

    def stop(self, drain_seconds: float) -> None:
        """Take no more, and finish what is there within so many seconds."""
        ...


@dataclass(eq=False)
class Service:
    """One run as it is served.

    `policy` is what weights without one mean, by default the run's own (`Planner.default`); `api_key` is asked of every
    request but /health and /ready. A `local` one answers only those who name this machine as their host. Once
    `stopping`, new requests are sent away with 503.
    """

    run: Run
    base: BaseModel
    planner: Planner
    engine: Writer
    limits: Limits
    meter: Meter
    api_key: str | None = None
    policy: str | None = None
    local: bool = False
    stopping: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    _preparer: ThreadPoolExecutor = field(
        init=False, default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="moalign-prepare")
    )

    @property
    def ready(self) -> bool:
        """Whether requests are answered now."""
        return self.engine.ready and not self.stopping

    @property
    def default_policy(self) -> str:
        """What weights without a policy mean."""
        return self.policy or self.planner.default

    async def prepare(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread, one at a time: a tokenizer is not made for several at once."""
        return await asyncio.get_running_loop().run_in_executor(self._preparer, work)
