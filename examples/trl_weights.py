"""TRL's GRPOTrainer with reward weights that change during training, on the help-desk demo.

pip install 'moalign[trl]'; python examples/trl_weights.py
"""

import warnings
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from moalign.batches import Completions
from moalign.demo import objectives
from moalign.demo.show import BASE_FOLDER
from moalign.demo.world import prompts
from moalign.integrations.trl import DynamicRewardWeights
from moalign.weighting import Observation, Weighting

TOKENIZER = AutoTokenizer.from_pretrained(BASE_FOLDER, padding_side="left")
ASKED = [[{"role": "user", "content": text}] for text in prompts("train")]
HELD_OUT = [[{"role": "user", "content": text}] for text in prompts("eval")]


def helpful(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
    return objectives.helpful(Completions(prompts, [turns[0]["content"] for turns in completions])).tolist()


def brief(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
    return objectives.brief(Completions(prompts, [turns[0]["content"] for turns in completions])).tolist()


def validate(model: PreTrainedModel) -> dict[str, float]:
    """Both objectives on prompts that are not trained on."""
    asked = TOKENIZER.apply_chat_template(
        HELD_OUT, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**asked, max_new_tokens=64, do_sample=True, num_return_sequences=2)
    texts = TOKENIZER.batch_decode(ids[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    answers = Completions(texts, texts)  # the two objectives read the answers alone
    return {"helpful": float(objectives.helpful(answers).mean()), "brief": float(objectives.brief(answers).mean())}


class Lagging:
    """A weighter of one's own: the objective that has come less far than the other gets more of the weight."""

    needs = frozenset({"validation"})
    validation_every = 2

    def __init__(self, preference: np.ndarray) -> None:
        self.preference = self.weights = preference

    def update(self, seen: Observation) -> Weighting:
        if seen.validation is not None:
            raw = self.preference * np.exp(-3 * seen.validation)
            self.weights = raw / raw.sum()
        return Weighting(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = np.array(state["weights"])


def train(weighter: Any, **options: Any) -> None:
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(BASE_FOLDER, dtype=torch.float32),
        processing_class=TOKENIZER,
        reward_funcs=[helpful, brief],
        train_dataset=Dataset.from_dict({"prompt": ASKED}),
        args=GRPOConfig(
            output_dir=mkdtemp(),
            max_steps=8,
            per_device_train_batch_size=32,
            num_generations=8,
            max_completion_length=64,
            learning_rate=2e-3,
            activation_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            logging_steps=2,
            disable_tqdm=True,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(DynamicRewardWeights(trainer, weighter, validate=validate, **options))
    before = validate(trainer.model)
    trainer.train()
    after = validate(trainer.model)
    for entry in trainer.state.log_history:
        if "reward_scale" in entry:
            weights = {name: round(entry[f"reward_weights/{name}"], 2) for name in ("helpful", "brief")}
            print("step", entry["step"], "weights", weights, "scale", round(entry["reward_scale"], 2))
    print("held-out prompts:", {name: (round(before[name], 2), round(after[name], 2)) for name in before})


def main() -> None:
    torch.set_num_threads(1)  # a model this small is slower on two
    # trl 1.16 still asks transformers by an old name.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    print("Hypervolume: larger updates while both get better than they were")
    train("hypervolume", preference={"helpful": 0.5, "brief": 0.5}, settings={"every": 2})
    print("Lagging: weight for what has come less far")
    train(Lagging(np.array([0.5, 0.5])))


if __name__ == "__main__":
    main()
