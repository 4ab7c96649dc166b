"""Time of every callback of the explorer, in this process, requests included: 2,000 points over 2, 3 and 9 objectives.

    python tests/benchmarks/bench_explorer.py [POINTS] [OBJECTIVES ...]

"first" is the first question after the folder has changed, when what hangs on its state is made anew; "again" the
median of those that follow. Milliseconds, the slowest callback first.
"""

import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from explored import Explored, many_run

from moalign.dashboards.explorer.live import Live
from moalign.runs import Run

TIMES = 5
TEXTS = 24  # points with stored texts


def told(run: Run) -> None:
    """Texts of some points, and a log of steps, as a sweep leaves them."""
    points = list(run.front())
    for place, point in enumerate(points[:TEXTS]):
        rows = [
            {"prompt": f"Prompt {i}?", "response": f"answer {place} to {i} " * 8, "scores": dict(point.values)}
            for i in range(8)
        ]
        run.write_samples(point.adapter, rows)
    for step in range(200):
        for point in points[:4]:
            run.log("step", adapters=[point.adapter], step=step, loss=1 / (1 + step), kl=0.01 * step)


def given(names: tuple[str, ...], page: Explored) -> dict[str, Any]:
    """What the parts of a page hold after some use, by id.property."""
    even = dict.fromkeys(names, 1 / len(names))
    picked = page.write("picks.data", {}, "pick-reset.n_clicks")
    click = {"points": [{"customdata": "a0001"}]}
    graphs = [f'{{"name":"{name}","part":"graph"}}' for name in ("front", "matrix", *(f"pair-{i}" for i in range(6)))]
    return {
        "weights.data": even,
        "wanted.data": {"weights": even},
        "judged.data": even,
        "plan.data": {"values": [0.3] * len(names), "weights": even, "policy": "interpolate"},
        "policy.value": "interpolate",
        "live.data": {"origin": "http://127.0.0.1:8000", "chat": True, "on": True, "max_tokens": 64},
        "said.data": {"kind": "two", "prompt": "Hi", "texts": ["one two", "three"], "heads": ["A", "B"]},
        "picks.data": picked["picks"]["data"],
        "brushes.data": {"0": [[0.0, 0.5]]},
        "logged.data": "before",
        "against.value": "other",
        "goto.value": "a0001",
        "line-of.value": "a0001",
        "shade.value": names[0],
        "bar.children": "now",
        **{f"{graph}.clickData": click for graph in graphs},
        '{"name":"simplex","part":"graph"}.clickData': {"points": [{"customdata": ["a0001", 0.2, 0.3, 0.5]}]},
        '{"name":"parcoords","part":"graph"}.restyleData': [{"dimensions[0].constraintrange": [[0.1, 0.6]]}, [0]],
        **{f"range-{i}.value": 0.5 for i in range(len(names))},
        **{f"number-{i}.value": 0.5 for i in range(len(names))},
        "least-0.value": 0.5,
    }


def spent(page: Explored, output: str, values: dict[str, Any], changed: str) -> float:
    """Milliseconds of one question. Raises AssertionError where the answer is that something went wrong."""
    begun = time.perf_counter()
    answer = page.write(output, values, changed)
    taken = 1000 * (time.perf_counter() - begun)
    assert "problem" not in answer.get("side", {}), (output, changed, answer["side"])
    return taken


def main(n: int, m: int) -> None:
    """Print a line for each callback and each kind of thing that calls it."""
    with tempfile.TemporaryDirectory() as folder:
        run = many_run(Path(folder) / "run", n, m)
        many_run(Path(folder) / "other", n, m)
        told(run)
        page = Explored(run.folder, Live(True, 64))
        begun = time.perf_counter()
        page.layout()
        opened = 1000 * (time.perf_counter() - begun)
        values, rows, done = given(run.objectives, page), [], set()
        for each in page.dependencies:
            if each["clientside_function"]:
                continue
            output = re.sub(r"@[0-9a-f]+", "", each["output"]).strip(".").split("...")[0]
            for item in each["inputs"]:
                changed = f"{item['id']}.{item['property']}"
                kind = re.sub(r"\d+", "N", f"{output} {changed}")
                if kind in done:
                    continue
                done.add(kind)
                (run.folder / "points").touch()
                first = spent(page, output, values, changed)
                again = sorted(spent(page, output, values, changed) for _ in range(TIMES))[TIMES // 2]
                rows.append((again, first, f"{_name(changed)} -> {_name(output)}"))
        print(f"{n} points, {m} objectives; the page itself {opened:.0f}\n{'again':>7} {'first':>7}")
        for again, first, title in sorted(rows, reverse=True):
            print(f"{again:7.0f} {first:7.0f}  {title}", flush=True)


def _name(item: str) -> str:
    head, _, attribute = item.rpartition(".")
    return f"{json.loads(head)['name']} {attribute}" if head.startswith("{") else item


if __name__ == "__main__":
    count, *objectives = [int(argument) for argument in sys.argv[1:]] or [2000]
    for each in objectives or [2, 3, 9]:
        main(count, each)
