"""Soup, conditioned policy and a front of trained adapters, at equal training tokens, on the demo's world.

    python tests/benchmarks/bench_soups.py [--seeds 0 1 2] [--by modpo] [--steps 60] [--threads 2] [--out DIR] [--quick]

Each side learns from as many pairs (or rollouts): the front has 11 adapters of `steps` steps; a soup has two corners,
which share the steps of all eleven; the conditioned policy has two adapters and draws four mixtures a step. All three
are measured at the same 11 preferences. Printed is the hypervolume as a share of that of the best policies of each
point's own KL, and at the run's own beta; and for the soup the same with the factors averaged, as the paper's authors
released it, which is not the mixture of the deltas.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, begin, print_json, print_table

from moalign.demo.show import BASE_FOLDER, demo_config
from moalign.runs import Run
from moalign.summary import summarise
from moalign.sweep import run_sweep

_NAMES = ("helpful", "brief")
_DIVISIONS, _DRAWS = 10, 4
_SETTINGS: dict[str, dict[str, Any]] = {
    "modpo": {"beta": 0.5, "batch_size": 16, "learning_rate": 2e-3, "grad_renorm": True},
    "online": {"beta": 0.6, "prompts": 4, "completions": 8, "learning_rate": 3e-3},
}


def main() -> None:
    """Train all sides for each seed, and print their shares of the oracle's hypervolume."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--by", choices=list(_SETTINGS), default="modpo")
    parser.add_argument("--steps", type=int, help="of each of the eleven (default 60)")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    options = parser.parse_args()
    begin(options)
    if not (BASE_FOLDER / "config.json").is_file():
        print(f"no demo base in {BASE_FOLDER}: make it with python -m moalign.demo.build")
        return
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        seeds = options.seeds[: 1 if options.quick else None]
        rows = [row for seed in seeds for row in _seed(out, seed, options)]
    columns = ["", "seed", "of KL-matched", "of at-beta", "mean KL", "hypervolume"]
    print_table(f"equal training tokens, by {options.by}", columns, [list(row.values()) for row in rows])
    for name in dict.fromkeys(row["name"] for row in rows):
        shares = [row["of KL-matched"] for row in rows if row["name"] == name]
        print(f"  {name}: mean {np.mean(shares):.3f} of the KL-matched oracle")
    print_json({"benchmark": "soups", "by": options.by, "threads": options.threads, "rows": rows})


def _seed(out: Path, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    steps = options.steps or (4 if options.quick else 60)
    total = steps * (_DIVISIONS + 1)
    own = _SETTINGS[options.by]
    corners = {"by": options.by, "settings": {**own, "steps": total // len(_NAMES)}}
    through = {"by": options.by, "settings": {**own, "steps": total // _DRAWS}, "draws": _DRAWS}
    sides = {
        "11 adapters": (options.by, {**own, "steps": steps}),
        "soup": ("soup", corners),
        "soup of factors": ("soup", {**corners, "merge": "factors"}),
        "conditioned": ("conditioned", through),
    }
    rows = []
    for name, (method, settings) in sides.items():
        folder = out / f"{options.by}-{seed}-{name.replace(' ', '-')}"
        run = run_sweep(_config(folder, seed, method, settings, options), folder)
        rows.append(_row(name, seed, run))
        print(f"seed {seed}: {name} {rows[-1]['of KL-matched']:.3f}", flush=True)
    return rows


def _config(folder: Path, seed: int, method: str, settings: dict[str, Any], options: argparse.Namespace) -> Any:
    prompts, samples = (4, 4) if options.quick else (24, 12)
    changes: dict[str, Any] = {"evaluation": {"prompts": prompts, "samples": samples, "max_new_tokens": 72}}
    if options.by == "online":
        inputs = (folder / "inputs").resolve()
        files = {"train_prompts": str(inputs / "train.jsonl"), "prompts": str(inputs / "eval.jsonl")}
        changes["data"] = {**files, "holdout": 0.0}
    return demo_config(
        folder, _NAMES, method=method, settings=settings, seed=seed, preferences={"lattice": _DIVISIONS}, **changes
    )


def _row(name: str, seed: int, run: Run) -> dict[str, Any]:
    summary = summarise(run)
    kls = [point["kl_to_reference"] for point in summary["points"]]
    at_beta = summary["hypervolume_ratio_at_beta"]
    return {
        "name": name,
        "seed": seed,
        "of KL-matched": summary["hypervolume_ratio"],
        "of at-beta": float("nan") if at_beta is None else at_beta,
        "mean KL": float(np.mean(kls)),
        "hypervolume": summary["hypervolume"],
    }


if __name__ == "__main__":
    main()
