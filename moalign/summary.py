"""What a run has reached, as one JSON-able object: its points, its indicators, and how far it is from the oracle."""

from typing import Any

import numpy as np
from jaxtyping import Float

from moalign.enumeration import read_world
from moalign.errors import RunError
from moalign.files import read_json
from moalign.frontiers import (
    ParetoSet,
    expected_utility,
    hypervolume,
    igd_plus,
    kendall_tau,
    lattice,
    matched_front,
    mean_inner_product,
    normalised_hypervolume,
    oracle_front,
    sparsity,
)
from moalign.gains import gains
from moalign.runs import BASE, Run

_DIVISIONS = {2: 100, 3: 20, 4: 10}  # of the simplex over which expected utility is averaged


def summarise(run: Run) -> dict[str, Any]:
    """The indicators of a run.

    hypervolume and its kin are of the points' means against the run's stored reference point. With a known world
    (config key `oracle`): oracle_hypervolume is that of the KL-matched oracle, the best any policy could attain at each
    point's own divergence from the base, and hypervolume_ratio is ours over it; `..._at_beta` are the same against the
    optimum at the run's beta, null for methods whose beta is not in the objectives' units. All are null without an
    oracle. kendall_tau is per objective, null where flat; whatever else has no value (the sparsity of one point) is
    null too. gains are those of `moalign.gains`. Raises RunError before the first point.
    """
    front = run.front()
    if not len(front):
        raise RunError(f"{run.folder} has no measured points yet; run its sweep first")
    values, names = front.values, front.objectives
    weights = _weights(run, front)
    matched, at_beta = oracle_values(run, front)
    volume = front.hypervolume()
    ideal = np.max([values.max(0)] if matched is None else [values.max(0), matched.max(0)], axis=0)
    base = run.base_point()
    tau = kendall_tau(weights, values)
    return {
        "objectives": list(names),
        "reference_point": front.reference_point.tolist(),
        "hypervolume": volume,
        "normalised_hypervolume": _share_of_box(values, front.reference_point, ideal),
        "expected_utility": expected_utility(values, lattice(len(names), _DIVISIONS.get(len(names), 4))),
        "sparsity": _number(sparsity(values)),
        "mip": mean_inner_product(values, weights),
        "kendall_tau": {name: _number(t) for name, t in zip(names, tau.tolist(), strict=True)},
        "igd_plus": None if matched is None else igd_plus(values, matched),
        **_against_oracle(front, volume, matched, ""),
        **_against_oracle(front, volume, at_beta, "_at_beta"),
        "base": None if base is None else base.as_dict(),
        "gains": gains(run),
        "accuracy": _accuracy(run, front),
        "points": [_point(point.as_dict(), bool(on)) for point, on in zip(front, front.on_front, strict=True)],
    }


def _share_of_box(
    values: Float[np.ndarray, "n m"], reference: Float[np.ndarray, " m"], ideal: Float[np.ndarray, " m"]
) -> float | None:
    """None where there is no box: an objective's best value is not above the reference point."""
    return normalised_hypervolume(values, reference, ideal) if (ideal > reference).all() else None


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if np.isfinite(value) else None


def _point(record: dict[str, Any], on_front: bool) -> dict[str, Any]:
    return {**record, "on_front": on_front}


def _weights(run: Run, front: ParetoSet) -> Float[np.ndarray, "n m"]:
    return np.array([point.preference.vector(run.objectives) for point in front]).reshape(-1, len(run.objectives))


def oracle_values(
    run: Run, front: ParetoSet
) -> tuple[Float[np.ndarray, "n m"] | None, Float[np.ndarray, "n m"] | None]:
    """What the optimum attains for each point's preference: at the point's own KL, and at the run's beta."""
    world = read_world(run)
    if world is None or not len(front):
        return None, None
    weights = _weights(run, front)
    kls = np.array([max(point.kl_to_reference or 0.0, 0.0) for point in front])
    beta = run.config.method_settings.oracle_beta
    at_beta = None if beta is None else oracle_front(world, weights, beta)[0]
    return matched_front(world, weights, kls), at_beta


def _against_oracle(
    front: ParetoSet, volume: float, oracle: Float[np.ndarray, "n m"] | None, suffix: str
) -> dict[str, float | None]:
    best = None if oracle is None else hypervolume(oracle, front.reference_point)
    return {
        f"oracle_hypervolume{suffix}": best,
        f"hypervolume_ratio{suffix}": volume / best if best else None,
    }


def _accuracy(run: Run, front: ParetoSet) -> dict[str, dict[str, dict[str, float]]]:
    """Held-out preference accuracy by objective, before (the base) and after (each adapter)."""
    found = {}
    for key in (BASE, *(point.adapter for point in front)):
        path = run.folder / "accuracy" / f"{key}.json"
        if path.is_file() and (values := read_json(path)):
            found[key] = values
    return found
