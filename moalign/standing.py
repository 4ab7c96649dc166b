"""How far a sweep is: which adapters it will train, and where each of them stands, without asking its workers."""

import time
from pathlib import Path
from typing import Any

from moalign.claims import STALE_SECONDS
from moalign.files import read_json
from moalign.history import History, Progress, Standing, State
from moalign.methods import METHODS
from moalign.planning import Plan, Planner, preferences_of
from moalign.preference import Preference
from moalign.runs import Run
from moalign.store import RECORD_FILE


def progress(run: Run, history: History, now: float | None = None) -> Progress:
    """Where a sweep stands, by its folder at this instant and by what it has logged; `now` in seconds since 1970.

    A worker that was killed is seen as at work until its claim has not been renewed for a minute. Adapters that
    `moalign fill` has added stand at the end. A run that was deleted has adapters to train and nothing else.
    """
    plans, unasked = _plans(run)
    claimed = _claimed(run.folder / "claims", time.time() if now is None else now)
    stored, by_stem = run.store.keys(), {}
    for key in dict.fromkeys([*stored, *_named(history)]):
        by_stem.setdefault(_stem(key), []).append(key)
    standings, met = [], set()
    for plan in plans:
        found = by_stem.get(_stem(plan.key), [])
        key = found.pop(0) if found else ""
        met.add(key)
        own = METHODS[run.config.method].adapters != "rounds"
        standings.append(_standing(run, history, claimed, _stem(plan.key), plan.preference if own else None, key))
    for key in stored:
        if key not in met:
            standings.append(_standing(run, history, claimed, _stem(key), _asked(run, key), key))
    points = len(list((run.folder / "points").glob("[!.]*.json")))
    one_by_one = _planner(run).one_by_one
    planned = len(standings) + unasked if one_by_one else len(_planner(run).policies([]))
    return Progress(tuple(standings), points, max(points, planned), unasked, len(claimed))


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


def _named(history: History) -> list[str]:
    """The keys of adapters that the log speaks of."""
    return [key for trace in history.traces for key in trace.adapters]


def _standing(
    run: Run, history: History, claimed: set[str], label: str, preference: Preference | None, key: str
) -> Standing:
    if not key:
        return Standing(label, preference, "", "waiting")
    groups = [trace for trace in history.traces if key in (trace.name, *trace.adapters) and trace.unit == "step"]
    step = max((trace.latest for trace in groups), default=None)
    steps = next((trace.steps for trace in groups if trace.steps is not None), None)
    if key in run.store:
        state: State = "measured" if run.has_point(key) else "trained"
        return Standing(label, preference, key, state, step, steps, _stopped(run, key))
    working = key in claimed or any(trace.name in claimed for trace in groups)
    return Standing(label, preference, key, "training" if working else "paused", step, steps)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except OSError:
        return {}  # the run was deleted while we looked


def _record(run: Run, key: str) -> dict[str, Any]:
    return _read(run.folder / "adapters" / key / RECORD_FILE)


def _stopped(run: Run, key: str) -> str:
    stopped = _record(run, key).get("stopped")
    return stopped["reason"] if stopped else ""


def _asked(run: Run, key: str) -> Preference | None:
    weights = _record(run, key).get("preference")
    return Preference.of(weights) if weights else None


def _stem(key: str) -> str:
    """What a key says before the digest that makes it unique."""
    return key.rpartition("-")[0] or key
