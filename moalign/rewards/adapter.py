"""A reward model by LoRA: adapters while it is trained, and weights like any other afterwards."""

import re

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from moalign.config import AdapterSettings
from moalign.errors import ConfigError


def put_on(model: PreTrainedModel, settings: AdapterSettings, seed: int) -> None:
    """Put fresh LoRA adapters on the model's layers, in float32; nothing else of it is trained any more.

    They change nothing yet, since their B is zero; their A is drawn by `seed`. Raises ConfigError if no layer is meant
    by `target_modules`, or one that LoRA cannot adapt.
    """
    conv = any(isinstance(module, Conv1D) for module in model.modules())
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]  # PEFT divides by the rank, whatever it is
        target_modules=settings.target_modules,
        fan_in_fan_out=conv,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model)
        except (ValueError, re.error) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"target_modules {settings.target_modules!r}: {reason}") from error
    for name, parameter in model.named_parameters():
        adapted = ".lora_A." in name or ".lora_B." in name
        parameter.requires_grad_(adapted)
        if adapted:
            parameter.data = parameter.data.float()


def merge(model: PreTrainedModel) -> None:
    """Add the adapters to the weights that they stand on, and take them off: W + (alpha / r) B A."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
