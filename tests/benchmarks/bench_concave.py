"""Do dynamic weights reach the concave part of a front, where fixed weights do not? On a front that is known.

    python tests/benchmarks/bench_concave.py [--seeds 5] [--steps 400] [--completions 16] [--quick]

The world. An answer is two slots with three options each; r1 = 1 if both are option 0, r2 = 1 if both are option 1;
option 2 is bad, and likely at the start. The policy draws the slots independently, so that it cannot mix (1, 1) with
(0, 0): policies that can have a convex set of attainable values, and no concave part at all. With p and q the
probabilities of options 0 and 1 in a slot, J1 = p p', J2 = q q', and

    sqrt(J1) + sqrt(J2) <= (p + p') / 2 + (q + q') / 2 <= 1,

with equality where the slots are alike and nothing is bad: the front is (p^2, (1 - p)^2), bent towards the origin all
along, and dominates 1/6 of the unit square. Fixed weights cannot hold its inside: along it they ask for the
maximum of w p^2 + (1 - w)(1 - p)^2, which is convex in p, so that the maximum is at p = 0 or 1. The prompts are
shown to the policy as one (it has the same 2 x 3 logits for all): with logits for each prompt, a share of the prompts
could go to either corner, which is mixing again.

Two estimators, because they ask for different things: RLOO for the weighted sum of J itself; GRPO with objectives
normalised one by one for sum_k w_k 2 arcsin sqrt(J_k) instead, as long as groups are large, since it divides
grad J_k by the deviation sqrt(J_k (1 - J_k)); that is convex along this front too.

The weighters, at 11 preferences and each seed: fixed; hypervolume, its scale on the normalised advantages as in
moalign, and "naive", on the rewards as in the authors' release; gradient, at the authors' eta / mu = 0.1; Tchebycheff
(examples/tchebycheff.py, its defaults); and a constraint (concave_world.py: J1 at J2 >= w2^2). The learning rate is
one at which all runs with fixed weights are at a corner (J above 0.95) after 200 steps, and twice these steps are
made. Nothing else was tuned, for any of them.

Printed, as mean and 95 % interval (Student's t) over the seeds: the share of the front's hypervolume, with the
reference (0, 0), of the 11 policies at the end, and of all checkpoints along the 11 runs, which is the paper's notion,
also less that of fixed weights with the same seed; how many of the 11 end inside (J1 and J2 at least 0.01, and
within 0.05 of the front in sqrt(J1) + sqrt(J2)), and how many were there in all of the last fifth; the steps to 90 % of
the hypervolume of all checkpoints, of the method's own and of fixed weights' with the same seed, and the answers drawn
for the latter, validation included. All J are exact; the training sees samples.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import arguments, begin, print_json, print_table
from concave_world import PREFERENCES, WEIGHTINGS, Training, values
from scipy.stats import t as student

from moalign.frontiers import hypervolume
from moalign.losses import Aggregation, Estimator

FRONT = 1 / 6  # integral of (1 - sqrt x)^2 from 0 to 1
EVERY = 5  # steps between two points of the curve of all checkpoints
ESTIMATORS: list[tuple[Estimator, Aggregation]] = [("grpo", "normalize_then_sum"), ("rloo", "sum_then_normalize")]


@dataclass(frozen=True)
class Found:
    """What one weighter came to, one number per seed; NaN where it was not reached."""

    final: np.ndarray
    path: np.ndarray
    inside: np.ndarray
    held: np.ndarray
    curve: np.ndarray  # (seeds, points): share of the front by all checkpoints so far
    drawn: float  # answers per step and seed


def train(name: str, estimator: Estimator, aggregation: Aggregation, options: argparse.Namespace) -> Found:
    """Train the 11 preferences of all seeds, and measure them exactly."""
    seeds, steps = options.seeds, options.steps
    training = Training(name, estimator, aggregation, seeds, options.completions)
    history = [training.initial]
    for number in range(steps):
        training.step(number)
        history.append(values(training.logits.detach()))
    path = torch.stack(history).numpy().reshape(steps + 1, seeds, len(PREFERENCES), 2)
    there = (path >= 0.01).all(-1) & (np.sqrt(path).sum(-1) >= 0.95)
    curve = [[share(path[: end + 1, seed]) for end in range(0, steps + 1, EVERY)] for seed in range(seeds)]
    return Found(
        final=np.array([share(path[-1, seed]) for seed in range(seeds)]),
        path=np.array([share(path[:, seed]) for seed in range(seeds)]),
        inside=there[-1].sum(-1),
        held=there[-(steps // 5) :].all(0).sum(-1),
        curve=np.array(curve),
        drawn=training.drawn / steps / seeds,
    )


def share(points: np.ndarray) -> float:
    """Of the front's hypervolume above (0, 0)."""
    return hypervolume(points.reshape(-1, 2), np.zeros(2)) / FRONT


def reached(curve: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The first step of each seed at which its curve is at the target; NaN for never."""
    there = curve >= targets[:, None]
    return np.where(there.any(1), EVERY * there.argmax(1), np.nan)


def spread(found: np.ndarray) -> tuple[float, float]:
    """Mean and half the 95 % interval of the seeds that have a number."""
    known = found[~np.isnan(found)].astype(float)
    if len(known) < 2:
        return float(known.mean()) if len(known) else float("nan"), float("nan")
    return known.mean(), float(student.ppf(0.975, len(known) - 1)) * known.std(ddof=1) / len(known) ** 0.5


def compare(estimator: Estimator, aggregation: Aggregation, options: argparse.Namespace) -> dict[str, Any]:
    """One table: every weighter with one estimator."""
    results = {name: train(name, estimator, aggregation, options) for name in WEIGHTINGS}
    fixed = results["fixed"].path
    rows, figures = [], {}
    for name, found in results.items():
        to_fixed = reached(found.curve, 0.9 * fixed)
        shares = {"final": found.final, "path": found.path, "path - fixed": found.path - fixed}
        counts = {"inside": found.inside, "held": found.held}
        steps = {"90 % own": reached(found.curve, 0.9 * found.path), "90 % fixed": to_fixed}
        drawn = {"answers": to_fixed * found.drawn}
        figures[name] = {key: spread(value) for key, value in (shares | counts | steps | drawn).items()}
        digits = [3] * len(shares) + [1] * len(counts) + [0] * 3
        cells = [f"{m:.{d}f} ± {h:.{d}f}" for (m, h), d in zip(figures[name].values(), digits, strict=True)]
        rows.append([name, *cells, f"{int((to_fixed >= 0).sum())}/{len(to_fixed)}"])
    title = (
        f"{estimator}, {aggregation}: {options.seeds} seeds, {options.steps} steps of 4 x {options.completions} answers"
    )
    print_table(title, ["weighting", *figures["fixed"], "seeds there"], rows)
    return figures


def main() -> None:
    """Print one table per estimator."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2, for an interval (default 5)")
    parser.add_argument("--steps", type=int, default=400, help="updates of each run (default 400)")
    parser.add_argument("--completions", type=int, default=16, help="per group, 4 groups per batch (default 16)")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps = 2, 20
    begin(options)
    p = np.linspace(0, 1, 11)
    best = share(np.stack([p**2, (1 - p) ** 2], axis=1))
    print(f"11 points evenly along the front would have {best:.3g} of its hypervolume, the two corners 0")
    tables = {name: compare(name, aggregation, options) for name, aggregation in ESTIMATORS}
    print_json(
        {
            "benchmark": "concave",
            "seeds": options.seeds,
            "steps": options.steps,
            "completions": options.completions,
            **tables,
        }
    )


if __name__ == "__main__":
    main()
