"""The example configs as they stand, made quick: every one is read, and those of online alignment are run."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from moalign import run_sweep
from moalign.config import SweepConfig, load_config, parse_config
from moalign.runs import Run

CONFIGS = Path(__file__).resolve().parents[1] / "examples" / "configs"
SWEEPS = sorted(path.name for path in CONFIGS.glob("*.yaml") if path.name not in ("sft.yaml", "reward_model.yaml"))
HEADS = ("politeness", "meaningfulness", "actionability", "safety")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A random reward model with the four heads of the paper."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.3,
        id2label=dict(enumerate(HEADS)),
        label2id={head: number for number, head in enumerate(HEADS)},
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("judge")
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _quick(config: SweepConfig, **changes: Any) -> SweepConfig:
    """Two steps of few and short answers."""
    few = {"steps": 2, "prompts": 2, "completions": 4, "max_new_tokens": 8}
    values = config.model_dump(mode="json", by_alias=True, exclude_none=True) | {
        "settings": config.settings | few,
        "evaluation": {"prompts": 2, "samples": 2, "max_new_tokens": 8},
    }
    return parse_config(values | changes)


def _trained(run: Run) -> dict[str, dict[str, float]]:
    """The weights of each adapter's objectives in its second step."""
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [row for row in map(json.loads, lines) if row["kind"] == "rollouts" and row["step"] == 2]
    return {row["adapter"]: row["weights"] for row in logged}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_config_is_read_and_says_how_to_run_it(name: str) -> None:
    load_config(CONFIGS / name)
    assert f"moalign sweep examples/configs/{name}\n" in (CONFIGS / name).read_text(encoding="utf-8")


def test_rules_alone_are_enough(tmp_path: Path) -> None:
    """Rules, prompts and the demo's base, all in the repository: three corners and three middles."""
    run = run_sweep(_quick(load_config(CONFIGS / "online_rules.yaml")), tmp_path / "run")
    assert len(run.front()) == 6
    assert len(_trained(run)) == 6


def test_four_heads_of_one_reward_model(
    tiny_base: Path, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Multi-label reward GRPO: the placeholders replaced, five policies learn; each text is read once for all heads."""
    read, loaded = Counter(), set()
    forward = LlamaForSequenceClassification.forward

    def counted(self, input_ids, attention_mask):
        loaded.add(id(self))
        read.update(tuple(ids[mask > 0].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True))
        return forward(self, input_ids=input_ids, attention_mask=attention_mask)

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", counted)
    text = (CONFIGS / "multi_label_grpo.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text.replace("org/base-model", str(tiny_base)).replace("org/reward-model", str(judge)))
    values["data"]["train_prompts"] = str(CONFIGS / values["data"]["train_prompts"])
    run = run_sweep(_quick(parse_config(values)), tmp_path / "run")

    assert run.objectives == HEADS
    trained = _trained(run)
    assert trained == {point.adapter: dict.fromkeys(HEADS, 0.0) | point.preference.weights for point in run.front()}
    assert len(trained) == 5
    assert len(loaded) == 1
    assert set(read.values()) == {1}
    scores = [list(folder.glob("*.jsonl")) for folder in run.cache.glob("scores-*")]
    assert [sum(len(file.read_text().splitlines()) for file in files) for files in scores] == [len(read)] * 4
