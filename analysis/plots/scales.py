"""Axes: their bounds, ticks and tick labels."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogFormatterSciNotation, MaxNLocator, NullLocator

TICKS = [1, 1.2, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 300, 1000, 10_000]
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def limit(axes: Axes, seen: Iterable[float], log: bool) -> None:
    """Set the bounds of an LSS axis around means and baselines.

    A very wide interval may leave the panel.
    """
    values = np.array([v for v in seen if np.isfinite(v) and v > 0] or [1.0, 2.0])
    low, high = values.min(), values.max()
    if not log and high < 20 * low:
        bounds, span = axes.dataLim, max(high - low, 0.5)  # the bounds include the intervals
        low = max(min(low - 0.08 * span, bounds.y0), low - 0.4 * span, 0)
        high = min(max(high + 0.08 * span, bounds.y1), high + 0.4 * span)
        axes.set_ylim(low, high)
        return
    axes.set_yscale("log")
    axes.set_ylim(min(low / 1.12, 1.0), max(high * 1.12, 1.5))
    apart = (np.log(axes.get_ylim()[1]) - np.log(axes.get_ylim()[0])) / 9
    ticks = [1.0]
    ticks += [t for t in TICKS if np.log(t / ticks[-1]) > apart]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def logarithmic(axes: Axes, seen: Iterable[float]) -> None:
    """A logarithmic y axis around positive numbers of any size, with four ticks."""
    values = np.array([v for v in seen if np.isfinite(v) and v > 0] or [1.0, 10.0])
    low, high = values.min() / 1.1, values.max() * 1.1
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    ticks = sorted({float(f"{tick:.2g}") for tick in np.geomspace(low, high, 6)[1:-1]})
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


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
    """Set the bounds of a y axis of numbers in [0, 1] so that it includes ``to``, 0 or 1."""
    far = max((abs(v - to) for v in seen if np.isfinite(v)), default=0.0)
    span = max(far, 0.02)
    if to == 0:
        axes.set_ylim(-0.05 * span, 1.08 * span)
    else:
        axes.set_ylim(1 - 1.08 * span, 1 + 0.05 * span)


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
