"""What the sweep benchmarks train: real pairs on a real small base, random pairs on a random one, the demo.

Each is a config, prepared by the product's own code, with 11 preferences between two objectives.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED, Cost, measured, random_llama, shaken
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from moalign.adapters import Adapter
from moalign.config import SweepConfig, parse_config
from moalign.measuring import planner_of
from moalign.methods import METHODS, Job, PairData, Workplace
from moalign.models import adapter_factory, load_base
from moalign.planning import Plan
from moalign.preference import Preference
from moalign.preparation import Prepared, prepare
from moalign.runs import Run

_WORDS = 4096
_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass
class Workload:
    """A prepared sweep: its plans in groups, the constants of its data, and what they and the planning cost."""

    name: str
    prepared: Prepared
    settings: Any
    margins: dict[str, Adapter]  # by objective: what the authors' schedule takes the margin from
    fresh: Adapter
    data: dict[str, PairData] = field(default_factory=dict)
    precompute: Cost = field(default_factory=Cost)
    planning: Cost = field(default_factory=Cost)
    group_size: int = 1
    seed: int = 0  # of the order of the pairs, for every side

    @property
    def plans(self) -> list[Plan]:
        """All preferences of the sweep."""
        return [plan for wave in planner_of(self.prepared).waves() for plan in wave]

    @property
    def groups(self) -> list[list[Plan]]:
        """The plans as the sweep trains them: wave by wave, neighbours together."""
        return [group for wave in planner_of(self.prepared).waves() for group in groups_of(wave, self.group_size)]

    def bare_base(self) -> PreTrainedModel:
        """The base loaded once more, for others to put their adapters on: no bank has its hooks there."""
        return load_base(self.prepared.base.name, device="cpu").model

    def count(self, primary: str) -> int:
        """How many preferences are trained on the pairs of this objective."""
        return sum(plan.primary == primary for plan in self.plans)

    def train(self, plans: list[Plan], steps: int, on_step: Callable[..., None]) -> None:
        """Train a group as the sweep does, for so many steps."""
        folder = self.prepared.run.folder
        workplace = Workplace(
            scorer=self.prepared.scorer,
            pad_id=self.prepared.base.pad_id,
            objectives=self.prepared.run.objectives,
            data=self.data,
            seed=self.seed,
            checkpoint=folder / "benchmark.safetensors",
            on_step=on_step,
        )
        jobs = [Job(plan.key, plan.preference, plan.primary, self.fresh, steps) for plan in plans]
        METHODS["modpo"].train(jobs, workplace, self.settings)
        (folder / "benchmark.safetensors").unlink(missing_ok=True)


def prepare_workload(name: str, config: SweepConfig, folder: Path, group_size: int | None) -> Workload:
    """Load base and data, compute the constants of the data and choose the group size; both are timed."""
    prepared = prepare(Run.create(folder, config), lambda line: print(f"  note: {line}"))
    adapter = config.adapter
    make = adapter_factory(prepared.base, rank=adapter.rank, alpha=adapter.alpha, target_modules=adapter.target_modules)
    fresh = make(config.seed)
    margins = {objective: shaken(fresh, seed) for seed, objective in enumerate(config.objectives)}
    workload = Workload(name, prepared, config.method_settings, margins, fresh)
    for objective in prepared.implicit:
        prepared.learn(objective, margins[objective], f"benchmark-{objective}")
    with measured() as workload.precompute:
        workload.data = {objective: prepared.pair_data(objective) for objective in config.objectives}
    if group_size is not None:
        workload.group_size = group_size
        return workload
    with measured() as workload.planning:
        most = max(len(wave) for wave in planner_of(prepared).waves())
        workload.group_size = best_group_size(lambda size: _probe(workload, size), most, config.memory_gb)
    return workload


def _probe(workload: Workload, size: int) -> None:
    """One step of so many adapters, as the sweep times it to choose its group size."""
    plan = workload.plans[0]
    corner = Preference.of({plan.primary: 1.0})
    plans = [Plan(f"probe {number}", corner, plan.primary, 1) for number in range(size)]
    workload.train(plans, 1, lambda *_: None)


def real_config(steps: int, limit: int | None) -> SweepConfig | None:
    """Helpful and harmless pairs of people, on a 3 M story model tuned on dialogues; None where they are absent."""
    base, data = SHARED / "models" / "stories3M-chat", SHARED / "data"
    if not (base.is_dir() and (data / "pairs_hh_helpful.jsonl.gz").is_file()):
        return None
    pairs = {name: {"pairs": str(data / f"pairs_hh_{name}.jsonl.gz")} for name in ("helpful", "harmless")}
    options = {"max_length": 256, "separator": " ", "skip_bad_rows": True}
    return _config(str(base), pairs, steps, options | ({"limit": limit} if limit else {}))


def synthetic_config(folder: Path, steps: int, pairs: int) -> SweepConfig:
    """Random words on a random Llama of the story model's shape: prompts of 32 to 128, responses of 16 to 64."""
    base = folder / "base"
    random_llama(hidden=192, layers=6, heads=6, key_heads=2, between=512, vocabulary=_WORDS).save_pretrained(base)
    _word_tokenizer().save_pretrained(base)
    rng = np.random.default_rng(0)
    sources = {}
    for name in ("one", "two"):
        rows = [
            {"prompt": _text(rng, 32, 128), "chosen": _text(rng, 16, 64), "rejected": _text(rng, 16, 64)}
            for _ in range(pairs)
        ]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        sources[name] = {"pairs": str(path)}
    return _config(str(base), sources, steps, {"max_length": 256, "separator": " "})


def _config(base: str, objectives: dict[str, dict[str, str]], steps: int, data: dict[str, Any]) -> SweepConfig:
    return parse_config(
        {
            "base": base,
            "objectives": objectives,
            "preferences": {"lattice": 10},
            "settings": {"beta": 0.1, "steps": steps, "batch_size": 8, "learning_rate": 5e-4},
            "adapter": {"rank": 8, "alpha": 16, "target_modules": _MODULES},
            "data": data,
            "device": "cpu",
        },
        "benchmark",
    )


def _word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word."""
    names = ["<pad>", "<s>", "</s>", *(f"w{number}" for number in range(3, _WORDS))]
    tokens = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def _text(rng: np.random.Generator, least: int, most: int) -> str:
    return " ".join(f"w{number}" for number in rng.integers(3, _WORDS, rng.integers(least, most + 1)))
