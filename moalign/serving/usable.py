"""The points of a run that can be used: a record that cannot be is left out and named, and stops nothing else."""

import os
from pathlib import Path

import numpy as np

from moalign.errors import UserError
from moalign.files import read_json
from moalign.frontiers import ParetoPoint, ParetoSet
from moalign.runs import Run

Records = dict[str, tuple[int, ParetoPoint]]


def usable_front(run: Run, known: Records | None = None) -> tuple[ParetoSet, tuple[str, ...]]:
    """The points with a finite value for each objective, in the order of `run.front()`, and a line for each other one.

    `known` is what was read before, by file, and is brought up to date: a record that has not changed is not read
    again. Before the base model has been measured the reference point is 0. Raises FileNotFoundError when a record
    goes away while it is read.
    """
    path, names = run.folder / "reference.json", run.objectives
    reference = read_json(path)["reference_point"] if path.is_file() else dict.fromkeys(names, 0.0)
    corner = np.array([float(reference[name]) for name in names])
    before, records, left_out = known or {}, {}, []
    for file in _files(run.folder / "points"):
        changed = file.stat().st_mtime_ns
        seen = before.get(file.name)
        try:
            point = seen[1] if seen and seen[0] == changed else ParetoPoint.from_dict(read_json(Path(file)))
            ParetoSet(names, corner, [point])
            point.preference.vector(names)
        except (UserError, ValueError, TypeError, AttributeError) as error:
            reason = str(error) if isinstance(error, UserError) else "its record cannot be read"
            left_out.append(f"{file.name.removesuffix('.json')} is left out: {reason}")
            continue
        records[file.name] = (changed, point)
    if known is not None:
        known.clear()
        known.update(records)
    points = sorted(
        (point for _, point in records.values()),
        key=lambda point: (point.preference.vector(names).tolist(), point.adapter),
    )
    return ParetoSet(names, corner, points), tuple(left_out)


def _files(folder: Path) -> list[os.DirEntry[str]]:
    """The records, by name. Thousands of them are looked at each time that the folder has changed."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        records = [file for file in found if file.name.endswith(".json") and not file.name.startswith(".")]
    return sorted(records, key=lambda file: file.name)


def sound(point: ParetoPoint | None) -> bool:
    """Whether there is a point all of whose values are finite numbers."""
    return point is not None and bool(np.isfinite(list(point.values.values())).all())
