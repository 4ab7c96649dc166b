"""All points as comma-separated values, for a spreadsheet or a data frame."""

import csv
import io
import json
import math
from collections.abc import Mapping

from moalign.dashboards.records import BASE
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet

_LIVE = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes a cell that begins so for a formula
_PARTS = ("weight", "value", "standard_error", "low", "high")


def points_csv(front: ParetoSet, base: ParetoPoint | None = None) -> str:
    """One line for each point in the order they came, the base model first, under a line of headings (RFC 4180).

    adapter, method, on_front (true or false, empty for the base); then for each objective NAME: weight NAME (as asked),
    value NAME, standard_error NAME, low NAME and high NAME (the ends of the interval), in its own units; then
    kl_to_reference and kl_to_oracle (nats), length (tokens), and row and direction as JSON. Numbers are written so that
    reading them gives the very same; what is not known, NaN included, is empty.

    A text that a spreadsheet would run as a formula gets an apostrophe before it, as OWASP advises ("CSV injection").
    Numbers below 0 are numbers, and stay. An empty set gives the headings alone.
    """
    columns = [f"{part} {name}" for name in front.objectives for part in _PARTS]
    heading = ["adapter", "method", "on_front", *columns, "kl_to_reference", "kl_to_oracle", "length"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_text(name) for name in (*heading, "row", "direction")])
    if base is not None:
        writer.writerow([BASE, _text(base.method), "", *_numbers(base, front.objectives)])
    for point, flag in zip(front, front.on_front.tolist(), strict=True):
        cells = [_text(point.adapter), _text(point.method), "true" if flag else "false"]
        writer.writerow([*cells, *_numbers(point, front.objectives)])
    return out.getvalue()


def _numbers(point: ParetoPoint, objectives: tuple[str, ...]) -> list[str]:
    cells = []
    for name in objectives:
        low, high = point.intervals.get(name, (None, None))
        weight = point.preference.weights.get(name, 0.0)
        cells += [weight, point.values[name], point.standard_errors.get(name), low, high]
    cells += [point.kl_to_reference, point.kl_to_oracle, point.length]
    return [*map(_number, cells), _json(point.row), _json(point.direction)]


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def _json(values: Mapping[str, float] | None) -> str:
    return "" if values is None else json.dumps(values, ensure_ascii=False)


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(_LIVE) else text
