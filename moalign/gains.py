"""What the best-placed adapters have gained over the base, prompt by prompt, and what is mere noise of the prompts."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.frontiers import ParetoPoint, bootstrap_interval, resampled_fronts
from moalign.runs import BASE, Run

_RESAMPLES = 200


def gains(run: Run) -> list[dict[str, Any]]:
    """For each objective, the point that was asked for most of it, against the base on the same prompts.

    {objective, preference, base, value, difference, interval}, in the objective's units. Both answered the same prompts
    with the same random numbers, so that the difference is taken response by response; its 95 % interval is a bootstrap
    over prompts. Empty where no samples are stored.
    """
    points, base = list(run.front()), run.samples(BASE)
    found = []
    for name in run.objectives if base and points else ():
        best = max(points, key=lambda point: point.preference.weights.get(name, 0.0))
        gain = _gain(run, name, best, base)
        found += [gain] if gain else []
    return found


def _gain(run: Run, name: str, point: ParetoPoint, base: list[dict[str, Any]]) -> dict[str, Any] | None:
    own = run.samples(point.adapter)
    prompts = [json.dumps(row["prompt"]) for row in base]
    if prompts != [json.dumps(row["prompt"]) for row in own]:
        return None
    before, after = (np.array([row["scores"][name] for row in rows]) for rows in (base, own))
    interval = bootstrap_interval((after - before)[:, None], np.array(prompts), np.random.default_rng(run.config.seed))
    return {
        "objective": name,
        "preference": point.preference.weights,
        "base": float(before.mean()),
        "value": float(after.mean()),
        "difference": float((after - before).mean()),
        "interval": interval[0].tolist(),
    }


def redrawn(sources: Sequence[tuple[Run, str]], names: Sequence[str], seed: int) -> Float[np.ndarray, "b n m"]:
    """The values of points, each a run and a key, over prompts that are drawn again, the same for all.

    That is how they would vary together. Empty, Float[0, n, m], where texts of a point are missing, or answer other
    prompts than those of the first.
    """
    rows = [run.samples(key) for run, key in sources]
    prompts = [[json.dumps(row["prompt"]) for row in found] for found in rows]
    if not prompts or not prompts[0] or any(other != prompts[0] for other in prompts):
        return np.zeros((0, len(sources), len(names)))
    scores = [np.array([[row["scores"][name] for name in names] for row in found]) for found in rows]
    return resampled_fronts(scores, np.array(prompts[0]), np.random.default_rng(seed), _RESAMPLES)
