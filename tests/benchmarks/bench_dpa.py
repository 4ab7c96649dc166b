"""Does one adapter follow a direction in its prompt? DPA beside MODPO and the exact optimum, on the demo's world.

    python tests/benchmarks/bench_dpa.py [--rounds 4] [--seed 0] [--threads 2] [--out DIR] [--figure F.html] [--quick]

Two objectives; each round of DPA trains one adapter, which is then turned through ten directions from helpful alone to
brief alone. Printed are Kendall's tau between the direction's components and the values attained, the hypervolume of
the ten points after each round against the reference point of the MODPO run, which trains 11 adapters with the demo's
own settings, and the hypervolume over that of the best policies of the same KL. DPA has no KL penalty: it goes further
from the base than MODPO does, and pays with KL.

The demo's base cannot read digits (their embeddings were never trained), so that a direction is told by saying a word
once for each tenth of its component (`style: tally`).
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from common import arguments, begin, measured, print_json, print_table

from moalign.bank import AdapterBank
from moalign.demo.show import BASE_FOLDER, demo_config
from moalign.direction import Direction, sample_directions
from moalign.enumeration import read_world
from moalign.frontiers import ParetoPoint, hypervolume, kendall_tau, matched_front
from moalign.measuring import directed_ids, open_evaluator
from moalign.preference import Preference
from moalign.preparation import prepare
from moalign.progress import Reporter
from moalign.runs import Run
from moalign.summary import oracle_values
from moalign.sweep import run_sweep

_NAMES = ("helpful", "brief")
_ANGLES = 10
_DPA = {
    "style": "tally",
    "scale": 10,
    "place": "user",
    "separator": " ",
    "template": "{terms}",
    "names": {"helpful": "why", "brief": "end"},
    "completions": 4,
    "directions_per_prompt": 4,
    "steps": 300,
    "learning_rate": 2e-3,
    "warmup": 0.1,
}


def main() -> None:
    """Train, turn, and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--figure", type=Path, help="write the fronts as a page")
    options = parser.parse_args()
    begin(options)
    if not (BASE_FOLDER / "config.json").is_file():
        print(f"no demo base in {BASE_FOLDER}: make it with python -m moalign.demo.build")
        return
    with tempfile.TemporaryDirectory() as temporary:
        out, quick = options.out or Path(temporary), options.quick
        rounds = 1 if quick else options.rounds
        modpo = run_sweep(demo_config(out / "modpo", _NAMES, seed=options.seed, **_measured(quick)), out / "modpo")
        with measured() as cost:
            dpa = run_sweep(_dpa_config(out / "dpa", rounds, options.seed, quick), out / "dpa")
        reference = modpo.front().reference_point
        found = [_turned(dpa, number) for number in range(rounds)]
        rows = [_row(f"round {i + 1}", points, reference, dpa) for i, points in enumerate(found)]
        rows.append(_row("MODPO, 11 adapters", list(modpo.front()), reference, modpo))
        columns = ["", "tau helpful", "tau brief", "hypervolume", "of KL-matched", "mean KL", "helpful", "brief"]
        print_table("DPA turned through ten directions", columns, [list(row.values()) for row in rows])
        print(f"  training and measuring DPA took {cost.seconds:.0f} s")
        if options.figure:
            options.figure.write_text(
                _figure(found, modpo).to_html(include_plotlyjs=True, config={"displayModeBar": False}), encoding="utf-8"
            )
    print_json({"benchmark": "dpa", "threads": options.threads, "seed": options.seed, "rows": rows})


def _dpa_config(folder: Path, rounds: int, seed: int, quick: bool) -> Any:
    inputs = (folder / "inputs").resolve()
    data = {"train_prompts": str(inputs / "train.jsonl"), "prompts": str(inputs / "eval.jsonl"), "holdout": 0.0}
    settings = {**_DPA, "rounds": rounds, **({"steps": 4, "prompts": 8} if quick else {})}
    adapter = {"rank": 16, "alpha": 32}
    angles = {"preferences": {"lattice": _ANGLES - 1}}
    return demo_config(
        folder,
        _NAMES,
        method="dpa",
        settings=settings,
        data=data,
        adapter=adapter,
        seed=seed,
        **angles,
        **_measured(quick),
    )


def _measured(quick: bool) -> dict[str, Any]:
    return {"evaluation": {"prompts": 4 if quick else 24, "samples": 4 if quick else 12, "max_new_tokens": 72}}


def _turned(run: Run, number: int) -> list[ParetoPoint]:
    """The points of one round's adapter in ten directions, evenly spaced."""
    prepared = prepare(run, lambda _: None)
    evaluator = open_evaluator(prepared, Reporter(quiet=True))
    key = next(key for key in run.store.keys() if key.startswith(f"round{number + 1}-"))
    rows = sample_directions(_ANGLES, np.full(2, 0.5**0.5), 45.0, "grid", np.random.default_rng(0))
    directions = {f"{i}": Direction.of(dict(zip(_NAMES, row.tolist(), strict=True))) for i, row in enumerate(rows)}
    with AdapterBank(prepared.base.model, {key: run.store.load(key)}) as bank:
        asked = {name: directed_ids(prepared, direction) for name, direction in directions.items()}
        found = evaluator.measure(bank, {name: bank.one_hot([key])[0] for name in directions}, asked)
    points = []
    for name, direction in directions.items():
        clipped = {each: max(value, 0.0) for each, value in direction.components.items()}
        points.append(evaluator.point(name, "dpa", Preference.of(clipped), found[name], None))
    return points


def _row(name: str, points: list[ParetoPoint], reference: np.ndarray, run: Run) -> dict[str, Any]:
    values = np.array([[point.values[each] for each in _NAMES] for point in points])
    weights = np.array([point.preference.vector(_NAMES) for point in points])
    tau = kendall_tau(weights, values)
    world, volume = read_world(run), hypervolume(values, reference)
    kls = np.array([point.kl_to_reference or 0.0 for point in points])
    best = hypervolume(matched_front(world, weights, kls), reference) if world is not None else float("nan")
    return {
        "name": name,
        "tau helpful": float(tau[0]),
        "tau brief": float(tau[1]),
        "hypervolume": volume,
        "of KL-matched": volume / best,
        "mean KL": float(kls.mean()),
        **{each: f"{values[:, i].max():.2f} to {values[:, i].min():.2f}" for i, each in enumerate(_NAMES)},
    }


def _figure(found: list[list[ParetoPoint]], modpo: Run) -> go.Figure:
    figure = go.Figure()

    def line(points: list[tuple[float, float]], name: str, **style: Any) -> None:
        ordered = sorted(points)
        figure.add_scatter(x=[x for x, _ in ordered], y=[y for _, y in ordered], name=name, **style)

    def places(points: list[ParetoPoint]) -> list[tuple[float, float]]:
        return [(point.values["helpful"], point.values["brief"]) for point in points]

    for number, points in enumerate(found):
        line(places(points), f"DPA, round {number + 1}", mode="lines+markers", opacity=0.4 + 0.6 * number / len(found))
    line(places(list(modpo.front())), "MODPO, 11 adapters", mode="lines+markers", marker={"symbol": "square"})
    _, at_beta = oracle_values(modpo, modpo.front())
    if at_beta is not None:
        line(
            [(x, y) for x, y in at_beta.tolist()],
            "exact optimum at MODPO's beta",
            line={"dash": "dot", "color": "grey"},
        )
    base = modpo.base_point()
    if base is not None:
        line(places([base]), "base", mode="markers", marker={"symbol": "diamond", "color": "black"})
    figure.update_layout(template="simple_white", xaxis_title="helpful", yaxis_title="brief")
    return figure


if __name__ == "__main__":
    main()
