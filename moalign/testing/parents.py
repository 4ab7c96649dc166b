"""What merges are examined on: a tiny base model, random adapters of it, and PEFT folders that are not linear."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from moalign.adapters import CONFIG_FILE, WEIGHTS_FILE, Adapter, LowRank, read_adapter, write_adapter

FolderMerge = Callable[[Sequence[Path], Sequence[float]], Adapter]

SHAPES = {"q": (24, 20), "v": (16, 20)}  # layer -> (out, in); large enough that three parents do not span a layer
RANK, SCALE = 4, 1.5

# PEFT's settings that make a folder more than `scale * B A` on frozen weights.
NOT_LINEAR: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "PiSSA": {"init_lora_weights": "pissa"},
    "lora_bias": {"lora_bias": True},
    "bias": {"bias": "all"},
    "modules_to_save": {"modules_to_save": ["v"], "target_modules": ["q"]},
}


class TinyModel(nn.Module):
    """Two linear layers, "q" and "v", side by side: whatever an adapter does to either is seen in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.v = (nn.Linear(into, out) for out, into in SHAPES.values())

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """The outputs of both layers, one beside the other."""
        return torch.cat([self.q(x), self.v(x)], dim=1)


def tiny_model() -> TinyModel:
    """The base model of all examined folders, the same at every call; for merges that need one, as PEFT's do."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return TinyModel().requires_grad_(False)


def drawn(seed: int) -> Adapter:
    """A random adapter of both layers, of rank 4 and scale 1.5; its deltas are about as large as the weights."""
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: LowRank(
            torch.randn(RANK, into, generator=generator) / into**0.5,
            torch.randn(out, RANK, generator=generator) / RANK**0.5,
            SCALE,
        )
        for name, (out, into) in SHAPES.items()
    }
    return Adapter(layers, tuple(SHAPES))


def probes() -> Float[Tensor, "n i"]:
    """Zero and the unit vectors: what an affine function answers to these is all of it."""
    into = SHAPES["q"][1]
    return torch.cat([torch.zeros(1, into), torch.eye(into)])


def answers(adapter: Adapter) -> Float[Tensor, "n o"]:
    """What the adapter adds to the model's answers to the probes; a layer that it lacks adds 0."""
    x = probes().double()
    deltas = [
        adapter.layers[name].scale * adapter.layers[name].B.double() @ adapter.layers[name].A.double()
        if name in adapter.layers
        else torch.zeros(shape, dtype=torch.float64)
        for name, shape in SHAPES.items()
    ]
    return torch.cat([x @ delta.T for delta in deltas], dim=1)


def load_with_peft(folder: Path) -> nn.Module:
    """The tiny model with the folder's adapter, as PEFT itself applies it."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice is of no use here, and a user's suite may make it an error
        return PeftModel.from_pretrained(tiny_model(), folder).eval()


class Bench:
    """A merge under examination, and a folder for its parents.

    `count`: how many of them it is given at once. `takes_folders`: the function takes PEFT folders; otherwise the
    Adapters that moalign reads from them.
    """

    def __init__(self, merge: Callable[..., Adapter], folder: Path, count: int, takes_folders: bool) -> None:
        self.function, self.folder, self.count, self.takes_folders = merge, folder, count, takes_folders
        self._written = 0

    def merge(self, parents: Sequence[Adapter | Path], weights: Sequence[float]) -> Adapter:
        """The merge of adapters, each written to a folder first, or of folders; what it is given must stay as it is."""
        folders = [self.write(parent) if isinstance(parent, Adapter) else parent for parent in parents]
        if self.takes_folders:
            found = self.function(folders, list(weights))
        else:
            given, handed = [read_adapter(folder) for folder in folders], list(weights)
            found = self.function(given, handed)
            kept = [equal(one, read_adapter(folder)) for one, folder in zip(given, folders, strict=True)]
            assert all([*kept, handed == list(weights)]), "it changed what it was given"
        assert isinstance(found, Adapter), f"it returned a {type(found).__name__}; expected an Adapter"
        for name in found.layers.keys() - SHAPES.keys():
            raise AssertionError(f"it has {name!r}, a layer that no parent has")
        return found

    def write(self, adapter: Adapter, *, rslora: bool = False) -> Path:
        """A PEFT folder with this adapter; with `rslora` its scale is stated as alpha / sqrt(r), at the same delta."""
        folder = self._next()
        write_adapter(adapter, folder, "tiny")
        config = json.loads((folder / CONFIG_FILE).read_text())
        config["task_type"] = None  # the tiny model generates nothing
        if rslora:
            config |= {"use_rslora": True, "lora_alpha": config["lora_alpha"] / config["r"] ** 0.5}
        (folder / CONFIG_FILE).write_text(json.dumps(config))
        return folder

    def foreign(self, kind: str) -> Path:
        """A PEFT folder that is not linear, trained by chance: every trainable parameter is moved at random."""
        from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

        folder = self._next()
        settings = {"r": RANK, "lora_alpha": RANK * SCALE, "target_modules": list(SHAPES)} | NOT_LINEAR[kind]
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.manual_seed(9)
            model = get_peft_model(tiny_model(), LoraConfig(**settings))
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn_like(parameter))
            model.peft_config["default"].save_pretrained(str(folder))  # model.save_pretrained writes a card as well
            save_file(get_peft_model_state_dict(model), folder / WEIGHTS_FILE)
        return folder

    def _next(self) -> Path:
        self._written += 1
        return self.folder / str(self._written)


def equal(one: Adapter, other: Adapter) -> bool:
    """The same factors and scales, bit for bit."""
    return one.layers.keys() == other.layers.keys() and all(
        torch.equal(mine.A, theirs.A) and torch.equal(mine.B, theirs.B) and mine.scale == theirs.scale
        for mine, theirs in ((layer, other.layers[name]) for name, layer in one.layers.items())
    )
