"""What the comparisons of a claim say together.

A comparison is *sure* if its p value is below 0.05 after Holm's correction for all comparisons of
its claim. So in a sweep in which nothing differs, a claim has a sure comparison with a probability
of at most 0.05.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.measures.association import holm

SURE = 0.05  # A comparison is sure if its p value, corrected for all of its claim, is below this.
HOLDS, MIXED, UNDECIDED = "holds", "mixed", "undecided"
FAILS, NOT_MEASURED = "does not hold", "not measured"
VERDICTS = (HOLDS, MIXED, UNDECIDED, FAILS, NOT_MEASURED)


class Comparison(NamedTuple):
    """A comparison of the two sides of a claim, in one place of a sweep."""

    where: str
    numbers: str  # of both sides
    agrees: bool  # the means differ in the claimed direction, and by as much as is claimed
    p: float  # two-sided, if the truth were at the edge of the claim; NaN without spread over seeds
    compared: bool = True  # False: no comparison, only a note that the sides cannot be compared
    left_out: frozenset[str] = frozenset()  # collapsed trials that do not count in it


class Verdict(NamedTuple):
    """The verdict on a claim, and the counts behind it."""

    verdict: str  # one of VERDICTS
    comparisons: int
    agree: int  # in the claimed direction, surely or not
    sure: int  # surely in the claimed direction
    against: int  # surely in the other direction


def judge(found: Sequence[Comparison], everywhere: bool = False) -> Verdict:
    """Turn the comparisons of a claim into a verdict.

    Args:
        found: all comparisons of the claim, and notes that something was not compared.
        everywhere: whether the claim is about all places together. It holds only if each
            comparison is sure by itself, and if there is no note. This needs no correction, since
            the claim is wrongly held only if each wrong comparison is (an intersection-union test;
            Berger 1982, Technometrics 24, 295).

    Returns:
        The verdict. A claim holds if at least one comparison surely agrees and none surely
        disagrees (``everywhere``: if all surely agree); it is mixed if both occur; it does not hold
        if some surely disagree and none surely agrees (``everywhere``: if any surely disagrees,
        because one counterexample refutes it); it is undecided if none is sure, as with one seed
        (``everywhere``: also if only some are sure, or if something was not compared); not
        measured without comparisons.

    >>> judge([Comparison("", "", True, 0.01), Comparison("", "", True, 0.3)])
    Verdict(verdict='holds', comparisons=2, agree=2, sure=1, against=0)
    >>> judge([Comparison("", "", True, 0.01), Comparison("", "", True, 0.3)], everywhere=True)
    Verdict(verdict='undecided', comparisons=2, agree=2, sure=1, against=0)
    >>> judge([Comparison("", "", True, 0.01), Comparison("", "", False, 0.01)], everywhere=True)
    Verdict(verdict='does not hold', comparisons=2, agree=1, sure=1, against=1)
    """
    every, found = found, [c for c in found if c.compared]
    agrees = np.array([c.agrees for c in found], "bool")
    p = np.array([c.p for c in found], "float64")
    corrected = holm(p) < SURE
    sure, against = int((corrected & agrees).sum()), int((corrected & ~agrees).sum())
    if everywhere and (agrees & (p < SURE)).all():
        sure = len(found)
    if not found:
        verdict = NOT_MEASURED
    elif against:
        verdict = MIXED if sure and not everywhere else FAILS
    else:
        verdict = HOLDS if sure == len(every) or (sure and not everywhere) else UNDECIDED
    return Verdict(verdict, len(found), int(agrees.sum()), sure, against)
