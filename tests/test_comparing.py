"""Two runs on the same prompts, and their hypervolumes by hand."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from made_runs import made_run

from moalign.comparing import compare_runs
from moalign.errors import RunError
from moalign.runs import Run

PROMPTS = tuple(f"q{i}" for i in range(8))


def answered(folder: Path, scores: Mapping[str, tuple[float, float]], prompts: tuple[str, ...] = PROMPTS) -> Run:
    """A run whose adapters score alike on every prompt, so that no draw of the prompts differs from another."""
    run = made_run(folder, points={key: ((0.5, 0.5), values) for key, values in scores.items()})
    for key, (warm, brief) in scores.items():
        run.write_samples(
            key, ({"prompt": p, "response": "", "scores": {"warm": warm, "brief": brief}} for p in prompts)
        )
    return run


def test_the_difference_is_that_of_the_volumes_above_the_first_runs_reference(tmp_path: Path) -> None:
    """Above (0, 0): 2 x 1 against the union of 1 x 1 and 0.5 x 2, which is 1.5; without noise the interval is a point.

    The second run's own reference point, (-9, -9), counts nothing.
    """
    first = answered(tmp_path / "a", {"x": (2.0, 1.0)})
    second = answered(tmp_path / "b", {"y": (1.0, 1.0), "z": (0.5, 2.0)})
    second.fix_reference(second.base_point(), {"warm": -9.0, "brief": -9.0})
    found = compare_runs(first, second)
    assert found["hypervolume"] == pytest.approx([2.0, 1.5])
    assert [found["difference"], *found["interval"]] == pytest.approx([0.5] * 3)
    assert found["reference_point"] == [0.0, 0.0]
    assert found["significant"]


def test_other_prompts_cannot_be_compared(tmp_path: Path) -> None:
    first = answered(tmp_path / "a", {"x": (2.0, 1.0)})
    second = answered(tmp_path / "b", {"y": (1.0, 1.0)}, PROMPTS[1:])
    with pytest.raises(RunError, match="not measured on the same prompts"):
        compare_runs(first, second)


def test_other_objectives_cannot_be_compared(tmp_path: Path) -> None:
    first, second = answered(tmp_path / "a", {"x": (2.0, 1.0)}), made_run(tmp_path / "b", points={})
    other = second.config.model_copy(update={"objectives": {"warm": second.config.objectives["warm"]}})
    with pytest.raises(RunError, match=r"has objectives warm, brief and .* has warm; expected the same"):
        compare_runs(first, Run(second.folder, other))
