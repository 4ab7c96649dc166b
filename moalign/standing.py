"""How far a sweep is: which adapters it will train, and where each of them stands, without asking its workers."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moalign.claims import STALE_SECONDS
from moalign.files import read_json
from moalign.history import History, Progress, Standing, State, Trace
from moalign.methods import METHODS
from moalign.planning import Plan, Planner, preferences_of
from moalign.preference import Preference
from moalign.runs import Run
from moalign.store import RECORD_FILE


@dataclass(frozen=True)
class Told:
    """What the record of a stored adapter says: its preference, None if it has none, and why it was stopped, if so."""

    preference: Preference | None
    stopped: str


def progress(run: Run, history: History, now: float | None = None, records: dict[str, Told] | None = None) -> Progress:
    """Where a sweep stands, by its folder at this instant and by what it has logged; `now` in seconds since 1970.

    A worker that was killed is seen as at work until its claim has not been renewed for a minute. Adapters that
    `moalign fill` has added stand at the end. A run that was deleted has adapters to train and nothing else. `records`
    keeps what the records of adapters say, which never changes, for who looks again and again.
    """
    look = _Look.at(run, history, time.time() if now is None else now, {} if records is None else records)
    plans, unasked = _plans(run)
    by_stem: dict[str, list[str]] = {}
    for key in dict.fromkeys([*look.stored, *look.traces]):
        by_stem.setdefault(_stem(key), []).append(key)
    own = METHODS[run.config.method].adapters != "rounds"
    standings, met = [], set()
    for plan in plans:
        found = by_stem.get(_stem(plan.key), [])
        key = found.pop(0) if found else ""
        met.add(key)
        standings.append(look.standing(_stem(plan.key), plan.preference if own else None, key))
    for key in look.stored:
        if key not in met:
            standings.append(look.standing(_stem(key), look.told(key).preference, key))
    points = len(look.measured)
    one_by_one = _planner(run).one_by_one
    planned = len(standings) + unasked if one_by_one else len(_planner(run).policies([]))
    return Progress(tuple(standings), points, max(points, planned), unasked, len(look.claimed))


@dataclass(frozen=True)
class _Look:
    """A folder at one instant: what is stored, measured and worked on, and which traces speak of an adapter."""

    run: Run
    stored: dict[str, None]
    measured: set[str]
    claimed: set[str]
    traces: dict[str, list[Trace]]
    records: dict[str, Told]

    @classmethod
    def at(cls, run: Run, history: History, now: float, records: dict[str, Told]) -> "_Look":
        traces: dict[str, list[Trace]] = {}
        for trace in history.traces:
            for key in trace.adapters:
                traces.setdefault(key, []).append(trace)
        measured = {path.stem for path in (run.folder / "points").glob("[!.]*.json")}
        return cls(
            run, dict.fromkeys(run.store.keys()), measured, _claimed(run.folder / "claims", now), traces, records
        )

    def standing(self, label: str, preference: Preference | None, key: str) -> Standing:
        if not key:
            return Standing(label, preference, "", "waiting")
        traces = [trace for trace in self.traces.get(key, ()) if trace.unit == "step"]
        step = max((trace.latest for trace in traces), default=None)
        steps = next((trace.steps for trace in traces if trace.steps is not None), None)
        if key in self.stored:
            state: State = "measured" if key in self.measured else "trained"
            return Standing(label, preference, key, state, step, steps, self.told(key).stopped)
        working = key in self.claimed or any(trace.name in self.claimed for trace in traces)
        return Standing(label, preference, key, "training" if working else "paused", step, steps)

    def told(self, key: str) -> Told:
        if key not in self.records:
            record = _read(self.run.folder / "adapters" / key / RECORD_FILE)
            weights, stopped = record.get("preference"), record.get("stopped") or {}
            told = Told(Preference.of(weights) if weights else None, stopped.get("reason", ""))
            if not record:
                return told
            self.records[key] = told
        return self.records[key]


def _planner(run: Run) -> Planner:
    """Plans with the right preferences in the right order; their keys, which need the data, are not those on disk."""
    return Planner(run.config, "", "", dict.fromkeys(run.objectives, 0))


def _plans(run: Run) -> tuple[list[Plan], int]:
    """What is planned until now, and how many adapters an explorer has not asked for yet."""
    planner, explorer = _planner(run), run.config.explorer_settings
    if not explorer.adaptive:
        return [plan for wave in planner.waves() for plan in wave], 0
    plans = {plan.key: plan for plan in [*planner.corners(), *planner.further(_asked_for(run.folder / "asked"))]}
    wanted = explorer.points or len(preferences_of(run.config))
    return list(plans.values()), max(wanted - len(plans), 0)


def _asked_for(folder: Path) -> list[Preference]:
    """What an explorer has asked for, wave by wave."""
    waves = sorted((path for path in folder.glob("[!.]*.json") if path.stem.isdigit()), key=lambda path: int(path.stem))
    return [Preference.of(weights) for path in waves for weights in _read(path).get("preferences", [])]


def _claimed(folder: Path, now: float) -> set[str]:
    """The groups that somebody works on."""
    found = set()
    for path in folder.glob("*.claim"):
        try:
            if now - path.stat().st_mtime <= STALE_SECONDS:
                found.add(path.stem)
        except FileNotFoundError:
            continue  # released just now
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except OSError:
        return {}  # the run was deleted while we looked


def _stem(key: str) -> str:
    """What a key says before the digest that makes it unique."""
    return key.rpartition("-")[0] or key
