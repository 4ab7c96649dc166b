"""The adapter bank by itself: four trade-offs of one prompt in one batch, nothing merged, nothing swapped.

python examples/bank.py RUN        # any finished run; `moalign demo` makes runs/demo
"""

import sys

import torch

import moalign
from moalign.data import prompt_ids
from moalign.generation import generate
from moalign.models import load_base


def main(folder: str) -> None:
    run = moalign.Run.open(folder)
    base = load_base(run.config.base)
    first, *_, last = list(run.front())
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])  # the base, an adapter, a blend, another
    prompt = prompt_ids([{"role": "user", "content": "How do I reset my password?"}], base.tokenizer)
    with moalign.AdapterBank(base.model, {p.adapter: run.store.load(p.adapter) for p in (first, last)}) as bank:
        texts = generate(base, bank, rows, [prompt] * 4, seeds=[1] * 4, max_new_tokens=80)
    for row, ids in zip(rows.tolist(), texts, strict=True):
        print(row, base.tokenizer.decode(ids, skip_special_tokens=True))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
