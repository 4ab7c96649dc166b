"""Steps and tokens until a front is nearly as good as it gets: dynamic reward weighting against fixed weights.

    python tests/benchmarks/bench_weighting.py [--quick] [--threads 1] [--seeds 5] [--only fixed hypervolume gradient]

The demo's world, five preferences of helpful and brief in one bank. After every step the hypervolume is that of the
preferences' mean rewards on their own rollouts, a running mean of five steps, against the base's stored reference
point. The goal is 90 % of what fixed weights have gained over the base in the end, per seed; tokens are all that were
generated until then, validation included. Where the front is concave, see bench_concave.py.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, begin, print_json, print_table
from scipy.stats import t as student

from moalign.demo.show import BASE_FOLDER, demo_config
from moalign.frontiers import hypervolume
from moalign.runs import Run
from moalign.sweep import run_sweep

_VALIDATION = {"validation_prompts": 8, "validation_completions": 4}
_EVERY, _WINDOW = 5, 5
WEIGHTINGS: dict[str, Any] = {
    "fixed": "fixed",
    "hypervolume": {"type": "hypervolume", "every": _EVERY},
    "hypervolume-margin": {"type": "hypervolume", "every": _EVERY, "margin": 2.0},
    "gradient": {"type": "gradient", "minimum": 0.02},
}


def main() -> None:
    """Train each seed by each weighting, and print means with 95 % intervals over the seeds."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=5, help="(default 5; quick: 2)")
    parser.add_argument("--steps", type=int, default=60, help="batches of rollouts (default 60; quick: 8)")
    parser.add_argument("--only", nargs="+", choices=list(WEIGHTINGS), default=list(WEIGHTINGS))
    options = parser.parse_args()
    begin(options)
    if not (BASE_FOLDER / "config.json").is_file():
        print(f"no demo base in {BASE_FOLDER}: make it with python -m moalign.demo.build")
        return
    seeds, steps = (2, 8) if options.quick else (options.seeds, options.steps)
    names = list(dict.fromkeys(["fixed", *options.only]))
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for name in names:
                curves[name].append(_curve(Path(folder) / f"{name}-{seed}", name, seed, steps))
    rows = [_row(name, curves[name], curves["fixed"]) for name in names]
    columns = ["", "final hypervolume", "over fixed", "steps to 90 %", "tokens to 90 %", "got there"]
    print_table(f"{seeds} seeds, {steps} steps", columns, [list(row.values()) for row in rows])
    print_json({"benchmark": "weighting", "threads": options.threads, "seeds": seeds, "rows": rows})


def _curve(folder: Path, name: str, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Hypervolume after each step, and the tokens generated until then."""
    inputs = (folder / "inputs").resolve()
    settings = {"steps": steps, "prompts": 4, "completions": 8, "learning_rate": 3e-3, "beta": 0.6, **_VALIDATION}
    config = demo_config(
        folder,
        ("helpful", "brief"),
        method="online",
        seed=seed,
        preferences={"lattice": 4},
        settings={**settings, "weighting": WEIGHTINGS[name]},
        data={"train_prompts": str(inputs / "train.jsonl"), "prompts": str(inputs / "eval.jsonl"), "holdout": 0.0},
        evaluation={"prompts": 8, "samples": 4, "max_new_tokens": 72},
    )
    run = run_sweep(config, folder)
    return _read(run, steps, validates=name.startswith("hypervolume"))


def _read(run: Run, steps: int, *, validates: bool) -> tuple[np.ndarray, np.ndarray]:
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    records = [line for line in lines if line["kind"] == "rollouts" and line["step"] <= steps]
    adapters = list(dict.fromkeys(record["adapter"] for record in records))
    values = np.full((steps, len(adapters), len(run.objectives)), np.nan)
    tokens = np.zeros(steps)
    for record in records:
        step = record["step"] - 1
        values[step, adapters.index(record["adapter"])] = [record["rewards"][name] for name in run.objectives]
        drawn = 4 * 8 + (8 * 4 if validates and step % _EVERY == 0 else 0)
        tokens[step] += drawn * record["length"]
    smooth = [values[max(0, step - _WINDOW + 1) : step + 1].mean(0) for step in range(steps)]
    reference = run.front().reference_point
    return np.array([hypervolume(each, reference) for each in smooth]), tokens.cumsum()


def _row(name: str, curves: list[tuple[np.ndarray, np.ndarray]], fixed: list[tuple[np.ndarray, np.ndarray]]):
    finals, gaps, steps, tokens = [], [], [], []
    for (volume, spent), (other, _) in zip(curves, fixed, strict=True):
        finals.append(volume[-1])
        gaps.append(volume[-1] - other[-1])
        goal = other[0] + 0.9 * (other[-1] - other[0])
        there = np.flatnonzero(volume >= goal)
        if len(there):
            steps.append(there[0] + 1)
            tokens.append(spent[there[0]])
    return {
        "name": name,
        "final": _interval(finals, 3),
        "over_fixed": _interval(gaps, 3),
        "steps": _interval(steps, 1),
        "tokens": _interval(tokens, 0),
        "there": f"{len(steps)}/{len(curves)}",
    }


def _interval(values: list[Any], digits: int) -> str:
    """The mean and the half-width of its 95 % interval over the seeds (Student's t)."""
    if len(values) < 2:
        return "".join(f"{value:.{digits}f}" for value in values)
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.{digits}f} +- {half:.{digits}f}"


if __name__ == "__main__":
    main()
