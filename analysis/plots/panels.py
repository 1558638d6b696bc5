"""What figures share: grids of panels, which trials fit, names of panels and lines.

A panel shows one dataset, K and network, and one value of each other setting that varies. A mean
is always over the seeds of one combination of all settings; what does not fit is left out, and the
figure says so (:func:`fitting`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.measures.cells import varying
from analysis.measures.layout import network_name
from analysis.plots import style
from scoring.tables import ARGUMENT

PANEL = ["dataset", "layers", "stages"]
SPLIT = 3  # Up to so many combinations of other settings are lines of one panel; more are rows.
MOST = 6  # Up to so many combinations of other settings are drawn; more are left out.
APART = ["depth", "recipe"]  # All values of these are drawn.
MORE = ["points", "evaluation_settings"]  # Settings that are not in varying().
PAPER_GAMMAS = [5e-4, 1e-2, 1e-3, 5e-3]  # of Figs 6 to 8; the first ones where there are many
ACROSS = 4  # Up to so many columns of panels, or gammas, are side by side.
MANY = 12  # Up to so many gammas have a legend; more have a colour bar and a logarithmic axis.


class Fitting(NamedTuple):
    """Trials to draw, from :func:`fitting`."""

    trials: pd.DataFrame  # with a column ``combination``, which differs between lines of one panel
    extra: list[
        str
    ]  # settings that take several values; rows of panels, or lines, have one of each
    note: str  # what is left out, for :func:`analysis.plots.style.sheet`


def fitting(
    done: pd.DataFrame,
    most: int = MOST,
    along: str = "gamma",
    thin: bool = False,
    curves: bool = False,
) -> Fitting:
    """The trials that a figure has space for, whole combinations of settings.

    All values of APART and of arguments of architectures are drawn. Of the combinations of other
    settings, m among them, each of these has up to ``most``: first those with the most values of
    ``along``, then with the most trials, then with the most common values. A setting that is the
    same within each dataset, K, layers and value of APART makes no combinations.

    Args:
        done: trials.
        most: number of combinations.
        along: column along the axis, or of the lines, of which a panel should have many values.
        thin: where there are more combinations and none has two values of ``along``, as in a
            search, keep all of them for lines or points of their own in one panel; then
            ``combination`` tells them apart.
        curves: of more combinations than SPLIT, leave out those with one value of ``along``, where
            another one has several.
    """
    kinds, rest = _differing(done, along)
    one = _number(done, [*kinds, *rest])
    place = _number(done, kinds)
    extra = [n for n in kinds if n not in PANEL] + rest
    each = one.groupby(place).nunique()
    done = done.assign(combination=0)
    if not len(done) or each.max() <= (SPLIT if curves else most):
        return Fitting(done, extra, "")
    if thin and each.max() > most and done[along].groupby(one).nunique().max() == 1:
        return together(done)
    table = pd.DataFrame(
        {
            "place": place.groupby(one).first(),
            "along": -done[along].groupby(one).nunique(),
            "trials": -one.groupby(one).size(),
            "usual": -_usual(done, rest).groupby(one).first(),
        }
    )
    table = table.sort_values(["along", "trials", "usual"], kind="stable")
    some = table
    if curves:
        several = table.along < -1
        some = table[several | ~several.groupby(table.place).transform("any")]
    kept = some.groupby("place").head(most).index
    if len(kept) == len(table):
        return Fitting(done, extra, "")
    shown = done[one.isin(kept)]
    said = f"{len(kept)} of {len(table)} combinations of {listed(done, kinds, rest)} are shown, "
    said += "first those with the most "
    said += {"gamma": "γ"}.get(along, f"values of {along}") + "; a mean is over seeds only. "
    fixed = [n for n in rest if shown[n].nunique(dropna=False) == 1]
    if fixed:
        said += f"All of these have {', '.join(settings(shown.iloc[0].to_dict(), fixed))}. "
    said += "The table summary has the others; analysis.figures.draw draws the trials you select."
    return Fitting(shown, [n for n in extra if n not in fixed], said)


def together(done: pd.DataFrame, every: bool = False) -> Fitting:
    """All trials, with many combinations of settings in one panel, told apart by a column.

    Args:
        done: trials.
        every: whether values of APART, arguments of architectures and m are in one panel, too;
            otherwise they have rows of their own.
    """
    kinds, rest = _differing(done)
    if every:
        rest = [*kinds, *rest]
    apart = [n for n in (*kinds, *rest) if n not in PANEL and (n in kinds or n == "points")]
    rest = [n for n in rest if every or n != "points"]
    done = done.assign(combination=_number(done, rest))
    said = ""
    if rest:
        said = f"A panel has all combinations of {listed(done, [], rest)}; they are not averaged."
        said += " Dotted: their lowest and highest value before training."
    return Fitting(done, apart, said)


def _differing(done: pd.DataFrame, along: str = "") -> tuple[list[str], list[str]]:
    """Columns all of whose values are drawn, and other settings that vary among equal ones."""
    extra = [name for name in varying(done) if name != along]
    apart = [name for name in extra if name in APART or name.startswith(ARGUMENT)]
    kinds = [*PANEL, *apart]
    others = [name for name in (*extra, *MORE) if name not in kinds and name in done]
    counts = done.groupby(kinds, dropna=False)[others].nunique(dropna=False)
    # A null momentum says no more than the recipe, as in :func:`varying`.
    return kinds, [name for name in others if counts[name].gt(1).any()]


def _number(done: pd.DataFrame, columns: list[str]) -> pd.Series:
    """A number for each combination of values, in their order."""
    if not columns:
        return pd.Series(0, index=done.index)
    return done.groupby(columns, dropna=False).ngroup()


def _usual(done: pd.DataFrame, names: list[str]) -> pd.Series:
    """For each trial, how many settings have the value that most combinations have."""
    table = done[names].drop_duplicates()
    usual = pd.Series(0, index=done.index)
    for name in names:
        usual += (
            done[name]
            .map(table[name].value_counts(dropna=False))
            .eq(table[name].value_counts(dropna=False).max())
        )
    return usual


def listed(done: pd.DataFrame, kinds: list[str], rest: list[str]) -> str:
    """Names of columns for a note; of ``kinds`` those that vary."""
    names = [name for name in kinds if done[name].nunique(dropna=False) > 1] + rest
    known = {"points": "m", "stages": "K"}
    return ", ".join(known.get(name, name.replace("_", " ")) for name in names)


def at(frame: pd.DataFrame, key: Mapping) -> pd.DataFrame:
    """Rows where every column of the key has its value."""
    keep = np.ones(len(frame), dtype=bool)
    for column, value in key.items():
        found = frame[column].to_numpy()
        keep &= pd.isna(found) if pd.isna(value) else found == value
    return frame[keep]


def key_columns(done: pd.DataFrame) -> list[str]:
    """Columns that identify a trial, its panel and its line."""
    return ["trial", *PANEL, *varying(done), "points", "network", "gamma"]


def name(key: Mapping, extra: list[str]) -> str:
    """The name of a panel or a line: network, K, and the other settings in ``extra``."""
    network = one_line(network_name(key["network"]))
    return ", ".join([network, f"K = {key['stages']}", *settings(key, extra)])


def row_name(key: Mapping, extra: list[str]) -> str:
    """The name of a row of panels: dataset, K, and the other settings in ``extra``."""
    return ", ".join([data_name(key["dataset"]), f"K = {key['stages']}", *settings(key, extra)])


def settings(key: Mapping, names: list[str]) -> list[str]:
    """Settings with their values, as texts: "learning rate 0.001"; m as "m = 1,000"."""
    return [
        f"m = {key[name]:,.0f}"
        if name == "points"
        else f"{name.replace('_', ' ')} {one_line(key[name])}"
        for name in names
    ]


def data_name(dataset: str) -> str:
    """The name of a dataset, for a file its name without folder and ending.

    >>> data_name("/data/mine.npz"), data_name("mine.py:noisy#0123456789ab")
    ('mine', 'mine:noisy')
    """
    if found := re.fullmatch(r"(.+)\.py:(\w+)#[0-9a-f]{12}", dataset, re.DOTALL):
        return one_line(f"{found[1]}:{found[2]}")
    return one_line(Path(dataset).stem if dataset.endswith(".npz") else dataset)


def one_line(value: object) -> str:
    r"""A value as a text without line breaks.

    >>> print(one_line("two\nlines"))
    two\nlines
    """
    return str(value).replace("\n", "\\n")


def rows_of(trials: pd.DataFrame, extra: list[str], *more: str) -> list[dict]:
    """What tells rows of panels apart: their values of PANEL, ``extra`` and ``more``."""
    return distinct(trials, [*PANEL, *extra, *more])


def distinct(trials: pd.DataFrame, columns: list[str]) -> list[dict]:
    """The distinct values of some columns, sorted by them."""
    return trials[columns].drop_duplicates().sort_values(columns).to_dict("records")


def grid(
    shown: Fitting, scores: Mapping[str, str], named: bool = True
) -> tuple[Figure, list[tuple[Axes, str, dict]]]:
    """A figure with a row per dataset and K, and a column per score and network.

    Args:
        shown: trials, from :func:`fitting`.
        scores: columns to show, with the labels of their axes.
        named: whether to leave space for the names of lines at their right ends.

    Returns:
        The figure, and for each panel its axes, its score and its key for :func:`at`.
    """
    done = shown.trials
    cells = rows_of(done, shown.extra)
    columns = [(score, network) for score in scores for network in sorted(done.network.unique())]
    wide = len(columns) < 3
    room = 0.65 if named else 0.0
    titles = [
        f"{data_name(cell['dataset'])}, {name(cell | {'network': network}, shown.extra)}"
        for cell in cells
        for network in done.network.unique()
    ]
    figure, axes_of = style.sheet(
        len(cells), len(columns), (3.4 if wide else 2.1, 2.3 if len(cells) == 1 else 2.0),
        gaps=(0.65 + 0.75 * room, 0.6), beside=1.55 + 0.5 * room, note=shown.note,
        titles=titles,
    )  # fmt: skip
    places = []
    for i, cell in enumerate(cells):
        for j, (score, network) in enumerate(columns):
            axes, key = axes_of[i, j], cell | {"network": network}
            style.title(axes, f"{data_name(cell['dataset'])}, {name(key, shown.extra)}")
            if j == 0 or columns[j - 1][0] != score:
                axes.set_ylabel(scores[score])
            places.append((axes, score, key))
    return figure, places


def name_lowest(axes: Axes, text: str) -> None:
    """Label the x axis of a panel if it is in the last row of the figure."""
    place = axes.get_subplotspec()
    if place is not None and place.is_last_row():
        axes.set_xlabel(text)


def is_first(axes: Axes) -> bool:
    """Whether a panel is in the first column, where y axes have labels."""
    place = axes.get_subplotspec()
    return place is not None and place.is_first_col()


def row_title(axes: Axes, text: str) -> None:
    """Title a row of panels: a line above the title of its first panel, which may be wider."""
    lines = f"{text}\n{axes.get_title()}"
    axes.set_title("")
    axes.set_title(lines, fontsize=9, loc="left", y=1)


def thinned(epochs: pd.DataFrame) -> pd.DataFrame:
    """Rows of about a hundred evenly spaced epochs; a line cannot show more.

    The first epoch and the last one of each trial (``epochs_done``) are included.
    """
    step = max(1, round(epochs.epoch.max() / 100)) if epochs.epoch.notna().any() else 1
    return epochs[(epochs.epoch % step == 0) | (epochs.epoch == epochs.epochs_done)]


def network_handles(rows: pd.DataFrame) -> list[Line2D]:
    """Lines for a legend, one for each network and K."""
    return [
        Line2D([], [], label=name(key, []), **style.line_style(key["network"], key["stages"]))
        for key in distinct(rows, ["network", "stages"])
    ]


def seed_counts(done: pd.DataFrame, rows: pd.DataFrame, scores: Iterable[str]) -> list[int]:
    """How many seeds of each combination of all settings have a score, for each score.

    Args:
        done: the trials of a figure.
        rows: what it draws of them, with the column ``trial``.
        scores: the columns of these rows that it draws.
    """
    names = [name for name in (*key_columns(done), *MORE) if name in done and name != "trial"]
    combination, counts = _number(done, [*dict.fromkeys(names)]), []
    for score in scores:
        known = rows.trial[np.isfinite(rows[score].astype("float64"))]
        counts += [*combination[done.trial.isin(known)].value_counts()]
    return counts


def points_note(done: pd.DataFrame) -> str:
    """Say that the first and the last epoch have other points than the rest; empty if not so."""
    fewer = done[done.epoch_points < done.points]
    if not len(fewer):
        return ""
    between = sizes(fewer, "epoch_points")
    return f"Epoch 0 and the last: m = {sizes(fewer)} points. Epochs between: {between} points."


def sizes(trials: pd.DataFrame, column: str = "points") -> str:
    """The numbers of points that trials were scored with, for the label of an axis."""
    m = sorted(trials[column].dropna().unique())
    if not m:
        return "?"
    return " or ".join(f"{int(points):,}" for points in m[:3]) + (", …" if len(m) > 3 else "")


def chosen(there: Sequence[float], wanted: Sequence[float], most: int = 4) -> list[float]:
    """A few of many gammas: 0, the control, then wanted ones in their order, then those far apart.

    >>> chosen([0, 1e-4, 1e-3, 1e-2, 1e-1, 2e-1], wanted=[1e-2, 1e-3, 1e-1, 1e-4])
    [0, 0.001, 0.01, 0.1]
    >>> chosen([0, 1, 2, 3, 4, 5, 6], wanted=[])
    [0, 2, 4, 6]
    """
    ranks = range(len(there))
    picked = [next((i for i in ranks if np.isclose(there[i], w, atol=0)), None) for w in wanted]
    places = [i for i in picked if i is not None]
    if not places:
        return [there[round(i)] for i in np.linspace(0, len(there) - 1, min(most, len(there)))]
    control = [i for i in ranks if there[i] == 0]
    places = [*dict.fromkeys([*control, *places])][:most]
    while len(places) < min(most, len(there)):
        places.append(max(ranks, key=lambda i: min(abs(i - j) for j in places)))
    return [there[i] for i in sorted(places)]
