"""Is C-MORL's second stage worth its budget? Branches into gaps against more grid points, on the demo's world.

    python tests/benchmarks/bench_fill.py [--seeds 0 1 2 3 4] [--budget 4] [--threads 2] [--out DIR] [--quick]

For each seed three runs train equally many adapters of equally many steps: a grid of 4 preferences and then `moalign
fill --budget 4`, with branches that end in the middle of their gaps (the default) and with C-MORL's fixed beta of
0.9; and a grid of 8 and `moalign fill --budget 0`, so that all have measured blends in their gaps. Printed are
hypervolume (against the reference point of the first run) and sparsity (in units of its ranges, squared), of the
adapters alone and with the blends; and how many seeds the second stage wins.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, begin, print_json, print_table

from moalign.config import SweepConfig
from moalign.demo.show import BASE_FOLDER, demo_config
from moalign.files import atomic_write_text, read_json, write_json
from moalign.fill import run_fill
from moalign.frontiers import ParetoPoint, hypervolume, sparsity
from moalign.progress import Reporter
from moalign.runs import Run
from moalign.sweep import run_sweep

_NAMES = ("helpful", "brief")


def main() -> None:
    """Train both sides for each seed, and compare."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--budget", type=int, default=4)
    parser.add_argument("--constraint", choices=["barrier", "lagrangian"], default="barrier")
    parser.add_argument("--pace", type=float, default=0.25, help="of the branches, times the learning rate")
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
    print_table("second stage against more grid points", list(rows[0]), [list(row.values()) for row in rows])
    for what, better in (("hypervolume", 1), ("with blends", 1), ("sparsity", -1), ("sparsity with blends", -1)):
        grid = np.array([row[what] for row in rows if row["side"] == "grid"])
        for side in ("to the middle", "fixed beta"):
            own = np.array([row[what] for row in rows if row["side"] == side])
            wins = int((better * (own - grid) > 0).sum())
            print(f"  {what}: {side} {own.mean():.4f}, grid {grid.mean():.4f}; better on {wins} of {len(own)} seeds")
    print_json({"benchmark": "fill", "budget": options.budget, "threads": options.threads, "rows": rows})


def _seed(out: Path, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    small, budget = 1 if options.quick else 3, options.budget
    start = run_sweep(_config(out / f"small-{seed}", seed, small, options), out / f"small-{seed}")
    reference, values = start.front().reference_point, start.front().values
    span = values.max(0) - values.min(0)
    rows = []
    for side, branches in (("to the middle", budget), ("fixed beta", budget), ("grid", 0)):
        folder = out / f"{side.replace(' ', '-')}-{seed}"
        config = _config(folder, seed, small + budget if side == "grid" else small, options, side == "to the middle")
        if side != "grid" and not (folder / "config.yaml").is_file():
            shutil.copytree(start.folder, folder, dirs_exist_ok=True)
            atomic_write_text(folder / "config.yaml", config.to_yaml())
        run = run_sweep(config, folder) if side == "grid" else Run(folder, config)
        result = folder / "filled.json"
        if not result.is_file():  # a second call would fill further
            write_json(result, run_fill(run, branches, Reporter(quiet=True)))
        rows.append({"side": side, "seed": seed, **_measured(run, reference, span)})
        found = read_json(result)
        trained, kept = found["adapters_trained"], len(found["adapters_kept"])
        covered = sum(gap["covered_by_blend"] for gap in found["gaps"])
        print(f"seed {seed}: {side}: {trained} branches, {kept} kept;", end=" ")
        print(f"{covered} of {len(found['gaps'])} gaps covered by blends", flush=True)
    return rows


def _config(folder: Path, seed: int, divisions: int, options: argparse.Namespace, middle: bool = True) -> SweepConfig:
    quick = {"evaluation": {"prompts": 6, "samples": 4, "max_new_tokens": 72}} if options.quick else {}
    steps = {"steps": 8, "every": 4, "prompts": 4} if options.quick else {"steps": 60, "every": 15}
    fill = {**steps, "constraint": options.constraint, "pace": options.pace, "to_the_middle": middle}
    return demo_config(folder, _NAMES, seed=seed, preferences={"lattice": divisions}, fill=fill, **quick)


def _measured(run: Run, reference: Any, span: Any) -> dict[str, float]:
    points = list(run.front())
    adapters = [point for point in points if point.row is None]

    def values(chosen: list[ParetoPoint]) -> np.ndarray:
        return np.array([[point.values[name] for name in _NAMES] for point in chosen])

    return {
        "adapters": len(adapters),
        "hypervolume": hypervolume(values(adapters), reference),
        "with blends": hypervolume(values(points), reference),
        "sparsity": sparsity(values(adapters) / span),
        "sparsity with blends": sparsity(values(points) / span),
    }


if __name__ == "__main__":
    main()
