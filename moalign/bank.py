"""The adapter bank: K LoRA adapters on one frozen base model, mixed per sequence by a row of numbers.

    y = W x + sum_k  row[k] * scale_k * B_k A_k x            row: Float[b, k]

Every part of moalign is a way of writing rows. A row of zeros is the base model, a one-hot row is that adapter
alone, a point of the simplex is the exact soup of the deltas (which PEFT's `linear` merge is not: it adds
sqrt-weighted factors, so that cross terms B_i A_j appear).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from moalign.adapters import Adapter, LowRank
from moalign.errors import AdapterError, unknown

Row = Float[Tensor, "b k"]


class BankLayer(nn.Module):
    """The K deltas of one linear layer, stacked; smaller ranks are padded with zeros, which stay zero."""

    def __init__(self, deltas: Sequence[LowRank | None], out: int, into: int, device: torch.device):
        super().__init__()
        rank = max(delta.rank for delta in deltas if delta is not None)
        A = torch.zeros(len(deltas), rank, into)
        B = torch.zeros(len(deltas), rank, out)
        for k, delta in enumerate(deltas):
            if delta is not None:
                A[k, : delta.rank] = delta.A
                B[k, : delta.rank] = delta.B.T
        self.A = nn.Parameter(A.to(device))
        self.B = nn.Parameter(B.to(device))
        self.ranks = [0 if delta is None else delta.rank for delta in deltas]
        self.scales = [0.0 if delta is None else delta.scale for delta in deltas]
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(self.scales, device=device))

    def change(self, x: Tensor, plan: "RowPlan") -> Tensor:
        """sum_k row[k] scale_k B_k A_k x for each sequence of x, in x's shape but for the last dimension."""
        shape = x.shape[:-1]
        if shape[0] % plan.size:
            raise AdapterError(
                f"a batch of {shape[0]} sequences cannot share {plan.size} rows; expected one row per "
                "sequence, or a multiple (num_return_sequences)"
            )
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.A.dtype)
        if plan.single is not None:
            change = self._single(x.reshape(len(plan.single), -1, x.shape[-1]), plan)
        else:
            change = self._dense(x.reshape(plan.size, -1, x.shape[-1]), plan)
        return change.reshape(*shape, -1)

    def _single(self, x: Float[Tensor, "s n i"], plan: "RowPlan") -> Float[Tensor, "s n o"]:
        """Each segment sees one adapter: two batched products, no K-fold work."""
        which = plan.single
        index, factors = plan.on(x.device)
        A, B, scale = self.A, self.B, self.scale
        if which != tuple(range(len(self.A))):
            A, B, scale = A[index], B[index], scale[index]
        hidden = torch.bmm(x, A.transpose(1, 2))
        # The scale is not rounded to the precision of autocast: only the product is.
        return torch.bmm((hidden * (factors * scale)[:, None, None]).to(hidden.dtype), B)

    def _dense(self, x: Float[Tensor, "b n i"], plan: "RowPlan") -> Float[Tensor, "b n o"]:
        """Every sequence may see every active adapter: one product over their ranks side by side."""
        index, factors = plan.on(x.device)
        A, B = (self.A, self.B) if len(index) == len(self.A) else (self.A[index], self.B[index])
        factor = (factors * self.scale[index]).repeat_interleave(A.shape[1], dim=1)
        hidden = nn.functional.linear(x, A.flatten(0, 1))
        return (hidden * factor[:, None]).to(hidden.dtype) @ B.flatten(0, 1)


@dataclass(frozen=True)
class RowPlan:
    """How a batch of rows is computed, decided once per batch and not once per layer.

    `single` names the one adapter of each of s equal segments when no row mixes; otherwise every row is a mixture
    of the adapters `active`. `factors` holds Float[s] in the first case and Float[b, len(active)] in the second.
    """

    size: int
    active: tuple[int, ...]
    single: tuple[int, ...] | None
    factors: Tensor
    _moved: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Row) -> "RowPlan | None":
        """None for rows that are all zero: then the base model runs untouched, bit for bit."""
        used = row != 0
        active = tuple(used.any(0).nonzero().flatten().tolist())
        if not active:
            return None
        if used.sum(1).max() > 1:
            return cls(len(row), active, None, row[:, list(active)].contiguous())
        # A zero row beside one-hot rows is any adapter with factor 0.
        which = used.float().argmax(1)
        weight = row.gather(1, which[:, None])[:, 0]
        starts = [
            0,
            *((which.diff() != 0) | (weight.diff() != 0)).nonzero().flatten().add(1).tolist(),
            len(row),
        ]
        step = math.gcd(*np.diff(starts).tolist())
        return cls(len(row), active, tuple(which[::step].tolist()), weight[::step].contiguous())

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The adapters to gather (one per segment, or the active ones) and their factors, on a layer's device."""
        if device not in self._moved:
            index = torch.tensor(self.active if self.single is None else self.single, device=device)
            self._moved[device] = index, self.factors.to(device)
        return self._moved[device]


class AdapterBank:
    """K adapters on one frozen causal language model.

    Args:
        model: any `AutoModelForCausalLM`; its nn.Linear and Conv1D layers are given hooks, nothing is replaced, and
            all of its parameters are frozen.
        adapters: name to `Adapter`; ranks, alphas and layers may differ.
        trainable: whether `parameters()` require gradients.

    The hooks do nothing outside `with bank.rows(...)`. `close()` (or leaving the bank's own `with`) removes them.
    Under gradient checkpointing the backward pass must run inside the same `rows` block, because it runs the
    forward pass again. Raises AdapterError for a layer that the model lacks or that has another shape.
    """

    def __init__(self, model: PreTrainedModel, adapters: Mapping[str, Adapter], *, trainable: bool = False):
        if not adapters:
            raise AdapterError("a bank needs at least one adapter")
        self.model = model.requires_grad_(False)
        self.names = tuple(adapters)
        self._adapters = dict(adapters)
        self._plan: RowPlan | None = None
        self.layers: dict[str, BankLayer] = {}
        modules = dict(model.named_modules())
        for name in dict.fromkeys(layer for adapter in adapters.values() for layer in adapter.layers):
            out, into, device = _linear_shape(modules, name)
            deltas = [adapter.layers.get(name) for adapter in adapters.values()]
            _check_shapes(name, deltas, out, into)
            self.layers[name] = BankLayer(deltas, out, into, device).requires_grad_(trainable)
        self._hooks = [modules[name].register_forward_hook(self._hook(layer)) for name, layer in self.layers.items()]

    def _hook(self, layer: BankLayer):
        def add_change(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if self._plan is None:
                return None
            return (output + layer.change(args[0], self._plan)).to(output.dtype)

        return add_change

    def __len__(self) -> int:
        return len(self.names)

    def __enter__(self) -> "AdapterBank":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @contextmanager
    def rows(self, row: Tensor | np.ndarray | Sequence[Sequence[float]]) -> Iterator[None]:
        """Run the model with these rows, Float[b, k]: one per sequence of the batch.

        A batch of n*b sequences is taken as n neighbours per row, which is how `generate` expands a batch for
        num_return_sequences. A single row serves any batch.
        """
        if not self._hooks:
            raise AdapterError("this bank is closed: its adapters are off the model; make a new one")
        weights = torch.as_tensor(row, dtype=torch.float32).detach()
        if weights.ndim != 2 or weights.shape[1] != len(self) or not len(weights):
            raise AdapterError(
                f"rows have shape {tuple(weights.shape)}; expected (sequences, {len(self)}), one weight "
                f"for each of {', '.join(self.names)}"
            )
        if not torch.isfinite(weights).all():
            raise AdapterError("a row holds NaN or infinity; expected finite weights")
        before, self._plan = self._plan, RowPlan.of(weights)
        try:
            yield
        finally:
            self._plan = before

    def one_hot(self, names: Sequence[str]) -> Row:
        """One-hot rows, one per name."""
        return torch.eye(len(self))[[self._position(name) for name in names]]

    def mixture(self, weights: Mapping[str, float]) -> Float[Tensor, " k"]:
        """The row that gives each named adapter its weight; any sign, any sum."""
        row = torch.zeros(len(self))
        for name, weight in weights.items():
            row[self._position(name)] = weight
        return row

    def _position(self, name: str) -> int:
        if name not in self.names:
            raise AdapterError(unknown("adapter", name, self.names))
        return self.names.index(name)

    def parameters(self) -> list[nn.Parameter]:
        """The stacked factors: A Float[k, r, i] and B Float[k, r, o] of each layer in turn."""
        return [parameter for layer in self.layers.values() for parameter in (layer.A, layer.B)]

    def adapter(self, name: str) -> Adapter:
        """A copy of one adapter as it is now."""
        k = self._position(name)
        layers = {
            module: LowRank(
                layer.A[k, : layer.ranks[k]].detach().cpu().clone(),
                layer.B[k, : layer.ranks[k]].detach().T.cpu().clone(),
                layer.scales[k],
            )
            for module, layer in self.layers.items()
            if layer.ranks[k]
        }
        return Adapter(layers, self._adapters[name].target_modules, self._adapters[name].fan_in_fan_out)


def _linear_shape(modules: Mapping[str, nn.Module], name: str) -> tuple[int, int, torch.device]:
    module = modules.get(name)
    if module is None:
        raise AdapterError(unknown("layer", name, modules)[:300] + "; is the adapter of another base model?")
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features, module.weight.device
    if isinstance(module, Conv1D):
        return module.nf, module.nx, module.weight.device
    raise AdapterError(f"layer {name!r} is a {type(module).__name__}; the bank adapts nn.Linear and Conv1D")


def _check_shapes(name: str, deltas: Sequence[LowRank | None], out: int, into: int) -> None:
    for delta in deltas:
        if delta is not None and (delta.B.shape[0], delta.A.shape[1]) != (out, into):
            came = (delta.B.shape[0], delta.A.shape[1])
            raise AdapterError(
                f"layer {name!r} is {out} x {into} in this base model and {came[0]} x {came[1]} in the "
                "adapter; is the adapter of another base model?"
            )
