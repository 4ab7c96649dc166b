"""Several next-token distributions as one: multi-objective decoding.

[MOD] Shi, Chen, Hu, Liu, Hajishirzi, Smith and Du 2024, "Decoding-Time Language Model Alignment with Multiple
      Objectives" (arXiv 2406.18853).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.errors import ConfigError, DataError, unknown

TOLERANCE = 1e-11  # of the sum of the probabilities, which is then made 1
FAINTEST = -700.0  # nats: a reference below it would underflow; a mass of 1e-304 more changes nothing
STEPS = 200  # halvings alone would need about 60


@dataclass(frozen=True)
class Divergence:
    """An f-divergence by how it sees x = ref / p: `up` is -f'(1/x) up to a constant, increasing; `down` its inverse.

    `rate` is the derivative of log `down`, given the value of `down`.
    """

    up: Callable[[Tensor], Tensor]  # of log x
    down: Callable[[Tensor], Tensor]
    rate: Callable[[Tensor], Tensor]


# The reverse KL needs no reference, and no search: it is a product.
DIVERGENCES: dict[str, Divergence | None] = {
    "reverse_kl": None,
    # f(t) = -log t, f'(t) = -1/t: x itself.
    "forward_kl": Divergence(torch.exp, lambda u: u, torch.reciprocal),
    # f(t) = t log t - (t + 1) log((t + 1)/2), f'(t) = log(2t / (t + 1)): log(1 + x) - log 2.
    "jsd": Divergence(lambda log_x: log_x.logaddexp(torch.zeros_like(log_x)), torch.expm1, lambda x: 1 + 1 / x),
}


def with_base(
    rows: tuple[dict[str, float], ...], shares: tuple[float, ...], divergence: str
) -> tuple[tuple[dict[str, float], ...], tuple[float, ...]]:
    """The lanes that `combine` needs: a last one for the base, of share 0, where the reference does not cancel.

    >>> with_base(({"a": 1.0}, {"b": 1.0}), (0.5, 0.5), "jsd")
    (({'a': 1.0}, {'b': 1.0}, {}), (0.5, 0.5, 0.0))
    """
    if len(rows) == 1 or DIVERGENCES[divergence] is None:
        return rows, shares
    return (*rows, {}), (*shares, 0.0)


def combine(logprobs: Float[Tensor, "l v"], shares: Sequence[float], divergence: str) -> Float[Tensor, " v"]:
    """The log-probabilities of the next token that serve all experts, each by its share.

    Expert i is taken to be best for its own reward r_i, less beta times the f-divergence from the reference; then

        p = argmax sum_i w_i E_p[r_i] - beta D_f(p || ref)      is      f'(p/ref) = sum_i w_i f'(pi_i/ref) + Z

    with the Z that makes p sum to 1  [MOD]. In closed form up to Z, with x_i = ref/pi_i:

        reverse_kl   p ~ prod_i pi_i^w_i                                 (the reference cancels)
        forward_kl   p = ref / (sum_i w_i x_i + Z)
        jsd          p = ref / (exp(Z) prod_i (1 + x_i)^w_i - 1)

    Z is found at each token by a bracketed Newton search in double precision. The authors' code has the first line
    only, a weighted sum of logits under a softmax. There Z is a factor, and scaling to 1 stands for it; for the other
    two, leaving Z out and scaling would be another distribution. Token by token, as the paper decodes: the optimum over
    whole answers has one Z per prompt and not one per token.

    Shares are >= 0 and sum to 1, one for each row. For `forward_kl` and `jsd` the last row is the reference, of share
    0 (`with_base`); rows of share 0 count nothing otherwise. An expert whose share is 1 is returned bit for bit. A
    token is impossible where it is so (-inf) for any expert that counts, or for a reference that does. Raises
    ConfigError for an unknown divergence, and DataError for shares that do not fit or no token that is possible.

    >>> two = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).log()
    >>> combine(two, [0.5, 0.5], "reverse_kl").exp()
    tensor([0.5000, 0.5000])
    """
    if divergence not in DIVERGENCES:
        raise ConfigError(unknown("divergence", divergence, DIVERGENCES))
    if len(shares) != len(logprobs) or min(shares, default=-1) < 0 or not abs(sum(shares) - 1) < 1e-6:
        raise DataError(f"shares {list(shares)} for {len(logprobs)} lanes; expected one each, >= 0 and of sum 1")
    counted = [lane for lane, share in enumerate(shares) if share > 0]
    if len(counted) == 1:
        return logprobs[counted[0]]
    experts = logprobs[counted].double()
    weights = experts.new_tensor([shares[lane] for lane in counted])[:, None]
    kind = DIVERGENCES[divergence]
    found = (weights * experts).sum(0) if kind is None else _against(logprobs[-1].double(), experts, weights, kind)
    total = found.logsumexp(0)
    if not torch.isfinite(total):
        raise DataError("the experts have no possible token in common; combine distributions over the same tokens")
    return (found - total).to(logprobs.dtype)


def _against(
    reference: Float[Tensor, " v"], experts: Float[Tensor, "l v"], weights: Float[Tensor, "l 1"], kind: Divergence
) -> Float[Tensor, " v"]:
    """log p, with the Z at which p sums to 1; -inf everywhere if no token is possible."""
    found = torch.full_like(reference, -torch.inf)
    possible = torch.isfinite(reference) & torch.isfinite(experts).all(0)
    if possible.any():
        log_ref = reference[possible].clamp(min=FAINTEST)
        level = (weights * kind.up(log_ref - experts[:, possible])).sum(0)
        found[possible] = log_ref - kind.down(_shift(log_ref.exp(), level, kind)).log()
    return found


def _shift(reference: Float[Tensor, " s"], level: Float[Tensor, " s"], kind: Divergence) -> Float[Tensor, " s"]:
    """level + Z for the Z at which sum ref / down(level + Z) = 1.

    By d = level + Z at the lowest level, d > 0, and on the scale of log d, where the logarithm of the sum is almost
    a straight line. It lies between the d at which the lowest token alone has all the probability, and the one at which
    all tokens would if they were as low as that one: the sum falls from >= 1 to <= 1.
    """
    lowest = int(level.argmin())
    gaps = level - level[lowest]
    low, high = (float(kind.up(each.log()).log()) for each in (reference[lowest], reference.sum()))
    at = min(max(float(level[lowest].log()), low), high)  # Z = 0 is right where all experts agree
    d = torch.zeros_like(level[lowest])
    for _ in range(STEPS):
        d = torch.tensor(at, dtype=level.dtype).exp().to(level.device)
        inside = kind.down(gaps + d)
        shares = reference / inside
        total = shares.sum()
        over = float(total.log())
        low, high = (at, high) if over > 0 else (low, at)
        if abs(over) <= TOLERANCE or high - low <= TOLERANCE:
            break
        fall = float((shares * kind.rate(inside)).sum() * d / total)
        step = at + over / fall
        at = step if low < step < high else (low + high) / 2
    return gaps + d
