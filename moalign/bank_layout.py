"""The factors of some of a bank's adapters, laid out for passes of few tokens, as when many texts are written.

Such a pass has few numbers to multiply and many layers, so that every operation counts, and so does making ready: a
server has another batch of rows for almost every token. So nothing here knows the rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from moalign.bank_layer import BankLayer, side_by_side

_KEPT_TOKENS, _KEPT_SPACES, _KEPT_LAYOUTS = 512, 16, 3


class Joint(NamedTuple):
    """The factors of layers that share an input: `down` Float[i, s] for all of them, and for each its own.

    `places` gives for each layer which part of the product with `down` is its own, and the second factors Float[r, o].
    Joints of one `kind` have layers of equal kinds, to which equal rows give equal factors.
    """

    kind: int
    down: Tensor
    places: dict[BankLayer, tuple[int, Tensor]]
    last: BankLayer


class Space(NamedTuple):
    """Memory for the product of n tokens with a joint's `down`, Float[n, s], and its layers' parts, Float[n, r]."""

    hidden: Tensor
    parts: tuple[Tensor, ...]


class Layout:
    """The factors of the adapters `active`, side by side; `sound` tells whether all of them are finite."""

    def __init__(self, active: tuple[int, ...], sound: bool = True):
        self.active, self.sound = active, sound
        self._joints: dict[BankLayer, Joint] = {}
        self._kinds: list[tuple[object, ...]] = []
        self._spaces: dict[tuple[int, int], Space] = {}

    def led_by(self, leader: BankLayer, group: Sequence[BankLayer]) -> Joint:
        """The joint of a group of layers, made once."""
        joint = self._joints.get(leader)
        if joint is None:
            joint = self._joints[leader] = self.joint(group)
        return joint

    def joint(self, layers: Sequence[BankLayer]) -> Joint:
        """The joint of these layers, not kept."""
        if len(self.active) == len(layers[0].A):
            down = side_by_side(layers)
            ups = [layer.B.detach().flatten(0, 1) for layer in layers]
        else:
            index = torch.tensor(self.active, device=layers[0].A.device)
            down = torch.cat([layer.A.permute(2, 0, 1).index_select(1, index).flatten(1) for layer in layers], dim=1)
            ups = [layer.B.index_select(0, index).flatten(0, 1) for layer in layers]
        kind = (down.device, down.dtype, *(layer.kind for layer in layers))
        if kind not in self._kinds:
            self._kinds.append(kind)
        places = {layer: (place, up) for place, (layer, up) in enumerate(zip(layers, ups, strict=True))}
        return Joint(self._kinds.index(kind), down, places, layers[-1])

    def space(self, joint: Joint, count: int) -> Space:
        """Where the product of `count` tokens with a joint is written; joints of one kind take turns with it."""
        space = self._spaces.get((joint.kind, count))
        if space is None:
            with torch.inference_mode(False):  # a later pass may be outside of it
                hidden = joint.down.new_empty(count, joint.down.shape[1])
            space = Space(hidden, hidden.split([len(up) for _, up in joint.places.values()], dim=1))
            if count <= _KEPT_TOKENS:
                if len(self._spaces) == _KEPT_SPACES:
                    self._spaces.clear()
                self._spaces[joint.kind, count] = space
        return space

    def factor(self, layer: BankLayer, rows: Float[np.ndarray, "b k"]) -> Float[Tensor, "b r"]:
        """Rows times scales, for each number that the first factors of a layer make of a token."""
        active = list(self.active)
        scaled = rows[:, active].astype(np.float64) * np.array(layer.scales, np.float32)[active]
        return torch.from_numpy(np.repeat(scaled, layer.rank, axis=1)).to(layer.A.device, layer.A.dtype)


class Layouts:
    """The layouts of a bank, which plans share; called with the adapters that a plan cannot do without.

    Where these are most of the bank, all of them are laid out: that takes no copy. Of smaller choices the last two are
    kept, as a server alternates between the requests it reads and those it writes. Factors in training change with
    every step, so that nothing of them is kept.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], adapters: int, trainable: bool):
        self._parameters, self._everyone, self._trainable = list(parameters), tuple(range(adapters)), trainable
        self._state: int | None = None
        self._sound = True
        self._kept: dict[tuple[int, ...], Layout] = {}

    def __call__(self, active: tuple[int, ...]) -> Layout:
        """A layout of these adapters at least."""
        state = self._weights_state()
        if state != self._state:
            self._state, self._sound = state, all(bool(each.isfinite().all()) for each in self._parameters)
            self._kept.clear()
        if 4 * len(active) >= 3 * len(self._everyone):
            active = self._everyone
        layout = self._kept.pop(active, None) or Layout(active, self._sound)
        if not self._trainable:
            self._kept[active] = layout  # the last one used stands last
        if len(self._kept) > _KEPT_LAYOUTS:
            del self._kept[next(choice for choice in self._kept if choice != self._everyone)]
        return layout

    def _weights_state(self) -> int:
        """Another number when factors were changed or moved; but first factors move when they are laid out."""
        changes = sum(parameter._version for parameter in self._parameters)
        return changes + sum(parameter.data_ptr() for parameter in self._parameters[1::2])
