"""The table of merges: each takes adapters and weights alone, and gives an adapter."""

import inspect
import math

import pytest
from deltas import drawn

from moalign.adapters import Adapter
from moalign.errors import AdapterError
from moalign.merging import MERGES


@pytest.mark.parametrize("name", MERGES)
def test_each_can_be_called_with_adapters_and_weights_alone(name: str) -> None:
    found = MERGES[name]([drawn(1), drawn(2)], [0.5, 0.5])
    assert isinstance(found, Adapter)
    assert set(found.layers) == {"q", "v"}
    assert list(inspect.signature(MERGES[name]).parameters)[:2] == ["adapters", "weights"]


@pytest.mark.parametrize("name", MERGES)
def test_each_refuses_nothing_to_merge(name: str) -> None:
    with pytest.raises(AdapterError):
        MERGES[name]([], [])


@pytest.mark.parametrize("name", MERGES)
def test_each_refuses_an_adapter_whose_training_diverged(name: str) -> None:
    diverged = drawn(2)
    diverged.layers["v"].A[0, 0] = math.inf
    with pytest.raises(AdapterError, match="layer 'v' holds a number that is NaN or infinite"):
        MERGES[name]([drawn(1), diverged], [0.5, 0.5])
