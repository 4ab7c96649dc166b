"""What the tests of fronts share."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("frontiers", deadline=None)
settings.load_profile("frontiers")


@pytest.fixture
def immutable() -> Callable[..., Any]:
    """Call a function with arrays that refuse to be written to, and check that they are as before."""

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        before = copy.deepcopy(arguments)
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                argument.flags.writeable = False
        result = function(*arguments)
        for argument, was in zip(arguments, before, strict=True):
            if isinstance(argument, np.ndarray):
                np.testing.assert_array_equal(argument, was)
        return result

    return call
