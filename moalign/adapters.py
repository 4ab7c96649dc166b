"""An adapter: low-rank deltas by layer, read from and written to a plain PEFT folder.

On disk an adapter is always `adapter_config.json` + `adapter_model.safetensors`, which PEFT, vLLM, SGLang and
LoRAX load. In memory it is what the bank needs and nothing else: per layer the factors A and B and one number,
the scale, so that the layer's delta is ``scale * B A``.
"""

import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from moalign.errors import AdapterError
from moalign.files import storing

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."

# What makes a PEFT adapter more than `scale * B A` on frozen weights: it could not be written as a row.
_NOT_LINEAR = {
    "use_dora": "DoRA rescales the whole weight",
    "lora_bias": "a bias in lora_B is not scaled by the row",
    "modules_to_save": "modules_to_save replaces whole modules",
    "trainable_token_indices": "trained token embeddings replace rows of the embedding",
    "alora_invocation_tokens": "an activated LoRA depends on the tokens",
    "layer_replication": "layer_replication changes the base model",
    "target_parameters": "target_parameters adapts tensors that are not linear layers",
    "use_qalora": "QA-LoRA pools its input",
    "use_bdlora": "BD-LoRA has block-diagonal factors",
    "megatron_config": "Megatron layers are sharded",
    "arrow_config": "Arrow routes tokens between adapters",
    "kasa_config": "KaSA changes the base weights",
    "monteclora_config": "MonteCLoRA samples its weights",
    "velora_config": "VeLoRA compresses activations",
}
# Initialisations that subtract the adapter from the base weights: the folder alone is not the delta.
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")


@dataclass(frozen=True)
class LowRank:
    """One layer's delta, ``scale * B A``. For rsLoRA the scale is alpha/sqrt(r), otherwise alpha/r.

    >>> LowRank(A=torch.ones(1, 2), B=torch.ones(3, 1), scale=0.5).delta().shape
    torch.Size([3, 2])
    """

    A: Float[Tensor, "r i"]
    B: Float[Tensor, "o r"]
    scale: float

    @property
    def rank(self) -> int:
        """The number of rows of A."""
        return self.A.shape[0]

    def delta(self) -> Float[Tensor, "o i"]:
        """The dense change of the weight; for checks and merges of small layers."""
        return self.scale * (self.B @ self.A)


@dataclass(frozen=True)
class Adapter:
    """The layers of one LoRA adapter by module name, and how PEFT finds these modules again.

    `target_modules` is PEFT's own setting (a list of name endings, or a regular expression); `fan_in_fan_out` is
    True for transformers' Conv1D, which stores its weight transposed.
    """

    layers: Mapping[str, LowRank]
    target_modules: str | tuple[str, ...]
    fan_in_fan_out: bool = False


def write_adapter(adapter: Adapter, folder: Path, base_name: str) -> None:
    """Write a PEFT folder. Not atomic by itself: `AdapterStore.save` writes beside and renames in.

    Ranks and scales may differ between layers: PEFT's rank_pattern and alpha_pattern carry them.
    """
    tensors: dict[str, Tensor] = {}
    for name, layer in adapter.layers.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.A.detach().cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = layer.B.detach().cpu().contiguous()
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error
        (folder / CONFIG_FILE).write_text(json.dumps(_peft_config(adapter, base_name), indent=2) + "\n")
        shutil.copymode(folder / CONFIG_FILE, folder / WEIGHTS_FILE)  # safetensors writes for its owner alone


def _peft_config(adapter: Adapter, base_name: str) -> dict[str, Any]:
    from peft import LoraConfig

    first = next(iter(adapter.layers.values()))
    rank, alpha = first.rank, first.scale * first.rank
    other = {n: layer for n, layer in adapter.layers.items() if (layer.rank, layer.scale) != (rank, first.scale)}
    targets = adapter.target_modules
    if not all(_finds(targets, name) for name in adapter.layers):
        targets = tuple(adapter.layers)  # a layer that PEFT does not look for is silently left out when it loads
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
        inference_mode=True,
        r=rank,
        lora_alpha=_number(alpha),  # pyright: ignore[reportArgumentType]
        lora_dropout=0.0,
        fan_in_fan_out=adapter.fan_in_fan_out,
        target_modules=targets if isinstance(targets, str) else sorted(targets),
        rank_pattern={name: layer.rank for name, layer in other.items()},
        alpha_pattern={name: _number(layer.scale * layer.rank) for name, layer in other.items()},
    ).to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}


def _finds(targets: str | tuple[str, ...], name: str) -> bool:
    """PEFT's own rule: a regular expression fits the whole name, a list holds names or their endings."""
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _number(value: float) -> int | float:
    """Write 16 and not 16.0: some servers read alpha as an integer."""
    return round(value) if math.isclose(value, round(value), rel_tol=1e-9) else value


def read_adapter(folder: Path) -> Adapter:
    """Read a PEFT LoRA folder; whatever is not linear in its row is refused with an AdapterError that says why."""
    config = _read_config(folder)
    tensors = _read_tensors(folder)
    modules: dict[str, None] = {}
    for key in tensors:
        module, _, factor = key.rpartition(".lora_")
        if factor not in ("A.weight", "B.weight"):
            raise AdapterError(
                f"{folder}: tensor {key!r} is not a LoRA factor of a linear layer; only lora_A and "
                "lora_B are linear in the row"
            )
        modules[module] = None
    if not modules:
        raise AdapterError(f"{folder}: no LoRA factors in {WEIGHTS_FILE}")
    layers: dict[str, LowRank] = {}
    for module in modules:
        A, B = (tensors.get(f"{module}.lora_{factor}.weight") for factor in "AB")
        if A is None or B is None or A.ndim != 2 or B.ndim != 2 or B.shape[1] != A.shape[0]:
            came = [None if factor is None else tuple(factor.shape) for factor in (A, B)]
            raise AdapterError(
                f"{folder}: the factors of {module!r} have shapes A {came[0]} and B {came[1]}; expected (r, in) and "
                "(out, r)"
            )
        name = module.removeprefix(PREFIX)
        layers[name] = LowRank(A.float(), B.float(), _scale(config, name, A.shape[0]))
    targets = config.get("target_modules")
    if not targets or config.get("layers_to_transform") is not None or config.get("exclude_modules"):
        targets = sorted(layers)  # the names alone would find more layers than there are
    return Adapter(
        layers=layers,
        target_modules=targets if isinstance(targets, str) else tuple(targets),
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise AdapterError(f"{folder} is not a PEFT adapter: it has no {CONFIG_FILE}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{path} is damaged: it holds a {type(config).__name__}, expected an object of settings")
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{folder}: peft_type is {config.get('peft_type')!r}; the bank takes LORA")
    for key, reason in _NOT_LINEAR.items():
        if config.get(key):
            raise AdapterError(f"{folder}: {key} is set, and {reason}; the bank takes only what is linear in its row")
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{folder}: bias={config['bias']!r} trains biases of the base model; expected 'none'")
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(_CHANGES_BASE):
        raise AdapterError(
            f"{folder}: init_lora_weights={start!r} changed the base weights; convert it with PEFT's "
            "save_pretrained(path_initial_model_for_weight_conversion=...)"
        )
    return config


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        pickles = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise AdapterError(
                f"{folder} holds {pickles[0]}, a pickle that can run code when it is loaded; expected "
                f"{WEIGHTS_FILE} (convert it with PEFT's save_pretrained)"
            )
        raise AdapterError(f"{folder} has no {WEIGHTS_FILE}")
    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise AdapterError(f"{path} is damaged: {error}") from error


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    """alpha/r, or alpha/sqrt(r) for rsLoRA; alpha_pattern names a layer as PEFT does, by the end of its name."""
    from peft.utils.other import get_pattern_key

    pattern = config.get("alpha_pattern") or {}
    alpha = pattern.get(get_pattern_key(list(pattern), name), config.get("lora_alpha", 8))  # PEFT's default
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def fresh_adapter(
    shapes: Mapping[str, tuple[int, int]],
    targets: Iterable[str] | str,
    *,
    rank: int,
    alpha: float,
    generator: torch.Generator,
    fan_in_fan_out: bool = False,
) -> Adapter:
    """An adapter that changes nothing yet: A uniform in +-1/sqrt(i) as PEFT draws it, B zero.

    `shapes` maps a module's name to (out, in). Raises AdapterError for a rank below 1.
    """
    if rank < 1:
        raise AdapterError(f"rank is {rank}; expected at least 1")
    layers = {}
    for name, (out, into) in shapes.items():
        bound = 1 / math.sqrt(into)  # kaiming_uniform with a = sqrt(5)
        A = (2 * torch.rand(rank, into, generator=generator) - 1) * bound
        layers[name] = LowRank(A, torch.zeros(out, rank), alpha / rank)
    return Adapter(layers, targets if isinstance(targets, str) else tuple(targets), fan_in_fan_out)
