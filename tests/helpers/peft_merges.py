"""PEFT's own merges, as functions from PEFT folders to an Adapter: what the laws of `moalign.testing` examine."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from moalign.adapters import Adapter, LowRank
from moalign.testing.parents import SHAPES, FolderMerge, answers, probes, tiny_model

DENSITY = 0.5  # of the entries that the pruning kinds keep

# add_weighted_adapter's combination types, with the options that they need.
PEFT_MERGES: dict[str, dict[str, object]] = {
    "cat": {},
    "svd": {},
    "svd, svd_rank = sum": {"svd_rank": "sum"},  # all the rank that the parents have
    "linear": {},
    "magnitude_prune": {"density": DENSITY},
    "magnitude_prune_svd": {"density": DENSITY},
    "ties": {"density": DENSITY},
    "ties_svd": {"density": DENSITY},
    "dare_linear": {"density": DENSITY},
    "dare_linear_svd": {"density": DENSITY},
    "dare_ties": {"density": DENSITY},
    "dare_ties_svd": {"density": DENSITY},
}


def merged_by_peft(name: str, folders: Sequence[Path], weights: Sequence[float]) -> PeftModel:
    """The tiny model with all parents loaded beside each other, and their merge active.

    DARE draws from torch's global generator and takes no seed: it is seeded here, at every call.
    """
    kind, options = name.partition(",")[0], dict(PEFT_MERGES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a base model without a config
        model = PeftModel.from_pretrained(tiny_model(), folders[0], adapter_name="p0")
        for number, folder in enumerate(folders[1:], start=1):
            model.load_adapter(folder, f"p{number}")
        names = [f"p{number}" for number in range(len(folders))]
        if options.get("svd_rank") == "sum":
            options["svd_rank"] = sum(model.peft_config[parent].r for parent in names)
        torch.manual_seed(3)
        model.add_weighted_adapter(names, list(weights), "merged", combination_type=kind, **options)
        model.set_adapter("merged")
    return model.eval()


def peft_merge(name: str) -> FolderMerge:
    """A combination type of `add_weighted_adapter` as a function from folders to an Adapter."""
    return lambda folders, weights: read_back(merged_by_peft(name, folders, weights))


def read_back(model: PeftModel) -> Adapter:
    """The factors of the active adapter; dense, with A = 1, where the model does something else than these say.

    So DoRA, or base weights that loading has changed, count for what PEFT's own forward pass makes of them.
    """
    layers = {
        name: LowRank(
            module.lora_A["merged"].weight.detach(),
            module.lora_B["merged"].weight.detach(),
            float(module.scaling["merged"]),
        )
        for name, module in model.base_model.model.named_modules()
        if isinstance(module, LoraLayer) and "merged" in module.lora_A
    }
    adapter = Adapter(layers, tuple(layers))
    with torch.no_grad():
        attained = model(probes()) - tiny_model()(probes())
    if torch.allclose(attained, answers(adapter).float(), atol=1e-4):
        return adapter
    parts = (attained[1:] - attained[0]).split([out for out, _ in SHAPES.values()], dim=1)
    dense = {name: LowRank(torch.eye(SHAPES[name][1]), part.T, 1.0) for name, part in zip(SHAPES, parts, strict=True)}
    return Adapter(dense, tuple(dense))
