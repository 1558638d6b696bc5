"""Networks with units eliminated (Fig. 7), and with blocks left out or swapped (section 4.2).

On straight tracks no single block should matter much, since each one covers part of the way.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from scoring.robustness.subject import Subject, evaluating, result_row


def lesion(subject: Subject, levels: Iterable[float], block: int = 3) -> list[dict[str, Any]]:
    """Accuracy against the number of eliminated units of one block of each stage: Fig. 7.

    The units of x^(l), its d coordinates, are ranked for each class by their mean over the
    points of that class, the largest first. In x^(l) of each point, the first k units of its
    class are set to their values in x^(l-1), which undoes the effect of block l on them. The
    rest of the network continues from there.

    Args:
        subject: the network and its points.
        levels: k/d, in [0, 1]; k is rounded to a whole number.
        block: l, from 1; in stages with fewer blocks, the middle one.

    Returns:
        A row ``lesion`` for each stage and k, with ``accuracy``; its level is k/d. Level 0 is
        the unchanged network, level 1 the network without block l. Memory: four states of a
        batch, and three (classes, d) matrices for each stage.
    """
    with evaluating(subject.network):
        blocks = subject.blocks()
        targets = {k: block if block <= n else (n + 1) // 2 for k, n in blocks.items()}
        places = _places(subject, targets)
        units = {k: sorted({round(x * p.shape[1]) for x in levels}) for k, p in places.items()}
        right: Counter[tuple[int, int]] = Counter()
        for _, pixels, labels in subject.parts():
            before = None
            for stage, l, state in subject.walk(pixels):  # noqa: E741  (the paper's letter)
                if l == targets[stage] and before is not None:
                    place = places[stage][labels].view_as(state)  # (b, ...)
                    # Copied into the memory layout of the state, which is faster to compare with.
                    place = torch.empty_like(state, dtype=place.dtype).copy_(place)
                    for k in units[stage]:
                        changed = torch.where(place < k, before, state)
                        logits = subject.resume(changed, stage, range(l + 1, blocks[stage] + 1))
                        right[stage, k] += _right(logits, labels)
                before = state
        m = len(subject.images)
        return [
            result_row(
                "lesion",
                level=k / places[stage].shape[1],
                unit="share of units",
                m=m,
                stage=stage,
                block=targets[stage],
                accuracy=right[stage, k] / m,
            )
            for stage in units
            for k in units[stage]
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


def _places(subject: Subject, targets: Mapping[int, int]) -> dict[int, Tensor]:
    """Rank of each unit for each class, int32 (classes, d), by stage."""
    classes = int(subject.labels.max()) + 1
    sums: dict[int, Tensor] = {}  # over the points of a class; they rank like means
    for _, pixels, labels in subject.parts():
        members = one_hot(labels, classes).double()  # (b, classes)
        for stage, block, state in subject.walk(pixels):
            if block == targets[stage]:
                here = members.T @ state.flatten(1).double()
                sums[stage] = sums[stage] + here if stage in sums else here
    orders = {k: total.argsort(dim=1, descending=True, stable=True) for k, total in sums.items()}
    return {k: order.argsort(dim=1).int() for k, order in orders.items()}


def _right(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(1) == labels).sum())
