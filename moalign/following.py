"""Following a run's log while a sweep may be writing it: no lock, no line twice, no half a line.

What several workers have logged stands in the order in which it was appended: the clocks of two machines may differ.
"""

import json
import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from moalign.errors import MoalignError
from moalign.files import read_json
from moalign.frontiers import hypervolume
from moalign.history import History, Landing, Moment, Trace, Vector
from moalign.preference import Preference

_EXACT = 4  # objectives up to which the volume is counted anew: beyond, a large front takes seconds to minutes
_ROUNDS = "\n"  # the trace of DPA's rounds: no name of a group or an adapter
_SCALARS = ("loss", "kl", "length")
_VECTORS = ("rewards", "weights")


class HistoryReader:
    """Follows the log of one run. Threads may share it; between processes nothing is shared or locked."""

    def __init__(self, folder: Path, objectives: Sequence[str]):
        self.folder, self.objectives = folder, tuple(objectives)
        self._tail, self._log = Tail(folder / "metrics.jsonl"), _Log(folder, self.objectives)
        self._threads = threading.Lock()

    def read(self) -> History:
        """What has been logged until now; empty for a run that has not begun or was deleted."""
        with self._threads:
            lines, anew = self._tail.read()
            if anew:
                self._log = _Log(self.folder, self.objectives)
            for line in lines:
                self._log.take(line)
            return self._log.history()


class Tail:
    """The lines of a file as they come. Not for two threads at once.

    A last line without its line feed is left for the next time, since it may still be in the writing. A file that is
    shorter than what was read of it, or another one of the same name, is read from its beginning.
    """

    def __init__(self, path: Path):
        self.path = path
        self._offset, self._identity = 0, (0, 0)

    def read(self) -> tuple[list[bytes], bool]:
        """The whole lines since the last time, and whether they replace all that came before.

        A file that is not there, or cannot be read, has no lines.
        """
        try:
            with self.path.open("rb") as file:
                return self._rest(file)
        except OSError:
            anew, self._offset = self._offset > 0, 0
            return [], anew

    def _rest(self, file: BinaryIO) -> tuple[list[bytes], bool]:
        found = os.fstat(file.fileno())
        identity = (found.st_dev, found.st_ino)
        anew = self._offset > 0 and (identity != self._identity or found.st_size < self._offset)
        self._offset, self._identity = 0 if anew else self._offset, identity
        file.seek(self._offset)
        whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return [], anew
        self._offset += len(whole) + 1
        return whole.split(b"\n"), anew


class _Log:
    """The lines so far."""

    def __init__(self, folder: Path, objectives: tuple[str, ...]):
        self.folder, self.objectives = folder, objectives
        self.moments: dict[str, dict[int, Moment]] = {}  # by trace
        self.latest: dict[str, int] = {}
        self.planned: dict[str, tuple[tuple[str, ...], int]] = {}  # by group: its adapters, and the steps of each
        self.rounds: list[str] = []
        self.taken: dict[str, int] = {}  # steps by group
        self.values: dict[str, Vector] = {}  # by point
        self.mixed: set[str] = set()
        self.landings: list[Landing] = []
        self.reference: Vector = ()
        self.unreadable = 0

    def take(self, line: bytes) -> None:
        kinds = {
            "training": self._training,
            "step": self._step,
            "rollouts": self._rollouts,
            "dpa_round": self._round,
            "point": self._point,
        }
        try:
            values = json.loads(line)
            kind = kinds.get(values["kind"])
            if kind is not None:
                kind(values)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MoalignError):
            self.unreadable += 1

    def history(self) -> History:
        traces = tuple(self._trace(name) for name in dict.fromkeys([*self.planned, *self.moments]))
        return History(self.objectives, self.reference, traces, tuple(self.landings), self.unreadable)

    def _trace(self, name: str) -> Trace:
        found = self.moments.get(name, {})
        moments = tuple(found[step] for step in sorted(found))
        latest = self.latest.get(name, 0)
        if name == _ROUNDS:
            return Trace("rounds", tuple(dict.fromkeys(self.rounds)), None, latest, moments, "round")
        own = () if name.startswith("group-") else (name,)
        adapters, steps = self.planned.get(name, (own, None))
        if steps is None:
            steps = next((count for keys, count in self.planned.values() if name in keys), None)
        return Trace(name, adapters, steps, latest, moments)

    def _training(self, values: Mapping[str, Any]) -> None:
        self.planned[values["group"]] = (tuple(map(str, values["adapters"])), int(values["steps"]))

    def _step(self, values: Mapping[str, Any]) -> None:
        self._add(values["group"], values)
        self.taken[values["group"]] = values["step"]

    def _rollouts(self, values: Mapping[str, Any]) -> None:
        self._add(values["adapter"], values)

    def _round(self, values: Mapping[str, Any]) -> None:
        self._add(_ROUNDS, values)
        self.rounds.append(values["adapter"])

    def _add(self, name: str, values: Mapping[str, Any]) -> None:
        step = int(values["step"])
        moments = self.moments.setdefault(name, {})
        known, size = moments.get(step, Moment(step)), len(self.objectives)
        rows = tuple(tuple(map(_number, row)) for row in values.get("gram") or ())
        told: dict[str, Any] = {field: _number(values[field]) for field in _SCALARS if field in values}
        told |= {field: self._vector(values[field]) for field in _VECTORS if field in values}
        if [len(row) for row in rows] == [size] * size:
            told["gram"] = rows
        moments[step] = replace(known, **told)
        self.latest[name] = step

    def _point(self, values: Mapping[str, Any]) -> None:
        key, row = str(values["adapter"]), values.get("row")
        preference = Preference.of({name: float(weight) for name, weight in values["preference"].items()})
        place = self._vector(values["values"])
        self.mixed.update([key] if row is None else [name for name, weight in row.items() if weight])
        self.landings.append(
            Landing(
                float(values["time"]),
                key,
                preference,
                place,
                str(values["status"]),
                self._volume(key, place, _number(values.get("hypervolume"))),
                len(self.mixed),
                sum(self.taken.values()),
                _number(values.get("kl_to_reference")),
                _number(values.get("length")),
            )
        )

    def _volume(self, key: str, place: Vector, logged: float | None) -> float | None:
        """The volume of all points: a worker that logs one knows only of those that had landed when it began."""
        self.values[key] = place
        self.reference = self.reference or self._reference()
        if self.reference and len(self.objectives) <= _EXACT:
            values = np.array(list(self.values.values()), dtype=float)
            return hypervolume(values, np.array(self.reference, dtype=float))
        known = [volume for volume in (logged, *(one.volume for one in self.landings[-1:])) if volume is not None]
        return max(known, default=None)

    def _reference(self) -> Vector:
        try:
            return self._vector(read_json(self.folder / "reference.json")["reference_point"])
        except (OSError, ValueError, KeyError):
            return ()

    def _vector(self, values: Mapping[str, Any] | None) -> Vector:
        return tuple(_number(values.get(name)) for name in self.objectives) if values else ()


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None
