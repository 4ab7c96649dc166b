"""MODPO: what it is equal to, the numbers of its paper, its gradient, and the policy it leads to."""

import math

import pytest
import torch

from moalign.losses import dpo_loss, modpo_loss, preference_loss


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logit_of(loss):
    """d from loss = -log sigma(d): d = -log(e^loss - 1)."""
    return -math.log(math.expm1(loss))


def every(weights, n):
    return torch.tensor(weights, dtype=torch.float64).expand(n, -1)


def test_one_objective_is_dpo():
    """K = 1, w = 1: nothing is subtracted and nothing divided; the margin of the primary itself is never read."""
    chosen, rejected, *reference = 10 * random(4, 40)
    log_ratio = (chosen - reference[0]) - (rejected - reference[1])
    expected = dpo_loss(chosen, rejected, *reference, beta=0.1)
    for margins, weights in ((torch.zeros(40, 1), [1.0]), (random(40, 3), [1.0, 0.0, 0.0])):
        found = modpo_loss(log_ratio, margins.double(), every(weights, 40), 0, beta=0.1)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], [0.05, 0.05, 0.9], [1.0, 0.1, 0.1]])
@pytest.mark.parametrize("primary", [0, 1, 2])
def test_no_margin_is_dpo_at_beta_over_w(weights, primary):
    """All other margins 0, or equal on both sides so that their difference is 0: DPO with beta / w_k.

    The third preference is the paper's own (1, 0.1), which does not sum to 1.
    """
    log_ratio = 20 * random(30)
    found = modpo_loss(log_ratio, torch.zeros(30, 3).double(), every(weights, 30), primary, beta=0.1)
    torch.testing.assert_close(found, preference_loss(0.1 / weights[primary] * log_ratio), rtol=1e-9, atol=1e-9)
    both = 5 * random(30, 3, seed=1)
    same = modpo_loss(log_ratio, both - both, every(weights, 30), primary, beta=0.1)
    torch.testing.assert_close(same, found)


@pytest.mark.parametrize(("own", "logit"), [(1.0, 0.3), (0.5, 4.6), (0.1, 39.0)])
def test_known_numbers_and_the_sign_of_the_margin(own, logit):
    """Log-ratio gap 3, beta .1, margin rewards 0 for the chosen and 4 for the rejected response: D r = 0 - 4 = -4.

    (1/w)(.1 * 3 - (1 - w)(-4)) is .3 for w = 1, (.3 + 2)/.5 = 4.6 for .5, and (.3 + 3.6)/.1 = 39 for .1: the pair goes
    against the other objective, so the policy must have moved further before this loss is content.
    """
    weights = torch.tensor([own, 1 - own], dtype=torch.float64)
    margins = torch.tensor([math.nan, 0.0 - 4.0], dtype=torch.float64)
    loss = modpo_loss(torch.tensor(3.0, dtype=torch.float64), margins, weights, 0, beta=0.1)
    torch.testing.assert_close(loss, preference_loss(torch.tensor(logit, dtype=torch.float64)), rtol=1e-9, atol=0)


def test_margin_is_subtracted():
    """A pair that the other objective favours as well needs less movement: its logit is lower, its loss higher."""
    weights = torch.tensor([0.5, 0.5])
    favoured, neutral = (
        modpo_loss(torch.tensor(3.0), torch.tensor([0.0, margin]), weights, 0, beta=0.1).item() for margin in (4.0, 0.0)
    )
    assert logit_of(neutral) == pytest.approx(0.6, abs=1e-5)
    assert logit_of(favoured) == pytest.approx(0.6 - 4, abs=1e-5)


def test_as_the_authors_code_writes_it():
    """Their trainer: rewards = (beta (logp - ref) - margins @ w[1:]) / w[0] of each response, then the difference."""
    policy, reference = 10 * random(2, 2, 25, seed=2)
    margins = random(2, 25, 2, seed=3)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    rewards = (0.1 * (policy - reference) - margins @ weights[1:]) / weights[0]
    expected = -torch.nn.functional.logsigmoid(rewards[0] - rewards[1])
    log_ratio = (policy - reference)[0] - (policy - reference)[1]
    gap = torch.cat([torch.zeros(25, 1), margins[0] - margins[1]], dim=1)
    torch.testing.assert_close(modpo_loss(log_ratio, gap, weights.expand(25, 3), 0, beta=0.1), expected)


def test_gradient_is_the_formula():
    """dL/d(log-ratio gap) = -(beta / w_k) sigma(-D), and no gradient goes anywhere else."""
    log_ratio = (5 * random(20)).requires_grad_(True)
    margins, weights = random(20, 2, seed=1), torch.rand(20, 2).double() + 0.1
    (found,) = torch.autograd.grad(modpo_loss(log_ratio, margins, weights, 1, beta=0.3).sum(), log_ratio)
    logit = (0.3 * log_ratio - weights[:, 0] * margins[:, 0]) / weights[:, 1]
    torch.testing.assert_close(found, -(0.3 / weights[:, 1]) * torch.sigmoid(-logit))


@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.3, 0.3, 0.4], [1.0, 0.1]])
@pytest.mark.parametrize("primary", [0, 1])
def test_the_optimum_is_the_tilted_reference(weights, primary, beta):
    """Trained on all pairs of five responses with Bradley-Terry probabilities, pi becomes pi_ref exp(w.r/beta)/Z.

    The pairs are those of the primary alone, and the same policy comes out whichever objective that is.
    """
    rewards = beta * random(5, len(weights), seed=4)
    reference = torch.log_softmax(random(5, seed=5), 0)
    mixture = torch.tensor(weights, dtype=torch.float64)
    exact = torch.softmax(reference + rewards @ mixture / beta, 0)
    first, second = torch.triu_indices(5, 5, offset=1)
    gap = rewards[first] - rewards[second]
    probability = torch.sigmoid(gap[:, primary])
    theta = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([theta], max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure():
        optimiser.zero_grad()
        ratio = torch.log_softmax(theta, 0) - reference
        loss = modpo_loss(
            ratio[first] - ratio[second],
            gap,
            mixture.expand(10, -1),
            primary,
            beta=beta,
            probability=probability,
        ).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(torch.softmax(theta.detach(), 0), exact, rtol=0, atol=1e-4)


def test_weights_differ_by_pair():
    """One call may hold pairs of several preferences: each is computed as if it were alone."""
    log_ratio, margins = random(3), random(3, 2, seed=1)
    weights = torch.tensor([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]], dtype=torch.float64)
    together = modpo_loss(log_ratio, margins, weights, 0, beta=0.1)
    alone = [modpo_loss(log_ratio[i], margins[i], weights[i], 0, beta=0.1) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone))


def test_margins_that_nobody_needs_may_be_nan():
    """NaN in the primary's own column, or under a weight of 0, is not read; under a positive weight it shows."""
    weights = torch.tensor([[0.5, 0.0, 0.5]])
    margins = torch.tensor([[math.nan, math.nan, 1.0]])
    log_ratio = torch.tensor([3.0], requires_grad=True)
    loss = modpo_loss(log_ratio, margins, weights, 0, beta=0.1)
    loss.backward()
    assert torch.isfinite(loss).all()
    assert log_ratio.grad is not None
    assert torch.isfinite(log_ratio.grad).all()
    assert torch.isnan(modpo_loss(torch.tensor([3.0]), margins, torch.tensor([[0.5, 0.1, 0.4]]), 0, beta=0.1)).all()


def test_negative_weights_count():
    """A direction may point away from an objective; its margin then counts with that sign, and is not dropped."""
    margins, weights = torch.tensor([0.0, 4.0]), torch.tensor([0.8, -0.6])
    loss = modpo_loss(torch.tensor(3.0), margins, weights, 0, beta=0.1).item()
    assert logit_of(loss) == pytest.approx((0.3 + 0.6 * 4) / 0.8, abs=1e-4)


@pytest.mark.parametrize("own", [0.0, -0.2, math.nan])
def test_primary_without_weight_is_refused(own):
    """At w_k = 0 the loss would be an infinitely hard constraint."""
    with pytest.raises(ValueError, match=r"primary objective's weight is (0|-0.2|nan); MODPO needs it positive"):
        modpo_loss(torch.zeros(2), torch.zeros(2, 2), torch.tensor([[own, 1.0], [0.5, 0.5]]), 0, beta=0.1)
