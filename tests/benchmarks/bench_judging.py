"""How soon picks tell what somebody counts: scripted judges with hidden weights, over objectives, texts and seeds.

    python tests/benchmarks/bench_judging.py [--judges 25] [--objectives 2 3 5] [--candidates 30] [--quick]

For each hidden weight (Dirichlet(1), one per judge) 20 picks between pairs that `next_pair` chooses, among the points
of a concave front or among noisy texts, most of them dominated; all in units of about 1. A judge picks the better one
always, or with the chance sigma(10 w.difference). Printed: the share of judges whose weights are known to cosine 0.95
after 5, 10, 15 and 20 picks, the lowest cosine after 20, how many sessions called themselves settled, after how many
picks, how many of these were right, and milliseconds for a pick (posterior and next pair).
"""

import time
from collections.abc import Callable
from statistics import mean

import numpy as np
from common import arguments, begin, print_json, print_table
from jaxtyping import Float

from moalign.frontiers.judging import judge, next_pair

_PICKS, _SHOWN, _WANTED = 20, (5, 10, 15, 20), 0.95
Session = list[tuple[float, bool]]


def front(m: int, c: int, rng: np.random.Generator) -> Float[np.ndarray, "c m"]:
    """Points of a concave front: sqrt(w) on the unit sphere."""
    root = np.sqrt(rng.dirichlet(np.ones(m), size=c))
    return root / np.linalg.norm(root, axis=1, keepdims=True)


def texts(m: int, c: int, rng: np.random.Generator) -> Float[np.ndarray, "c m"]:
    """Scores that conflict a little, over their ranges."""
    scores = rng.normal(size=(c, m))
    scores -= scores.mean(axis=1, keepdims=True) / 2
    return scores / np.ptp(scores, axis=0)


def session(
    candidates: Float[np.ndarray, "c m"], hidden: Float[np.ndarray, " m"], decided: float, seed: int
) -> Session:
    """After each pick: the cosine between the weights that are known and the hidden ones, and whether it is settled."""
    rng, asked, rows, found = np.random.default_rng(seed), set(), np.zeros((0, len(hidden))), []
    judgement = judge(rows, seed)
    for _ in range(_PICKS):
        pair = next_pair(candidates, judgement, asked)
        if pair is None:
            break
        asked.add(pair)
        difference = candidates[pair[0]] - candidates[pair[1]]
        # A logistic variable more or less is a logistic choice; none at all is one who never errs.
        wins = difference @ hidden + (rng.logistic() / decided if np.isfinite(decided) else 0.0) > 0
        rows = np.vstack([rows, difference if wins else -difference])
        judgement = judge(rows, seed)
        cosine = judgement.mean @ hidden / np.linalg.norm(judgement.mean) / np.linalg.norm(hidden)
        found.append((float(cosine), judgement.settled))
    return found + [found[-1]] * (_PICKS - len(found))


def main() -> None:
    """Ask, and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--judges", type=int, default=25)
    parser.add_argument("--objectives", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--candidates", type=int, default=30)
    options = parser.parse_args()
    begin(options)
    judges = 2 if options.quick else options.judges
    rows = []
    for kind in (front, texts):
        for m in options.objectives:
            for decided in (np.inf, 10.0):
                rows.append(_row(kind, m, decided, judges, options.candidates))
    columns = ["candidates", "m", "t", *(f"by {n}" for n in _SHOWN), "lowest", "settled", "after", "right", "ms"]
    print_table(f"{judges} judges of each kind, {_PICKS} picks", columns, rows)
    print_json({"bench": "judging", "judges": judges, "rows": rows})


def _row(
    kind: Callable[[int, int, np.random.Generator], np.ndarray], m: int, decided: float, judges: int, c: int
) -> list[str]:
    begun, sessions = time.perf_counter(), []
    for seed in range(judges):
        rng = np.random.default_rng([m, seed])
        hidden = rng.dirichlet(np.ones(m))
        sessions.append(session(kind(m, c, rng), hidden, decided, seed))
    each = (time.perf_counter() - begun) / judges / _PICKS
    shares = [mean(one[n - 1][0] >= _WANTED for one in sessions) for n in _SHOWN]
    stops = [next((i for i, (_, settled) in enumerate(one) if settled), None) for one in sessions]
    settled = [
        (stop + 1, one[stop][0] >= _WANTED) for stop, one in zip(stops, sessions, strict=True) if stop is not None
    ]
    return [
        kind.__name__,
        str(m),
        "inf" if np.isinf(decided) else f"{decided:g}",
        *(f"{share:.3f}" for share in shares),
        f"{min(one[-1][0] for one in sessions):.3f}",
        f"{len(settled) / judges:.2f}",
        f"{mean(picks for picks, _ in settled):.1f}" if settled else "-",
        f"{mean(right for _, right in settled):.2f}" if settled else "-",
        f"{1000 * each:.0f}",
    ]


if __name__ == "__main__":
    main()
