"""A sweep of policies that learn from their own answers: stopped at any moment, spoilt, bounded, asked wrongly."""

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_world
import torch
from kills import finish, stopped_after
from mistakes import World, refused, whole
from online_runs import ONLINE, SETTINGS, online, rollouts, stopped, weights

from moalign.runs import Run

MANY = {"prompts": 6, "samples": 60, "max_new_tokens": 5}
VALIDATING = {"validation_prompts": 2, "validation_completions": 2}


@pytest.fixture
def world(tmp_path: Path, base: Path) -> World:
    tiny_world.write_rows(tmp_path / "late.jsonl", ({"prompt": prompt} for prompt in tiny_world.PROMPTS[3:]))
    return World(tmp_path, base)


# Stopped at any moment


@pytest.mark.parametrize(
    ("settings", "moments"),
    [
        (
            {"weighting": {"type": "hypervolume", "every": 2}, "estimator": "reinforce", **VALIDATING},
            [(8, 30), (1, 16), (1, 16), (1, 16), (1, 16)],
        ),
        ({"weighting": {"type": "gradient", "mu": 1e-3}}, [(15, 40), (10, 30)]),
        ({"kl_budget": 0.3, "learning_rate": 0.05, "beta": 0.02}, [(12, 30), (6, 16), (6, 16)]),
    ],
    ids=["hypervolume", "gradient", "budget"],
)
def test_kills_change_nothing(
    base: Path, tmp_path: Path, settings: dict[str, Any], moments: list[tuple[int, int]]
) -> None:
    """Weights, archives, running means, the optimiser, random numbers, and who has stopped: as if nobody had."""
    path = tiny_world.write_config(tmp_path, base, **ONLINE | {"settings": SETTINGS | settings})
    log, rng = tmp_path / "log", random.Random(11)
    finish(["sweep", str(path), "--out", str(tmp_path / "undisturbed")], log)
    arguments = ["sweep", str(path), "--out", str(tmp_path / "killed")]
    ends = [stopped_after(rng.randint(*moment), arguments, tmp_path / "killed", log) for moment in moments]
    assert ends == [-signal.SIGKILL] * len(moments), log.read_text()
    finish(arguments, log)

    undisturbed, killed = Run.open(tmp_path / "undisturbed"), Run.open(tmp_path / "killed")
    assert len(weights(undisturbed)) == 4
    assert weights(killed) == weights(undisturbed)
    assert rollouts(killed) == rollouts(undisturbed)
    assert {point.adapter: dict(point.values) for point in killed.front()} == {
        point.adapter: pytest.approx(point.values) for point in undisturbed.front()
    }
    assert stopped(killed) == stopped(undisturbed)
    assert any(stopped(killed).values()) == ("kl_budget" in settings)


# Spoilt


def test_an_objective_that_fails_stops_who_meets_it_and_nobody_else(world: World) -> None:
    """NaN for texts that only the corner of `loud` learns to say; the others train as if it had never been there."""
    loud, rest = {"loud": 1.0}, [{"loud": 0.05, "soon": 0.95}, {"soon": 1.0}]
    changes: dict[str, Any] = {
        "objectives": {"loud": {"type": "tiny_world:loud"}, "soon": {"type": "tiny_world:soon"}},
        "data": ONLINE["data"] | {"prompts": "late.jsonl"},
        "settings": {"steps": 8, "prompts": 6, "completions": 8},
    }
    run, said = online(world, "all", **changes, preferences={"list": [loud, *rest]})
    reason = stopped(run)["loud100"]
    assert reason is not None
    assert 0 < reason["step"] < 7
    assert "objective 'loud' gave no finite score to" in reason["reason"]
    (line,) = [line for line in said.splitlines() if "stopped" in line]
    assert line.startswith("note: loud100-")
    assert line.endswith(f"stopped in step {reason['step'] + 1}: {reason['reason']}; its last good adapter is kept")
    base, (corner,) = run.base_point(), [point for point in run.front() if point.adapter.startswith("loud100-")]
    assert base is not None
    assert corner.values["loud"] > base.values["loud"] + 0.3  # so far it had learnt

    without, said = online(world, "without", **changes, preferences={"list": rest})
    assert "stopped" not in said
    assert set(stopped(without)) == set(stopped(run)) - {"loud100"}
    for key in weights(without):
        mine, theirs = run.store.load(key).layers, without.store.load(key).layers
        for name, layer in theirs.items():
            assert torch.allclose(mine[name].A, layer.A, atol=1e-4)
            assert torch.allclose(mine[name].B, layer.B, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_learning_rate_that_is_too_high_keeps_what_was_finite(world: World, steps: int) -> None:
    """The last update as well as the first; what is kept is the start, which is the base."""
    run, said = online(world, settings={"learning_rate": 1e30, "steps": steps}, preferences={"corners": True})
    assert said.count("no longer finite; a lower learning_rate helps; its last good adapter is kept") == 2
    assert all(stopped(run).values())
    assert [point.kl_to_reference for point in run.front()] == pytest.approx([0, 0], abs=1e-6)


# Bounded


@pytest.mark.parametrize(("budget", "most"), [("kl_budget", 0.3), ("length_budget", 3.8)])
def test_a_preference_stops_within_its_budget(world: World, budget: str, most: float) -> None:
    """Thanks are far from the base, and long. Kept is the last policy whose own answers were within the budget."""
    settings = {"prompts": 6, "completions": 16, "beta": 0.0, budget: most}
    run, _ = online(world, settings=settings, preferences={"list": [{"warm": 1.0}]}, evaluation=MANY)
    reason, seen = stopped(run)["warm100"], [line[budget.removesuffix("_budget")] for line in rollouts(run).values()]
    assert reason is not None
    assert reason["reason"].endswith(f"the budget of {most:g}")
    assert max(seen[:-1]) <= most < seen[-1]
    (point,) = run.front()
    found = point.kl_to_reference if budget == "kl_budget" else point.length
    assert found <= 1.1 * most
    base = run.base_point()
    assert base is not None
    assert point.values["warm"] > base.values["warm"]


# Mistakes


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"estimator": "gpro"}, ["sweep.yaml", "settings.estimator", "'grpo', 'rloo', 'reinforce' or 'dr_grpo'"]),
        ({"aggregation": "sum"}, ["settings.aggregation", "'sum_then_normalize' or 'normalize_then_sum'"]),
        ({"kl": "k4"}, ["settings.kl", "'k1', 'k2' or 'k3'"]),
        ({"weighting": "hypervolum"}, ["unknown weighting 'hypervolum'; did you mean 'hypervolume'?"]),
        ({"weighting": {"type": "hypervolume", "evry": 2}}, ["'evry'; did you mean 'every'?"]),
        ({"weighting": {"type": "gradient", "mu": -1}}, ["weighting 'gradient': mu is -1"]),
        ({"completion": 3}, ["unknown key 'completion'; did you mean 'completions'?"]),
        ({"completions": 1}, ["completions is 1", "'grpo'", "at least 2", "'reinforce'"]),
        ({"reference": {"a": float("nan")}}, ["settings.reference", "finite"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_in_the_settings_is_told_before_anything_is_written(
    world: World, changes: dict[str, Any], names: list[str]
) -> None:
    refused(world.sweep(**ONLINE | {"settings": SETTINGS | changes}), *names)
    assert not world.run.exists()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"data": {"prompts": "prompts.jsonl"}}, ["needs prompts to answer", "data.train_prompts"]),
        ({"data": {"train_prompts": "nowhere.jsonl"}}, ["'nowhere.jsonl'"]),
        ({"data": {"train_prompts": "empty.jsonl"}}, ["empty.jsonl", "no rows"]),
        ({"data": {"train_prompts": "prompts.jsonl", "holdout": 0.0}}, ["no prompts to evaluate on", "data.prompts"]),
        (
            {"objectives": {"warm": {"type": "tiny_world:warm"}, "now": {"pairs": "pairs.jsonl"}}},
            ["objective 'now' has no 'type' to score with"],
        ),
        ({"objectives": ONLINE["objectives"] | {"odd": {"type": "tiny_world:too_few"}}}, ["objective 'odd'", "shape"]),
        ({"objectives": ONLINE["objectives"] | {"odd": {"type": "tiny_world:raises"}}}, ["'odd' raised ZeroDivision"]),
        ({"settings": SETTINGS | {"weighting": "nowhere:Class"}}, ["'nowhere:Class'", "no module 'nowhere'"]),
        ({"settings": SETTINGS | {"start": "nowhere/seed-0"}}, ["settings.start", "nowhere/seed-0'", "moalign sft"]),
        ({"settings": SETTINGS | {"reference": {"nowhere": 1.0}}}, ["settings.reference", "nowhere'", "moalign sft"]),
        ({"settings": SETTINGS | {"max_new_tokens": 40}}, ["no training prompt is shorter", "max_new_tokens"]),
    ],
    ids=str,
)
def test_what_policies_cannot_learn_from_is_named(world: World, changes: dict[str, Any], names: list[str]) -> None:
    world.write("empty.jsonl", [])
    refused(world.sweep(**ONLINE | changes), *names)
    whole(world.run)
