"""From a sweep to folders that other tools load: what they say there, and what a kill in the middle leaves."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_world
import torch
from command import moalign
from kills import finish, killed_at
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from moalign.bank import AdapterBank
from moalign.config import load_config
from moalign.models import load_base
from moalign.runs import Run
from moalign.sweep import run_sweep

TRAINED = {"beta": 0.1, "steps": 30, "batch_size": 16, "learning_rate": 0.03}
WISH = "warm=0.8,brief=0.2"  # between warm alone and both alike


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    """Three adapters that visibly disagree."""
    folder = tmp_path_factory.mktemp("merging")
    return run_sweep(load_config(tiny_world.write_config(folder, base, settings=TRAINED)), folder / "run")


@pytest.fixture(scope="module")
def model(base: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


def greedy(model: Any, base: Path, prompt: str) -> str:
    """The likeliest tokens, as transformers takes them."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, eos_token_id=1
        )
    return str(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def said(run: Run, prompt: str, *options: object) -> str:
    ended = moalign("generate", run.folder, prompt, "--prefer", WISH, "--max-new-tokens", 6, *options)
    assert ended.code == 0, ended.err
    return ended.out.rstrip("\n")


@pytest.mark.parametrize("policy", ["interpolate", "nearest", "soup"])
def test_a_merged_folder_says_in_peft_what_generate_says(
    run: Run, base: Path, model: PreTrainedModel, tmp_path: Path, load_with_peft: Callable[..., Any], policy: str
) -> None:
    """Greedily, on every prompt; the base itself says something else."""
    ended = moalign("merge", run.folder, "--prefer", WISH, "--policy", policy, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    loaded = load_with_peft(model, tmp_path / "out")
    texts = [greedy(loaded, base, prompt) for prompt in tiny_world.PROMPTS]
    assert texts == [said(run, prompt, "--policy", policy, "--temperature", 0) for prompt in tiny_world.PROMPTS]
    assert texts != [greedy(model, base, prompt) for prompt in tiny_world.PROMPTS]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks by that name
def test_the_code_on_the_card_loads_the_folder(run: Run, tmp_path: Path, ids: Tensor) -> None:
    """As it stands, but for the folder's name; the logits are those of the bank's row."""
    assert moalign("merge", run.folder, "--prefer", WISH, "--out", tmp_path / "out").code == 0
    page = (tmp_path / "out" / "README.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0].replace("THIS_FOLDER", str(tmp_path / "out"))
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    parents = json.loads((tmp_path / "out" / "record.json").read_text())["recipe"]["parents"]
    row = {key: parent["weight"] for key, parent in parents.items()}
    assert logits(names["model"].eval(), ids).sub(bank_logits(run, row, ids)).abs().max() < 1e-4


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids % len(tiny_world.WORDS)).logits


def bank_logits(run: Run, row: dict[str, float], ids: Tensor) -> Tensor:
    model = load_base(run.config.base).model
    adapters = {key: run.store.load(key) for key in row}
    with AdapterBank(model, adapters) as bank, bank.rows(bank.mixture(row).expand(len(ids), -1)):
        return logits(model, ids)


@pytest.mark.parametrize("to", ["vllm", "sglang", "lorax"])
def test_every_exported_folder_loads_and_is_its_adapter(
    run: Run, model: PreTrainedModel, tmp_path: Path, ids: Tensor, load_with_peft: Callable[..., Any], to: str
) -> None:
    ended = moalign("export", run.folder, tmp_path / "out", "--to", to, "--json")
    assert ended.code == 0, ended.err
    adapters = json.loads(ended.out)["adapters"]
    points = {point.preference.key: point.adapter for point in run.front()}
    assert {each["name"] for each in adapters} == points.keys()
    for each in adapters:
        loaded = load_with_peft(model, tmp_path / "out" / each["folder"])
        apart = logits(loaded, ids).sub(bank_logits(run, {points[each["name"]]: 1.0}, ids))
        assert apart.abs().max() < 1e-4


# Killed in the middle: the same command again.


def contents(folder: Path) -> dict[str, bytes]:
    """What is in a folder, but for its own path, and for what a kill left lying under a hidden name."""
    return dict(_contents(folder))


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield str(name), path.read_bytes().replace(os.fsencode(folder.parent), b"PARENT")


@pytest.fixture(scope="module")
def commands(run: Run) -> dict[str, list[str]]:
    merge = ["merge", str(run.folder), "--prefer", WISH, "--rank", "2", "--out"]
    return {"merge": merge, "export": ["export", str(run.folder), "--to", "vllm", "--rank", "1"]}


@pytest.mark.parametrize(("name", "flushes"), [("merge", [1, 3, 4, 6]), ("export", [1, 3, 9, 10, 10])])
def test_the_same_command_again_finishes_what_was_killed(
    commands: dict[str, list[str]], tmp_path: Path, name: str, flushes: list[int]
) -> None:
    """SIGKILL at some of the moments in which a file goes to the disk; whatever has its place by then is whole."""
    whole, out, log = tmp_path / "undisturbed" / "out", tmp_path / "killed" / "out", tmp_path / "log"
    finish([*commands[name], str(whole)], log)
    expected = contents(whole)
    for flush in flushes:
        assert killed_at(flush, [*commands[name], str(out)], log) == -signal.SIGKILL, log.read_text()
        found = contents(out) if out.exists() else {}
        assert found.items() <= expected.items()
        for record in (path for path in found if path.endswith("record.json")):
            folder = record.removesuffix("record.json")
            assert {path for path in expected if path.startswith(folder)} <= found.keys()
    finish([*commands[name], str(out)], log)
    assert contents(out) == expected
