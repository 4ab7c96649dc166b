"""Points, steps and texts as comma-separated values, for a spreadsheet or a data frame (RFC 4180).

Units stand in the headings; values and weights are in those of the objectives. Numbers are written so that reading
them gives the very same; what is not known, or is not finite, is empty. A text that a spreadsheet would run as a
formula gets an apostrophe before it, as OWASP advises ("CSV injection"). Numbers below 0 are numbers, and stay.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from moalign.dashboards.records import BASE, Blend, Sample
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet
from moalign.history import Course, History
from moalign.preference import Preference

# A spreadsheet takes a cell that begins so for a formula; some read the wide forms of these letters like them.
_WIDE = (
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)
_LIVE = ("=", "+", "-", "@", "\t", "\r", "\n", *_WIDE)
_PARTS = ("weight", "value", "standard_error", "low", "high")
_SCALARS = {"loss": "loss", "kl": "kl (nats)", "length": "length (tokens)"}


def points_csv(front: ParetoSet, base: ParetoPoint | None = None, blends: Sequence[Blend] = ()) -> str:
    """One line for each point in the order they came, the base model first, and measured blends last.

    adapter (empty for a blend), method, on_front (true or false, empty for the base and for blends); then for each
    objective NAME: weight NAME (as asked), value NAME, standard_error NAME, low NAME and high NAME (the ends of the
    interval); then kl_to_reference and kl_to_oracle (nats), length (tokens), and row and direction as JSON. An empty
    set gives the headings alone.
    """
    columns = [f"{part} {name}" for name in front.objectives for part in _PARTS]
    heading = ["adapter", "method", "on_front", *columns]
    heading += ["kl_to_reference (nats)", "kl_to_oracle (nats)", "length (tokens)", "row", "direction"]
    rows = []
    if base is not None:
        rows.append([BASE, _text(base.method), "", *_numbers(base, front.objectives)])
    for point, flag in zip(front, front.on_front.tolist(), strict=True):
        cells = [_text(point.adapter), _text(point.method), "true" if flag else "false"]
        rows.append([*cells, *_numbers(point, front.objectives)])
    for blend in blends:
        measured = _measured(blend.preference, blend.values, blend.standard_errors, {}, front.objectives)
        rows.append(["", "blend", "", *map(_number, measured), "", "", "", _json(blend.row), ""])
    return _written(heading, rows)


def steps_csv(history: History) -> str:
    """One line for each step that was logged, adapter by adapter.

    of (the adapter, or the group that is trained side by side), unit (step or round), step, loss, kl (nats), length
    (tokens); then for each objective NAME: reward NAME and weight NAME; then for each two of them: cosine NAME | OTHER,
    between their gradients.
    """
    names = history.objectives
    pairs = list(combinations(range(len(names)), 2))
    heading = ["of", "unit", "step", *_SCALARS.values()]
    heading += [f"{part} {name}" for part in ("reward", "weight") for name in names]
    heading += [f"cosine {names[i]} | {names[j]}" for i, j in pairs]
    return _written(
        heading,
        (
            [_text(trace.name), trace.unit, str(step), *map(_number, numbers)]
            for trace in history.traces
            for step, *numbers in zip(*_columns(trace.course, len(names), pairs), strict=True)
        ),
    )


def texts_csv(samples: Iterable[Sample], objectives: Sequence[str]) -> str:
    """One line for each text that a point was measured by: adapter, prompt, response, then score NAME for each."""
    rows = (
        [
            *map(_text, (sample.adapter, sample.prompt, sample.response)),
            *(_number(sample.scores.get(name)) for name in objectives),
        ]
        for sample in samples
    )
    return _written(["adapter", "prompt", "response", *(f"score {name}" for name in objectives)], rows)


def _written(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_text(name) for name in heading])
    writer.writerows(rows)
    return out.getvalue()


def _columns(course: Course, size: int, pairs: Sequence[tuple[int, int]]) -> list[list[float]]:
    return [
        course.step.tolist(),
        *(course.column(name).tolist() for name in _SCALARS),
        *(course.column(name, at).tolist() for name in ("rewards", "weights") for at in range(size)),
        *(course.cosines(*pair).tolist() for pair in pairs),
    ]


def _numbers(point: ParetoPoint, objectives: tuple[str, ...]) -> list[str]:
    cells = _measured(point.preference, point.values, point.standard_errors, point.intervals, objectives)
    cells += [point.kl_to_reference, point.kl_to_oracle, point.length]
    return [*map(_number, cells), _json(point.row), _json(point.direction)]


def _measured(
    preference: Preference,
    values: Mapping[str, float],
    errors: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    objectives: Sequence[str],
) -> list[float | None]:
    cells: list[float | None] = []
    for name in objectives:
        low, high = intervals.get(name, (None, None))
        cells += [preference.weights.get(name, 0.0), values[name], errors.get(name), low, high]
    return cells


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def _json(values: Mapping[str, float] | None) -> str:
    return "" if values is None else json.dumps(values, ensure_ascii=False)


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(_LIVE) else text
