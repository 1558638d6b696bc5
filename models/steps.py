"""One step of training, in which nothing waits for a GPU, and TF32, which only steps may use."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.config import TrialConfig
from models.network import AnyNetwork
from models.optimizers import Optimizer
from models.penalties import penalty
from models.torch_optimizers import TorchOptimizer


class Totals(NamedTuple):
    """Sums over the images of an epoch, on the device, so that no step waits for it."""

    loss: Tensor  # float32 ()
    correct: Tensor  # int64 ()

    @classmethod
    def zero(cls, device: torch.device) -> "Totals":
        """The sums over no images."""
        return cls(
            torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
        )


def take_step(
    network: AnyNetwork,
    optimizer: Optimizer | TorchOptimizer,
    x: Tensor,
    y: Tensor,
    config: TrialConfig,
    rate: float | Tensor,
    totals: Totals,
) -> None:
    """One step of the optimizer on a batch of standardised images and their labels.

    Nothing in it waits for the device, so a CUDA graph can hold it.
    """
    penalised = config.transport_penalty > 0 or config.straightness_penalty > 0
    with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        states, logits = network.tracked(x) if penalised else ([], network(x))
    loss = objective = cross_entropy(logits.float(), y)
    if penalised:
        objective = loss + penalty(states, config.transport_penalty, config.straightness_penalty)
    optimizer.zero_grad()
    objective.backward()
    optimizer.step(rate)
    totals.loss.add_(loss.detach() * len(y))
    totals.correct.add_(correct(logits.detach(), y).sum())


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """Whether the network is right about each image, bool (b,); never by a NaN or infinite logit.

    >>> correct(torch.tensor([[2.0, 1.0], [float("nan")] * 2]), torch.tensor([0, 0]))
    tensor([ True, False])
    """
    best = logits.argmax(1)  # the place of a NaN if there is one
    return (best == y) & logits.gather(1, best[:, None])[:, 0].isfinite()


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let CUDA devices round the factors of float32 products to TF32, or forbid it.

    Training may: its steps are noisy anyway. Losses, accuracies and scores may not.
    """
    places: tuple[Any, Any] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = allowed
    try:
        yield
    finally:
        for place, was in zip(places, before, strict=True):
            place.allow_tf32 = was
