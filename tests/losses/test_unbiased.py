"""The expected gradient of every estimator, by enumeration of all samples, against the true gradient by autograd.

A world is a tabular softmax policy: `blocks` are the sizes of its next-token distributions, and an answer is the list
of its tokens' numbers in them. In LONG the answers a, b, cd and ce have 1, 1, 2 and 2 tokens. Nothing is statistical:
the expectation over every batch of g answers per prompt is a finite sum.
"""

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch

from moalign.losses import (
    LENGTH,
    Baseline,
    advantage_parts,
    clipped_objective,
    combine,
    kl_advantages,
    kl_per_token,
    per_sequence,
)

CAP = 5.0  # Dr. GRPO's length constant


def table(rows):
    return torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True)
class World:
    blocks: tuple[int, ...]
    answers: list[list[list[int]]]  # prompt, answer, token
    rewards: list[torch.Tensor]  # prompt -> Float[a, m]
    weights: torch.Tensor

    def theta(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(sum(self.blocks), generator=generator, dtype=torch.float64).requires_grad_(True)

    def tokens(self, theta):
        return torch.cat([block.log_softmax(0) for block in theta.split(self.blocks)])

    def answer_logprobs(self, theta, prompt=0):
        tokens = self.tokens(theta)
        return torch.stack([tokens[answer].sum() for answer in self.answers[prompt]])

    def true(self, theta):
        """grad of the mean over prompts of E[w.r]."""
        values = [self.answer_logprobs(theta, p).exp() @ (r @ self.weights) for p, r in enumerate(self.rewards)]
        return gradient(torch.stack(values).mean(), theta)


ONE = table([1.0])
SCORES = table([[0.2, 1.0], [1.5, -0.4], [0.9, 0.8], [-1.0, 2.5]])
LONG = World((3, 2), [[[0], [1], [2, 3], [2, 4]]], [SCORES], table([0.3, 0.7]))
BINARY = World((3,), [[[0], [1], [2]]], [table([[1.0], [0.0], [0.0]])], ONE)


def gradient(value, theta):
    return torch.autograd.grad(value, theta)[0]


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def cosine(a, b):
    return torch.cosine_similarity(a, b, dim=0).item()


def batches(world, theta, g):
    """Every batch of g answers per prompt: its probability, log-probabilities of its tokens, owners, and rewards."""
    tokens = world.tokens(theta)
    chances = [world.answer_logprobs(theta, p).exp().detach() for p in range(len(world.answers))]
    every = [itertools.product(range(len(answers)), repeat=g) for answers in world.answers]
    for picks in itertools.product(*every):
        sequences = [world.answers[p][i] for p, pick in enumerate(picks) for i in pick]
        chance = math.prod(chances[p][i].item() for p, pick in enumerate(picks) for i in pick)
        flat = torch.tensor([token for sequence in sequences for token in sequence])
        owner = torch.tensor([i for i, sequence in enumerate(sequences) for _ in sequence])
        rewards = torch.stack([world.rewards[p][list(pick)] for p, pick in enumerate(picks)])
        yield chance, flat, tokens[flat], owner, rewards


def climb(world, theta, g, advantages, length):
    """Minus the expected gradient of the loss at the policy that drew the samples."""
    total = torch.zeros((), dtype=torch.float64)
    for chance, flat, logprobs, owner, rewards in batches(world, theta, g):
        given = advantages(logprobs.detach(), flat, owner, rewards).flatten()
        loss = clipped_objective(logprobs, logprobs.detach(), given, owner, (0.2, 0.2))
        total = total + chance * per_sequence(loss, owner, len(given), length).mean()
    return -gradient(total, theta)


def expected(world, theta, g, estimator, aggregation="sum_then_normalize", baseline=None):
    def advantages(_logprobs, _flat, _owner, rewards):
        parts = advantage_parts(rewards, world.weights, estimator, aggregation, baseline)
        return combine(parts, world.weights, aggregation)

    rule = LENGTH[estimator]
    return climb(world, theta, g, advantages, CAP if rule == "constant" else rule)


def two_prompts(world, scale):
    """The same question a second time, under logits of its own, with rewards times `scale`."""
    first = sum(world.blocks)
    moved = [[token + first for token in answer] for answer in world.answers[0]]
    rewards = [world.rewards[0], scale * world.rewards[0]]
    return replace(world, blocks=2 * world.blocks, answers=[world.answers[0], moved], rewards=rewards)


@pytest.mark.parametrize("g", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_rloo_is_unbiased_and_dr_grpo_short_by_a_known_share(g, seed):
    """E[(r_i - mean of the others) grad log pi(y_i)] = grad E[r]: the others know nothing of y_i.

    Dr. GRPO's mean holds r_i itself with 1/g: exactly (g-1)/g of the gradient, over the length constant.
    """
    theta = LONG.theta(seed)
    true = LONG.true(theta)
    same(expected(LONG, theta, g, "rloo"), true)
    same(expected(LONG, theta, g, "dr_grpo"), (g - 1) / g / CAP * true)


@pytest.mark.parametrize("g", [1, 2, 3])
@pytest.mark.parametrize("mean", [[0.0, 0.0], [0.5, -3.0], [100.0, 7.0]])
def test_reinforce_is_unbiased_under_any_fixed_baseline(g, mean):
    """E[b grad log pi] = 0 for every b that does not look at the sample."""
    theta, baseline = LONG.theta(), Baseline(table(mean), table([1.0, 2.0]))
    same(expected(LONG, theta, g, "reinforce", baseline=baseline), LONG.true(theta))


def test_reinforce_of_a_first_batch_is_unbiased():
    """Without a past, each sequence is compared with the others of the batch, of other prompts as well."""
    pair = two_prompts(LONG, 10.0)
    for world, g in ((LONG, 1), (LONG, 3), (pair, 1), (pair, 2)):
        theta = world.theta(3)
        same(expected(world, theta, g, "reinforce"), world.true(theta))


def pull(p, g):
    """sqrt((g-1)/g) E[sqrt(N (g-N))] / (g p (1-p)), N ~ Binomial(g, p)."""
    mean = sum(math.comb(g, n) * p**n * (1 - p) ** (g - n) * math.sqrt(n * (g - n)) for n in range(g + 1))
    return math.sqrt((g - 1) / g) * mean / (g * p * (1 - p))


@pytest.mark.parametrize("g", [2, 3, 4])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-7.0, 1000.0)])
def test_grpo_on_one_prompt_of_two_values(g, low, high):
    """N of g get the larger s: their advantage is sqrt((g-1)/g) sqrt((g-N)/N), and the expected gradient pull grad p.

    The direction is right, and the step does not know how much there is to win.
    """
    world = replace(BINARY, rewards=[low + (high - low) * BINARY.rewards[0]])
    for seed in range(3):
        theta = world.theta(seed)
        p = world.answer_logprobs(theta).exp()[0].item()
        same(expected(world, theta, g, "grpo"), pull(p, g) * BINARY.true(theta))


def test_grpo_counts_rare_successes_more_from_four_samples_on():
    """The pull is 1/sqrt(2) for g = 2 and 2/sqrt(3) for g = 3 whatever p is; in the limit of large g, 1/deviation."""
    assert pull(0.05, 2) == pytest.approx(pull(0.5, 2)) == pytest.approx(1 / math.sqrt(2))
    assert pull(0.05, 3) == pytest.approx(pull(0.5, 3)) == pytest.approx(2 / math.sqrt(3))
    assert pull(0.05, 4) > 1.05 * pull(0.5, 4)
    assert pull(0.3, 1000) == pytest.approx(1 / math.sqrt(0.3 * 0.7), rel=0.01)


def test_grpo_weighs_prompts_alike_whatever_is_at_stake():
    """Two prompts, one worth ten times the other: the truth is ten times as steep there, GRPO exactly as steep."""
    pair = two_prompts(BINARY, 10.0)
    theta = pair.theta().detach()[:3].repeat(2).requires_grad_(True)
    true, found = pair.true(theta), expected(pair, theta, 2, "grpo")
    same(true[3:], 10 * true[:3])
    same(found[3:], found[:3])
    same(expected(pair, theta, 2, "rloo"), true)
    assert cosine(found, true) == pytest.approx(11 / math.sqrt(2 * 101))  # (1, 10) against (1, 1): 0.774


def test_grpo_of_two_samples_climbs_the_chance_to_win():
    """g = 2: the advantage is sign(r_1 - r_2)/sqrt(2), which does not know by how much an answer is better.

    With f(y) = E sign(r(y) - r(y')) under the present policy, the climb is grad E[f] / sqrt(2), not along grad E[r].
    """
    world = replace(BINARY, rewards=[table([[10.0], [1.0], [0.0]])])
    theta = world.theta(1)
    chances, reward = world.answer_logprobs(theta).exp(), world.rewards[0][:, 0]
    wins = torch.sign(reward[:, None] - reward) @ chances.detach()
    found = expected(world, theta, 2, "grpo")
    same(found, gradient(chances @ wins, theta) / math.sqrt(2))
    assert cosine(found, world.true(theta)) < 0.99


def test_the_mean_over_tokens_turns_the_direction():
    """Two values, one prompt, where equal lengths would be exact: the second block, of 2-token answers only, gets half.

    The uniform policy likes c for nothing (one of its two answers is right), so that the first block has its full step.
    In general, d_y = P(y) E[A | y]: the climb is sum_y d_y grad log pi(y) / |y|. Under the sum it is the truth again.
    """
    world = replace(LONG, rewards=[table([[1.0], [0.0], [1.0], [0.0]])], weights=ONE)
    theta = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    true = world.true(theta) / math.sqrt(2)
    same(expected(world, theta, 2, "grpo"), true * table([1, 1, 1, 0.5, 0.5]))
    summed = climb(world, theta, 2, lambda *batch: advantage_parts(batch[-1], ONE, "grpo", "sum_then_normalize"), "sum")
    same(summed, true)
    theta, reward = world.theta(5), world.rewards[0][:, 0]
    logprobs = world.answer_logprobs(theta)
    chances, lengths = logprobs.exp().detach(), table([1, 1, 2, 2])
    d = chances * (reward - chances @ reward) / math.sqrt(2)
    found = expected(world, theta, 2, "grpo")
    same(found, gradient((d / lengths) @ logprobs, theta))
    assert cosine(found, world.true(theta)) < 0.99


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "dr_grpo", "reinforce"])
def test_normalising_first_is_biased(estimator):
    """Equal lengths, one prompt, two objectives in conflict, the second in units ten times as small.

    The truth climbs .3 x 10 of the second against .7 of the first; each in its own deviation, the first wins.
    """
    world = replace(BINARY, rewards=[table([[1.0, 0.0], [0.0, 10.0], [0.0, 0.0]])], weights=table([0.7, 0.3]))
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    baseline = Baseline(world.rewards[0].mean(0), world.rewards[0].std(0)) if estimator == "reinforce" else None
    found, true = expected(world, theta, 3, estimator, "normalize_then_sum", baseline), world.true(theta)
    assert true[1] > 0 > true[0]
    assert found[0] > found[1] > found[2]
    assert cosine(found, true) < 0.8


def test_whitening_couples_prompts():
    """One objective of two values, where GRPO's direction is exact on each prompt; its length depends on the neighbour.

    On one prompt whitening repeats the division. On two, a group is enlarged where the neighbour's is flat.
    """
    theta = BINARY.theta()
    alone = expected(BINARY, theta, 2, "grpo", "normalize_then_sum")
    same(alone, expected(BINARY, theta, 2, "grpo"))
    pair = two_prompts(BINARY, 10.0)
    steep = []
    for neighbour in ([0.0, 0.0, 0.0], [-6.0, 0.0, 0.0]):  # the second almost never succeeds: its groups are flat
        both = torch.cat([theta.detach(), table(neighbour)]).requires_grad_(True)
        steep.append(expected(pair, both, 2, "grpo", "normalize_then_sum")[:3])
        assert cosine(steep[-1], alone) == pytest.approx(1)
    assert steep[1].norm() > 1.05 * steep[0].norm()


def divergence(theta, reference):
    """KL(pi || ref) of whole answers in LONG."""
    logprobs = LONG.answer_logprobs(theta)
    return logprobs.exp() @ (logprobs - LONG.answer_logprobs(reference).detach())


@pytest.mark.parametrize("g", [1, 2, 3])
def test_k1_as_a_reward_is_exact(g):
    """Its expected climb is -grad KL of whole sequences, of any length; as a loss, k1 has no gradient at all."""
    theta, reference = LONG.theta(4), LONG.theta(5)

    def advantages(logprobs, flat, owner, rewards):
        ratio = per_sequence(logprobs - LONG.tokens(reference).detach()[flat], owner, g, "sum")
        return kl_advantages(ratio.reshape(rewards.shape[:2]))

    true = gradient(divergence(theta, reference), theta)
    assert true.norm() > 0.1
    same(climb(LONG, theta, g, advantages, "sum"), -true)
    naive = sum(chance * logprobs.sum() for chance, _, logprobs, _, _ in batches(LONG, theta, 1))
    same(gradient(naive, theta), torch.zeros(5).double())


def slope(theta, reference, kind):
    """The expected gradient, and the expected value, of a divergence as a loss over the policy's answers in LONG."""
    total = torch.zeros((), dtype=torch.float64)
    for chance, flat, logprobs, owner, _ in batches(LONG, theta, 1):
        loss = kl_per_token(logprobs, LONG.tokens(reference).detach()[flat], kind)
        total = total + chance * per_sequence(loss, owner, 1, "sum").sum()
    return gradient(total, theta), total.item()


def test_what_k2_and_k3_leave_out_of_longer_answers():
    """k2 lacks E[sum_t grad log pi_t sum_{u>t} l_u]: what the first token does to the divergence of the second.

    In LONG that is E[grad log pi(first) l(second)], and only the first block feels it. k3 is grad KL(ref || pi) of
    each token given those before it, along the POLICY's answers: pi(c) (pi - ref) in the second block.
    """
    theta, reference = LONG.theta(8), LONG.theta(9)
    true = gradient(divergence(theta, reference), theta)
    tokens, other = LONG.tokens(theta), LONG.tokens(reference).detach()
    second = (tokens[3:].exp() * (tokens - other)[3:]).sum().detach()
    missing = gradient(tokens[2].exp().detach() * tokens[2] * second, theta)
    same(slope(theta, reference, "k2")[0] + missing, true)
    assert not missing[3:].any()
    assert missing.norm() > 0.01 * true.norm()
    pi, ref = tokens.exp().detach(), other.exp()
    found, value = slope(theta, reference, "k3")
    same(found, torch.cat([pi[:3] - ref[:3], pi[2] * (pi[3:] - ref[3:])]))
    assert value == pytest.approx(divergence(theta, reference).item(), abs=1e-12)
