"""Between the trained preferences: which mixture of adapters serves a wish, and what mixtures attain."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from moalign.bank import AdapterBank
from moalign.errors import RunError
from moalign.evaluation import Evaluator
from moalign.files import digest, read_json, write_json
from moalign.frontiers import ParetoPoint, blend
from moalign.preference import Preference
from moalign.runs import Run


def row_for(run: Run, preference: Preference) -> dict[str, float]:
    """The adapters to mix for a preference, with their weights, which sum to 1.

    A preference that was trained is its one adapter; any other is interpolated between the trained ones around it.
    Raises RunError if nothing is trained yet.
    """
    wanted = preference.vector(run.objectives)
    points = list(run.front())
    if not points:
        raise RunError(f"{run.folder} has no trained adapters yet; run its sweep first")
    trained = np.array([point.preference.vector(run.objectives) for point in points])
    weights = blend(trained, wanted)
    return {point.adapter: float(w) for point, w in zip(points, weights, strict=True) if w > 0}


def neighbours(run: Run) -> list[tuple[ParetoPoint, ParetoPoint]]:
    """Pairs of points with nothing between them: neighbours by weight for two objectives.

    For more, each point and the nearest other one by weight.
    """
    points = list(run.front())
    weights = np.array([point.preference.vector(run.objectives) for point in points])
    if len(points) < 2:
        return []
    if len(run.objectives) == 2:
        order = np.argsort(weights[:, 0], kind="stable")
        return [(points[a], points[b]) for a, b in pairwise(order)]
    distance = np.linalg.norm(weights[:, None] - weights[None], axis=-1) + np.diag(np.full(len(points), np.inf))
    pairs = {tuple(sorted((a, int(b)))) for a, b in enumerate(distance.argmin(1))}
    return [(points[a], points[b]) for a, b in sorted(pairs)]


def measure_blends(
    run: Run, evaluator: Evaluator, between: int, on_blend: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """Measure `between` evenly spaced mixtures of each pair of neighbours, by generation and scoring; none twice."""
    steps = np.arange(1, between + 1) / (between + 1)
    wanted = [_mixture(a, b, float(share)) for a, b in neighbours(run) for share in steps]
    for number, (row, preference) in enumerate(wanted):
        path = run.folder / "blends" / f"{_key(row)}.json"
        if not path.is_file():
            adapters = {key: run.store.load(key) for key in row}
            with AdapterBank(evaluator.base.model, adapters) as bank:
                found = evaluator.measure(bank, {"blend": bank.mixture(row)})["blend"]
            point = evaluator.point(_key(row), "blend", preference, found, run.config.method_settings.oracle_beta)
            write_json(path, {"row": row, **point.as_dict()})
        on_blend(number + 1, len(wanted))
    return read_blends(run)


def read_blends(run: Run) -> list[dict[str, Any]]:
    """The mixtures that have been measured, along the front."""
    found = [read_json(path) for path in (run.folder / "blends").glob("[!.]*.json")]
    return sorted(found, key=lambda blend: [blend["preference"].get(name, 0.0) for name in run.objectives])


def _mixture(a: ParetoPoint, b: ParetoPoint, share: float) -> tuple[dict[str, float], Preference]:
    names = dict.fromkeys([*a.preference.weights, *b.preference.weights])
    first, second = a.preference.weights, b.preference.weights
    weights = {name: (1 - share) * first.get(name, 0.0) + share * second.get(name, 0.0) for name in names}
    return {a.adapter: 1 - share, b.adapter: share}, Preference.of(weights)


def _key(row: dict[str, float]) -> str:
    return digest(*(f"{name}:{weight:.6f}" for name, weight in sorted(row.items())))[:16]
