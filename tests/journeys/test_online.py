"""A sweep of policies that learn from their own answers: stopped at any moment, spoilt, bounded, anchored to a soup."""

import json
import random
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_world
import torch
import yaml
from command import moalign
from kills import finish, stopped_after
from mistakes import World, refused, whole
from transformers import PreTrainedModel

from moalign.adapters import WEIGHTS_FILE
from moalign.files import digest
from moalign.generation import generate
from moalign.models import load_base
from moalign.preparation import prepare
from moalign.runs import Run
from moalign.store import AdapterStore

SETTINGS = {"steps": 12, "prompts": 2, "completions": 4, "learning_rate": 0.02, "beta": 0.1}
ONLINE: dict[str, Any] = {
    "method": "online",
    "objectives": {"warm": {"type": "tiny_world:warm"}, "soon": {"type": "tiny_world:soon"}},
    "preferences": {"lattice": 3},
    "settings": SETTINGS,
    "data": {"train_prompts": "prompts.jsonl", "prompts": "prompts.jsonl", "holdout": 0.0, "separator": " "},
    "evaluation": {"prompts": 6, "samples": 4, "max_new_tokens": 5},
    "group_size": "auto",
}
MANY = {"prompts": 6, "samples": 60, "max_new_tokens": 5}
VALIDATING = {"validation_prompts": 2, "validation_completions": 2}


def weights(run: Run) -> dict[str, bytes]:
    """The adapters of a run, byte by byte."""
    return {key: (run.folder / "adapters" / key / WEIGHTS_FILE).read_bytes() for key in run.store.keys()}


def rollouts(run: Run) -> dict[tuple[str, int], dict[str, Any]]:
    """What was logged of each preference and step, the last time that it was taken."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return {
        (line["adapter"], line["step"]): {name: value for name, value in line.items() if name != "time"}
        for line in lines
        if line["kind"] == "rollouts"
    }


def stopped(run: Run) -> dict[str, dict[str, Any] | None]:
    """Why each preference stopped, by its name, such as warm100; None for those that went on to the end."""
    return {key.rpartition("-")[0]: run.store.record(key).get("stopped") for key in run.store.keys()}


def points(run: Run) -> dict[str, Any]:
    """What each preference attains, and how far it went for it, but for rounding."""
    return {
        point.adapter: pytest.approx([*point.values.values(), point.kl_to_reference], abs=1e-4) for point in run.front()
    }


@pytest.fixture
def world(tmp_path: Path, base: Path) -> World:
    tiny_world.write_rows(tmp_path / "late.jsonl", ({"prompt": prompt} for prompt in tiny_world.PROMPTS[3:]))
    return World(tmp_path, base)


def online(world: World, name: str = "run", /, settings: Mapping[str, Any] = {}, **changes: Any) -> tuple[Run, str]:
    """A sweep that ends well, and what it said."""
    world.run = world.folder / name
    ended = world.sweep(**ONLINE | {"settings": SETTINGS | settings} | changes)
    assert ended.code == 0, ended.err
    return Run.open(world.run), ended.err


# Stopped at any moment


@pytest.mark.parametrize(
    ("settings", "moments"),
    [
        (
            {"weighting": {"type": "hypervolume", "every": 2}, "estimator": "reinforce", **VALIDATING},
            [(8, 40), (1, 25), (1, 25), (1, 25), (1, 25)],
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
        "settings": {"prompts": 6, "completions": 8},
    }
    run, said = online(world, "all", **changes, preferences={"list": [loud, *rest]})
    reason = stopped(run)["loud100"]
    assert reason is not None
    assert 0 < reason["step"] < SETTINGS["steps"] - 1
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
    for key in without.store.keys():
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
    assert f"the budget of {most:g}" in reason["reason"] or "budget" in reason["reason"]
    assert max(seen[:-1]) <= most < seen[-1]
    (point,) = run.front()
    found = point.kl_to_reference if budget == "kl_budget" else point.length
    assert found <= 1.1 * most
    base = run.base_point()
    assert base is not None
    assert point.values["warm"] > base.values["warm"]


# Anchored to a soup (SALSA)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The adapters of `moalign sft` on answers that say "now", from two seeds: tuned/seed-0 and tuned/seed-1."""
    folder = tmp_path_factory.mktemp("tuned")
    answers = [answer for answer in tiny_world.ANSWERS if "now" in answer]
    rows = [{"prompt": prompt, "completion": answer} for prompt in tiny_world.PROMPTS for answer in answers]
    tiny_world.write_rows(folder / "answers.jsonl", rows)
    settings = {"steps": 8, "batch_size": 8, "learning_rate": 0.05}
    values = {"base": str(base), "data": "answers.jsonl", "separator": " ", "settings": settings}
    (folder / "sft.yaml").write_text(yaml.safe_dump(values | {"adapter": {"rank": 2, "alpha": 4}}))
    ended = moalign("sft", folder / "sft.yaml", "--out", folder / "run")
    assert ended.code == 0, ended.err
    return folder / "run" / "adapters"


def salsa(world: World, tuned: Path, name: str, soup: Mapping[str, float], **settings: Any) -> Run:
    reference = {str(tuned / key): weight for key, weight in soup.items()}
    all_prompts = {"prompts": 6, "reference": reference} | settings
    return online(world, name, settings=all_prompts, preferences={"corners": True})[0]


def test_kl_begins_at_that_of_the_soup(world: World, tuned: Path, merged: Callable[..., PreTrainedModel]) -> None:
    """At step 1 the policy is seed-0 and the reference the mean of both deltas: their KL, from two merged models."""
    run = salsa(world, tuned, "soup", {"seed-0": 0.5, "seed-1": 0.5})
    base, store = load_base(str(world.base), device="cpu"), AdapterStore(tuned)
    adapters = {key: store.load(key) for key in ("seed-0", "seed-1")}
    policy = merged(base.model, adapters, {"seed-0": 1.0})
    reference = merged(base.model, adapters, {"seed-0": 0.5, "seed-1": 0.5})

    environment = prepare(run, print).environment(5)
    work = [(place, c) for place in range(6) for c in range(SETTINGS["completions"])]
    prompts = [environment.prompt_ids[place] for place, _ in work]
    seeds = [int(digest(f"rollout/0/0/{place}/{c}")[:15], 16) for place, c in work]
    drawn = generate(replace(base, model=policy), None, None, prompts, seeds=seeds, max_new_tokens=5)
    total = 0.0
    for prompt, response in zip(prompts, drawn, strict=True):
        ids = torch.tensor([prompt + response])
        own, other = (
            model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for model in (policy, reference)
        )
        ratio = (own - other)[range(len(response)), response].double()
        total += float((torch.exp(-ratio) - 1 + ratio).sum())

    first = [line for (_, step), line in rollouts(run).items() if step == 1]
    assert len(first) == 2
    for line in first:
        assert line["kl"] == pytest.approx(total / len(work), rel=1e-3)
        assert line["kl"] > 0.02
    plain = salsa(world, tuned, "plain", {"seed-0": 1.0})
    assert [line["kl"] for (_, step), line in rollouts(plain).items() if step == 1] == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize(("alpha", "alone"), [(0.0, "seed-0"), (1.0, "seed-1")])
def test_a_soup_of_one_is_the_plain_run(world: World, tuned: Path, alpha: float, alone: str) -> None:
    """To the byte, the names of the adapters included: what counts 0 is not there. Both begin at seed-0, as SALSA does."""
    start = {"start": str(tuned / "seed-0"), "steps": 4}
    soup = salsa(world, tuned, "soup", {"seed-0": 1 - alpha, "seed-1": alpha}, **start)
    plain = salsa(world, tuned, "plain", {alone: 1.0}, **start)
    assert weights(soup) == weights(plain)
    assert rollouts(soup) == rollouts(plain)
    assert points(soup) == points(plain)


def test_a_run_goes_on_when_the_soups_folder_has_moved(world: World, tuned: Path) -> None:
    """Measured again without the fine-tuned adapters, the points are the same."""
    copied = shutil.copytree(tuned, world.folder / "copied")
    soup = {"seed-0": 0.5, "seed-1": 0.5}
    run = salsa(world, copied, "run", soup, steps=3)
    before = {path: path.read_bytes() for path in (run.folder / "points").iterdir()}
    copied.rename(world.folder / "elsewhere")
    shutil.rmtree(run.folder / "points")
    run = salsa(world, copied, "run", soup, steps=3)
    assert {path: path.read_bytes() for path in (run.folder / "points").iterdir()} == before


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
