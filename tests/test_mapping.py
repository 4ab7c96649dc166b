"""The calibrated map of a run: fitted on its adapters, on mixtures that are points, and on measured blends."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_run, point

from moalign.files import write_json
from moalign.frontiers import ParetoPoint
from moalign.mapping import calibrated
from moalign.runs import Run

CORNERS = {"w": ((1.0, 0.0), (1.0, 0.0)), "b": ((0.0, 1.0), (0.0, 1.0))}
EXACT = {"warm": 1e-6, "brief": 1e-6}


def mixture(key: str, row: Mapping[str, float], values: tuple[float, float]) -> ParetoPoint:
    """A mixture of w and b that was measured without error."""
    warm = row.get("w", 0.0)
    return replace(point(key, (warm, 1 - warm), values), row=dict(row), standard_errors=EXACT)


def blended(run: Run, *mixtures: ParetoPoint) -> Run:
    for one in mixtures:
        write_json(run.folder / "blends" / f"{one.adapter}.json", one.as_dict())
    return run


def bent(warm: float) -> tuple[float, float]:
    """What a share of w attains where the middle lies .2 above the straight line in warm, and .1 below it in brief."""
    return warm + 0.8 * warm * (1 - warm), 1 - warm - 0.4 * warm * (1 - warm)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two adapters whose errors are as good as none."""
    run = made_run(tmp_path, points={})
    for key, (weights, values) in CORNERS.items():
        run.add_point(replace(point(key, weights, values), standard_errors=EXACT))
    return run


def test_measured_blends_are_what_the_map_predicts(run: Run) -> None:
    """Columns stand in the order of the front, b before w; both blends, and a third between, lie on one parabola."""
    rows = {0.25: {"w": 0.25, "b": 0.75}, 0.5: {"w": 0.5, "b": 0.5}}
    found = calibrated(blended(run, *(mixture(f"x{warm}", row, bent(warm)) for warm, row in rows.items())))
    assert found is not None
    assert [each.adapter for each in run.front()] == ["b", "w"]
    for warm in (0.0, 0.25, 0.5, 0.8, 1.0):
        assert found.predict(np.array([1 - warm, warm]))[0] == pytest.approx(bent(warm), abs=1e-3)
    assert (found.error < 1e-3).all()


def test_without_blends_the_map_is_a_straight_line_of_unknown_error(run: Run) -> None:
    found = calibrated(run)
    assert found is not None
    assert found.predict(np.array([0.25, 0.75]))[0] == pytest.approx([0.75, 0.25])
    assert np.isnan(found.error).all()


def test_a_blend_that_became_a_point_counts_once(run: Run) -> None:
    """Its record is still among the blends; another one is not touched by that."""
    half, quarter = mixture("half", {"w": 0.5, "b": 0.5}, (0.7, 0.4)), mixture("q", {"w": 0.25, "b": 0.75}, (0.4, 0.6))
    before = calibrated(blended(run, half, quarter))
    run.add_point(half)
    after = calibrated(run)
    assert before is not None
    assert after is not None
    assert len(before.rows) == len(after.rows) == 4
    assert sorted(map(tuple, after.rows.tolist())) == [(0.0, 1.0), (0.5, 0.5), (0.75, 0.25), (1.0, 0.0)]
    np.testing.assert_allclose(after.predict(np.array([0.4, 0.6]))[0], before.predict(np.array([0.4, 0.6]))[0])


def test_a_mixture_of_adapters_that_are_no_points_counts_nothing(run: Run) -> None:
    blended(run, mixture("gone", {"w": 0.5, "deleted": 0.5}, (9.0, 9.0)))
    found = calibrated(run)
    assert found is not None
    assert len(found.rows) == 2


@pytest.mark.parametrize("keys", [[], ["w"]])
def test_fewer_than_two_adapters_have_no_map(tmp_path: Path, keys: list[str]) -> None:
    assert calibrated(made_run(tmp_path, points={key: CORNERS[key] for key in keys})) is None


def test_directions_of_one_adapter_have_no_map(tmp_path: Path) -> None:
    """Points of DPA: mixtures of nothing but the one adapter, told apart by their prompts."""
    run = made_run(tmp_path, points={})
    for key, (weights, values) in CORNERS.items():
        told = dict(zip(("warm", "brief"), weights, strict=True))
        run.add_point(replace(point(key, weights, values), row={"round2": 1.0}, direction=told))
    assert calibrated(run) is None
