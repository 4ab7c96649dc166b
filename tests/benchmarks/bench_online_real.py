"""Does a sweep on a real base improve what each corner asks for? Stories, three rules that conflict, one reward model.

    python tests/benchmarks/bench_online_real.py [--quick] [--threads 2] [--out runs/stories]

The base is a model of children's stories of 3 million weights; a prompt is the first sentence of a real story, and
the sweep never sees the stories whose prompts it is measured on. The objectives: "brief", few words; "dialogue",
different words of people who speak; "narrated", no quotation mark at all; and "polite", a classifier that is trained
here in a minute on real pairs of polite and less polite answers to other questions (politeness.py), its held-out
accuracy printed. That they conflict under the base is printed too, as correlations between answers to one prompt.

The base writes on for hundreds of tokens, so nearly every answer is cut at max_new_tokens, and is judged as the piece
of a story that it is: truncated answers are not masked, or there would be nothing to learn from. So "brief" means few
words in as many tokens, which short speech has, and not an early end, which nobody draws often enough to learn.

One sweep: four corners and the middle, GRPO with objectives normalised one by one. Printed for each corner, on held-out
prompts: its own objective against the base's, each with its 95 % interval (bootstrap over prompts), and the difference
with that of its own, paired by prompt and random numbers; KL, tokens, and the share that was cut in the last rollouts.
"""

import argparse
import gzip
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED, arguments, begin, print_json, print_table
from jaxtyping import Float
from politeness import PAIRS, SEPARATOR, train_politeness

from moalign import run_sweep
from moalign.config import SweepConfig, parse_config
from moalign.frontiers import ParetoPoint, bootstrap_interval
from moalign.progress import Reporter
from moalign.report import save_report
from moalign.runs import BASE, Run

MODEL = SHARED / "models" / "stories3M"
STORIES = SHARED / "data" / "text_tinystories_1k.jsonl.gz"
SPEECH = ("said", "asked", "replied", "told", "answered", "shouted", "yes", "no", "hello", "please")
OBJECTIVES: dict[str, dict[str, Any]] = {
    "brief": {"type": "length", "per": 10.0},
    "dialogue": {"type": "lexical", "phrases": dict.fromkeys(SPEECH, 1.0)},
    "narrated": {"type": "format", "pattern": '(?s)[^"“”]*'},
    "polite": {"type": "reward_model", "separator": SEPARATOR},
}


def write_prompts(folder: Path) -> tuple[int, int]:
    """First sentences of real stories, each once, four fifths to train on; how many of each."""
    with gzip.open(STORIES, "rt", encoding="utf-8") as lines:
        found = [re.match(r"(?s).+?[.!?][\"”]?(?=\s|$)", json.loads(line)["text"].strip()) for line in lines]
    sentences = sorted({match[0] for match in found if match and 4 <= len(match[0].split()) <= 24})
    shuffled = [sentences[i] for i in np.random.default_rng(0).permutation(len(sentences))]
    cut = len(shuffled) * 4 // 5
    for name, part in (("train", shuffled[:cut]), ("held-out", shuffled[cut:])):
        text = "".join(json.dumps({"prompt": sentence}) + "\n" for sentence in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return cut, len(shuffled) - cut


def sweep_config(folder: Path, options: argparse.Namespace) -> SweepConfig:
    """The sweep: four corners and the middle."""
    polite = OBJECTIVES["polite"] | {"model": str(folder / "politeness")}
    middle = dict.fromkeys(OBJECTIVES, 1 / len(OBJECTIVES))
    return parse_config(
        {
            "base": str(MODEL),
            "objectives": OBJECTIVES | {"polite": polite},
            "preferences": {"list": [*({name: 1.0} for name in OBJECTIVES), middle]},
            "method": "online",
            "settings": {
                "estimator": "grpo",
                "aggregation": "normalize_then_sum",
                "steps": options.steps,
                "prompts": options.prompts,
                "completions": 8,
                "learning_rate": options.learning_rate,
                "beta": options.beta,
            },
            "data": {
                "train_prompts": str(folder / "train.jsonl"),
                "prompts": str(folder / "held-out.jsonl"),
                "holdout": 0.0,
            },
            "evaluation": {"prompts": options.held_out, "samples": 4, "max_new_tokens": options.tokens},
        }
    )


def scores(run: Run, key: str) -> Float[np.ndarray, "p g m"]:
    """Of a policy's answers to held-out prompts, in the same order for all."""
    found = np.array([[row["scores"][name] for name in run.objectives] for row in run.samples(key)])
    return found.reshape(-1, run.config.evaluation.samples, found.shape[1])


def conflicts(run: Run) -> Float[np.ndarray, "m m"]:
    """Correlations of the objectives between the base's answers to the same prompt."""
    within = scores(run, BASE)
    within = (within - within.mean(1, keepdims=True)).reshape(-1, within.shape[2])
    return np.corrcoef(within.T)


def cut_short(run: Run, key: str, steps: slice) -> float:
    """The share of rollouts of some steps that did not end by themselves; nobody keeps it for held-out prompts."""
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [row for row in map(json.loads, lines) if row["kind"] == "rollouts" and row["adapter"] == key]
    return float(np.mean([row["truncated"] for row in logged[steps]]))


def compare(run: Run, point: ParetoPoint, base: ParetoPoint) -> dict[str, Any]:
    """A corner against the base, on the corner's own objective."""
    (name,) = point.preference.weights
    column = run.objectives.index(name)
    difference = (scores(run, point.adapter) - scores(run, BASE))[:, :, column]
    prompts = np.repeat(np.arange(len(difference)), difference.shape[1])
    interval = bootstrap_interval(difference.reshape(-1, 1), prompts, np.random.default_rng(0))[0]
    low, high = (float(end) for end in interval)
    return {
        "corner": name,
        "base": base.values[name],
        "base 95 %": _interval(base.intervals[name]),
        "trained": point.values[name],
        "trained 95 %": _interval(point.intervals[name]),
        "difference": float(difference.mean()),
        "difference 95 %": _interval((low, high)),
        "beyond its interval": "yes" if low > 0 else "no",
        "intervals apart": "yes" if point.intervals[name][0] > base.intervals[name][1] else "no",
    }


def _interval(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.3g}, {ends[1]:.3g}]"


def study(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, with its output in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    training, held_out = write_prompts(folder)
    start = time.perf_counter()
    accuracy, half = train_politeness(MODEL, folder / "politeness", options.reward_steps)
    seconds = {"reward model": time.perf_counter() - start}
    print(f"politeness: {accuracy:.3f} ± {half:.3f} of held-out pairs, {seconds['reward model']:.0f} s")
    print(f"prompts: {training} to train on, {min(held_out, options.held_out)} of {held_out} held out measured")

    start = time.perf_counter()
    run = run_sweep(sweep_config(folder, options), folder / "run", Reporter(quiet=True))
    seconds["sweep"] = time.perf_counter() - start
    report = save_report(run)
    base, points = run.base_point(), run.front().points
    assert base is not None
    names = list(run.objectives)

    table = conflicts(run)
    rows = [[name, *table[i, :].tolist()] for i, name in enumerate(names)]
    print_table("correlations under the base, within prompts", ["", *names], rows)
    key = points[0].adapter
    lines = [["base", *(base.values[name] for name in names), 0.0, base.length, cut_short(run, key, slice(0, 1))]]
    for point in points:
        cut = cut_short(run, point.adapter, slice(-5, None))
        values = [point.values[name] for name in names]
        lines.append([str(point.preference), *values, point.kl_to_reference, point.length, cut])
    print_table("on held-out prompts", ["", *names, "KL", "tokens", "cut (training)"], lines)
    corners = [compare(run, point, base) for point in points if len(point.preference.weights) == 1]
    print_table("each corner's own objective", list(corners[0]), [list(row.values()) for row in corners])
    answer = all(row["beyond its interval"] == "yes" for row in corners)
    print(f"\nevery corner improves its own objective by more than its interval: {'yes' if answer else 'no'}")
    print(f"sweep {seconds['sweep']:.0f} s; {report}")
    return {
        "accuracy": accuracy,
        "correlations": table.tolist(),
        "points": lines,
        "corners": corners,
        "improves": answer,
        "seconds": seconds,
    }


def main() -> None:
    """Run it, in a folder that stays."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--out", type=Path, help="folder for the run and its report (default: a temporary one)")
    parser.add_argument("--steps", type=int, default=30, help="updates (default 30)")
    parser.add_argument("--prompts", type=int, default=8, help="of a step, with 8 answers each (default 8)")
    parser.add_argument("--tokens", type=int, default=56, help="of an answer, at most (default 56)")
    parser.add_argument("--held-out", type=int, default=96, help="prompts to measure on, 4 answers each (default 96)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="(default 3e-4)")
    parser.add_argument("--beta", type=float, default=0.2, help="strength of the KL penalty (default 0.2)")
    parser.add_argument("--reward-steps", type=int, default=90, help="of the reward model (default 90)")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.held_out, options.reward_steps = 5, 24, 30
    begin(options)
    missing = [str(path) for path in (MODEL, STORIES, PAIRS) if not path.exists()]
    if missing:
        print(f"nothing to run on: {', '.join(missing)} not there")
        return
    found = study(options.out or Path(tempfile.mkdtemp(prefix="stories-")), options)
    print_json({"benchmark": "online real", "threads": options.threads, "steps": options.steps, **found})


if __name__ == "__main__":
    main()
