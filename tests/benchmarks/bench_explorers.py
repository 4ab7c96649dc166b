"""How few adapters map a front: explorers against a grid, on the demo's world with three objectives.

    python tests/benchmarks/bench_explorers.py [--seeds 0 1 2] [--points 22] [--threads 2] [--out DIR] [--figure F.html]

For each seed: a grid of 66 preferences (lattice 10), and sweeps in which `crowding` and `hypervolume` ask for a third
of that, three at a time; then `moalign fill --budget 0` on the latter, which measures blends and trains nothing.
Printed is the hypervolume after n trained adapters as a share of the grid's 66, every run against the reference point
of its seed's grid. The lattices 1, 2 and 5 lie within lattice 10, and an adapter does not depend on its neighbours,
so that the curve of smaller grids is read off the large one. With --out the runs are kept, and a second call goes on
where the first was.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from common import arguments, begin, print_json, print_table

from moalign.demo.show import BASE_FOLDER, demo_config
from moalign.files import read_json
from moalign.fill import run_fill
from moalign.frontiers import ParetoPoint, hypervolume, lattice
from moalign.preference import Preference
from moalign.progress import Reporter
from moalign.runs import Run
from moalign.sweep import run_sweep

_NAMES = ("helpful", "brief", "warm")
_ASKING = ("crowding", "hypervolume")


def main() -> None:
    """Train, and print the shares."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--points", type=int, default=22)
    parser.add_argument("--only", nargs="+", choices=["grid", *_ASKING], help="train no others, and print nothing")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--figure", type=Path, help="write the curves as a page")
    options = parser.parse_args()
    begin(options)
    if not (BASE_FOLDER / "config.json").is_file():
        print(f"no demo base in {BASE_FOLDER}: make it with python -m moalign.demo.build")
        return
    divisions, points = (2, 5) if options.quick else (10, options.points)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        found = [_seed(out, seed, divisions, points, options) for seed in options.seeds[: 1 if options.quick else None]]
    if options.only:
        return
    curves = {name: [each[name] for each in found] for name in found[0]}
    columns = ["", *(str(n) for n, _ in next(iter(curves.values()))[0])]
    for name, seeds in curves.items():
        columns = ["adapters", *(str(n) for n, _ in seeds[0])]
        rows = [
            [f"seed {seed}", *(f"{share:.3f}" for _, share in curve)]
            for seed, curve in zip(options.seeds, seeds, strict=False)
        ]
        means = np.mean([[share for _, share in curve] for curve in seeds], axis=0)
        print_table(
            f"{name}: share of the grid's hypervolume", columns, [*rows, ["mean", *(f"{m:.3f}" for m in means)]]
        )
    if options.figure:
        options.figure.write_text(
            _figure(curves).to_html(include_plotlyjs=True, config={"displayModeBar": False}), encoding="utf-8"
        )
    print_json({"benchmark": "explorers", "threads": options.threads, "curves": curves})


def _seed(out: Path, seed: int, divisions: int, points: int, options) -> dict[str, list[tuple[int, float]]]:
    only = options.only or ["grid", *_ASKING]
    small = {"evaluation": {"prompts": 4, "samples": 4, "max_new_tokens": 72}} if options.quick else {}
    runs: dict[str, Run] = {}
    for name in only:
        folder = out / (f"s{seed}" if name == "grid" else f"s{seed}-{name}")
        asked = {"explorer": {"type": name, "points": points, "batch": 3}} if name != "grid" else {}
        config = demo_config(folder, _NAMES, seed=seed, preferences={"lattice": divisions}, **asked, **small)
        runs[name] = run_sweep(config, folder)
        print(f"seed {seed}: {name} has {len(runs[name].front())} points", flush=True)
    if options.only:
        return {}
    front = runs["grid"].front()
    reference, whole = front.reference_point, front.hypervolume()

    def curve(points: Sequence[ParetoPoint], counts: Sequence[int]) -> list[tuple[int, float]]:
        values = np.array([[point.values[name] for name in _NAMES] for point in points])
        return [(n, hypervolume(values[:n], reference) / whole) for n in counts]

    shares = {
        "grid": [curve(_within(list(front), d), [len(lattice(3, d))])[0] for d in (1, 2, 5, 10) if d <= divisions]
    }
    for name in _ASKING:
        order = _order(runs[name])
        shares[name] = curve(order, range(3, len(order) + 1, 3 if len(order) > 6 else 1))
        if shares[name][-1][0] < len(order):
            shares[name] += curve(order, [len(order)])
    trained = len(_order(runs["hypervolume"]))
    filled = run_fill(runs["hypervolume"], 0, Reporter(quiet=True))
    values = runs["hypervolume"].front().values
    shares["hypervolume, then blends"] = [(trained, hypervolume(values, reference) / whole)]
    print(
        f"seed {seed}: {sum(gap['covered_by_blend'] for gap in filled['gaps'])} of {len(filled['gaps'])} gaps covered"
    )
    return shares


def _within(points: Sequence[ParetoPoint], divisions: int) -> list[ParetoPoint]:
    wanted = {Preference.of(dict(zip(_NAMES, row.tolist(), strict=True))).key for row in lattice(3, divisions)}
    return [point for point in points if point.preference.key in wanted]


def _order(run: Run) -> list[ParetoPoint]:
    """The trained adapters in the order in which they were asked for: the corners, then wave by wave."""
    ends = [{name: 1.0} for name in _NAMES]
    files = sorted((run.folder / "asked").glob("*.json"), key=lambda path: int(path.stem))
    asked = [*ends, *(weights for path in files for weights in read_json(path)["preferences"])]
    place = {Preference.of(weights).key: number for number, weights in enumerate(asked)}
    trained = [point for point in run.front() if point.row is None]
    return sorted(trained, key=lambda point: place[point.preference.key])


def _figure(curves: dict[str, list[list[tuple[int, float]]]]) -> go.Figure:
    figure = go.Figure()
    colours, symbols = ("#777777", "#0072b2", "#009e73", "#d55e00"), ("square", "circle", "circle", "star")
    for (name, seeds), colour, symbol in zip(curves.items(), colours, symbols, strict=True):
        counts = [n for n, _ in seeds[0]]
        shares = np.array([[share for _, share in curve] for curve in seeds])
        spread = {"type": "data", "array": shares.max(0) - shares.mean(0), "arrayminus": shares.mean(0) - shares.min(0)}
        figure.add_scatter(
            x=counts,
            y=shares.mean(0),
            error_y=spread,
            name=name,
            line={"color": colour},
            marker={"symbol": symbol, "size": 9},
        )
    figure.add_hline(y=0.99, line={"width": 1, "color": "grey"})
    figure.update_layout(
        template="simple_white",
        title="Hypervolume against adapters trained (mean, least and most of the seeds)",
        xaxis_title="adapters trained",
        yaxis_title="share of the 66-point grid's hypervolume",
    )
    return figure


if __name__ == "__main__":
    main()
