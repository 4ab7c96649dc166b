"""Is C-MORL's second stage worth its budget? Branches into gaps against more grid points, on the demo's world.

    python tests/benchmarks/bench_fill.py [--seeds 0 1 2 3 4] [--budget 4] [--threads 2] [--out DIR] [--quick]

For each seed two runs train equally many adapters of equally many steps: one a grid of 4 preferences and then
`moalign fill --budget 4`, the other a grid of 8 and `moalign fill --budget 0`, so that both have measured blends in
their gaps. Printed are hypervolume (against the reference point of the first run) and sparsity (in units of the first
run's ranges, squared), of the trained adapters alone and with the blends; and how many seeds the second stage wins.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, begin, print_json, print_table

from moalign.demo.show import BASE_FOLDER, demo_config
from moalign.files import read_json
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
        first, second = (np.array([row[what] for row in rows if row["side"] == side]) for side in ("fill", "grid"))
        wins = int((better * (first - second) > 0).sum())
        print(
            f"  {what}: fill {first.mean():.4f}, grid {second.mean():.4f}; fill better on {wins} of {len(first)} seeds"
        )
    print_json({"benchmark": "fill", "budget": options.budget, "threads": options.threads, "rows": rows})


def _seed(out: Path, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    small = 3 if not options.quick else 1
    sides = {"fill": (small, options.budget), "grid": (small + options.budget, 0)}
    rows: list[dict[str, Any]] = []
    reference = span = None
    for side, (divisions, budget) in sides.items():
        folder = out / f"{side}-{seed}"
        run = run_sweep(_config(folder, seed, divisions, options), folder)
        found = run_fill(run, budget, Reporter(quiet=True))
        if reference is None:
            reference = run.front().reference_point
            ranges = read_json(run.folder / "fill" / "ranges.json")
            span = np.array(ranges["highest"]) - np.array(ranges["lowest"])
        rows.append({"side": side, "seed": seed, **_measured(run, reference, span)})
        gaps = found["gaps"]
        print(
            f"seed {seed}: {side} trained {found['adapters_trained']} branches, kept {len(found['adapters_kept'])};",
            end="",
        )
        print(f" {sum(gap['covered_by_blend'] for gap in gaps)} of {len(gaps)} gaps covered by blends", flush=True)
    return rows


def _config(folder: Path, seed: int, divisions: int, options: argparse.Namespace) -> Any:
    quick = {"evaluation": {"prompts": 6, "samples": 4, "max_new_tokens": 72}} if options.quick else {}
    steps = {"steps": 8, "every": 4, "prompts": 4} if options.quick else {"steps": 60, "every": 15}
    fill = {**steps, "constraint": options.constraint, "pace": options.pace, "select": 4}
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
