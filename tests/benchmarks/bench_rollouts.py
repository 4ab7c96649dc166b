"""Rollouts for K preferences in one batch, against K separate calls of merged models.

    python tests/benchmarks/bench_rollouts.py [--quick] [--threads 2]

What an online method does at each step: K policies answer the same 4 prompts 8 times each. Adapters of rank 8 on all
linear layers; scores cost nothing here (zeros); both sides sample at temperature 1 and decode their texts.

- bank: `moalign.rollouts.roll_out`, one call of `generate` for all K
- merged: for each policy in turn, transformers' own `generate` (do_sample, num_return_sequences) on a model into which
  PEFT has merged its adapter. The K merged models are made beforehand and all kept: the best case of such a loop
- with merging: the same and, for each policy, PEFT's `set_adapter`, `merge_adapter` and `unmerge_adapter` on one model,
  which training pays at every step, because every step changes the adapters

Two kinds of rollouts: "fixed", in which nobody may end and all write equally many tokens, so that the sides do the same
work; and "as it comes", where texts end with EOS, tokens up to it are counted, and a batch goes on until its last text
has ended: the longest of all K policies for the bank, of each policy by itself for the merged models.

The sides run in turns; a ratio is the median over the turns of the bank's tokens per second over the other side's in
the same turn, and, in the last column, the merged models' processor time per token over the bank's. The target is 2 at
K = 11, against merged models that are there already. Bases: the demo's, and the 3 M story model where it is there.
"""

import argparse
import copy
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from common import SHARED, Cost, arguments, begin, measured, print_json, print_table, shaken
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel

from moalign.adapters import Adapter, fresh_adapter, write_adapter
from moalign.bank import AdapterBank
from moalign.batches import Prompt
from moalign.data.tokenize import tokenize_prompts
from moalign.models import BaseModel, load_base, select_layers
from moalign.rollouts import Environment, roll_out

_POLICIES = (1, 4, 11, 21)
BANK, MERGED, MERGING = "bank", "merged", "with merging"
Side = Callable[[int], int]  # a number of policies -> tokens that they wrote


def main() -> None:
    """Print the ratios for each base that is there."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--new-tokens", type=int, help="at most, per completion (default 48; quick: 12)")
    parser.add_argument("--rounds", type=int, help="turns of all sides (default 7; quick: 2)")
    parser.add_argument("--prompts", type=int, default=4, help="in a batch (default 4)")
    parser.add_argument("--completions", type=int, default=8, help="of each prompt by each policy (default 8)")
    options = parser.parse_args()
    options.new_tokens = options.new_tokens or (12 if options.quick else 48)
    options.rounds = options.rounds or (2 if options.quick else 7)
    begin(options)
    found = {}
    for name, base, prompts in _bases(options.prompts):
        for kind, changed in (("fixed", _endless(base)), ("as it comes", base)):
            found[f"{name}, {kind}"] = compare(f"{name}, {kind}", changed, prompts, options)
    sizes = {key: getattr(options, key) for key in ("threads", "new_tokens", "prompts", "completions")}
    print_json({"benchmark": "rollouts", **sizes, **found})


def _bases(count: int) -> Iterator[tuple[str, BaseModel, list[Prompt]]]:
    from moalign.demo.show import BASE_FOLDER
    from moalign.demo.world import prompts

    questions: list[Prompt] = [[{"role": "user", "content": text}] for text in prompts("train")[:count]]
    yield "demo", load_base(str(BASE_FOLDER), device="cpu"), questions
    folder, stories = SHARED / "models" / "stories3M", SHARED / "data" / "text_tinystories_1k.jsonl.gz"
    if not (folder / "config.json").is_file() or not stories.is_file():
        print("\nstories3M: not there")
        return
    with gzip.open(stories, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"].strip() for line, _ in zip(lines, range(count), strict=False)]
    yield "stories3M", load_base(str(folder), device="cpu"), [text.partition(".")[0] + "." for text in texts]


def _endless(base: BaseModel) -> BaseModel:
    """The base with an EOS that it cannot say: a token behind the last one of its vocabulary."""
    model, tokenizer = copy.deepcopy(base.model), copy.deepcopy(base.tokenizer)
    model.generation_config = GenerationConfig(pad_token_id=base.pad_id)
    missing = model.config.get_text_config().vocab_size - len(tokenizer)
    tokenizer.add_tokens([f"<unused {number}>" for number in range(missing)])
    tokenizer.add_special_tokens({"eos_token": "<never>"})
    return BaseModel(base.name, model, tokenizer, base.digest)


@dataclass
class Turn:
    """What one side took in one turn, and the tokens that it wrote."""

    cost: Cost
    tokens: int

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.cost.seconds


def compare(
    name: str, base: BaseModel, prompts: Sequence[Prompt], options: argparse.Namespace
) -> dict[int, dict[str, float]]:
    """Roll out by all sides in turns, for each number of policies, and print their tokens per second."""
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        sides, close = _sides(base, prompts, Path(folder), options)
        for policies in _POLICIES:
            turns = [_turn(sides, policies) for _ in range(options.rounds + 1)][1:]  # the first is warm-up
            row = _summary(turns, policies)
            low, high = (pick(turn[BANK].speed / turn[MERGED].speed for turn in turns) for pick in (min, max))
            length = turns[0][BANK].tokens / (policies * options.prompts * options.completions)
            cells = [row[f"{side} tokens/s"] for side in (BANK, MERGED, MERGING)]
            ratios = [f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['ratio with merging']:.2f}"]
            rows.append([f"K = {policies}", length, *cells, *ratios, f"{row['ratio in cpu time']:.2f}"])
            found[policies] = row
        close()
    parameters = sum(parameter.numel() for parameter in base.model.parameters())
    print_table(
        f"{name}, {parameters / 1e6:.1f} M parameters: {options.prompts} prompts x {options.completions} completions "
        f"x K, at most {options.new_tokens} tokens; tokens/s",
        ["", "length", BANK, MERGED, MERGING, "bank/merged", "range", "bank/with merging", "in cpu time"],
        rows,
    )
    return found


def _turn(sides: dict[str, Side], policies: int) -> dict[str, Turn]:
    turns = {}
    for name, side in sides.items():
        with measured() as cost:
            tokens = side(policies)
        turns[name] = Turn(cost, tokens)
    # The third side has measured the merging alone; its rollouts are those of the second.
    merged, merging = turns[MERGED], turns[MERGING].cost
    both = Cost(merged.cost.seconds + merging.seconds, merged.cost.cpu + merging.cpu)
    return {**turns, MERGING: Turn(both, merged.tokens)}


def _summary(turns: Sequence[dict[str, Turn]], policies: int) -> dict[str, float]:
    def per_token(turn: Turn) -> float:
        return turn.cost.cpu / turn.tokens

    return {
        "policies": float(policies),
        **{f"{side} tokens/s": median(turn[side].speed for turn in turns) for side in (BANK, MERGED, MERGING)},
        "ratio": median(turn[BANK].speed / turn[MERGED].speed for turn in turns),
        "ratio with merging": median(turn[BANK].speed / turn[MERGING].speed for turn in turns),
        "ratio in cpu time": median(per_token(turn[MERGED]) / per_token(turn[BANK]) for turn in turns),
        "bank peak_mib": max(turn[BANK].cost.peak_mib for turn in turns),
        "merged peak_mib": max(turn[MERGED].cost.peak_mib for turn in turns),
    }


def _sides(
    base: BaseModel, prompts: Sequence[Prompt], folder: Path, options: argparse.Namespace
) -> tuple[dict[str, Side], Callable[[], None]]:
    """The sides by name, and what takes the bank off the base again."""
    adapters = _adapters(base.model)
    for name, adapter in adapters.items():
        write_adapter(adapter, folder / name, "base")
    merged = [PeftModel.from_pretrained(copy.deepcopy(base.model), folder / a).merge_and_unload() for a in adapters]
    swapped = PeftModel.from_pretrained(copy.deepcopy(base.model), folder / "a0", "a0")
    for name in list(adapters)[1:]:
        swapped.load_adapter(folder / name, name)
    ids = tokenize_prompts(list(prompts), base.tokenizer)
    environment = Environment(base, prompts, ids, lambda _, texts: np.zeros((len(texts), 2)), options.new_tokens)
    banks = {number: AdapterBank(base.model, dict(list(adapters.items())[:number])) for number in _POLICIES}
    places = list(range(len(prompts)))

    def together(policies: int) -> int:
        bank = banks[policies]
        return int(roll_out(environment, bank, bank.names, places, options.completions, "bench").lengths.sum())

    def one_by_one(policies: int) -> int:
        torch.manual_seed(0)
        return sum(_sample(model, base, ids, options) for model in merged[:policies])

    def merging(policies: int) -> int:
        for name in list(adapters)[:policies]:
            swapped.set_adapter(name)
            swapped.merge_adapter()
            swapped.unmerge_adapter()
        return 0

    def close() -> None:
        for bank in banks.values():
            bank.close()

    return {BANK: together, MERGED: one_by_one, MERGING: merging}, close


def _adapters(model: PreTrainedModel) -> dict[str, Adapter]:
    shapes, targets, _ = select_layers(model, "all-linear")
    generator = torch.Generator().manual_seed(0)
    fresh = fresh_adapter(shapes, targets, rank=8, alpha=16, generator=generator)
    return {f"a{k}": shaken(fresh, k) for k in range(max(_POLICIES))}


def _sample(model: PreTrainedModel, base: BaseModel, prompts: Sequence[list[int]], options: argparse.Namespace) -> int:
    """Tokens of the completions, EOS included."""
    longest, eos = max(map(len, prompts)), list(base.eos_ids)
    ids = torch.tensor([[base.pad_id] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model.generation_config = config = GenerationConfig(
        max_new_tokens=options.new_tokens,
        do_sample=True,
        top_k=0,
        num_return_sequences=options.completions,
        eos_token_id=eos,
        pad_token_id=base.pad_id,
    )
    out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, longest:]
    base.tokenizer.batch_decode(out, skip_special_tokens=True)
    ended = torch.isin(out, torch.tensor(eos)).long()
    return int((ended.cumsum(1) - ended == 0).sum())  # up to and including the first EOS


if __name__ == "__main__":
    main()
