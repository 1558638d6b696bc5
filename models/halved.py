"""Training in bfloat16 with weights in float32 (Micikevicius et al. 2018, mixed precision).

Autocast alone casts every weight and every gradient into new memory at each step, a quarter of a
step of a fully connected network. Here the casts go into memory that is kept. The numbers are
those of autocast, bit for bit.
"""

import copy

import torch
from torch import Tensor, nn
from torch import _foreach_copy_ as copy_  # type: ignore[attr-defined]
from torch.nn.modules.batchnorm import _NormBase

from models.network import Network

WEIGHTED = (nn.Linear, nn.Conv2d)  # computed in bfloat16; normalisations stay in float32


class Halved:
    """A network beside a copy of it with bfloat16 weights, which shares its normalisations.

    Attributes:
        copy: the network to go forwards and backwards through, under autocast.
    """

    def __init__(self, network: Network):
        shared = {id(m): m for m in network.modules() if isinstance(m, _NormBase)}
        self.copy = copy.deepcopy(network, shared)
        for module in self.copy.modules():
            if isinstance(module, WEIGHTED):
                module.to(torch.bfloat16)
        pairs = zip(network.parameters(), self.copy.parameters(), strict=True)
        both = [(w, h) for w, h in pairs if w is not h and w.requires_grad]
        self._weights: list[Tensor] = [w for w, _ in both]
        self._halves: list[Tensor] = [h for _, h in both]
        self._gradients = [torch.empty_like(w) for w in self._weights]

    @torch.no_grad()
    def take_weights(self) -> None:
        """Round the network's weights into the copy, and forget the copy's gradients."""
        copy_(self._halves, self._weights)
        for half in self._halves:
            half.grad = None

    def give_gradients(self) -> None:
        """Hand the copy's gradients to the weights, in float32."""
        copy_(self._gradients, [half.grad for half in self._halves if half.grad is not None])
        for weight, gradient in zip(self._weights, self._gradients, strict=True):
            weight.grad = gradient
