"""Sweeps whose preferences an explorer chooses: asked once what came before is measured, and never asked again."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_world

from moalign import exploration
from moalign.adapters import WEIGHTS_FILE
from moalign.config import load_config, parse_config
from moalign.errors import ConfigError
from moalign.exploration import Exploration
from moalign.frontiers.explorers import Explorer, build_explorer
from moalign.planning import Plan, Planner
from moalign.preference import Preference
from moalign.runs import Run
from moalign.sweep import run_sweep

EXPLORED: dict[str, Any] = {
    "settings": {"beta": 0.5, "steps": 3, "batch_size": 8, "learning_rate": 0.05},
    "explorer": {"type": "crowding", "points": 5, "batch": 2},
    "evaluation": {"prompts": 3, "samples": 2, "max_new_tokens": 5},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world.build_base(tmp_path_factory.mktemp("base"))


def sweep(folder: Path, base: Path, **changes: Any) -> Run:
    return run_sweep(load_config(tiny_world.write_config(folder, base, **EXPLORED | changes)), folder / "run")


class Spy:
    """Explorers as they are built, but who was told what before each question, and what was answered, is kept."""

    def __init__(self, folder: Path):
        self.folder, self.told, self.answers, self.adapters = folder, [], [], []

    def __call__(self, *given: Any) -> Explorer:
        self.inner = build_explorer(*given)
        return self

    def tell(self, preferences: np.ndarray, values: np.ndarray, errors: np.ndarray) -> None:
        assert np.isfinite(values).all()
        assert (errors >= 0).all()
        self.told.append(preferences.tolist())
        self.adapters.append(len(list((self.folder / "run" / "adapters").iterdir())))
        self.inner.tell(preferences, values, errors)

    def ask(self, count: int) -> np.ndarray:
        self.answers.append(self.inner.ask(count).tolist())
        return np.array(self.answers[-1])


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[tuple[Run, Spy]]:
    """Five adapters, the corners and then two and one; read only."""
    folder = tmp_path_factory.mktemp("explored")
    with pytest.MonkeyPatch.context() as patch:
        spy = Spy(folder)
        patch.setattr(exploration, "build_explorer", spy)
        yield sweep(folder, base), spy


@pytest.fixture
def copy(explored: tuple[Run, Spy], tmp_path: Path) -> Run:
    shutil.copytree(explored[0].folder, tmp_path / "run")
    return Run.open(tmp_path / "run")


def nobody(*_: object) -> Explorer:
    raise AssertionError("asked again")


def wishes(run: Run) -> set[tuple[float, ...]]:
    return {tuple(point.preference.vector(run.objectives).tolist()) for point in run.front()}


def weights(run: Run) -> dict[str, bytes]:
    return {key: (run.folder / "adapters" / key / WEIGHTS_FILE).read_bytes() for key in sorted(run.store.keys())}


def test_an_explorer_is_asked_once_all_before_is_measured(explored: tuple[Run, Spy]) -> None:
    """Told of two corners, then of all four; asked for two, then for the one that the budget leaves."""
    run, spy = explored
    corners = [[1.0, 0.0], [0.0, 1.0]]
    assert [len(answer) for answer in spy.answers] == [2, 1]
    assert spy.told == [corners, [*corners, *spy.answers[0]]]
    assert spy.adapters == [2, 4]
    assert wishes(run) == {tuple(row) for row in [*corners, *spy.answers[0], *spy.answers[1]]}
    assert len(run.store.keys()) == len(run.front()) == 5


def test_what_was_answered_is_stored(explored: tuple[Run, Spy]) -> None:
    run, spy = explored
    files = sorted((run.folder / "asked").iterdir())
    assert [path.name for path in files] == ["0.json", "1.json"]
    stored = [json.loads(path.read_text())["preferences"] for path in files]
    assert [[[row[name] for name in run.objectives] for row in rows] for rows in stored] == spy.answers


def test_a_run_that_goes_on_asks_nothing_again(
    copy: Run, explored: tuple[Run, Spy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost adapter of the second wave, and the point of the third: both come back as they were."""
    second, third = ([tuple(row) for row in rows] for rows in explored[1].answers)
    keys = {tuple(p.preference.vector(copy.objectives).tolist()): p.adapter for p in copy.front()}
    shutil.rmtree(copy.folder / "adapters" / keys[second[0]])
    (copy.folder / "points" / f"{keys[third[0]]}.json").unlink()
    monkeypatch.setattr(exploration, "build_explorer", nobody)
    again = run_sweep(copy.config, copy.folder)
    assert weights(again) == weights(explored[0])
    values = [{p.adapter: p.values for p in run.front()} for run in (again, explored[0])]
    assert values[0] == {key: pytest.approx(expected) for key, expected in values[1].items()}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_that_is_stopped_while_it_asks_ends_with_the_same_points(
    tmp_path: Path, base: Path, explored: tuple[Run, Spy], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Killed before its second answer is stored, or just after; an explorer made anew says the same."""
    asked = Exploration._asked

    def stop(self: Exploration, number: int, done: Any) -> Any:
        if number == 1 and moment == "before":
            raise KeyboardInterrupt
        found = asked(self, number, done)
        if number == 1:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Exploration, "_asked", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep(tmp_path, base)
    assert (tmp_path / "run" / "asked" / "1.json").is_file() == (moment == "after")
    assert weights(sweep(tmp_path, base)) == weights(explored[0])


def test_another_workers_answer_that_came_first_is_followed(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ask at the same time; who stores later drops his own."""
    theirs = [{"warm": 0.9, "brief": 0.1}, {"warm": 0.2, "brief": 0.8}]
    ask = Exploration._ask

    def late(self: Exploration, *given: Any) -> Any:
        mine = ask(self, *given)
        path = self.run.folder / "asked" / "0.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"preferences": theirs}))
        return mine

    monkeypatch.setattr(Exploration, "_ask", late)
    run = sweep(tmp_path, base, explorer={"type": "crowding", "points": 4})
    assert wishes(run) == {(1.0, 0.0), (0.0, 1.0), (0.9, 0.1), (0.2, 0.8)}
    assert list((tmp_path / "run").rglob("*.tmp")) == []


def test_asked_adapters_start_between_the_corners_where_a_warm_start_is_wanted(
    tmp_path: Path, base: Path, explored: tuple[Run, Spy]
) -> None:
    run = sweep(
        tmp_path,
        base,
        explorer={"type": "crowding", "points": 3},
        settings=EXPLORED["settings"] | {"warm_start": True, "warm_share": 0.5},
    )
    records = {key: run.store.record(key) for key in sorted(run.store.keys())}
    corners = [key for key, record in records.items() if not record["parents"]]
    (middle,) = set(records) - set(corners)
    assert sorted(records[middle]["parents"]) == sorted(corners)
    assert (records[middle]["steps"], records[corners[0]]["steps"]) == (2, 3)


def test_objectives_that_are_learned_from_pairs_are_explored_too(tmp_path: Path, base: Path) -> None:
    """Their corners are the margin models, and can be measured only when all of them are trained."""
    tiny_world.write_rows(tmp_path / "now.jsonl", tiny_world.rows_preferring("now"))
    objectives = {"warm": {"type": "tiny_world:warm"}, "now": {"pairs": "now.jsonl"}}
    run = sweep(tmp_path, base, objectives=objectives, explorer={"type": "linear_support", "points": 3})
    assert len(run.front()) == len(run.store.keys()) == 3


# Budgets, without a model


def explore(folder: Path, explorer: Any, **changes: Any) -> Exploration:
    objectives = {"a": {"type": "length"}, "b": {"type": "length"}, "c": {"type": "length"}}
    config = parse_config({"base": "org/name", "objectives": objectives, "explorer": explorer, **changes})
    amounts = dict.fromkeys(objectives, 64)
    return Exploration(Run(folder, config), Planner(config, "data", "base", amounts))


@pytest.fixture
def guess(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Answers without a front to look at: grid points, at most so many in all."""

    def answer(most: int) -> None:
        def ask(self: Exploration, done: list[Plan], count: int) -> Any:
            names = self.run.objectives
            explorer = build_explorer("grid", 3, most, np.zeros(3), 0)
            known = np.array([plan.preference.vector(names) for plan in done])
            explorer.tell(known, known, np.zeros_like(known))
            return [Preference.of(dict(zip(names, row.tolist(), strict=True))) for row in explorer.ask(count)]

        monkeypatch.setattr(Exploration, "_ask", ask)

    return answer


@pytest.mark.parametrize(
    ("explorer", "sizes"),
    [
        ({"type": "crowding", "points": 10}, [3, 3, 3, 1]),
        ({"type": "crowding", "points": 10, "batch": 5}, [3, 5, 2]),
        ({"type": "grid", "points": 4, "batch": 1}, [3, 1]),
        ({"type": "crowding", "points": 2}, [3]),  # the corners are always trained
        ({"type": "crowding"}, [3, 3]),  # as many as the preferences are: a lattice of 2 has 6
    ],
)
def test_waves_keep_to_the_budget(
    tmp_path: Path, guess: Callable[[int], None], explorer: dict[str, Any], sizes: list[int]
) -> None:
    """Three corners, then batches; what remains of the budget cuts the last."""
    guess(66)
    exploring = explore(tmp_path, explorer, preferences={"lattice": 2})
    waves = list(exploring.waves())
    assert [len(wave) for wave in waves] == sizes
    assert exploring.total == sum(sizes)
    assert exploring.widest >= max(sizes)
    assert len({plan.key for wave in waves for plan in wave}) == sum(sizes)


def test_an_explorer_that_has_nothing_left_to_ask_ends_the_sweep(tmp_path: Path, guess: Callable[[int], None]) -> None:
    guess(4)
    assert [len(wave) for wave in explore(tmp_path, {"type": "crowding", "points": 10}).waves()] == [3, 1]


def test_a_grid_without_a_budget_is_known_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploration, "build_explorer", nobody)
    exploring = explore(tmp_path, "grid", preferences={"lattice": 2})
    assert [len(wave) for wave in exploring.waves()] == [6]
    assert (exploring.total, exploring.widest) == (6, 6)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"explorer": "crowdign"}, "unknown explorer 'crowdign'; did you mean 'crowding'?"),
        ({"explorer": {"type": "linear"}}, "unknown explorer 'linear'"),
        ({"explorer": {"type": "hypervolum"}}, "unknown explorer 'hypervolum'; did you mean 'hypervolume'?"),
        ({"explorer": {"tpye": "grid"}}, "unknown key 'tpye'; did you mean 'type'? (known: type, points, batch)"),
        ({"explorer": {"batch": 2}}, "'batch' is of an explorer that asks"),
        ({"explorer": {"type": "crowding", "points": 0}}, "explorer.points: "),
        ({"explorer": "crowding", "method": "soup"}, "method 'soup' trains none for single preferences"),
        ({"explorer": "linear_support", "method": "dpa"}, "method 'dpa' trains none for single preferences"),
        ({"explorer": {"points": 4}, "method": "conditioned"}, "method 'conditioned' trains none for single preferenc"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        explore(tmp_path, **{"explorer": "grid"} | changes)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
