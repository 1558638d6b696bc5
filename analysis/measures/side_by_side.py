"""The numbers of the paper's Tables 2 to 7 side by side: measured here, printed in the paper."""

import numpy as np
import pandas as pd

from analysis.measures import paper
from analysis.measures.cells import (
    as_strings,
    done,
    mean_interval,
    other_settings,
    varying,
    without_collapsed,
)
from analysis.results import Results

DEPTHS = {1: 10, 4: 5}  # K -> blocks of each stage in the paper (Table 1)
QUANTITIES = {
    "train_accuracy": "Train accuracy",
    "test_accuracy": "Test accuracy",
    "ots": "OTS",
    "lsr": "LSR",
    "lss": "LSS",
}
SHARE = "segment_share"
KEY = ["dataset", "layers", "stages", "m", "setting"]
BY = [*KEY, "network", "gamma"]
# fmt: off
ORDER = [
    "table", *KEY, "network", "gamma", "gamma_printed", "quantity", "segment", "here", "here_ci95",
    "here_std", "seeds", "paper", "paper_std", "difference",
]
# fmt: on
COLUMNS = {"tracks": ["trial", "epoch", "stage", "shares"]}  # the columns that are read


def side_by_side(results: Results, trials: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every number of Tables 2 to 7 that was measured here, or printed for these networks.

    Args:
        results: from :func:`analysis.results.load`; only trials that are done are used.
        trials: from :func:`keyed`, if it is already computed.

    Returns:
        One row per data set, layers, K, m, other setting that varies, network, gamma, quantity and
        segment: ``table`` of the paper, or null; ``here``, the mean over seeds; ``here_ci95``, the
        half-width of its 95% t-interval; ``here_std``, the deviation over stages (ddof = 0, K > 1),
        mean over seeds; ``seeds``; ``paper`` and ``paper_std``; ``difference``, here minus paper:
        of OTS, which falls with m, only if m is one that the paper's may have.
        Accuracies, OTS and shares are fractions, LSR and LSS dimensionless. Train accuracy is the
        running one, on augmented images; the paper's seems to be the same. Collapsed trials have
        no OTS.
    """
    trials = keyed(results) if trials is None else trials
    if not len(trials):
        return pd.DataFrame(columns=ORDER)
    scores = mean_interval(trials, BY, [*QUANTITIES])
    deviations = trials.groupby(BY, dropna=False)[["ots_std", "lsr_std", "lss_std"]].mean()
    seeds = trials.groupby(BY, dropna=False)[[*QUANTITIES]].count()
    parts = [
        pd.DataFrame(
            {
                "quantity": name,
                "segment": pd.NA,
                "here": scores[name],
                "here_ci95": scores[f"{name}_ci95"],
                "here_std": deviations.get(f"{name}_std", np.nan),
                "seeds": seeds[name],
            }
        )
        for name in QUANTITIES
    ]
    table = pd.concat([part.reset_index() for part in [*parts, _shares(results, trials)]])
    table.loc[table.stages == 1, "here_std"] = np.nan
    # NaN means the depth of Table 1. A depth that varies is part of the key's setting.
    depth = trials.groupby(KEY, dropna=False).depth.max().reset_index()
    table = table.merge(depth, on=KEY, how="left")
    whole = pd.concat([_with_paper(key, group) for key, group in table.groupby(KEY, dropna=False)])
    whole = whole[whole.here.notna() | whole.paper.notna()]
    whole["difference"] = (whole.here - whole.paper).where(~_other_m(whole))
    return whole[ORDER].astype({"table": "Int64"}).reset_index(drop=True)


def _other_m(table: pd.DataFrame) -> pd.Series:
    """Whether a row has an OTS at another m than the paper's OTS."""
    known = [m in paper.SIZES.get(k, ()) for k, m in zip(table.stages, table.m, strict=True)]
    return table.quantity.eq("ots") & ~pd.Series(known, table.index, "bool")


def keyed(results: Results) -> pd.DataFrame:
    """Trials that are done, with ``m`` and ``setting``: the other varying columns as one text."""
    trials = without_collapsed(done(results))
    others = [name for name in varying(results.trials) if name != "layers"]
    return trials.assign(m=trials.points, setting=other_settings(trials, others))


def _shares(results: Results, trials: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of the segment shares after training, at K = 1; indexed by BY."""
    tracks = as_strings(results.tracks[["trial", "epoch", "shares"]]).dropna(subset=["shares"])
    tracks = tracks.merge(trials[trials.stages == 1][["trial", *BY]])
    last = tracks[tracks.epoch == tracks.groupby("trial").epoch.transform("max")]
    rows = last.explode("shares").rename(columns={"shares": "here"})
    rows = rows.assign(segment=rows.groupby("trial").cumcount() + 1, quantity=SHARE)
    rows["here"] = rows.here.astype("float64")
    means = mean_interval(rows, [*BY, "quantity", "segment"], ["here"])
    means["seeds"] = rows.groupby([*BY, "quantity", "segment"], dropna=False).here.count()
    means["here_std"] = np.nan
    return means.reset_index(["quantity", "segment"])


def _with_paper(key: tuple, group: pd.DataFrame) -> pd.DataFrame:
    """Join the numbers measured for one key with those that the paper has for it."""
    (dataset, layers, stages, *_), depth = key, group.depth.iloc[0]
    known = paper.numbers()
    known = known[(known.dataset == dataset) & (known.stages == stages)]
    if layers != "convolutional" or (depth > 0 and depth != DEPTHS.get(stages)):
        known = known[:0]
    on = ["network", "gamma", "quantity", "segment"]
    known = known[["table", *on, "gamma_printed", "paper", "paper_std"]]
    group, known = (frame.astype({"segment": "Int64"}) for frame in (group, known))
    joined = group.drop(columns=[*KEY, "depth"]).merge(known, on=on, how="outer", sort=True)
    return joined.assign(**dict(zip(KEY, key, strict=True)))
