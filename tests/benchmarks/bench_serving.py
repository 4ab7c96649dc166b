"""Tokens per second of 32 requests with 32 different mixtures, against one merged model in the same engine.

    python tests/benchmarks/bench_serving.py [--quick] [--threads 1] [--only demo]
    python tests/benchmarks/bench_serving.py --gpu            # Qwen2.5 shapes of 0.5 and 7 B, random weights, on CUDA

All sides are served by `moalign serve`'s own engine, without HTTP: 32 slots, 32 prompts of 8 to 48 random tokens,
greedy, as many new tokens for everyone (no EOS), so that every side does the same work:

- merged: the engine over one merged model, whatever the preference
- 32 mixtures: the bank, each request with its own dense row of 11 weights
- 32 mixtures of two: as the policy `interpolate` makes them between neighbours
- one adapter each: one of 8 adapters per request, in mixed order
- one by one: what different mixtures come to without a bank. For each request PEFT makes the exact mixture
  (`add_weighted_adapter`, "cat"), merges it, the engine writes that request alone, and PEFT takes it out again
- PEFT's mixed batch (`adapter_names`; with --peft or --gpu): one named adapter per sequence under transformers'
  `generate`; it has no mixtures

The sides run in turns, several times; a ratio is the median over the turns of its tokens per second over the merged
model's in the same turn, and, beside it, the same per second of processor time, which other work on the machine
disturbs less. The one-by-one side serves a few of the requests in each turn. `bound` counts the operations of both.
Bases: the demo's, the 3 M story model where it is there, and random Llamas of 29 M and 111 M parameters.
"""

import copy
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import torch
from common import SHARED, Cost, arguments, begin, measured, print_json, print_table, random_llama, shaken
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from moalign.adapters import Adapter, fresh_adapter, write_adapter
from moalign.bank import AdapterBank
from moalign.demo.show import BASE_FOLDER
from moalign.models import BaseModel, select_layers
from moalign.serving.engine import Engine
from moalign.serving.limits import Limits
from moalign.serving.meter import Meter
from moalign.serving.plan import Plan
from moalign.serving.sampling import Sampling

_ADAPTERS, _REQUESTS = 11, 32
MERGED, MIXED, TWO, NAMED, SINGLY, PEFT = (
    "merged: one policy for all",
    "32 mixtures",
    "32 mixtures of two",
    "one adapter each, mixed order",
    "one by one, merging each",
    "PEFT, one adapter each",
)
Serve = Callable[[], object]


class Endless(BaseModel):
    """A base that no token ends: every text is equally long."""

    eos_ids = ()


def main() -> None:
    """Print the ratios for each base that is there."""
    parser = arguments(__doc__ or "")
    parser.set_defaults(threads=1)
    parser.add_argument("--new-tokens", type=int, help="per request (default 64; quick: 16)")
    parser.add_argument("--rounds", type=int, help="turns of all sides (default 9; quick: 3)")
    parser.add_argument("--singly", type=int, help="requests served one by one in a turn (default 4; quick: 2)")
    parser.add_argument("--rank", type=int, help="of the adapters (default 8; on a GPU 16)")
    parser.add_argument("--peft", action="store_true", help="with PEFT's mixed batch")
    parser.add_argument("--gpu", action="store_true", help="the large shapes, in bfloat16 on CUDA")
    parser.add_argument("--only", help="one base alone, by the beginning of its name")
    options = parser.parse_args()
    options.new_tokens = options.new_tokens or (16 if options.quick else 64)
    options.rounds = options.rounds or (3 if options.quick else 9)
    options.singly = options.singly or (2 if options.quick else 4)
    options.rank = options.rank or (16 if options.gpu else 8)
    begin(options)
    if options.gpu:
        print(torch.cuda.get_device_name())
    found = {}
    for name, load in _qwens() if options.gpu else _bases():
        if not options.only or name.startswith(options.only):
            with tempfile.TemporaryDirectory() as folder:
                found[name] = compare(name, load(), Path(folder), options)
    print_json({"benchmark": "serving", "threads": options.threads, "new_tokens": options.new_tokens, **found})


def _bases() -> Iterator[tuple[str, Callable[[], PreTrainedModel]]]:
    for name, folder in (("demo", BASE_FOLDER), ("stories3M-chat", SHARED / "models" / "stories3M-chat")):
        if (folder / "config.json").is_file():
            yield name, partial(AutoModelForCausalLM.from_pretrained, folder, dtype=torch.float32)
    shape = {"layers": 8, "heads": 8, "key_heads": 8, "vocabulary": 8192}
    yield "random 29 M", partial(random_llama, hidden=512, between=1376, **shape)
    yield "random 110 M", partial(random_llama, hidden=1024, between=2816, **shape)


def _qwens() -> Iterator[tuple[str, Callable[[], PreTrainedModel]]]:
    """Qwen2.5's shapes, by its published configurations."""
    small = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
    large = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    for name, shape, tied in (
        ("Qwen2.5 0.5 B", {**small, "num_key_value_heads": 2, "vocab_size": 151936}, True),
        ("Qwen2.5 7 B", {**large, "num_key_value_heads": 4, "vocab_size": 152064}, False),
    ):
        yield name, partial(_random_qwen, Qwen2Config(**shape, tie_word_embeddings=tied))


def _random_qwen(config: Qwen2Config) -> PreTrainedModel:
    with torch.device("cuda"):
        return Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16).eval()


def compare(name: str, model: PreTrainedModel, folder: Path, options) -> dict[str, object]:
    """Serve the batch by all sides in turns, and print their tokens per second."""
    adapters = _adapters(model, options.rank)
    sides = _sides(model.eval(), adapters, folder, options)
    costs: dict[str, list[Cost]] = {side: [] for side in sides}
    for number in range(options.rounds + 1):
        for side, (serve, requests) in sides.items():
            with measured() as cost:
                serve()
            if number:  # the first turn is warm-up
                costs[side].append(Cost(cost.seconds / requests, cost.cpu / requests, cost.peak_mib))
    rows, found = [], {}
    for side, own in costs.items():
        wall = [merged.seconds / mine.seconds for mine, merged in zip(own, costs[MERGED], strict=True)]
        cpu = [merged.cpu / mine.cpu for mine, merged in zip(own, costs[MERGED], strict=True)]
        speed = options.new_tokens / median(cost.seconds for cost in own)
        spread = f"{min(wall):.2f} to {max(wall):.2f}"
        rows.append([side, speed, f"{median(wall):.3f}", spread, f"{median(cpu):.3f}"])
        found[side] = {"tokens_per_second": speed, "ratio": median(wall), "ratio_cpu": median(cpu)}
    found["bound"] = _bound(model, adapters)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print_table(
        f"{name}, {parameters / 1e6:.1f} M parameters, rank {options.rank}: {_REQUESTS} requests of "
        f"{options.new_tokens} new tokens; bound for 32 mixtures by operations {found['bound']:.2f}",
        ["", "tokens/s", "of merged", "range", "in cpu time"],
        rows,
    )
    return found


def _bound(model: PreTrainedModel, adapters: dict[str, Adapter]) -> float:
    """The weights that a token meets in linear layers, without and with the factors of all adapters."""
    head = model.get_output_embeddings().weight.numel()
    plain = head + sum(
        module.weight.numel() for name, module in model.named_modules() if name in next(iter(adapters.values())).layers
    )
    factors = sum(
        layer.A.numel() + layer.B.numel() for adapter in adapters.values() for layer in adapter.layers.values()
    )
    return plain / (plain + factors)


def _adapters(model: PreTrainedModel, rank: int) -> dict[str, Adapter]:
    shapes, targets, _ = select_layers(model, "all-linear")
    generator = torch.Generator().manual_seed(0)
    fresh = fresh_adapter(shapes, targets, rank=rank, alpha=2 * rank, generator=generator)
    return {f"a{k}": shaken(fresh, k) for k in range(_ADAPTERS)}


def _sides(model: PreTrainedModel, adapters: dict[str, Adapter], folder: Path, options) -> dict[str, tuple[Serve, int]]:
    """Each side: a function that serves requests, and how many."""
    prompts, tokens = _prompts(model), options.new_tokens
    for name, adapter in adapters.items():
        write_adapter(adapter, folder / name, "base")
    swapped = PeftModel.from_pretrained(copy.deepcopy(model), folder / "a0", "a0")
    for name in list(adapters)[1:]:
        swapped.load_adapter(folder / name, name)
    merged = PeftModel.from_pretrained(copy.deepcopy(model), folder / "a0").merge_and_unload()
    tokenizer = AutoTokenizer.from_pretrained(BASE_FOLDER)  # texts of unknown ids cost as much as others to decode
    alone = _engine(merged, None, tokenizer)
    banked = _engine(model, AdapterBank(model, adapters), tokenizer)
    single = _engine(swapped.base_model.model, None, tokenizer)
    dense = torch.distributions.Dirichlet(torch.ones(_ADAPTERS)).sample((_REQUESTS,)).tolist()
    mixtures = [dict(zip(adapters, row, strict=True)) for row in dense]
    two = [{f"a{k % 10}": 0.3 + k / 80, f"a{k % 10 + 1}": 0.7 - k / 80} for k in range(_REQUESTS)]
    named = [{f"a{k % 8}": 1.0} for k in range(_REQUESTS)]

    def one_by_one() -> None:
        for request in range(options.singly):
            _serve_alone(swapped, single, list(adapters), dense[request], prompts[request], tokens)

    found: dict[str, tuple[Serve, int]] = {
        MERGED: (partial(_serve, alone, prompts, [{}] * _REQUESTS, tokens), _REQUESTS),
        MIXED: (partial(_serve, banked, prompts, mixtures, tokens), _REQUESTS),
        TWO: (partial(_serve, banked, prompts, two, tokens), _REQUESTS),
        NAMED: (partial(_serve, banked, prompts, named, tokens), _REQUESTS),
        SINGLY: (one_by_one, options.singly),
    }
    if options.peft or options.gpu:
        names = [f"a{k % 8}" for k in range(_REQUESTS)]
        found[PEFT] = (partial(_generate, swapped, names, prompts, tokens), _REQUESTS)
    return found


def _engine(model: PreTrainedModel, bank: AdapterBank | None, tokenizer: PreTrainedTokenizerBase) -> Engine:
    base = Endless("bench", model.requires_grad_(False), tokenizer, "bench")
    engine = Engine(base, bank, Limits(slots=_REQUESTS, prefill_tokens=1 << 16), Meter())
    engine.start()
    return engine


def _prompts(model: PreTrainedModel) -> list[list[int]]:
    """32 prompts of 8 to 48 random tokens."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(8, 49, (_REQUESTS,), generator=generator).tolist()
    return [torch.randint(3, model.config.vocab_size, (n,), generator=generator).tolist() for n in lengths]


def _serve(engine: Engine, prompts: list[list[int]], rows: list[dict[str, float]], tokens: int) -> None:
    """All requests at once; returns when the last has its last token."""
    left, done = len(prompts), threading.Event()

    def deliver(pieces) -> None:  # in the engine's one thread
        nonlocal left
        for piece in pieces:
            assert piece.error is None, piece.error
            if piece.finish is not None:
                assert piece.tokens == tokens, "a text ended early"
                left -= 1
        if not left:
            done.set()

    for prompt, row in zip(prompts, rows, strict=True):
        plan = Plan("bench", None, None, (row,), (1.0,), "reverse_kl", {}, "unknown")
        engine.submit(prompt, plan, [Sampling(tokens, temperature=0.0)], deliver)
    done.wait()


def _serve_alone(
    swapped: PeftModel, engine: Engine, names: list[str], weights: list[float], prompt: list[int], tokens: int
) -> None:
    swapped.add_weighted_adapter(names, weights, "mixture", combination_type="cat")
    swapped.set_adapter("mixture")
    swapped.merge_adapter()
    _serve(engine, [prompt], [{}], tokens)
    swapped.unmerge_adapter()
    swapped.delete_adapter("mixture")


def _generate(swapped: PeftModel, names: list[str], prompts: list[list[int]], tokens: int) -> None:
    """PEFT's own mixed batch, padded on the left as transformers wants it."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=swapped.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=swapped.device)
    config = GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
    with torch.inference_mode():
        swapped.generate(input_ids=ids, attention_mask=mask, generation_config=config, adapter_names=names)


if __name__ == "__main__":
    main()
