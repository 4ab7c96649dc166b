"""What a run's points are called."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import THREE, made_run, point

from moalign.errors import RunError
from moalign.serving.names import served_names


def test_points_are_called_by_their_preference_in_the_order_of_the_front(tmp_path: Path) -> None:
    names = served_names(made_run(tmp_path))
    assert {name: point.adapter for name, point in names.items()} == {
        "brief100": "b",
        "brief50-warm50": "m",
        "warm100": "w",
    }
    assert list(names) == ["brief100", "brief50-warm50", "warm100"]


def test_two_of_one_preference_are_told_apart_by_the_digest_of_their_key(tmp_path: Path) -> None:
    """Keys as runs have them begin with the preference, and their first characters tell nothing apart."""
    keys = ["brief50-warm50-0123456789ab", "brief50-warm50-fedcba987654"]
    run = made_run(tmp_path, points=dict.fromkeys(keys, THREE["m"]) | {"w-1": THREE["w"]})
    assert {name: point.adapter for name, point in served_names(run).items()} == {
        "brief50-warm50-012345": keys[0],
        "brief50-warm50-fedcba": keys[1],
        "warm100": "w-1",
    }


def test_two_that_even_the_digest_does_not_tell_apart_have_their_whole_keys(tmp_path: Path) -> None:
    keys = ["x-0123456789ab", "y-0123456789ab"]
    assert list(served_names(made_run(tmp_path, points=dict.fromkeys(keys, THREE["m"])))) == keys


def test_weights_that_look_alike_are_two_preferences(tmp_path: Path) -> None:
    """Four digits of a percentage are the same name."""
    run = made_run(tmp_path, points={})
    for key, warm in (("a-one", 0.5), ("b-two", 0.5 + 1e-9)):
        run.add_point(point(key, (warm, 1 - warm), THREE["m"][1]))
    assert sorted(served_names(run)) == ["brief50-warm50-one", "brief50-warm50-two"]


def test_a_point_that_is_a_mixture_has_a_name_too(tmp_path: Path) -> None:
    run = made_run(tmp_path, points={})
    run.add_point(replace(point("mix-1", *THREE["m"]), row={"w": 0.5, "b": 0.5}))
    assert served_names(run)["brief50-warm50"].mixture == {"w": 0.5, "b": 0.5}


def test_a_run_without_points_has_no_names(tmp_path: Path) -> None:
    run = made_run(tmp_path, points={})
    assert served_names(run) == {}
    (run.folder / "reference.json").unlink()
    with pytest.raises(RunError, match="no measured points yet"):
        served_names(run)
