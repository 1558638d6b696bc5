"""A sweep as a table with a row per cell."""

import pandas as pd

from analysis.measures.cells import CELL, as_strings, mean_interval, varying, without_collapsed
from analysis.results import Results

SCORES = [
    *("test_accuracy", "lss", "ots", "clean_train_accuracy", "train_accuracy"),
    *("inverse_lss", "lsr", "gap"),
]
NULLS = {
    "lss": ["lss_initial", "lss_random"],
    "ots": ["ots_initial", "ots_random"],
    "gap": ["gap_initial"],
}


def summary(results: Results) -> pd.DataFrame:
    """One row per cell of the sweep: what the trials that differ in their seed alone gave.

    Args:
        results: of :func:`analysis.results.load`.

    Returns:
        Frame with the cell (dataset, stages, layers, network, gamma, any other column of the
        configuration that varies in the sweep, m), ``seeds`` (trials done), ``stopped`` (early,
        by ASHA), ``diverged``, ``failed``, ``collapsed`` (done, but in no mean of OTS and gap),
        ``without_ots`` (done, but not measured), then each score's mean over the trials that are
        done with the half-width of its 95% t-interval (``_ci95``; NaN with one seed), and beside
        LSS, OTS and gap their nulls: the value at initialisation, sqrt(n) and 1/m.
        ``suboptimality`` is the largest of the cell: no trial's W2^2 is a larger share above the
        optimum. OTS compares at equal m only.
    """
    cell = [*CELL, *varying(results.trials), "points"]
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
    nulls = [name for names in NULLS.values() for name in names]
    table = counts.join(mean_interval(trials[ended], cell, [*SCORES, *nulls]))
    table = table.join(trials[ended].groupby(cell, dropna=False)["suboptimality"].max())
    columns = [*cell, *count]
    for score in SCORES:
        columns += [score, f"{score}_ci95", *NULLS.get(score, [])]
    return table.reset_index()[[*columns, "suboptimality"]].rename(columns={"points": "m"})
