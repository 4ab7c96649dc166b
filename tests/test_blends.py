"""Between the trained preferences: mixtures of points, and what they attain."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import THREE, made_run, point

from moalign.adapters import Adapter
from moalign.blends import (
    blend_between,
    measure_blend,
    measure_blends,
    mixed,
    neighbours,
    read_blends,
)
from moalign.config import EvaluationSettings
from moalign.evaluation import Evaluator
from moalign.logprobs import Scorer
from moalign.models import BaseModel
from moalign.objectives import Length, ObjectiveSet, Repetition
from moalign.preference import Preference
from moalign.runs import Run
from moalign.serving.plan import Planner


def wish(warm: float) -> Preference:
    return Preference.of({"warm": warm, "brief": 1 - warm})


def test_neighbours_along_two_objectives_are_ordered_by_weight(tmp_path: Path) -> None:
    """Dominated points are trained preferences too, and stand in the row of neighbours."""
    run = made_run(tmp_path, points={**THREE, "d": ((0.8, 0.2), (0.1, 0.1))})
    assert [(a.adapter, b.adapter) for a, b in neighbours(run)] == [("b", "m"), ("m", "d"), ("d", "w")]


def test_one_point_has_no_neighbours(tmp_path: Path) -> None:
    assert neighbours(made_run(tmp_path, points={"w": THREE["w"]})) == []


def test_beyond_two_objectives_each_point_has_its_nearest(tmp_path: Path) -> None:
    """Weights (1, 0, 0), (.9, .1, 0) and (0, 0, 1): the third is nearer to the second than to the first."""
    names = ("a", "b", "c")
    rows = {"p": (1.0, 0.0, 0.0), "q": (0.9, 0.1, 0.0), "r": (0.0, 0.0, 1.0)}
    objectives = {name: {"type": "length"} for name in names}
    run = made_run(tmp_path, points={}, objectives=objectives)
    run.fix_reference(_three("base", (1.0, 1.0, 1.0)), dict.fromkeys(names, 0.0))
    for key, weights in rows.items():
        run.add_point(_three(key, weights))
    found = {frozenset((a.adapter, b.adapter)) for a, b in neighbours(run)}
    assert found == {frozenset("pq"), frozenset("qr")}


def _three(key: str, weights: tuple[float, ...]) -> Any:
    made = point(key, (1.0, 0.0), (0.0, 0.0)).as_dict()
    every = dict(zip("abc", weights, strict=True))
    total = sum(weights)
    values = {"preference": {name: w / total for name, w in every.items()}, "values": every, "standard_errors": every}
    return type(point("x", (1.0, 0.0), (0.0, 0.0))).from_dict(made | values | {"intervals": {}})


@pytest.fixture
def run(tmp_path: Path, make_model: Any, tokenizer: Any, random_adapter: Callable[..., Adapter]) -> Run:
    model = make_model("llama", vocab_size=len(tokenizer))
    adapters = {key: random_adapter(model, seed) for seed, key in enumerate(THREE)}
    return made_run(tmp_path, adapters=adapters)


@pytest.fixture
def evaluator(run: Run, make_model: Any, tokenizer: Any) -> Evaluator:
    model = make_model("llama", vocab_size=len(tokenizer))
    return Evaluator(
        base=BaseModel("tiny", model, tokenizer, "digest"),
        scorer=Scorer.of(model),
        objectives=ObjectiveSet([Repetition("warm", n=1), Length("brief", unit="characters")]),
        prompts=["Hi", "Go on."],
        prompt_ids=[tokenizer(prompt)["input_ids"] for prompt in ("Hi", "Go on.")],
        settings=EvaluationSettings(samples=2, max_new_tokens=4),
        seed=0,
        cache=run.cache,
    )


def test_mixtures_between_neighbours_are_measured_once(
    run: Run, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One between each of b, m and w; then two more at thirds, where the middle is not measured again."""
    said: list[tuple[int, int]] = []
    found = measure_blends(run, evaluator, 1, lambda *numbers: said.append(numbers))
    assert said == [(1, 2), (2, 2)]
    assert [blend["row"] for blend in found] == [{"b": 0.5, "m": 0.5}, {"m": 0.5, "w": 0.5}]
    assert [blend["preference"]["warm"] for blend in found] == [0.25, 0.75]
    assert all(set(blend["values"]) == {"warm", "brief"} for blend in found)
    measured: list[Any] = []
    monkeypatch.setattr(Evaluator, "measure", lambda *_: measured.append(1))
    assert measure_blends(run, evaluator, 1, lambda *_: None) == found == read_blends(run)
    assert measured == []


def test_a_mixture_is_measured_as_the_row_that_it_is(run: Run, evaluator: Evaluator) -> None:
    """It diverges from the base, and is no adapter of the run's own front."""
    (first, _) = measure_blends(run, evaluator, 1, lambda *_: None)
    assert first["kl_to_reference"] > 0
    assert first["method"] == "blend"
    assert len(run.front()) == 3


# Points that are mixtures themselves


def test_a_mixture_of_mixtures_is_what_it_comes_to() -> None:
    """.5 of a, and .5 of (.2 a + .8 b), is .6 a + .4 b; what counts 0 is left out, whichever way it comes."""
    assert mixed([({"a": 1.0}, 0.5), ({"a": 0.2, "b": 0.8}, 0.5)]) == pytest.approx({"a": 0.6, "b": 0.4})
    assert mixed([({"a": 1.0}, 1.0), ({"b": 1.0}, 0.0)]) == {"a": 1.0}
    assert mixed([({"a": 1.0, "b": 0.0}, 1.0)]) == {"a": 1.0}
    assert mixed([]) == {}


@pytest.mark.parametrize(
    ("warm", "row"),
    [
        (0.5, {"w": 0.3, "b": 0.7}),
        (0.75, {"w": 0.65, "b": 0.35}),
        (0.25, {"w": 0.15, "b": 0.85}),
        (1.0, {"w": 1.0}),
    ],
)
def test_a_wish_beside_a_point_that_is_a_mixture_is_a_mixture_of_its_adapters(
    tmp_path: Path, warm: float, row: dict[str, float]
) -> None:
    """The point of (1/2, 1/2) is .3 w + .7 b, and halfway from it to w is .65 w + .35 b."""
    run = made_run(tmp_path, points={key: THREE[key] for key in "wb"})
    run.add_point(replace(point("mix", *THREE["m"]), row={"w": 0.3, "b": 0.7}))
    assert Planner.of(run).plan(wish(warm), "interpolate").rows == (pytest.approx(row),)


def test_between_two_points_lies_the_mixture_of_both_and_the_preference_between_theirs() -> None:
    """A quarter of the way from (1, 0) to (1/2, 1/2), where the second point is half of each adapter."""
    first, second = point("w", *THREE["w"]), replace(point("mix", *THREE["m"]), row={"w": 0.5, "b": 0.5})
    found = blend_between(first, second, 0.25)
    assert found.row == pytest.approx({"w": 0.875, "b": 0.125})
    assert found.preference.weights == pytest.approx({"warm": 0.875, "brief": 0.125})
    assert found.key == blend_between(second, first, 0.75).key
    assert found.key != blend_between(first, second, 0.5).key
    assert found.direction is None


def test_preferences_that_name_other_objectives_meet_between() -> None:
    """What a preference leaves out it gives no weight."""
    first, second = (
        replace(point(key, *THREE[key]), preference=Preference.of({name: 1.0}))
        for key, name in (("w", "warm"), ("b", "brief"))
    )
    assert blend_between(first, second, 0.25).preference.weights == {"brief": 0.25, "warm": 0.75}


def test_a_measured_blend_is_read_again_and_its_texts_are_kept(
    run: Run, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row of the point is what was mixed; texts: two answers to each of two prompts, whose scores average to it."""
    points = {each.adapter: each for each in run.front()}
    policy = blend_between(points["w"], points["b"], 0.25)
    found = measure_blend(run, evaluator, policy)
    assert (found.adapter, found.row, found.method) == (policy.key, {"w": 0.75, "b": 0.25}, "blend")
    texts = run.samples(policy.key)
    assert len(texts) == 4
    assert sum(text["scores"]["brief"] for text in texts) / 4 == pytest.approx(found.values["brief"])
    monkeypatch.setattr(Evaluator, "measure", lambda *_: pytest.fail("measured twice"))
    assert measure_blend(run, evaluator, policy) == found
    assert [blend["adapter"] for blend in read_blends(run)] == [policy.key]
