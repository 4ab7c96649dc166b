"""Seconds to merge K adapters into one of rank 16, layer by layer, against PEFT's merge by SVD; and what each loses.

    python tests/benchmarks/bench_merging.py [--side 4096] [--quick] [--threads 2]

Four and eight adapters of rank 16 with uneven weights, on linear layers of 4096 x 4096. As in a sweep, they have moved
from one start by about as much as they had at first, so that their weighted sum has the sum of their ranks, and a cut
to rank 16 loses something:

- ours: `compress(soup(adapters, weights), 16)`, four layers, and the median of several turns
- PEFT: `add_weighted_adapter(..., combination_type="svd", svd_rank=16)`, the SVD of the dense delta, on the first layer
  alone, once: it takes a minute or so

Errors are ||D - S||_F / ||S||_F of the first layer, from the exact soup S, by the same low-rank arithmetic for both.
"""

from collections.abc import Sequence
from statistics import median

import torch
from common import Cost, arguments, begin, measured, print_json, print_table
from peft import LoraConfig, get_peft_model
from torch import nn

from moalign.adapters import Adapter, LowRank
from moalign.merging import compress, distance, soup

_COUNTS, _LAYERS, _RANK = (4, 8), 4, 16


def main() -> None:
    """Print seconds per layer and errors for each number of adapters."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--side", type=int, help="of the square layers (default 4096; quick: 1024)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of our side (default 5)")
    options = parser.parse_args()
    side = options.side or (1024 if options.quick else 4096)
    begin(options)
    found = {f"K={count}": compare(count, side, options.rounds) for count in _COUNTS}
    print_json({"benchmark": "merging", "threads": options.threads, "side": side, "rank": _RANK, **found})


def compare(count: int, side: int, rounds: int) -> dict[str, float]:
    """Merge by both sides, and print what a layer takes and loses."""
    adapters = _adapters(count, side)
    weights = [2 * place / (count * (count + 1)) for place in range(count, 0, -1)]
    costs = []
    for _ in range(rounds + 1):
        with measured() as cost:
            merged = compress(soup(adapters, weights), _RANK)
        costs.append(Cost(cost.seconds / _LAYERS, cost.cpu / _LAYERS, cost.peak_mib))
    first = [_first_layer(adapter) for adapter in adapters]
    theirs, their_cost = _by_peft(first, weights, side)
    exact = soup(first, weights)
    ours = median(cost.seconds for cost in costs[1:])  # the first turn is warm-up
    result = {
        "seconds_ours": ours,
        "seconds_peft": their_cost.seconds,
        "ratio": their_cost.seconds / ours,
        "ratio_cpu": their_cost.cpu / median(cost.cpu for cost in costs[1:]),
        "error_ours": distance(_first_layer(merged.adapter), exact),
        "error_reported": merged.layers["layers.0"],
        "error_peft": distance(theirs, exact),
    }
    peak = max(cost.peak_mib for cost in costs)
    print_table(
        f"{count} adapters of rank {_RANK} to one of rank {_RANK}, layers of {side} x {side}",
        ["", "s per layer", "faster", "in cpu time", "error", "peak MiB"],
        [
            ["PEFT, svd", their_cost.seconds, "1", "1", f"{result['error_peft']:.9f}", their_cost.peak_mib],
            ["ours", ours, result["ratio"], result["ratio_cpu"], f"{result['error_ours']:.9f}", peak],
        ],
    )
    print(f"  our error as `compress` reports it: {result['error_reported']:.9f}")
    return result


def _adapters(count: int, side: int) -> list[Adapter]:
    """Each from the common start A_0, B = 0, as far as training moves it: both factors by about the size of A_0."""
    start = torch.Generator().manual_seed(0)
    common = [torch.randn(_RANK, side, generator=start) for _ in range(_LAYERS)]
    size = torch.logspace(0, -1, _RANK)  # some directions matter more than others
    adapters = []
    for seed in range(1, count + 1):
        own = torch.Generator().manual_seed(seed)
        layers = {
            f"layers.{number}": LowRank(
                (A + torch.randn(A.shape, generator=own)) / side**0.5,
                0.02 * torch.randn(side, _RANK, generator=own) * size,
                2.0,
            )
            for number, A in enumerate(common)
        }
        adapters.append(Adapter(layers, tuple(layers)))
    return adapters


def _first_layer(adapter: Adapter) -> Adapter:
    return Adapter({"layers.0": adapter.layers["layers.0"]}, ("layers.0",))


class _Layers(nn.Module):
    """One linear layer under the name that the adapters use; its weights play no part."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(side, side, bias=False)])


def _by_peft(adapters: Sequence[Adapter], weights: list[float], side: int) -> tuple[Adapter, Cost]:
    config = LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules=["layers.0"])
    names = [f"a{number}" for number in range(len(adapters))]
    model = get_peft_model(_Layers(side), config, names[0])
    layer = model.base_model.model.layers[0]
    with torch.no_grad():
        for name, adapter in zip(names, adapters, strict=True):
            if name != names[0]:
                model.add_adapter(name, config)
            layer.lora_A[name].weight.copy_(adapter.layers["layers.0"].A)
            layer.lora_B[name].weight.copy_(adapter.layers["layers.0"].B)
        with measured() as cost:
            model.add_weighted_adapter(names, weights, "merged", combination_type="svd", svd_rank=_RANK)
    A, B = layer.lora_A["merged"].weight.detach(), layer.lora_B["merged"].weight.detach()
    return Adapter({"layers.0": LowRank(A, B, float(layer.scaling["merged"]))}, ("layers.0",)), cost


if __name__ == "__main__":
    main()
