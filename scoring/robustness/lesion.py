"""Networks with units eliminated (Fig. 7), and with blocks left out or swapped (section 4.2).

On straight tracks no single block should matter much, since each one covers part of the way.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from scoring.robustness.subject import Subject, correct, evaluating, result_row


def lesion(
    subject: Subject,
    levels: Iterable[float],
    block: int = 3,
    replacement: Sequence[str] = ("previous",),
    units: Sequence[str] = ("top",),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Accuracy against the number of eliminated units of one block of each stage: Fig. 7.

    The units of x^(l), its d coordinates, are put into an order for each class. In x^(l) of each
    point, the first k units of its class are replaced, and the rest of the network continues from
    there. The result depends on what takes their place: in a ResNet x^(l-1) is nearly x^(l),
    whatever its blocks have learned.

    Args:
        subject: the network and its points.
        levels: k/d, in [0, 1]; k is rounded to a whole number. 0 is always added.
        block: l, from 1; in stages with fewer blocks, the middle one.
        replacement: what takes the place of a unit. ``previous``: its value in x^(l-1) of the
            same point, which undoes the effect of block l on it, as in the paper. ``mean``: its
            mean in x^(l) over all m points, which removes what it says about the point.
        units: the order. ``top``: by their mean over the points of the class, the largest first,
            as in the paper. ``random``: in random order, another one for each class.
        seed: seed of the random orders.

    Returns:
        A row ``lesion`` for each stage, choice of units, replacement and k, with ``accuracy``; its
        level is k/d. Level 0 is the unchanged network; level 1 by the previous state is the
        network without block l. Memory: four states of a batch, and some (classes, d) matrices
        for each stage.
    """
    levels = {0.0, *levels}
    with evaluating(subject.network):
        blocks = subject.blocks()
        targets = {k: block if block <= n else (n + 1) // 2 for k, n in blocks.items()}
        top, means = _activity(subject, targets)
        places = {
            (stage, name): _random(place, seed, stage) if name == "random" else place
            for stage, place in top.items()
            for name in units
        }
        counts = {k: sorted({round(x * p.shape[1]) for x in levels}) for k, p in top.items()}
        right: Counter[tuple[int, str, str, int]] = Counter()
        for _, pixels, labels in subject.parts():
            before = None
            for stage, l, state in subject.walk(pixels):  # noqa: E741  (the paper's letter)
                if l == targets[stage] and before is not None:
                    mean = means[stage].to(state.dtype).view_as(state[0])
                    instead = {"previous": before, "mean": mean}
                    later = range(l + 1, blocks[stage] + 1)
                    for name in units:
                        place = places[stage, name][labels].view_as(state)  # (b, ...)
                        # Copied into the memory layout of the state: faster to compare with.
                        place = torch.empty_like(state, dtype=place.dtype).copy_(place)
                        for new, k in product(replacement, counts[stage]):
                            changed = torch.where(place < k, instead[new], state)
                            logits = subject.resume(changed, stage, later)
                            right[stage, name, new, k] += _right(logits, labels)
                before = state
        m = len(subject.images)
        return [
            result_row(
                "lesion",
                level=k / top[stage].shape[1],
                unit="share of units",
                m=m,
                stage=stage,
                block=targets[stage],
                replacement=new,
                units=name,
                accuracy=right[stage, name, new, k] / m,
            )
            for stage in counts
            for name, new, k in product(units, replacement, counts[stage])
        ]


def rearrangement(subject: Subject) -> list[dict[str, Any]]:
    """Accuracy without each block in turn, and with each pair of neighbouring blocks swapped.

    These are the studies of ResNets that section 4.2 builds on (Veit et al. 2016). Transitions
    between stages are never left out, since they change the shape of a state.

    Args:
        subject: the network and its points.

    Returns:
        Rows with ``accuracy``: a ``skip`` for each block l, with x^(l) := x^(l-1), and a
        ``swap`` for each l < n, where block l + 1 comes before block l. Their level is 1, the
        number of blocks left out or of pairs swapped.
    """
    with evaluating(subject.network):
        blocks = subject.blocks()
        right: Counter[tuple[str, int, int]] = Counter()
        for _, pixels, labels in subject.parts():
            before = None
            for stage, l, state in subject.walk(pixels):  # noqa: E741
                if l > 0 and before is not None:
                    later = list(range(l + 1, blocks[stage] + 1))
                    logits = subject.resume(before, stage, later)
                    right["skip", stage, l] += _right(logits, labels)
                    if later:
                        exchanged = [later[0], l, *later[1:]]
                        logits = subject.resume(before, stage, exchanged)
                        right["swap", stage, l] += _right(logits, labels)
                before = state
        m = len(subject.images)
        return [
            result_row(
                name,
                level=1,
                unit="blocks" if name == "skip" else "pairs",
                m=m,
                stage=stage,
                block=block,
                accuracy=count / m,
            )
            for (name, stage, block), count in sorted(right.items())
        ]


def _activity(
    subject: Subject, targets: Mapping[int, int]
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Rank of each unit for each class, int32 (classes, d), and its mean, (d,), by stage."""
    classes = int(subject.labels.max()) + 1
    sums: dict[int, Tensor] = {}  # over the points of a class; they rank like means
    for _, pixels, labels in subject.parts():
        members = one_hot(labels, classes).double()  # (b, classes)
        for stage, block, state in subject.walk(pixels):
            if block == targets[stage]:
                here = members.T @ state.flatten(1).double()
                sums[stage] = sums[stage] + here if stage in sums else here
    orders = {k: total.argsort(dim=1, descending=True, stable=True) for k, total in sums.items()}
    means = {k: total.sum(0) / len(subject.labels) for k, total in sums.items()}
    return {k: order.argsort(dim=1).int() for k, order in orders.items()}, means


def _random(place: Tensor, seed: int, stage: int) -> Tensor:
    """Ranks in random order for each class, in the shape of ranks (classes, d)."""
    draw = np.random.Generator(np.random.Philox(key=[seed, stage]))
    ranks = draw.permuted(
        np.tile(np.arange(place.shape[1], dtype=np.int32), (len(place), 1)), axis=1
    )
    return torch.from_numpy(ranks).to(place.device)


def _right(logits: Tensor, labels: Tensor) -> int:
    return int(correct(logits, labels).sum())
