"""The hypervolume explorer: its processes, its acquisition against botorch's, and what it leaves alone."""

import numpy as np
import pytest
import torch

from moalign.frontiers import hypervolume
from moalign.frontiers.explorers import Hypervolume
from moalign.frontiers.explorers.base import Book, opening
from moalign.frontiers.explorers.hypervolume import _process, _samples, greedy

WEIGHTS = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.8, 0.2], [0.3, 0.7]])
ERRORS = np.full((5, 2), 0.02)


def front(weights):
    """A quarter circle, reached sooner for objective 0: values (sin, cos) of an angle that is uneven in the weight."""
    angles = np.pi / 2 * weights[:, 0] ** 2
    return np.stack([np.sin(angles), 5 * np.cos(angles)], axis=1)


def book(values, errors=ERRORS):
    made = Book(2, points=99)
    made.tell(WEIGHTS, values, errors)
    return made


def told(values, errors=ERRORS, reference=(0.0, 0.0), seed=0):
    explorer = Hypervolume(2, 99, np.array(reference), seed)
    explorer.tell(WEIGHTS, values, errors)
    return explorer


def test_it_chooses_greedily_by_the_mean_gain():
    """Against the definition: every gain anew, from the volumes of all samples, at every step."""
    rng = np.random.default_rng(0)
    known, candidates, reference = rng.normal(size=(6, 4, 3)), rng.normal(size=(6, 15, 3)), np.full(3, -1.0)
    expected: list[int] = []
    for _ in range(5):
        union = [np.vstack([known[s], candidates[s, expected]]) for s in range(6)]
        gains = [
            np.mean([hypervolume(np.vstack([union[s], candidates[s, c]]), reference) for s in range(6)])
            for c in range(15)
        ]
        expected.append(int(np.argmax(gains)))
    assert greedy(known, candidates, reference, 5).tolist() == expected


def test_what_gains_nothing_is_not_chosen():
    known, candidates = np.full((2, 1, 2), 3.0), np.array([[[1.0, 1.0], [4.0, 1.0]], [[2.0, 2.0], [1.0, 1.0]]])
    assert greedy(known, candidates, np.zeros(2), 9).tolist() == [1]
    assert greedy(known, candidates, np.full(2, 9.0), 9).tolist() == []


@pytest.mark.filterwarnings("ignore")  # botorch's own, which do not leave the explorer
def test_it_asks_where_botorchs_acquisition_is_highest():
    """Its qNEHVI by box decompositions, of the same processes with other samples; ours has 95 % of the best there."""
    from botorch.acquisition.multi_objective import qNoisyExpectedHypervolumeImprovement
    from botorch.models import ModelListGP
    from botorch.sampling.normal import SobolQMCNormalSampler

    values = front(WEIGHTS)
    centres, scales = values.mean(axis=0), values.std(axis=0)
    columns = zip(((values - centres) / scales).T, (ERRORS / scales).T, strict=True)
    theirs = qNoisyExpectedHypervolumeImprovement(
        ModelListGP(*(_process(WEIGHTS, value, error) for value, error in columns)),
        ref_point=(-centres / scales).tolist(),
        X_baseline=torch.tensor(WEIGHTS),
        sampler=SobolQMCNormalSampler(torch.Size([256]), seed=5),
    )
    asked = told(values).ask(1)
    weights = np.linspace(0, 1, 101)
    grid = np.stack([weights, 1 - weights], axis=1)
    with torch.no_grad():
        gains = theirs(torch.tensor(np.vstack([asked, grid]))[:, None]).numpy()
    assert gains[0] > 0.95 * gains[1:].max()
    assert gains[0] > 2 * np.median(gains)


def test_the_processes_pass_through_what_was_measured_within_its_error():
    drawn = _samples(book(front(WEIGHTS)), WEIGHTS, seed=1)
    assert drawn.shape[1:] == (5, 2)
    np.testing.assert_allclose(drawn.mean(axis=0), front(WEIGHTS), atol=0.04)


def test_a_large_error_leaves_the_process_free_and_a_small_one_does_not():
    """The same outlier at the centre: with its error of 2 the mean stays near the others, with 0.02 it goes along."""
    values, errors = front(WEIGHTS), ERRORS.copy()
    values[2, 0] += 1.5
    errors[2, 0] = 2.0
    free, bound = (_samples(book(values, given), WEIGHTS, seed=1)[:, 2, 0].mean() for given in (errors, ERRORS))
    assert abs(bound - values[2, 0]) < 0.1
    assert abs(free - values[2, 0]) > 0.5


def test_an_unknown_error_is_the_median_of_the_others():
    errors = np.tile([[0.01], [0.02], [0.03], [0.04], [0.09]], 2)
    errors[4, 0], filled = np.nan, errors.copy()
    filled[4, 0] = 0.025
    one, other = (_samples(book(front(WEIGHTS), given), WEIGHTS, seed=1) for given in (errors, filled))
    np.testing.assert_array_equal(one, other)


def test_errors_that_are_all_unknown_are_fitted():
    """Thirty measurements of a smooth curve, with noise of 0.3: the fitted one is between a third of it and thrice."""
    rng = np.random.default_rng(3)
    weights = rng.uniform(size=30)
    values = np.sin(3 * weights) + 0.3 * rng.normal(size=30)
    process = _process(np.stack([weights, 1 - weights], axis=1), values, np.full(30, np.nan))
    assert 0.1 < float(process.likelihood.noise.detach().sqrt()) < 0.9


def test_a_nan_leaves_out_that_value_alone():
    """The process of the other objective is what it would have been."""
    values = front(WEIGHTS)
    holes = values.copy()
    holes[1, 1] = np.nan
    one, other = (_samples(book(given), WEIGHTS, seed=1) for given in (values, holes))
    np.testing.assert_array_equal(one[..., 0], other[..., 0])
    assert np.isfinite(other).all()
    assert not np.array_equal(one[..., 1], other[..., 1])


def test_a_batch_is_spread():
    """Each is chosen given the others: no two of four within 0.02 of each other, where the best four singles are."""
    weights = np.sort(told(front(WEIGHTS)).ask(4)[:, 0])
    assert np.diff(weights).min() > 0.02


def test_what_is_on_its_way_is_not_asked_for_again_in_its_neighbourhood():
    explorer = told(front(WEIGHTS))
    first = explorer.ask(1)
    assert np.abs(explorer.ask(3)[:, 0] - first[0, 0]).min() > 0.02


def test_before_anything_is_told_it_asks_evenly():
    asked = Hypervolume(2, 9, np.zeros(2)).ask(5)
    np.testing.assert_array_equal(asked[:3], opening(2))
    np.testing.assert_allclose(np.sort(asked[3:, 0]), [0.25, 0.75], atol=0.01)


def test_out_of_reach_of_the_reference_point_it_still_asks_for_something_new():
    """No sample gains anything: the widest gaps in weight are between 0 and .3, and .5 and .8."""
    asked = told(front(WEIGHTS), reference=(99.0, 99.0)).ask(2)
    np.testing.assert_allclose(np.sort(asked[:, 0]), [0.15, 0.65], atol=0.01)


def test_the_seed_decides_and_no_other_generator_moves():
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    one, same, other = (told(front(WEIGHTS), seed=seed).ask(3) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])


def test_a_fit_that_fails_is_no_end(monkeypatch):
    from botorch.exceptions import ModelFittingError

    def fails(likelihood):
        raise ModelFittingError("no optimiser ended well")

    monkeypatch.setattr("botorch.fit.fit_gpytorch_mll", fails)
    assert len(told(front(WEIGHTS)).ask(2)) == 2
