"""A sweep as a table with one row per cell."""

import pandas as pd

from analysis.measures.cells import as_strings, cell_columns, mean_interval, without_collapsed
from analysis.results import Results

# fmt: off
SCORES = [
    "test_accuracy", "geodesic_excess", "straightness_factor", "transport_factor",
    "transport_share", "lss", "lss_scaled", "ots", "clean_train_accuracy", "train_accuracy",
    "inverse_lss", "lsr", "gap",
]
# fmt: on
BASELINES = {  # score -> columns with its baselines
    "geodesic_excess": ["geodesic_excess_initial"],
    "straightness_factor": ["straightness_factor_initial"],
    "transport_factor": ["transport_factor_initial"],
    "transport_share": ["transport_share_initial"],
    "lss": ["lss_initial", "lss_random"],
    "lss_scaled": ["lss_scaled_initial"],
    "ots": ["ots_initial", "ots_shuffled", "ots_random"],
    "gap": ["gap_initial"],
}


def summary(results: Results) -> pd.DataFrame:
    """One row per cell of the sweep, with means over seeds.

    Args:
        results: from :func:`analysis.results.load`.

    Returns:
        Frame with the cell (dataset, stages, layers, network, gamma, any other column of the
        configuration that varies in the sweep, m) and counts of trials: ``seeds`` (done),
        ``stopped`` (early, by ASHA), ``diverged``, ``failed``, ``collapsed`` (done, but not in the
        means of OTS and gap), ``without_ots`` (done, but OTS was not measured); of several
        sweeps together also ``folders``, those that its trials are from. Then for each score the
        mean over the trials that are done and the half-width of its 95% t-interval (``_ci95``; NaN
        with one seed). The geodesic excess, its factors, LSS (also on states of equal size),
        OTS and gap are followed by their baselines: the value before training, OTS of shuffled
        displacements, sqrt(n) and 1/m. ``suboptimality`` is the largest of the cell: in no trial
        does W2^2 exceed the optimum by a larger share. Compare OTS at equal m only.
    """
    cell = cell_columns(results)
    trials = without_collapsed(as_strings(results.trials))
    ended, collapsed = trials.status == "done", trials.collapsed.eq(True)
    count = {
        "seeds": ended,
        "stopped": trials.status == "stopped",
        "diverged": trials.status == "diverged",
        "failed": ~trials.status.isin(["done", "stopped", "diverged"]),
        "collapsed": ended & collapsed,
        "without_ots": ended & ~collapsed & trials.ots.isna(),
    }
    groups = [trials[name] for name in cell]
    counts = pd.DataFrame(count).groupby(groups, dropna=False).sum()
    baselines = [name for names in BASELINES.values() for name in names]
    table = counts.join(mean_interval(trials[ended], cell, [*SCORES, *baselines]))
    table = table.join(trials[ended].groupby(cell, dropna=False)["suboptimality"].max())
    columns = [*cell, *count]
    if "folder" in trials:
        parts = trials.groupby(cell, dropna=False)["folder"]
        table["folders"] = parts.agg(lambda names: ", ".join(sorted({*names})))
        columns.append("folders")
    for score in SCORES:
        columns += [score, f"{score}_ci95", *BASELINES.get(score, [])]
    return table.reset_index()[[*columns, "suboptimality"]].rename(columns={"points": "m"})
