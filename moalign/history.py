"""What can be said of a run's training: the steps that were logged, the points as they landed, how far the sweep is.

These are records alone. `moalign.following` reads them from a run's folder, and `moalign.standing` looks where each
adapter is.
"""

import math
from dataclasses import dataclass
from typing import Literal

from moalign.preference import Preference

State = Literal["waiting", "training", "paused", "trained", "measured"]
Vector = tuple[float | None, ...]  # a number for each objective, in the order of the run's; empty where none was logged


@dataclass(frozen=True)
class Moment:
    """What was logged of one step; None, or an empty vector, where it was not, or was not finite.

    `gram` holds the inner products of the objectives' gradients, a row for each.

    >>> Moment(1, gram=((4.0, -1.0), (-1.0, 1.0))).cosine(0, 1)
    -0.5
    """

    step: int
    loss: float | None = None
    kl: float | None = None
    length: float | None = None
    rewards: Vector = ()
    weights: Vector = ()
    gram: tuple[Vector, ...] = ()

    def cosine(self, i: int, j: int) -> float | None:
        """cos(g_i, g_j) = G_ij / sqrt(G_ii G_jj), in [-1, 1]: below 0 two objectives pull against each other.

        None where no gradients were logged, or one of the two is 0.
        """
        if not self.gram:
            return None
        inner, one, other = self.gram[i][j], self.gram[i][i], self.gram[j][j]
        if inner is None or not one or not other or one < 0 or other < 0:
            return None
        return max(-1.0, min(1.0, inner / math.sqrt(one) / math.sqrt(other)))


@dataclass(frozen=True)
class Trace:
    """The steps of one adapter, or of a group that is trained side by side, each step once, in their order.

    `name` is the adapter's key, or the group's; `adapters` those that it trains, empty where the log does not say;
    `steps` how many there will be, None where it does not say; `latest` the one that was logged last: a sweep that
    goes on from a checkpoint takes some again. The rounds of DPA, one adapter each, are one trace of `unit` "round".
    """

    name: str
    adapters: tuple[str, ...]
    steps: int | None
    latest: int
    moments: tuple[Moment, ...]
    unit: str = "step"


@dataclass(frozen=True)
class Landing:
    """A point when it was measured: `volume` is the hypervolume of all points so far, None where it is not known.

    `trained` counts the adapters that all points so far are made of, `steps` the steps taken until then, those that
    train a group side by side counted once. `time` is in seconds since 1970.
    """

    time: float
    adapter: str
    preference: Preference
    values: Vector
    status: str
    volume: float | None
    trained: int
    steps: int
    kl: float | None
    length: float | None


@dataclass(frozen=True)
class History:
    """All that was logged; `unreadable` counts whole lines that make no sense, as a full disk leaves them."""

    objectives: tuple[str, ...]
    reference_point: Vector
    traces: tuple[Trace, ...]
    landings: tuple[Landing, ...]
    unreadable: int = 0

    def trace_of(self, adapter: str) -> Trace | None:
        """The trace of an adapter: its own, else that of its group; None if the log has neither.

        >>> History(("brief",), (), (Trace("g", ("a", "b"), 9, 1, ()),), ()).trace_of("b").name
        'g'
        """
        own = [trace for trace in self.traces if trace.name == adapter]
        return next((trace for trace in (*own, *self.traces) if adapter in (trace.name, *trace.adapters)), None)


@dataclass(frozen=True)
class Standing:
    """One adapter of a sweep. `key` is empty until it is known, `stopped` says why it was stopped, if it was.

    `preference` is None where the adapter has none of its own (a round of DPA), and `label` then names it. "paused" is
    one whose worker was killed or stopped: the sweep goes on with it when it is given again. `step` of `steps` are
    those of the log, None where it does not say.
    """

    label: str
    preference: Preference | None
    key: str
    state: State
    step: int | None = None
    steps: int | None = None
    stopped: str = ""


@dataclass(frozen=True)
class Progress:
    """The adapters of a sweep in the order in which they are trained, and how many points there are and will be.

    `unasked` adapters are still to be chosen by the run's explorer; `workers` are at work now.
    """

    adapters: tuple[Standing, ...]
    points: int
    planned_points: int
    unasked: int
    workers: int
