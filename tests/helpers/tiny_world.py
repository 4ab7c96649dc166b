"""A world of twelve answers: small enough to enumerate, and to sweep in seconds.

Six prompts, "q0 ?" to "q5 ?"; an answer is a greeting, a time and, perhaps, thanks: "sure now thanks". A Llama of a few
thousand weights is trained on all of them in a second, so that they carry nearly all of its probability.

Configs name its functions: `type: tiny_world:warm`, `oracle: tiny_world:answers`.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

GREETINGS, TIMES, ENDS = ("yes", "sure", "ok"), ("now", "later"), ("", "thanks")
PROMPTS = tuple(f"q{i} ?" for i in range(6))
ANSWERS = tuple(" ".join(filter(None, parts)) for parts in itertools.product(GREETINGS, TIMES, ENDS))
WORDS = ("<pad>", "<eos>", "?", *(f"q{i}" for i in range(6)), *GREETINGS, *TIMES, "thanks")


def answers(_prompt: str) -> Sequence[str]:
    """Every answer there is, for the oracle."""
    return ANSWERS


def warm(completions: Any) -> list[float]:
    """A warm greeting and thanks."""
    return [1.0 * ("sure" in text) + 1.0 * ("thanks" in text) for text in completions.responses]


def soon(completions: Any) -> list[float]:
    """Now rather than later."""
    return [1.0 * ("now" in text) for text in completions.responses]


def nan(completions: Any) -> list[float]:
    """An objective that fails on some texts."""
    return [float("nan") if "later" in text else 0.0 for text in completions.responses]


def loud(completions: Any) -> list[float]:
    """Thanks upon thanks; at three of them, which nobody says before he has learnt to, it fails, on q0 to q2 alone."""
    counts = [text.split().count("thanks") for text in completions.responses]
    failing = [count > 2 and prompt < "q3" for count, prompt in zip(counts, completions.prompts, strict=True)]
    return [float("nan") if fails else float(count) for count, fails in zip(counts, failing, strict=True)]


def too_few(completions: Any) -> list[float]:
    """An objective that loses a text."""
    return [0.0] * (len(completions) - 1)


def raises(completions: Any) -> list[float]:
    """An objective with a mistake in it."""
    return [1.0 / 0 for _ in completions.responses]


def build_base(folder: Path) -> Path:
    """Train the base model and save it with its tokenizer; the same bits every time."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    texts = [f"{prompt} {answer} <eos>" for prompt in PROMPTS for answer in ANSWERS]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, :2] = -100  # the prompt
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(WORDS),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=32,
                pad_token_id=0,
                bos_token_id=None,
                eos_token_id=1,
            )
        )
        adam = torch.optim.AdamW(model.parameters(), lr=2e-2)
        for _ in range(80):
            loss = model(**batch, labels=labels).loss
            adam.zero_grad()
            loss.backward()
            adam.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_preferring(word: str) -> list[dict[str, str]]:
    """Pairs of someone who likes `word`: every answer that has it against the next that has it not."""
    with_, without = ([a for a in ANSWERS if (word in a.split()) == has] for has in (True, False))
    pairs = [(c, r) for i, c in enumerate(with_) for r in (without * 2)[i : i + 2]]
    return [{"prompt": prompt, "chosen": c, "rejected": r} for prompt in PROMPTS for c, r in pairs]


def settings(base: Path, /, **changes: Any) -> dict[str, Any]:
    """A sweep over two rules in a few seconds; `changes` replace whole keys."""
    return {
        "base": str(base),
        "objectives": {"warm": {"type": "tiny_world:warm"}, "brief": {"type": "length"}},
        "preferences": {"lattice": 2},
        "settings": {"beta": 0.5, "steps": 8, "batch_size": 8, "learning_rate": 0.02},
        "adapter": {"rank": 2, "alpha": 4},
        "data": {"responses": "pairs.jsonl", "prompts": "prompts.jsonl", "holdout": 0.2, "separator": " "},
        "evaluation": {"prompts": 6, "samples": 4, "max_new_tokens": 5},
        "group_size": 2,
        "checkpoint_seconds": 0,
    } | changes


def write_config(folder: Path, base: Path, /, **changes: Any) -> Path:
    """sweep.yaml with its data beside it; the path of the config."""
    write_rows(folder / "pairs.jsonl", [*rows_preferring("thanks"), *rows_preferring("now")])
    write_rows(folder / "prompts.jsonl", ({"prompt": prompt} for prompt in PROMPTS))
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(settings(base, **changes), sort_keys=False))
    return path
