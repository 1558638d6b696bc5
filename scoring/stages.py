"""Measure every stage of a network in one streaming pass over its data.

Knows nothing of how networks are built: whatever hands out (stage, state) pairs in the order
of its blocks can be measured.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoring.line_shape import LineShape, Points
from scoring.transport import Problem, assignment_problem

Walk = Callable[[Tensor], Iterable[tuple[int, Tensor]]]


@dataclass(frozen=True)
class Stage:
    """The tracks of m points through one stage of n blocks in d dimensions."""

    stage: int  # k, from 1
    dimension: int
    score: np.ndarray  # (m,) LSS
    inverse_score: np.ndarray  # (m,) 1/LSS
    ratio: np.ndarray  # (m,) LSR
    shares: np.ndarray  # (n, m) of each point's length
    zero_segments: int  # in tracks that move
    problem: Problem | None  # between the stage's inputs and outputs, where asked for

    def row(self) -> dict[str, Any]:
        """Its summary: the columns of the tracks table that are known before the assignment."""
        moving = ~np.isnan(self.score)
        score, ratio = self.score[moving], self.ratio[moving]
        some = bool(moving.any())
        with np.errstate(invalid="ignore"):  # inf - inf, where a point's steps cancel
            return {
                "stage": self.stage,
                "blocks": len(self.shares),
                "dimension": self.dimension,
                "m": len(self.score),
                "still_points": int((~moving).sum()),
                "zero_segments": self.zero_segments,
                "lss": float(score.mean()) if some else np.nan,
                "lss_std": float(score.std()) if some else np.nan,
                "inverse_lss": float(self.inverse_score[moving].mean()) if some else np.nan,
                "lsr": float(ratio.mean()) if some else np.nan,
                "lsr_std": float(ratio.std()) if some else np.nan,
                "shares": (
                    self.shares[:, moving].mean(1) if some else np.full(len(self.shares), np.nan)
                ).tolist(),
                "lss_random": len(self.shares) ** 0.5,
            }


@torch.no_grad()
def measure(walk: Walk, batches: Iterable[Tensor], transport: bool = False) -> list[Stage]:
    """Line shape of every stage, and the assignment problems on request.

    Args:
        walk: from a batch of images (b, ...) to pairs (stage, state (b, ...)), stages counted
            from 1, block by block; the first state of a stage is its input.
        batches: the points, in batches of any sizes.
        transport: also keep each stage's inputs and outputs, for the costs between them.

    Returns:
        One :class:`Stage` each, in order. Memory: one batch of two states, and with
        ``transport`` two states of all m points and an (m, m) matrix for each stage.
    """
    shapes: dict[int, list[Points]] = defaultdict(list)
    inputs: dict[int, list[Tensor]] = defaultdict(list)
    outputs: dict[int, list[Tensor]] = defaultdict(list)
    dimensions: dict[int, int] = {}
    with full_precision():
        for batch in batches:
            here: dict[int, LineShape] = {}
            before: tuple[int, Tensor] | None = None
            for stage, state in walk(batch):
                if stage not in here:
                    here[stage] = LineShape()
                    dimensions[stage] = state[0].numel()
                    if transport:
                        inputs[stage].append(state.flatten(1).float())
                        if before is not None:
                            outputs[before[0]].append(before[1].flatten(1).float())
                here[stage].update(state)
                before = stage, state
            if transport and before is not None:
                outputs[before[0]].append(before[1].flatten(1).float())
            for stage, shape in here.items():
                shapes[stage].append(shape.points())
        return [
            _stage(k, dimensions[k], shapes[k], inputs.pop(k, None), outputs.pop(k, None))
            for k in sorted(shapes)
        ]


def _stage(
    stage: int,
    dimension: int,
    batches: list[Points],
    inputs: list[Tensor] | None,
    outputs: list[Tensor] | None,
) -> Stage:
    score, inverse, ratio, shares, zero = (
        torch.cat(parts, dim=-1).cpu().numpy() for parts in zip(*batches, strict=True)
    )
    problem = None
    if inputs and outputs:
        problem = assignment_problem(torch.cat(inputs), torch.cat(outputs))
    moving = ~np.isnan(score)
    return Stage(stage, dimension, score, inverse, ratio, shares, int(zero[moving].sum()), problem)


@contextmanager
def full_precision() -> Iterator[None]:
    """Autocast and TF32 off: rounded states lose the small steps between them."""
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = cudnn
        torch.backends.cuda.matmul.allow_tf32 = matmul
