"""Axes: their bounds, ticks and tick labels."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogFormatterSciNotation, MaxNLocator, NullLocator

TICKS = [1, 1.2, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 300, 1000, 10_000]
FAR = 20  # An axis of LSS is logarithmic if its values differ by more than this factor.
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def limit(axes: Axes, seen: Iterable[float], log: bool) -> None:
    """Set the bounds of an LSS axis around means, their intervals and baselines."""
    low, high = _ends(seen, [1.0, 2.0])
    if not log and high < FAR * low:
        low, high = _around(low, high, (axes.dataLim.y0, axes.dataLim.y1), 0.5)
        axes.set_ylim(max(low, 0), high)
        return
    axes.set_yscale("log")
    _, top = _around(np.log(low), np.log(high), _logs(axes), 0.5)
    axes.set_ylim(min(low / 1.12, 1.0), max(np.exp(top), 1.5))
    apart = (np.log(axes.get_ylim()[1]) - np.log(axes.get_ylim()[0])) / 9
    ticks = [1.0]
    ticks += [t for t in TICKS if np.log(t / ticks[-1]) > apart]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def logarithmic(axes: Axes, seen: Iterable[float]) -> None:
    """A logarithmic y axis around positive numbers of any size, with four ticks."""
    low, high = _ends(seen, [1.0, 10.0])
    axes.set_yscale("log")
    low, high = np.exp(_around(np.log(low), np.log(high), _logs(axes), 1.0))
    axes.set_ylim(low, high)
    ticks = sorted({float(f"{tick:.2g}") for tick in np.geomspace(low, high, 6)[1:-1]})
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def is_near_one(seen: Iterable[float]) -> bool:
    """Whether an axis that includes 1 leaves at least half of its length to these heights."""
    low, high = _ends(seen, [1.0, 2.0])
    return low - 1 <= max(high - low, 0.5) or high >= FAR * low


def _ends(seen: Iterable[float], default: list[float]) -> tuple[float, float]:
    """The least and the greatest of some heights that are positive and finite."""
    values = [v for v in seen if np.isfinite(v) and v > 0] or default
    return min(values), max(values)


def _logs(axes: Axes) -> tuple[float, float]:
    """Logarithms of the least and the greatest height that is drawn.

    An interval that reaches 0 has no end that fits, so it leaves the panel.
    """
    low, high = axes.dataLim.y0, axes.dataLim.y1
    return np.log(low) if low > 0 else np.inf, np.log(high) if high > 0 else -np.inf


def _around(
    low: float, high: float, drawn: tuple[float, float], least: float
) -> tuple[float, float]:
    """Bounds around means and all that is drawn, which leave at least a third to the means."""
    span = max(high - low, least)
    bottom = min(low - 0.08 * span, max(drawn[0] - 0.03 * span, low - span))
    return bottom, max(high + 0.08 * span, min(drawn[1] + 0.03 * span, high + span))


def from_zero(axes: Axes, seen: Iterable[float]) -> None:
    """A y axis from 0 to above all means; a band that reaches twice as high leaves the panel."""
    top = max((v for v in seen if np.isfinite(v)), default=0.0)
    axes.set_ylim(0, max(1.12 * top, min(1.03 * axes.dataLim.y1, 2 * top)) if top > 0 else 1)


def around_zero(axes: Axes, ends: Iterable[float]) -> None:
    """Set the bounds of an axis of changes around 0 and the ends of their intervals."""
    values = [v for v in ends if np.isfinite(v)]
    low, high = min([0.0, *values]), max([0.0, *values])
    space = 0.08 * max(high - low, 0.01)
    axes.set_ylim(low - space, high + space)


def whole_axis(axes: Axes, first: float, last: float, pad: float = 0.02) -> None:
    """An x axis of whole numbers (epochs, stages, trials) that ends at the last of them."""
    last = max(last, first + 1) if np.isfinite(last) else first + 1
    space = pad * (last - first)
    ticks = MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]).tick_values(first, last)
    axes.set_xticks([tick for tick in ticks if first <= tick <= last])
    axes.set_xlim(first - space, last + space)


def points_axis(axes: Axes, m: list[int]) -> None:
    """A logarithmic x axis of numbers of points, with a tick at each."""
    axes.set_xscale("log")
    axes.set_xlim(m[0] / 1.25, m[-1] * 1.25)
    axes.xaxis.set_major_locator(FixedLocator(m))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())


def limit_share(axes: Axes, seen: Iterable[float], to: int) -> None:
    """Set the bounds of a y axis of numbers in [0, 1] so that it includes ``to``, 0 or 1.

    A band that reaches twice as far from there as the means leaves the panel.
    """
    far = max((abs(v - to) for v in seen if np.isfinite(v)), default=0.0)
    drawn = max(abs(y - to) for y in (axes.dataLim.y0, axes.dataLim.y1))
    span = max(far, min(drawn, 2 * far), 0.02)
    if to == 0:
        axes.set_ylim(-0.05 * span, 1.08 * span)
    else:
        axes.set_ylim(1 - 1.08 * span, 1 + 0.05 * span)


def rate_axis(axes: Axes, rates: Sequence[float], first: float, pad: float) -> None:
    """A logarithmic x axis around rates, with a factor beside them, and ticks from the first on."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(Powers())
    axes.xaxis.set_minor_formatter(Powers())
    if not rates:
        return
    axes.set_xlim(min(rates) / pad, max(rates) * pad)
    for minor in (False, True):
        ticks = axes.get_xticks(minor=minor)  # some are beyond the axis, and would extend it
        axes.set_xticks(ticks[(ticks >= first) & (ticks <= max(rates) * pad)], minor=minor)


def gamma_axis(axes: Axes, gammas: Sequence[float], log: bool = False) -> None:
    """An x axis of gammas: evenly spaced with a tick at each, or on a logarithmic scale."""
    known = [gamma for gamma in gammas if gamma > 0] or [1.0]
    if log:
        axes.set_xscale("symlog", linthresh=min(known))
        axes.xaxis.set_major_formatter(Powers())
        axes.set_xlim(-0.3 * min(known) if 0 in gammas else min(known) / 1.2, 1.5 * max(known))
        return
    axes.set_xticks(range(len(gammas)), [_short(gamma) for gamma in gammas])
    axes.set_xlim(-0.4, len(gammas) - 0.6)


def _short(number: float) -> str:
    """A number in few characters.

    >>> [_short(number) for number in (0, 0.01, 0.0005, 0.00528)]
    ['0', '0.01', '5e-4', '5.3e-3']
    """
    text = f"{number:g}"
    return text if len(text) < 5 else f"{number:.1e}".replace(".0e", "e").replace("e-0", "e-")


class Powers(LogFormatterSciNotation):
    """Tick labels of a logarithmic axis as plain text (10⁻³), where matplotlib writes formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of a tick; empty where matplotlib would leave it out."""
        formula = super().__call__(x, pos)
        number = formula.removeprefix(r"$\mathdefault{").removesuffix("}$")
        number, _, power = number.replace(r"\times", "×").partition("^{")
        return number.replace("-", "−") + power.removesuffix("}").translate(SUPERSCRIPTS)
