"""The findings of a sweep, as a headline and in plain sentences.

Every count stands beside its baseline. An untrained ResNet already has a lower LSS and a higher OTS
than an untrained plain network, so "lower than plain" alone shows nothing about training.

A cell "came near the geodesic" if it is within limits of LSS and OTS after training, but was not
before, and if all its trials count. No test is behind that. "Learned" is a verdict of
:mod:`analysis.measures.factors` on the factors of the excess, by a test over seeds.
"""

from typing import NamedTuple

import pandas as pd

from analysis.measures.cells import cell_columns, done
from analysis.measures.comparisons import OPTIMAL, STRAIGHT
from analysis.measures.factors import finite, typical, with_geometric
from analysis.measures.layout import first_word, network_name, plural, sample, span
from analysis.measures.search import Search, search_sentence
from analysis.measures.summary import summary
from analysis.results import Results

STILL = 1e-4  # A stage counts as the identity if its mean squared step is below this x its spread.
PROVED = 1e-9  # An assignment counts as optimal if its cost exceeds the lower bound by this share.
LACKING = {  # counts of trials that are in no mean of their cell, or not in that of OTS
    "diverged": "diverged trials",
    "failed": "failed trials",
    "stopped": "trials that were stopped early",
    "collapsed": "collapsed trials",
    "without_ots": "trials without OTS",
}
LIMITS = f"LSS at most {STRAIGHT} and OTS from {OPTIMAL}"
ENDS = {  # how a trial may end, in words
    "done": "done",
    "stopped": "stopped early by ASHA",
    "diverged": "diverged",
    "failed": "failed",
}


class Headline(NamedTuple):
    """The answer of a sweep in one sentence, and the one number to remember."""

    verdict: str
    number: str  # with its name; empty if there is none
    baseline: str  # which cells the number is from, and its baselines


def headline(cells: pd.DataFrame, results: Results) -> Headline:
    """Say how many cells came near the geodesic, and what the excess was before training.

    Results of earlier versions have no excess. For them the number is LSS.

    Args:
        cells: from :func:`analysis.measures.summary.summary`.
        results: what they are a summary of.
    """
    trained = cells[cells.seeds > 0]
    if not len(trained):
        return Headline("No trial is done yet, so there is no result.", "", "")
    trained = with_geometric(trained, results)
    number, baseline = _excess(trained)
    if not number:
        number, baseline = _line_shape(trained)
    scored = trained[trained.lss.notna() & trained.ots.notna()]
    if not len(scored):
        verdict = "Whether a cell came near the geodesic is unknown: none has both LSS and OTS."
        return Headline(verdict, number, baseline)
    verdict = f"{_counted(scored)}{_before(scored)}"
    if len(scored) > 1:  # The sentence on a single cell says it already.
        verdict += _not_counted(scored)
    return Headline(verdict, number, baseline)


def _counted(cells: pd.DataFrame) -> str:
    """How many cells came near the geodesic, and the excess of these, or of all if none did."""
    near, count = cells[_came_near(cells)], len(cells)
    if count == 1 and len(_doubtful(cells)):
        return (
            f"Whether the cell came near the geodesic in training ({LIMITS}) is unknown: it is "
            f"within these limits, but has {_lacking(cells)}.{_one_seed(cells)}"
        )
    if count == 1:
        who = "The cell came" if len(near) else "The cell did not come"
    else:
        who = {0: f"None of the {count} cells", count: f"All {count} cells"}.get(len(near), "")
        who = f"{who or f'{len(near)} of {count} cells'} came"
    told = near if len(near) else cells
    end = f"{_excess_of(told)}.{_one_seed(told)}"
    return f"{who} near the geodesic in training ({LIMITS}){end}"


def _excess_of(cells: pd.DataFrame) -> str:
    """The excess of some cells as the end of a sentence; empty if it is unknown."""
    known = finite(cells, ["geodesic_excess"])
    if not len(known):
        return ""
    after, before = typical(known, "geodesic_excess")
    whose = "its excess" if len(cells) == 1 else "their excess"
    if len(known) < len(cells):
        whose = f"the excess of {len(known)} of them"
    means = " (geometric means)" if len(known) > 1 else ""
    return f"; {whose} is {after:.2f}, before training {before:.2f}{means}"


def _one_seed(cells: pd.DataFrame) -> str:
    """A warning if some of these cells have only one seed; empty if all have several."""
    if not (cells.seeds == 1).any():
        return ""
    if len(cells) == 1:
        return " One seed decides nothing."
    some = "Each of these cells has" if (cells.seeds == 1).all() else "Some of these cells have"
    return f" {some} one seed, which decides nothing."


def _excess(trained: pd.DataFrame) -> tuple[str, str]:
    """The geodesic excess after training, and its baselines; empty where it is unknown."""
    known = finite(trained, ["geodesic_excess"])
    if not len(known):
        return "", ""
    after, before = typical(known, "geodesic_excess")
    mean = "of one cell" if len(known) == 1 else f"geometric mean of {len(known)} cells"
    return (
        f"Geodesic excess {after:.2f}",
        f"after training ({mean}); before training {before:.2f}; the geodesic has 1; "
        f"{sample(known)}",
    )


def _line_shape(trained: pd.DataFrame) -> tuple[str, str]:
    """LSS after training, and its baselines; empty where it is unknown."""
    known = finite(trained, ["lss"])
    if not len(known):
        return "", ""
    median = "of one cell" if len(known) == 1 else f"median of {len(known)} cells"
    return (
        f"LSS {known.lss.median():.2f}",
        f"after training ({median}); before training {known.lss_initial.median():.2f}; "
        f"a straight line has 1; {sample(known)}",
    )


def _came_near(cells: pd.DataFrame) -> pd.Series:
    """Whether a cell came near the geodesic: it is within the limits, and was not before."""
    return _within(cells, "") & _whole(cells) & ~_within(cells, "_initial")


def _whole(cells: pd.DataFrame) -> pd.Series:
    """Whether all trials of a cell are behind its means, so that these are no choice of trials."""
    return (cells[[*LACKING]] == 0).all(axis=1)


def _lacking(cells: pd.DataFrame) -> str:
    """Which trials of these cells are not behind their means."""
    found = [text for name, text in LACKING.items() if (cells[name] > 0).any()]
    return ", ".join(found[:-1]) + " or " * (len(found) > 1) + found[-1]


def _before(cells: pd.DataFrame) -> str:
    """A sentence on the cells that were within the limits before training; empty without any."""
    count = int((_within(cells, "") & _whole(cells) & _within(cells, "_initial")).sum())
    if not count:
        return ""
    if len(cells) == 1:
        return " It was near the geodesic before training already."
    were = "was" if count == 1 else "were"
    return f" {plural(count, 'cell')} {were} near the geodesic before training already."


def _not_counted(cells: pd.DataFrame) -> str:
    """A sentence on the cells within the limits that do not count; empty without any."""
    some = _doubtful(cells)
    if not len(some):
        return ""
    one = len(some) == 1
    return (
        f" {plural(len(some), 'cell')} {'is' if one else 'are'} within these limits, but not "
        f"counted: {'it has' if one else 'they have'} {_lacking(some)}."
    )


def _doubtful(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells within the limits whose means leave out some of their trials."""
    return cells[_within(cells, "") & ~_whole(cells)]


def _within(cells: pd.DataFrame, when: str) -> pd.Series:
    """Whether tracks are nearly straight and the map is nearly optimal."""
    return (cells[f"lss{when}"] <= STRAIGHT) & (cells[f"ots{when}"] >= OPTIMAL)


def sentences(
    results: Results, search: Search | None = None, cells: pd.DataFrame | None = None
) -> list[str]:
    """The findings as sentences with their counts. The first one counts trials by their status.

    Args:
        results: from :func:`analysis.results.load`.
        search: from :func:`analysis.measures.search.read_search`, if the sweep was a search.
        cells: from :func:`analysis.measures.summary.summary`, if it is already computed.
    """
    status = results.trials.status
    if not len(status):
        return ["No trial is done yet: this sweep has just begun."]
    trials = done(results)
    counts = {name: int((status == name).sum()) for name in ENDS}
    parts = [f"{n} {ENDS[name]}" for name, n in counts.items() if n or name != "stopped"]
    said = [f"{plural(len(status), 'trial')}: {', '.join(parts)}."]
    said += _stopped(counts["stopped"])
    if search:
        said.append(search_sentence(results, search))
    if not len(trials):
        said[0] += " No trial is done yet, so there is no score to show."
        return said
    said += _decoupled(trials) + _collapsed(trials) + _still(trials) + _lowered(trials)
    cells = summary(results) if cells is None else cells
    same = [*cell_columns(results, points=False), "m"]
    said += _decay(cells, [n for n in same if n != "gamma"])
    said += _networks(cells, [n for n in same if n != "network"])
    return said + _certificate(trials)


def geodesic_sentence(cells: pd.DataFrame) -> str:
    """Count the cells that came near the geodesic by network, with the ranges of both scores.

    Args:
        cells: from :func:`analysis.measures.summary.summary`.

    Returns:
        The sentences; empty if no cell has both scores.
    """
    cells = cells[cells.lss.notna() & cells.ots.notna()]
    if not len(cells):
        return ""
    said = (
        f"Came near the geodesic in training ({LIMITS}): {_came_near(cells).sum()} of "
        f"{plural(len(cells), 'cell')}, {sample(cells)}.{_not_counted(cells)}"
    )
    for network, rows in cells.groupby("network", observed=True):
        name = network_name(network)
        known = rows.ots_shuffled.notna().any()  # not in results of earlier versions
        shuffled = f", of shuffled displacements {_range(rows.ots_shuffled, 3)}" if known else ""
        said += (
            f" {first_word(name)}: {_came_near(rows).sum()} of {len(rows)} (LSS "
            f"{_range(rows.lss, 2)}, before training {_range(rows.lss_initial, 2)}; OTS "
            f"{_range(rows.ots, 3)}, before training {_range(rows.ots_initial, 3)}{shuffled})."
        )
    return said


def _range(values: pd.Series, digits: int) -> str:
    """The smallest and the largest value as a text."""
    if values.isna().all():
        return "unknown"
    ends = [f"{end:.{digits}f}" for end in (values.min(), values.max())]
    return " to ".join(dict.fromkeys(ends))


def _stopped(count: int) -> list[str]:
    if not count:
        return []
    one = count == 1
    return [
        f"{plural(count, 'trial')} {'was' if one else 'were'} stopped early and "
        f"{'is' if one else 'are'} in no mean and no correlation. The trials that continued were "
        "selected by their early results, so they are not a fair sample."
    ]


def _decoupled(trials: pd.DataFrame) -> list[str]:
    """Say where gamma is no penalty: its strength then depends on the learning rate alone."""
    some = trials[trials.decoupled.eq(True) & (trials.gamma > 0)]
    if not len(some):
        return []
    recipes = " and ".join(sorted(some.recipe.unique()))
    return [
        f"In {plural(len(some), 'trial')} ({recipes}) γ is decoupled weight decay: each step takes "
        "the share γ times the learning rate off the weights, and there is no L2 penalty in the "
        "loss."
    ]


def _collapsed(trials: pd.DataFrame) -> list[str]:
    lost = trials[trials.collapsed.eq(True)]
    if not len(lost):
        return []
    parts = []
    for network, rows in lost.groupby("network", observed=True):
        gammas = [f"{gamma:g}" for gamma in sorted(rows.gamma.unique())]
        shown = ", ".join(gammas[:4]) + (", …" if len(gammas) > 4 else "")
        parts.append(f"{network_name(network)} {len(rows)}, at γ = {shown}")
    return [
        f"Collapsed: {len(lost)} of {len(trials)} trials ({'; '.join(parts)}). All inputs or all "
        "outputs of a stage are one point in them, so they have no OTS."
    ]


def _still(trials: pd.DataFrame) -> list[str]:
    still = trials[trials.movement.lt(STILL)]
    if not len(still):
        return []
    gammas = ", ".join(f"{gamma:g}" for gamma in sorted(still.gamma.unique()))
    return [
        f"Hardly moving: {len(still)} of {len(trials)} trials (at γ = {gammas}). They have a stage "
        "that is nearly the identity. The identity is its own optimal transport, so an OTS of 1 "
        "does not come from training there."
    ]


def _lowered(trials: pd.DataFrame) -> list[str]:
    known = trials[trials.lss.notna() & trials.lss_initial.notna()]
    if not len(known):
        return []
    lower = known.lss < known.lss_initial
    parts = []
    for network, rows in trials.groupby("network"):
        own = lower[lower.index.isin(rows.index)]
        parts.append(f"{network_name(network)} {own.sum()} of {len(own)}")
    return [
        f"LSS is lower after training than before in {lower.sum()} of {len(known)} trials "
        f"({', '.join(parts)})."
    ]


def _certificate(trials: pd.DataFrame) -> list[str]:
    """The largest possible excess of an assignment over the optimum; nothing if it is unknown."""
    known = trials[trials.suboptimality.notna()]
    if not len(known):
        return []
    scored = int((trials.ots.notna() | trials.collapsed.eq(True)).sum())
    worst = known.suboptimality.max()
    every = "Every assignment"
    if len(known) < scored:
        every = f"In {len(known)} of {scored} trials every assignment"
    proved = "optimal" if worst <= PROVED else "nearly optimal"
    excess = "equals its lower bound"
    if worst > 0:
        excess = f"exceeds its lower bound by at most a share of {worst:.1g}"
    return [f"{every} is proved {proved}: W₂² {excess} (m = {span(known.points)})."]


def _decay(cells: pd.DataFrame, same: list[str]) -> list[str]:
    """Count the cells where gamma > 0 gives a lower LSS than gamma = 0, all else equal."""
    without = cells.loc[cells.gamma == 0, [*same, "lss"]]
    pairs = cells[cells.gamma > 0].merge(without, on=same, suffixes=("", "_without"))
    pairs = pairs.dropna(subset=["lss", "lss_without"])
    if not len(pairs):
        return []
    lower = pairs.lss < pairs.lss_without
    collapsed = int((pairs.collapsed > 0)[lower].sum())
    said = (
        f"Weight decay: LSS is lower than at γ = 0, all else equal, in {lower.sum()} of "
        f"{len(pairs)} cells with γ > 0"
    )
    return [f"{said}, {collapsed} of them with collapsed trials." if collapsed else f"{said}."]


def _networks(cells: pd.DataFrame, same: list[str]) -> list[str]:
    """ResNet against plain network, all else equal, after training and before."""
    plain = cells[cells.network == "plain"].drop(columns="network")
    pairs = cells[cells.network == "resnet"].merge(plain, on=same, suffixes=("", "_plain"))
    said = []
    for score, word, sign in (("lss", "lower", -1), ("ots", "higher", 1)):
        both = pairs.dropna(subset=[score, f"{score}_plain"])
        if not len(both):
            continue
        after, before = (
            int((sign * both[name] > sign * both[f"{name}_plain"]).sum())
            for name in (score, f"{score}_initial")
        )
        told = (
            f"ResNet {score.upper()} is {word} than plain {score.upper()} in {after} of "
            f"{len(both)} paired cells ({sample(both)})"
        )
        if both[[f"{score}_initial", f"{score}_initial_plain"]].notna().all(axis=1).any():
            told += (
                f"; before training it already is in {before} of them, so only a larger "
                "difference than that comes from training"
            )
        said.append(f"{told}.")
    return said
