"""Dose and response: the effect of a penalty on tracks against its weight."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.measures.cells import CELL
from analysis.measures.intervention import ENDS, effects
from analysis.measures.layout import heading, network_name
from analysis.measures.robustness import AUCS
from analysis.plots import panels, scales, seeds, style
from analysis.results import Results

DRAWN = ("lss", "test_accuracy", *AUCS)
ASIDE = 0.16  # sideways shift between networks, as a share of the way between two weights


def intervention(results: Results, table: pd.DataFrame | None = None) -> Figure:
    """Change of LSS, test accuracy and robustness AUCs against the weight of a penalty.

    Args:
        results: from :func:`analysis.results.load`.
        table: from :func:`analysis.measures.intervention.effects`; by default it is computed.

    Returns:
        Figure with a row per penalty, dataset, layers, K, gamma (up to four) and up to three
        combinations of other settings that vary, and a column per outcome. There is a line per
        network, or a line per combination if there are more of them. Lines show the change
        against weight 0, where they start at 0. Bars are its 95% interval of three seeds or more,
        not corrected for multiple tests. Baseline: no change (dashed). Scales differ by panel.
    """
    table = effects(results) if table is None else table
    if not len(table):
        return style.nothing("no cell was trained both with and without a penalty")
    names = [name for name in DRAWN if f"{name}_change" in table]
    others = [name for name in table.loc[:, :"m"] if name not in CELL]
    others = [name for name in others if table[name].nunique(dropna=False) > 1]
    few = not others or len(table[others].drop_duplicates()) <= panels.SPLIT
    by = ["penalty", *panels.PANEL, *(others if few else []), "gamma"]
    line = ["network", *([] if few else others)]
    places = _places(table, by)
    note = (
        ""
        if few
        else f"Each line is one combination of {panels.listed(table, [], list(map(str, others)))}."
    )
    figure, grid = style.sheet(
        len(places), len(names), (1.75, 2.1 if len(places) == 1 else 1.7),
        gaps=(0.75, 1.0), beside=1.2, top=0.55, note=note,
    )  # fmt: skip
    for row, key in zip(grid, places, strict=True):
        here = panels.at(table, key)
        weights = [0.0, *sorted(here.weight.unique())]
        for axes, name in zip(row, names, strict=True):
            _responses(axes, here, name, line, weights)
            style.title(axes, f"change of {heading(name)}")
            if name == names[0]:
                axes.set_ylabel("with penalty minus without")
            scales.gamma_axis(axes, weights, log=len(weights) > panels.MANY)
            axes.set_xlabel("weight" if key is places[-1] else "")
        penalty = str(key["penalty"]).replace("_", " ")
        place = panels.row_name(key, [str(n) for n in others if n in key])
        panels.row_title(row[0], f"{penalty}, {place}, γ = {key['gamma']:.4g}")
    unchanged = style.baseline_handle("no change", "--", 1.2)
    style.legend(figure, [*panels.network_handles(table), unchanged])
    return figure


def _places(table: pd.DataFrame, by: list[str]) -> list[dict]:
    """The keys of the rows of panels, with up to four gammas."""
    places = []
    for _, own in table.groupby(by[:-1], dropna=False):
        gammas = panels.chosen(sorted(own.gamma.unique()), panels.PAPER_GAMMAS)
        rows = own[own.gamma.isin(gammas)].drop_duplicates(by).sort_values("gamma")
        places += rows[by].to_dict("records")
    return places


def _responses(
    axes: Axes, rows: pd.DataFrame, name: str, line: list[str], weights: list[float]
) -> None:
    """Draw the lines of an outcome from 0 at weight 0, and set the bounds of its axis."""
    change, half = (f"{name}{end}" for end in ENDS[1:3])
    axes.axhline(0, linestyle="--", label="no change", **style.BASELINE)
    rows = rows.assign(**{half: seeds.known_halves(rows, half)})
    networks = sorted(rows.network.unique())
    log = len(weights) > panels.MANY
    for key, own in rows.groupby(line, dropna=False):
        own = own.sort_values("weight")
        along = [0.0, *own.weight] if log else [0, *(weights.index(w) for w in own.weight)]
        aside = 0.0 if log else ASIDE * (networks.index(key[0]) - (len(networks) - 1) / 2)
        look = style.line_style(str(key[0]), int(own.stages.iloc[0]))
        look |= {"label": network_name(key[0])}
        seeds.bars(axes, [x + aside for x in along], seeds.changes(own[change], own[half]), look)
    reach = rows[half].fillna(0)
    scales.around_zero(axes, [*(rows[change] - reach), *(rows[change] + reach)])
