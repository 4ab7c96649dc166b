"""A run of the help desk that nobody trained: its points are what the optimum of each preference says, texts and all.

For a preference w the policy is p(answer) exp(w.r / beta) over the 600 answers of the help desk, so that scores, texts
and points agree as they do after a sweep; only the adapters, where there are some, are noise.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moalign.adapters import Adapter
from moalign.batches import Completions
from moalign.config import parse_config
from moalign.demo import world
from moalign.files import write_json
from moalign.frontiers import ParetoPoint
from moalign.frontiers.simplex import lattice
from moalign.models import load_base
from moalign.preference import Preference
from moalign.runs import BASE, Run

NAMES = ("helpful", "brief", "warm")
HELP_DESK = Path(world.__file__).parent / "base"
PROMPTS, SAMPLES = 8, 5
_BETA = 0.5


@cache
def _answers(prompt: str, names: tuple[str, ...]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Every answer, its probability and its scores."""
    weighted = world.weighted_answers(prompt)
    texts = [text for text, _ in weighted]
    asked = Completions([prompt] * len(texts), texts)
    scores = np.array([getattr(world, name)(asked) for name in names], dtype=float).T
    return texts, np.array([share for _, share in weighted]), scores


def _sampled(weights: np.ndarray, names: tuple[str, ...], rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for prompt in world.prompts("eval")[:PROMPTS]:
        texts, base, scores = _answers(prompt, names)
        share = base * np.exp((scores @ weights) / _BETA)
        for at in rng.choice(len(texts), SAMPLES, p=share / share.sum()):
            found = dict(zip(names, scores[at].tolist(), strict=True))
            rows.append({"prompt": [{"role": "user", "content": prompt}], "response": texts[at], "scores": found})
    return rows


def _point(key: str, weights: np.ndarray, names: tuple[str, ...], rows: list[dict[str, Any]]) -> ParetoPoint:
    scores = np.array([[row["scores"][name] for name in names] for row in rows]).reshape(PROMPTS, SAMPLES, -1)
    values, errors = scores.mean((0, 1)), scores.mean(1).std(0, ddof=1) / PROMPTS**0.5
    return ParetoPoint(
        key,
        "modpo",
        Preference.of(dict(zip(names, weights.tolist(), strict=True))),
        dict(zip(names, values.tolist(), strict=True)),
        dict(zip(names, errors.tolist(), strict=True)),
        {name: (v - 2 * e, v + 2 * e) for name, v, e in zip(names, values.tolist(), errors.tolist(), strict=True)},
        kl_to_reference=1.5,
        length=float(np.mean([len(row["response"].split()) for row in rows])),
    )


def shown_run(
    folder: Path,
    *,
    names: tuple[str, ...] = NAMES,
    divisions: int = 3,
    seed: int = 0,
    reach: float = 1.0,
    base: Path = HELP_DESK,
) -> Run:
    """A lattice of points, blends between its corners, and a log; `reach` below 1 asks less of every preference."""
    objectives = {name: {"type": f"moalign.demo.world:{name}"} for name in names}
    wanted = {"base": str(base), "objectives": objectives, "preferences": {"lattice": divisions}}
    run, rng, m = Run.create(folder, parse_config(wanted)), np.random.default_rng(seed), len(names)

    def measured(key: str, weights: np.ndarray, strength: float = reach) -> ParetoPoint:
        rows = _sampled(strength * weights, names, rng)
        run.write_samples(key, rows)
        return _point(key, weights, names, rows)

    run.fix_reference(measured(BASE, np.full(m, 1 / m), 0.0), dict.fromkeys(names, -6.0))
    keys = {}
    for at, weights in enumerate(lattice(m, divisions)):
        key = f"{Preference.of(dict(zip(names, weights.tolist(), strict=True))).key}-{at:012x}"
        keys[key] = weights
        run.add_point(measured(key, weights))
    corners = [key for key, weights in keys.items() if weights.max() == 1]
    for at, (first, second) in enumerate(combinations(corners, 2)):
        between = measured(f"blend-{at:012x}", (keys[first] + keys[second]) / 2)
        half = replace(between, method="blend", row={first: 0.5, second: 0.5})
        write_json(run.folder / "blends" / f"{half.adapter}.json", half.as_dict())
    log_training(run, list(keys)[:3], 12)
    return run


def log_training(run: Run, keys: list[str], steps: int) -> None:
    """A log of a group in training, whose points land at its end."""
    rng, names = np.random.default_rng(1), run.objectives
    run.log("training", group="group-a", adapters=keys, steps=steps)
    for step in range(1, steps + 1):
        run.log("step", group="group-a", step=step, loss=0.7 / step**0.2)
        for key in keys:
            log_step(run, key, step, dict(zip(names, rng.dirichlet([3.0] * len(names)).tolist(), strict=True)))
    for key in keys:
        record = json.loads((run.folder / "points" / f"{key}.json").read_text())
        run.log("point", **record, status="NEW", hypervolume=None)


def log_step(run: Run, key: str, step: int, weights: dict[str, float]) -> None:
    """What one step of one adapter logs."""
    m = len(run.objectives)
    gram = (np.eye(m) * 2 - 0.4 * (1 + np.sin(step / 4))).tolist()
    run.log(
        "rollouts",
        adapter=key,
        step=step,
        kl=0.12 * step**0.7,
        length=24.0 - 0.4 * step,
        rewards=dict.fromkeys(run.objectives, 0.1 * step),
        weights=weights,
        gram=gram,
    )


def add_adapters(run: Run, random_adapter: Callable[..., Adapter]) -> Run:
    """Noise as the adapters of its points, so that it can be served: each writes other texts than the base does."""
    base = run.config.base
    model = load_base(base).model
    for seed, point in enumerate(run.front()):
        adapter = random_adapter(model, seed, rank=2, alpha=4.0, size=0.3)
        run.store.save(point.adapter, adapter, {"seed": seed}, base)
    return run


@torch.no_grad()
def rambling(folder: Path) -> Path:
    """The help desk's base with a head that never ends a text: long ones, to be stopped in their middle."""
    base = load_base(str(HELP_DESK))
    ids = base.tokenizer(" ".join(world.answers(world.prompts("eval")[0])[:20]), return_tensors="pt")["input_ids"]
    usual = base.model(ids, output_hidden_states=True).hidden_states[-1][0].mean(0)
    model = copy.deepcopy(base.model)
    model.config.tie_word_embeddings = False
    head = model.get_output_embeddings().weight = torch.nn.Parameter(model.get_output_embeddings().weight.clone())
    head[list(base.eos_ids)] = -30 * usual / usual.dot(usual)
    model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder
