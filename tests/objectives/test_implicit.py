"""Beta times a log-ratio that is handed in."""

import numpy as np
import pytest

from moalign.batches import Completions
from moalign.errors import ConfigError
from moalign.objectives import Implicit, ObjectiveSet


def test_beta_times_the_log_ratio() -> None:
    """Log-ratios 2 and -1 nats at beta 0.1: 0.2 and -0.1; float32 comes in, float64 goes out."""
    objective = Implicit("helpful", 0.1, lambda _: np.array([2.0, -1.0], dtype=np.float32), "adapter")
    scores = ObjectiveSet([objective]).score(Completions(["a", "b"], ["c", "d"]))
    np.testing.assert_allclose(scores[:, 0], [0.2, -0.1], rtol=1e-15)


def test_the_fingerprint_is_of_adapter_and_beta() -> None:
    def made(beta: float, adapter: str) -> str:
        return Implicit("x", beta, lambda _: np.zeros(1), adapter).fingerprint

    assert made(0.1, "a") == made(0.1, "a")
    assert len({made(0.1, "a"), made(0.2, "a"), made(0.1, "b")}) == 3


def test_beta_is_positive() -> None:
    for beta in (0.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="objective 'x': beta is"):
            Implicit("x", beta, lambda _: np.zeros(1), "a")
