"""Every point in a table: the numbers behind the pictures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from moalign.dashboards.wording import decimals, measured, number, preference_text, short
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet


@dataclass(frozen=True)
class Column:
    """A heading, in full and as shown, with the unit where there is one."""

    title: str
    shown: str
    unit: str = ""


@dataclass(frozen=True)
class Cell:
    """What is shown, and the number to sort by (None: sorts last)."""

    shown: str
    key: float | None


@dataclass(frozen=True)
class PointRow:
    """One adapter: its key, what was asked, a cell for each column, and whether it is on the front.

    `standing` is "front", "dominated" or "base".
    """

    adapter: str
    asked: str
    cells: tuple[Cell, ...]
    standing: str


@dataclass(frozen=True)
class PointsInfo:
    """The table, the base model first; `note` stands in for it where there is nothing to show."""

    columns: tuple[Column, ...]
    rows: tuple[PointRow, ...]
    note: str


# What may be known of a point beside its values; a column that nobody has is left out.
_EXTRAS: tuple[tuple[Column, Callable[[ParetoPoint], float | None], int | None], ...] = (
    (Column("KL to the reference", "KL to reference", "nats"), lambda point: point.kl_to_reference, 2),
    (Column("KL to the optimum for its weights", "KL to optimum", "nats"), lambda point: point.kl_to_oracle, 3),
    (Column("mean length of a response", "length", "tokens"), lambda point: point.length, 1),
)


def points_info(front: ParetoSet, base: ParetoPoint | None = None) -> PointsInfo:
    """One row per point in the order they came, values with standard errors, to as many decimals as these justify."""
    points = ([base] if base else []) + list(front)
    if not points:
        return PointsInfo((), (), "No adapter has been measured yet.")
    standings = (["base"] if base else []) + ["front" if flag else "dominated" for flag in front.on_front]
    extras = [extra for extra in _EXTRAS if any(extra[1](point) is not None for point in points)]
    columns = [Column(name, short(name)) for name in front.objectives] + [extra[0] for extra in extras]
    places = {name: _places(points, name) for name in front.objectives}

    def row(point: ParetoPoint, standing: str) -> PointRow:
        values = [
            Cell(measured(value, point.standard_errors.get(name), places[name]), value)
            for name, value in ((name, float(point.values[name])) for name in front.objectives)
        ]
        rest = [Cell(number(get(point), digits), get(point)) for _, get, digits in extras]
        kind = " (mixture)" if point.row is not None else " (direction)" if point.direction is not None else ""
        asked = "base model" if standing == "base" else preference_text(point.preference, front.objectives) + kind
        return PointRow(point.adapter, asked, (*values, *rest), standing)

    rows = tuple(row(point, standing) for point, standing in zip(points, standings, strict=True))
    return PointsInfo(tuple(columns), rows, "")


def _places(points: Iterable[ParetoPoint], name: str) -> int:
    pairs = [(point.standard_errors.get(name, 0.0), float(point.values[name])) for point in points]
    return decimals([error for error, _ in pairs], [value for _, value in pairs])
