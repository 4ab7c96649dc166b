"""A sweep whose reference is a soup of fine-tuned adapters (SALSA), from `moalign sft` to the points."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_world
import torch
import yaml
from command import moalign
from mistakes import World
from online_runs import SETTINGS, online, rollouts, weights
from transformers import PreTrainedModel

from moalign.files import digest
from moalign.generation import generate
from moalign.models import load_base
from moalign.preparation import prepare
from moalign.runs import Run
from moalign.store import AdapterStore


@pytest.fixture
def world(tmp_path: Path, base: Path) -> World:
    return World(tmp_path, base)


def points(run: Run) -> dict[str, bytes]:
    """What the adapters attain, byte by byte."""
    return {path.name: path.read_bytes() for path in (run.folder / "points").iterdir()}


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
    """To the byte, names included: what counts 0 is not there. Both begin at seed-0, as SALSA does."""
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
    before = points(run)
    copied.rename(world.folder / "elsewhere")
    shutil.rmtree(run.folder / "points")
    run = salsa(world, copied, "run", soup, steps=3)
    assert points(run) == before
