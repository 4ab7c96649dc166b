"""Made-up runs to look at: an arc of adapters between objectives that conflict, with errors, blends and texts."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from moalign.dashboards import Blend, Report, Sample
from moalign.frontiers.pareto_set import ParetoPoint, ParetoSet
from moalign.frontiers.simplex import corners, lattice
from moalign.preference import Preference

LONG = "the score of a reward model with a name that nobody could ever read in one go, " * 3
ANSWERS = {
    "helpful": (
        "Of course. Open Settings, choose Account, and press Reset password. We then send you a link; it is good for "
        "an hour. If the mail does not come, look into the spam folder, or give us a call and we will set a new "
        "password with you over the phone."
    ),
    "brief": "Settings, Account, Reset password.",
    "middle": "Open Settings, choose Account and press Reset password. We send you a link that is good for an hour.",
    "base": "You can reset it. Please see the page about passwords, or ask us again.",
}
PROMPTS = (
    "How do I reset my password?",
    "Where is my parcel?",
    "Can I pay by invoice?",
    *(f"What does plan {i} cost, and what do I get for it?" for i in range(1, 4)),
)


def make_point(adapter: str, weights: dict[str, float], values: dict[str, float], error: float = 0.05) -> ParetoPoint:
    """A point with symmetric intervals of two standard errors."""
    return ParetoPoint(
        adapter,
        "modpo",
        Preference.of(weights),
        values,
        dict.fromkeys(values, error),
        {name: (value - 2 * error, value + 2 * error) for name, value in values.items()},
        kl_to_reference=2.0 + 3.0 * max(weights.values()),
        kl_to_oracle=0.12,
        length=21.5,
    )


def attained(weights: np.ndarray, reach: float = 4.0) -> np.ndarray:
    """A concave front: sqrt(w) / ||sqrt(w)|| lies on the unit sphere, the corner of each objective on its axis."""
    root = np.sqrt(weights)
    return reach * root / np.linalg.norm(root, axis=-1, keepdims=True)


def make_report(names: tuple[str, ...], preferences: np.ndarray, seed: int = 0) -> Report:
    """A run with objectives `names`, trained at `preferences`, two of its points spoilt so that they are dominated."""
    rng = np.random.default_rng(seed)
    m = len(names)

    def named(row: np.ndarray) -> dict[str, float]:
        return dict(zip(names, row.tolist(), strict=True))

    values = attained(preferences, 3.9) + rng.normal(0, 0.03, preferences.shape)
    for spoilt in (len(values) // 3, len(values) // 2 + 1):
        values[spoilt] *= 0.9 if m == 2 else 0.7
    points = [
        make_point(f"{i:02d}f3ab71c{i:02d}", named(w), named(v))
        for i, (w, v) in enumerate(zip(preferences, values, strict=True))
    ]
    blends = []
    for first, second in pairwise(points):
        for part in (1 / 3, 2 / 3):
            weights = (1 - part) * first.preference.vector(names) + part * second.preference.vector(names)
            place = (1 - part) * values[points.index(first)] + part * values[points.index(second)]
            row = {first.adapter: 1 - part, second.adapter: part}
            blends.append(Blend(row, Preference.of(named(weights)), named(place + 0.02), dict.fromkeys(names, 0.06)))
    samples = [
        Sample(adapter, prompt, ANSWERS[kind], named(rng.normal(2, 1, m)))
        for prompt in PROMPTS
        for adapter, kind in [("base", "base")]
        + [(p.adapter, max(p.preference.weights, key=p.preference.weights.get)) for p in points]
        for kind in (kind if kind in ANSWERS else "middle",)
    ]
    indicators = {
        "hypervolume": 13.42,
        "normalised_hypervolume": 0.741,
        "oracle_hypervolume": 14.03,
        "hypervolume_ratio": 0.957,
        "hypervolume_ratio_at_beta": None,
        "expected_utility": 3.21,
        "mip": 3.18,
        "sparsity": 0.214,
        "igd_plus": 0.083,
        **{f"kendall_tau {name}": 0.93 for name in names},
    }
    facts = {"base model": "help-desk 1.2 M", "method": "MODPO", "beta": "0.1", "seed": "0", "prompts": "60, held out"}
    base = make_point("base", dict.fromkeys(names, 1.0), dict.fromkeys(names, 1.1))
    exact = attained(lattice(m, 40 if m == 2 else 8), 4.0)
    points_set = ParetoSet(names, np.zeros(m), points)
    return Report("runs/demo", points_set, indicators, base, blends, exact, samples, facts)


@pytest.fixture
def two() -> Report:
    """Eleven adapters between helpful and brief."""
    return make_report(("helpful", "brief"), lattice(2, 10)[::-1])


@pytest.fixture
def three() -> Report:
    """Fifteen adapters over three objectives."""
    return make_report(("helpful", "brief", "warm"), lattice(3, 4))


@pytest.fixture
def five() -> Report:
    """Twenty adapters over five objectives: the corners, and what lies between two of them."""
    preferences = np.vstack([corners(5), lattice(5, 2)])
    return make_report(("helpful", "brief", "warm", "careful", "format"), np.unique(preferences, axis=0))


@pytest.fixture
def odd() -> Report:
    """Objectives whose names are markup and two hundred characters long."""
    return make_report(("<b>", LONG[:200]), lattice(2, 10))


@pytest.fixture
def make_set() -> Callable[..., ParetoSet]:
    """Builds a set over helpful and brief from rows of values; row i of n was asked for i + 1 to n - i."""

    def build(*rows: tuple[float, float]) -> ParetoSet:
        points = [
            make_point(
                f"a{i}",
                {"helpful": i + 1.0, "brief": float(len(rows) - i)},
                {"helpful": helpful, "brief": brief},
            )
            for i, (helpful, brief) in enumerate(rows)
        ]
        return ParetoSet(("helpful", "brief"), np.zeros(2), points)

    return build


@pytest.fixture
def bare(make_set: Callable[..., ParetoSet]) -> Callable[..., Report]:
    """Builds a report that holds a set of the given rows and nothing else."""
    return lambda *rows: Report("runs/bare", make_set(*rows), {}, None, [], None, [], {})
