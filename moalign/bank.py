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
        hidden, B = self._hidden(x, plan)
        return torch.bmm(hidden, B).reshape(*x.shape[:-1], -1)

    def adapted(self, x: Tensor, output: Tensor, plan: "RowPlan") -> Tensor:
        """output + change(x); one operation for product and sum where both have one precision."""
        if output.dtype != self.B.dtype or torch.is_autocast_enabled(x.device.type):
            return (output + self.change(x, plan)).to(output.dtype)
        hidden, B = self._hidden(x, plan)
        return torch.baddbmm(output.reshape(len(B), -1, output.shape[-1]), hidden, B).reshape(output.shape)

    def _hidden(self, x: Tensor, plan: "RowPlan") -> tuple[Float[Tensor, "s n r"], Float[Tensor, "s r o"]]:
        """What the first factors make of x, and the second factors that it meets, segment by segment.

        Without mixtures each segment sees one adapter, and there is no K-fold work; the factors of rows and scales are
        then part of B. Otherwise every sequence may see every active adapter: one segment of all, over their ranks side
        by side.
        """
        if x.shape[0] % plan.size:
            raise AdapterError(
                f"a batch of {x.shape[0]} sequences cannot share {plan.size} rows; expected one row per "
                "sequence, or a multiple (num_return_sequences)"
            )
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.A.dtype)
        A, B, factor = plan.factors_of(self)
        if plan.single is not None:
            return torch.bmm(x.reshape(len(A), -1, x.shape[-1]), A.transpose(1, 2)), B
        hidden = nn.functional.linear(x.reshape(plan.size, -1, x.shape[-1]), A)
        return (hidden * factor).to(hidden.dtype).reshape(1, -1, hidden.shape[-1]), B


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
    _kept: dict[BankLayer, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

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

    def factors_of(self, layer: BankLayer) -> tuple[Tensor, Tensor, Tensor]:
        """A, B and the factors that rows and scales give, as `layer` needs them for this batch of rows.

        Without gradients, as when text is generated token by token, they are made once per layer and kept, so that
        weights must not change within a `rows` block that does not train.
        """
        if torch.is_grad_enabled():
            return self._made(layer)
        if layer not in self._kept:
            self._kept[layer] = self._made(layer)
        return self._kept[layer]

    def _made(self, layer: BankLayer) -> tuple[Tensor, Tensor, Tensor]:
        index, factors = self._on(layer.A.device)
        whole = self.active if self.single is None else self.single
        A, B, scale = layer.A, layer.B, layer.scale
        if whole != tuple(range(len(A))):
            A, B, scale = A[index], B[index], scale[index]
        factor = factors * scale
        if self.single is not None:
            return A, B * factor[:, None, None], factor
        return A.flatten(0, 1), B.flatten(0, 1)[None], factor.repeat_interleave(A.shape[1], dim=1)[:, None]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
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
            return layer.adapted(args[0], output, self._plan)

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
