"""Time of each callback of the explorer, in this process, requests included: 2,000 points over 9 objectives.

    python tests/benchmarks/bench_explorer.py [POINTS] [OBJECTIVES]

The first line is the first look at the folder, when all its records are read; the rest is what a page asks afterwards.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from explored import Explored, many_run

TIMES = 5


def best(page: Explored, output: str, values: dict[str, Any], changed: str) -> float:
    """The median time of a callback in milliseconds."""
    spent = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        answer = page.write(output, values, changed)
        spent.append(1000 * (time.perf_counter() - begun))
        assert "problem" not in answer["side"], answer["side"]
    return sorted(spent)[TIMES // 2]


def main(n: int = 2000, m: int = 9) -> None:
    """Print a line for each callback."""
    with tempfile.TemporaryDirectory() as folder:
        run = many_run(Path(folder) / "run", n, m)
        begun = time.perf_counter()
        page = Explored(run.folder)
        page.layout()
        print(f"{n} points, {m} objectives; milliseconds\n{1000 * (time.perf_counter() - begun):8.0f}  first look")
        weights = dict.fromkeys(run.objectives, 1 / m)
        plan = {"values": [0.3] * m, "weights": weights, "policy": "interpolate"}
        moved = {"weights.data": weights, "range-0.value": 0.5, "number-0.value": 0.5, "policy.value": "interpolate"}
        live = {"live.data": {"origin": "http://127.0.0.1:8000", "chat": True, "on": False}}
        drawn = '{"name":"front","part":"data"}.data' if m <= 3 else '{"name":"pair-0","part":"data"}.data'
        for title, output, values, changed in (
            ("page", None, {}, ""),
            ("slider moved", "weights.data", moved, "range-0.value"),
            ("plan of the weights", "plan.data", {**moved, **live}, "weights.data"),
            ("policies", "policy.options", {}, "state.data"),
            ("front drawn anew", drawn, {"plan.data": plan}, "state.data"),
            ("parallel coordinates", '{"name":"parcoords","part":"data"}.data', {}, "state.data"),
            ("scatter matrix", '{"name":"matrix","part":"data"}.data', {}, "state.data"),
            ("brushes", "brushes.data", {"brushes.data": {"0": [[0.0, 0.5]]}}, "state.data"),
            ("look at the folder", "state.data", {}, "beat.n_intervals"),
            ("look at the log", "logged.data", {}, "look.n_intervals"),
            ("training charts", '{"name":"training-0","part":"data"}.data', {"logged.data": "x"}, "logged.data"),
        ):
            if m <= 3 and title in ("parallel coordinates", "scatter matrix", "brushes"):
                continue
            if output is None:
                begun = time.perf_counter()
                page.layout()
                print(f"{1000 * (time.perf_counter() - begun):8.0f}  {title}")
                continue
            print(f"{best(page, output, values, changed):8.0f}  {title}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
