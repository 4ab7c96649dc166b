"""What a user would run instead: the MODPO authors' schedule, and TRL's DPOTrainer. One adapter at a time."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from workloads import Workload

from moalign.adapters import write_adapter
from moalign.batches import Prompt
from moalign.planning import Plan
from moalign.training import Optimisation, batch_order

_IGNORED = -100


class AuthorsSchedule:
    """MODPO as its authors' code trains it (github.com/ZHZisZZ/modpo), on plain PEFT and transformers.

    Per step 4 forward passes, policy with gradients, reference, margin adapter, and the reference once more inside the
    margin's wrapper, and 1 backward pass; chosen and rejected are two sequences, padded together; the logits are cast
    to float32 and normalised in full. Without a margin it is plain DPO: 2 forward passes. In its favour: pairs come
    tokenised and in our batches of similar length, where theirs are tokenised again at each step and in random order.
    """

    def __init__(self, workload: Workload, base: PreTrainedModel, plan: Plan, folder: Path, *, margin: bool = True):
        self.workload, self.plan, self.settings = workload, plan, workload.settings
        names = workload.prepared.run.objectives
        other = next(name for name in names if name != plan.primary)
        self.weights = [float(w) for w in plan.preference.vector([plan.primary, other])]
        write_adapter(workload.fresh, folder / "policy", "base")
        write_adapter(workload.margins[other], folder / "margin", "base")
        self.model = PeftModel.from_pretrained(copy.deepcopy(base), folder / "policy", "policy", is_trainable=True)
        self.model.load_adapter(folder / "margin", "margin")
        self.model.set_adapter("policy")
        self.model.train()
        self.margin = margin
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.adam = torch.optim.AdamW(self.parameters, weight_decay=self.settings.weight_decay)

    def train(self, steps: int, on_step: Callable[[float], None]) -> None:
        """Take so many steps on the same pairs, in the same order, as the sweep; `on_step` is given each loss."""
        settings = self.settings
        schedule = Optimisation(
            steps, settings.learning_rate, settings.weight_decay, settings.warmup, settings.max_gradient_norm
        )
        tokens = self.workload.data[self.plan.primary].tokens
        for step in range(steps):
            pairs = batch_order(tokens.lengths, settings.batch_size, self.workload.seed, step)
            ids, labels, mask = self._collate(pairs)
            loss = self._loss(ids, labels, mask)
            self.adam.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, settings.max_gradient_norm)
            for group in self.adam.param_groups:
                group["lr"] = schedule.rate(step)
            self.adam.step()
            on_step(loss.item())

    def _collate(self, pairs: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Chosen, then rejected sequences, padded on the right."""
        tokens, pad = self.workload.data[self.plan.primary].tokens, self.workload.prepared.base.pad_id
        texts = [(tokens.prompt[i], responses[i]) for responses in (tokens.chosen, tokens.rejected) for i in pairs]
        longest = max(len(prompt) + len(response) for prompt, response in texts)
        ids = torch.full((len(texts), longest), pad)
        labels, mask = torch.full_like(ids, _IGNORED), torch.zeros_like(ids)
        for row, (prompt, response) in enumerate(texts):
            end = len(prompt) + len(response)
            ids[row, :end] = torch.tensor(prompt + response)
            labels[row, len(prompt) : end] = torch.tensor(response)
            mask[row, :end] = 1
        return ids, labels, mask

    def _loss(self, ids: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        beta = self.settings.beta
        policy = self._logprobs(ids, labels, mask)
        with torch.no_grad():
            reference = self._logprobs(ids, labels, mask, self.model.disable_adapter())
            if self.margin:
                self.model.set_adapter("margin")
                margin = self._logprobs(ids, labels, mask)
                self.model.set_adapter("policy")
                again = self._logprobs(ids, labels, mask, self.model.disable_adapter())
                margins = beta * (margin - again)
            else:
                margins = torch.zeros_like(reference)
        rewards = (beta * (policy - reference) - self.weights[1] * margins) / self.weights[0]
        chosen, rejected = rewards.chunk(2)
        return -logsigmoid(chosen - rejected).mean()

    def _logprobs(
        self, ids: Tensor, labels: Tensor, mask: Tensor, adapter: AbstractContextManager | None = None
    ) -> Tensor:
        with adapter or nullcontext():
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits.to(torch.float32)
        labels = labels[:, 1:]
        each = logits[:, :-1].log_softmax(-1).gather(2, labels.clamp_min(0)[:, :, None])[:, :, 0]
        return (each * (labels != _IGNORED)).sum(-1)


class _AfterEachStep(TrainerCallback):
    """Calls a function when a step ends."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self.on_step = on_step

    def on_step_end(self, *_args: object, **_options: object) -> None:
        self.on_step()


def make_trl_trainer(
    workload: Workload, base: PreTrainedModel, primary: str, steps: int, folder: Path, on_step: Callable[[], None]
):
    """TRL's DPOTrainer, its reference log-probabilities computed already; `train()` takes the steps.

    The same pairs in the same batches and order, the same LoRA, optimiser and schedule; TRL's own padding (to the
    longest of a batch), no evaluation, no saving, no logging, no gradient checkpointing, float32.
    """
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    config, settings = workload.prepared.run.config, workload.settings
    trainer = DPOTrainer(
        model=copy.deepcopy(base),
        args=DPOConfig(
            output_dir=str(folder / "trl"),
            max_steps=steps,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            lr_scheduler_type="cosine",
            warmup_steps=round(settings.warmup * steps),
            max_grad_norm=settings.max_gradient_norm,
            beta=settings.beta,
            max_length=None,
            precompute_ref_log_probs=True,
            train_sampling_strategy="sequential",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=_as_dataset(workload, primary, steps),
        processing_class=workload.prepared.base.tokenizer,
        peft_config=LoraConfig(
            r=config.adapter.rank,
            lora_alpha=round(config.adapter.alpha),
            lora_dropout=0.0,
            target_modules=config.adapter.target_modules,
            task_type="CAUSAL_LM",
        ),
        callbacks=[_AfterEachStep(on_step)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _as_dataset(workload: Workload, primary: str, steps: int):
    """The pairs of these steps, in their order, as TRL reads them."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    prepared, seed = workload.prepared, workload.seed
    pairs, lengths = prepared.pairs[primary], workload.data[primary].tokens.lengths
    order = [i for step in range(steps) for i in batch_order(lengths, workload.settings.batch_size, seed, step)]
    separator = prepared.run.config.data.separator

    def answer(prompt: Prompt, response: str) -> object:
        return separator + response if isinstance(prompt, str) else [{"role": "assistant", "content": response}]

    return Dataset.from_list(
        [
            {
                "prompt": pairs.prompts[i],
                "chosen": answer(pairs.prompts[i], pairs.chosen[i]),
                "rejected": answer(pairs.prompts[i], pairs.rejected[i]),
            }
            for i in order
        ]
    )
