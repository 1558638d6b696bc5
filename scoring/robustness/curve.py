"""The curve of measures of a trained network, next to the same network before training."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from scoring.problems import CURVE, INITIAL, Place, Problem, assignment_problem
from scoring.robustness.subject import Subject, evaluating, joined


def curve(
    subject: Subject, points: int = 1000, seed: int = 0, threads: int | None = None
) -> list[dict[str, Any]]:
    """The curve of measures of every stage: its speed, its length, the map of each block.

    Args:
        subject: the network and its points; rows of the network before training need its
            ``untrained``.
        points: use at most this many points, the first ones.
        seed: of the shuffled baseline.
        threads: to solve with; all cores if None.

    Returns:
        The rows of :func:`scoring.curve.curve_rows`.
    """
    from scoring.curve import curve_rows  # loads numba

    return curve_rows(curve_problems(subject, points), seed, threads)


def curve_problems(subject: Subject, points: int) -> Iterator[tuple[Place, Problem]]:
    """The assignment problems along the curves of a network, and of the same one before training.

    Args:
        subject: the network and its points.
        points: use at most this many points, the first ones.

    Yields:
        For each stage its blocks, then the whole stage. That one is solved from its end to its
        start: W2, OTS and gap are the same, and the products of its inputs are then those of
        x^(n), which the last block needs.

    Raises:
        ValueError: there are fewer than two points, or a state is not finite.

    Memory: four states of all points, and 1.5 (m, m) matrices or two states more.
    """
    few = replace(subject, images=subject.images[:points], labels=subject.labels[:points])
    walked = {CURVE: few}
    if few.untrained is not None:
        walked[INITIAL] = replace(few, network=few.untrained())
    for evaluation, one in walked.items():
        with evaluating(one.network):
            walks = [one.walk(pixels) for _, pixels, _ in one.parts()]
            for stage, states in groupby(joined(walks), itemgetter(0)):
                _, first = next(states)
                before = first
                for block, (_, state) in enumerate(states, 1):
                    problem = assignment_problem(before, state, baseline=True)
                    yield Place(evaluation, stage, block), problem
                    before = state
                yield Place(evaluation, stage, 0), assignment_problem(before, first, baseline=True)
