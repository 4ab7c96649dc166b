import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from logged import Moment, course
from made_runs import made_run, point

from moalign.config import parse_config
from moalign.history import History, Progress, Trace
from moalign.preference import Preference
from moalign.runs import Run
from moalign.standing import progress

NOTHING = History(("warm", "brief"), (), (), ())
NOW = 1_000_000.0


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., Run]:
    """A run over warm and brief of which nothing is trained yet."""
    return lambda **settings: made_run(tmp_path / "run", points={}, **settings)


def trained(run: Run, key: str, **record: Any) -> None:
    """As if the adapter had been stored."""
    folder = run.folder / "adapters" / key
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"preference": {"warm": 1.0}, **record}))


def claimed(run: Run, name: str, seconds: float) -> None:
    """As if a worker had renewed its claim so many seconds ago."""
    path = run.folder / "claims" / f"{name}.claim"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (NOW - seconds, NOW - seconds))


def trace(name: str, adapters: tuple[str, ...], latest: int, steps: int | None = None) -> Trace:
    return Trace(name, adapters, steps, latest, course([Moment(latest)]))


def states(found: Progress) -> dict[str, str]:
    return {standing.label: standing.state for standing in found.adapters}


def test_a_run_that_has_just_begun_has_everything_to_do(begin: Callable[..., Run]) -> None:
    found = progress(begin(preferences={"lattice": 2}), NOTHING, NOW)
    assert states(found) == {"warm100": "waiting", "brief50-warm50": "waiting", "brief100": "waiting"}
    assert (found.points, found.planned_points, found.unasked, found.workers) == (0, 3, 0, 0)
    assert found.adapters[1].preference.weights == {"brief": 0.5, "warm": 0.5}


def test_each_adapter_stands_where_its_files_say(begin: Callable[..., Run]) -> None:
    """One measured, one trained and stopped early, one of a live group, one of a group that has been given up."""
    run = begin(preferences={"lattice": 3})
    trained(run, "warm100-a")
    run.add_point(point("warm100-a", (1.0, 0.0), (1.0, 0.0)))
    trained(run, "brief33.33-warm66.67-b", stopped={"step": 7, "reason": "kl above 8"})
    history = History(
        ("warm", "brief"),
        (),
        (
            trace("group-1", ("brief66.67-warm33.33-c",), 30, 200),
            trace("brief100-d", ("brief100-d",), 20),
        ),
        (),
    )
    claimed(run, "group-1", 5.0)
    claimed(run, "brief100-d", 90.0)
    found = progress(run, history, NOW)
    assert list(states(found).values()) == ["measured", "trained", "training", "paused"]
    assert [(each.step, each.steps) for each in found.adapters] == [(None, None), (None, None), (30, 200), (20, None)]
    assert [each.stopped for each in found.adapters] == ["", "kl above 8", "", ""]
    assert (found.points, found.planned_points, found.workers) == (1, 4, 1)


def test_a_group_of_which_no_step_is_logged_yet_is_in_training(begin: Callable[..., Run]) -> None:
    run = begin(preferences={"corners": True})
    claimed(run, "group-1", 0.0)
    history = History(("warm", "brief"), (), (Trace("group-1", ("warm100-a", "brief100-b"), 200, 0, course([])),), ())
    assert [(each.state, each.step, each.steps) for each in progress(run, history, NOW).adapters] == [
        ("training", 0, 200)
    ] * 2


def test_what_fill_has_added_stands_at_the_end(begin: Callable[..., Run]) -> None:
    """An adapter that no plan knows, and a mixture that became a point: there are as many points as there are."""
    run = begin(preferences={"corners": True})
    for key in ("warm100-a", "brief100-b", "brief40-warm60-c"):
        trained(run, key, preference={"warm": 0.6, "brief": 0.4})
    for key in ("warm100-a", "brief100-b", "brief40-warm60-c", "mixture"):
        run.add_point(point(key, (0.6, 0.4), (1.0, 0.0)))
    found = progress(run, NOTHING, NOW)
    assert list(states(found)) == ["warm100", "brief100", "brief40-warm60"]
    assert found.adapters[2].preference == Preference.of({"warm": 0.6, "brief": 0.4})
    assert (found.points, found.planned_points) == (4, 4)


def test_what_an_explorer_has_not_asked_for_yet_is_counted(begin: Callable[..., Run]) -> None:
    """6 adapters in all: two corners, one of the first wave, three to be chosen. A half-written file waits."""
    run = begin(explorer={"type": "crowding", "points": 6})
    (run.folder / "asked").mkdir()
    (run.folder / "asked" / "0.json").write_text(json.dumps({"preferences": [{"warm": 0.5, "brief": 0.5}]}))
    (run.folder / "asked" / ".1.json.12ab.tmp").write_text('{"pref')
    found = progress(run, NOTHING, NOW)
    assert list(states(found)) == ["warm100", "brief100", "brief50-warm50"]
    assert (found.unasked, found.planned_points) == (3, 6)


def test_of_a_soup_the_corners_are_trained_and_all_preferences_measured(begin: Callable[..., Run]) -> None:
    run = begin(method="soup", preferences={"lattice": 4})
    trained(run, "warm100-a")
    found = progress(run, NOTHING, NOW)
    assert states(found) == {"warm100": "trained", "brief100": "waiting"}
    assert found.planned_points == 5


def test_the_rounds_of_dpa_go_by_their_number(tmp_path: Path) -> None:
    objectives = {"warm": {"type": "tiny_world:warm"}, "brief": {"type": "length"}}
    values = {"base": "org/base", "objectives": objectives, "method": "dpa", "preferences": {"lattice": 2}}
    run = Run.create(tmp_path / "run", parse_config(values | {"settings": {"rounds": 2}}))
    trained(run, "round1-x")
    found = progress(run, NOTHING, NOW)
    assert states(found) == {"round1": "trained", "round2": "waiting"}
    assert [each.preference for each in found.adapters] == [None, None]
    assert found.planned_points == 3


def test_a_run_that_was_deleted_while_open_has_everything_to_do(begin: Callable[..., Run]) -> None:
    run = begin(preferences={"corners": True})
    trained(run, "warm100-a")
    shutil.rmtree(run.folder)
    assert states(progress(run, NOTHING, NOW)) == {"warm100": "waiting", "brief100": "waiting"}
