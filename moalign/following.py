"""Following a run's log while a sweep may be writing it: no lock, no line twice, no half a line.

What several workers have logged stands in the order in which it was appended: the clocks of two machines may differ.
"""

import json
import math
import os
import threading
import time
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from moalign.errors import MoalignError
from moalign.files import read_json
from moalign.frontiers import hypervolume
from moalign.history import History, Landing, Rows, Trace, Vector
from moalign.preference import Preference

_EXACT = 4  # objectives up to which the volume is counted anew: beyond, a large front takes seconds to minutes
_CHUNK = 1 << 20  # bytes of a log that are in memory at once
_HEAD = 64  # bytes by which a log is known
_ROUNDS = "\n"  # the trace of DPA's rounds: no name of a group or an adapter
_SCALARS = ("loss", "kl", "length")
_VECTORS = ("rewards", "weights")
_NOTHING = Rows()


class HistoryReader:
    """Follows the log of one run. Threads may share it; between processes nothing is shared or locked."""

    def __init__(self, folder: Path, objectives: Sequence[str]):
        self.folder, self.objectives = folder, tuple(objectives)
        self._tail, self._log = Tail(folder / "metrics.jsonl"), _Log(folder, self.objectives)
        self._threads = threading.Lock()

    def read(self, seconds: float = math.inf) -> History:
        """What has been logged until now; empty for a run that has not begun or was deleted.

        Of a log that takes longer than so many seconds as much as was read by then: the next call goes on with it.
        """
        until = time.monotonic() + seconds
        with self._threads:
            while True:
                lines, anew = self._tail.read()
                if anew:
                    self._log = _Log(self.folder, self.objectives)
                for line in lines:
                    self._log.take(line)
                if not self._tail.more or time.monotonic() >= until:
                    return self._log.history(self._tail.share)


class Tail:
    """The lines of a file as they come. Not for two threads at once.

    Each time at most a mebibyte of it, or one line that is longer: `more` says whether there is more, and `share` how
    much of the file has been read. A last line without its line feed is left for the next time, since it may still be
    in the writing. A file that is shorter than what was read of it, or another one of the same name, is read from its
    beginning.
    """

    def __init__(self, path: Path):
        self.path = path
        self._offset, self._identity = 0, (0, 0, b"")
        self.more, self.share = False, 1.0

    def read(self) -> tuple[list[bytes], bool]:
        """The whole lines since the last time, and whether they replace all that came before.

        A file that is not there, or cannot be read, has no lines.
        """
        try:
            with self.path.open("rb") as file:
                return self._rest(file)
        except OSError:
            anew, self._offset, self.more, self.share = self._offset > 0, 0, False, 1.0
            return [], anew

    def _rest(self, file: BinaryIO) -> tuple[list[bytes], bool]:
        found = os.fstat(file.fileno())
        # A new file may have the inode of one that was deleted; the time in its first line tells them apart.
        identity = (found.st_dev, found.st_ino, file.readline(_HEAD))
        anew = self._offset > 0 and (identity != self._identity or found.st_size < self._offset)
        self._offset, self._identity = 0 if anew else self._offset, identity
        file.seek(self._offset)
        read = file.read(_CHUNK)
        self.more = len(read) == _CHUNK
        if self.more:
            read += file.readline()
        whole, ended, _ = read.rpartition(b"\n")
        if not ended:
            self.more, self.share = False, 1.0
            return [], anew
        self._offset += len(whole) + 1
        self.share = self._offset / max(found.st_size, self._offset) if self.more else 1.0
        return whole.split(b"\n"), anew


class _Log:
    """The lines so far."""

    def __init__(self, folder: Path, objectives: tuple[str, ...]):
        self.folder, self.objectives = folder, objectives
        self.courses: dict[str, Rows] = {}  # by trace
        self.latest: dict[str, int] = {}
        self.planned: dict[str, tuple[tuple[str, ...], int]] = {}  # by group: its adapters, and the steps of each
        self.rounds: list[str] = []
        self.taken: dict[str, int] = {}  # steps by group
        self.measured: dict[str, int] = {}  # by point: its row in `values`
        self.values = array("d")
        self.volume: float | None = None
        self.mixed: set[str] = set()
        self.landings: list[Landing] = []
        self.reference: Vector = ()
        self.unreadable = self.lines = 0

    def take(self, line: bytes) -> None:
        kinds = {
            "training": self._training,
            "step": self._step,
            "rollouts": self._rollouts,
            "dpa_round": self._round,
            "point": self._point,
        }
        self.lines += 1
        try:
            values = json.loads(line)
            kind = kinds.get(values["kind"])
            if kind is not None:
                kind(values)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MoalignError):
            self.unreadable += 1

    def history(self, share: float) -> History:
        counts = {key: count for keys, count in reversed(self.planned.values()) for key in keys}
        traces = tuple(self._trace(name, counts) for name in dict.fromkeys([*self.planned, *self.courses]))
        return History(
            self.objectives, self.reference, traces, tuple(self.landings), self.unreadable, share, self.lines
        )

    def _trace(self, name: str, counts: Mapping[str, int]) -> Trace:
        """`counts` are the steps of each adapter of which a group has told."""
        course, latest = self.courses.get(name, _NOTHING).course(), self.latest.get(name, 0)
        if name == _ROUNDS:
            return Trace("rounds", tuple(dict.fromkeys(self.rounds)), None, latest, course, "round")
        own = () if name.startswith("group-") else (name,)
        adapters, steps = self.planned.get(name, (own, None))
        return Trace(name, adapters, counts.get(name) if steps is None else steps, latest, course)

    def _training(self, values: Mapping[str, Any]) -> None:
        self.planned[values["group"]] = (tuple(map(str, values["adapters"])), int(values["steps"]))

    def _step(self, values: Mapping[str, Any]) -> None:
        self._add(values["group"], values)
        self.taken[values["group"]] = int(values["step"])

    def _rollouts(self, values: Mapping[str, Any]) -> None:
        self._add(values["adapter"], values)

    def _round(self, values: Mapping[str, Any]) -> None:
        self._add(_ROUNDS, values)
        self.rounds.append(values["adapter"])

    def _add(self, name: str, values: Mapping[str, Any]) -> None:
        step, size = int(values["step"]), len(self.objectives)
        told = {field: [_number(values[field])] for field in _SCALARS if field in values}
        told |= {field: self._row(values[field]) for field in _VECTORS if values.get(field)}
        rows: Sequence[Sequence[Any]] = values.get("gram") or ()
        if [len(row) for row in rows] == [size] * size:
            told["gram"] = [_number(value) for i, row in enumerate(rows) for value in row[i:]]
        self.courses.setdefault(name, Rows()).tell(step, told)
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
                self._volume(key, place, _known(values.get("hypervolume"))),
                len(self.mixed),
                sum(self.taken.values()),
                _known(values.get("kl_to_reference")),
                _known(values.get("length")),
            )
        )

    def _volume(self, key: str, place: Vector, logged: float | None) -> float | None:
        """The volume of all points: a worker that logs one knows only of those that had landed when it began."""
        size, again = len(self.objectives), key in self.measured
        place = place or (None,) * size  # a row for every point, also for one without values
        others = np.array(self.values).reshape(-1, size)
        at = self.measured.setdefault(key, len(self.measured)) * size
        self.values[at : at + size] = array("d", [math.nan if value is None else value for value in place])
        self.reference = self.reference or self._reference()
        if self.reference and size <= _EXACT:
            # What a point adds is its box without what the others have of it: few of them bound that.
            corner, own = np.array(self.reference, dtype=float), np.array(place, dtype=float)
            if self.volume is None or again:
                self.volume = hypervolume(np.array(self.values).reshape(-1, size), corner)
            else:
                self.volume += hypervolume(own[None], corner) - hypervolume(np.minimum(others, own), corner)
            return self.volume
        known = [volume for volume in (logged, *(one.volume for one in self.landings[-1:])) if volume is not None]
        return max(known, default=None)

    def _reference(self) -> Vector:
        try:
            return self._vector(read_json(self.folder / "reference.json")["reference_point"])
        except (OSError, ValueError, KeyError):
            return ()

    def _row(self, values: Mapping[str, Any]) -> list[float]:
        return [_number(values.get(name)) for name in self.objectives]

    def _vector(self, values: Mapping[str, Any] | None) -> Vector:
        return tuple(_known(values.get(name)) for name in self.objectives) if values else ()


def _number(value: Any) -> float:
    return float(value) if type(value) is float or type(value) is int else math.nan


def _known(value: Any) -> float | None:
    found = _number(value)
    return found if math.isfinite(found) else None
