"""DPO against TRL's way of writing it, and against the labels it is the likelihood of."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from moalign.losses import dpo_loss, preference_loss


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
def test_dpo_as_trl_writes_it(beta):
    """TRL: logits = (pi_c - pi_r) - (ref_c - ref_r), loss = -logsigmoid(beta logits); ours groups by response."""
    chosen, rejected, reference_chosen, reference_rejected = 30 * random(4, 50)
    logits = (chosen - rejected) - (reference_chosen - reference_rejected)
    found = dpo_loss(chosen, rejected, reference_chosen, reference_rejected, beta=beta)
    torch.testing.assert_close(found, -logsigmoid(beta * logits), rtol=1e-6, atol=1e-6)


def test_by_hand():
    """log-ratios +2 and -1, beta .5: logit 1.5, loss -log sigma(1.5) = log(1 + e^-1.5) = 0.201413."""
    found = dpo_loss(*torch.tensor([-8.0, -11.0, -10.0, -10.0]), beta=0.5)
    assert found.item() == pytest.approx(math.log1p(math.exp(-1.5)), rel=1e-6)
    assert found.item() == pytest.approx(0.201413, abs=1e-6)


def test_equal_policies_cost_log_two():
    """Where the policy is the reference, every pair costs log 2 and pulls with half of beta."""
    reference = random(2, 7)
    chosen, rejected = reference.clone().requires_grad_(True).unbind(0)
    loss = dpo_loss(chosen, rejected, *reference, beta=0.1)
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(2)))
    slopes = torch.autograd.grad(loss.sum(), (chosen, rejected))
    torch.testing.assert_close(torch.stack(slopes), torch.tensor([[-0.05], [0.05]]).double().expand(2, 7))


def test_probability_is_the_expectation_over_labels():
    """p L(won) + (1 - p) L(lost), so that p = 1 is the plain loss and p = 0 that of the pair turned round."""
    logit = random(20)
    won, lost = preference_loss(logit), preference_loss(-logit)
    for p in (0.0, 0.3, 0.5, 1.0):
        found = preference_loss(logit, torch.full_like(logit, p))
        torch.testing.assert_close(found, p * won + (1 - p) * lost)


@pytest.mark.parametrize("reward", [-3.0, -0.2, 0.0, 1.7])
def test_soft_labels_have_their_minimum_at_the_reward(reward):
    """d/dd [-p log sigma(d) - (1-p) log sigma(-d)] = sigma(d) - p, zero only at d = logit(p) = the reward gap."""
    probability = torch.sigmoid(torch.tensor([reward], dtype=torch.float64))
    d = torch.tensor([reward], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(preference_loss(d, probability).sum(), d)
    assert abs(slope.item()) < 1e-12
    least = preference_loss(d, probability)
    for step in (-0.1, 0.1):
        assert preference_loss(d + step, probability) > least


def test_far_logits_stay_finite():
    """-log sigma(-1000) is 1000 and not infinity, with slope -1; a pair that is won by far costs 0."""
    logit = torch.tensor([-1000.0, 1000.0], requires_grad=True)
    loss = preference_loss(logit)
    loss.sum().backward()
    assert loss.tolist() == [1000.0, 0.0]
    assert logit.grad is not None
    assert logit.grad.tolist() == [-1.0, 0.0]
