"""What the numbers of a sweep say, in plain sentences, and the correlations behind them.

Every claim is counted against its null: an untrained ResNet already has a lower LSS and a
higher OTS than its plain twin, so "lower than plain" alone shows nothing about training.
"""

import pandas as pd

from analysis.measures.cells import CELL, done, varying
from analysis.measures.comparisons import OPTIMAL, STRAIGHT
from analysis.measures.layout import heading, network_name
from analysis.measures.robustness import CURVES, of_trials
from analysis.measures.search import Search, search_sentence
from analysis.measures.summary import summary
from analysis.results import Results

STILL = 1e-4  # a stage whose mean squared step is below this share of its spread is the identity
PROVED = 1e-9  # a share above the lower bound that is rounding
ENDS = {  # how a trial may end, in words
    "done": "done",
    "stopped": "stopped early by ASHA",
    "diverged": "diverged",
    "failed": "failed",
}


def sentences(results: Results, search: Search | None = None) -> list[str]:
    """What the sweep says, each sentence with its counts; the first one says how many trials.

    Args:
        results: of :func:`analysis.results.load`.
        search: of :func:`analysis.measures.search.read_search`, if the sweep was one.
    """
    status = results.trials.status
    finished = done(results)
    if not len(results.trials):
        return ["No trial is done yet: this sweep has just begun."]
    counts = {name: int((status == name).sum()) for name in ENDS}
    parts = [f"{n} {ENDS[name]}" for name, n in counts.items() if n or name != "stopped"]
    said = [f"{len(status)} trial{'s' * (len(status) > 1)}: {', '.join(parts)}."]
    said += _stopped(results.trials)
    if search:
        said.append(search_sentence(results, search))
    if not len(finished):
        said[0] += " No trial is done yet, so there is no score to show."
        return said
    said += _collapsed(finished) + _still(finished)
    lower = finished.lss < finished.lss_initial
    known = finished.lss.notna() & finished.lss_initial.notna()
    parts = [
        f"{network_name(str(name))} {lower[rows.index].sum()} of {known[rows.index].sum()}"
        for name, rows in finished.groupby("network", observed=True)
    ]
    if known.any():
        said.append(
            f"Training lowered LSS below its value at initialisation in {lower.sum()} of "
            f"{known.sum()} trials ({', '.join(parts)})."
        )
    cells = summary(results)
    same = [*CELL, *varying(results.trials), "m"]
    said += _decay(cells, [n for n in same if n != "gamma"])
    said += _networks(cells, [n for n in same if n != "network"])
    return said + _certificate(finished)


def geodesic_sentence(cells: pd.DataFrame) -> str:
    """Whether geodesics were learnt: straight tracks, an optimal map, and not both before training.

    Args:
        cells: of :func:`analysis.measures.summary.summary`.

    Returns:
        The sentence, with the range of both scores over cells; empty where none has both.
    """
    cells = cells[cells.lss.notna() & cells.ots.notna()]
    if not len(cells):
        return ""
    said = (
        "Is the geodesic learnt? That takes straight tracks (LSS near 1) and an optimal map (OTS "
        f"near 1): cells with LSS up to {STRAIGHT} and OTS from {OPTIMAL}, and not both before "
        "training."
    )
    for network, rows in cells.groupby("network", observed=True):
        near, before = (
            (rows[f"lss{when}"] <= STRAIGHT) & (rows[f"ots{when}"] >= OPTIMAL)
            for when in ("", "_initial")
        )
        name = network_name(str(network))
        said += (
            f" {name[0].upper() + name[1:]}: {(near & ~before).sum()} of {len(rows)} (LSS "
            f"{_range(rows.lss, 2)}, before training {_range(rows.lss_initial, 2)}; OTS "
            f"{_range(rows.ots, 3)}, before training {_range(rows.ots_initial, 3)})."
        )
    return said


def _range(values: pd.Series, digits: int) -> str:
    """From the least to the largest, as a text."""
    ends = [f"{end:.{digits}f}" for end in (values.min(), values.max())]
    return "unknown" if values.isna().all() else " to ".join(dict.fromkeys(ends))


def robustness_sentence(results: Results) -> str:
    """What networks lose to lesions, noise and attacks; empty where nothing was evaluated.

    Args:
        results: as for :func:`analysis.measures.robustness.of_trials`.
    """
    trials = of_trials(results)
    parts = []
    for name in CURVES:
        lost = trials.dropna(subset=f"{name}_lost").groupby("network")[f"{name}_lost"]
        each = [f"{network_name(str(k))} {v:.2f}" for k, v in lost.mean().round(2).add(0.0).items()]
        told = heading(f"{name}_lost").removeprefix("lost ")
        parts += [f"{told} {', '.join(each)}"] if each else []
    if not parts:
        return ""
    return (
        f"Share of its accuracy that a network loses, mean over levels and trials: "
        f"{'; '.join(parts)}."
    )


def _stopped(trials: pd.DataFrame) -> list[str]:
    """How many trials ASHA has stopped, and what that does to the others."""
    n = int((trials.status == "stopped").sum())
    if not n:
        return []
    were, are = ("s were", "are") if n > 1 else (" was", "is")
    return [
        f"{n} trial{were} stopped early and {are} in no mean and no correlation. Those that went "
        "on were chosen by how well they began: they are no fair sample."
    ]


def _collapsed(trials: pd.DataFrame) -> list[str]:
    """How many trials have collapsed, and which; they have no OTS."""
    lost = trials[trials.collapsed.eq(True)]
    if not len(lost):
        return []
    parts = []
    for network, rows in lost.groupby("network", observed=True):
        gammas = [f"{gamma:g}" for gamma in sorted(rows.gamma.unique())]
        shown = ", ".join(gammas[:4]) + ", …" * (len(gammas) > 4)
        parts.append(f"{network_name(str(network))} {len(rows)}, at γ = {shown}")
    return [
        f"Collapsed: {len(lost)} of {len(trials)} trials ({'; '.join(parts)}). All inputs or all "
        "outputs of a stage are one point there, so they have no OTS."
    ]


def _still(trials: pd.DataFrame) -> list[str]:
    """How many trials hardly move their points: an OTS of 1 is no achievement there."""
    still = trials[trials.movement.lt(STILL)]
    if not len(still):
        return []
    gammas = ", ".join(f"{gamma:g}" for gamma in sorted(still.gamma.unique()))
    return [
        f"Hardly moving: {len(still)} of {len(trials)} trials (at γ = {gammas}). A stage of theirs "
        "is nearly the identity, which is its own optimal transport: their OTS of 1 was not learnt."
    ]


def _certificate(trials: pd.DataFrame) -> list[str]:
    """How far the assignments may be from the optimum, at most; nothing if it is unknown."""
    known = trials[trials.suboptimality.notna()]
    if not len(known):
        return []
    scored = int((trials.ots.notna() | trials.collapsed.eq(True)).sum())
    worst, m = known.suboptimality.max(), sorted(known.points.unique())
    every = "Every assignment"
    if len(known) < scored:
        every = f"In {len(known)} of {scored} trials every assignment"
    proved = "optimal" if worst <= PROVED else "nearly optimal"
    share = f"is at most a share of {worst:.1g} above" if worst > 0 else "is equal to"
    sizes = " to ".join(f"{int(points):,}" for points in dict.fromkeys((m[0], m[-1])))
    return [f"{every} is proved {proved}: W₂² {share} its lower bound (m = {sizes})."]


def _decay(cells: pd.DataFrame, same: list[str]) -> list[str]:
    """Whether gamma > 0 gives a lower LSS than gamma = 0, all else equal."""
    without = cells.loc[cells.gamma == 0, [*same, "lss"]]
    pairs = cells[cells.gamma > 0].merge(without, on=same, suffixes=("", "_without"))
    pairs = pairs.dropna(subset=["lss", "lss_without"])
    if not len(pairs):
        return []
    lower = pairs.lss < pairs.lss_without
    collapsed = int((pairs.collapsed > 0)[lower].sum())
    return [
        f"Weight decay: LSS is lower than at γ = 0, all else equal, in {lower.sum()} of "
        f"{len(pairs)} cells with γ > 0"
        + (f", {collapsed} of them with collapsed trials." if collapsed else ".")
    ]


def _networks(cells: pd.DataFrame, same: list[str]) -> list[str]:
    """ResNet against plain in cells that differ in nothing else, and the same untrained."""
    plain = cells[cells.network == "plain"].drop(columns="network")
    pairs = cells[cells.network == "resnet"].merge(plain, on=same, suffixes=("", "_plain"))
    said = []
    for score, word, sign in (("lss", "lower", -1), ("ots", "higher", 1)):
        both = pairs.dropna(subset=[score, f"{score}_plain"])
        if not len(both):
            continue
        counts = [
            int((sign * both[n] > sign * both[f"{n}_plain"]).sum())
            for n in (score, f"{score}_initial")
        ]
        nulls = both[[f"{score}_initial", f"{score}_initial_plain"]].notna().all(axis=1).any()
        said.append(
            f"ResNet {score.upper()} is {word} than plain {score.upper()} in {counts[0]} of "
            f"{len(both)} paired cells"
            + f"; before any training it is in {counts[1]} of them, so only a difference beyond "
            "that one would be learnt" * bool(nulls) + "."
        )
    return said
