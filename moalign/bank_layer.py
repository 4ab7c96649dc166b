"""The K deltas of one linear layer, stacked, and the layers that read the same input."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moalign.adapters import LowRank


class BankLayer(nn.Module):
    """The K deltas of one linear layer, stacked; smaller ranks are padded with zeros, which stay zero.

    `group` holds the layers that were seen to read the same input, as a model's q, k and v do, in the order in which
    they are called: their first factors can be one product. None until the layer has been seen. To layers of one `kind`
    equal rows give equal factors.
    """

    def __init__(self, deltas: Sequence[LowRank | None], out: int, into: int, device: torch.device):
        super().__init__()
        self.rank = max(delta.rank for delta in deltas if delta is not None)
        A = torch.zeros(len(deltas), self.rank, into)
        B = torch.zeros(len(deltas), self.rank, out)
        for k, delta in enumerate(deltas):
            if delta is not None:
                A[k, : delta.rank] = delta.A
                B[k, : delta.rank] = delta.B.T
        self.A = nn.Parameter(A.to(device))
        self.B = nn.Parameter(B.to(device))
        self.ranks = [0 if delta is None else delta.rank for delta in deltas]
        self.scales = tuple(0.0 if delta is None else delta.scale for delta in deltas)
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(self.scales, device=device))
        self.kind = (self.rank, *self.scales)
        self.group: list[BankLayer] | None = None
        self.stack: Tensor | None = None


def side_by_side(layers: Sequence[BankLayer]) -> Float[Tensor, "i s"]:
    """The first factors of layers that read one input, transposed, all adapters of all layers side by side.

    A product of few tokens with this matrix takes half the time of one with the factors as they are. Frozen factors
    move into it and become views of it, so that they are not held twice; those in training keep their own layout,
    which their gradients and their optimizer share.
    """
    widths = [len(layer.A) * layer.rank for layer in layers]
    stack = layers[0].stack
    if stack is not None and stack.shape[1] == sum(widths) and _are_views(layers, stack, widths):
        return stack
    with torch.inference_mode(False), torch.no_grad():  # views of an inference tensor could never be trained
        stack = torch.cat([layer.A.permute(2, 0, 1).flatten(1) for layer in layers], dim=1)
        if not any(layer.A.requires_grad for layer in layers):
            for layer, part in zip(layers, stack.split(widths, dim=1), strict=True):
                layer.A.data = part.unflatten(1, (-1, layer.rank)).permute(1, 2, 0)
                layer.stack = None
            layers[0].stack = stack
    return stack


def _are_views(layers: Sequence[BankLayer], stack: Tensor, widths: Sequence[int]) -> bool:
    """Whether the factors still lie in the stack: `layer.to(...)` gives them memory of their own."""
    starts = accumulate(widths, initial=0)
    places = (stack.data_ptr() + start * stack.element_size() for start in starts)
    return all(layer.A.data_ptr() == place for layer, place in zip(layers, places, strict=False))
