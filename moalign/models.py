"""The frozen base model: loading it, naming it by its contents, and choosing the layers that adapters sit on."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from moalign.adapters import Adapter, fresh_adapter
from moalign.errors import BaseModelError, ConfigError, unknown
from moalign.files import digest, file_digest

_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class BaseModel:
    """A causal language model, its tokenizer, and what moalign needs to know of them.

    `digest` names the weights by their content: everything cached or trained is keyed by it.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    digest: str

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.model.device

    @property
    def pad_id(self) -> int:
        """The id that fills up a batch; never attended to."""
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) else self.eos_ids[0]

    @property
    def context(self) -> int:
        """Tokens of prompt and response that the model reads; 2048 where it names no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2048

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a response; first what the model was seen to produce, then the tokenizer's own."""
        ids: list[Any] = []
        for source in (
            getattr(self.model.generation_config, "eos_token_id", None),
            self.tokenizer.eos_token_id,
        ):
            ids += source if isinstance(source, list) else [] if source is None else [source]
        if not ids:
            raise BaseModelError(
                f"base model {self.name} names no EOS token; set eos_token in its tokenizer_config.json"
            )
        return tuple(dict.fromkeys(ids))


def load_base(name: str, *, device: str = "auto", dtype: str = "auto") -> BaseModel:
    """Load a folder or a hub name.

    `device` is "auto" (CUDA where there is one), "cpu" or "cuda"; `dtype` is "auto" (float32 on a CPU, what the
    folder says elsewhere), "float32", "bfloat16" or "float16". Raises BaseModelError if there is no such model or it
    is not whole, ConfigError for another device or dtype.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    check_device(device)
    if dtype not in _DTYPES:
        raise ConfigError(unknown("dtype", dtype, _DTYPES))
    kind = getattr(torch, dtype) if dtype != "auto" else torch.float32 if device == "cpu" else "auto"
    check_folder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model, report = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            name, dtype=kind, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BaseModelError(f"cannot load base model {name!r}: {str(error).splitlines()[0]}") from error
    if missing := sorted(report["missing_keys"]):
        raise BaseModelError(
            f"base model {name!r} lacks {len(missing)} of its weights, such as {missing[0]}, which would be random; "
            "expected a whole causal language model"
        )
    return BaseModel(name, model.to(device).eval().requires_grad_(False), tokenizer, model_digest(name, model))


def check_device(device: str) -> None:
    """Raise ConfigError for a device that cannot be used here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:100]
        raise ConfigError(f"device {device!r} cannot be used here ({reason}); expected auto, cpu or cuda") from error


def check_folder(name: str) -> None:
    """Raise BaseModelError for a path without a model, before it is looked for on a hub."""
    folder = Path(name)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_like_path and not folder.is_dir():
        raise BaseModelError(
            f"base model {name!r} not found: there is no such folder (a hub name has the form org/name)"
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise BaseModelError(f"base model {name!r} is not a model folder: it has no config.json")
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise BaseModelError(
            f"base model {name!r} has no .safetensors file; pickled weights can run code and are not "
            "loaded (convert them with save_pretrained)"
        )


def model_digest(name: str, model: PreTrainedModel) -> str:
    """A name for a model by its contents."""
    folder = Path(name)
    if not folder.is_dir():
        return digest(name, str(model.config._commit_hash))
    kinds = ("*.safetensors", "*config.json", "tokenizer.json", "*.jinja")
    files = {path for kind in kinds for path in folder.glob(kind)}
    return digest(*(f"{path.name}:{file_digest(path)}" for path in sorted(files)))


def adapter_factory(base: BaseModel, *, rank: int, alpha: float, target_modules: str | list[str]):
    """A function from a seed to a fresh adapter on the layers that PEFT would choose.

    `target_modules` is what PEFT takes: names, a regular expression, or "all-linear". Raises ConfigError if no layer
    matches, or one that matches is neither nn.Linear nor Conv1D.
    """
    shapes, targets, conv = select_layers(base.model, target_modules)

    def fresh(seed: int) -> Adapter:
        generator = torch.Generator().manual_seed(seed)
        return fresh_adapter(shapes, targets, rank=rank, alpha=alpha, generator=generator, fan_in_fan_out=conv)

    return fresh


def select_layers(
    model: PreTrainedModel, target_modules: str | list[str]
) -> tuple[dict[str, tuple[int, int]], tuple[str, ...], bool]:
    """The layers PEFT chooses, as module name -> (out, in); names by which PEFT finds them; whether they are Conv1D.

    PEFT itself is asked: it puts weightless adapters on the model, and takes them off again.
    """
    from peft import LoraConfig, LoraModel
    from peft.tuners.lora import LoraLayer

    conv = any(isinstance(module, Conv1D) for module in model.modules())
    config = LoraConfig(target_modules=target_modules, fan_in_fan_out=conv, task_type="CAUSAL_LM")
    try:
        probe = LoraModel(model, config, "probe", low_cpu_mem_usage=True)
    except (ValueError, re.error) as error:
        _restore(model)
        raise ConfigError(f"target_modules {target_modules!r}: {str(error).splitlines()[0]}") from error
    names = [name.removeprefix("model.") for name, module in probe.named_modules() if isinstance(module, LoraLayer)]
    probe.unload()
    modules = dict(model.named_modules())
    shapes = {name: _shape(name, modules[name]) for name in names}
    endings = {name.rsplit(".", 1)[-1] for name in names}
    found_by_ending = {name for name in modules if name.rsplit(".", 1)[-1] in endings}
    # Endings are what servers expect to read; full names only where endings would pick more.
    return shapes, tuple(sorted(endings if found_by_ending == set(names) else names)), conv


def _restore(model: PreTrainedModel) -> None:
    """Take off what PEFT had put on before it met a layer that it does not adapt."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            model.set_submodule(name, module.get_base_layer())


def _shape(name: str, module: nn.Module) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    raise ConfigError(f"target_modules picks {name!r}, a {type(module).__name__}; the bank adapts nn.Linear and Conv1D")


def describe(base: BaseModel) -> dict[str, str]:
    """What a record says about its base."""
    config = json.loads(base.model.config.to_json_string())
    parameters = sum(parameter.numel() for parameter in base.model.parameters())
    return {
        "name": base.name,
        "digest": base.digest,
        "architecture": str(config.get("model_type")),
        "parameters": str(parameters),
    }
