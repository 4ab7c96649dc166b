"""Milliseconds of one decode step of 32 sequences, by the rows that they carry, against one merged model.

    python tests/benchmarks/bench_bank.py [--quick] [--threads 1] [--only demo]

Forward passes only: one new token for each of 32 sequences, after 64 tokens in the cache, with eleven adapters of rank
8 on all linear layers. A merged model costs what the base costs, whatever the preference. The sides:

- merged: a copy of the base without a bank
- zero rows: the base inside the bank, whose hooks have nothing to do
- 32 dense rows: 32 different mixtures of all eleven adapters
- two of eleven: 32 different mixtures of two adapters each
- equal rows: one dense mixture for all
- one-hot, mixed order: adapters k mod 8; grouped: four neighbours share one
- one adapter: the same one-hot row for all
- 32 dense rows, planned anew: as in a server where a request begins or ends at every step; the others keep their plan

The sides take turns of a few steps; the first step after each change is not counted. A ratio is the median over the
turns of the merged model's time by the side's own, in seconds and in seconds of processor time, which other work on the
machine disturbs less. `bound` is the same ratio counted in floating-point operations. Last, the largest difference of a
logit between a sequence in the batch of 32 and the same sequence alone, reading 16 tokens and writing one after them.
"""

import copy
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from common import arguments, begin, print_json, print_table, random_llama, shaken
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from moalign.adapters import fresh_adapter
from moalign.bank import AdapterBank
from moalign.models import select_layers

_ADAPTERS, _SEQUENCES, _PAST = 11, 32, 64
MERGED, DENSE, ANEW = "merged", "32 dense rows", "32 dense rows, planned anew"
Step = Callable[[], Tensor]


def main() -> None:
    """Print the sides' times for each base."""
    parser = arguments(__doc__ or "")
    parser.set_defaults(threads=1)
    parser.add_argument("--turns", type=int, help="of all sides (default 12; quick: 3)")
    parser.add_argument("--steps", type=int, default=4, help="timed in each turn (default 4)")
    parser.add_argument("--only", choices=["demo", "29M", "wide"], help="one base alone")
    options = parser.parse_args()
    begin(options)
    turns = options.turns or (3 if options.quick else 12)
    found = {name: compare(name, model, turns, options.steps) for name, model in _bases(options.only)}
    print_json({"benchmark": "bank", "threads": options.threads, **found})


def _bases(only: str | None) -> Iterator[tuple[str, PreTrainedModel]]:
    from moalign.demo.show import BASE_FOLDER

    if only in (None, "demo"):
        yield "demo", AutoModelForCausalLM.from_pretrained(BASE_FOLDER, dtype=torch.float32).eval()
    shapes = {"29M": (512, 8, 1376), "wide": (1024, 16, 2752)}
    for name, (hidden, heads, between) in shapes.items():
        if only in (None, name):
            yield (
                name,
                random_llama(hidden=hidden, layers=8, heads=heads, key_heads=heads, between=between, vocabulary=8192),
            )


def row_sets(bank: AdapterBank) -> dict[str, Tensor]:
    """Each side's rows, Float[32, 11]."""
    generator = torch.Generator().manual_seed(0)
    draws = -torch.rand(_SEQUENCES, _ADAPTERS, generator=generator).log()
    keep = torch.rand(_SEQUENCES, _ADAPTERS, generator=generator).argsort(1) < 2
    dense, two = draws / draws.sum(1, keepdim=True), draws * keep / (draws * keep).sum(1, keepdim=True)
    return {
        "zero rows": torch.zeros(_SEQUENCES, _ADAPTERS),
        DENSE: dense,
        "two of eleven": two,
        "equal rows": dense[:1].repeat(_SEQUENCES, 1),
        "one-hot, mixed order": bank.one_hot([f"a{k % 8}" for k in range(_SEQUENCES)]),
        "one-hot, grouped": bank.one_hot([f"a{k // 4}" for k in range(_SEQUENCES)]),
        "one adapter": bank.one_hot(["a3"] * _SEQUENCES),
    }


@torch.no_grad()
def compare(name: str, model: PreTrainedModel, turns: int, steps: int) -> dict[str, object]:
    """Run all sides in turns, and print what a step takes and the ratios to the merged model."""
    merged, bank = copy.deepcopy(model), _bank(model)
    rows = row_sets(bank)
    runs = {MERGED: _decoder(merged), **{side: _decoder(model, bank, row) for side, row in rows.items()}}
    runs[ANEW] = _decoder(model, bank, rows[DENSE], anew=True)
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in runs}
    for _ in range(turns):
        for side, run in runs.items():
            times[side].append(_timed(run, steps))
    flops = {side: _flops(run) for side, run in runs.items()}
    table, found = [], {}
    for side, own in times.items():
        wall, cpu = (
            median(theirs[clock] / mine[clock] for mine, theirs in zip(own, times[MERGED], strict=True))
            for clock in (0, 1)
        )
        bound, ms = flops[MERGED] / flops[side], 1e3 * median(mine[0] for mine in own)
        table.append([side, ms, f"{wall:.3f}", f"{cpu:.3f}", f"{bound:.3f}"])
        found[side] = {"ms": ms, "ratio": wall, "ratio_cpu": cpu, "bound": bound}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print_table(
        f"{name}, {parameters / 1e6:.1f} M parameters: one step of {_SEQUENCES} sequences",
        ["", "ms", "of merged", "in cpu time", "bound"],
        table,
    )
    apart = _apart(model, bank, rows[DENSE])
    print(f"  largest difference of a logit, in the batch and alone: {apart:.2g}")
    return {**found, "alone": apart}


def _bank(model: PreTrainedModel) -> AdapterBank:
    shapes, targets, _ = select_layers(model, "all-linear")
    fresh = fresh_adapter(shapes, targets, rank=8, alpha=16, generator=torch.Generator().manual_seed(0))
    return AdapterBank(model, {f"a{k}": shaken(fresh, k) for k in range(_ADAPTERS)})


def _tokens(model: PreTrainedModel, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, model.config.vocab_size, (_SEQUENCES, length), generator=generator)


def _decoder(
    model: PreTrainedModel, bank: AdapterBank | None = None, row: Tensor | None = None, anew: bool = False
) -> Step:
    """A function that decodes one token for every sequence, always after the same past."""
    past, token = _tokens(model, _PAST), _tokens(model, 1)
    cache = DynamicCache(config=model.config)
    plan = bank.prepare(row) if bank is not None and row is not None else None
    places = torch.full((_SEQUENCES, 1), _PAST)

    def step() -> Tensor:
        logits = model(input_ids=token, past_key_values=cache, position_ids=places).logits
        cache.crop(-1)
        return logits

    def within_rows() -> Tensor:
        assert bank is not None
        with bank.rows(row if anew else plan):
            return step()

    model(input_ids=past, past_key_values=cache)
    return step if bank is None else within_rows


def _timed(run: Step, steps: int) -> tuple[float, float]:
    """Seconds and processor seconds of one step; the first of the turn warms the caches and is not counted."""
    run()
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        run()
    return (time.perf_counter() - start) / steps, (time.process_time() - cpu) / steps


def _flops(run: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _apart(model: PreTrainedModel, bank: AdapterBank, rows: Tensor) -> float:
    ids = _tokens(model, 17)
    together, found = _read_and_write(model, bank, rows, ids), 0.0
    for number in range(_SEQUENCES):
        alone = _read_and_write(model, bank, rows[number : number + 1], ids[number : number + 1])
        found = max(found, float((together[number] - alone[0]).abs().max()))
    return found


def _read_and_write(model: PreTrainedModel, bank: AdapterBank, rows: Tensor, ids: Tensor) -> Tensor:
    cache = DynamicCache(config=model.config)
    with bank.rows(rows):
        read = model(input_ids=ids[:, :-1], past_key_values=cache).logits
        return torch.cat([read, model(input_ids=ids[:, -1:], past_key_values=cache).logits], dim=1)


if __name__ == "__main__":
    main()
