"""Fixed weights: the preference, whatever is seen."""

import numpy as np

from moalign.weighting import Fixed, Observation


def test_the_weights_are_the_preference_and_the_scale_is_one():
    weighter = Fixed(np.array([0.7, 0.3, 0.0]))
    for step in range(3):
        seen = Observation(step, np.full((4, 3), step * 1e6), 1e-3, gram=np.eye(3), validation=np.ones(3))
        found = weighter.update(seen)
        assert found.weights.tolist() == [0.7, 0.3, 0.0]
        assert found.scale == 1.0


def test_nothing_is_measured_for_it():
    weighter = Fixed(np.array([1.0]))
    assert (weighter.needs, weighter.validation_every, weighter.state_dict()) == (frozenset(), 0, {})


def test_the_preference_is_copied():
    preference = np.array([0.7, 0.3])
    weighter = Fixed(preference)
    preference[:] = 0
    assert weighter.update(Observation(0, np.zeros((1, 2)), 1e-3)).weights.tolist() == [0.7, 0.3]
