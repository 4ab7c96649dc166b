"""Rewarded soups: the corners of the method they are trained by, and every preference a row between them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_world
import torch

from moalign.adapters import WEIGHTS_FILE, Adapter
from moalign.bank import AdapterBank
from moalign.config import load_config, parse_config
from moalign.errors import ConfigError
from moalign.frontiers import ParetoPoint
from moalign.measuring import open_evaluator
from moalign.merging import factor_average, soup
from moalign.preparation import prepare
from moalign.progress import Reporter
from moalign.runs import Run
from moalign.sweep import run_sweep

INNER = {"beta": 0.5, "steps": 6, "batch_size": 8, "learning_rate": 0.05}
WISHES = {"preferences": {"lattice": 4}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world.build_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


def sweep(folder: Path, base: Path, name: str, **changes: Any) -> Run:
    return run_sweep(load_config(tiny_world.write_config(folder, base, **changes)), folder / name)


@pytest.fixture(scope="module")
def souped(folder: Path, base: Path) -> Run:
    """Five preferences by two adapters; read only."""
    return sweep(folder, base, "delta", method="soup", settings={"settings": INNER}, **WISHES)


@pytest.fixture(scope="module")
def averaged(folder: Path, base: Path) -> Run:
    """The same with averaged factors; read only."""
    settings = {"settings": INNER, "merge": "factors"}
    return sweep(folder, base, "factors", method="soup", settings=settings, **WISHES)


def by_warmth(run: Run) -> dict[float, ParetoPoint]:
    """Points by the weight of warm."""
    return {point.preference.vector(run.objectives)[0]: point for point in run.front()}


def corners(run: Run) -> list[Adapter]:
    """The adapters of warm and of brief alone."""
    points = by_warmth(run)
    return [run.store.load(points[warmth].adapter) for warmth in (1.0, 0.0)]


def test_corners_are_those_of_modpo_bit_for_bit(souped: Run, folder: Path, base: Path) -> None:
    plain = sweep(folder, base, "modpo", settings=INNER, preferences={"corners": True})
    both = [
        {
            run.store.record(key)["primary"]: (run.folder / "adapters" / key / WEIGHTS_FILE).read_bytes()
            for key in sorted(run.store.keys())
        }
        for run in (souped, plain)
    ]
    assert both[0] == both[1]
    assert set(both[0]) == {"warm", "brief"}
    assert both[0]["warm"] != both[0]["brief"]


def test_a_soup_has_an_adapter_per_objective_and_a_point_per_preference(souped: Run) -> None:
    """The row of a point is its preference; a corner is its adapter, and needs none."""
    points = by_warmth(souped)
    assert sorted(points) == [0.0, 0.25, 0.5, 0.75, 1.0]
    ends = {name: points[warmth].adapter for name, warmth in (("warm", 1.0), ("brief", 0.0))}
    assert sorted(ends.values()) == sorted(souped.store.keys())
    for warmth, point in points.items():
        assert point.method == "soup"
        if warmth in (0.0, 1.0):
            assert point.row is None
        else:
            assert point.row == {ends["warm"]: warmth, ends["brief"]: 1 - warmth}
            assert point.adapter not in ends.values()
        assert len(souped.samples(point.adapter)) == 6 * 4


def test_a_point_between_is_what_the_merged_deltas_attain(souped: Run) -> None:
    """Measured again as one adapter, the exact soup by rank concatenation: the same texts, values and divergence."""
    prepared = prepare(souped, print)
    evaluator = open_evaluator(prepared, Reporter(quiet=True))
    merged = soup(corners(souped), [0.25, 0.75])
    with AdapterBank(prepared.base.model, {"it": merged}) as bank:
        found = evaluator.measure(bank, {"it": torch.ones(1)})["it"]
    point = by_warmth(souped)[0.25]
    assert list(point.values.values()) == pytest.approx(found.scores.mean(0).tolist())
    assert point.kl_to_reference == pytest.approx(found.kl.mean(), rel=1e-3)
    assert point.kl_to_reference > 0.01


def test_averaged_factors_are_adapters_of_their_own_and_other_policies(souped: Run, averaged: Run) -> None:
    """Three merges beside the two corners, each sum_k w_k A_k and sum_k w_k B_k; between the corners KL differs."""
    points, deltas = by_warmth(averaged), by_warmth(souped)
    assert sorted(averaged.store.keys()) == sorted(point.adapter for point in points.values())
    assert len(points) == 5
    ends = corners(averaged)
    assert differ(ends, corners(souped)) == 0.0
    for warmth in (0.25, 0.5, 0.75):
        key = points[warmth].adapter
        found, expected = averaged.store.load(key), factor_average(ends, [warmth, 1 - warmth])
        assert differ([found], [expected]) == 0.0
        record = averaged.store.record(key)
        assert (record["steps"], record["parents"]) == (0, [points[1.0].adapter, points[0.0].adapter])
        assert points[warmth].row is None
        assert abs(points[warmth].kl_to_reference - deltas[warmth].kl_to_reference) > 1e-3
    for warmth in (0.0, 1.0):
        assert points[warmth].kl_to_reference == pytest.approx(deltas[warmth].kl_to_reference, abs=1e-5)


def differ(one: list[Adapter], other: list[Adapter]) -> float:
    pairs = [(a.layers[name], b.layers[name]) for a, b in zip(one, other, strict=True) for name in b.layers]
    return max(float((getattr(a, f) - getattr(b, f)).abs().max()) for a, b in pairs for f in "AB")


@pytest.mark.parametrize("merge", ["delta", "factors"])
def test_the_same_command_again_does_nothing_again(
    souped: Run, averaged: Run, monkeypatch: pytest.MonkeyPatch, merge: str
) -> None:
    run = souped if merge == "delta" else averaged

    def twice(*_: object, **__: object) -> None:
        raise AssertionError("done twice")

    monkeypatch.setattr("moalign.methods.modpo.train", twice)
    monkeypatch.setattr("moalign.evaluation.generate", twice)
    before = (run.folder / "metrics.jsonl").read_bytes()
    assert len(run_sweep(run.config, run.folder).front()) == 5
    assert (run.folder / "metrics.jsonl").read_bytes() == before


def test_a_list_without_corners_measures_only_what_is_asked_for(folder: Path, base: Path) -> None:
    """Both corners are trained, and neither is a point; weights of 0 are in no row."""
    wishes = {"list": [{"warm": 3, "brief": 1}]}
    inner = {"steps": 1, "batch_size": 4}
    run = sweep(folder, base, "list", method="soup", settings={"settings": inner}, preferences=wishes)
    (point,) = run.front()
    assert len(run.store.keys()) == 2
    assert point.row is not None
    assert sorted(point.row.values()) == [0.25, 0.75]


def refused(settings: Mapping[str, Any]) -> str:
    objectives = {"a": {"type": "length"}, "b": {"type": "length"}}
    with pytest.raises(ConfigError) as caught:
        parse_config({"base": "org/name", "objectives": objectives, "method": "soup", "settings": dict(settings)})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"settings": {"betta": 1}}, "unknown key 'betta'; did you mean 'beta'?"),
        ({"by": "online", "settings": {"stepz": 1}}, "unknown key 'stepz'; did you mean 'steps'?"),
        ({"beta": 0.2}, "unknown key 'beta' (known: by, settings, merge)"),
        ({"settings": {"beta": 0}}, "settings.settings.beta: "),
        ({"settings": {"warm_start": True}}, "settings.settings.warm_start: only corners are trained"),
        ({"by": "sft"}, "settings.by: "),
        ({"merge": "factor"}, "settings.merge: "),
    ],
)
def test_a_mistake_is_one_line_that_names_it(settings: dict[str, Any], line: str) -> None:
    assert line in refused(settings)


def test_a_soup_by_rollouts_learns_from_prompts(folder: Path, base: Path) -> None:
    """The corners of online alignment, and no pairs; the point between is a row of both."""
    objectives = {"warm": {"type": "tiny_world:warm"}, "soon": {"type": "tiny_world:soon"}}
    inner = {"steps": 2, "prompts": 2, "completions": 3}
    run = sweep(
        folder,
        base,
        "online",
        method="soup",
        objectives=objectives,
        settings={"by": "online", "settings": inner},
        data={"train_prompts": "prompts.jsonl", "prompts": "prompts.jsonl", "holdout": 0.0, "separator": " "},
        group_size="auto",
    )
    rows = {warmth: point.row and sorted(point.row.values()) for warmth, point in by_warmth(run).items()}
    assert rows == {0.0: None, 0.5: [0.5, 0.5], 1.0: None}
    assert np.isfinite([point.kl_to_reference for point in run.front()]).all()
