"""The clipped surrogate against its formula and finite differences, and the estimates of a divergence."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

from moalign.losses import LENGTH, clipped_objective, kl_advantages, kl_per_token, per_sequence

CLIP = (0.2, 0.3)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def objective(logprobs, old, advantages, clip=CLIP):
    """One token per sequence."""
    return clipped_objective(logprobs, old, advantages, torch.arange(len(logprobs)), clip)


def slopes(logprobs, old, advantages, clip=CLIP):
    logprobs = logprobs.clone().requires_grad_(True)
    return torch.autograd.grad(objective(logprobs, old, advantages, clip).sum(), logprobs)[0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.0, 2.0, -2.0),
        (1.25, 2.0, -2.5),  # inside
        (1.5, 2.0, -2.6),  # gained enough: 1.3 * 2
        (0.5, 2.0, -1.0),  # lost: not clipped, so that it can come back
        (0.5, -2.0, 1.6),  # pushed down enough: 0.8 * 2
        (1.5, -2.0, 3.0),  # went up where it should go down: not clipped
        (1.5, 0.0, 0.0),
    ],
)
def test_by_hand(ratio, advantage, loss):
    """-min(rho A, clamp(rho, .8, 1.3) A)."""
    found = objective(tensor([math.log(ratio)]), tensor([0.0]), tensor([advantage]))
    assert found.item() == pytest.approx(loss, abs=1e-12)


def test_is_a_step_function_of_the_ratio_as_ppo_draws_it():
    """Schulman et al., Fig. 1, in pieces: -A min(rho, 1 + high) for A > 0, and -A max(rho, 1 - low) for A < 0."""
    ratio = torch.linspace(0.01, 3, 200, dtype=torch.float64)
    for advantage in (1.7, -0.4):
        found = objective(ratio.log(), torch.zeros_like(ratio), torch.full_like(ratio, advantage))
        limited = ratio.clamp(max=1.3) if advantage > 0 else ratio.clamp(min=0.8)
        torch.testing.assert_close(found, -advantage * limited)


@pytest.mark.parametrize("clip", [(0.0, 0.0), (0.2, 0.3), (100.0, 100.0)])
def test_on_policy_the_gradient_is_the_policy_gradient(clip):
    """At old = logprobs, d/d logprob = -A for every token of the sequence, whatever the clip."""
    logprobs = random(9)
    owner = torch.tensor([0, 2, 1, 0, 0, 1, 2, 2, 2])
    advantages = tensor([1.5, -0.3, 0.0])
    leaf = logprobs.clone().requires_grad_(True)
    loss = clipped_objective(leaf, leaf.detach(), advantages, owner, clip)
    torch.testing.assert_close(loss, -advantages[owner])
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), leaf)[0], -advantages[owner])


def test_gradient_by_finite_differences():
    """Central differences at 400 points, but for those that have a corner within the step."""
    old, advantages, step = random(400), random(400, seed=1), 1e-6
    logprobs = old + 0.5 * random(400, seed=2)
    ratio = (logprobs - old).exp()
    smooth = ((ratio - 0.8).abs() > 1e-4) & ((ratio - 1.3).abs() > 1e-4)
    assert smooth.sum() > 390
    up, down = (objective(logprobs + sign * step, old, advantages) for sign in (1, -1))
    found = slopes(logprobs, old, advantages)
    torch.testing.assert_close(found[smooth], ((up - down) / (2 * step))[smooth], rtol=1e-6, atol=1e-7)


def test_no_gradient_once_clipped_on_the_side_that_was_asked_for():
    """Past 1 + high with A > 0 and below 1 - low with A < 0 nothing pulls; the ways back pull with rho |A|."""
    ratio, advantages = tensor([1.5, 0.5, 1.5, 0.5]), tensor([2.0, -2.0, -2.0, 2.0])
    found = slopes(ratio.log(), torch.zeros(4).double(), advantages)
    torch.testing.assert_close(found, tensor([0.0, 0.0, 3.0, -1.0]))


def test_a_wide_clip_is_importance_weighting():
    """Dynamic Reward Weighting's clip of 100: -rho A with gradient -rho A, linear in the advantages."""
    old, logprobs, advantages = random(3, 50)
    expected = -(logprobs - old).exp() * advantages
    torch.testing.assert_close(objective(logprobs, old, advantages, (100.0, 100.0)), expected)
    torch.testing.assert_close(slopes(logprobs, old, advantages, (100.0, 100.0)), expected)


def test_nan_stays_in_its_sequence():
    owner = torch.tensor([0, 1, 1, 2])
    loss = clipped_objective(random(4), random(4, seed=1), tensor([1.0, math.nan, 2.0]), owner, CLIP)
    assert torch.isnan(loss).tolist() == [False, True, True, False]
    assert torch.isnan(per_sequence(loss, owner, 3, "mean")).tolist() == [False, True, False]


@pytest.mark.parametrize("clip", [(-0.1, 0.2), (0.2, -0.1), (math.nan, 0.2)])
def test_a_clip_below_zero_is_refused(clip):
    with pytest.raises(ValueError, match=r"clip is \(.*\); expected two numbers of at least 0"):
        objective(random(2), random(2), random(2), clip)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_k2_and_k3_on_answers_of_one_token(seed):
    """grad E[k2], samples fixed, is grad KL(pi || ref); that of k3 is grad KL(ref || pi), which in logits is pi - ref.

    The value of k3 is KL(pi || ref) all the same: it reports one divergence and descends the other.
    """
    theta, reference = (2 * random(4, seed=seed)).requires_grad_(True), random(4, seed=9).log_softmax(0)
    logprobs = theta.log_softmax(0)
    pi, ref = logprobs.exp().detach(), reference.exp()
    divergence = logprobs.exp() @ (logprobs - reference)
    reverse, forward = (
        torch.autograd.grad(each, theta, retain_graph=True)[0] for each in (divergence, -(ref @ logprobs))
    )
    for kind, expected in (("k2", reverse), ("k3", forward)):
        loss = pi @ kl_per_token(logprobs, reference, kind)
        found = torch.autograd.grad(loss, theta, retain_graph=True)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(forward, pi - ref)
    torch.testing.assert_close(loss, divergence)
    assert torch.cosine_similarity(forward, reverse, dim=0) < 0.99


def test_divergences_are_positive_and_vanish_for_equal_policies():
    """Both have value and slope 0 at l = 0, and second derivative 1 there: close to the reference they are the same."""
    gap = random(300)
    for kind in ("k2", "k3"):
        assert (kl_per_token(gap, torch.zeros(300).double(), kind) >= 0).all()
        assert kl_per_token(gap, gap, kind).tolist() == [0.0] * 300
        near = kl_per_token(tensor([1e-3, -1e-3]), tensor([0.0, 0.0]), kind)
        torch.testing.assert_close(near, tensor([5e-7, 5e-7]), rtol=1e-3, atol=0)
    torch.testing.assert_close(kl_per_token(tensor([-2.0]), tensor([0.0]), "k3"), tensor([math.exp(2) - 3]))


def test_k3_in_single_precision_has_no_noise_near_zero():
    """exp(-l) - 1 + l is 5e-9 at l = 1e-4; written without expm1, float32 gives multiples of 6e-8."""
    found = kl_per_token(torch.tensor([1e-4]), torch.tensor([0.0]), "k3").item()
    assert found == pytest.approx(5e-9, rel=0.01)


@pytest.mark.parametrize("g", [2, 3, 8])
def test_kl_advantages_compare_with_the_others(g):
    """-(c - mean of the others), written as a loop; a shift of all changes nothing, and the advantages sum to 0."""
    c = 3 * random(5, g)
    expected = torch.stack([-(c[:, i] - c[:, [j for j in range(g) if j != i]].mean(1)) for i in range(g)], dim=1)
    torch.testing.assert_close(kl_advantages(c), expected)
    torch.testing.assert_close(kl_advantages(c + 40), expected)
    torch.testing.assert_close(expected.sum(1), torch.zeros(5).double())


def test_kl_advantages_of_one_sample_of_nan_and_of_a_graph():
    """g = 1: -c. NaN spoils its own group. An advantage is a constant, whatever it was computed from."""
    assert kl_advantages(tensor([[2.0], [-1.0]])).tolist() == [[-2.0], [1.0]]
    assert torch.isnan(kl_advantages(tensor([[1.0, math.nan], [1.0, 2.0]]))).tolist() == [[True, True], [False, False]]
    assert not kl_advantages(random(2, 2).requires_grad_(True)).requires_grad


def test_length_rules_by_hand():
    """Tokens of three sequences in mixed order, and a fourth that has none."""
    values, owner = tensor([1.0, 10.0, 2.0, 20.0, 6.0]), torch.tensor([0, 1, 0, 1, 2])
    assert per_sequence(values, owner, 4, "sum").tolist() == [3.0, 30.0, 6.0, 0.0]
    assert per_sequence(values, owner, 4, "mean").tolist() == [1.5, 15.0, 6.0, 0.0]
    assert per_sequence(values, owner, 4, 8.0).tolist() == [0.375, 3.75, 0.75, 0.0]
    assert per_sequence(tensor([]), owner[:0], 2, "mean").tolist() == [0.0, 0.0]


def test_length_rules_are_linear():
    """d/d values is 1/|y|, 1 or 1/c for the tokens of the own sequence."""
    owner = torch.tensor([0, 0, 1])
    for rule, expected in (("mean", [0.5, 0.5, 1.0]), ("sum", [1.0] * 3), (4.0, [0.25] * 3)):
        found = jacobian(lambda values, rule=rule: per_sequence(values, owner, 2, rule), random(3))
        torch.testing.assert_close(found.sum(0), tensor(expected))
        assert found[0, 2] == found[1, 0] == found[1, 1] == 0


@pytest.mark.parametrize("constant", [0.0, -3.0, math.nan])
def test_a_length_that_is_not_positive_is_refused(constant):
    with pytest.raises(ValueError, match=r"divided by (0|-3|nan); expected the longest length, above 0"):
        per_sequence(random(2), torch.tensor([0, 0]), 1, constant)


def test_each_estimator_has_its_length_rule():
    assert LENGTH == {"grpo": "mean", "rloo": "sum", "reinforce": "sum", "dr_grpo": "constant"}
