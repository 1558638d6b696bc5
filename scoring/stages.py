"""Measure every stage of a network, streaming its states and its data.

This module does not know how networks are built. It measures everything that yields pairs
(stage, state) in the order of its blocks.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoring.energy import StraightDistance
from scoring.excess import Action, excess, without_drift
from scoring.line_shape import LineShape, Points, as_state
from scoring.problems import Problem, assignment_problem
from scoring.projection import SHOWN, project
from scoring.rows import LINE_SHAPE
from scoring.scales import Scales
from scoring.separation import Separation

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
    zero_segments: int  # of length 0, in tracks that move
    lengths: np.ndarray  # (n, m) of each segment
    cosines: np.ndarray  # (n - 1, m) between successive segments
    distances: np.ndarray  # (m,) between the ends of each track
    drift: np.ndarray  # (n,) squared length of the mean over points of each step
    shift: float  # squared length of the mean over points of the way from first to last state
    problem: Problem | None  # between inputs and outputs, if requested and the states are finite
    projected: np.ndarray | None  # (n + 1, p, 2): the first points in 2-d, if requested
    measurable: bool = True  # False: of a single block, a straight line by definition

    @property
    def finite(self) -> bool:
        """Whether all states are finite: a segment next to a non-finite state has no length."""
        return bool(np.isfinite(self.lengths).all())

    def row(self) -> dict[str, Any]:
        """Columns of the tracks table that are known before the assignment is solved."""
        moving = ~np.isnan(self.score)
        score, ratio = self.score[moving], self.ratio[moving]
        some = bool(moving.any())
        seen = {} if self.projected is None else {"projected": _digits(self.projected)}
        with np.errstate(
            invalid="ignore"
        ):  # inf - inf, if steps cancel; 0 / 0, if a point is still
            energy, cost = np.square(self.lengths).mean(1), float(np.square(self.distances).mean())
            action = Action(energy, self.drift, cost, self.shift)
            row = seen | {
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
                "straightness_factor": excess(action).straightness,
                "straightness_factor_without_drift": excess(without_drift(action)).straightness,
                "energy": energy.tolist(),
                "drift": self.drift.tolist(),
                "cosines": [mean_of_known(cosines) for cosines in self.cosines],
                "curvature": mean_of_known(np.degrees(np.arccos(self.cosines))),
                "spacing": mean_of_known(self.lengths.std(0) / self.lengths.mean(0)),
            }
            lacking = () if self.measurable else LINE_SHAPE
            return row | {name: np.nan for name in lacking if name in row}


@torch.no_grad()
def measure(walk: Walk, batches: Iterable[Tensor], transport: bool = False) -> list[Stage]:
    """Line shape of every stage, and the assignment problems on request.

    Args:
        walk: from a batch of images (b, ...) to pairs (stage, state (b, ...)), block by block,
            stages counted from 1. The first state of a stage is its input.
        batches: the points, in batches of any sizes.
        transport: also collect the assignment problem of each stage, and the tracks of the
            first points in two dimensions.

    Returns:
        One :class:`Stage` each, in order. A stage whose states are not all finite has no
        assignment problem. Memory: one batch of two states, and with
        ``transport`` two states of all m points and 1.5 (m, m) matrices for each stage, or only
        the states where those are smaller.
    """
    shapes: dict[int, list[Points]] = defaultdict(list)
    inputs: dict[int, list[Tensor]] = defaultdict(list)
    outputs: dict[int, list[Tensor]] = defaultdict(list)
    projected: dict[int, list[list[Tensor]]] = defaultdict(list)  # by stage, batch and state
    sums: dict[int, Tensor] = {}  # of each step over points, (n, d)
    dimensions: dict[int, int] = {}
    seen = 0
    with full_precision():
        for batch in batches:
            here: dict[int, LineShape] = {}
            before: tuple[int, Tensor] | None = None
            for stage, given in walk(batch):
                state = as_state(given)
                if stage not in here:
                    here[stage] = LineShape()
                    dimensions[stage] = state[0].numel()
                    if transport:
                        inputs[stage].append(_single(state))
                        if before is not None:
                            outputs[before[0]].append(_single(before[1]))
                    projected[stage].append([])
                here[stage].update(state)
                if transport and seen < SHOWN:
                    projected[stage][-1].append(project(state[: SHOWN - seen]).cpu())
                before = stage, state
            if transport and before is not None:
                outputs[before[0]].append(_single(before[1]))
            for stage, shape in here.items():
                shapes[stage].append(shape.points())
                sums[stage] = shape.step_sums().add_(sums.get(stage, 0.0))
            seen += len(batch)
        return [
            joined_stage(
                (k, dimensions[k]),
                shapes[k],
                sums.pop(k) / seen,
                inputs.pop(k, None),
                outputs.pop(k, None),
                projected[k],
            )
            for k in sorted(shapes)
        ]


def _single(state: Tensor) -> Tensor:
    """A state as points (m, d), in 32 bits or more."""
    points = state.flatten(1)
    return points.float() if points.dtype.itemsize < 4 else points


@torch.no_grad()
def geometry(walk: Walk, batches: Iterable[Tensor], labels: Any = None) -> list[dict[str, Any]]:
    """How far apart the tracks of a few points stay, how straight they are, how states spread out.

    Straight lines need both ends, and the scale of a state all of its points, so this walks through
    the network twice. In the first walk all batches go through the network side by side, as every
    pair of points is compared.

    Args:
        walk: as for :func:`measure`; the same on a second walk.
        batches: the points, in batches of any sizes.
        labels: their classes (m,), tensor or array, to tell pairs of one class from the others.

    Returns:
        A mapping for each stage, in order, with columns of the tracks table: the figures of
        :meth:`scoring.separation.Separation.figures`; those of
        :meth:`scoring.scales.Scales.figures`; and ``straight_distance``, the mean over
        points of :func:`scoring.energy.straight_distance` for l = 0, ..., n, in the units of the
        states. NaN where states are not finite. Memory: four states of all m points, the inputs
        and outputs of every stage, and a few (m, m) matrices for one stage at a time; then some
        ten states of a batch, in float64.
    """
    batches = list(batches)
    ends: dict[int, tuple[Tensor, Tensor, int]] = {}
    figures: dict[int, dict[str, Any]] = {}
    scales: dict[int, Scales] = {}
    straying: dict[int, list[Tensor]] = defaultdict(list)
    with full_precision():
        for stage, states in groupby(_side_by_side(walk, batches), itemgetter(0)):
            separation, scales[stage] = Separation(), Scales(labels)
            for _, state in states:
                separation.update(state)
                scales[stage].see(state, separation.squared())
            figures[stage] = separation.figures(labels)
            ends[stage] = separation.first, separation.last, separation.blocks
        start = 0
        for batch in batches:
            here = slice(start, start + len(batch))
            for stage, states in groupby(walk(batch), itemgetter(0)):
                first, last, blocks = ends[stage]
                straight = StraightDistance(first[here], last[here], blocks)
                for _, state in states:
                    straight.update(state)
                    scales[stage].update(state)
                scales[stage].end()
                straying[stage].append(straight.distances())
            start = here.stop
    return [
        figures[k]
        | {"straight_distance": torch.cat(straying[k], dim=1).mean(1).tolist()}
        | scales[k].figures()
        for k in sorted(figures)
    ]


def _side_by_side(walk: Walk, batches: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """The walks of all batches side by side: (stage, state (m, d)) of all points."""
    for here in zip(*(walk(batch) for batch in batches), strict=True):
        yield here[0][0], torch.cat([as_state(state).flatten(1) for _, state in here])


def joined_stage(
    place: tuple[int, int],
    batches: list[Points],
    steps: Tensor,
    inputs: list[Tensor] | None,
    outputs: list[Tensor] | None,
    projected: list[list[Tensor]],
) -> Stage:
    """Join what batches gave of a stage.

    Args:
        place: k, from 1, and d.
        batches: the points of each batch.
        steps: the mean over all points of each step, (n, d) float64.
        inputs: x^(0) of each batch, or None; with ``outputs``, they give the assignment problem.
        outputs: x^(n) of each batch, or None.
        projected: states in two dimensions by batch; empty lists if there are none.
    """
    points = Points(*(torch.cat(parts, dim=-1).cpu() for parts in zip(*batches, strict=True)))
    score, inverse, ratio, shares, zero, lengths, cosines, ends = (p.numpy() for p in points)
    moving = ~np.isnan(score)
    measured = Stage(
        stage=place[0],
        dimension=place[1],
        score=score,
        inverse_score=inverse,
        ratio=ratio,
        shares=shares,
        zero_segments=int(zero[moving].sum()),
        lengths=lengths,
        cosines=cosines,
        distances=ends,
        drift=steps.square().sum(1).cpu().numpy(),
        shift=float(steps.sum(0).square().sum()),
        problem=None,
        projected=_joined(projected),
    )
    if not (inputs and outputs and measured.finite):
        return measured
    problem = assignment_problem(torch.cat(inputs), torch.cat(outputs), baseline=True)
    return replace(measured, problem=problem)


def _joined(batches: list[list[Tensor]]) -> np.ndarray | None:
    """Projected states of all batches, (n + 1, p, 2); None if none were requested."""
    tracks = [torch.stack(states) for states in batches if states]
    return torch.cat(tracks, dim=1).numpy() if tracks else None


def _digits(projected: np.ndarray) -> list[float]:
    """Flat, with the digits that a figure needs, to keep the history in JSON small."""
    return [float(f"{x:.5g}") for x in projected.ravel().tolist()]


def mean_of_known(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    return float(array.mean()) if len(array) else np.nan


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn autocast and TF32 off: rounded states would lose the small steps between them."""
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = cudnn
        torch.backends.cuda.matmul.allow_tf32 = matmul
