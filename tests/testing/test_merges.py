"""The laws of merges: the soup keeps them all, and each is noticed by a merge that breaks it and little else."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moalign.adapters import CONFIG_FILE, PREFIX, WEIGHTS_FILE, Adapter, LowRank, read_adapter
from moalign.errors import UserError
from moalign.merging import factor_average, soup
from moalign.testing import LAWS, check_merge, examine_merge, tiny_model
from moalign.testing.parents import NOT_LINEAR, SHAPES, answers, drawn, load_with_peft, probes

Adapters, Weights = Sequence[Adapter], Sequence[float]


def changed(adapter: Adapter, change: Callable[[LowRank], LowRank]) -> Adapter:
    return replace(adapter, layers={name: change(layer) for name, layer in adapter.layers.items()})


def with_common_layers(adapters: Adapters) -> list[Adapter]:
    common = set.intersection(*(set(adapter.layers) for adapter in adapters))
    return [Adapter({name: a.layers[name] for name in a.layers if name in common}, tuple(common)) for a in adapters]


def at_one_scale(adapters: Adapters) -> list[Adapter]:
    return [changed(adapter, lambda layer: replace(layer, scale=1.5)) for adapter in adapters]


def four_rows(adapters: Adapters) -> list[Adapter]:
    return [changed(adapter, lambda layer: LowRank(layer.A[:4], layer.B[:, :4], layer.scale)) for adapter in adapters]


def padded(layer: LowRank) -> LowRank:
    more = 20 - layer.rank
    A, B = torch.nn.functional.pad(layer.A, (0, 0, 0, more)), torch.nn.functional.pad(layer.B, (0, more))
    return LowRank(A, B, layer.scale)


def noisy(layer: LowRank) -> LowRank:
    return replace(layer, B=layer.B + 0.01 * torch.randn(layer.B.shape))


# name -> the merge, and the laws that it breaks: exactly these
BROKEN: dict[str, tuple[Callable[[Adapters, Weights], Adapter], Collection[str]]] = {
    "weights taken as shares": (
        lambda adapters, weights: soup(adapters, [weight / sum(weights) for weight in weights]),
        ["the deltas add up", "negative weights subtract"],
    ),
    "negative weights taken as 0": (
        lambda adapters, weights: soup(adapters, [max(weight, 0.0) for weight in weights]),
        ["negative weights subtract"],
    ),
    "weights squared": (
        lambda adapters, weights: soup(adapters, [weight**2 for weight in weights]),
        ["self-merge is identity", "the deltas add up", "negative weights subtract"],
    ),
    "weights sorted": (
        lambda adapters, weights: soup(adapters, sorted(weights, reverse=True)),
        ["one-hot is that adapter", "one-hot is bit for bit", "order does not matter"],
    ),
    "one-hot at another scale": (
        lambda adapters, weights: soup(adapters, weights, scale=1.0),
        ["one-hot is bit for bit"],
    ),
    "every adapter of rank 4": (lambda adapters, weights: soup(four_rows(adapters), weights), ["ranks may differ"]),
    "every adapter of scale 1.5": (
        lambda adapters, weights: soup(at_one_scale(adapters), weights),
        ["alphas may differ"],
    ),
    "common layers alone": (
        lambda adapters, weights: soup(with_common_layers(adapters), weights),
        ["layers may differ"],
    ),
    "padded with zeros": (
        lambda adapters, weights: changed(soup(adapters, weights), padded),
        ["one-hot is bit for bit", "rank at most the sum"],
    ),
    "factors averaged": (
        factor_average,
        [
            "the deltas add up",
            "negative weights subtract",
            "ranks may differ",
            "alphas may differ",
            "factors do not matter",
            "layers may differ",
        ],
    ),
    "noise from nowhere": (
        lambda adapters, weights: changed(soup(adapters, weights), noisy),
        LAWS.keys() - {"rank at most the sum", "not linear is refused"},
    ),
}


def read_naively(folder: Path) -> Adapter:
    """The factors at alpha / r, whatever else the folder says."""
    tensors, config = load_file(folder / WEIGHTS_FILE), json.loads((folder / CONFIG_FILE).read_text())
    layers = {}
    for name in SHAPES:
        A, B = (tensors.get(f"{PREFIX}{name}.lora_{factor}.weight") for factor in "AB")
        if A is not None and B is not None:
            layers[name] = LowRank(A, B, config["lora_alpha"] / config["r"])
    return Adapter(layers, tuple(layers))


def test_the_soup_keeps_every_law() -> None:
    outcomes = examine_merge(soup)
    assert list(outcomes) == list(LAWS)
    assert all(outcome.passed and not outcome.reason for outcome in outcomes.values())


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_law_is_noticed_and_no_other(name: str) -> None:
    merge, breaks = BROKEN[name]
    check_merge(merge, breaks=breaks)


def test_folders_read_naively_are_noticed() -> None:
    """Of adapters none of this can be seen: what is not linear has been refused by then, and rsLoRA is a scale."""

    def merge(folders: Sequence[Path], weights: Weights) -> Adapter:
        return soup([read_naively(folder) for folder in folders], weights)

    check_merge(merge, breaks=["rsLoRA is understood", "not linear is refused"], takes_folders=True)
    reason = examine_merge(merge, takes_folders=True)["not linear is refused"].reason
    assert all(kind in reason for kind in NOT_LINEAR)


def test_folders_read_with_care_keep_every_law() -> None:
    check_merge(lambda folders, weights: soup(list(map(read_adapter, folders)), weights), takes_folders=True)


def test_what_is_not_linear_may_be_mixed_exactly_instead() -> None:
    """A merge that converts to dense deltas what can be one, and refuses what adds a bias, keeps the law."""

    def converted(folder: Path) -> Adapter:
        with torch.no_grad():
            attained = load_with_peft(folder)(probes()) - tiny_model()(probes())
        if attained[0].norm() > 1e-5:
            raise ValueError("a bias is no delta")
        parts = (attained[1:] - attained[0]).split([out for out, _ in SHAPES.values()], dim=1)
        return Adapter(
            {name: LowRank(torch.eye(20), part.T, 1.0) for name, part in zip(SHAPES, parts, strict=True)},
            tuple(SHAPES),
        )

    def merge(folders: Sequence[Path], weights: Weights) -> Adapter:
        return soup([converted(folder) for folder in folders], weights)

    check_merge(merge, breaks=["one-hot is bit for bit", "rank at most the sum"], takes_folders=True)


def test_every_law_is_broken_by_one_of_them_but_what_folders_alone_can_show() -> None:
    broken = {law for _, laws in BROKEN.values() for law in laws}
    assert set(LAWS) - broken == {"not linear is refused"}


def spoils_factors(adapters: Adapters, weights: Weights) -> Adapter:
    found = changed(soup(adapters, weights), lambda layer: replace(layer, A=layer.A.clone(), B=layer.B.clone()))
    adapters[0].layers["q"].A.mul_(2)
    return found


def spoils_weights(adapters: Adapters, weights: list[float]) -> Adapter:
    found = soup(adapters, weights)
    weights[0] = 0.0
    return found


def is_nan(adapters: Adapters, weights: Weights) -> Adapter:
    return changed(adapters[0], lambda layer: replace(layer, scale=float("nan")))


@pytest.mark.parametrize(
    ("merge", "line"),
    [
        (spoils_factors, "it changed what it was given"),
        (spoils_weights, "it changed what it was given"),
        (lambda adapters, weights: {}, "it returned a dict; expected an Adapter"),
        (lambda adapters, weights: Adapter({"o": adapters[0].layers["q"]}, ("o",)), "'o', a layer that no parent has"),
        (is_nan, "the delta is off by nan%"),
        (lambda adapters, weights: adapters[7], "IndexError: list index out of range"),
    ],
)
def test_what_no_merge_may_do_breaks_the_laws(merge: Callable[..., object], line: str) -> None:
    outcome = examine_merge(merge)["self-merge is identity"]
    assert not outcome.passed
    assert line in outcome.reason


def test_the_error_names_the_merge_and_says_what_was_seen() -> None:
    with pytest.raises(AssertionError) as caught:
        check_merge(factor_average, breaks=["the deltas add up", "one-hot is that adapter"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "factor_average: 6 of 14 laws"
    assert lines[1].startswith("negative weights subtract: weights 1, -0.5: the delta is off by ")
    assert lines[-1] == "one-hot is that adapter: holds, though it is said to be broken"


def test_a_law_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match="unknown law 'order matters'; did you mean 'order does not matter'"):
        check_merge(soup, breaks=["order matters"])


def test_a_merge_of_pairs_is_given_pairs() -> None:
    def pairs(adapters: Adapters, weights: Weights) -> Adapter:
        assert len(adapters) == 2
        return soup(adapters, weights)

    check_merge(pairs, count=2)
    assert not examine_merge(pairs)["order does not matter"].passed


def test_the_global_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    tiny_model()
    check_merge(*BROKEN["noise from nowhere"][:1], breaks=BROKEN["noise from nowhere"][1])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_shows_all_that_an_adapter_does() -> None:
    """W + D in place of W changes the answers to zero and the unit vectors by `answers`."""
    adapter, model = drawn(1), tiny_model()
    before = model(probes())
    for name, layer in adapter.layers.items():
        linear = model.get_submodule(name)
        linear.weight.data += layer.delta()
    assert torch.allclose((model(probes()) - before).double(), answers(adapter), atol=1e-5)
