"""Courses of thousands of steps as lines that a page can carry, and a sentence on what was left out of them."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from moalign.dashboards.charts import Line
from moalign.dashboards.marks import Values
from moalign.history import Course, Trace

_PLACES = 240  # of a line: longer ones are averaged down to so many
_ALL_FAINT = 6000  # places of all faint lines

Pick = Callable[[Course], Float[np.ndarray, " s"]]


def number_of(name: str, column: int = 0) -> Pick:
    """What picks one number of each step."""
    return lambda course: course.column(name, column)


def cosine_of(pair: tuple[int, int]) -> Pick:
    """What picks the cosine between the gradients of two objectives."""
    return lambda course: course.cosines(*pair)


def averaged(course: Course, pick: Pick, window: int = 1) -> tuple[tuple[Values, Values], int]:
    """The steps that have a number, and the numbers, each the mean of so many up to it; and the size of a part.

    A long course is averaged over equal parts of so many steps.
    """
    steps, values = _known(course, pick)
    values, size = _running(values, window), max(-(-len(values) // _PLACES), 1)
    if size > 1:
        starts = np.arange(0, len(values), size)
        counts = np.diff(np.append(starts, len(values)))
        steps, values = (np.add.reduceat(each, starts) / counts for each in (steps, values))
    return (tuple(steps.tolist()), tuple(values.tolist())), size


def sampled(traces: Sequence[Trace], picks: Sequence[Pick], window: int = 1) -> tuple[list[tuple[Line, ...]], int]:
    """For each number a line of each trace that has it, with evenly taken steps; and of how many one, at most."""
    most, found, widest = min(max(_ALL_FAINT // max(len(traces), 1), 20), _PLACES), [], 1
    for pick in picks:
        lines = []
        for trace in traces:
            steps, values = _known(trace.course, pick)
            stride = max(-(-len(steps) // most), 1)
            values, widest = _running(values, window), max(widest, stride)
            if len(steps):
                lines.append(Line("", tuple(steps[::stride].tolist()), tuple(values[::stride].tolist())))
        found.append(tuple(lines))
    return found, widest


def thinned(size: int, stride: int, unit: str = "step") -> str:
    """What to know of lines that have fewer places than there are steps; empty where they have them all.

    >>> thinned(5, 1)
    ' Means of 5 steps.'
    """
    own = f" Means of {size} {unit}s." if size > 1 else ""
    return own + (f" Of the faint lines one {unit} in {stride}." if stride > 1 else "")


def _known(course: Course, pick: Pick) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    values = pick(course)
    known = ~np.isnan(values)
    return course.step[known].astype(float), values[known]


def _running(values: Float[np.ndarray, " k"], window: int) -> Float[np.ndarray, " k"]:
    """Each the mean of so many up to it."""
    if window == 1 or not len(values):
        return values
    # Not by differences of running sums, from which one spike would take what is small ever after.
    padded = np.concatenate([np.zeros(window - 1), values])
    sums = np.lib.stride_tricks.sliding_window_view(padded, window).sum(axis=1)
    return sums / np.minimum(np.arange(1, len(values) + 1), window)
