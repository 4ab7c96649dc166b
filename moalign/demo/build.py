"""Make the base model of the help-desk world: ``python -m moalign.demo.build [--out DIR] [--seed 0] [--steps N]``.

A small Llama reads the world's own answers to all 200 prompts until it says hardly anything else. What is printed at
the end is measured on the folder as it was saved.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from moalign.batches import Completions
from moalign.data import tokenize_prompts, tokenize_texts
from moalign.demo.vocabulary import END_ID, PAD_ID, train_tokenizer
from moalign.demo.world import brief, careful, helpful, prompts, warm, weighted_answers
from moalign.logprobs import Scorer
from moalign.models import load_base

OUT = Path(__file__).parent / "base"
# The logits are multiplied by this when training is done. What training leaves of noise (at every token, some
# thousandth of the probability on words that cannot follow) shrinks sixfold; choices between likely words hardly move.
SHARPNESS = 1.3
GREETINGS = ("Hi, ", "Hello, ", "Please help: ")


@dataclass(frozen=True)
class Size:
    """How large the base is, and how much it reads in one step."""

    hidden: int = 128
    layers: int = 3
    heads: int = 4
    inner: int = 320
    batch: int = 64


def build(out: Path, *, seed: int = 0, steps: int = 3000, size: Size = Size(), prompt_limit: int | None = None) -> None:
    """Train tokenizer and base, and save both in `out`; the same seed gives the same files.

    `prompt_limit` keeps only the first prompts, for a quick trial.
    """
    rng = np.random.default_rng(seed)
    known = _all_prompts()[:prompt_limit]
    tokenizer = train_tokenizer(_texts(known, rng))
    model = new_model(tokenizer, size, seed)
    train(model, examples(known, tokenizer, size.batch, rng), steps)
    model.model.norm.weight.data *= SHARPNESS  # the last layer before the logits, which are linear in it
    save(model, tokenizer, out)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the folder; the weights as float16, half the bytes in the wheel, to be read as float32."""
    weights = model.state_dict()
    del weights["lm_head.weight"]  # the same matrix as the input embedding
    model.save_pretrained(out, state_dict={name: weight.half() for name, weight in weights.items()})
    tokenizer.save_pretrained(out)


def new_model(tokenizer: PreTrainedTokenizerFast, size: Size, seed: int) -> LlamaForCausalLM:
    """An untrained Llama whose input and output embeddings are one matrix."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def train(model: LlamaForCausalLM, batches: Iterator[list[tuple[list[int], list[int]]]], steps: int) -> None:
    """Maximise the log-probability of the answers for `steps` batches; the rate rises, then falls to 0 as a cosine."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = min(200, max(1, steps // 10))
    schedule = LambdaLR(optimiser, lambda step: min((step + 1) / warmup, (1 + np.cos(np.pi * step / steps)) / 2))
    model.train()
    started, smooth = time.time(), 0.0
    for step in range(steps):
        loss = _loss(model, next(batches))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        smooth = loss.item() if step == 0 else 0.98 * smooth + 0.02 * loss.item()
        if (step + 1) % 250 == 0:
            print(
                f"step {step + 1}/{steps}  loss {smooth:.4f} nats per token  {time.time() - started:.0f} s", flush=True
            )
    model.eval()


def _loss(model: LlamaForCausalLM, batch: list[tuple[list[int], list[int]]]) -> Tensor:
    length = max(len(prompt) + len(answer) for prompt, answer in batch)
    ids = torch.full((len(batch), length), PAD_ID)
    labels = torch.full((len(batch), length), -100)
    for row, (prompt, answer) in enumerate(batch):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    # Padding stands on the right, behind all that is learnt, so causal attention needs no other mask.
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:] != -100
    return cross_entropy(model.lm_head(hidden[wanted]), labels[:, 1:][wanted])


def examples(
    known: list[str], tokenizer: PreTrainedTokenizerFast, size: int, rng: np.random.Generator
) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Batches of (prompt ids, answer ids) without end, answers in the world's own frequencies.

    Texts of like length stand in one batch, so that little of it is padding. Three prompts in ten are said otherwise
    (`reworded`), so that the base understands more than the 200 sentences it knows.
    """
    answers, shares = [], []
    for prompt in known:
        texts, probabilities = zip(*weighted_answers(prompt), strict=True)
        answers.append(tokenize_texts([_turn(prompt)] * len(texts), texts, tokenizer)[1])
        shares.append(np.array(probabilities))
    while True:
        drawn = []
        for i in rng.integers(len(known), size=16 * size):
            text = reworded(known[i], rng) if rng.random() < 0.3 else known[i]
            drawn.append((text, answers[i][rng.choice(len(shares[i]), p=shares[i])]))
        fronts = tokenize_prompts([_turn(text) for text, _ in drawn], tokenizer)
        pairs = sorted(
            ((front, answer) for front, (_, answer) in zip(fronts, drawn, strict=True)),
            key=lambda pair: len(pair[0]) + len(pair[1]),
        )
        for start in rng.permutation(range(0, len(pairs), size)):
            yield pairs[start : start + size]


def reworded(prompt: str, rng: np.random.Generator) -> str:
    """The same question in careless writing: in lower case, with a word left out, or after a greeting."""
    way = rng.integers(3)
    if way == 0:
        return prompt.lower().rstrip(".?")
    if way == 1:
        words = prompt.split()
        words.pop(int(rng.integers(len(words))))
        return " ".join(words)
    return rng.choice(GREETINGS) + prompt[0].lower() + prompt[1:]


def report(folder: Path) -> str:
    """What the saved base is: its size, the share of its probability that the listed answers carry, the objectives."""
    base = load_base(str(folder), device="cpu")
    scorer = Scorer.of(base.model)
    functions = (helpful, brief, warm, careful)
    coverage: dict[str, list[float]] = {"train": [], "eval": []}
    scores, weights = [], []
    for split, shares in coverage.items():
        for prompt in prompts(split):
            probability = answer_probabilities(scorer, base.tokenizer, prompt)
            texts = [text for text, _ in weighted_answers(prompt)]
            shares.append(float(probability.sum()))
            scores.append(np.stack([score(Completions([prompt] * len(texts), texts)) for score in functions], axis=1))
            weights.append(probability / probability.sum())
    size = sum(path.stat().st_size for path in folder.iterdir())
    parameters = sum(parameter.numel() for parameter in base.model.parameters())
    lines = [f"{parameters:,} parameters, vocabulary {len(base.tokenizer)}, {size / 2**20:.2f} MiB in {folder}"]
    for split, shares in coverage.items():
        lines.append(
            f"answers carry {np.mean(shares):.4%} of the base's probability (least {np.min(shares):.4%}) on all "
            f"{len(shares)} {split} prompts"
        )
    deviation, correlation = _moments(np.concatenate(scores), np.concatenate(weights) / len(weights))
    lines.append("objective  std    correlations under the base")
    for score, width, row in zip(functions, deviation, correlation, strict=True):
        lines.append(f"{score.__name__:<9}  {width:.3f}  " + "  ".join(f"{value:+.2f}" for value in row))
    return "\n".join(lines)


def answer_probabilities(scorer: Scorer, tokenizer: PreTrainedTokenizerBase, prompt: str) -> Float[np.ndarray, " n"]:
    """The model's probability of each answer to `prompt`, EOS included; their sum is the answers' share."""
    texts = [text for text, _ in weighted_answers(prompt)]
    fronts, answers = tokenize_texts([_turn(prompt)] * len(texts), texts, tokenizer)
    logprobs = scorer.batched(fronts, [[answer] for answer in answers], PAD_ID)
    return np.exp(logprobs.double().numpy())


def _moments(
    scores: Float[np.ndarray, "n m"], weights: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
    centred = scores - weights @ scores
    covariance = (centred * weights[:, None]).T @ centred
    deviation = np.sqrt(np.diag(covariance))
    return deviation, covariance / np.outer(deviation, deviation)


def _all_prompts() -> list[str]:
    return [*prompts("train"), *prompts("eval")]


def _turn(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _texts(known: list[str], rng: np.random.Generator) -> Iterator[str]:
    """All that the tokenizer has to know: prompts in every writing, and answers."""
    for prompt in known:
        yield prompt
        yield from (reworded(prompt, rng) for _ in range(20))
        yield from (text for text, _ in weighted_answers(prompt))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m moalign.demo.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the base; the package's own if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000)
    wanted = parser.parse_args()
    logging.disable_progress_bar()
    started = time.time()
    build(wanted.out, seed=wanted.seed, steps=wanted.steps)
    print(f"built in {time.time() - started:.0f} s")
    print(report(wanted.out))


if __name__ == "__main__":
    main()
