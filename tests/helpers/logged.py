"""Courses of training by hand, a step at a time, and back again."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations_with_replacement

import numpy as np

from moalign.history import Course, Rows, Vector


@dataclass(frozen=True)
class Moment:
    """What was logged of one step; None, or empty, where it was not. `gram` has a row for each objective."""

    step: int
    loss: float | None = None
    kl: float | None = None
    length: float | None = None
    rewards: Vector = ()
    weights: Vector = ()
    gram: tuple[Vector, ...] = field(default=(), compare=False)


def course(moments: Iterable[Moment]) -> Course:
    """The moments as a course."""
    rows = Rows()
    for moment in moments:
        upper = [moment.gram[i][j] for i, j in combinations_with_replacement(range(len(moment.gram)), 2)]
        scalars = {name: [getattr(moment, name)] for name in ("loss", "kl", "length")}
        told = {**scalars, "rewards": moment.rewards, "weights": moment.weights, "gram": upper}
        rows.tell(
            moment.step,
            {
                name: [np.nan if value is None else float(value) for value in values]
                for name, values in told.items()
                if len(values) and values != [None]
            },
        )
    return rows.course()


def moments(found: Course) -> list[Moment]:
    """A course as moments, without gradients."""

    def row(name: str, at: int) -> Vector:
        values = found.numbers[name][at].tolist() if name in found.numbers else []
        return tuple(None if np.isnan(value) else value for value in values)

    return [
        Moment(
            step,
            *((row(name, at) or (None,))[0] for name in ("loss", "kl", "length")),
            *(row(name, at) if any(row(name, at)) else () for name in ("rewards", "weights")),
        )
        for at, step in enumerate(found.step.tolist())
    ]
