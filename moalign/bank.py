"""The adapter bank: K LoRA adapters on one frozen base model, mixed per sequence by a row of numbers.

    y = W x + sum_k  row[k] * scale_k * B_k A_k x            row: Float[b, k]

Every part of moalign is a way of writing rows. A row of zeros is the base model, a one-hot row is that adapter
alone, a point of the simplex is the exact soup of the deltas (which PEFT's `linear` merge is not: it adds
sqrt-weighted factors, so that cross terms B_i A_j appear).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from moalign.adapters import Adapter, LowRank
from moalign.bank_layer import BankLayer
from moalign.bank_layout import Layouts
from moalign.errors import AdapterError, unknown
from moalign.row_plan import RowPlan

Row = Float[Tensor, "b k"]
Rows = Tensor | np.ndarray | Sequence[Sequence[float]]


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
            with torch.inference_mode(False):  # tensors of inference mode could not be trained, nor laid out anew
                self.layers[name] = BankLayer(deltas, out, into, device).requires_grad_(trainable)
        self._layouts = Layouts(self.parameters(), len(self), trainable)
        self._hooks = [modules[name].register_forward_hook(self._hook(layer)) for name, layer in self.layers.items()]

    def _hook(self, layer: BankLayer):
        def add_change(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if self._plan is None:
                return None
            return self._plan.adapted(layer, args[0], output)

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

    def prepare(self, row: Rows) -> RowPlan | None:
        """How these rows are computed, for `rows` to use again and again; None for rows that are all zero.

        What it works out, it keeps: the weights must not change as long as it is in use, and one thread may use it at
        a time. Raises AdapterError for rows of another shape, or that are not finite.
        """
        # In numpy, which takes a tenth of the time for so few numbers; a copy, so that nobody changes them later.
        weights = np.array(row.detach().cpu().numpy() if isinstance(row, Tensor) else row, dtype=np.float32)
        if weights.ndim != 2 or weights.shape[1] != len(self) or not len(weights):
            raise AdapterError(
                f"rows have shape {weights.shape}; expected (sequences, {len(self)}), one weight "
                f"for each of {', '.join(self.names)}"
            )
        if not np.isfinite(weights).all():
            raise AdapterError("a row holds NaN or infinity; expected finite weights")
        return RowPlan.of(weights, self._layouts)

    @contextmanager
    def rows(self, row: Rows | RowPlan | None) -> Iterator[None]:
        """Run the model with these rows, Float[b, k]: one per sequence of the batch; or with a plan.

        A batch of n*b sequences is taken as n neighbours per row, which is how `generate` expands a batch for
        num_return_sequences. A single row serves any batch. Without gradients the weights must not change within.
        """
        if not self._hooks:
            raise AdapterError("this bank is closed: its adapters are off the model; make a new one")
        plan = row if row is None or isinstance(row, RowPlan) else self.prepare(row)
        if plan is not None and plan.rows.shape[1] != len(self):
            raise AdapterError(f"the plan is for rows of {plan.rows.shape[1]} adapters; this bank has {len(self)}")
        before, self._plan = self._plan, plan
        try:
            yield
        finally:
            self._plan = before
            if plan is not None:
                plan.release()

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
