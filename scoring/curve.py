"""The curve of measures of every stage, from the assignment problems along it.

The states x^(l) of m points are a measure mu_l. A stage of n blocks moves it along the curve mu_0,
..., mu_n, which is what the paper's claim is about. Each block is an assignment problem, and so is
the way from one end of the stage to the other. This module solves them; it loads no torch. What
the numbers mean is in :class:`scoring.excess.WassersteinCurve`.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from scoring.arrays import on_cpu
from scoring.excess import Action, curve_from_costs
from scoring.problems import CURVE, Place, Problem
from scoring.shuffled import shuffled
from scoring.transport import Transport, solve

SHUFFLED = "curve_shuffled"  # name in the tables


def curve_rows(
    problems: Iterable[tuple[Place, Problem]], seed: int = 0, threads: int | None = None
) -> list[dict[str, Any]]:
    """Solve the problems of every stage, and return rows of the robustness table.

    Args:
        problems: of each stage the blocks in order, then the whole stage, made with ``baseline``
            as :func:`scoring.robustness.curve.curve_problems` does. One is read at a time.
        seed: of the permutations that shuffle displacements between points.
        threads: to solve with; all cores if None.

    Returns:
        For each stage a row for each block and one with ``block`` None, named ``curve`` for the
        trained network and ``curve_initial`` before training. A block has ``speed``, W2 between
        its two measures, in the units of the states; ``energy``, its mean squared step; ``ots``
        and ``gap`` of its map; and ``polar_share``: the mean of |x_i^(l) - x_sigma(i)^(l)|^2, the
        part of a step that its optimal matching avoids (eq. 15), over ``energy``, from 0 to 4. A
        stage has the same columns for the whole (``energy`` and ``polar_share`` from sums over
        blocks, ``polar_share`` without collapsed ones) and the fields of
        :class:`scoring.excess.WassersteinCurve`, with ``geodesic_excess = block_factor *
        speed_factor * length_ratio**2``. Rows ``curve_shuffled`` are a baseline of single blocks:
        the trained network's displacements, each given to another point. NaN where a block or
        stage has collapsed, except for speeds and energies.
    """
    rows: list[dict[str, Any]] = []
    for (evaluation, stage), group in groupby(problems, lambda one: one[0][:2]):
        blocks: list[Transport] = []
        others: list[Transport] = []  # of shuffled displacements
        polar: list[float] = []
        whole: Transport | None = None
        for place, problem in group:
            if blocks:  # the inputs of this problem are the outputs of the block before it
                polar.append(float(_apart(problem, blocks[-1].permutation).mean()))
            if place.block == 0:
                whole = solve(problem, threads)
                continue
            blocks.append(solve(problem, threads))
            if evaluation == CURVE:
                order = np.random.default_rng([seed, *place[1:]]).permutation(blocks[-1].m)
                other = shuffled(problem, order)
                assert other is not None  # problems with ``baseline`` hold all arrays for this
                others.append(solve(other, threads))
        assert whole is not None
        rows += _rows(evaluation, stage, blocks, whole, polar)
        rows += _shuffled_rows(stage, others) if others else []
    return rows


def _rows(
    evaluation: str, stage: int, blocks: list[Transport], whole: Transport, polar: list[float]
) -> Iterator[dict[str, Any]]:
    """Rows of a stage: one for each block, and one for the whole."""
    energy = [block.network_cost for block in blocks]
    for place, (block, lost) in enumerate(zip(blocks, polar, strict=True), 1):
        share = math.nan if block.collapsed else _share(lost, block.network_cost)
        yield _row(evaluation, stage, place, block, energy[place - 1]) | {"polar_share": share}
    action = Action(
        energy,
        [math.nan] * len(energy),
        whole.network_cost,
        whole.shift,
        whole.optimal_cost,
        collapsed=whole.collapsed,
    )
    curve = curve_from_costs(action, np.array([block.optimal_cost for block in blocks]))
    found = {
        "polar_share": math.nan if whole.collapsed else _polar_share(blocks, polar),
        "length_ratio": curve.length_ratio,
        "speed_variation": curve.speed_variation,
        "block_factor": curve.block_factor,
        "speed_factor": curve.speed_factor,
        "geodesic_excess": curve.excess,
    }
    yield _row(evaluation, stage, None, whole, math.fsum(energy)) | found


def _polar_share(blocks: list[Transport], polar: list[float]) -> float:
    """The polar share of the blocks that have not collapsed; NaN if all have.

    A collapsed block has no share: its matchings all cost the same, so any part could be polar.
    """
    known = [(b.network_cost, p) for b, p in zip(blocks, polar, strict=True) if not b.collapsed]
    return _share(math.fsum(p for _, p in known), math.fsum(cost for cost, _ in known))


def _shuffled_rows(stage: int, blocks: list[Transport]) -> Iterator[dict[str, Any]]:
    energy = [block.network_cost for block in blocks]
    for place, block in enumerate(blocks, 1):
        yield _row(SHUFFLED, stage, place, block, block.network_cost)
    costs = [block.optimal_cost for block in blocks]
    yield {
        **_nothing(SHUFFLED, stage, None, blocks[0].m),
        "energy": math.fsum(energy),
        "block_factor": _share(math.fsum(energy), math.fsum(costs)),
    }


def _row(
    evaluation: str, stage: int, block: int | None, solved: Transport, energy: float
) -> dict[str, Any]:
    return _nothing(evaluation, stage, block, solved.m) | {
        "speed": math.sqrt(solved.optimal_cost),
        "energy": energy,
        "ots": solved.ots,
        "gap": solved.gap,
    }


def _nothing(evaluation: str, stage: int, block: int | None, m: int) -> dict[str, Any]:
    """A row without results of this evaluation; columns of other evaluations are None."""
    others = dict.fromkeys(("level", "accuracy", "loss", "variation_rate", "mixed", "distance"))
    return {"evaluation": evaluation, "stage": stage, "block": block, "unit": "", "m": m} | others


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def _apart(problem: Problem, sigma: np.ndarray) -> np.ndarray:
    """|x_i - x_sigma(i)|^2 of the inputs of a problem, (m,) float64; 0 where sigma(i) = i."""
    if problem.x is not None:
        x = on_cpu(problem.x)
        squares = np.square(x.astype(np.float64) - x[sigma].astype(np.float64)).sum(1)
    else:
        here, gram = np.arange(len(sigma)), problem.gram
        own = gram[_index(here, here)].astype(np.float64)
        squares = own + own[sigma] - 2 * gram[_index(here, sigma)].astype(np.float64)
    with np.errstate(over="ignore"):
        size = float(problem.unit) * float(problem.relative)  # undoes the scaling of x
        return np.maximum(squares, 0.0) * size / float(problem.scale) / float(problem.scale)


def _index(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Places of (i, j) in a symmetric matrix (m, m) whose rows begin at the diagonal."""
    low, high, m = np.minimum(i, j), np.maximum(i, j), len(i)
    return low * m - low * (low - 1) // 2 + high - low
