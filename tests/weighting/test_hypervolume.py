"""The hypervolume weighter: the numbers of the paper's release, its crash, and what the archive keeps."""

import json
import math

import numpy as np
import pytest

from moalign.errors import ConfigError
from moalign.frontiers import hypervolume
from moalign.weighting import Hypervolume, Observation


def see(weighter, *vectors):
    """The scales after each of the validation vectors (None: not measured at that step)."""
    m = len(weighter.preference)
    return [
        weighter.update(
            Observation(step, np.zeros((2, m)), 1e-3, validation=None if v is None else np.array(v, dtype=float))
        ).scale
        for step, v in enumerate(vectors)
    ]


def made(m=2, **settings):
    return Hypervolume(np.full(m, 1 / m), **settings)


@pytest.mark.parametrize(("gain", "scale"), [(0.0, 0.5), (0.05, 0.57494), (0.3, 0.93697), (1.0, 1.64239)])
def test_the_numbers_of_the_authors_code(gain, scale):
    """A box of sides 1 and D over the reference: 0.5 + 1.5 tanh(D)."""
    assert see(made(), [0, 0], [1, gain])[1] == pytest.approx(scale, abs=5e-6)


def test_the_gain_is_the_volume_that_the_point_adds():
    """Beside (1, 2), the point (2, 1) adds (1, 2] x (0, 1]; (1.5, 1.5) then adds 0.25, and (3, 3) adds 9 - 3.25."""
    found = see(made(), [0, 0], [1, 2], [2, 1], [1.5, 1.5], [3, 3])
    assert found[1:] == pytest.approx([0.5 + 1.5 * math.tanh(gain) for gain in (2, 1, 0.25, 5.75)])


def test_the_authors_crash_adds_nothing_instead():
    """methods: reference (.8, 800 tokens, .5), archive (.85, 500, .9), point (.9, 450, .4), below in the last."""
    weighter = made(3)
    found = see(weighter, [0.8, -800, 0.5], [0.85, -500, 0.9], [0.9, -450, 0.4])
    assert found[0] == 1.0
    assert found[1] == pytest.approx(0.5 + 1.5 * math.tanh(0.05 * 300 * 0.4))
    assert found[2] == 0.5
    assert weighter.archive.tolist() == [[0.85, -500, 0.9]]


def test_a_point_below_the_reference_does_not_hide_another():
    """In the release {(.5, 2), (1, -1)} has volume .5 for the reference 0; it is 1."""
    weighter = made()
    assert see(weighter, [0, 0], [1, -1], [0.5, 2])[1:] == pytest.approx([0.5, 0.5 + 1.5 * math.tanh(1)])


def test_the_scale_is_one_before_there_is_something_to_compare_and_kept_between_validations():
    found = see(made(), None, [0, 0], None, [1, 0.3], None, None, [0.5, 0.1], None)
    assert found == pytest.approx([1, 1, 1, 0.93697, 0.93697, 0.93697, 0.5, 0.5], abs=5e-6)


def test_the_archive_is_a_front_and_has_the_volume_of_all_points():
    vectors = np.random.default_rng(1).normal(size=(60, 3)).cumsum(axis=0) / 4
    weighter = made(3, margin=2.0)
    see(weighter, *vectors)
    reference = vectors[0] - 2.0
    assert hypervolume(weighter.archive, reference) == pytest.approx(hypervolume(vectors, reference))
    for i, point in enumerate(weighter.archive):
        others = np.delete(weighter.archive, i, axis=0)
        assert not (others >= point).all(axis=1).any()


def test_a_margin_lets_a_trade_off_count():
    """At margin 0 a policy that loses in one objective adds nothing; at margin 1 the initial policy's own box is 1.

    (1, -.5) then spans 2 x .5, of which 1 x .5 was there: D = .5.
    """
    assert see(made(), [0, 0], [1, -0.5])[1] == 0.5
    assert see(made(margin=1.0), [0, 0], [1, -0.5])[1] == pytest.approx(0.5 + 1.5 * math.tanh(0.5))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_passed_over(bad):
    """As the first vector it does not become the reference, and later the scale stays."""
    found = see(made(), [bad, 0], [0, 0], [1, 0.3], [bad, 9], [0.5, 0.1])
    assert found == pytest.approx([1, 1, 0.93697, 0.93697, 0.5], abs=5e-6)


def test_the_same_vector_again_adds_exactly_nothing():
    """A difference of two volumes may be 1e-16 instead of 0, which would let duplicates pile up."""
    vectors = [[0, 0, 0], *np.random.default_rng(2).uniform(0.1, 1, size=(20, 3))]
    weighter = made(3)
    see(weighter, *vectors)
    size = len(weighter.archive)
    assert set(see(weighter, *vectors)) == {0.5}
    assert len(weighter.archive) == size


def test_the_weights_stay_the_preference():
    weighter = Hypervolume(np.array([0.2, 0.8]))
    assert weighter.update(Observation(0, np.ones((2, 2)), 1e-3, validation=np.ones(2))).weights.tolist() == [0.2, 0.8]


def test_it_goes_on_from_its_state_with_the_first_reference_point():
    """On resume the authors' reference becomes the resumed policy, so that the rest of the run has another scale."""
    whole, start, resumed = made(margin=0.5), made(margin=0.5), made(margin=0.5)
    vectors = [[0, 0], [1, 2], [2, 1], [3, 0.5], [2.5, 1.5]]
    expected = see(whole, *vectors)
    see(start, *vectors[:3])
    resumed.load_state_dict(json.loads(json.dumps(start.state_dict())))
    assert see(resumed, *vectors[3:]) == expected[3:]


def test_the_cadence_is_the_trainers_to_read():
    assert made().validation_every == 5
    assert made(every=2).validation_every == 2


@pytest.mark.parametrize("settings", [{"every": 0}, {"margin": -0.1}, {"margin": math.nan}, {"margin": math.inf}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"weighting 'hypervolume': {next(iter(settings))} is .*; expected"):
        made(**settings)
