"""Between the trained preferences: mixtures of points, and what they attain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from moalign.bank import AdapterBank
from moalign.evaluation import Evaluator
from moalign.files import read_json, write_json
from moalign.frontiers import ParetoPoint
from moalign.planning import Policy, row_key
from moalign.preference import Preference
from moalign.runs import Run


def mixed(parts: Sequence[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    """The mixture of mixtures, each with its share; adapters that count nothing are left out.

    >>> mixed([({"a": 1.0}, 0.5), ({"a": 0.5, "b": 0.5}, 0.5)])
    {'a': 0.75, 'b': 0.25}
    """
    total: dict[str, float] = {}
    for row, share in parts:
        for name, weight in row.items():
            total[name] = total.get(name, 0.0) + share * weight
    # Rounded as preferences are, so that shares of shares read as what was meant.
    return {name: round(weight, 12) for name, weight in total.items() if round(weight, 12)}


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
    wanted = [blend_between(a, b, float(share)) for a, b in neighbours(run) for share in steps]
    for number, policy in enumerate(wanted):
        measure_blend(run, evaluator, policy)
        on_blend(number + 1, len(wanted))
    return read_blends(run)


def blend_between(a: ParetoPoint, b: ParetoPoint, share: float) -> Policy:
    """The mixture of two points, with so large a share of the second."""
    names = dict.fromkeys([*a.preference.weights, *b.preference.weights])
    first, second = a.preference.weights, b.preference.weights
    weights = {name: (1 - share) * first.get(name, 0.0) + share * second.get(name, 0.0) for name in names}
    preference, row = Preference.of(weights), mixed([(a.mixture, 1 - share), (b.mixture, share)])
    return Policy(row_key(preference, row), preference, row)


def measure_blend(run: Run, evaluator: Evaluator, policy: Policy) -> ParetoPoint:
    """What a mixture attains, by generation and scoring; measured before, it is read. Its texts are kept too."""
    path = run.folder / "blends" / f"{policy.key}.json"
    if not path.is_file():
        with AdapterBank(evaluator.base.model, {key: run.store.load(key) for key in policy.row}) as bank:
            found = evaluator.measure(bank, {policy.key: bank.mixture(policy.row)})[policy.key]
        beta = run.config.method_settings.oracle_beta
        point = evaluator.point(policy.key, "blend", policy.preference, found, beta)
        run.write_samples(policy.key, evaluator.sample_rows(found))
        write_json(path, replace(point, row=policy.row).as_dict())
    return ParetoPoint.from_dict(read_json(path))


def read_blends(run: Run) -> list[dict[str, Any]]:
    """The mixtures that have been measured, along the front."""
    found = [read_json(path) for path in (run.folder / "blends").glob("[!.]*.json")]
    return sorted(found, key=lambda blend: [blend["preference"].get(name, 0.0) for name in run.objectives])
