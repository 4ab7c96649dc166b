"""Advantages by hand, against TRL's formula and the papers' numbers; what they must and must not react to."""

import itertools
import math

import pytest
import torch

from moalign.losses import Baseline, advantage_parts, clipped_objective, combine, whitening

ESTIMATORS = ("grpo", "rloo", "reinforce", "dr_grpo")
AGGREGATIONS = ("sum_then_normalize", "normalize_then_sum")
ALL = list(itertools.product(ESTIMATORS, AGGREGATIONS))
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
PAST = Baseline(torch.tensor([0.4, -1.0, 2.0]).double(), torch.tensor([0.9, 1.5, 1.1]).double())
ANCHOR = torch.tensor([[0.1, 0.5, 0.9], [0.15, 0.13, 0.05]], dtype=torch.float64).T[None]  # MO-GRPO's example
POPULATION = math.sqrt(3 / 2)  # sample deviations are sqrt(g/(g-1)) of the population's, which that paper uses


def drawn(p=5, g=4, m=3, seed=0):
    return torch.randn(p, g, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def advantages(rewards, weights, estimator, aggregation, baseline=None):
    return combine(advantage_parts(rewards, weights, estimator, aggregation, baseline), weights, aggregation)


def numbers(tensor):
    return [round(value, 2) for value in tensor.flatten().tolist()]


def test_each_objective_first_gives_the_numbers_of_mo_grpo():
    """R1 = [.1, .5, .9], R2 = [.15, .13, .05], weights 1: z = [-1.22, 0, 1.22] and [.93, .46, -1.39], A their sum."""
    parts = POPULATION * advantage_parts(ANCHOR, torch.ones(2), "grpo", "normalize_then_sum")
    assert numbers(parts[..., 0]) == [-1.22, 0.0, 1.22]
    assert numbers(parts[..., 1]) == [0.93, 0.46, -1.39]
    assert numbers(parts.sum(-1)) == [-0.30, 0.46, -0.16]


def test_summed_first_the_wider_objective_decides():
    """The same example under plain GRPO: [-1.26, .07, 1.19]. The paper prints [-1.38, .43, .95], which is no z-score:

    its squares do not add up to g. Sums .25, .63, .95, mean .61, deviation .28612: -.36, .02, .34 over that.
    """
    found = POPULATION * advantages(ANCHOR, torch.ones(2), "grpo", "sum_then_normalize")
    assert numbers(found) == [-1.26, 0.07, 1.19]
    assert found.square().sum().item() == pytest.approx(3)
    assert sum(value**2 for value in (-1.38, 0.43, 0.95)) == pytest.approx(2.99, abs=0.01)
    assert abs(sum((-1.38, 0.43, 0.95))) < 0.01


def trl(rewards, weights, aggregation, epsilon=1e-4):
    """The formula of TRL 1.16's GRPOTrainer (`multi_objective_aggregation`), one sequence after another."""

    def scaled(values):
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
        return [(value - mean) / (deviation + epsilon) for value in values]

    w = weights.tolist()
    if aggregation == "sum_then_normalize":
        groups = [[sum(map(float.__mul__, w, row)) for row in group] for group in rewards.tolist()]
        return torch.tensor([scaled(group) for group in groups], dtype=torch.float64)
    columns = [[scaled(column) for column in zip(*group, strict=True)] for group in rewards.tolist()]
    rows = [sum(map(float.__mul__, w, row)) for group in columns for row in zip(*group, strict=True)]
    return torch.tensor(scaled(rows), dtype=torch.float64).reshape(rewards.shape[:2])


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_grpo_is_trls_but_for_its_epsilon(aggregation):
    """With epsilon 0 the same; with TRL's 1e-4, within 1e-3; with it and rewards in millions, the same again."""
    rewards = drawn()
    found = advantages(rewards, WEIGHTS, "grpo", aggregation)
    torch.testing.assert_close(found, trl(rewards, WEIGHTS, aggregation, 0.0), rtol=0, atol=1e-12)
    torch.testing.assert_close(found, trl(rewards, WEIGHTS, aggregation), rtol=1e-3, atol=1e-4)
    assert not torch.equal(found, trl(rewards, WEIGHTS, aggregation))
    if aggregation == "sum_then_normalize":
        torch.testing.assert_close(found, trl(1e6 * rewards, WEIGHTS, aggregation), rtol=1e-9, atol=1e-9)


def test_the_formulas_as_loops():
    """Each estimator written for one sequence and one objective at a time."""
    rewards = drawn(3, 4, 3)
    for i, j, k in itertools.product(range(3), range(4), range(3)):
        own, others = rewards[i, j, k], [rewards[i, a, k] for a in range(4) if a != j]
        mean = rewards[i, :, k].mean()
        batch = [rewards[a, b, k] for a in range(3) for b in range(4) if (a, b) != (i, j)]
        expected = {
            ("grpo", "sum_then_normalize"): (own - mean) / (rewards[i] @ WEIGHTS).std(),
            ("rloo", "sum_then_normalize"): own - sum(others) / 3,
            ("dr_grpo", "sum_then_normalize"): own - mean,
            ("reinforce", "sum_then_normalize"): own - sum(batch) / 11,
            ("grpo", "normalize_then_sum"): (own - mean) / rewards[i, :, k].std(),
            ("rloo", "normalize_then_sum"): (own - sum(others) / 3) / rewards[i, :, k].std(),
            ("dr_grpo", "normalize_then_sum"): (own - mean) / rewards[i, :, k].std(),
            ("reinforce", "normalize_then_sum"): (own - rewards[..., k].mean()) / rewards[..., k].std(),
        }
        for (estimator, aggregation), value in expected.items():
            found = advantage_parts(rewards, WEIGHTS, estimator, aggregation)[i, j, k]
            torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-12)


def test_reinforce_against_a_past():
    """r - mean, and (r - mean) / deviation, whatever the batch itself is; groups of one are allowed."""
    rewards = drawn(6, 1)
    summed, first = (advantage_parts(rewards, WEIGHTS, "reinforce", each, PAST) for each in AGGREGATIONS)
    torch.testing.assert_close(summed, rewards - PAST.mean)
    torch.testing.assert_close(first, (rewards - PAST.mean) / PAST.deviation)


@pytest.mark.parametrize(("estimator", "aggregation"), ALL)
def test_linear_in_the_weights(estimator, aggregation):
    """combine is parts @ weights; whitened, that less its mean over `whitening`, to deviation 1 and mean 0."""
    rewards = drawn(seed=2)
    parts = advantage_parts(rewards, WEIGHTS, estimator, aggregation, PAST)
    total = parts @ WEIGHTS
    if aggregation == "normalize_then_sum":
        total = (total - total.mean()) / whitening(parts, WEIGHTS)
        torch.testing.assert_close(total.std(), torch.ones(()).double())
    torch.testing.assert_close(combine(parts, WEIGHTS, aggregation), total)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_units_of_an_objective_do_not_matter_when_it_is_normalised_first(estimator):
    """MO-GRPO's invariance: one objective times 1000 and shifted by 37, its past moments likewise, changes nothing."""
    rewards, factor, shift = drawn(), torch.tensor([1.0, 1000, 1]).double(), torch.tensor([0.0, 37, 0]).double()
    for past in (PAST, None):
        moved = past and Baseline(past.mean * factor + shift, past.deviation * factor)
        found = advantages(rewards * factor + shift, WEIGHTS, estimator, "normalize_then_sum", moved)
        expected = advantages(rewards, WEIGHTS, estimator, "normalize_then_sum", past)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    summed = advantages(rewards * factor + shift, WEIGHTS, estimator, "sum_then_normalize", PAST)
    assert (summed - advantages(rewards, WEIGHTS, estimator, "sum_then_normalize", PAST)).abs().max() > 0.1


@pytest.mark.parametrize(("estimator", "aggregation"), [each for each in ALL if each[0] != "reinforce"])
def test_a_shift_of_a_whole_prompt_changes_nothing(estimator, aggregation):
    """What all completions of a prompt have in common is no reason to prefer one of them."""
    rewards = drawn()
    found = advantages(rewards + 5 * drawn(5, 1, 3, seed=1), WEIGHTS, estimator, aggregation)
    torch.testing.assert_close(found, advantages(rewards, WEIGHTS, estimator, aggregation), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [0.5, 1.9])
@pytest.mark.parametrize(("estimator", "aggregation"), ALL)
def test_a_meta_scale_acts_after_normalisation_and_often_nowhere_before(estimator, aggregation, scale):
    """Dynamic Reward Weighting multiplies the rewards by r_pareto in [.5, 2): a no-op under grpo and under whitening.

    Before, only sum_then_normalize without a deviation sees it (and reinforce with a past is then compared with a
    baseline in other units). After `combine`, the policy gradient of every estimator is multiplied by it.
    """
    rewards = drawn()
    plain = advantages(rewards, WEIGHTS, estimator, aggregation)
    naive = advantages(scale * rewards, WEIGHTS, estimator, aggregation)
    nothing = estimator == "grpo" or aggregation == "normalize_then_sum"
    torch.testing.assert_close(naive, plain if nothing else scale * plain, rtol=1e-12, atol=1e-12)
    if nothing:
        old, new = (advantages(c * rewards, WEIGHTS, estimator, aggregation, PAST) for c in (1.0, scale))
        torch.testing.assert_close(new, old, rtol=1e-12, atol=1e-12)

    def slope(given):
        logprobs = torch.zeros(20, dtype=torch.float64, requires_grad=True)
        loss = clipped_objective(logprobs, logprobs.detach(), given.flatten(), torch.arange(20), (0.2, 0.2))
        return torch.autograd.grad(loss.mean(), logprobs)[0]

    torch.testing.assert_close(slope(scale * plain), scale * slope(plain))
    assert (slope(scale * plain) - slope(plain)).abs().max() > 0.01


@pytest.mark.parametrize("value", [0.0, 0.1, -1e12, 1e-300])
@pytest.mark.parametrize(("estimator", "aggregation"), ALL)
def test_without_variance_there_is_no_advantage(estimator, aggregation, value):
    """A constant objective gives 0, and under normalize_then_sum costs the others nothing.

    The constant 0.1 has a mean that differs from it in the last bit; an epsilon would leave noise, and whitening would
    then blow it up to a deviation of 1.
    """
    flat = torch.full((3, 3, 1), value, dtype=torch.float64)
    found = advantages(flat, torch.ones(1), estimator, aggregation)
    assert found.abs().max() <= 1e-15 * abs(value)
    if aggregation == "normalize_then_sum":
        both = torch.cat([drawn(3, 3, 1), flat], 2)
        found = advantages(both, torch.tensor([0.5, 0.5]), estimator, aggregation)
        torch.testing.assert_close(found, advantages(both[..., :1], torch.ones(1), estimator, aggregation))
        assert torch.isinf(whitening(torch.zeros(3, 3, 1), torch.ones(1)))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_flat_group_is_masked_and_the_others_are_not(aggregation):
    """GRPO: a group whose s is constant gives 0, though its objectives differ: they cancel, up to rounding."""
    rewards = drawn(2, 3, 3)
    rewards[0, :, 0] = -(rewards[0, :, 1] * 0.5 + rewards[0, :, 2] * 0.3) / 0.2
    assert (rewards[0] @ WEIGHTS).unique().numel() > 1
    found = advantages(rewards, WEIGHTS, "grpo", aggregation)
    assert (found[1] != 0).all()
    if aggregation == "sum_then_normalize":
        assert found[0].tolist() == [0.0, 0.0, 0.0]
        torch.testing.assert_close(found[1:], advantages(rewards[1:], WEIGHTS, "grpo", aggregation))


def test_objectives_that_cancel_are_not_whitened_into_noise():
    """Two objectives that are opposite in every group: the sum is rounding error, and stays 0."""
    rewards = drawn(4, 3, 1)
    both = torch.cat([rewards, 1 - 3 * rewards], 2)
    for estimator in ESTIMATORS:
        assert not advantages(both, torch.tensor([0.5, 0.5]), estimator, "normalize_then_sum").any()


def test_a_past_without_variance():
    """An objective that was constant so far has no unit to be measured in: 0, for the running moments' rounding too."""
    for deviation in (0.0, 1e-9):
        past = Baseline(torch.tensor([0.1, 0.0]), torch.tensor([deviation, 1.0]))
        parts = advantage_parts(drawn(m=2), torch.ones(2), "reinforce", "normalize_then_sum", past)
        assert not parts[..., 0].any()
        torch.testing.assert_close(parts[..., 1], drawn(m=2)[..., 1])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("estimator", "aggregation"), ALL)
def test_what_is_not_finite_stays_in_its_group(estimator, aggregation, bad):
    """The group of the bad reward is not finite (reinforce: the sequence); the rest is as if it were not there."""
    rewards = drawn()
    rewards[1, 2, 0] = bad
    found = advantages(rewards, WEIGHTS, estimator, aggregation)
    if estimator == "reinforce":
        kept = torch.ones(5, 4, dtype=torch.bool)
        kept[1, 2] = False
        expected = advantages(rewards[kept][:, None], WEIGHTS, estimator, aggregation)[:, 0]
    else:
        kept = (torch.arange(5) != 1)[:, None].expand(5, 4)
        expected = advantages(rewards[[0, 2, 3, 4]], WEIGHTS, estimator, aggregation).flatten()
    assert torch.equal(found.isfinite(), kept)
    torch.testing.assert_close(found[kept], expected)


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "dr_grpo"])
def test_a_group_of_one_is_refused(estimator):
    with pytest.raises(ValueError, match=rf"{estimator} compares .* a group has 1; expected 2 or more .* reinforce"):
        advantage_parts(drawn(4, 1), WEIGHTS, estimator, "sum_then_normalize")


def test_the_smallest_batches_and_single_precision():
    """One sequence is compared with 0, and has no deviation; no prompts give nothing; inside it is float64."""
    one = drawn(1, 1)
    torch.testing.assert_close(advantages(one, WEIGHTS, "reinforce", "sum_then_normalize"), one @ WEIGHTS)
    assert advantages(one, WEIGHTS, "reinforce", "normalize_then_sum").tolist() == [[0.0]]
    for estimator, aggregation in ALL:
        assert advantages(drawn(0, 2), WEIGHTS, estimator, aggregation).shape == (0, 2)
        found = advantages((1e4 + drawn()).float(), WEIGHTS.float(), estimator, aggregation)
        assert found.dtype == torch.float64
        expected = advantages((1e4 + drawn()).float().double(), WEIGHTS.float().double(), estimator, aggregation)
        assert torch.equal(found, expected)


def test_rloo_and_grpo_differ_by_length_alone_when_normalised_first():
    """g/(g-1) is a common factor, and whitening takes it away."""
    found = [advantages(drawn(), WEIGHTS, estimator, "normalize_then_sum") for estimator in ("grpo", "rloo", "dr_grpo")]
    torch.testing.assert_close(found[1], found[0])
    assert torch.equal(found[2], found[0])
