"""How a batch of rows is computed: decided once per batch, and not once per layer.

Two ways. With gradients, under autocast, and in long passes of one-hot rows, each layer computes by itself, with its
parameters as they are. Otherwise, as when text is generated token by token, factors lie ready for the product, layers
that read one input share the product of their first factors, and the second one adds to the layer's output in place.
There all adapters in use multiply every token, and what a row leaves out is multiplied by 0: adapters with NaN, which
would reach all sequences, go the first way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from moalign.bank_layer import BankLayer
from moalign.bank_layout import Joint, Layout, Space
from moalign.errors import AdapterError

_HALF = (torch.bfloat16, torch.float16)
# Below so many tokens a segment of one adapter costs more than all adapters at once: it has to be gathered.
_SEGMENT_TOKENS = 8


@dataclass(eq=False)
class RowPlan:
    """How a batch of rows is computed; for one thread at a time.

    `single` names the one adapter of each of s equal segments when no row mixes; otherwise every row is a mixture
    of the adapters `active`. `rows` are all `size` rows, or one for each segment.
    """

    size: int
    active: tuple[int, ...]
    single: tuple[int, ...] | None
    rows: Float[np.ndarray, "b k"]
    lay_out: Callable[[tuple[int, ...]], Layout] = Layout
    _moved: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _made: dict[BankLayer, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    _layout: Layout | None = None
    _factors: dict[object, Tensor] = field(default_factory=dict)  # for each kind of joint, and of layer
    # Of the last leader of a group, as long as others may come with its input:
    _input: Tensor | None = None
    _version: int = 0
    _current: tuple[Joint, Space] | None = None
    _new: tuple[BankLayer, Tensor] | None = None  # if it was never seen before, with a copy of its input

    @classmethod
    def of(
        cls, row: Float[np.ndarray, "b k"], lay_out: Callable[[tuple[int, ...]], Layout] = Layout
    ) -> "RowPlan | None":
        """None for rows that are all zero: then the base model runs untouched, bit for bit."""
        used = row != 0
        active = tuple(np.flatnonzero(used.any(0)).tolist())
        if not active:
            return None
        if np.count_nonzero(used, axis=1).max() > 1:
            return cls(len(row), active, None, row, lay_out)
        # A zero row beside one-hot rows is any adapter with factor 0.
        which = used.argmax(1)
        weight = row[np.arange(len(row)), which]
        starts = np.flatnonzero((np.diff(which) != 0) | (np.diff(weight) != 0)) + 1
        step = math.gcd(*np.diff(starts, prepend=0, append=len(row)).tolist())
        return cls(len(row), active, tuple(which[::step].tolist()), row[::step], lay_out)

    def adapted(self, layer: BankLayer, x: Tensor, output: Tensor) -> Tensor:
        """output + sum_k row[k] scale_k B_k A_k x for each sequence of x; without gradients it may be output itself."""
        # To ask for autocast costs as much as a small product, and without it an output in single precision is not one.
        if torch.is_grad_enabled() or (output.dtype in _HALF and torch.is_autocast_enabled(x.device.type)):
            return self._summed(layer, x, output)
        current = self._current if x is self._input and _version(x) == self._version else None
        if current is not None and layer in current[0].places:
            joint, space = current
            if layer is joint.last and self._new is None:
                self._input = None
        else:
            layout = self._layout = self._layout or self.lay_out(self.active)
            if not layout.sound or self._has_segments(x):
                return self._summed(layer, x, output)
            joint, space = self._multiply(layer, x, layout, current is not None)
        place, up = joint.places[layer]
        hidden = space.parts[place]
        if output.dtype != up.dtype or not output.is_contiguous():
            return output.add_((hidden @ up).reshape(output.shape))  # rounded once, as the sum
        flat = output.view(-1, output.shape[-1])
        torch.addmm(flat, hidden, up, out=flat)
        return output

    @property
    def factors(self) -> Tensor:
        """The weights of the adapters in question: Float[s] of the segments', or Float[b, len(active)]."""
        if self.single is not None:
            return torch.from_numpy(self.rows[np.arange(len(self.rows)), list(self.single)])
        return torch.from_numpy(self.rows[:, list(self.active)])

    def change(self, layer: BankLayer, x: Tensor) -> Tensor:
        """sum_k row[k] scale_k B_k A_k x for each sequence of x, in x's shape but for the last dimension."""
        hidden, B = self._hidden(layer, x)
        return torch.bmm(hidden, B).reshape(*x.shape[:-1], -1)

    def release(self) -> None:
        """Let go of the tensors of the last pass."""
        self._input = self._new = self._current = None

    def _has_segments(self, x: Tensor) -> bool:
        several = self.single is not None and len(self.single) > 1
        return several and x.numel() >= _SEGMENT_TOKENS * len(self.rows) * x.shape[-1]

    def _multiply(self, layer: BankLayer, x: Tensor, layout: Layout, same: bool) -> tuple[Joint, Space]:
        """Multiply x by the layer's first factors and, where it leads a group, by those of the others.

        Who belongs to a group is learnt when its first layer, the leader, is seen for the first time: whoever is then
        given the very same tensor with the same numbers in it. Later the tensor must be the same again; a layer that
        comes with another one, or with one that was changed in place, computes by itself.
        """
        self._check(x)
        if same:
            self._learn(layer, x)
            joint = layout.joint((layer,))
        elif layer.group is None:
            layer.group = [layer]
            joint = layout.joint((layer,))
            self._new = layer, x.clone()
        else:
            joint = layout.led_by(layer, layer.group if layer.group[0] is layer else (layer,))
            self._new = None
        flat = x.reshape(-1, x.shape[-1])
        space = layout.space(joint, len(flat))
        torch.mm(flat if x.dtype == joint.down.dtype else flat.to(joint.down.dtype), joint.down, out=space.hidden)
        factor = self._factors.get(joint.kind)
        if factor is None:
            factor = self._factors[joint.kind] = self._factor(joint, layout)
        if len(factor) == len(flat):
            space.hidden.mul_(factor)
        else:
            space.hidden.view(len(factor), -1, factor.shape[1]).mul_(factor[:, None])
        self._current, self._version = (joint, space), _version(x)
        if not same:
            self._input = x if self._new is not None or layer is not joint.last else None
        return joint, space

    def _factor(self, joint: Joint, layout: Layout) -> Float[Tensor, "b s"]:
        parts = []
        for layer in joint.places:
            kind = (layer.kind, joint.down.device, joint.down.dtype)
            if kind not in self._factors:
                self._factors[kind] = layout.factor(layer, self.rows)
            parts.append(self._factors[kind])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _learn(self, layer: BankLayer, x: Tensor) -> None:
        """Take a layer that was never seen before into the leader's group, unless someone has changed the tensor."""
        if self._new is not None and layer.group is None:
            leader, copy = self._new
            if leader.group is not None and torch.equal(x, copy):
                layer.group = leader.group
                leader.group.append(layer)

    def _summed(self, layer: BankLayer, x: Tensor, output: Tensor) -> Tensor:
        """One operation for product and sum where both have one precision."""
        if output.dtype != layer.B.dtype or torch.is_autocast_enabled(x.device.type):
            return (output + self.change(layer, x)).to(output.dtype)
        hidden, B = self._hidden(layer, x)
        return torch.baddbmm(output.reshape(len(B), -1, output.shape[-1]), hidden, B).reshape(output.shape)

    def _hidden(self, layer: BankLayer, x: Tensor) -> tuple[Float[Tensor, "s n r"], Float[Tensor, "s r o"]]:
        """What the first factors make of x, and the second factors that it meets, segment by segment.

        Without mixtures each segment sees one adapter, and there is no K-fold work; the factors of rows and scales are
        then part of B. Otherwise every sequence may see every active adapter: one segment of all, over their ranks side
        by side.
        """
        self._check(x)
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(layer.A.dtype)
        A, B, factor = self._factors_of(layer)
        if self.single is not None:
            return torch.bmm(x.reshape(len(A), -1, x.shape[-1]), A.transpose(1, 2)), B
        hidden = nn.functional.linear(x.reshape(self.size, -1, x.shape[-1]), A)
        return (hidden * factor).to(hidden.dtype).reshape(1, -1, hidden.shape[-1]), B

    def _check(self, x: Tensor) -> None:
        if x.shape[0] % self.size:
            raise AdapterError(
                f"a batch of {x.shape[0]} sequences cannot share {self.size} rows; expected one row per "
                "sequence, or a multiple (num_return_sequences)"
            )

    def _factors_of(self, layer: BankLayer) -> tuple[Tensor, Tensor, Tensor]:
        """A, B and the factors that rows and scales give; kept without gradients."""
        if not torch.is_grad_enabled() and layer in self._made:
            return self._made[layer]
        index, factors = self._on(layer.A.device)
        whole = self.active if self.single is None else self.single
        A, B, scale = layer.A, layer.B, layer.scale
        if whole != tuple(range(len(A))):
            A, B, scale = A[index], B[index], scale[index]
        factor = factors * scale
        if self.single is not None:
            made = A, B * factor[:, None, None], factor
        else:
            made = A.flatten(0, 1), B.flatten(0, 1)[None], factor.repeat_interleave(A.shape[1], dim=1)[:, None]
        if not torch.is_grad_enabled():
            self._made[layer] = made
        return made

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The adapters to gather (one per segment, or the active ones) and their factors, on a layer's device."""
        if device not in self._moved:
            with torch.inference_mode(False):  # else no later pass with gradients could use them
                index = torch.tensor(self.active if self.single is None else self.single, device=device)
                self._moved[device] = index, self.factors.to(device)
        return self._moved[device]


def _version(x: Tensor) -> int:
    """It grows when someone changes the tensor in place; tensors of inference mode do not count."""
    return 0 if x.is_inference() else x._version
