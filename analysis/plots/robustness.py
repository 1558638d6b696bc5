"""Networks under lesions, noise and attacks: the forms of the paper's Figs 7 and 8, and Fig. 1E.

Plain network against ResNet at up to four gammas. Each has its own null, what it does when
nothing is done to it; the dashed line is chance.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.measures import cells
from analysis.measures.cells import mean_interval
from analysis.measures.layout import network_name
from analysis.measures.robustness import COLUMNS, at_the_end
from analysis.plots import panels, style
from analysis.results import Results
from scoring.schemas import CONFIG

PAPER = [5e-4, 1e-3, 5e-3, 1e-2]  # gammas to show where they are there
ACROSS = 4  # of them, at most
TESTED = {
    "noise": ("random noise", "σ (pixel values)"),
    "fgsm": ("FGSM", "ε (pixel values)"),
    "pgd": ("PGD", "ε (pixel values)"),
}
PAIRS = {"separation": "all pairs", "separation_different": "pairs of two classes"}
NOTHING = "no trial that is done was evaluated"
ACCURACY = "test accuracy (fraction{})"


def measured(results: Results, names: Sequence[str]) -> bool:
    """Whether a trial that is done has a number of any of these evaluations."""
    rows = _rows(results, names)
    return bool(np.isfinite(rows[["accuracy", "mixed"]]).any(axis=None))


def accuracy_against_units(results: Results) -> Figure:
    """Test accuracy against the share of eliminated units of a block, in the form of Fig. 7.

    Args:
        results: of :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a row per dataset, K, stage and block, a column per gamma (up to four), a
        line per network: the mean over seeds, with the 95% t-interval as a band where there are
        several. Nulls: accuracy with no unit eliminated (dotted, in the network's colour), and
        chance (dashed).
    """
    rows = _rows(results, ["lesion"])
    if not len(rows):
        return style.nothing(NOTHING)
    places, by = _places(rows, "stage", "block")
    figure, grid = _sheet(places, rows)
    for axes, key, here in _panels(grid, places, rows):
        _lines(axes, here, "level", "accuracy")
        _nulls(axes, here[here.level == 0], "accuracy")
        _accuracy_axis(axes, here)
        axes.set_xlabel(f"share of {_units(here, key)} eliminated" * panels.is_lowest(axes))
        _name(axes, key, by, f"stage {key['stage']:.0f}, block {key['block']:.0f}")
    _legend(figure, rows, "nothing eliminated")
    return figure


def accuracy_without_blocks(results: Results) -> Figure:
    """Test accuracy without each block in turn, and with neighbouring blocks exchanged.

    Args:
        results: of :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with two rows per dataset and K: above without block l, below with blocks l and
        l + 1 exchanged, stage after stage; a column per gamma, a line per network and stage,
        means, bands and nulls as in :func:`accuracy_against_units`.
    """
    every = _rows(results, ["skip", "swap", "lesion"])
    whole = every[(every.evaluation == "lesion") & (every.level == 0)]
    rows = every[every.evaluation != "lesion"]
    if not len(rows):
        return style.nothing(NOTHING)
    places, by = _places(rows, "evaluation")
    figure, grid = _sheet(places, rows)
    for axes, key, here in _panels(grid, places, rows):
        last = here.groupby("stage").block.max() + (key["evaluation"] == "swap")
        start = last.cumsum() - last + 0.6 * (last.index - 1)  # blocks of earlier stages, a gap
        here = here.assign(x=here.block + here.stage.map(start))
        for _, own in here.groupby("stage"):
            _lines(axes, own, "x", "accuracy")
        network = {n: v for n, v in key.items() if n != "evaluation"}
        _nulls(axes, panels.at(whole, network), "accuracy")
        _accuracy_axis(axes, here)
        ticks = here.drop_duplicates("x").sort_values("x")
        axes.set_xticks(ticks.x.tolist(), [f"{l:.0f}" for l in ticks.block], fontsize=7)  # noqa: E741
        axes.set_xlim(ticks.x.min() - 0.4, ticks.x.max() + 0.4)
        skip = key["evaluation"] == "skip"
        of = " of each stage" * bool(rows.stages.max() > 1)
        axes.set_xlabel(f"block l{of}" * panels.is_lowest(axes))
        _name(axes, key, by, "without block l" if skip else "blocks l, l + 1 exchanged")
    _legend(figure, rows, "the network\nas it is")
    return figure


def accuracy_against_noise(results: Results) -> Figure:
    """Accuracy and variation rate against the level of noise and attacks: the form of Fig. 8.

    Args:
        results: of :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a row per dataset, K and gamma (up to four), a column of accuracy and one of
        the variation rate at l = n of the last stage for each of random noise, FGSM and PGD that
        was measured; lines, bands and nulls as in :func:`accuracy_against_units`. In panels of
        the variation rate the dotted line is that of x^(0) of the first stage: what the blocks
        are given.
    """
    rows = _rows(results, list(TESTED))
    if not len(rows):
        return style.nothing(NOTHING)
    first = rows[(rows.stage == 1) & (rows.block == 0)]
    ends = at_the_end(rows)
    places, by = _places(rows)
    keys = [place | {"gamma": gamma} for place in places for gamma in _gammas(rows, place)]
    names = [name for name in TESTED if (rows.evaluation == name).any()]
    figure, grid = style.sheet(
        len(keys), 2 * len(names), (2.5 if len(names) == 1 else 1.27, 1.6),
        gaps=(0.78, 0.75), beside=0.3, top=0.52, below=0.5,
    )  # fmt: skip
    for i, key in enumerate(keys):
        for j, name in enumerate(names):
            one = key | {"evaluation": name}
            title, label = TESTED[name]
            upper, lower = grid[i, j], grid[i, len(names) + j]
            accuracy = panels.at(rows, one).dropna(subset="accuracy")
            _lines(upper, accuracy, "level", "accuracy")
            _nulls(upper, accuracy[accuracy.level == 0], "accuracy")
            _accuracy_axis(upper, accuracy, named=j == 0)
            _lines(lower, panels.at(ends, one), "level", "variation_rate")
            for network, own in panels.at(first, one).groupby("network"):
                rates = own.groupby("level").variation_rate.mean()
                lower.plot(rates.index, rates, label="x⁽⁰⁾", **_null(str(network)))
            _from_zero(lower)
            lower.set_ylabel("variation rate at l = n" * (j == 0))
            for axes in (upper, lower):
                style.title(axes, title)
                axes.set_xlabel(label * panels.is_lowest(axes))
        row = f"{_cell(key, by)}\n{grid[i, 0].get_title()}"  # wider than its panel
        grid[i, 0].set_title("")
        grid[i, 0].set_title(row, fontsize=9, loc="left", y=1)
    handles = _handles(rows, "no noise; right: the first stage's input")
    figure.legend(handles=handles, loc="lower center", ncols=4, fontsize=8.5, frameon=False)
    return figure


def mixed_by_distance(results: Results) -> Figure:
    """Share of pairs that noise mixes up, by the distance of their tracks (section 4.2, Fig. 1E).

    Args:
        results: of :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with two rows per dataset, K and stage, all pairs and those of two classes, a
        column per gamma; the x axis has tenths of the pairs, the closest first. Lines and bands
        as in :func:`accuracy_against_units`. Null: the share of all of these pairs (dotted, in
        the network's colour), which every tenth would have were distance of no importance.
    """
    rows = _rows(results, list(PAIRS)).dropna(subset="mixed")
    if not len(rows):
        return style.nothing(NOTHING)
    places, by = _places(rows, "stage", "evaluation")
    figure, grid = _sheet(places, rows)
    for axes, key, here in _panels(grid, places, rows):
        _lines(axes, here[here.level > 0], "level", "mixed")
        _nulls(axes, here[here.level == 0], "mixed")
        _from_zero(axes)
        style.whole_axis(axes, 1, 10, pad=0.05)
        axes.set_xticks([1, 4, 7, 10])
        axes.set_ylabel(f"mixed up (fraction{_points(here)})" * _is_first(axes))
        axes.set_xlabel("tenth of pairs, closest tracks first" * panels.is_lowest(axes))
        stage = f"stage {key['stage']:.0f}, " * (key["stages"] > 1)
        _name(axes, key, by, stage + PAIRS[key["evaluation"]])
    _legend(figure, rows, "all of these pairs", chance=False)
    return figure


def _rows(results: Results, names: Sequence[str]) -> pd.DataFrame:
    """Rows of some evaluations of trials that are done, with what says which panel they are in."""
    done = cells.done(results)
    config = [field.name for field in CONFIG]
    columns = list(dict.fromkeys([*panels.key_columns(done), *config, "classes", "shapes"]))
    rows = results.robustness[COLUMNS].astype({"trial": "str", "evaluation": "str"})
    rows = rows[rows.evaluation.isin(names)].replace([np.inf, -np.inf], np.nan)
    return rows.merge(done[columns], on="trial")


def _places(rows: pd.DataFrame, *more: str) -> tuple[list[dict], list[str]]:
    """What makes a row of panels, and other settings that vary."""
    columns, _ = panels.rows_of(rows)
    by = [*columns, *more]
    return rows[by].drop_duplicates().sort_values(by).to_dict("records"), columns[3:]


def _gammas(rows: pd.DataFrame, place: dict) -> list[float]:
    """Up to four gammas of a row of panels: of those that the most networks have."""
    networks = panels.at(rows, place).groupby("gamma").network.nunique()
    return panels.chosen(sorted(networks.index[networks == networks.max()]), PAPER, ACROSS)


def _sheet(places: list[dict], rows: pd.DataFrame) -> tuple[Figure, np.ndarray]:
    across = max(len(_gammas(rows, place)) for place in places)
    height = 2.2 if len(places) == 1 else 1.7
    return style.sheet(
        len(places), across, (3.4 if across == 1 else 2.0, height),
        gaps=(0.4, 0.7), beside=1.6, top=0.55,
    )  # fmt: skip


def _panels(
    grid: np.ndarray, places: list[dict], rows: pd.DataFrame
) -> Iterator[tuple[Axes, dict, pd.DataFrame]]:
    """Each panel that has rows, what selects them, and them; the others are hidden."""
    for place, line in zip(places, grid, strict=True):
        gammas = _gammas(rows, place)
        for axes in line[len(gammas) :]:
            axes.set_visible(False)
        for axes, gamma in zip(line, gammas, strict=False):
            key = place | {"gamma": gamma}
            yield axes, key, panels.at(rows, key)


def _null(network: str) -> dict[str, Any]:
    colour = style.COLOURS.get(network, "0.2")
    return {"color": colour, "linestyle": ":", "linewidth": 1.2, "zorder": 1.6}


def _lines(axes: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
    """A line per network: means over seeds, with their intervals as bands."""
    for network, own in rows.groupby("network"):
        means = mean_interval(own, [x], [y])
        along, height = means.index.to_numpy("float64"), means[y].to_numpy("float64")
        half = means[f"{y}_ci95"].to_numpy("float64")
        look = style.line_style(str(network), int(own.stages.iloc[0]))
        axes.plot(along, height, label=network_name(network), **look)
        band: Any = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
        axes.fill_between(along, height - half, height + half, **band)


def _nulls(axes: Axes, rows: pd.DataFrame, y: str) -> None:
    """The mean of each network when nothing is done to it, dotted."""
    for network, own in rows.groupby("network"):
        if np.isfinite(mean := own[y].mean()):
            axes.axhline(mean, label="null", **_null(str(network)))


def _accuracy_axis(axes: Axes, rows: pd.DataFrame, named: bool | None = None) -> None:
    """An axis from 0 to 1, with chance (dashed)."""
    for classes in rows.classes.dropna().unique():
        axes.axhline(1 / classes, linestyle="--", label="chance", **style.BASELINE)
    axes.set_ylim(-0.03, 1.03)
    show = _is_first(axes) if named is None else named
    axes.set_ylabel(ACCURACY.format(_points(rows)) * show)
    axes.tick_params(labelleft=show)


def _from_zero(axes: Axes) -> None:
    """An axis from 0 to a little above all lines: a very wide band may leave the panel."""
    heights = [np.max(y) for line in axes.lines if len(y := _finite(line.get_ydata()))]
    top = max(heights, default=0)
    axes.set_ylim(0, 1.12 * top if top > 0 else 1)


def _finite(values: Any) -> np.ndarray:
    values = np.asarray(values, "float64")
    return values[np.isfinite(values)]


def _points(rows: pd.DataFrame) -> str:
    """The numbers of points that were tried, as an axis says them."""
    m = [f"{points:,.0f}" for points in sorted(rows.m.dropna().unique())]
    return f", m = {' or '.join(m[:2])}{', …' * (len(m) > 2)}" if m else ""


def _units(rows: pd.DataFrame, key: dict) -> str:
    """How many units a state has, if it is known: "the 1,000 units"."""
    known = rows.shapes.dropna()
    shapes = str(known.iloc[0]).split(", ") if len(known) else []
    place = int(key["stage"]) - 1
    if place >= len(shapes):
        return "units"
    return f"the {np.prod([int(n) for n in shapes[place].split(' x ')]):,} units"


def _cell(key: dict, by: list[str]) -> str:
    others = [f"{n.replace('_', ' ')} {key[n]}" for n in by]
    gamma = f"γ = {key['gamma']:.4g}"
    return ", ".join([panels.data_name(key["dataset"]), f"K = {key['stages']}", *others, gamma])


def _name(axes: Axes, key: dict, by: list[str], what: str) -> None:
    """Title of a panel: its gamma; of the first of a row, what the row is as well."""
    title = f"{_cell(key, by)}\n{what}" if _is_first(axes) else f"γ = {key['gamma']:.4g}"
    style.title(axes, title)


def _is_first(axes: Axes) -> bool:
    """Whether a panel is in the first column, where the axis of y is named."""
    place = axes.get_subplotspec()
    return place is not None and place.is_first_col()


def _legend(figure: Figure, rows: pd.DataFrame, null: str, chance: bool = True) -> None:
    style.legend(figure, _handles(rows, null, chance))


def _handles(rows: pd.DataFrame, null: str, chance: bool = True) -> list[Line2D]:
    """What a legend shows: a line for each network and K, and the nulls."""
    handles = []
    kinds = rows[["network", "stages"]].drop_duplicates().sort_values(["network", "stages"])
    for key in kinds.to_dict("records"):
        label = panels.name(key, [])
        look = style.line_style(key["network"], key["stages"])
        handles.append(Line2D([], [], label=label, **look))
    grey: Any = {"color": "0.35", "linewidth": 1.2}
    handles.append(Line2D([], [], linestyle=":", label=null, **grey))
    return handles + [Line2D([], [], linestyle="--", label="chance", **grey)] * chance
