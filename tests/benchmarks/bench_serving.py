"""Tokens per second of 32 requests with 32 different mixtures in one batch, against one merged model.

    python tests/benchmarks/bench_serving.py [--quick] [--threads 2]

Eleven adapters of rank 8 on all linear layers, and one batch of 32 prompts, under transformers' own `generate` with a
KV cache, greedy, the same number of new tokens for everyone (no EOS), so that every side does the same work:

- merged: one adapter, merged into the weights by PEFT (`merge_and_unload`): a single policy for all requests
- 32 mixtures: the bank, each request with its own dense row of 11 weights
- one-hot rows: the bank, each request with one of 8 adapters, in mixed order, and grouped by adapter
- one by one: what serving different mixtures without a bank comes to. For each request PEFT makes the exact mixture
  (`add_weighted_adapter`, "cat"), merges it, generates for that request alone, and takes it out again

The sides run in turns, several times; a ratio is the median over the turns of its tokens per second over the merged
model's in the same turn, and, beside it, the same per second of processor time, which other work on the machine
disturbs less. The one-by-one side serves a few of the requests in each turn. Memory is the peak of
`generate` above what was resident before it. Bases: the demo's and the 3 M story model where they are there, and a
random Llama of 29 M parameters.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import torch
from common import SHARED, Cost, arguments, begin, measured, print_json, print_table, random_llama, shaken
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from moalign.adapters import Adapter, fresh_adapter, write_adapter
from moalign.bank import AdapterBank
from moalign.models import select_layers

_ADAPTERS, _REQUESTS = 11, 32
MERGED, MIXED, SCATTERED, GROUPED, SINGLY = (
    "merged: one policy for all",
    "32 mixtures",
    "one-hot rows, mixed order",
    "one-hot rows, grouped",
    "one by one, merging each",
)


def main() -> None:
    """Print the ratios for each base that is there."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--new-tokens", type=int, help="per request (default 64; quick: 16)")
    parser.add_argument("--rounds", type=int, help="turns of all sides (default 9; quick: 3)")
    parser.add_argument("--singly", type=int, help="requests served one by one in a turn (default 8; quick: 2)")
    options = parser.parse_args()
    tokens = options.new_tokens or (16 if options.quick else 64)
    rounds = options.rounds or (3 if options.quick else 9)
    singly = options.singly or (2 if options.quick else 8)
    begin(options)
    found = {}
    for name, model in _bases():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = compare(name, model, Path(folder), tokens, rounds, singly)
    print_json({"benchmark": "serving", "threads": options.threads, "new_tokens": tokens, **found})


def _bases() -> Iterator[tuple[str, PreTrainedModel]]:
    from moalign.demo.show import BASE_FOLDER

    for name, folder in (("demo", BASE_FOLDER), ("stories3M-chat", SHARED / "models" / "stories3M-chat")):
        if (folder / "config.json").is_file():
            yield name, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        else:
            print(f"\n{name}: not there")
    yield "random 29 M", random_llama(hidden=512, layers=8, heads=8, key_heads=8, between=1376, vocabulary=8192)


def compare(
    name: str, model: PreTrainedModel, folder: Path, tokens: int, rounds: int, singly: int
) -> dict[str, object]:
    """Serve the batch by all sides in turns, and print their tokens per second."""
    adapters = _adapters(model)
    sides = _sides(model, adapters, folder, tokens, singly)
    costs: dict[str, list[Cost]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, (serve, requests) in sides.items():
            with measured() as cost:
                serve()
            if number:  # the first turn is warm-up
                costs[side].append(Cost(cost.seconds / requests, cost.cpu / requests, cost.peak_mib))
    rows, found = [], {}
    for side, own in costs.items():
        wall = [merged.seconds / mine.seconds for mine, merged in zip(own, costs[MERGED], strict=True)]
        cpu = [merged.cpu / mine.cpu for mine, merged in zip(own, costs[MERGED], strict=True)]
        speed, peak = tokens / median(cost.seconds for cost in own), max(cost.peak_mib for cost in own)
        spread = f"{min(wall):.2f} to {max(wall):.2f}"
        rows.append([side, speed, f"{median(wall):.2f}", spread, f"{median(cpu):.2f}", peak])
        found[side] = {
            "tokens_per_second": speed,
            "ratio": median(wall),
            "ratio_cpu": median(cpu),
            "peak_mib": peak,
        }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print_table(
        f"{name}, {parameters / 1e6:.1f} M parameters: {_REQUESTS} requests of {tokens} new tokens",
        ["", "tokens/s", "of merged", "range", "in cpu time", "peak MiB"],
        rows,
    )
    return found


def _adapters(model: PreTrainedModel) -> dict[str, Adapter]:
    shapes, targets, _ = select_layers(model, "all-linear")
    generator = torch.Generator().manual_seed(0)
    fresh = fresh_adapter(shapes, targets, rank=8, alpha=16, generator=generator)
    return {f"a{k}": shaken(fresh, k) for k in range(_ADAPTERS)}


def _sides(
    model: PreTrainedModel, adapters: dict[str, Adapter], folder: Path, tokens: int, singly: int
) -> dict[str, tuple[Callable[[], object], int]]:
    """Each side: a function that serves requests, and how many."""
    ids, mask = _prompts(model)
    for name, adapter in adapters.items():
        write_adapter(adapter, folder / name, "base")
    merged = PeftModel.from_pretrained(copy.deepcopy(model), folder / "a0").merge_and_unload()
    swapped = PeftModel.from_pretrained(copy.deepcopy(model), folder / "a0", "a0")
    for name in list(adapters)[1:]:
        swapped.load_adapter(folder / name, name)
    bank = AdapterBank(model, adapters)
    dense = torch.distributions.Dirichlet(torch.ones(_ADAPTERS)).sample((_REQUESTS,))
    grouped = bank.one_hot([f"a{k * 8 // _REQUESTS}" for k in range(_REQUESTS)])
    scattered = bank.one_hot([f"a{k % 8}" for k in range(_REQUESTS)])

    def with_rows(row: Tensor | None) -> Callable[[], object]:
        def serve() -> object:
            with bank.rows(row) if row is not None else nullcontext():
                return _generate(model if row is not None else merged, ids, mask, tokens)

        return serve

    def one_by_one() -> None:
        for request in range(singly):
            _serve_alone(swapped, list(adapters), dense[request].tolist(), ids[request], mask[request], tokens)

    return {
        MERGED: (with_rows(None), _REQUESTS),
        MIXED: (with_rows(dense), _REQUESTS),
        SCATTERED: (with_rows(scattered), _REQUESTS),
        GROUPED: (with_rows(grouped), _REQUESTS),
        SINGLY: (one_by_one, singly),
    }


def _prompts(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """32 prompts of 8 to 48 random tokens, padded on the left."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (_REQUESTS, 48), generator=generator)
    lengths = torch.randint(8, 49, (_REQUESTS,), generator=generator)
    mask = (torch.arange(48) >= 48 - lengths[:, None]).long()
    return ids * mask, mask


def _generate(model: PreTrainedModel, ids: Tensor, mask: Tensor, tokens: int) -> Tensor:
    # Without an EOS everyone writes equally long: a speed of tokens and not of texts.
    model.generation_config = GenerationConfig(pad_token_id=0)
    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    assert out.shape[1] == ids.shape[1] + tokens, "a text ended early"
    return out


def _serve_alone(
    swapped: PeftModel, names: list[str], weights: list[float], ids: Tensor, mask: Tensor, tokens: int
) -> None:
    swapped.add_weighted_adapter(names, weights, "mixture", combination_type="cat")
    swapped.set_adapter("mixture")
    swapped.merge_adapter()
    _generate(swapped.base_model.model, ids[None, mask.bool()], mask[None, mask.bool()], tokens)
    swapped.unmerge_adapter()
    swapped.delete_adapter("mixture")


if __name__ == "__main__":
    main()
