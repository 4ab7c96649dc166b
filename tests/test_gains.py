"""Gains over the base are paired by prompt, and each objective is asked of the adapter that was asked for it."""

from pathlib import Path

import numpy as np
import pytest

from moalign.config import parse_config
from moalign.frontiers import ParetoPoint
from moalign.gains import gains, redrawn
from moalign.preference import Preference
from moalign.runs import BASE, Run

NAMES = ("a", "b")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two adapters on 20 prompts with two answers each; prompts differ far more than adapters do."""
    kinds = {name: {"type": "length"} for name in NAMES}
    run = Run.create(tmp_path / "run", parse_config({"base": "none", "objectives": kinds}))
    rng = np.random.default_rng(0)
    scores = np.repeat(rng.normal(size=(20, 2)) * 10, 2, axis=0)
    offsets = {BASE: [0.0, 0.0], "x": [1.0, -1.0], "y": [-2.0, 0.0]}
    for key, offset in offsets.items():
        rows = [
            {"prompt": f"q{i // 2}", "response": "", "scores": dict(zip(NAMES, row, strict=True))}
            for i, row in enumerate((scores + offset + 0.01 * rng.normal(size=scores.shape)).tolist())
        ]
        run.write_samples(key, rows)
    wishes = {"x": Preference.of({"a": 0.9, "b": 0.1}), "y": Preference.of({"a": 0.2, "b": 0.8})}
    zero = dict.fromkeys(NAMES, 0.0)
    points = {key: ParetoPoint(key, "m", wish, zero, zero, {}) for key, wish in wishes.items()}
    run.fix_reference(ParetoPoint(BASE, BASE, wishes["x"], zero, zero, {}), zero)
    for point in points.values():
        run.add_point(point)
    return run


def test_a_gain_is_the_mean_difference_prompt_by_prompt(run: Run) -> None:
    """+1 of a for x, which asked for a; nothing of b for y. Unpaired, deviations of 10 would hide both."""
    first, second = gains(run)
    assert (first["objective"], first["preference"]) == ("a", {"a": 0.9, "b": 0.1})
    assert first["difference"] == pytest.approx(1.0, abs=0.01)
    assert first["value"] - first["base"] == pytest.approx(first["difference"])
    assert 0.98 < first["interval"][0] < first["difference"] < first["interval"][1] < 1.02
    assert (second["objective"], second["preference"]) == ("b", {"a": 0.2, "b": 0.8})
    assert second["interval"][0] < 0.005
    assert second["interval"][1] > -0.005


def test_without_the_bases_samples_there_are_none(run: Run) -> None:
    (run.folder / "samples" / f"{BASE}.jsonl").unlink()
    assert gains(run) == []


def test_other_prompts_are_not_compared(run: Run) -> None:
    run.write_samples("x", run.samples("x")[:10])
    assert [gain["objective"] for gain in gains(run)] == ["b"]


def test_points_are_drawn_again_over_the_same_prompts(run: Run) -> None:
    """Each varies by its standard error over prompts, about 10 / sqrt(20); their difference, prompt by prompt, hardly.

    x lies 3 of a above y, and 1 of b below it.
    """
    found = redrawn([(run, "y"), (run, "x")], NAMES, 0)
    assert found.shape[1:] == (2, 2)
    assert len(found) >= 50
    scores = np.array([[row["scores"][name] for name in NAMES] for row in run.samples("x")])
    errors = scores.reshape(20, 2, 2).mean(1).std(0, ddof=1) / np.sqrt(20)
    np.testing.assert_allclose(found[:, 1].std(0), errors, rtol=0.3)
    np.testing.assert_allclose(found[:, 1].mean(0), scores.mean(0), atol=3 * errors.max() / np.sqrt(50))
    np.testing.assert_allclose(found[:, 1] - found[:, 0], np.broadcast_to([3.0, -1.0], (len(found), 2)), atol=0.02)


def test_the_same_seed_draws_the_same_and_columns_stand_as_they_are_named(run: Run) -> None:
    found = redrawn([(run, "x")], NAMES, 7)
    np.testing.assert_array_equal(redrawn([(run, "x")], ("b", "a"), 7), found[..., ::-1])
    assert not np.array_equal(redrawn([(run, "x")], NAMES, 8), found)


def test_points_that_cannot_be_drawn_together_are_not_drawn(run: Run) -> None:
    """No points; texts that answer other prompts, or are missing."""
    both = [(run, "y"), (run, "x")]
    assert redrawn([], NAMES, 0).shape == (0, 0, 2)
    run.write_samples("x", [{**row, "prompt": "another"} for row in run.samples("x")])
    assert redrawn(both, NAMES, 0).shape == (0, 2, 2)
    (run.folder / "samples" / "x.jsonl").unlink()
    assert redrawn(both, NAMES, 0).shape == (0, 2, 2)
    assert len(redrawn(both[:1], NAMES, 0)) > 0
