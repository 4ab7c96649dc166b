"""Several next-token distributions as one, against the optimisation problem that it solves."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from moalign.errors import ConfigError, DataError
from moalign.serving.decoding import DIVERGENCES, combine, with_base

ALL = list(DIVERGENCES)
WITH_REFERENCE = ["forward_kl", "jsd"]
# f and its derivative, as in the definition of each divergence D_f(p || ref) = sum ref f(p / ref).
F: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "reverse_kl": (lambda t: t * np.log(t), lambda t: np.log(t) + 1),
    "forward_kl": (lambda t: -np.log(t), lambda t: -1 / t),
    "jsd": (lambda t: t * np.log(t) - (t + 1) * np.log((t + 1) / 2), lambda t: np.log(2 * t / (t + 1))),
}


def drawn(lanes: int, v: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(lanes, v, generator=generator, dtype=torch.float64)).log_softmax(-1)


def lanes_of(logprobs: Tensor, shares: list[float], divergence: str) -> tuple[Tensor, list[float]]:
    """Experts and a reference, the last row, as `combine` takes them."""
    return (logprobs[:-1], shares) if divergence == "reverse_kl" else (logprobs, [*shares, 0.0])


@pytest.mark.parametrize("divergence", ALL)
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_optimum_of_the_shared_rewards(divergence: str, seed: int) -> None:
    """Five tokens, two experts, beta = 1. A reward for which pi_i is best is r_i = f'(pi_i / ref).

    max_p sum_i w_i p.r_i - sum ref f(p / ref), found by BFGS over the logits, is what `combine` gives, and at
    that the objective is no less than at what the search found.
    """
    logprobs, shares = drawn(3, 5, seed), [0.3, 0.7]
    f, slope = F[divergence]
    *experts, reference = logprobs.exp().numpy()
    reward = sum(share * slope(expert / reference) for share, expert in zip(shares, experts, strict=True))

    def loss(logits: np.ndarray) -> float:
        p = np.exp(logits - logits.max())
        p /= p.sum()
        return float((reference * f(p / reference)).sum() - p @ reward)

    searched = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9})
    best = np.exp(searched.x - searched.x.max())
    found = combine(*lanes_of(logprobs, shares, divergence), divergence)
    assert found.exp().numpy() == pytest.approx(best / best.sum(), abs=1e-6)
    assert loss(found.numpy()) <= searched.fun + 1e-12


@pytest.mark.parametrize("divergence", ALL)
def test_the_slopes_differ_by_one_number(divergence: str) -> None:
    """The condition of the optimum: f'(p/ref) - sum_i w_i f'(pi_i/ref) is the same Z for every token."""
    logprobs, shares = drawn(4, 50, 1, scale=3.0), [0.2, 0.5, 0.3]
    *experts, reference = logprobs.exp().numpy()
    slope = F[divergence][1]
    p = combine(*lanes_of(logprobs, shares, divergence), divergence).exp().numpy()
    mixed = sum(share * slope(expert / reference) for share, expert in zip(shares, experts, strict=True))
    z = slope(p / reference) - mixed
    assert p.sum() == pytest.approx(1, abs=1e-12)
    # Near a pole 1/t is large and Z a difference of large numbers.
    assert z == pytest.approx(np.full(50, np.median(z)), abs=1e-8 * (1 + np.abs(mixed).max()))


def test_reverse_kl_by_hand() -> None:
    """sqrt(.9 * .4) = .6 and sqrt(.1 * .6) = .245: .6 / .845 = .710."""
    found = combine(torch.tensor([[0.9, 0.1], [0.4, 0.6]]).log(), [0.5, 0.5], "reverse_kl")
    root = math.sqrt(0.06)
    assert found.exp().tolist() == pytest.approx([0.6 / (0.6 + root), root / (0.6 + root)])


def test_forward_kl_by_hand() -> None:
    """ref (1/2, 1/2) and experts (3/4, 1/4), (1/4, 3/4): x is (2/3, 2) and (2, 2/3), shared 4/3 on both tokens.

    With shares (1/2, 1/2) so p = (1/2)/(4/3 + Z) each: Z = -1/3. With (3/4, 1/4) x is (1, 5/3): d = 1 + Z solves
    1/(2d) + 1/(2d + 4/3) = 1, that is d = (1 + sqrt(13)) / 6.
    """
    two = torch.tensor([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]], dtype=torch.float64).log()
    assert combine(two, [0.5, 0.5, 0.0], "forward_kl").exp().tolist() == pytest.approx([0.5, 0.5])
    first = 3 / (1 + math.sqrt(13))
    assert combine(two, [0.75, 0.25, 0.0], "forward_kl").exp().tolist() == pytest.approx([first, 1 - first])


def test_jsd_by_hand() -> None:
    """The same experts: (1 + x) is (5/3, 3) and (3, 5/3), the root of whose product is sqrt(5) on both tokens."""
    two = torch.tensor([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]], dtype=torch.float64).log()
    assert combine(two, [0.5, 0.5, 0.0], "jsd").exp().tolist() == pytest.approx([0.5, 0.5])


def test_scaling_instead_of_z_is_another_distribution() -> None:
    """What leaving Z out gives for the forward KL: the harmonic mean, scaled; here 3 % off."""
    logprobs, shares = drawn(3, 5, 0), torch.tensor([[0.3], [0.7]])
    scaled = 1 / (shares / logprobs[:2].exp()).sum(0)
    exact = combine(logprobs, [0.3, 0.7, 0.0], "forward_kl").exp()
    assert (scaled / scaled.sum() - exact).abs().max() > 0.003


@pytest.mark.parametrize("divergence", ALL)
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_experts_that_agree_are_agreed_with(divergence: str, scale: float) -> None:
    """Also far from the reference, where probabilities are as small as e^-100."""
    logprobs = drawn(2, 40, 3, scale)
    same = torch.stack([logprobs[0], logprobs[0], logprobs[1]])
    found = combine(*lanes_of(same, [0.4, 0.6], divergence), divergence)
    assert found.tolist() == pytest.approx(logprobs[0].tolist(), abs=1e-8)


@pytest.mark.parametrize("divergence", ALL)
def test_all_of_the_share_is_that_expert_bit_for_bit(divergence: str) -> None:
    logprobs = drawn(3, 40, 4).float()
    logprobs[0, 3] = -torch.inf
    for place in range(3):
        shares = [float(lane == place) for lane in range(3)]
        assert torch.equal(combine(logprobs, shares, divergence), logprobs[place])


@pytest.mark.parametrize("divergence", ALL)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 30), share=st.floats(1e-6, 1 - 1e-6))
def test_it_is_a_distribution_whatever_the_order_of_lanes(
    divergence: str, seed: int, scale: float, share: float
) -> None:
    logprobs = drawn(3, 30, seed, scale)
    found = combine(*lanes_of(logprobs, [share, 1 - share], divergence), divergence)
    turned = combine(*lanes_of(logprobs[[1, 0, 2]], [1 - share, share], divergence), divergence)
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert found.tolist() == pytest.approx(turned.tolist(), abs=1e-9)


def test_lanes_of_share_0_count_nothing() -> None:
    """Not even where they are impossible."""
    logprobs = drawn(3, 10, 5)
    logprobs[2] = -torch.inf
    assert torch.equal(combine(logprobs, [0.5, 0.5, 0.0], "reverse_kl"), combine(logprobs[:2], [0.5] * 2, "reverse_kl"))


@pytest.mark.parametrize("divergence", ALL)
@pytest.mark.parametrize("lane", [0, 1])
def test_what_is_impossible_for_an_expert_is_impossible(divergence: str, lane: int) -> None:
    """The others are combined as if the token were not in the vocabulary."""
    logprobs = drawn(3, 10, 6)
    logprobs[lane, 4] = -torch.inf
    logprobs[:, 7] = -torch.inf
    without = [place for place in range(10) if place not in (4, 7)]
    found = combine(*lanes_of(logprobs, [0.5, 0.5], divergence), divergence)
    assert found[[4, 7]].tolist() == [-math.inf] * 2
    assert found.exp().sum().item() == pytest.approx(1)
    if divergence == "reverse_kl":
        assert found[without].tolist() == pytest.approx(
            combine(logprobs[:2, without], [0.5, 0.5], divergence).tolist(), abs=1e-12
        )


@pytest.mark.parametrize("divergence", ALL)
def test_no_token_in_common_is_refused(divergence: str) -> None:
    logprobs = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0], [math.log(0.5)] * 2])
    with pytest.raises(DataError, match="no possible token in common"):
        combine(*lanes_of(logprobs, [0.5, 0.5], divergence), divergence)


@pytest.mark.parametrize("divergence", WITH_REFERENCE)
def test_extremes_stay_a_distribution(divergence: str) -> None:
    """One token that the reference all but forbids and the experts want; ratios that overflow on others."""
    logprobs = torch.tensor([[-1e-9, -900.0, -30.0], [-1e-9, -900.0, -40.0], [-800.0, -1e-9, -20.0]])
    found = combine(logprobs.double(), [0.5, 0.5, 0.0], divergence)
    assert found[0].exp().item() == pytest.approx(1, abs=1e-6)
    assert not found.isnan().any()


@pytest.mark.parametrize("divergence", WITH_REFERENCE)
def test_floats_come_back_as_they_came_and_sum_to_1(divergence: str) -> None:
    found = combine(drawn(4, 32_000, 7, 3.0).float(), [0.2, 0.3, 0.5, 0.0], divergence)
    assert found.dtype == torch.float32
    assert found.double().exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("divergence", WITH_REFERENCE)
@pytest.mark.parametrize("scale", [0.5, 3.0, 8.0])
def test_the_search_takes_few_steps(monkeypatch: pytest.MonkeyPatch, divergence: str, scale: float) -> None:
    """Newton's: halving alone would pass over 32,000 tokens 40 times, and each pass takes about half a millisecond."""
    kind, passes = DIVERGENCES[divergence], []

    def counted(levels: Tensor) -> Tensor:
        passes.append(levels)
        return kind.down(levels)

    monkeypatch.setitem(DIVERGENCES, divergence, replace(kind, down=counted))
    combine(drawn(4, 32_000, 8, scale).float(), [0.2, 0.3, 0.5, 0.0], divergence)
    assert 2 < len(passes) <= 10


def test_a_reference_is_added_where_it_counts() -> None:
    lanes = ({"a": 1.0}, {"b": 1.0})
    assert with_base(lanes, (0.4, 0.6), "reverse_kl") == (lanes, (0.4, 0.6))
    for divergence in WITH_REFERENCE:
        assert with_base(lanes, (0.4, 0.6), divergence) == ((*lanes, {}), (0.4, 0.6, 0.0))
        assert with_base(lanes[:1], (1.0,), divergence) == (lanes[:1], (1.0,))


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.4], [1.5, -0.5], [math.nan, 1.0], []])
def test_shares_that_do_not_fit_are_refused(shares: list[float]) -> None:
    with pytest.raises(DataError, match="for 2 lanes; expected one each"):
        combine(drawn(2, 3, 0), shares, "reverse_kl")


def test_an_unknown_divergence_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown divergence 'forward'; did you mean 'forward_kl'"):
        combine(drawn(2, 3, 0), [0.5, 0.5], "forward")
