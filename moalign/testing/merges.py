"""The laws of a merge of adapters: which of them one keeps, and which it breaks.

A merge is any function from adapters and weights to an adapter: `merge(adapters, weights) -> Adapter`. Options are
bound beforehand (`functools.partial`). The laws ask what the merged policy is, so they look at deltas and not at
factors, but for "one-hot is bit for bit". No merge needs to keep them all: one that trims, as TIES does, is no sum.
What it must do is say which ones it breaks.
"""

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.adapters import Adapter, LowRank
from moalign.errors import UserError, unknown
from moalign.testing.parents import (
    NOT_LINEAR,
    RANK,
    SHAPES,
    Bench,
    answers,
    drawn,
    equal,
    load_with_peft,
    probes,
    tiny_model,
)

Law = Callable[[Bench], None]

TOLERANCE = 1e-4  # relative, of the deltas: a hundred times what an SVD in float32 leaves


@dataclass(frozen=True)
class Outcome:
    """Whether a law holds, and what was seen where it does not."""

    passed: bool
    reason: str = ""


def self_merge(bench: Bench) -> None:
    """Copies of one adapter, with weights of sum 1, are that adapter."""
    _same(bench.merge([drawn(1)] * bench.count, _shares(bench.count)), drawn(1))


def one_hot(bench: Bench) -> None:
    """A weight of 1 for one adapter and 0 for the others is that adapter, up to rounding."""
    for place, found, parent in _one_hots(bench):
        _same(found, parent, f"adapter {place}")


def bit_for_bit(bench: Bench) -> None:
    """A weight of 1 for one adapter and 0 for the others gives its very factors and scales."""
    for place, found, parent in _one_hots(bench):
        assert equal(found, parent), f"adapter {place}: other factors or another scale"


def _one_hots(bench: Bench) -> Iterator[tuple[int, Adapter, Adapter]]:
    parents = _parents(bench.count)
    for place, parent in enumerate(parents):
        yield place, bench.merge(parents, [float(place == other) for other in range(bench.count)]), parent


def order(bench: Bench) -> None:
    """The same adapters with the same weights, turned round or backwards, are the same policy."""
    parents, weights = _parents(bench.count), _shares(bench.count)
    first = bench.merge(parents, weights)
    _same(bench.merge(parents[1:] + parents[:1], weights[1:] + weights[:1]), first)
    _same(bench.merge(parents[::-1], weights[::-1]), first)


def deltas_add(bench: Bench) -> None:
    """sum_k w_k dW_k, for weights that sum to 1 and for weights that do not."""
    for total in (1.0, 2.0):
        _sums(bench, [total * share for share in _shares(bench.count)])


def negative_weights(bench: Bench) -> None:
    """dW_1 - dW_2 / 2 for weights of 1 and -1/2."""
    _sums(bench, [1.0, -0.5])


def _sums(bench: Bench, weights: Sequence[float]) -> None:
    parents = _parents(len(weights))
    terms = [weight * answers(parent) for parent, weight in zip(parents, weights, strict=True)]
    _close(
        answers(bench.merge(parents, weights)),
        torch.stack(terms).sum(0),
        f"weights {', '.join(f'{weight:.2g}' for weight in weights)}",
    )


def _parents(count: int) -> list[Adapter]:
    return [drawn(seed) for seed in range(1, count + 1)]


def _shares(count: int) -> list[float]:
    """Uneven, of sum 1: 1/2, 1/3, 1/6 of three."""
    return [2 * place / (count * (count + 1)) for place in range(count, 0, -1)]


def ranks(bench: Bench) -> None:
    """An adapter written at twice its rank, [A; A] and [B, B] / 2, is the same policy and merges to the same."""
    _rewritten(bench, lambda layer: LowRank(layer.A.repeat(2, 1), layer.B.repeat(1, 2) / 2, layer.scale))


def alphas(bench: Bench) -> None:
    """An adapter written with four times its alpha, and B / 4, is the same policy and merges to the same."""
    _rewritten(bench, lambda layer: LowRank(layer.A, layer.B / 4, 4 * layer.scale))


def factors(bench: Bench) -> None:
    """(-B)(-A) = B A, also with the rank's order reversed: the same policy merges to the same."""
    _rewritten(bench, lambda layer: LowRank(-layer.A.flip(0), -layer.B.flip(1), layer.scale))


def _rewritten(bench: Bench, write: Callable[[LowRank], LowRank]) -> None:
    one, two = drawn(1), drawn(2)
    other = replace(two, layers={name: write(layer) for name, layer in two.layers.items()})
    _same(bench.merge([one, other], [0.6, 0.4]), bench.merge([one, two], [0.6, 0.4]))


def rslora(bench: Bench) -> None:
    """An adapter whose folder states the scale as alpha / sqrt(r) merges to what it does when stated as alpha / r."""
    one, two = drawn(1), drawn(2)
    expected = bench.merge([one, two], [0.6, 0.4])
    _same(bench.merge([bench.write(one, rslora=True), two], [0.6, 0.4]), expected, "the first is rsLoRA")
    _same(bench.merge([one, bench.write(two, rslora=True)], [0.6, 0.4]), expected, "the second is rsLoRA")


def layers(bench: Bench) -> None:
    """A layer that an adapter lacks merges as one that it has and that changes nothing (B = 0, as LoRA begins)."""
    one, two = drawn(1), drawn(2)
    lacks = Adapter({"q": two.layers["q"]}, ("q",))
    begun = replace(two, layers={**two.layers, "v": replace(two.layers["v"], B=torch.zeros(SHAPES["v"][0], RANK))})
    _same(bench.merge([one, lacks], [0.6, 0.4]), bench.merge([one, begun], [0.6, 0.4]))


def width(bench: Bench) -> None:
    """No layer's rank is more than the sum of its parents' ranks."""
    widest = max(layer.rank for layer in bench.merge([drawn(1), drawn(2)], [0.6, 0.4]).layers.values())
    assert widest <= 2 * RANK, f"rank {widest} from two of rank {RANK}"


def same_again(bench: Bench) -> None:
    """Called again with the same, it answers the same: randomness comes from a seed that it is given."""
    parents = [drawn(1), drawn(2)]
    _same(bench.merge(parents, [0.6, 0.4]), bench.merge(parents, [0.6, 0.4]))


def not_linear(bench: Bench) -> None:
    """A folder that is more than `scale * B A` raises, or what it does to the model is mixed exactly; in any place.

    Judged by what PEFT's own forward pass gives with each parent alone.
    """
    wrong = []
    for kind in NOT_LINEAR:
        targets = NOT_LINEAR[kind].get("target_modules", SHAPES)
        plain = Adapter({name: layer for name, layer in drawn(2).layers.items() if name in targets}, tuple(targets))
        parents = [bench.foreign(kind), bench.write(plain)]
        expected = torch.stack([0.5 * _attained(parent) for parent in parents]).sum(0)
        errors = [0.0]
        for turned in (parents, parents[::-1]):
            try:
                found = bench.merge(turned, [0.5, 0.5])
            except Exception:
                continue  # refused, in whatever words
            errors.append(_apart(answers(found), expected))
        if not max(errors) <= TOLERANCE:
            wrong.append(f"{kind} ({max(errors):.0%} off)")
    assert not wrong, f"taken without a word: {', '.join(wrong)}"


def _attained(folder: Path) -> Float[Tensor, "n o"]:
    with torch.no_grad():
        return (load_with_peft(folder)(probes()) - tiny_model()(probes())).double()


LAWS: dict[str, Law] = {
    "self-merge is identity": self_merge,
    "one-hot is that adapter": one_hot,
    "one-hot is bit for bit": bit_for_bit,
    "order does not matter": order,
    "the deltas add up": deltas_add,
    "negative weights subtract": negative_weights,
    "ranks may differ": ranks,
    "alphas may differ": alphas,
    "rsLoRA is understood": rslora,
    "factors do not matter": factors,
    "layers may differ": layers,
    "rank at most the sum": width,
    "the same again": same_again,
    "not linear is refused": not_linear,
}


def examine_merge(merge: Callable[..., Adapter], *, count: int = 3, takes_folders: bool = False) -> dict[str, Outcome]:
    """Law by law, whether `merge(adapters, weights)` keeps it; what it raises counts as a broken law.

    `count` is how many adapters it is given where a law does not take just two: 2 for a merge of pairs. With
    `takes_folders` it is given the paths of PEFT folders (adapters of `tiny_model()`), otherwise the Adapters that
    `read_adapter` makes of them, so that what is not linear is refused before it is called. torch's global generator
    starts at 0 for each law and is left as it was.

    >>> from moalign.merging import factor_average
    >>> outcomes = examine_merge(factor_average)
    >>> outcomes["order does not matter"]
    Outcome(passed=True, reason='')
    >>> outcomes["factors do not matter"].passed
    False
    """
    return {name: _examined(law, merge, count, takes_folders) for name, law in LAWS.items()}


def _examined(law: Law, merge: Callable[..., Adapter], count: int, takes_folders: bool) -> Outcome:
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            law(Bench(merge, Path(folder), count, takes_folders))
        except AssertionError as error:
            return Outcome(False, str(error))
        except Exception as error:
            return Outcome(False, f"{type(error).__name__}: {error}")
    return Outcome(True)


def check_merge(
    merge: Callable[..., Adapter], *, breaks: Collection[str] = (), count: int = 3, takes_folders: bool = False
) -> None:
    """Assert that a merge keeps every law but those it is said to break, and that it does break these.

    See `examine_merge`; LAWS has the names. Raises UserError for a law that does not exist.

    >>> from moalign.merging import soup
    >>> check_merge(soup)
    """
    for name in breaks:
        if name not in LAWS:
            raise UserError(unknown("law", name, LAWS))
    outcomes = examine_merge(merge, count=count, takes_folders=takes_folders)
    lines = [f"{law}: {one.reason}" for law, one in outcomes.items() if not one.passed and law not in breaks]
    lines += [f"{law}: holds, though it is said to be broken" for law in breaks if outcomes[law].passed]
    assert not lines, "\n".join([f"{getattr(merge, '__name__', merge)}: {len(lines)} of {len(LAWS)} laws", *lines])


def _apart(found: Float[Tensor, "n o"], expected: Float[Tensor, "n o"]) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def _close(found: Float[Tensor, "n o"], expected: Float[Tensor, "n o"], where: str = "") -> None:
    """NaN is not close to anything."""
    error = _apart(found, expected)
    assert error <= TOLERANCE, f"{where}: the delta is off by {error:.0%}".removeprefix(": ")


def _same(found: Adapter, expected: Adapter, where: str = "") -> None:
    _close(answers(found), answers(expected), where)
