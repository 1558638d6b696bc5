"""What an experiment on a trained network needs: the network, its points, and a row per result.

This module does not know how networks are built. A network only has to yield its states, and to
continue from one of them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scoring.stages import full_precision

PIXELS = 255.0  # the largest value of a pixel; the smallest is 0
MEASURED = (
    *("accuracy", "loss", "variation_rate", "mixed", "distance"),
    *("mixed_initial", "mixed_matched", "mixed_matched_initial"),
)
"""What a row may hold: ``accuracy``, a fraction; ``loss``, the mean cross-entropy in nats;
``variation_rate``, eq. (49); ``mixed``, a share of pairs; ``distance``, in the units of the states;
and more shares, see :func:`scoring.robustness.noise.mixing`."""


class Layered(Protocol):
    """A network that yields its states and can continue from any of them."""

    def states(self, images: Tensor, /) -> Iterable[tuple[int, Tensor]]:
        """Standardised images (b, ...) -> pairs (stage, state (b, ...)), block by block.

        Stages count from 1; the first state of a stage is its input, x^(0).
        """
        ...

    def resume(
        self, state: Tensor, stage: int, blocks: Sequence[int], /
    ) -> Iterable[tuple[int, Tensor]]:
        """Yield a state of a stage, the states after these blocks, and those of later stages."""
        ...

    def classify(self, state: Tensor, /) -> Tensor:
        """The last state of the last stage -> logits (b, classes)."""
        ...


@dataclass(frozen=True)
class Subject:
    """A trained network and the points to test it on, all on one device.

    Args:
        network: see :class:`Layered`. A module is in evaluation mode during an experiment, and
            in its old mode afterwards.
        images: pixel values from 0 to 255, of any type, (m, ...).
        labels: true classes, integers from 0, (m,).
        standardise: from pixel values of some points, float (b, ...), to the input of the
            network; differentiable.
        batch: points at a time. It changes results only by rounding.
        untrained: makes the same network as it was before training, for baselines; None where
            that is not possible.
    """

    network: Layered
    images: Tensor
    labels: Tensor
    standardise: Callable[[Tensor], Tensor]
    batch: int = 250
    untrained: Callable[[], Layered] | None = None

    def parts(self) -> Iterator[tuple[range, Tensor, Tensor]]:
        """Batches: indices among the m points, pixels as floats, classes int64."""
        for start in range(0, len(self.images), self.batch):
            here = range(start, min(start + self.batch, len(self.images)))
            pixels = self.images[here.start : here.stop]
            pixels = pixels if pixels.is_floating_point() else pixels.float()
            yield here, pixels, self.labels[here.start : here.stop].long()

    def walk(self, pixels: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """Yield stage k, block l from 0, and state x^(l) (b, ...) for pixels (b, ...)."""
        stage, block = 0, 0
        for k, state in self.network.states(self.standardise(pixels)):
            stage, block = k, block + 1 if k == stage else 0
            yield stage, block, state

    def blocks(self) -> dict[int, int]:
        """The number of blocks n of each stage, found by sending one point through the network."""
        _, pixels, _ = next(self.parts())
        return {stage: block for stage, block, _ in self.walk(pixels[:1])}

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits (b, classes) of pixels (b, ...)."""
        return self.network.classify(_last(self.network.states(self.standardise(pixels))))

    def resume(self, state: Tensor, stage: int, blocks: Sequence[int]) -> Tensor:
        """Logits (b, classes) from a state of a stage, through these blocks of it."""
        return self.network.classify(_last(self.network.resume(state, stage, blocks)))


@contextmanager
def evaluating(network: Layered) -> Iterator[None]:
    """Evaluation mode, full float32, no gradients; restores the modes of all modules afterwards."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with torch.no_grad(), full_precision():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def result_row(
    evaluation: str,
    level: float,
    unit: str,
    m: int,
    stage: int | None = None,
    block: int | None = None,
    replacement: str | None = None,
    units: str | None = None,
    **measured: float,
) -> dict[str, Any]:
    """A row of the robustness table for one result.

    Args:
        evaluation: its name.
        level: its strength.
        unit: unit of the level.
        m: number of points.
        stage: k, or None for the whole network.
        block: l, or None for the whole stage.
        replacement: what takes the place of eliminated units; None if there are none.
        units: which units are eliminated; None if there are none.
        measured: any of :data:`MEASURED`. Values that are not given are None.
    """
    nothing = dict.fromkeys(MEASURED)
    where = {"evaluation": evaluation, "stage": stage, "block": block}
    where |= {"replacement": replacement, "units": units}
    return where | {"level": float(level), "unit": unit, "m": m} | nothing | measured


def draws(kind: str, seed: int, places: range, like: Tensor) -> Tensor:
    """Random numbers of each point, float32, which depend only on its index and the seed.

    They do not depend on the batch or the device: each point has its own counter-based generator.

    Args:
        kind: ``normal``, N(0, 1), or ``uniform``, in [-1, 1).
        seed: 0 to 2^63, the same for all points.
        places: indices of these points among all points, from 0.
        like: a tensor (b, ...) with the wanted shape and device.

    >>> both = draws("normal", 0, range(2), torch.zeros(2, 3))
    >>> torch.equal(draws("normal", 0, range(1, 2), torch.zeros(1, 3)), both[1:])
    True
    """
    drawn = np.empty(like.shape, np.float32)
    for out, place in zip(drawn.reshape(len(places), -1), places, strict=True):
        stream = np.random.Philox(key=[seed, place], counter=[0, 0, 0, int(kind == "uniform")])
        if kind == "normal":
            np.random.Generator(stream).standard_normal(dtype=np.float32, out=out)
        else:
            np.random.Generator(stream).random(dtype=np.float32, out=out)
    values = torch.from_numpy(drawn).to(like.device)
    return values if kind == "normal" else 2 * values - 1


def compared(
    evaluation: str,
    subject: Subject,
    levels: Iterable[float],
    change: Callable[[range, Tensor, Tensor], Callable[[float], Tensor]],
) -> list[dict[str, Any]]:
    """Accuracy, loss and variation rates, eq. (49), of changed images at each level.

    The rate of a state is the mean over points of |x^(l) - x_c^(l)| / |x^(l)|, where x_c is
    the changed image. Points with state 0 are left out, and not counted in ``m``.

    Args:
        evaluation: its name in the rows.
        subject: the network and its points.
        levels: in pixel values; 0, the unchanged images, is always added.
        change: from indices, pixels (b, ...) and classes (b,) to a function that gives the
            changed pixels (b, ...) for a level > 0.

    Returns:
        A row for each level with ``accuracy`` and ``loss``, and one for each stage, block
        l = 0, ..., n and level with ``variation_rate``. Memory: a state of a batch for each
        level, and one more.
    """
    levels = sorted({0.0, *map(float, levels)})
    right, losses = [], []  # for each batch (levels, b)
    sizes: dict[tuple[int, int], list[Tensor]] = defaultdict(list)  # (b,)
    moved: dict[tuple[int, int], list[Tensor]] = defaultdict(list)  # (levels, b)
    with evaluating(subject.network):
        for places, pixels, labels in subject.parts():
            at = change(places, pixels, labels)
            versions = [pixels, *(at(level) for level in levels[1:])]
            states: list[Tensor] = []
            for here in zip(*map(subject.walk, versions), strict=True):
                states = [state for _, _, state in here]
                sizes[here[0][:2]].append(_norm(states[0]))
                moved[here[0][:2]].append(torch.stack([_norm(x - states[0]) for x in states]))
            logits = [subject.network.classify(state) for state in states]
            right.append(torch.stack([correct(x, labels) for x in logits]))
            losses.append(torch.stack([point_losses(x, labels) for x in logits]))
        accuracies = torch.cat(right, 1).double().mean(1).tolist()
        means = torch.cat(losses, 1).mean(1).tolist()
        m = len(subject.images)
        rows = [
            result_row(
                evaluation, level=level, unit="pixel value", m=m, accuracy=accuracy, loss=loss
            )
            for level, accuracy, loss in zip(levels, accuracies, means, strict=True)
        ]
        for (stage, block), parts in sizes.items():
            size = torch.cat(parts)
            rates = (torch.cat(moved[stage, block], 1) / size)[:, size != 0]
            for level, rate in zip(levels, rates.mean(1).tolist(), strict=True):
                one = result_row(
                    evaluation,
                    level=level,
                    unit="pixel value",
                    m=len(rates[0]),
                    stage=stage,
                    block=block,
                    variation_rate=rate,
                )
                rows.append(one)
        return rows


def joined(walks: Sequence[Iterator[tuple[int, int, Tensor]]]) -> Iterator[tuple[int, Tensor]]:
    """Walks of all batches side by side: the stage, and the state (m, d) of all points."""
    for here in zip(*walks, strict=True):
        yield here[0][0], torch.cat([state.flatten(1) for _, _, state in here])


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the network is right about each point, bool (b,); never by a NaN or infinite logit.

    >>> correct(torch.tensor([[2.0, 1.0], [float("nan")] * 2]), torch.tensor([0, 0]))
    tensor([ True, False])
    """
    best = logits.argmax(1)  # the place of a NaN if there is one
    return (best == labels) & logits.gather(1, best[:, None])[:, 0].isfinite()


def point_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each point in nats, (b,) float64."""
    return cross_entropy(logits.double(), labels, reduction="none")


def _last(states: Iterable[tuple[int, Tensor]]) -> Tensor:
    state = None
    for _, state in states:  # noqa: B007
        pass
    if state is None:
        raise ValueError("the network yields no states")
    return state


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm of each point, (b, ...) -> (b,) float64, summed in float64."""
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), dtype=torch.float64)
