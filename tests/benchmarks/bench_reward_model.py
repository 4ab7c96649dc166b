"""What does `moalign reward-model` learn from real ratings, head by head, beside what needs no model of language?

    python tests/benchmarks/bench_reward_model.py [--quick] [--threads 2] [--sets ...] [--train heads all] [--epochs 2]

Answers to long questions (relevance, factuality, completeness), to instructions (five attributes), and summaries
(four), each rated by people or a judge. The base is a model of children's stories of 3 million weights that reads 512
tokens and is carried on to 4096 here; whole prompts are held out, and nothing is chosen on them. Beside it, fitted to
the same rows and judged on the same: ridge regression on the lengths of prompt and response, and on tf-idf of both
(their penalty by cross-validation over prompts, as the heads' own).

Printed for each head, on held-out rows: Spearman's rank correlation with its 95 % interval (bootstrap over prompts),
R2, and the share of pairs ordered rightly (of one prompt, where it says so).
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED, arguments, begin, print_json, print_table
from jaxtyping import Float
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from moalign.batches import Completions
from moalign.objectives import RewardModel
from moalign.progress import Reporter
from moalign.rewards.data import Labelled, Sides, read_labelled, split_labelled
from moalign.rewards.metrics import pair_accuracy, r_squared, rank_correlation
from moalign.rewards.settings import RewardModelConfig
from moalign.rewards.training import run_reward_model, summarise_reward_model

SETS = ("ratings_qa_feedback", "ratings_just_eval_multi", "ratings_summeval")
SEPARATOR = "\n\n"
_ALPHAS = np.logspace(-2, 4, 13)
_RESAMPLES = 1000


def settings(name: str, train: str, options: argparse.Namespace) -> RewardModelConfig:
    """One run of one data set."""
    finetune = {"epochs": options.epochs, "batch_size": 8, "learning_rate": options.learning_rate}
    values: dict[str, Any] = {
        "base": str(SHARED / "models" / options.base),
        "data": str(SHARED / "data" / f"{name}.jsonl.gz"),
        "train": train,
        "separator": SEPARATOR,
        "max_length": 4096,
        "batch_size": 8,
        "limit": 160 if options.quick else options.limit,
    }
    return RewardModelConfig.model_validate(values | ({"finetune": finetune} if train == "all" else {}))


def by_length(data: Labelled, sides: Sides) -> Float[np.ndarray, "n m"]:
    """Ridge regression on the logarithms of the lengths."""
    lengths = np.log([[len(prompt), len(response)] for prompt, response in _texts(data)])
    return _ridge(StandardScaler().fit(lengths[sides.training]).transform(lengths), data, sides)


def by_words(data: Labelled, sides: Sides) -> Float[np.ndarray, "n m"]:
    """Ridge regression on tf-idf of the prompt beside that of the response."""
    parts = []
    for texts in zip(*_texts(data), strict=True):
        words = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2))
        words.fit([texts[i] for i in sides.training])
        parts.append(words.transform(texts))
    return _ridge(hstack(parts).tocsr(), data, sides)


def by_model(folder: Path, data: Labelled) -> Float[np.ndarray, "n m"]:
    """The saved model as the objective, with the recorded constants."""
    heads = summarise_reward_model(folder)["heads"]
    objectives = [RewardModel(name, str(folder), name, separator=SEPARATOR, batch_size=8) for name in data.heads]
    texts = Completions(data.prompts, data.responses)
    return np.stack([one.score(texts) + heads[one.name]["offset"] for one in objectives], axis=1)


def _texts(data: Labelled) -> list[tuple[str, str]]:
    return [(str(prompt), response) for prompt, response in zip(data.prompts, data.responses, strict=True)]


def _ridge(features: Any, data: Labelled, sides: Sides) -> Float[np.ndarray, "n m"]:
    found = np.empty((len(sides.heldout), len(data.heads)))
    keys = data.prompt_keys
    for j in range(len(data.heads)):
        own = [i for i in sides.training if not np.isnan(data.labels[i, j])]
        folds = list(GroupKFold(5).split(own, groups=keys[own]))
        model = RidgeCV(alphas=_ALPHAS, cv=folds).fit(features[own], data.labels[own, j])
        found[:, j] = model.predict(features[sides.heldout])
    return found


def judged(rewards: Float[np.ndarray, "n m"], held: Labelled) -> dict[str, dict[str, Any]]:
    """Each head's agreement with the labels."""
    keys, found = held.prompt_keys, {}
    for j, name in enumerate(held.heads):
        known = ~np.isnan(held.labels[:, j])
        own, labels, groups = rewards[known, j], held.labels[known, j], keys[known]
        low, high = interval(lambda rows, own=own, labels=labels: rank_correlation(own[rows], labels[rows]), groups)
        pairs = pair_accuracy(own, labels, groups)
        found[name] = {
            "rank_correlation": rank_correlation(own, labels),
            "interval": [low, high],
            "r2": r_squared(own, labels),
            "pairwise_accuracy": pairs.share,
            "pairs": pairs.pairs,
            "same_prompt": pairs.same_prompt,
        }
    return found


def interval(statistic: Callable[[np.ndarray], float], groups: np.ndarray) -> tuple[float, float]:
    """The middle 95 % over resamples of whole prompts."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn = [
        statistic(np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def compare(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All ways on one data set."""
    data = read_labelled(settings(name, "heads", options), folder, print)
    sides = split_labelled(data, 0.2, 0.0)
    held = data.select(sides.heldout)
    found = {"length": judged(by_length(data, sides), held), "tf-idf": judged(by_words(data, sides), held)}
    for train in options.train:
        start = time.perf_counter()
        reporter = Reporter()
        model = run_reward_model(settings(name, train, options), folder / f"{name}-{train}", reporter)
        seconds = time.perf_counter() - start
        found[train] = judged(by_model(model, held), held)
        print(f"{name}, train: {train}: {seconds:.0f} s, {summarise_reward_model(model)['rows']}", flush=True)
    rows = [_row(head, way, each[head]) for head in held.heads for way, each in found.items()]
    columns = ("head", "way", "Spearman", "95 %", "R2", "pairs right", "of")
    print_table(f"{name}: {len(held)} held-out rows of {len(set(held.prompt_keys.tolist()))} prompts", columns, rows)
    return found


def _row(head: str, way: str, found: dict[str, Any]) -> tuple[Any, ...]:
    low, high = found["interval"]
    pairs = f"{found['pairs']} {'of one prompt' if found['same_prompt'] else 'of all rows'}"
    shares = (found["r2"], found["pairwise_accuracy"])
    return head, way, found["rank_correlation"], f"[{low:.2f}, {high:.2f}]", *shares, pairs


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--train", nargs="+", choices=("heads", "all"), default=("heads", "all"))
    parser.add_argument("--base", default="stories3M", help="a folder beside the data")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--limit", type=int, default=None, help="rows read of each set")
    parser.add_argument("--out", type=Path, help="where the runs are kept; nowhere if not given")
    options = parser.parse_args()
    begin(options)
    with tempfile.TemporaryDirectory() as scratch:
        print_json({name: compare(name, options, options.out or Path(scratch)) for name in options.sets})


if __name__ == "__main__":
    main()
