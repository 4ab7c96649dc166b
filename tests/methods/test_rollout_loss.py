"""The loss of rollouts: the same however prompts are read, and its columns add up."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.logprobs import Scorer
from moalign.methods.rollout_loss import RolloutLoss
from moalign.models import BaseModel, load_base
from moalign.rollouts import Environment, Rollouts

ENTRIES = [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.fixture(scope="module")
def base(tiny_base: Any) -> BaseModel:
    return load_base(str(tiny_base), device="cpu")


@pytest.fixture(scope="module")
def bank(base: BaseModel, random_adapter: Callable[..., Adapter]) -> Iterator[AdapterBank]:
    adapters = {name: random_adapter(base.model, seed) for seed, name in enumerate(("a", "b"))}
    with AdapterBank(base.model, adapters, trainable=True) as made:
        yield made


def loss(base: BaseModel, bank: AdapterBank, prompt: int, **changes: Any) -> RolloutLoss:
    """Two policies, two prompts of so many tokens, three completions of one to five tokens."""
    rng = np.random.default_rng(5)
    prompts = [rng.integers(3, 90, prompt).tolist() for _ in range(2)]
    responses = [rng.integers(3, 90, rng.integers(1, 6)).tolist() for _ in range(12)]
    rollouts = Rollouts(("a", "b"), [0, 1], responses, np.zeros((2, 2, 3, 2)), np.zeros((2, 2, 3), dtype=bool))
    settings: dict[str, Any] = {
        "kl": "k1",
        "beta": 0.3,
        "length": "mean",
        "keep": torch.ones(2, 2, 3, dtype=torch.bool),
    }
    settings |= changes
    environment = Environment(base, ["", ""], prompts, lambda *_: np.zeros((0, 2)), 5)
    return RolloutLoss(bank, Scorer.of(base.model), environment, rollouts, clip=(0.2, 0.2), **settings)


def advantages(columns: int | None = None) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (2, 3) if columns is None else (2, 3, columns)
    return {policy: torch.randn(shape, generator=generator) for policy in range(2)}


@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
def test_columns_add_up_to_the_loss_of_the_summed_advantages(base: BaseModel, bank: AdapterBank, kl: str) -> None:
    """On-policy the surrogate is linear in the advantage: its value and its gradient are sums, divergence included."""
    parts = advantages(2)
    apart, whole = loss(base, bank, 4, kl=kl, advantages=parts), loss(base, bank, 4, kl=kl)
    whole.advantages = {policy: part.sum(-1) for policy, part in parts.items()}
    columns, summed = apart(ENTRIES), whole(ENTRIES)
    assert columns.shape == (4, 3)
    torch.testing.assert_close(columns.sum(1), summed, atol=1e-5, rtol=1e-5)
    found = [torch.autograd.grad(each.sum(), bank.parameters()) for each in (columns, summed)]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_a_long_prompt_is_read_once_and_nothing_else_changes(base: BaseModel, bank: AdapterBank) -> None:
    """40 tokens of prompt and at most 15 of completions: one sequence per group; the same loss as one by one."""
    shared = loss(base, bank, 40, advantages=advantages())
    assert len(shared._pack(ENTRIES).ids) == len(ENTRIES)
    alone = loss(base, bank, 40, advantages=advantages())
    alone.scorer = Scorer(base.model, alone.scorer.head, shares_prompt=False)
    assert len(alone._pack(ENTRIES).ids) == 3 * len(ENTRIES)
    torch.testing.assert_close(shared(ENTRIES), alone(ENTRIES), atol=1e-5, rtol=1e-5)
    short = loss(base, bank, 2)
    assert len(short._pack(ENTRIES).ids) == 3 * len(ENTRIES)


def test_a_completion_that_does_not_count_has_no_gradient(base: BaseModel, bank: AdapterBank) -> None:
    """Alone in its group it leaves the loss 0; what is kept is still divided by the size of the group."""
    keep = torch.tensor([[[True, False, False], [False] * 3]] * 2)
    masked, plain = (
        loss(base, bank, 4, advantages=advantages(), beta=0.0, keep=mask) for mask in (keep, torch.ones_like(keep))
    )
    found = masked(ENTRIES)
    assert found[1] == found[3] == 0
    only = {p: torch.where(keep[p], a, torch.zeros_like(a)) for p, a in plain.advantages.items()}
    plain.advantages = only
    torch.testing.assert_close(found, plain(ENTRIES))


def test_kl_and_entropy_are_those_of_the_sampled_tokens(base: BaseModel, bank: AdapterBank) -> None:
    """By hand from log-probabilities of whole passes: mean over completions of sum (exp(-l) - 1 + l), and of -log p."""
    each = loss(base, bank, 4, advantages=advantages())
    each(ENTRIES[:2])
    prompts = [each.environment.prompt_ids[place] for place in (0, 0, 0, 1, 1, 1)]
    divergence, surprise, count = 0.0, 0.0, 0
    for prompt, response in zip(prompts, each.rollouts.responses[:6], strict=True):
        tokens = each.scorer.pack([prompt], [[response]], 0)
        with torch.no_grad():
            reference = each.scorer.token_logprobs(tokens).double()
            with bank.rows(bank.one_hot(["a"])):
                own = each.scorer.token_logprobs(tokens).double()
        gap = own - reference
        divergence += float(((-gap).exp() - 1 + gap).sum()) / 6
        surprise, count = surprise - float(own.sum()), count + len(response)
    kl, entropy = each.sampled(0)
    assert kl == pytest.approx(divergence, rel=1e-4)
    assert entropy == pytest.approx(surprise / count, rel=1e-4)
