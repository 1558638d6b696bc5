"""Networks under lesions, noise and attacks: the forms of the paper's Figs 7 and 8, and Fig. 1E.

Plain network against ResNet at up to four gammas. The baseline of each network (dotted) is its
value when it is left as it is; the dashed line is chance.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.measures import cells
from analysis.measures.layout import network_name
from analysis.measures.robustness import COLUMNS, FEW, UNITS, at_the_end, lesions, settings_of
from analysis.plots import panels, scales, seeds, style
from analysis.results import Results

TESTED = {
    "noise": ("random noise", "σ (pixel values)"),
    "fgsm": ("FGSM", "ε (pixel values)"),
    "pgd": ("PGD", "ε (pixel values)"),
}
PAIRS = {"mixed": "any ends", "mixed_matched": "equally distant ends"}  # of two classes
INSTEAD = {"previous": "previous state", "mean": "means"}
OF = {  # evaluations with the settings of another one
    **dict.fromkeys(("skip", "swap"), "lesion"),
    **dict.fromkeys(("separation_same", "separation_different"), "separation"),
}
RANDOM: dict[str, Any] = {"linestyle": "-.", "marker": "", "linewidth": 1.2}
NOTHING = "no trial that is done was evaluated"


def measured(results: Results, names: Sequence[str]) -> bool:
    """Whether a trial that is done has a result of any of these evaluations."""
    rows = _rows(results, names)
    return bool(np.isfinite(rows[["accuracy", "mixed"]]).any(axis=None))


def accuracy_against_units(results: Results) -> Figure:
    """Test accuracy against the share of eliminated units of a block, in the form of Fig. 7.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a row per dataset, K, stage, block and replacement, a column per gamma (up to
        four), and a line per network and choice of units: the most active ones with markers,
        random ones without. A line is the mean over seeds, which are drawn as in
        :mod:`analysis.plots.seeds`. Baselines: accuracy with no unit eliminated (dotted, a dark
        shade of the network's colour), and chance (dashed).
    """
    rows = lesions(_rows(results, ["lesion"]))
    if not len(rows):
        return style.nothing(NOTHING)
    rows, shown = _fitting(rows)
    places = panels.rows_of(rows, shown.extra, "stage", "block", "replacement")
    figure, grid = _sheet(places, rows, shown)
    for axes, key, here in _panels(grid, places, rows):
        top, random = (here[here.units == name] for name in UNITS)
        _lines(axes, top, "level", "accuracy")
        _lines(axes, random, "level", "accuracy", ", random units", **RANDOM)
        _baselines(axes, here[here.level == 0])
        _accuracy_axis(axes, here)
        panels.name_lowest(axes, f"share of {_units(here, key)} eliminated")
        stage = f"stage {key['stage']:.0f}, " if key["stages"] > 1 else ""
        instead = INSTEAD[str(key["replacement"])]
        _name(axes, key, shown.extra, f"{stage}block {key['block']:.0f}, {instead}")
    handles = _handles(rows, ["accuracy"], "nothing eliminated")
    if rows.units.nunique() > 1:
        handles.append(Line2D([], [], color="0.35", label="random units", **RANDOM))
    style.legend(figure, handles)
    return figure


def accuracy_without_blocks(results: Results) -> Figure:
    """Test accuracy without each block in turn, and with neighbouring blocks exchanged.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with two rows per dataset and K: above without block l, below with blocks l and
        l + 1 exchanged, stage after stage. Columns are gammas, and there is a line per network
        and stage; means, bands and baselines are as in :func:`accuracy_against_units`.
    """
    every = _rows(results, ["skip", "swap", "lesion"])
    whole = every[(every.evaluation == "lesion") & (every.level == 0)]
    rows = every[every.evaluation != "lesion"]
    if not len(rows):
        return style.nothing(NOTHING)
    rows, shown = _fitting(rows)
    whole = whole[whole.trial.isin(rows.trial)]
    places = panels.rows_of(rows, shown.extra, "evaluation")
    figure, grid = _sheet(places, rows, shown)
    for axes, key, here in _panels(grid, places, rows):
        last = here.groupby("stage").block.max() + (key["evaluation"] == "swap")
        gap = 0.6 * (last.index - 1)  # between stages
        start = last.cumsum() - last + gap
        here = here.assign(x=here.block + here.stage.map(start))
        for _, own in here.groupby("stage"):
            _lines(axes, own, "x", "accuracy")
        network = {n: v for n, v in key.items() if n != "evaluation"}
        _baselines(axes, panels.at(whole, network))
        _accuracy_axis(axes, here)
        ticks = here.drop_duplicates("x").sort_values("x")
        axes.set_xticks(ticks.x.tolist(), [f"{block:.0f}" for block in ticks.block], fontsize=7)
        axes.set_xlim(ticks.x.min() - 0.4, ticks.x.max() + 0.4)
        panels.name_lowest(axes, "block l of each stage" if rows.stages.max() > 1 else "block l")
        skip = key["evaluation"] == "skip"
        _name(axes, key, shown.extra, "without block l" if skip else "blocks l, l + 1 exchanged")
    style.legend(figure, _handles(rows, ["accuracy"], "the network\nas it is"))
    return figure


def accuracy_against_noise(results: Results) -> Figure:
    """Accuracy and variation rate against the level of noise and attacks: the form of Fig. 8.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a row per dataset, K and gamma (up to four), and two columns for each of
        random noise, FGSM and PGD that was measured: accuracy, and the variation rate at l = n
        of the last stage. Lines, bands and baselines are as in :func:`accuracy_against_units`.
        In panels of the variation rate the dotted line is the rate of x^(0) of the first stage,
        the input of the blocks.
    """
    rows = _rows(results, list(TESTED))
    if not len(rows):
        return style.nothing(NOTHING)
    rows, shown = _fitting(rows)
    first = rows[(rows.stage == 1) & (rows.block == 0)]
    ends = at_the_end(rows)
    places = panels.rows_of(rows, shown.extra)
    keys = [place | {"gamma": gamma} for place in places for gamma in _gammas(rows, place)]
    names = [name for name in TESTED if (rows.evaluation == name).any()]
    figure, grid = style.sheet(
        len(keys), 2 * len(names), (2.5 if len(names) == 1 else 1.27, 1.6),
        gaps=(0.78, 0.75), beside=0.3, top=0.52, below=0.75, note=shown.note,
    )  # fmt: skip
    for i, key in enumerate(keys):
        for j, name in enumerate(names):
            one = key | {"evaluation": name}
            title, label = TESTED[name]
            upper, lower = grid[i, j], grid[i, len(names) + j]
            accuracy = panels.at(rows, one).dropna(subset="accuracy")
            _lines(upper, accuracy, "level", "accuracy")
            _baselines(upper, accuracy[accuracy.level == 0])
            _accuracy_axis(upper, accuracy, named=j == 0)
            seen = _lines(lower, panels.at(ends, one), "level", "variation_rate")
            for network, own in panels.at(first, one).groupby("network"):
                rates = own.groupby("level").variation_rate.mean()
                lower.plot(rates.index, rates, label="x⁽⁰⁾", **_baseline_style(str(network)))
                seen += [*rates]
            scales.from_zero(lower, seen)
            if j == 0:
                lower.set_ylabel("variation rate at l = n")
            for axes in (upper, lower):
                style.title(axes, title)
                panels.name_lowest(axes, label)
        panels.row_title(grid[i, 0], _cell(key, shown.extra))
    scores = ["accuracy", "variation_rate"]
    baselines = ("accuracy: without noise", "variation rate: of the blocks' input")
    handles = _handles(rows, scores, *baselines)
    figure.legend(handles=handles, loc="lower center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def mixed_by_distance(results: Results) -> Figure:
    """How often noise mixes up pairs, by the distance between tracks (section 4.2, Fig. 1E).

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure about pairs of two classes, with two rows per dataset, K and stage: pairs with any
        ends, and pairs matched by the distance of their ends, if that was measured. A column per
        gamma; the x axis has tenths of the pairs, the closest tracks first, and the y axis the
        share that is mixed up over that among all of these pairs. Lines and bands are as in
        :func:`accuracy_against_units`. Baselines: the untrained network (dotted, in the network's
        colour), and 1 (dashed), which every tenth would have if distance did not matter. A line is
        left out where fewer than about a hundred pairs are mixed up.
    """
    every = _rows(results, ["separation_different"])
    found = [_relative(every, column) for column in PAIRS if every[column].notna().any()]
    if not found:
        return style.nothing(NOTHING)
    rows, shown = _fitting(pd.concat(found))
    places = panels.rows_of(rows, shown.extra, "stage", "pairs")
    figure, grid = _sheet(places, rows, shown)
    for axes, key, here in _panels(grid, places, rows):
        seen = [1.0, *_lines(axes, here, "level", "relative")]
        for network, own in here.dropna(subset="initial").groupby("network"):
            before = own.groupby("level").initial.mean()
            look = _baseline_style(str(network))
            axes.plot(before.index, before, label=style.INITIAL, **look)
            seen += [*before]
        axes.axhline(1, linestyle="--", label="all of these pairs", **style.BASELINE)
        scales.from_zero(axes, seen)
        scales.whole_axis(axes, 1, 10, pad=0.05)
        axes.set_xticks([1, 4, 7, 10])
        if panels.is_first(axes):
            axes.set_ylabel(f"mixed up (1: as all{_points(here)})")
        panels.name_lowest(axes, "tenth of pairs, closest tracks first")
        stage = f"stage {key['stage']:.0f}, " if key["stages"] > 1 else ""
        _name(axes, key, shown.extra, stage + PAIRS[key["pairs"]])
    handles = [*panels.network_handles(rows), *_seeds(rows, ["relative"])]
    handles.append(style.baseline_handle(style.INITIAL, ":", 1.2))
    style.legend(figure, [*handles, style.baseline_handle("all of these pairs", "--", 1.2)])
    return figure


def _relative(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Shares of mixed-up pairs over that among all pairs, in ``relative``, by tenth.

    ``initial`` is the same before training, and ``pairs`` the name of the column. Shares are NaN
    where fewer than about :data:`analysis.measures.robustness.FEW` pairs are mixed up.
    """
    key = ["trial", "stage"]
    names = {column: "relative", f"{column}_initial": "initial"}
    whole = rows.loc[rows.level == 0, [*key, *names]]
    joined = rows[rows.level > 0].merge(whole, on=key, suffixes=("", "_whole"))
    number = joined.m * (joined.m - 1) / 2  # of pairs of all classes, so an upper bound
    ratios = {}
    for old, new in names.items():
        share = joined[f"{old}_whole"].astype("float64")
        ratios[new] = joined[old].astype("float64") / share.where(share * number >= FEW)
    return joined.assign(pairs=column, **ratios)


def _rows(results: Results, names: Sequence[str]) -> pd.DataFrame:
    """Results of some evaluations of trials that are done, with the columns of their panels."""
    done = cells.done(results)
    more = [*cells.configuration(done), "classes", "shapes"]
    columns = list(dict.fromkeys([*panels.key_columns(done), *more]))
    rows = results.robustness[COLUMNS].astype({"trial": "str", "evaluation": "str"})
    rows = rows[rows.evaluation.isin(names)].replace([np.inf, -np.inf], np.nan)
    rows = rows.merge(done[columns], on="trial")
    return rows.merge(_settings(rows, done), on="trial")


def _settings(rows: pd.DataFrame, done: pd.DataFrame) -> pd.DataFrame:
    """For each trial a number, which is equal only where evaluations had equal settings and m.

    An evaluation that a trial has not counts as that of the first trial.
    """
    trials = done[done.trial.isin(rows.trial)].set_index("trial").sort_index()
    parts = {}
    for name, own in rows.groupby("evaluation"):
        m = own.groupby("trial").m.max()
        of = OF.get(str(name), str(name))
        known = [settings_of(text, of) for text in trials.evaluations[m.index]]
        parts[name] = pd.Series(
            pd.factorize(pd.Series(known) + m.astype("str").to_numpy())[0], m.index
        )
    table = pd.DataFrame(parts, index=trials.index).fillna(0)
    numbers = pd.factorize(pd.Series(list(map(tuple, table.to_numpy()))))[0] + 1
    return pd.DataFrame({"trial": trials.index, "evaluation_settings": numbers})


def _fitting(rows: pd.DataFrame) -> tuple[pd.DataFrame, panels.Fitting]:
    """The rows of the combinations of settings that fit."""
    shown = panels.fitting(rows.drop_duplicates("trial"), panels.SPLIT)
    return rows[rows.trial.isin(shown.trials.trial)], shown


def _gammas(rows: pd.DataFrame, place: dict) -> list[float]:
    """Up to four gammas of a row of panels, chosen from 0 and those that most networks have."""
    networks = panels.at(rows, place).groupby("gamma").network.nunique()
    there = sorted(networks.index[(networks == networks.max()) | (networks.index == 0)])
    return panels.chosen(there, panels.PAPER_GAMMAS, panels.ACROSS)


def _sheet(
    places: list[dict], rows: pd.DataFrame, shown: panels.Fitting
) -> tuple[Figure, np.ndarray]:
    across = max(len(_gammas(rows, place)) for place in places)
    height = 2.2 if len(places) == 1 else 1.7
    titles = [f"{_cell(place | {'gamma': 5e-4}, shown.extra)}\nblock" for place in places]
    return style.sheet(
        len(places), across, (3.4 if across == 1 else 2.0, height),
        gaps=(0.4, 0.7), beside=1.6, top=0.55, note=shown.note,
        titles=titles,
    )  # fmt: skip


def _panels(
    grid: np.ndarray, places: list[dict], rows: pd.DataFrame
) -> Iterator[tuple[Axes, dict, pd.DataFrame]]:
    """Each panel that has results, with its key and its results; hide the other panels."""
    for place, line in zip(places, grid, strict=True):
        gammas = _gammas(rows, place)
        for axes in line[len(gammas) :]:
            axes.set_visible(False)
        for axes, gamma in zip(line, gammas, strict=False):
            key = place | {"gamma": gamma}
            yield axes, key, panels.at(rows, key)


def _baseline_style(network: str) -> dict[str, Any]:
    return style.initial_style(style.colour(network))


def _lines(
    axes: Axes, rows: pd.DataFrame, x: str, y: str, more: str = "", **changed: Any
) -> list[float]:
    """Draw a line per network, the mean over seeds, and how far the seeds spread.

    Args:
        axes: the panel.
        rows: the results of one panel.
        x: column along the axis.
        y: column to average.
        more: text to add to the name of each line.
        changed: what differs from the usual style of lines.

    Returns:
        The heights of the means.
    """
    seen = []
    for network, own in rows.groupby("network"):
        means = seeds.averaged(own, [x], y).reset_index()
        look = style.line_style(str(network), int(own.stages.iloc[0])) | changed
        axes.plot(means[x], means["mean"], label=network_name(network) + more, **look)
        seeds.spread(axes, means, own, x, y, look["color"])
        seen += [*means["mean"]]
    return seen


def _baselines(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the mean accuracy of each network when it is left as it is (dotted)."""
    for network, own in rows.groupby("network"):
        if np.isfinite(mean := own.accuracy.mean()):
            axes.axhline(mean, label="baseline", **_baseline_style(str(network)))


def _accuracy_axis(axes: Axes, rows: pd.DataFrame, named: bool | None = None) -> None:
    """A y axis from 0 to 1 with chance (dashed); ``named`` is whether it has labels."""
    for classes in rows.classes.dropna().unique():
        axes.axhline(1 / classes, linestyle="--", label="chance", **style.BASELINE)
    axes.set_ylim(-0.03, 1.03)
    named = panels.is_first(axes) if named is None else named
    if named:
        axes.set_ylabel(f"{cells.scored_images(rows)} accuracy (fraction{_points(rows)})")
    axes.tick_params(labelleft=named)


def _points(rows: pd.DataFrame) -> str:
    """The numbers of points (", m = 1,000"), for the label of an axis."""
    m = [f"{points:,.0f}" for points in sorted(rows.m.dropna().unique())]
    if not m:
        return ""
    return f", m = {' or '.join(m[:2])}" + (", …" if len(m) > 2 else "")


def _units(rows: pd.DataFrame, key: dict) -> str:
    """The number of units of a state ("the 1,000 units"), or "units" if it is unknown."""
    known = rows.shapes.dropna()
    shapes = str(known.iloc[0]).split(", ") if len(known) else []
    place = int(key["stage"]) - 1
    if place >= len(shapes):
        return "units"
    return f"the {np.prod([int(n) for n in shapes[place].split(' x ')]):,} units"


def _cell(key: dict, by: list[str]) -> str:
    return f"{panels.row_name(key, by)}, γ = {key['gamma']:.4g}"


def _name(axes: Axes, key: dict, by: list[str], what: str) -> None:
    """Title a panel with its gamma, and the first panel of a row with the row as well."""
    title = f"{_cell(key, by)}\n{what}" if panels.is_first(axes) else f"γ = {key['gamma']:.4g}"
    style.title(axes, title)


def _handles(rows: pd.DataFrame, scores: list[str], *baselines: str) -> list[Artist]:
    """Lines for a legend: one for each network and K, how seeds are drawn, and the baselines."""
    handles: list[Artist] = [*panels.network_handles(rows), *_seeds(rows, scores)]
    handles += [style.baseline_handle(baseline, ":", 1.2) for baseline in baselines]
    handles.append(style.baseline_handle("chance", "--", 1.2))
    return handles


def _seeds(rows: pd.DataFrame, scores: list[str]) -> list[Artist]:
    return seeds.handles(panels.seed_counts(rows.drop_duplicates("trial"), rows, scores))
