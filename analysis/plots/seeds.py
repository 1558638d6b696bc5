"""Means over seeds, and how they are drawn with what seeds differ by.

The rule for all figures: of three seeds or more the 95% t-interval, a band along a line or a bar at
a point; of two seeds both of them, thin lines or dots.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.measures.cells import mean_interval, one_of_each_seed

FEW = 2  # The 95% interval of two seeds is 12.7 times as wide as they are apart, so it says little.


def possible(score: str) -> tuple[float, float]:
    """The lowest and the highest value that a score can have."""
    if score.endswith("accuracy") or score in ("ots", "gap"):
        return 0.0, 1.0
    least_one = ("lss", "straightness_factor", "transport_factor", "geodesic_excess")
    return (1.0 if score in least_one else 0.0), np.inf


def averaged(rows: pd.DataFrame, by: list[str], score: str) -> pd.DataFrame:
    """Means over seeds and how far the seeds spread, for :func:`spread` and :func:`bars`.

    Args:
        rows: one for each trial in each group.
        by: columns that make a group.
        score: column to average.

    Returns:
        Frame indexed by ``by`` with the ``mean``, the number of ``seeds``, ``low`` and ``high``.
        These two are the ends of the 95% t-interval of three seeds or more, as far as the score
        can have such values. Of two seeds they are both values, and of one seed NaN. They are also
        NaN, and there are no seeds, where an infinite score leaves no mean.
    """
    rows = one_of_each_seed(rows, by, [score])
    found = mean_interval(rows, by, [score]).astype("float64")
    known = rows.replace([np.inf, -np.inf], np.nan).groupby(by, observed=True, dropna=False)[score]
    mean, half = found[score], found[f"{score}_ci95"]
    seeds, (least, most) = known.count().where(np.isfinite(mean), 0), possible(score)
    two = seeds == FEW
    low = (mean - half).clip(lower=least).mask(two, known.min().astype("float64"))
    high = (mean + half).clip(upper=most).mask(two, known.max().astype("float64"))
    return pd.DataFrame({"mean": mean, "seeds": seeds, "low": low, "high": high})


def known_halves(rows: pd.DataFrame, half: str) -> pd.Series:
    """Half-widths of changes, NaN where there is none or a side has only two seeds.

    Args:
        rows: a table of effects, with the ``seeds`` of one side.
        half: the column of the half-widths.
    """
    sides = [name for name in ("seeds", "untreated_seeds", "seeds_before") if name in rows]
    return rows[half].where(rows[sides].min(axis=1) > FEW)


def changes(change: pd.Series, half: pd.Series) -> pd.DataFrame:
    """Changes from a start, which is 0, as the means of :func:`bars`; half-widths are known."""
    mean = np.array([0.0, *change], "float64")
    half_width = np.array([np.nan, *half], "float64")
    return pd.DataFrame({"mean": mean, "low": mean - half_width, "high": mean + half_width})


def spread(
    axes: Axes, means: pd.DataFrame, rows: pd.DataFrame, x: str, score: str, colour: str
) -> list[Artist]:
    """Draw how far the seeds of a line spread: a band, or each of two seeds as a thin line.

    Args:
        axes: the panel.
        means: from :func:`averaged`, with the column ``x``.
        rows: what was averaged, with the column ``trial``.
        x: column along the axis.
        score: column of the heights.
        colour: of the line.
    """
    if means.seeds.max() == FEW:
        thin = {"color": colour, "linewidth": 0.6, "alpha": 0.7, "label": "_seed"}
        trials = [own.sort_values(x) for _, own in rows.groupby("trial", observed=True)]
        return [line for own in trials for line in axes.plot(own[x], own[score], **thin)]
    ends = means[["low", "high"]].where(means.seeds > FEW)
    if ends.isna().all(axis=None):
        return []
    band = {"color": colour, "alpha": 0.13, "linewidth": 0}
    return [axes.fill_between(means[x].to_numpy("float64"), ends.low, ends.high, **band)]


def bars(axes: Axes, x: Sequence[float], means: pd.DataFrame, look: dict) -> None:
    """Draw a line through means, with bars for their intervals, or a dot for each of two seeds.

    Args:
        axes: the panel.
        x: a place for each mean.
        means: from :func:`averaged` or :func:`changes`.
        look: style of the line.
    """
    axes.plot(x, means["mean"].to_numpy("float64"), **look)
    ends = means[["low", "high"]].to_numpy("float64")
    known = np.isfinite(ends).all(axis=1)
    two = means.seeds.to_numpy() == FEW if "seeds" in means else np.zeros(len(means), dtype=bool)
    tone = {"color": look["color"], "alpha": look.get("alpha"), "label": "_seeds"}
    if (dots := known & two).any():
        across = np.repeat(np.asarray(x)[dots], 2)
        axes.plot(across, ends[dots].ravel(), linestyle="none", marker=".", markersize=4, **tone)
    if (whole := known & ~two).any():
        across = np.repeat(np.asarray(x)[whole], 3)
        heights = np.column_stack([ends[whole], np.full(whole.sum(), np.nan)])
        axes.plot(across, heights.ravel(), marker="_", markersize=5, linewidth=0.9, **tone)


def handles(counts: Sequence[int], of_bars: bool = False) -> list[Artist]:
    """Explain in a legend how seeds are drawn.

    Args:
        counts: numbers of seeds of the lines.
        of_bars: whether :func:`bars` drew them, and not :func:`spread`.
    """
    many = sorted({int(n) for n in counts if n > FEW})
    found: list[Artist] = []
    if many:
        n = f"{many[0]} to {many[-1]}" if len(many) > 1 else f"{many[0]}"
        label = f"95% interval\nof {n} seeds"
        bar = Line2D([], [], color="0.35", linestyle="none", marker="|", markersize=9, label=label)
        found.append(bar if of_bars else Patch(color="0.35", alpha=0.2, label=label))
    if FEW in counts:
        each: dict = {"linestyle": "none", "marker": "."} if of_bars else {"linewidth": 0.6}
        found.append(Line2D([], [], color="0.35", label=f"each of {FEW} seeds", **each))
    if not found and 1 in counts:
        found.append(Line2D([], [], linestyle="none", label="one seed"))
    return found
