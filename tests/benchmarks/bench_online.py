"""How near online alignment comes to the exact optimum of the demo's world, estimator by estimator.

    python tests/benchmarks/bench_online.py [--quick] [--threads 2] [--only grpo-normalize rloo-sum ...] [--steps 60]

Eleven preferences of helpful and brief, all in one bank, 32 completions per preference and step. Normalised advantages
have no units, so that their beta is not that of the objectives; all are compared at equal KL: the hypervolume over that
of the best policies of each point's own KL. The same beta means another KL for each, and the KL is printed beside it.
Intervals are 95 % of a bootstrap over prompts, of all points together.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_demo import print_points, volume_intervals
from common import arguments, begin, measured, print_json, print_table

from moalign.demo.show import BASE_FOLDER, demo_config
from moalign.summary import summarise
from moalign.sweep import run_sweep

_NAMES = ("helpful", "brief")
_NORMALIZE = {"aggregation": "normalize_then_sum", "beta": 0.6}
_SUM = {"aggregation": "sum_then_normalize", "beta": 0.5}
CASES: dict[str, dict[str, Any]] = {
    "grpo-normalize": {"estimator": "grpo", **_NORMALIZE},
    "rloo-normalize": {"estimator": "rloo", **_NORMALIZE},
    "reinforce-normalize": {"estimator": "reinforce", **_NORMALIZE},
    "dr_grpo-normalize": {"estimator": "dr_grpo", **_NORMALIZE},
    "grpo-sum": {"estimator": "grpo", **_SUM, "beta": 0.6},
    "rloo-sum": {"estimator": "rloo", **_SUM},
    "reinforce-sum": {"estimator": "reinforce", **_SUM},
    "dr_grpo-sum": {"estimator": "dr_grpo", **_SUM},
    "hypervolume": {"estimator": "grpo", **_NORMALIZE, "weighting": {"type": "hypervolume", "every": 5}},
    "gradient": {"estimator": "grpo", **_NORMALIZE, "weighting": {"type": "gradient", "minimum": 0.02}},
    "k2": {"estimator": "grpo", **_NORMALIZE, "kl": "k2"},
    "k3": {"estimator": "grpo", **_NORMALIZE, "kl": "k3"},
}
_DEFAULT = [name for name in CASES if name.endswith(("normalize", "sum"))]


def main() -> None:
    """Train the same front by each case in turn."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", nargs="+", choices=list(CASES), help="default: four estimators, both aggregations")
    parser.add_argument("--steps", type=int, help="batches of rollouts (default 60; quick: 4)")
    options = parser.parse_args()
    begin(options)
    if not (BASE_FOLDER / "config.json").is_file():
        print(f"no demo base in {BASE_FOLDER}: make it with python -m moalign.demo.build")
        return
    steps = options.steps or (4 if options.quick else 60)
    with tempfile.TemporaryDirectory() as folder:
        rows = [_case(Path(folder) / name, name, steps, options.quick) for name in options.only or _DEFAULT]
    columns = ["", "of KL-matched", "95 %", "of at-beta", "mean KL", "largest KL", "s"]
    print_table("online alignment against the exact optimum", columns, [list(row.values()) for row in rows])
    print_json({"benchmark": "online", "threads": options.threads, "steps": steps, "rows": rows})


def _case(folder: Path, name: str, steps: int, quick: bool) -> dict[str, object]:
    settings = {"steps": steps, "prompts": 4, "completions": 8, "learning_rate": 3e-3, **CASES[name]}
    config = demo_config(folder, _NAMES, method="online", settings=settings, data=_data(folder), **_measured(quick))
    with measured() as cost:
        run = run_sweep(config, folder)
    summary = summarise(run)
    print_points(summary)
    kls = [point["kl_to_reference"] for point in summary["points"]]
    _, interval = volume_intervals(run)
    at_beta = summary["hypervolume_ratio_at_beta"]
    return {
        "name": name,
        "ratio": f"{summary['hypervolume_ratio']:.3f}",
        "interval": f"{interval[0]:.3f} to {interval[1]:.3f}",
        "ratio_at_beta": "" if at_beta is None else f"{at_beta:.3f}",
        "mean_kl": float(np.mean(kls)),
        "largest_kl": float(np.max(kls)),
        "seconds": cost.seconds,
    }


def _data(folder: Path) -> dict[str, Any]:
    inputs = (folder / "inputs").resolve()
    prompts = {"train_prompts": str(inputs / "train.jsonl"), "prompts": str(inputs / "eval.jsonl")}
    return {**prompts, "holdout": 0.0}


def _measured(quick: bool) -> dict[str, Any]:
    return {"evaluation": {"prompts": 4 if quick else 24, "samples": 4 if quick else 8, "max_new_tokens": 72}}


if __name__ == "__main__":
    main()
