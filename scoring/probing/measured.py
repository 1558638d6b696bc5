"""From the sums of a recorder to the scores of a stage, and its optimal transport."""

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoring.excess import Action, curve_from_costs
from scoring.probing.errors import ProbeWarning
from scoring.probing.recorder import MOST, Sums
from scoring.problems import assignment_problem
from scoring.rows import Solved, track_row
from scoring.shuffled import shuffled
from scoring.spread import effective_rank, scatter
from scoring.stages import Stage, full_precision, joined_stage, mean_of_known
from scoring.transport import solve

SEED = 0  # of the order of shuffled displacements
DOMINATES = 0.1  # Warn where rounding makes up more than this share of a squared step.
ROUNDING = 0.045  # mean squared error of a rounded number, in (machine epsilon x number)^2


@dataclass(frozen=True)
class MeasuredStage:
    """What a probe measured of one stage.

    Attributes:
        blocks: the names of its n blocks, in the order of their calls.
        shape: of the state of a point.
        kind: the number format of the states, such as ``float32``; several, if they differ.
        points: the scores of each of the m points; see :class:`scoring.stages.Stage`.
        effective_rank: of each of the n + 1 states.
        rank_points: how many points this takes: the first ones, at most 1,000.
        rounding: of each block, the share of rounding in its mean squared step; NaN where
            the numbers of its output have 32 bits or more, and for means over tokens.
        transport: columns of the tracks table and of the Wasserstein curve, if requested.
        sum_error: of each block, if blocks return branches, how far input plus output is from the
            state that the model goes on with, over the size of the output, in the first batch; NaN
            where nothing shows that state.
    """

    blocks: tuple[str, ...]
    shape: tuple[int, ...]
    kind: str
    points: Stage
    effective_rank: list[float]
    rank_points: int
    rounding: list[float]
    transport: dict[str, Any] = field(default_factory=dict)
    sum_error: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """The scores of the stage, under the names of the tracks table.

        ``cosine`` is the mean of ``cosines``. With ``transport``, OTS, the excess and the curve are
        of the first ``transport_points`` points. The line shape of a single block is NaN: it is not
        measurable.
        """
        row = self.points.row()
        row.pop("projected", None)
        return {
            "first_block": self.blocks[0],
            "last_block": self.blocks[-1],
            **row,
            "kind": self.kind,
            "cosine": mean_of_known(row["cosines"]),
            "effective_rank": self.effective_rank,
            "rank_points": self.rank_points,
            "rounding": self.rounding,
            **self.transport,
        }


def measured(
    sums: Sums, number: int, transport: int, off: Mapping[str, float] | None = None
) -> MeasuredStage:
    """The scores of a stage.

    Args:
        sums: of the stage.
        number: k, from 1.
        transport: how many first points were kept for optimal transport; 0 if none.
        off: see :class:`scoring.probing.recorder.Recorder`.
    """
    dimension = math.prod(sums.shape)
    stage = joined_stage(
        (number, dimension),
        sums.points,
        torch.stack(sums.steps) / sums.seen,
        None,
        None,
        sums.projected,
    )
    stage = replace(stage, measurable=len(sums.calls) > 1)
    states = _joined(sums.kept) if transport else []
    scatters = [scatter(state[:MOST]) for state in states] if transport else sums.scatters
    found = MeasuredStage(
        blocks=tuple(sums.calls),
        shape=sums.shape,
        kind=", ".join(dict.fromkeys(map(_plain, sums.kinds))),
        points=stage,
        effective_rank=[effective_rank(products) for products in scatters],
        rank_points=min(len(states[0]), MOST) if transport else sums.scattered,
        rounding=_rounding(sums, stage),
        sum_error=[(off or {}).get(call, math.nan) for call in sums.calls],
    )
    if transport and len(states[0]) > 1 and stage.finite:
        found = replace(found, transport=_transport(stage, states))
    return found


def _transport(stage: Stage, states: list[Tensor]) -> dict[str, Any]:
    """OTS, gap and excess of the kept points, and their curve in Wasserstein space."""
    m = len(states[0])
    steps = [_mean_step(x, y) for x, y in pairwise(states)]  # (d,) each
    kept = replace(
        stage,
        score=stage.score[:m],
        inverse_score=stage.inverse_score[:m],
        ratio=stage.ratio[:m],
        shares=stage.shares[:, :m],
        lengths=stage.lengths[:, :m],
        cosines=stage.cosines[:, :m],
        distances=stage.distances[:m],
        drift=np.array([float(step.square().sum()) for step in steps]),
        shift=float(torch.stack(steps).sum(0).square().sum()),
        projected=None,
    )
    start = time.monotonic()
    with full_precision():
        problem = assignment_problem(states[0], states[-1], baseline=True)
        costs = [solve(assignment_problem(x, y)).optimal_cost for x, y in pairwise(states)]
    solved = solve(problem)
    order = np.random.default_rng([SEED, stage.stage]).permutation(m)
    other = shuffled(problem, order)
    row = kept.row()
    columns = track_row(
        row, row, Solved(solved, [], time.monotonic() - start, other and solve(other)), None
    )
    action = Action(
        row["energy"],
        row["drift"],
        solved.network_cost,
        solved.shift,
        solved.optimal_cost,
        collapsed=solved.collapsed,
    )
    curve = curve_from_costs(action, np.array(costs))
    single = len(costs) == 1
    return {name: columns[name] for name in COPIED if name in columns} | {
        "transport_points": m,
        "geodesic_excess": columns["geodesic_excess"],
        "speeds": curve.speeds.tolist(),
        "speed_variation": np.nan if single else curve.speed_variation,
        "length_ratio": np.nan if single else curve.length_ratio,
        "block_factor": curve.block_factor,
        "speed_factor": np.nan if single else curve.speed_factor,
    }


COPIED = (
    "ots",
    "ots_random",
    "ots_shuffled",
    "gap",
    "gap_shuffled",
    "movement",
    "network_cost",
    "optimal_cost",
    "suboptimality",
    "ties",
    "collapsed",
    "transport_factor",
    "transport_share",
    "geodesic_excess_without_drift",
    "transport_factor_without_drift",
)


def _joined(batches: list[list[Tensor]]) -> list[Tensor]:
    """States of all batches, (m, d) each; frees what it joins."""
    filled = [states for states in batches if states]
    batches.clear()
    joined = []
    for _ in range(len(filled[0])):
        state = torch.cat([states.pop(0) for states in filled])
        joined.append(state.float() if state.dtype.itemsize < 4 else state)
    return joined


def _mean_step(x: Tensor, y: Tensor) -> Tensor:
    parts = zip(x.split(4096, 1), y.split(4096, 1), strict=True)
    return torch.cat([(b.double() - a.double()).mean(0) for a, b in parts])


def _rounding(sums: Sums, stage: Stage) -> list[float]:
    """Share of rounding in the mean squared step of each block; warns where it is large.

    A block adds its step exactly, then the new state is rounded.
    """
    weights = [points.score.numel() for points in sums.points]
    if not any(weights):
        return [math.nan] * len(sums.calls)
    squares = np.average(np.stack(sums.rounded), axis=0, weights=weights)[1:]  # (n,)
    energy = np.square(stage.lengths).mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = ROUNDING * squares / energy
    worst = int(np.nan_to_num(share).argmax())
    if share[worst] > DOMINATES:
        warnings.warn(
            f"{sums.calls[worst]}: rounding to {_plain(sums.kinds[worst + 1])} makes up "
            f"about {min(share[worst], 1):.0%} of its mean squared step, so its line shape is "
            "mostly rounding; run the model in float32",
            ProbeWarning,
            stacklevel=2,
        )
    return [value if value == value else math.nan for value in share.tolist()]


def _plain(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
