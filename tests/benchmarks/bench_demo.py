"""How much of the possible the demo reaches, how long it takes, and what limits the rest.

    python tests/benchmarks/bench_demo.py [--quick] [--threads 2] [--objectives 2 3]

In the demo's world every answer can be listed, so the best that any policy can do is known: the optimum at the run's
beta, and, because a trained adapter may stand at another KL than that optimum, the best at each point's own KL. The
hypervolume is stated against both. What is missing is then taken apart by training the same front once more with one
thing changed: several times as many steps ("longer"), no warm starts ("cold"), adapters of four times the rank
("rank"), twice as many pairs ("pairs"); or measured on prompts that it was trained on ("seen"). What closes the gap is
what limited it; what moves nothing did not. The intervals are 95 % of a bootstrap over prompts, of all points together.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import Cost, arguments, begin, measured, print_json, print_table

from moalign.demo.show import BASE_FOLDER, OBJECTIVES, demo_config, demonstrate
from moalign.enumeration import read_world
from moalign.frontiers import hypervolume, matched_front
from moalign.progress import Reporter
from moalign.runs import Run
from moalign.summary import summarise
from moalign.sweep import run_sweep

_CONTRASTS = ("longer", "cold", "rank", "pairs", "seen")


def main() -> None:
    """Run the demo, then what it is contrasted with."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--objectives", type=int, nargs="+", default=[2], help="demos to run (default 2)")
    parser.add_argument("--contrasts", nargs="*", help="of those below (default all; quick: none)", choices=_CONTRASTS)
    parser.add_argument("--steps", type=int, default=4, help="times the demo's steps, for 'longer' (default 4)")
    options = parser.parse_args()
    begin(options)
    if not (BASE_FOLDER / "config.json").is_file():
        print(f"no demo base in {BASE_FOLDER}: make it with python -m moalign.demo.build")
        return
    asked = options.contrasts if options.contrasts is not None else [] if options.quick else list(_CONTRASTS)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for objectives in options.objectives:
            found[f"{objectives} objectives"] = _study(Path(folder), objectives, asked, options.steps)
    print_json({"benchmark": "demo", "threads": options.threads, **found})


def _study(folder: Path, objectives: int, contrasts: Sequence[str], times: int) -> dict[str, object]:
    with measured() as cost:
        shown = demonstrate(folder / f"demo-{objectives}", objectives, Reporter(quiet=True))
    run = Run.open(shown.folder)
    print_points(shown.summary)
    rows = [_row("demo", run, shown.summary, cost)]
    for name in contrasts:
        other = folder / f"{name}-{objectives}"
        config = _contrast(name, other, OBJECTIVES[:objectives], times)
        with measured() as cost:
            changed = run_sweep(config, other)
        rows.append(_row(name, changed, summarise(changed), cost))
    columns = ["", "hypervolume", "95 %", "of KL-matched", "95 %", "of at-beta", "kl to oracle", "s", "peak MiB"]
    print_table(f"{objectives} objectives, against the exact optimum", columns, [list(row.values()) for row in rows])
    return {"points": shown.summary["points"], "rows": rows}


def _changes(demo: Any, folder: Path, times: int) -> dict[str, dict[str, Any]]:
    settings, data, adapter = demo.settings, demo.data.model_dump(), demo.adapter.model_dump()
    longer = {"steps": times * demo.method_settings.steps}
    return {
        "longer": {"settings": {**settings, **longer}},
        "cold": {"settings": {**settings, "warm_start": False}},
        "rank": {"adapter": {**adapter, "rank": 4 * adapter["rank"], "alpha": 4 * adapter["alpha"]}},
        "pairs": {"data": {**data, "pairs_per_prompt": 2 * data["pairs_per_prompt"]}},
        "seen": {"data": {**data, "prompts": str((folder / "inputs" / "train.jsonl").resolve())}},
    }


def _contrast(name: str, folder: Path, names: tuple[str, ...], times: int):
    """The demo's config with one thing changed."""
    demo = demo_config(folder, names)
    return demo_config(folder, names, **_changes(demo, folder, times)[name])


def _row(name: str, run: Run, summary: dict[str, Any], cost: Cost) -> dict[str, object]:
    volume, ratio = volume_intervals(run)
    divergence = float(np.mean([point["kl_to_oracle"] for point in summary["points"]]))
    return {
        "name": name,
        "hypervolume": summary["hypervolume"],
        "interval": f"{volume[0]:.3f} to {volume[1]:.3f}",
        "ratio": f"{summary['hypervolume_ratio']:.3f}",
        "ratio_interval": f"{ratio[0]:.3f} to {ratio[1]:.3f}",
        "ratio_at_beta": f"{summary['hypervolume_ratio_at_beta']:.3f}",
        "mean_kl_to_oracle": divergence,
        "seconds": cost.seconds,
        "peak_mib": cost.peak_mib,
    }


def print_points(summary: dict[str, Any]) -> None:
    """Every preference: what it attains, and how far it is from the base and from the optimum."""
    rows = []
    for point in summary["points"]:
        weights = " ".join(f"{point['preference'].get(name, 0):.2g}" for name in summary["objectives"])
        values = [f"{point['values'][name]:+.3f}" for name in summary["objectives"]]
        rows.append([weights, *values, point["kl_to_reference"], point["kl_to_oracle"], point["on_front"]])
    columns = ["weights", *summary["objectives"], "kl to base", "kl to oracle", "on front"]
    print_table(" x ".join(summary["objectives"]), columns, rows)


def volume_intervals(run: Run, resamples: int = 200) -> tuple[tuple[float, float], tuple[float, float]]:
    """Bootstrap intervals, over prompts, of the hypervolume and of its ratio to the KL-matched optimum.

    All points and the optimum are measured on the same prompts, and are resampled together.
    """
    front, names, world = run.front(), run.objectives, read_world(run)
    assert world is not None, "the demo names its oracle"
    scores = np.stack([_by_prompt(run, point.adapter) for point in front])  # points, prompts, objectives
    weights = np.array([point.preference.vector(names) for point in front])
    kls = np.array([max(point.kl_to_reference or 0.0, 0.0) for point in front])
    rng = np.random.default_rng(0)
    volumes, ratios = [], []
    for _ in range(resamples):
        drawn = rng.integers(len(world), size=len(world))
        volumes.append(hypervolume(scores[:, drawn].mean(1), front.reference_point))
        best = matched_front([world[i] for i in drawn], weights, kls)
        ratios.append(volumes[-1] / hypervolume(best, front.reference_point))
    return _middle(volumes), _middle(ratios)


def _by_prompt(run: Run, key: str) -> np.ndarray:
    """Mean scores of each prompt; samples stand prompt by prompt."""
    rows = [[sample["scores"][name] for name in run.objectives] for sample in run.samples(key)]
    return np.array(rows).reshape(-1, run.config.evaluation.samples, len(run.objectives)).mean(1)


def _middle(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
