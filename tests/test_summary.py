"""What a run has reached, against numbers worked out by hand and an optimum that is enumerated."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_runs import THREE, made_run, point

from moalign.errors import RunError
from moalign.files import write_json
from moalign.frontiers import matched_front, oracle_front
from moalign.frontiers.oracle import Answers
from moalign.runs import Run
from moalign.summary import summarise


def with_oracle(run: Run) -> list[Answers]:
    """Two prompts with two answers each, stored as a sweep stores them."""
    reference = np.log(np.array([0.8, 0.2]))
    scores = np.array([[0.0, 1.0], [1.0, 0.0]])
    arrays = {"starts": np.array([0, 2, 4]), "log_reference": np.tile(reference, 2), "scores": np.tile(scores, (2, 1))}
    run.write_arrays("oracle", arrays)
    return [Answers(reference, scores)] * 2


def test_the_indicators_of_a_front_by_hand(tmp_path: Path) -> None:
    """Points (warm, brief): (1, 1/4), (3/4, 1/2), (1/4, 1) over the reference (0, 0).

    hypervolume           1 x 1/4 + 3/4 x 1/4 + 1/4 x 1/2 = .5625, the same share of the unit box
    mean inner product    own weights: (1 + .625 + 1) / 3
    Kendall tau           values rise with the weight that was asked for: 1
    """
    summary = summarise(made_run(tmp_path))
    assert summary["objectives"] == ["warm", "brief"]
    assert summary["reference_point"] == [0.0, 0.0]
    assert summary["hypervolume"] == pytest.approx(0.5625)
    assert summary["normalised_hypervolume"] == pytest.approx(0.5625)
    assert summary["mip"] == pytest.approx((1 + 0.625 + 1) / 3)
    assert summary["kendall_tau"] == {"warm": pytest.approx(1.0), "brief": pytest.approx(1.0)}


def test_expected_utility_is_the_mean_of_the_best_point_over_the_simplex(tmp_path: Path) -> None:
    """max over three lines, averaged over 101 weights (w, 1 - w)."""
    w = np.linspace(0, 1, 101)[:, None]
    values = np.array([value for _, value in THREE.values()])
    expected = (w * values[:, 0] + (1 - w) * values[:, 1]).max(1).mean()
    assert summarise(made_run(tmp_path))["expected_utility"] == pytest.approx(expected)


def test_a_point_says_all_that_is_known_of_it(tmp_path: Path) -> None:
    run = made_run(tmp_path, points={**THREE, "d": ((0.4, 0.6), (0.5, 0.5))})
    points = {p["adapter"]: p for p in summarise(run)["points"]}
    assert points["w"] == {**point("w", *THREE["w"]).as_dict(), "on_front": True}
    assert [points[key]["on_front"] for key in ("w", "m", "b", "d")] == [True, True, True, False]


def test_without_an_oracle_there_is_nothing_to_be_a_share_of(tmp_path: Path) -> None:
    summary = summarise(made_run(tmp_path))
    for suffix in ("", "_at_beta"):
        assert summary[f"oracle_hypervolume{suffix}"] is None
        assert summary[f"hypervolume_ratio{suffix}"] is None
    assert summary["igd_plus"] is None


def test_with_an_oracle_the_yardstick_is_the_tilt_at_each_points_own_kl(tmp_path: Path) -> None:
    run = made_run(tmp_path, settings={"beta": 0.5}, oracle="tiny_world:answers")
    world = with_oracle(run)
    summary = summarise(run)
    weights = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])  # by weight, as the front is ordered

    def volume(values: np.ndarray) -> float:
        """Of two-dimensional points above (0, 0): slabs from the right to the left."""
        order = values[np.argsort(-values[:, 0])]
        best = np.maximum.accumulate(order[:, 1])
        widths = order[:, 0] - np.append(order[1:, 0], 0.0)
        return float((widths * best).sum())

    matched, at_beta = matched_front(world, weights, np.ones(3)), oracle_front(world, weights, 0.5)[0]
    assert summary["oracle_hypervolume"] == pytest.approx(volume(matched))
    assert summary["oracle_hypervolume_at_beta"] == pytest.approx(volume(at_beta))
    assert summary["hypervolume_ratio"] == pytest.approx(0.5625 / volume(matched))
    assert summary["hypervolume_ratio_at_beta"] == pytest.approx(0.5625 / volume(at_beta))
    assert summary["igd_plus"] == 0  # these made-up points lie beyond what any policy attains


def test_what_has_no_value_is_null_and_never_nan(tmp_path: Path) -> None:
    """One point has no neighbours (sparsity) and no order (Kendall tau); JSON has no NaN."""
    summary = summarise(made_run(tmp_path, points={"w": THREE["w"]}))
    assert summary["sparsity"] is None
    assert summary["kendall_tau"] == {"warm": None, "brief": None}
    json.dumps(summary, allow_nan=False)


def test_a_front_below_its_reference_point_has_no_volume_and_is_shown_all_the_same(tmp_path: Path) -> None:
    """What has gone wrong must be looked at too: the best warm is 1, the reference 2."""
    run = made_run(tmp_path)
    run.fix_reference(point("base", (0.5, 0.5), (0.25, 0.25)), {"warm": 2.0, "brief": 0.0})
    summary = summarise(run)
    assert summary["hypervolume"] == 0
    assert summary["normalised_hypervolume"] is None


def test_a_run_without_points_says_so(tmp_path: Path) -> None:
    """The base is measured before the first adapter lands."""
    with pytest.raises(RunError, match="has no measured points yet"):
        summarise(made_run(tmp_path, points={}))


def test_accuracy_stands_beside_the_base_where_pairs_were_held_out(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    assert summarise(run)["accuracy"] == {}
    for key, value in (("base", 0.5), ("w", 0.75)):
        write_json(tmp_path / "accuracy" / f"{key}.json", {"warm": {"likelihood": value, "reward": 0.5}})
    write_json(tmp_path / "accuracy" / "m.json", {})
    accuracy = summarise(run)["accuracy"]
    assert list(accuracy) == ["base", "w"]
    assert accuracy["w"]["warm"]["likelihood"] == 0.75
