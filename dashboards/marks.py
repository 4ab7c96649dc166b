"""What a drawing of the front shows, whatever its number of dimensions: marks, and the curve of the blends."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from moalign.dashboards.records import Band, Blend
from moalign.dashboards.wording import measured, number, preference_text, row_text, short
from moalign.frontiers.pareto_set import ParetoPoint

Values = tuple[float, ...]


@dataclass(frozen=True)
class Mark:
    """A measured place: its value, low and high end for each objective, and what is said about it.

    `label` stands beside the mark, empty for most; `hover` is shown on demand, a line each; `asked` holds the weight
    of each objective. `adapter` is empty for a blend.
    """

    adapter: str
    label: str
    values: Values
    low: Values
    high: Values
    asked: Values
    hover: tuple[str, ...]


@dataclass(frozen=True)
class FrontInfo:
    """What the front panel shows; `note` is a sentence on what is unusual, or empty.

    Each of `paths` is a polyline along measured blends; `exact` holds the points of the exact front, ordered by the
    first objective; `band` is the rim of where the front may lie, a closed polygon, and `band_meaning` says how sure.
    """

    objectives: tuple[str, ...]
    on_front: tuple[Mark, ...]
    dominated: tuple[Mark, ...]
    base: Mark | None
    blends: tuple[Mark, ...]
    paths: tuple[tuple[Values, ...], ...]
    exact: tuple[Values, ...]
    note: str
    band: tuple[Values, ...] = ()
    band_meaning: str = ""

    @property
    def marks(self) -> tuple[Mark, ...]:
        """All trained points: those on the front, then the dominated ones."""
        return self.on_front + self.dominated


def point_mark(point: ParetoPoint, objectives: Sequence[str], label: str = "") -> Mark:
    """The mark of a trained point. Where it has no interval for an objective, none is drawn."""
    values = tuple(float(point.values[name]) for name in objectives)
    intervals = [point.intervals.get(name, (value, value)) for name, value in zip(objectives, values, strict=True)]
    facts = [
        f"{title} {number(value)}{unit}"
        for title, value, unit in (
            ("KL to reference", point.kl_to_reference, " nats"),
            ("KL to its optimum", point.kl_to_oracle, " nats"),
            ("mean length", point.length, " tokens"),
        )
        if value is not None
    ]
    title = "base model" if label == "base" else preference_text(point.preference, objectives)
    weights = point.preference.weights  # made anew at each look, as below
    return Mark(
        point.adapter,
        label,
        values,
        tuple(float(low) for low, _ in intervals),
        tuple(float(high) for _, high in intervals),
        tuple(weights.get(name, 0.0) for name in objectives),
        (title, *_value_lines(point.values, point.standard_errors, objectives), *facts),
    )


def blend_mark(blend: Blend, objectives: Sequence[str]) -> Mark:
    """The mark of a measured blend; its error is told on demand and not drawn."""
    values = tuple(float(blend.values[name]) for name in objectives)
    asked = tuple(blend.preference.weights.get(name, 0.0) for name in objectives)
    hover = (
        f"blend for {preference_text(blend.preference, objectives)}",
        *_value_lines(blend.values, blend.standard_errors, objectives),
        row_text(blend.row),
    )
    return Mark("", "", values, values, values, asked, hover)


def blend_paths(
    blends: Iterable[Blend], points: Iterable[ParetoPoint], objectives: Sequence[str]
) -> tuple[tuple[Values, ...], ...]:
    """One polyline for each pair of adapters that was blended, from one, over their blends, to the other.

    A row that is one-hot is the adapter itself, so each polyline starts and ends at trained points, where they are
    among `points`. Blends of three adapters and more lie on no line, and are drawn as marks alone.
    """
    trained = {point.adapter: _values(point.values, objectives) for point in points}
    by_pair: dict[tuple[str, ...], list[Blend]] = {}
    for blend in blends:
        if len(blend.parents) == 2:
            by_pair.setdefault(tuple(sorted(blend.parents)), []).append(blend)
    paths = []
    for (first, second), between in by_pair.items():
        steps = sorted(between, key=lambda blend: blend.row[second])
        path = [trained.get(first), *(_values(step.values, objectives) for step in steps), trained.get(second)]
        paths.append(tuple(place for place in path if place is not None))
    return tuple(paths)


def band_rim(band: Band) -> tuple[Values, ...]:
    """The polygon between the two surfaces of a band: along the outer one, then back along the inner one.

    Both run in steps, since a point attains all that is below and left of it, from the lowest second objective of all
    corners to the lowest first one. Empty where either surface is.

    >>> band_rim(Band(np.array([[2.0, 3.0]]), np.array([[1.0, 2.0]]), ""))
    ((1.0, 3.0), (2.0, 3.0), (2.0, 2.0), (1.0, 2.0), (1.0, 2.0), (1.0, 2.0))
    """
    if len(band.outer) == 0 or len(band.inner) == 0:
        return ()
    left, bottom = np.vstack([band.outer, band.inner]).min(axis=0).tolist()
    return (*_steps(band.outer, left, bottom), *reversed(_steps(band.inner, left, bottom)))


def _steps(corners: Float[np.ndarray, "q 2"], left: float, bottom: float) -> list[Values]:
    places = []
    for x, y in sorted(corners.tolist()):
        places += [(left, y), (x, y)]
        left = x
    return [*places, (left, bottom)]


def corner_labels(points: Sequence[ParetoPoint], objectives: Sequence[str]) -> dict[str, str]:
    """For the point that asks most for each objective, what it asks: the two or three marks that need a name.

    Keys are adapters. A tie goes to the earliest point. No two labels stand at the same place, and a single point
    needs none.
    """
    labels: dict[str, str] = {}
    taken = []
    asked = [point.preference.weights for point in points]
    for name in objectives if len(points) > 1 else ():
        weights = [each.get(name, 0.0) for each in asked]
        weight = max(weights)
        most = points[weights.index(weight)]
        if weight > 0.5 and most.values not in taken:
            labels[most.adapter] = f"{short(name, 12)} {weight:.2g}"
            taken.append(most.values)
    return labels


def _values(values: dict[str, float], objectives: Sequence[str]) -> Values:
    return tuple(float(values[name]) for name in objectives)


def _value_lines(values: dict[str, float], errors: dict[str, float], objectives: Sequence[str]) -> list[str]:
    return [f"{short(name)} {measured(values[name], errors.get(name))}" for name in objectives]
